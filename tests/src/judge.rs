//! Says what one captured frame is: WireGuard, the TLS of enrolment, neighbours finding each other, or clear.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
const HOP_BY_HOP: u8 = 0;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP_V6: u8 = 58;
/// Multicast listener queries and reports (RFC 2710, RFC 3810) and neighbour discovery (RFC 4861).
const NEIGHBOUR_TYPES: &[u8] = &[130, 131, 132, 133, 134, 135, 136, 143];

/// Who may talk to whom on the access wire.
#[derive(Debug, Clone)]
pub struct Allowed {
    /// The router's own addresses there.
    pub router: Vec<IpAddr>,
    /// The gateway's WireGuard sockets.
    pub gateways: Vec<SocketAddr>,
    /// The gateways' relays: QUIC and TLS.
    pub relays: Vec<SocketAddr>,
    /// The provisioning server's TLS sockets.
    pub provisioning: Vec<SocketAddr>,
}

/// What a frame is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A WireGuard datagram between the router and a gateway.
    WireGuard,
    /// TCP between the router and provisioning, carrying TLS records.
    ProvisioningTls,
    /// QUIC, or TCP carrying TLS records, between the router and a relay.
    Relay,
    /// ARP, neighbour discovery, multicast listener reports.
    Neighbour,
    /// Anything else: it should not be on this wire.
    Clear(String),
}

impl Allowed {
    /// Judges one Ethernet frame.
    pub fn judge(&self, frame: &[u8]) -> Kind {
        let Some(ether_type) = half(frame, 12) else {
            return Kind::Clear("a frame too short".into());
        };
        let packet = frame.get(14..).unwrap_or_default();
        match ether_type {
            ARP => Kind::Neighbour,
            IPV4 => self.judge_v4(packet),
            IPV6 => self.judge_v6(packet),
            other => Kind::Clear(format!("ether type {other:#06x}")),
        }
    }

    fn judge_v4(&self, packet: &[u8]) -> Kind {
        let Some(header) = packet.first_chunk::<20>() else {
            return Kind::Clear("a short IPv4 packet".into());
        };
        let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *header;
        let from = IpAddr::from(Ipv4Addr::new(s0, s1, s2, s3));
        let to = IpAddr::from(Ipv4Addr::new(d0, d1, d2, d3));
        let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0;
        if fragment {
            return Kind::Clear(format!("a fragment {from} > {to}"));
        }
        let payload = packet
            .get(usize::from(header[0] & 0x0f) * 4..)
            .unwrap_or_default();
        self.judge_transport(from, to, header[9], payload)
    }

    fn judge_v6(&self, packet: &[u8]) -> Kind {
        let Some(header) = packet.first_chunk::<40>() else {
            return Kind::Clear("a short IPv6 packet".into());
        };
        let address = |at: usize| {
            let bytes: Option<[u8; 16]> = header.get(at..at + 16).and_then(|b| b.try_into().ok());
            IpAddr::from(Ipv6Addr::from(bytes.unwrap_or_default()))
        };
        let (from, to) = (address(8), address(24));
        let mut payload = packet.get(40..).unwrap_or_default();
        let mut protocol = header[6];
        if let (HOP_BY_HOP, [next, units, ..]) = (protocol, payload) {
            protocol = *next;
            payload = payload
                .get((usize::from(*units) + 1) * 8..)
                .unwrap_or_default();
        }
        let kind = payload.first().copied().unwrap_or_default();
        if protocol == ICMP_V6 && NEIGHBOUR_TYPES.contains(&kind) {
            return Kind::Neighbour;
        }
        self.judge_transport(from, to, protocol, payload)
    }

    fn judge_transport(&self, from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Kind {
        let (Some(source), Some(destination)) = (half(payload, 0), half(payload, 2)) else {
            return Kind::Clear(format!("protocol {protocol} {from} > {to}"));
        };
        let (from, to) = (
            SocketAddr::new(from, source),
            SocketAddr::new(to, destination),
        );
        let between = |servers: &[SocketAddr]| {
            (self.router.contains(&from.ip()) && servers.contains(&to))
                || (self.router.contains(&to.ip()) && servers.contains(&from))
        };
        match protocol {
            UDP if between(&self.gateways) && looks_like_wireguard(payload) => Kind::WireGuard,
            // QUIC hides all but its first bits, of which none is sure (RFC 9287).
            UDP if between(&self.relays) && !looks_like_wireguard(payload) => Kind::Relay,
            TCP if between(&self.relays) && !starts_in_clear(payload) => Kind::Relay,
            TCP if between(&self.provisioning) && !starts_in_clear(payload) => {
                Kind::ProvisioningTls
            }
            UDP => Kind::Clear(format!("UDP {from} > {to}")),
            TCP => Kind::Clear(format!("TCP {from} > {to}")),
            other => Kind::Clear(format!("protocol {other} {} > {}", from.ip(), to.ip())),
        }
    }
}

/// Message types 1 to 4 and three zero bytes, behind the UDP header.
fn looks_like_wireguard(udp: &[u8]) -> bool {
    matches!(udp.get(8..12), Some([1..=4, 0, 0, 0]))
}

/// A request line is what a client without TLS would begin with.
fn starts_in_clear(tcp: &[u8]) -> bool {
    let offset = tcp.get(12).map_or(0, |b| usize::from(b >> 4) * 4);
    let data = tcp.get(offset..).unwrap_or_default();
    [b"GET ".as_slice(), b"POST", b"PUT ", b"HTTP"]
        .iter()
        .any(|verb| data.starts_with(verb))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let two = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes(two.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed() -> Allowed {
        Allowed {
            router: vec!["198.18.0.2".parse().unwrap()],
            gateways: vec!["198.18.1.2:51820".parse().unwrap()],
            relays: vec!["198.18.1.2:443".parse().unwrap()],
            provisioning: vec!["198.18.2.2:8443".parse().unwrap()],
        }
    }

    fn frame(protocol: u8, from: &str, to: &str, data: &[u8]) -> Vec<u8> {
        let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
        let mut bytes = vec![0; 12];
        bytes.extend(IPV4.to_be_bytes());
        bytes.extend([0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0]);
        for end in [from, to] {
            let IpAddr::V4(address) = end.ip() else {
                panic!("the test speaks IPv4")
            };
            bytes.extend(address.octets());
        }
        bytes.extend(from.port().to_be_bytes());
        bytes.extend(to.port().to_be_bytes());
        bytes.extend(if protocol == TCP {
            [0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0].as_slice()
        } else {
            &[0; 4]
        });
        if protocol == TCP {
            bytes.extend([0; 6]);
        }
        bytes.extend(data);
        bytes
    }

    #[test]
    fn a_lookup_in_clear_is_clear() {
        let lookup = frame(UDP, "198.18.0.2:4000", "203.0.113.53:53", b"www");

        assert_eq!(
            allowed().judge(&lookup),
            Kind::Clear("UDP 198.18.0.2:4000 > 203.0.113.53:53".into())
        );
    }

    #[test]
    fn a_packet_of_the_home_to_the_gateways_port_is_clear() {
        let packet = frame(UDP, "192.168.1.10:4000", "198.18.1.2:51820", &[4, 0, 0, 0]);

        assert!(matches!(allowed().judge(&packet), Kind::Clear(_)));
    }

    #[test]
    fn other_bytes_on_the_wireguard_port_are_clear() {
        let packet = frame(
            UDP,
            "198.18.0.2:4000",
            "198.18.1.2:51820",
            b"GET / HTTP/1.1",
        );

        assert!(matches!(allowed().judge(&packet), Kind::Clear(_)));
    }

    #[test]
    fn http_on_the_provisioning_port_is_clear() {
        let packet = frame(
            TCP,
            "198.18.0.2:4000",
            "198.18.2.2:8443",
            b"POST /v1/enrol HTTP/1.1",
        );

        assert!(matches!(allowed().judge(&packet), Kind::Clear(_)));
    }

    #[test]
    fn wireguard_on_the_relays_port_is_clear_and_quic_is_not() {
        let wireguard = frame(UDP, "198.18.0.2:4000", "198.18.1.2:443", &[4, 0, 0, 0]);
        let quic = frame(UDP, "198.18.1.2:443", "198.18.0.2:4000", &[0x4c, 1, 2, 3]);

        assert!(matches!(allowed().judge(&wireguard), Kind::Clear(_)));
        assert_eq!(allowed().judge(&quic), Kind::Relay);
    }

    #[test]
    fn a_frame_cut_at_any_byte_is_never_taken_for_wireguard() {
        let packet = frame(UDP, "198.18.0.2:4000", "198.18.1.2:51820", &[4, 0, 0, 0]);

        for cut in 0..packet.len() {
            assert!(
                matches!(allowed().judge(&packet[..cut]), Kind::Clear(_)),
                "cut at {cut}"
            );
        }
        assert_eq!(allowed().judge(&packet), Kind::WireGuard);
    }

    #[test]
    fn the_two_allowed_talks_are_named() {
        let tls = frame(TCP, "198.18.2.2:8443", "198.18.0.2:4000", &[0x16, 3, 3]);
        let mut arp = vec![0; 12];
        arp.extend(ARP.to_be_bytes());

        assert_eq!(allowed().judge(&tls), Kind::ProvisioningTls);
        assert_eq!(allowed().judge(&arp), Kind::Neighbour);
    }
}
