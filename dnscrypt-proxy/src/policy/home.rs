//! The home's own names: from `hosts` files, and from the leases that a DHCP server writes down. What a device calls
//! itself is untrusted, and never logged.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;

use super::lines;
use super::lists::{address, words};
use super::name::{MAX_NAME, is_dotless, parent_at, to_wire, zone_at};

/// More names are not taken.
pub(super) const MAX_NAMES: usize = 4096;
/// More addresses of one name are not taken.
pub(super) const MAX_ADDRESSES: usize = 8;
/// What is read of one file.
const MAX_FILE_BYTES: u64 = 512 << 10;
/// Names by which every device of a home would be led: none of them is a device's to take (CERT VU#598349).
const NEVER_A_DEVICE: [&[u8]; 3] = [b"wpad", b"isatap", b"localhost"];

/// Names with their addresses.
#[derive(Debug, Default)]
pub(super) struct Home {
    index: HashMap<Box<[u8]>, usize>,
    hosts: Vec<Host>,
}

#[derive(Debug, PartialEq, Eq)]
struct Host {
    name: Box<[u8]>,
    addresses: Vec<IpAddr>,
}

impl Home {
    /// Reads the files. Where one name is in both, that of the hosts file counts.
    pub(super) fn read(hosts: &[PathBuf], leases: &[PathBuf], domain: &[u8]) -> Self {
        let mut home = Self::default();
        for path in hosts {
            let add = &mut |line: &[u8]| home.add_hosts_line(line, domain);
            lines::of_file(path, MAX_FILE_BYTES, add);
        }
        let configured = home.hosts.len();
        for path in leases {
            let add = &mut |line: &[u8]| home.add_lease_line(line, domain, configured);
            lines::of_file(path, MAX_FILE_BYTES, add);
        }
        home
    }

    /// `address name name… # comment`
    pub(super) fn add_hosts_line(&mut self, line: &[u8], domain: &[u8]) {
        let mut words = words(line);
        let Some(address) = words.next().and_then(address) else {
            return;
        };
        for name in words {
            let is_this_machine = address.is_loopback() && !name.contains(&b'.');
            if !is_this_machine {
                self.add(name, domain, address, 0);
            }
        }
    }

    /// `expiry mac-or-iaid address name id`, as dnsmasq writes it. Names from before `configured` stay as they are.
    pub(super) fn add_lease_line(&mut self, line: &[u8], domain: &[u8], configured: usize) {
        let mut words = words(line);
        let is_lease = words
            .next()
            .is_some_and(|expiry| expiry.iter().all(u8::is_ascii_digit));
        let (Some(address), Some(name)) = (words.nth(1).and_then(address), words.next()) else {
            return;
        };
        let is_taken = NEVER_A_DEVICE
            .iter()
            .any(|never| name.eq_ignore_ascii_case(never));
        if is_lease && !is_taken && !name.contains(&b'.') && !domain.is_empty() {
            self.add(name, domain, address, configured);
        }
    }

    fn add(&mut self, text: &[u8], domain: &[u8], address: IpAddr, configured: usize) {
        let mut room = [0; MAX_NAME];
        let Some(name) = to_wire(text, &mut room) else {
            return;
        };
        let Some(name) = in_domain(name, domain) else {
            return;
        };
        if let Some(at) = self.index.get(&name).copied() {
            let host = self.hosts.get_mut(at).filter(|_| at >= configured);
            if let Some(host) = host.filter(|host| host.addresses.len() < MAX_ADDRESSES)
                && !host.addresses.contains(&address)
            {
                host.addresses.push(address);
            }
            return;
        }
        if self.hosts.len() < MAX_NAMES {
            self.index.insert(name.clone(), self.hosts.len());
            self.hosts.push(Host {
                name,
                addresses: vec![address],
            });
        }
    }

    /// The addresses of a name, or of the bare name of one in the domain.
    pub(super) fn addresses(&self, name: &[u8], domain: &[u8]) -> Option<&[IpAddr]> {
        if self.hosts.is_empty() {
            return None;
        }
        let at = match self.index.get(name) {
            None if is_dotless(name) => self.index.get(&in_domain(name, domain)?),
            at => at,
        };
        Some(&self.hosts.get(*at?)?.addresses)
    }

    /// The name of an address, the first that was given to it.
    pub(super) fn name_of(&self, address: IpAddr) -> Option<&[u8]> {
        let host = self
            .hosts
            .iter()
            .find(|host| host.addresses.contains(&address))?;
        Some(&host.name)
    }

    /// Whether there are names below a name.
    pub(super) fn has_below(&self, name: &[u8]) -> bool {
        self.hosts
            .iter()
            .any(|host| zone_at(&host.name, name).is_some())
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.hosts.len()
    }
}

/// A name as it is kept: a bare one belongs to the domain.
fn in_domain(name: &[u8], domain: &[u8]) -> Option<Box<[u8]>> {
    if !is_dotless(name) || domain.is_empty() {
        return Some(name.into());
    }
    let label = name.get(..parent_at(name))?;
    let whole = [label, domain].concat();
    (whole.len() <= MAX_NAME).then(|| whole.into_boxed_slice())
}
