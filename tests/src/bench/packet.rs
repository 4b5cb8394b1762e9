//! IPv4 packets made by hand, for clients without a kernel behind them.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context, Result};

/// An IPv4 packet of `size` bytes with UDP and zeros.
pub(super) fn udp(from: Ipv4Addr, to: SocketAddrV4, size: usize) -> Result<Vec<u8>> {
    let length = |bytes: usize| u16::try_from(bytes).map(u16::to_be_bytes);
    let inner = size
        .checked_sub(20)
        .context("a packet shorter than its header")?;
    let (whole, udp) = (length(size)?, length(inner)?);
    let mut bytes = vec![0x45, 0, whole[0], whole[1], 0, 0, 0x40, 0, 64, 17, 0, 0];
    bytes.extend(from.octets());
    bytes.extend(to.ip().octets());
    let sum = checksum(&bytes).to_be_bytes();
    bytes.splice(10..12, sum);
    bytes.extend(9_u16.to_be_bytes());
    bytes.extend(to.port().to_be_bytes());
    // A checksum of zero is none, which IPv4 allows.
    bytes.extend([udp[0], udp[1], 0, 0]);
    bytes.resize(size, 0);
    Ok(bytes)
}

/// The internet checksum of a header.
pub(super) fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks(2).map(|pair| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        _ => 0,
    });
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_shorter_than_its_header_is_none() {
        let to = "10.64.0.1:5000".parse().unwrap();

        assert!(udp(Ipv4Addr::LOCALHOST, to, 19).is_err());
    }

    #[test]
    fn a_packet_has_a_header_that_the_kernel_takes() {
        let to = "10.64.0.1:5000".parse().unwrap();

        let packet = udp("10.64.0.64".parse().unwrap(), to, 1_200).unwrap();

        assert_eq!(packet.len(), 1_200);
        // A header with its checksum in place sums to nothing.
        assert_eq!(checksum(&packet[..20]), 0);
        assert_eq!(packet[22..24], 5_000_u16.to_be_bytes());
    }
}
