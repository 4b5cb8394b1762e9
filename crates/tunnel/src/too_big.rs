//! The answer to a packet that does not fit into the tunnel: ICMP "fragmentation needed" (RFC 792, RFC 1191 section 4) and
//! ICMPv6 "packet too big" (RFC 4443 section 3.2). Without it a sender behind the gateway would repeat the same packet
//! until it gives up.
//!
//! No answer goes to an ICMP error, to a fragment that is not the first, or to a source that is not one machine (RFC 1122
//! section 3.2.2, RFC 4443 section 2.4); the number of answers is bounded.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::offload::checksum;
use crate::packet;

/// The longest answer: IPv6's least MTU; over IPv4 576 bytes (RFC 1812 section 4.3.2.3).
pub const MAX_BYTES: usize = 1_280;
const MAX_V4_BYTES: usize = 576;
const V4_HEADER: usize = 20;
const V6_HEADER: usize = 40;
const ICMP_HEADER: usize = 8;
/// Answers in a burst, and the time in which one more is allowed: a hundred a second.
const BURST: u32 = 50;
const REFILL: Duration = Duration::from_millis(10);

const NO_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
const NO_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const DESTINATION_UNREACHABLE: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;
const PACKET_TOO_BIG: u8 = 2;
const TTL: u8 = 64;
/// "Internetwork control" (RFC 1812 section 4.3.2.5).
const PRECEDENCE: u8 = 0xc0;
/// The least that an IPv6 sender obeys (RFC 8200 section 5).
const LEAST_V6_MTU: u16 = 1_280;
/// Extension headers that are looked past.
const MAX_EXTENSIONS: usize = 8;

/// Makes the answers of one sender of them, a worker or an agent.
#[derive(Debug)]
pub struct TooBig {
    from: From,
    tokens: u32,
    refilled: Instant,
    bytes: Box<[u8; MAX_BYTES]>,
}

/// Who answers.
#[derive(Clone, Copy, Debug)]
enum From {
    /// A router with these addresses.
    Router(Ipv4Addr, Ipv6Addr),
    /// Whom the packet was for. A gateway's own address would be a martian where its kernel reads the answer.
    Destination,
}

impl TooBig {
    /// Answers come from these addresses: the router's own inside the tunnel.
    #[must_use]
    pub fn new(v4: Ipv4Addr, v6: Ipv6Addr, now: Instant) -> Self {
        Self::answering(From::Router(v4, v6), now)
    }

    /// Answers come from where the packet was to go.
    pub(crate) fn of_destinations(now: Instant) -> Self {
        Self::answering(From::Destination, now)
    }

    fn answering(from: From, now: Instant) -> Self {
        Self {
            from,
            tokens: BURST,
            refilled: now,
            bytes: Box::new([0; MAX_BYTES]),
        }
    }

    /// Answers come from the first of these addresses of each family, or from one that stands for a router without any
    /// (RFC 7600 section 4.8; for IPv6 a link-local one).
    pub(crate) fn of_path<'a>(inner: impl Iterator<Item = &'a IpAddr>, now: Instant) -> Self {
        let (mut v4, mut v6) = (None, None);
        for address in inner {
            match address {
                IpAddr::V4(address) => v4 = v4.or(Some(*address)),
                IpAddr::V6(address) => v6 = v6.or(Some(*address)),
            }
        }
        Self::new(v4.unwrap_or(NO_V4), v6.unwrap_or(NO_V6), now)
    }

    /// The packet that tells the sender of `packet` to send at most `mtu` bytes; to be written where `packet` came from.
    /// `None` when there is none to be sent, and for IPv4 that may be cut, which a router cuts instead.
    pub fn answer(&mut self, packet: &[u8], mtu: u16, now: Instant) -> Option<&[u8]> {
        let header = packet::parse(packet).ok()?;
        let packet = packet.get(..header.len)?;
        let length = match (header.source, header.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                if !may_answer_v4(packet, source) {
                    return None;
                }
                self.spend(now)?;
                let from = match self.from {
                    From::Router(v4, _) => v4,
                    From::Destination => destination,
                };
                write_v4(self.bytes.as_mut_slice(), from, source, packet, mtu)?
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                if !may_answer_v6(packet, source) {
                    return None;
                }
                self.spend(now)?;
                let from = match self.from {
                    From::Router(_, v6) => v6,
                    From::Destination => destination,
                };
                write_v6(self.bytes.as_mut_slice(), from, source, packet, mtu)?
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
        };
        self.bytes.get(..length)
    }

    fn spend(&mut self, now: Instant) -> Option<()> {
        let passed = now.saturating_duration_since(self.refilled).as_millis() / REFILL.as_millis();
        if passed > 0 {
            let earned = u32::try_from(passed).unwrap_or(BURST).min(BURST);
            self.tokens = (self.tokens + earned).min(BURST);
            self.refilled = now;
        }
        self.tokens = self.tokens.checked_sub(1)?;
        Some(())
    }
}

fn may_answer_v4(packet: &[u8], source: Ipv4Addr) -> bool {
    let (Some([first, _, _, _, _, _, flags, offset, _, protocol]), true) = (
        packet.first_chunk::<10>(),
        is_one_machine(source.octets().as_slice(), source.into()),
    ) else {
        return false;
    };
    let may_be_cut = flags & 0x40 == 0;
    let is_later_fragment = flags & 0x1f != 0 || *offset != 0;
    let body = usize::from(first & 0x0f) * 4;
    // Echo, timestamp and their answers; every other type is an error or of no use.
    let is_error = *protocol == ICMP
        && !packet
            .get(body)
            .is_some_and(|kind| matches!(kind, 0 | 8 | 13 | 14));
    !(may_be_cut || is_later_fragment || is_error)
}

fn may_answer_v6(packet: &[u8], source: Ipv6Addr) -> bool {
    if !is_one_machine(source.octets().as_slice(), source.into()) {
        return false;
    }
    let Some(&(mut next)) = packet.get(6) else {
        return false;
    };
    let mut at = V6_HEADER;
    for _ in 0..MAX_EXTENSIONS {
        let (Some(&after), Some(&length)) = (packet.get(at), packet.get(at + 1)) else {
            return false;
        };
        at += match next {
            // Hop-by-hop, routing, destination options: in units of 8 bytes without the first (RFC 8200 section 4).
            0 | 43 | 60 => 8 + 8 * usize::from(length),
            44 => {
                let (Some(high), Some(low)) = (packet.get(at + 2), packet.get(at + 3)) else {
                    return false;
                };
                if u16::from_be_bytes([*high, *low]) & 0xfff8 != 0 {
                    return false;
                }
                8
            }
            // Types below 128 are errors.
            ICMPV6 => return after >= 128,
            _ => return true,
        };
        next = after;
    }
    false
}

fn is_one_machine(octets: &[u8], address: IpAddr) -> bool {
    let is_broadcast = address.is_ipv4() && octets.first().is_none_or(|first| *first >= 240);
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || is_broadcast)
}

fn write_v4(out: &mut [u8], from: Ipv4Addr, to: Ipv4Addr, cause: &[u8], mtu: u16) -> Option<usize> {
    let quoted = cause.len().min(MAX_V4_BYTES - V4_HEADER - ICMP_HEADER);
    let length = V4_HEADER + ICMP_HEADER + quoted;
    let (header, body) = out.get_mut(..length)?.split_at_mut_checked(V4_HEADER)?;
    let [high, low] = u16::try_from(length).ok()?.to_be_bytes();
    header[..12].copy_from_slice(&[0x45, PRECEDENCE, high, low, 0, 0, 0x40, 0, TTL, ICMP, 0, 0]);
    header[12..16].copy_from_slice(&from.octets());
    header[16..].copy_from_slice(&to.octets());
    let sum = checksum::of_header(header);
    header[10..12].copy_from_slice(&sum);
    let [high, low] = mtu.to_be_bytes();
    body[..8].copy_from_slice(&[
        DESTINATION_UNREACHABLE,
        FRAGMENTATION_NEEDED,
        0,
        0,
        0,
        0,
        high,
        low,
    ]);
    body[ICMP_HEADER..].copy_from_slice(cause.get(..quoted)?);
    let sum = !checksum::fold(checksum::add(0, body));
    body[2..4].copy_from_slice(&sum.to_ne_bytes());
    Some(length)
}

fn write_v6(out: &mut [u8], from: Ipv6Addr, to: Ipv6Addr, cause: &[u8], mtu: u16) -> Option<usize> {
    let quoted = cause.len().min(MAX_BYTES - V6_HEADER - ICMP_HEADER);
    let length = V6_HEADER + ICMP_HEADER + quoted;
    let (header, body) = out.get_mut(..length)?.split_at_mut_checked(V6_HEADER)?;
    let body_bytes = u16::try_from(body.len()).ok()?;
    let [high, low] = body_bytes.to_be_bytes();
    header[..8].copy_from_slice(&[0x60, 0, 0, 0, high, low, ICMPV6, TTL]);
    header[8..24].copy_from_slice(&from.octets());
    header[24..].copy_from_slice(&to.octets());
    let [high, low] = mtu.max(LEAST_V6_MTU).to_be_bytes();
    body[..8].copy_from_slice(&[PACKET_TOO_BIG, 0, 0, 0, 0, 0, high, low]);
    body[ICMP_HEADER..].copy_from_slice(cause.get(..quoted)?);
    // The pseudo-header: both addresses, the length, the protocol (RFC 8200 section 8.1).
    let mut sum = checksum::add(0, &header[8..]);
    sum = checksum::add_u16(sum, body_bytes);
    sum = checksum::add_u16(sum, ICMPV6.into());
    let sum = !checksum::fold(checksum::add(sum, body));
    body[2..4].copy_from_slice(&sum.to_ne_bytes());
    Some(length)
}

#[cfg(test)]
mod tests;
