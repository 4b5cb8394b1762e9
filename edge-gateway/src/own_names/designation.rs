//! What the doors are told as: service bindings (RFC 9461), one for each kind of door and port.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use hickory_proto::rr::Name;
use hickory_proto::rr::rdata::svcb::{Alpn, IpHint, SvcParamKey, SvcParamValue, Unknown};
use hickory_proto::rr::rdata::{A, AAAA, SVCB};

use crate::config;
use crate::doors;

/// `dohpath` (RFC 9461, section 5).
const DOHPATH: u16 = 7;

/// The doors as devices are told of them.
pub(super) struct Designation {
    /// The name in the certificate.
    pub(super) host: Name,
    /// Where those ask who know the name (RFC 9462, section 5).
    pub(super) service: Name,
    /// Of all doors.
    pub(super) addresses: Vec<IpAddr>,
    records: Vec<SVCB>,
}

impl Designation {
    pub(super) fn new(config: &config::Doors) -> Self {
        let host = config.host.clone();
        let doors: [(&[&str], _); 4] = [
            (&["h2", "h3"], &config.https),
            (&["h2"], &config.shared),
            (&["doq"], &config.quic),
            (&["dot"], &config.tls),
        ];
        let mut records = Vec::new();
        for (protocols, listen) in doors {
            for (port, addresses) in by_port(listen) {
                let priority = u16::try_from(records.len() + 1).unwrap_or(u16::MAX);
                let parameters = parameters(protocols, port, &addresses);
                records.push(SVCB::new(priority, host.clone(), parameters));
            }
        }
        let listen = doors.map(|(_, listen)| listen);
        let mut addresses: Vec<IpAddr> = listen.into_iter().flatten().map(SocketAddr::ip).collect();
        addresses.sort_unstable();
        addresses.dedup();
        Self {
            service: host.prepend_label("_dns").unwrap_or_default(),
            host,
            addresses,
            records,
        }
    }

    /// Preferred ones first.
    pub(super) fn records(&self) -> &[SVCB] {
        &self.records
    }
}

fn by_port(listen: &[SocketAddr]) -> BTreeMap<u16, Vec<IpAddr>> {
    let mut ports: BTreeMap<u16, Vec<IpAddr>> = BTreeMap::new();
    for address in listen {
        ports.entry(address.port()).or_default().push(address.ip());
    }
    ports
}

/// In the order of their keys (RFC 9460, section 2.2).
fn parameters(
    protocols: &[&str],
    port: u16,
    addresses: &[IpAddr],
) -> Vec<(SvcParamKey, SvcParamValue)> {
    let protocols: Vec<String> = protocols.iter().map(|name| (*name).to_owned()).collect();
    let is_http = protocols.iter().any(|name| name == "h2");
    let mut parameters = vec![
        (SvcParamKey::Alpn, SvcParamValue::Alpn(Alpn(protocols))),
        (SvcParamKey::Port, SvcParamValue::Port(port)),
    ];
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for address in addresses {
        match address {
            IpAddr::V4(address) => v4.push(A(*address)),
            IpAddr::V6(address) => v6.push(AAAA(*address)),
        }
    }
    if !v4.is_empty() {
        parameters.push((SvcParamKey::Ipv4Hint, SvcParamValue::Ipv4Hint(IpHint(v4))));
    }
    if !v6.is_empty() {
        parameters.push((SvcParamKey::Ipv6Hint, SvcParamValue::Ipv6Hint(IpHint(v6))));
    }
    if is_http {
        let path = format!("{}{{?dns}}", doors::PATH).into_bytes();
        let path = SvcParamValue::Unknown(Unknown(path));
        parameters.push((SvcParamKey::Unknown(DOHPATH), path));
    }
    parameters
}
