//! Who may use which inner address: the check of a packet's source.

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
}
