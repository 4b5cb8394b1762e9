//! Health datagrams: what an agent asks each gateway of its lease inside the tunnel, and what a gateway answers.
//!
//! One UDP datagram between the inner addresses, port 17238 ("CV") at both ends, 16 bytes, numbers big-endian:
//!
//! ```text
//!   0  43 56 48 01   "CVH", version 1
//!   4  kind          1 ask, 2 answer
//!   5  state         ask: 0 standby, 1 active, 2 active and without another gateway; answer: 0 serving, 1 draining
//!   6  mtu           ask: the longest packet that the agent's path takes, 0 for unknown; answer: ignored
//!   8  sequence      of the ask; 0 in an answer that nobody asked for
//!  12  moves         ask: how often the agent has changed gateways; answer: 0
//! ```
//!
//! The tunnel authenticates them, so nothing here does: an agent lets nobody at home send to that port of its gateway. A gateway of another hand has nobody on the port and says so
//! or is silent; neither is held against it.

use std::net::IpAddr;

use crate::packet;

/// "CV".
const PORT: u16 = 17_238;
const MAGIC: [u8; 4] = *b"CVH\x01";
const KIND_ASK: u8 = 1;
const KIND_ANSWER: u8 = 2;
const UDP: u8 = 17;
const HOP_LIMIT: u8 = 64;
const PAYLOAD_BYTES: usize = 16;
const UDP_BYTES: usize = 8 + PAYLOAD_BYTES;
const V4_BYTES: usize = 20 + UDP_BYTES;
const V6_BYTES: usize = 40 + UDP_BYTES;

/// What an agent wants of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// To be known, while another gateway carries the home's packets.
    Standby,
    /// To be carried.
    Active,
    /// To be carried, since there is no other gateway to go to.
    Stuck,
}

/// How a gateway is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// It carries packets.
    Serving,
    /// It is about to end, and its agents are to move on.
    Draining,
}

/// An agent's question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// What it wants.
    pub intent: Intent,
    /// Repeated by the answer; never 0.
    pub sequence: u32,
    /// Differs after the agent has changed gateways.
    pub moves: u32,
    /// The longest packet that the agent's path takes; 0 for unknown.
    pub mtu: u16,
}

/// A gateway's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// How it is.
    pub service: Service,
    /// The question's, or 0.
    pub sequence: u32,
}

/// A health datagram with its IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthPacket {
    bytes: [u8; V6_BYTES],
    len: usize,
}

impl HealthPacket {
    /// The IP packet.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// The packet that asks; `None` for addresses of different families.
#[must_use]
pub fn encode_ask(from: IpAddr, to: IpAddr, ask: Ask) -> Option<HealthPacket> {
    let state = match ask.intent {
        Intent::Standby => 0,
        Intent::Active => 1,
        Intent::Stuck => 2,
    };
    encode(
        from,
        to,
        [KIND_ASK, state],
        ask.mtu,
        [ask.sequence, ask.moves],
    )
}

/// The packet that answers; `None` for addresses of different families.
#[must_use]
pub fn encode_answer(from: IpAddr, to: IpAddr, answer: Answer) -> Option<HealthPacket> {
    let state = match answer.service {
        Service::Serving => 0,
        Service::Draining => 1,
    };
    encode(from, to, [KIND_ANSWER, state], 0, [answer.sequence, 0])
}

/// Reads a packet as an ask; whom it is from and for is the caller's to check.
#[must_use]
pub fn decode_ask(packet: &[u8]) -> Option<Ask> {
    let (kind, state, mtu, [sequence, moves]) = decode(packet)?;
    let intent = match (kind, state) {
        (KIND_ASK, 0) => Intent::Standby,
        (KIND_ASK, 1) => Intent::Active,
        (KIND_ASK, 2) => Intent::Stuck,
        _ => return None,
    };
    Some(Ask {
        intent,
        sequence,
        moves,
        mtu,
    })
}

/// Reads a packet as an answer; whom it is from and for is the caller's to check.
#[must_use]
pub fn decode_answer(packet: &[u8]) -> Option<Answer> {
    let (kind, state, _, [sequence, _]) = decode(packet)?;
    let service = match (kind, state) {
        (KIND_ANSWER, 0) => Service::Serving,
        (KIND_ANSWER, 1) => Service::Draining,
        _ => return None,
    };
    Some(Answer { service, sequence })
}

/// Whether [`decode_ask`] may take a packet, or one of those that a frame with this header stands for.
#[must_use]
pub fn is_for_its_port(packet: &[u8]) -> bool {
    let (protocol, udp) = match packet.first() {
        Some(0x45) => (packet.get(9), 20),
        Some(first) if first >> 4 == 6 => (packet.get(6), 40),
        Some(_) | None => return false,
    };
    protocol == Some(&UDP) && packet.get(udp + 2..udp + 4) == Some(&PORT.to_be_bytes())
}

fn encode(
    from: IpAddr,
    to: IpAddr,
    kind: [u8; 2],
    mtu: u16,
    numbers: [u32; 2],
) -> Option<HealthPacket> {
    let mut udp = [0; UDP_BYTES];
    let port = PORT.to_be_bytes();
    let length = (UDP_BYTES as u16).to_be_bytes();
    let [sequence, moves] = numbers.map(u32::to_be_bytes);
    let parts: [&[u8]; 9] = [
        &port,
        &port,
        &length,
        &[0, 0],
        &MAGIC,
        &kind,
        &mtu.to_be_bytes(),
        &sequence,
        &moves,
    ];
    fill(&mut udp, &parts);
    let mut bytes = [0; V6_BYTES];
    let len = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let (from, to) = (from.octets(), to.octets());
            set_checksum(&mut udp, &[&from, &to]);
            let total = (V4_BYTES as u16).to_be_bytes();
            let mut header = [0; 20];
            // Don't Fragment: an identification of zero is then allowed (RFC 6864 section 4).
            let parts: [&[u8]; 5] = [
                &[0x45, 0],
                &total,
                &[0, 0, 0x40, 0, HOP_LIMIT, UDP, 0, 0],
                &from,
                &to,
            ];
            fill(&mut header, &parts);
            let sum = checksum(&[&header]).to_be_bytes();
            header[10..12].copy_from_slice(&sum);
            fill(&mut bytes, &[&header, &udp]);
            V4_BYTES
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let (from, to) = (from.octets(), to.octets());
            set_checksum(&mut udp, &[&from, &to]);
            fill(
                &mut bytes,
                &[
                    &[0x60, 0, 0, 0],
                    &length,
                    &[UDP, HOP_LIMIT],
                    &from,
                    &to,
                    &udp,
                ],
            );
            V6_BYTES
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    Some(HealthPacket { bytes, len })
}

/// Writes `parts` one behind the other.
fn fill(bytes: &mut [u8], parts: &[&[u8]]) {
    let whole = parts.iter().copied().flatten();
    for (byte, value) in bytes.iter_mut().zip(whole) {
        *byte = *value;
    }
}

/// Over the pseudo header of either family (RFC 768, RFC 8200 section 8.1), whose sums are the same here.
fn set_checksum(udp: &mut [u8; UDP_BYTES], addresses: &[&[u8]; 2]) {
    let [from, to] = *addresses;
    let pseudo = [0, UDP, 0, UDP_BYTES as u8];
    let sum = match checksum(&[from, to, &pseudo, udp.as_slice()]) {
        0 => 0xffff,
        sum => sum,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
}

/// The internet checksum (RFC 1071) over parts of even lengths.
fn checksum(parts: &[&[u8]]) -> u16 {
    let pairs = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 = pairs
        .map(|pair| match pair {
            [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
            _ => 0,
        })
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Kind, state, MTU and the two numbers of a health datagram, whatever kind it is.
fn decode(bytes: &[u8]) -> Option<(u8, u8, u16, [u32; 2])> {
    let len = packet::parse(bytes).ok()?.len;
    let (udp, protocol) = match len {
        V4_BYTES => {
            let header = bytes.first_chunk::<20>()?;
            let is_whole = header[0] == 0x45 && header[6] & 0x3f == 0 && header[7] == 0;
            is_whole.then_some((bytes.get(20..V4_BYTES)?, header[9]))?
        }
        V6_BYTES if bytes.first()? >> 4 == 6 => (bytes.get(40..V6_BYTES)?, *bytes.get(6)?),
        _ => return None,
    };
    let port = PORT.to_be_bytes();
    let (head, payload) = udp.split_first_chunk::<8>()?;
    let payload = payload.first_chunk::<PAYLOAD_BYTES>()?;
    let is_ours = protocol == UDP
        && head[..2] == port
        && head[2..4] == port
        && head[4..6] == (UDP_BYTES as u16).to_be_bytes()
        && payload[..4] == MAGIC;
    let number = |at: usize| {
        let bytes: [u8; 4] = payload.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_be_bytes(bytes))
    };
    let mtu = u16::from_be_bytes([payload[6], payload[7]]);
    is_ours.then_some((payload[4], payload[5], mtu, [number(8)?, number(12)?]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAIRS: [(&str, &str); 2] = [("10.64.0.7", "10.64.0.1"), ("fd64::7", "fd64::1")];

    fn ask(from: &str, to: &str) -> HealthPacket {
        let ask = Ask {
            intent: Intent::Active,
            sequence: 0x0102_0304,
            moves: 9,
            mtu: 1_420,
        };
        encode_ask(from.parse().unwrap(), to.parse().unwrap(), ask).unwrap()
    }

    #[test]
    fn whatever_may_be_taken_for_an_ask_is_known_by_its_port_and_nothing_else_is() {
        for (from, to) in PAIRS {
            let ask = ask(from, to);
            let mut longer = ask.as_bytes().to_vec();
            longer.extend([0; 16]);
            assert!(is_for_its_port(ask.as_bytes()) && is_for_its_port(&longer));

            let udp = ask.as_bytes().len() - UDP_BYTES;
            let protocol = if udp == 20 { 9 } else { 6 };
            for (at, value) in [(udp + 2, 0), (udp + 3, 0), (protocol, 6)] {
                let mut other = ask.as_bytes().to_vec();
                other[at] = value;
                assert!(!is_for_its_port(&other) && decode_ask(&other).is_none());
            }
        }
        assert!(!is_for_its_port(&[]) && !is_for_its_port(&[0x45]));
    }

    #[test]
    fn a_packet_that_differs_in_what_makes_it_a_health_datagram_is_none() {
        for (from, to) in PAIRS {
            let packet = ask(from, to);
            let bytes = packet.as_bytes();
            let udp = bytes.len() - UDP_BYTES;
            let protocol = if udp == 20 { 9 } else { 6 };
            for at in [
                protocol,
                udp,
                udp + 1,
                udp + 2,
                udp + 5,
                udp + 8,
                udp + 11,
                udp + 12,
                udp + 13,
            ] {
                let mut changed = bytes.to_vec();
                changed[at] ^= 0x40;

                assert_eq!(decode_ask(&changed), None, "byte {at} of {from}");
            }
            for cut in 0..bytes.len() {
                assert_eq!(decode_ask(&bytes[..cut]), None, "cut at {cut}");
            }
            assert_eq!(decode_answer(bytes), None);
        }
        let mut fragment = ask("10.64.0.7", "10.64.0.1").as_bytes().to_vec();
        fragment[6] |= 0x20;
        assert_eq!(decode_ask(&fragment), None);
    }

    #[test]
    fn families_are_not_mixed() {
        let answer = Answer {
            service: Service::Serving,
            sequence: 1,
        };

        assert_eq!(
            encode_answer(
                "10.64.0.1".parse().unwrap(),
                "fd64::7".parse().unwrap(),
                answer
            ),
            None
        );
    }

    #[test]
    fn what_was_asked_and_answered_is_read_in_both_families_behind_padding_too() {
        for (from, to) in PAIRS {
            let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
            for intent in [Intent::Standby, Intent::Active, Intent::Stuck] {
                let ask = Ask {
                    intent,
                    sequence: u32::MAX,
                    moves: 7,
                    mtu: 1_340,
                };
                let mut bytes = encode_ask(from, to, ask).unwrap().as_bytes().to_vec();
                bytes.extend([0; 4]);

                assert_eq!(decode_ask(&bytes), Some(ask));
            }
            for service in [Service::Serving, Service::Draining] {
                let answer = Answer {
                    service,
                    sequence: 0,
                };
                let packet = encode_answer(to, from, answer).unwrap();

                assert_eq!(decode_answer(packet.as_bytes()), Some(answer));
                assert_eq!(crate::packet::parse(packet.as_bytes()).unwrap().source, to);
            }
        }
    }

    #[test]
    fn checksums_are_those_that_a_kernel_expects() {
        for (from, to) in PAIRS {
            let packet = ask(from, to);
            let bytes = packet.as_bytes();
            let (header, udp) = bytes.split_at(bytes.len() - UDP_BYTES);
            let addresses = if header.len() == 20 {
                &header[12..]
            } else {
                &header[8..]
            };

            assert_eq!(checksum(&[addresses, &[0, UDP, 0, 24], udp]), 0);
            assert!(header.len() == 40 || checksum(&[header]) == 0);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..96)) {
            let _ = (decode_ask(&bytes), decode_answer(&bytes));
        }
    }
}
