//! The few fields of an inner packet's IP header that decide where it may go (RFC 791 section 3.1, RFC 8200 section 3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::dropped::Dropped;

const IPV4_HEADER_BYTES: usize = 20;
const IPV6_HEADER_BYTES: usize = 40;

/// Whom an inner packet is from and for, and how long it says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The source address.
    pub source: IpAddr,
    /// The destination address.
    pub destination: IpAddr,
    /// The length of the whole packet, at most that of the bytes it was read from.
    pub len: usize,
}

/// Reads the header of `packet`, which may have padding behind it.
///
/// # Errors
/// [`Dropped::Malformed`] when it is not IPv4 or IPv6, or shorter than it says.
pub fn parse(packet: &[u8]) -> Result<Header, Dropped> {
    let first = *packet.first().ok_or(Dropped::Malformed)?;
    match first >> 4 {
        4 => parse_v4(first, packet),
        6 => parse_v6(packet),
        _ => None,
    }
    .filter(|header| header.len <= packet.len())
    .ok_or(Dropped::Malformed)
}

fn parse_v4(first: u8, packet: &[u8]) -> Option<Header> {
    let header = packet.first_chunk::<IPV4_HEADER_BYTES>()?;
    let header_len = usize::from(first & 0x0f) * 4;
    let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header_len < IPV4_HEADER_BYTES || len < header_len {
        return None;
    }
    let address = |at: usize| {
        let bytes: [u8; 4] = header.get(at..at + 4)?.try_into().ok()?;
        Some(IpAddr::from(Ipv4Addr::from(bytes)))
    };
    Some(Header {
        source: address(12)?,
        destination: address(16)?,
        len,
    })
}

fn parse_v6(packet: &[u8]) -> Option<Header> {
    let header = packet.first_chunk::<IPV6_HEADER_BYTES>()?;
    let len = IPV6_HEADER_BYTES + usize::from(u16::from_be_bytes([header[4], header[5]]));
    let address = |at: usize| {
        let bytes: [u8; 16] = header.get(at..at + 16)?.try_into().ok()?;
        Some(IpAddr::from(Ipv6Addr::from(bytes)))
    };
    Some(Header {
        source: address(8)?,
        destination: address(24)?,
        len,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A packet of `len` bytes from one address to another, with nothing but zeros in it.
    pub(crate) fn ip_packet(source: IpAddr, destination: IpAddr, len: usize) -> Vec<u8> {
        let mut packet = vec![0; len];
        let total = u16::try_from(len).unwrap();
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                packet[0] = 0x45;
                packet[2..4].copy_from_slice(&total.to_be_bytes());
                packet[12..16].copy_from_slice(&source.octets());
                packet[16..20].copy_from_slice(&destination.octets());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                packet[0] = 0x60;
                packet[4..6].copy_from_slice(&(total - 40).to_be_bytes());
                packet[8..24].copy_from_slice(&source.octets());
                packet[24..40].copy_from_slice(&destination.octets());
            }
            _ => panic!("mixed families"),
        }
        packet
    }

    #[test]
    fn what_is_no_whole_ip_packet_is_malformed() {
        let v4 = ip_packet([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 28);
        let v6 = ip_packet("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap(), 48);
        let with = |packet: &[u8], at: usize, byte: u8| {
            let mut changed = packet.to_vec();
            changed[at] = byte;
            changed
        };

        for bad in [
            vec![],
            vec![0x45],
            v4[..19].to_vec(),
            v4[..27].to_vec(),
            v6[..39].to_vec(),
            v6[..47].to_vec(),
            with(&v4, 0, 0x44),
            with(&v4, 0, 0x55),
            with(&v4, 3, 19),
            with(&v4, 3, 29),
            with(&v6, 5, 9),
        ] {
            assert_eq!(parse(&bad), Err(Dropped::Malformed), "{bad:02x?}");
        }
    }

    #[test]
    fn addresses_and_length_are_read_and_padding_is_left_out() {
        for (source, destination, len) in [
            ("10.64.0.7", "203.0.113.9", 28),
            ("fd64::7", "2001:db8::9", 48),
        ] {
            let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
            let mut packet = ip_packet(source, destination, len);
            packet.extend([0; 7]);

            assert_eq!(
                parse(&packet),
                Ok(Header {
                    source,
                    destination,
                    len
                })
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_promise_more_than_there_is(bytes in proptest::collection::vec(any::<u8>(), 0..96)) {
            if let Ok(header) = parse(&bytes) {
                prop_assert!(header.len <= bytes.len());
            }
        }
    }
}
