//! Addresses that two parts of the gateway want: not all of them are found by a bind, since sockets of several workers
//! share their ports, and then one part would get the other's packets.

use std::net::SocketAddr;

use toml::Table;

use super::fields::Fields;
use super::{Dns, Mistake, Relay, Tunnel};

/// A socket, or one of each kind, or none of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    Udp,
    Tcp,
    Both,
    /// What comes to the socket of `dns.listen`, and is TLS.
    Shared,
}

impl Over {
    fn meets(self, other: Self) -> bool {
        match (self, other) {
            (Self::Shared, _) | (_, Self::Shared) => self == other,
            (Self::Both, _) | (_, Self::Both) => true,
            (Self::Udp | Self::Tcp, _) => self == other,
        }
    }
}

struct Listener {
    key: &'static str,
    address: SocketAddr,
    over: Over,
}

impl Listener {
    fn clashes(&self, other: &Self) -> bool {
        let (own, others) = (self.address, other.address);
        let is_any = own.ip().is_unspecified() || others.ip().is_unspecified();
        own.port() == others.port()
            && self.over.meets(other.over)
            && own.is_ipv4() == others.is_ipv4()
            && (is_any || own.ip() == others.ip())
    }
}

/// Notes every address that somebody before has already.
pub(super) fn note(
    tunnel: Option<&Tunnel>,
    (dns, relay, metrics): (Option<&Dns>, Option<&Relay>, Option<SocketAddr>),
    mistakes: &mut Vec<Mistake>,
) {
    let mut listeners: Vec<Listener> = Vec::new();
    let mut add = |key, addresses: &[SocketAddr], over| {
        listeners.extend(addresses.iter().map(|address| Listener {
            key,
            address: *address,
            over,
        }));
    };
    if let Some(tunnel) = tunnel {
        add("tunnel.listen", &tunnel.listen, Over::Udp);
    }
    if let Some(dns) = dns {
        let is_inner =
            |address: &&SocketAddr| dns.behind.iter().any(|net| net.addr() == address.ip());
        let (inner, public): (Vec<SocketAddr>, Vec<_>) = dns.listen.iter().partition(is_inner);
        add("dns.listen", &inner, Over::Both);
        add("dns.public-listen", &public, Over::Both);
    }
    if let Some(doors) = dns.and_then(|dns| dns.doors.as_ref()) {
        add("dns.doors.tls", &doors.tls, Over::Tcp);
        add("dns.doors.https", &doors.https, Over::Both);
        add("dns.doors.https", &doors.shared, Over::Shared);
        add("dns.doors.quic", &doors.quic, Over::Udp);
    }
    if let Some(relay) = relay {
        add("relay.listen", &relay.listen, Over::Both);
    }
    if let Some(metrics) = metrics {
        add("metrics.listen", &[metrics], Over::Tcp);
    }
    let mut all = Fields::new("", Table::new(), mistakes);
    for (number, own) in listeners.iter().enumerate() {
        let mut before = listeners.iter().take(number);
        if let Some(other) = before.find(|other| other.clashes(own)) {
            let wrong = format!(
                "{} is not free beside {} of {}",
                own.address, other.address, other.key
            );
            all.wrong(own.key, wrong, "an address and port that nothing else has");
        }
    }
}
