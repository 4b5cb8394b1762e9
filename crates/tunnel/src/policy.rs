//! Who may use which inner address: the check of a packet's source, and the way to its destination.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::dropped::Dropped;
use crate::packet::Header;

/// An inner packet whose source address its sender may use; only such a packet goes on to the TUN device.
#[derive(Debug, PartialEq, Eq)]
pub struct SourceChecked<'a>(&'a mut [u8]);

impl<'a> SourceChecked<'a> {
    /// The packet, from its first header byte to its last.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0
    }

    /// The packet, to be changed on its way (checksums, coalescing).
    #[must_use]
    pub fn into_bytes(self) -> &'a mut [u8] {
        self.0
    }

    /// Admits a packet from a peer that may use `allowed` and nothing else.
    pub(crate) fn from_peer(
        packet: &'a mut [u8],
        header: &Header,
        allowed: &[IpNet],
    ) -> Result<Self, Dropped> {
        if !contains(allowed, header.source) {
            return Err(Dropped::SourceMismatch);
        }
        Self::cut(packet, header)
    }

    /// Admits a packet from the gateway for one of `ours`: from any address but ours.
    pub(crate) fn from_gateway(
        packet: &'a mut [u8],
        header: &Header,
        ours: &[IpNet],
    ) -> Result<Self, Dropped> {
        if contains(ours, header.source) {
            return Err(Dropped::SourceMismatch);
        }
        if !contains(ours, header.destination) {
            return Err(Dropped::NotRouted);
        }
        Self::cut(packet, header)
    }

    fn cut(packet: &'a mut [u8], header: &Header) -> Result<Self, Dropped> {
        packet
            .get_mut(..header.len)
            .map(Self)
            .ok_or(Dropped::Malformed)
    }
}

/// Whether one of `nets` has `address`.
pub(crate) fn contains(nets: &[IpNet], address: IpAddr) -> bool {
    nets.iter().any(|net| net.contains(&address))
}

/// The slot of a peer in the table of peers.
pub(crate) type Slot = u32;

/// Which peer has an inner address: the longest prefix wins.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    v4: Lengths,
    v6: Lengths,
}

/// One table for each prefix length in use, the longest first; with host leases only, one lookup decides.
type Lengths = Vec<(u8, HashMap<IpAddr, Slot>)>;

impl Routes {
    /// The peer that `address` belongs to.
    pub(crate) fn lookup(&self, address: IpAddr) -> Option<Slot> {
        let lengths = if address.is_ipv4() {
            &self.v4
        } else {
            &self.v6
        };
        lengths
            .iter()
            .find_map(|(len, slots)| slots.get(&masked(address, *len)?).copied())
    }

    /// The holder of exactly `net`.
    pub(crate) fn holder(&self, net: IpNet) -> Option<Slot> {
        let (_, slots) = self
            .lengths(net)
            .iter()
            .find(|(len, _)| *len == net.prefix_len())?;
        slots.get(&net.network()).copied()
    }

    /// Gives `net` to `slot`, whoever had it before.
    pub(crate) fn insert(&mut self, net: IpNet, slot: Slot) {
        let lengths = self.lengths_mut(net);
        let place = lengths.partition_point(|(len, _)| *len > net.prefix_len());
        if lengths
            .get(place)
            .is_none_or(|(len, _)| *len != net.prefix_len())
        {
            lengths.insert(place, (net.prefix_len(), HashMap::new()));
        }
        if let Some((_, slots)) = lengths.get_mut(place) {
            slots.insert(net.network(), slot);
        }
    }

    /// Takes `net` from `slot`, if `slot` has it.
    pub(crate) fn remove(&mut self, net: IpNet, slot: Slot) {
        if self.holder(net) != Some(slot) {
            return;
        }
        let lengths = self.lengths_mut(net);
        if let Some((_, slots)) = lengths.iter_mut().find(|(len, _)| *len == net.prefix_len()) {
            slots.remove(&net.network());
        }
        lengths.retain(|(_, slots)| !slots.is_empty());
    }

    fn lengths(&self, net: IpNet) -> &Lengths {
        if net.addr().is_ipv4() {
            &self.v4
        } else {
            &self.v6
        }
    }

    fn lengths_mut(&mut self, net: IpNet) -> &mut Lengths {
        if net.addr().is_ipv4() {
            &mut self.v4
        } else {
            &mut self.v6
        }
    }
}

fn masked(address: IpAddr, len: u8) -> Option<IpAddr> {
    IpNet::new(address, len).ok().map(|net| net.network())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{parse, tests::ip_packet};

    fn nets(text: &[&str]) -> Vec<IpNet> {
        text.iter().map(|t| t.parse().unwrap()).collect()
    }

    fn checked(source: &str, destination: &str, allowed: &[IpNet]) -> Result<usize, Dropped> {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        let mut packet = ip_packet(source, destination, 60);
        let header = parse(&packet).unwrap();
        SourceChecked::from_peer(&mut packet, &header, allowed).map(|p| p.as_bytes().len())
    }

    #[test]
    fn a_source_outside_the_lease_is_refused() {
        let allowed = nets(&["10.64.0.7/32", "fd64::7/128"]);

        for source in ["10.64.0.8", "127.0.0.1", "0.0.0.0"] {
            assert_eq!(
                checked(source, "192.0.2.1", &allowed),
                Err(Dropped::SourceMismatch)
            );
        }
        assert_eq!(
            checked("fd64::8", "2001:db8::1", &allowed),
            Err(Dropped::SourceMismatch)
        );
        assert_eq!(
            checked("10.64.0.7", "192.0.2.1", &[]),
            Err(Dropped::SourceMismatch)
        );
    }

    #[test]
    fn a_source_of_the_lease_is_admitted() {
        let allowed = nets(&["10.64.0.7/32", "fd64:0:0:7::/64"]);

        assert_eq!(checked("10.64.0.7", "192.0.2.1", &allowed), Ok(60));
        assert_eq!(checked("fd64:0:0:7:1::9", "2001:db8::1", &allowed), Ok(60));
    }

    #[test]
    fn the_gateway_may_neither_use_our_address_nor_send_us_what_is_for_others() {
        let ours = nets(&["10.64.0.7/32"]);
        let judged = |source: [u8; 4], destination: [u8; 4]| {
            let mut packet = ip_packet(source.into(), destination.into(), 20);
            let header = parse(&packet).unwrap();
            SourceChecked::from_gateway(&mut packet, &header, &ours).map(|_| ())
        };

        assert_eq!(
            judged([10, 64, 0, 7], [10, 64, 0, 7]),
            Err(Dropped::SourceMismatch)
        );
        assert_eq!(
            judged([192, 0, 2, 1], [10, 64, 0, 8]),
            Err(Dropped::NotRouted)
        );
        assert_eq!(judged([192, 0, 2, 1], [10, 64, 0, 7]), Ok(()));
    }

    #[test]
    fn the_longest_prefix_wins_and_a_removed_one_is_gone() {
        let mut routes = Routes::default();
        for (slot, net) in nets(&["10.0.0.0/8", "10.64.0.0/16", "10.64.0.7/32"])
            .iter()
            .enumerate()
        {
            routes.insert(*net, Slot::try_from(slot).unwrap());
        }
        let host = "10.64.0.7".parse().unwrap();

        assert_eq!(routes.lookup(host), Some(2));
        assert_eq!(routes.lookup("10.64.0.8".parse().unwrap()), Some(1));
        assert_eq!(routes.lookup("10.65.0.8".parse().unwrap()), Some(0));
        assert_eq!(routes.lookup("11.0.0.1".parse().unwrap()), None);
        assert_eq!(routes.lookup("fd64::1".parse().unwrap()), None);

        routes.remove("10.64.0.7/32".parse().unwrap(), 1);
        assert_eq!(routes.lookup(host), Some(2), "only its holder gives it up");
        routes.remove("10.64.0.7/32".parse().unwrap(), 2);
        assert_eq!(routes.lookup(host), Some(1));
    }
}
