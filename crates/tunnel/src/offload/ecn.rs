//! Congestion marks between the inner and the outer header (RFC 6040; for a shim such as WireGuard RFC 9601 says to do the same).

use crate::dropped::Dropped;
use crate::offload::checksum;

/// The two bits of a congestion mark in an IPv4 TOS or IPv6 traffic class byte (RFC 3168, section 5).
pub const MASK: u8 = 0b11;
const ECT_1: u8 = 0b01;
const CE: u8 = 0b11;

/// Which of the six bits of differentiated services (RFC 2474) the outer header shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OuterTos {
    /// None: an observer learns nothing from them.
    #[default]
    Zero,
    /// Those of the inner packet, for an access network that treats classes differently.
    Copy,
    /// The same for all, 0 to 63.
    Fixed(u8),
}

impl OuterTos {
    /// The outer byte for `packet`; the congestion mark is always the inner one's (RFC 6040, section 4.1, normal mode).
    pub(crate) fn outer(self, packet: &[u8]) -> u8 {
        let inner = traffic_class(packet);
        match self {
            Self::Zero => inner & MASK,
            Self::Copy => inner,
            Self::Fixed(dscp) => dscp << 2 | inner & MASK,
        }
    }
}

/// The TOS or traffic class byte of a whole packet.
pub(crate) fn traffic_class(packet: &[u8]) -> u8 {
    match packet {
        [first, second, ..] if first >> 4 == 6 => first << 4 | second >> 4,
        [_, second, ..] => *second,
        _ => 0,
    }
}

/// Brings the mark of the outer header that arrived into the inner one (RFC 6040, section 4.2, figure 4).
///
/// # Errors
/// When the path says congestion and the inner flow could not be told other than by a loss.
pub(crate) fn decapsulate(packet: &mut [u8], outer: u8) -> Result<(), Dropped> {
    let inner = traffic_class(packet) & MASK;
    match (inner, outer & MASK) {
        (0, CE) => Err(Dropped::Congested),
        (CE, CE) => Ok(()),
        (_, CE) => {
            mark(packet, CE);
            Ok(())
        }
        (0b10, ECT_1) => {
            mark(packet, ECT_1);
            Ok(())
        }
        _ => Ok(()),
    }
}

fn mark(packet: &mut [u8], ecn: u8) {
    match packet {
        [first, second, ..] if *first >> 4 == 6 => *second = *second & !(MASK << 4) | ecn << 4,
        [_, second, ..] => {
            *second = *second & !MASK | ecn;
            let header_len = usize::from(packet.first().map_or(0, |first| first & 0x0f)) * 4;
            if let Some(header) = packet
                .get_mut(..header_len)
                .filter(|header| header.len() >= 20)
            {
                header[10..12].fill(0);
                let sum = checksum::of_header(header);
                header[10..12].copy_from_slice(&sum);
            }
        }
        _ => {}
    }
}
