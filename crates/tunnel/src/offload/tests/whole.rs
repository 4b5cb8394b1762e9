//! The whole tunnel, agent and gateway, against a plain path without tunnel and offloads: the same packets, the same losses,
//! marks and reordering on the way, and what leaves the far device compared flow by flow.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use proptest::prelude::*;
use x25519_dalek::{PublicKey, StaticSecret};

use super::made::{
    HOME, HOME6, Made, WEB, WEB6, made_stream, network_len, reference_sum, transport_sum,
};
use super::{Accepts, by_flow, cut};
use crate::agent::{AgentConfig, GatewayConfig, Link};
use crate::edge::PeerConfig;
use crate::offload::{PLAIN, VNET_BYTES};
use crate::{AgentTunnel, EdgeTunnel};

const HERE: &str = "198.51.100.2:40000";
const THERE: &str = "192.0.2.1:51820";

/// An agent and a gateway with a session.
struct Ends {
    agent: AgentTunnel,
    edge: EdgeTunnel,
    now: Instant,
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

impl Ends {
    fn connected(accepts: Accepts) -> Self {
        let now = Instant::now();
        let key = |n| StaticSecret::from([n; 32]);
        let allowed = vec![
            IpNet::from(std::net::IpAddr::from(HOME)),
            IpNet::from(std::net::IpAddr::from(HOME6)),
        ];
        let config = AgentConfig {
            private: key(7),
            gateways: vec![GatewayConfig {
                public: PublicKey::from(&key(1)).to_bytes(),
                endpoints: vec![address(THERE)],
                ..GatewayConfig::default()
            }],
            addresses: allowed.clone(),
            keepalive: Duration::from_secs(25),
            seed: 1,
            calendar: Duration::ZERO,
        };
        let mut edge = EdgeTunnel::new(key(1), Duration::ZERO, now);
        let lease = PeerConfig {
            id: [7; 32],
            public: PublicKey::from(&key(7)).to_bytes(),
            psk: None,
            allowed,
            not_after: now + Duration::from_secs(3_600),
            rates: crate::rate::Rates::default(),
        };
        edge.upsert_peer(lease, now).unwrap();
        edge.set_accepts(accepts);
        let mut agent = AgentTunnel::new(config, now).unwrap();
        agent.set_accepts(accepts);
        let mut ends = Self { agent, edge, now };
        ends.agent.handle_timeout(now);
        for (datagram, _) in ends.sent(false) {
            let _answered = ends.edge.handle_datagram(&datagram, address(HERE), 0, now);
        }
        for (datagram, _) in ends.sent(true) {
            let _connected = ends
                .agent
                .handle_datagram(&datagram, address(THERE), 0, now);
        }
        assert!(matches!(ends.agent.link(), Link::Connected { .. }));
        // The first packet of the agent's proves to the gateway that there is a session.
        ends.carry(false, &[plain(&Made::tcp(9, 0, b"first").build())], &[]);
        ends
    }

    /// The datagrams that one end has sent, with the outer byte.
    fn sent(&mut self, down: bool) -> Vec<(Vec<u8>, u8)> {
        let mut sent = Vec::new();
        loop {
            let run = if down {
                self.edge.poll_transmit()
            } else {
                self.agent.poll_transmit()
            };
            let Some(run) = run else { return sent };
            let tos = run.tos;
            sent.extend(run.datagrams().map(|datagram| (datagram.to_vec(), tos)));
        }
    }

    /// Puts frames into one device and returns the frames that leave the other. Of the datagrams between, `wire` swaps, marks or loses some.
    fn carry(&mut self, down: bool, frames: &[Vec<u8>], wire: &[Wire]) -> Vec<Vec<u8>> {
        let now = self.now;
        let mut datagrams = Vec::new();
        for frame in frames {
            let taken = if down {
                self.edge.handle_tun_frame(frame, now).map(|_| ())
            } else {
                self.agent.handle_tun_frame(frame, now)
            };
            assert_eq!(taken, Ok(()));
            datagrams.extend(self.sent(down));
        }
        let mut out = Vec::new();
        let mark = |(datagram, tos): (Vec<u8>, u8), wire| {
            let may_be_marked = tos & 3 != 0;
            let is_marked =
                wire == Wire::IsMarkedByForce || wire == Wire::IsMarked && may_be_marked;
            Some((datagram, if is_marked { tos | 3 } else { tos }))
        };
        for (datagram, tos) in over(wire, datagrams, mark) {
            if down {
                let _opened = self
                    .agent
                    .handle_datagram(&datagram, address(THERE), tos, now);
                while let Some(frame) = self.agent.poll_tun() {
                    out.push(frame.to_vec());
                }
            } else {
                let _opened = self
                    .edge
                    .handle_datagram(&datagram, address(HERE), tos, now);
                while let Some(frame) = self.edge.poll_tun() {
                    out.push(frame.to_vec());
                }
            }
        }
        self.agent.flush_tun();
        self.edge.flush_tun();
        loop {
            let frame = if down {
                self.agent.poll_tun()
            } else {
                self.edge.poll_tun()
            };
            let Some(frame) = frame else { return out };
            out.push(frame.to_vec());
        }
    }
}

/// What happens to one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    Arrives,
    IsLost,
    /// After the next.
    IsLate,
    Twice,
    /// A router is congested and says so, where the header allows it.
    IsMarked,
    /// One says so whatever the header allows.
    IsMarkedByForce,
}

/// What of all that is sent arrives. A copy is whole; `mark` does what else happens, and loses what there is no other way to tell.
fn over<T: Clone>(wire: &[Wire], sent: Vec<T>, mark: impl Fn(T, Wire) -> Option<T>) -> Vec<T> {
    let mut arrived = Vec::new();
    let mut late = None;
    for (place, datagram) in sent.into_iter().enumerate() {
        let wire = *wire.get(place).unwrap_or(&Wire::Arrives);
        let Some(datagram) = mark(datagram, wire) else {
            arrived.extend(late.take());
            continue;
        };
        match wire {
            Wire::Arrives | Wire::IsMarked | Wire::IsMarkedByForce => arrived.push(datagram),
            Wire::IsLost => {}
            Wire::IsLate => {
                arrived.extend(late.replace(datagram));
                continue;
            }
            Wire::Twice => arrived.extend([datagram.clone(), datagram]),
        }
        arrived.extend(late.take());
    }
    arrived.extend(late);
    arrived
}

/// What a path without tunnel and offloads delivers of packets to which the same happens (RFC 3168; a packet that cannot be marked is
/// dropped by who must tell of congestion). A tunnel takes no packet twice.
fn plain_path(packets: Vec<Vec<u8>>, wire: &[Wire]) -> Vec<Vec<u8>> {
    let mut once = wire.to_vec();
    for wire in once.iter_mut().filter(|wire| **wire == Wire::Twice) {
        *wire = Wire::Arrives;
    }
    over(&once, packets, |mut packet, wire| {
        let is_v6 = packet[0] >> 4 == 6;
        let mark = if is_v6 {
            packet[1] >> 4 & 3
        } else {
            packet[1] & 3
        };
        match (wire, mark) {
            (Wire::IsMarkedByForce, 0) => return None,
            (Wire::IsMarkedByForce | Wire::IsMarked, 1..) if is_v6 => packet[1] |= 0x30,
            (Wire::IsMarkedByForce | Wire::IsMarked, 1..) => {
                packet[1] |= 3;
                packet[10..12].fill(0);
                let header = network_len(&packet);
                let sum = !reference_sum(&packet[..header]);
                packet[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            _ => {}
        }
        Some(packet)
    })
}

fn plain(packet: &[u8]) -> Vec<u8> {
    [&PLAIN[..], packet].concat()
}

/// The packet as a kernel hands it over that leaves the checksum to the device: its field holds the sum of the pseudo-header.
fn unfinished(made: &Made) -> Vec<u8> {
    let mut packet = made.build();
    let (start, at) = (made.start(), made.start() + made.field());
    packet[at..at + 2].fill(0);
    let without = transport_sum(&packet, start, made.protocol());
    let transport = reference_sum(&packet[start..]);
    // The sum over all less the sum over the transport is that of the pseudo-header.
    let pseudo = reference_sum(&[without.to_be_bytes(), (!transport).to_be_bytes()].concat());
    packet[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
    packet
}

/// An unfinished packet behind a header of this kind of segmentation.
fn unfinished_frame(made: &Made, kind: u8, header_len: usize, segment: usize) -> Vec<u8> {
    let mut frame = vec![1, kind];
    for number in [header_len, segment, made.start(), made.field()] {
        frame.extend(u16::try_from(number).unwrap().to_ne_bytes());
    }
    assert_eq!(frame.len(), VNET_BYTES);
    frame.extend(unfinished(made));
    frame
}

/// The frame of a packet that stands for itself and whose checksum is to be completed, as most that a kernel hands over.
fn partial_frame(made: &Made) -> Vec<u8> {
    unfinished_frame(made, 0, 0, 0)
}

/// The frame of a super-packet as a kernel makes it: `made` with all the payload.
fn super_frame(made: &Made, segment: usize) -> Vec<u8> {
    let kind = match (made.udp, made.v6) {
        (true, _) => 5,
        (false, false) => 1,
        (false, true) => 4,
    };
    // A kernel says when the first segment tells of a reduced window.
    let is_reduced = !made.udp && made.flags & 0x80 != 0;
    let kind = if is_reduced { kind | 0x80 } else { kind };
    let header_len = made.build().len() - made.payload.len();
    unfinished_frame(made, kind, header_len, segment)
}

/// The packets that the super-packet stands for, each made by itself.
fn separate(made: &Made, segment: usize) -> Vec<Made> {
    let pieces = made.payload.chunks(segment);
    let last = pieces.len() - 1;
    let piece = |(index, payload): (usize, &[u8])| Made {
        payload: payload.to_vec(),
        sequence: made
            .sequence
            .wrapping_add(u32::try_from(index * segment).unwrap()),
        id: made.id.wrapping_add(u16::try_from(index).unwrap()),
        flags: match index {
            _ if made.udp => made.flags,
            0 if index == last => made.flags,
            0 => made.flags & !0x09,
            _ if index == last => made.flags & !0x80,
            _ => made.flags & !0x89,
        },
        ..made.clone()
    };
    pieces.enumerate().map(piece).collect()
}

/// Packets in one super-packet at most: what a kernel takes of UDP from a program.
const MAX_CUT: usize = 128;

/// What goes into the device, as frames of several packets here and there; and the packets.
fn stream_of_frames() -> impl Strategy<Value = (Vec<Vec<u8>>, Vec<Vec<u8>>)> {
    let grown = proptest::collection::vec((0..30_usize, 1..1_300_usize, any::<bool>()), 120);
    (made_stream(), grown, any::<bool>()).prop_map(|(stream, grown, down)| {
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for (made, (more, segment, is_partial)) in stream.into_iter().zip(grown) {
            let mut made = Made { down, ..made };
            // The kernel makes super-packets of right and whole packets with data only.
            let is_part = made.fragment || made.offset != 0;
            let is_usual = !made.unsummed && made.trailing.is_empty();
            let is_right = !is_part && is_usual && !made.spoilt_checksum && !made.spoilt_header;
            let is_super = more > 20 && is_right && made.flags & 0x27 == 0;
            if is_super && !made.payload.is_empty() {
                made.payload = made.payload.repeat(more);
                let segment = segment.clamp(made.payload.len().div_ceil(MAX_CUT), 1_300);
                made.payload.truncate(60_000.min(segment * MAX_CUT));
                with.push(super_frame(&made, segment));
                without.extend(separate(&made, segment).iter().map(Made::build));
            } else {
                with.push(if is_right && is_partial {
                    partial_frame(&made)
                } else {
                    plain(&made.build())
                });
                without.push(made.build());
            }
        }
        (with, without)
    })
}

fn wires() -> impl Strategy<Value = Vec<Wire>> {
    let one = prop_oneof![
        30 => Just(Wire::Arrives), 1 => Just(Wire::IsLost), 1 => Just(Wire::IsLate), 1 => Just(Wire::Twice),
        4 => Just(Wire::IsMarked), 1 => Just(Wire::IsMarkedByForce)
    ];
    proptest::collection::vec(one, 0..600)
}

/// TCP and UDP, in both versions of IP and behind options.
fn of_each_kind(payload: &[u8]) -> Vec<Made> {
    let kind = |udp, v6, ip_options| Made {
        udp,
        v6,
        ip_options,
        ..Made::tcp(1, 0, payload)
    };
    let kinds = [(false, 0), (false, 2), (true, 0)];
    let both =
        kinds.map(|(v6, ip_options)| [kind(false, v6, ip_options), kind(true, v6, ip_options)]);
    both.into_iter().flatten().collect()
}

#[test]
fn a_checksum_that_was_left_to_the_device_is_completed_and_never_sent_as_none() {
    let made = [&b""[..], b"x", b"xyz", &[7; 100]].map(of_each_kind);
    for made in made.into_iter().flatten() {
        for made in [made.clone(), made.summing_to_zero()] {
            let expected = [made.build()];
            assert_ne!(unfinished(&made), expected[0]);
            assert_eq!(cut(&partial_frame(&made)), expected, "{made:?}");
            for down in [false, true] {
                let made = Made {
                    down,
                    ..made.clone()
                };
                let frames = [partial_frame(&made)];
                let out = Ends::connected(Accepts::default()).carry(down, &frames, &[]);
                assert_eq!(out, [plain(&made.build())], "{made:?}");
            }
        }
    }
}

#[test]
fn each_datagram_of_a_super_packet_has_a_checksum_though_it_comes_to_zero() {
    for made in of_each_kind(&[0; 2]).into_iter().filter(|made| made.udp) {
        let made = made.summing_to_zero();
        let made = Made {
            payload: made.payload.repeat(5),
            ..made
        };
        let expected: Vec<_> = separate(&made, 2).iter().map(Made::build).collect();
        let sum = made.start() + made.field();
        assert!(
            expected
                .iter()
                .all(|packet| packet[sum..sum + 2] == [0xff; 2])
        );
        assert_eq!(cut(&super_frame(&made, 2)), expected, "{made:?}");
    }
}

#[test]
fn only_the_first_segment_of_a_super_packet_tells_of_a_reduced_window() {
    for made in of_each_kind(&[7; 250]).into_iter().filter(|made| !made.udp) {
        let made = Made {
            flags: 0x98,
            ..made
        };
        let frame = super_frame(&made, 100);
        let cut = cut(&frame);
        assert_eq!(frame[1] & 0x80, 0x80);
        let flags: Vec<_> = cut.iter().map(|packet| packet[made.start() + 13]).collect();
        assert_eq!(flags, [0x90, 0x10, 0x18]);
        let expected: Vec<_> = separate(&made, 100).iter().map(Made::build).collect();
        assert_eq!(cut, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]

    #[test]
    fn the_far_device_delivers_what_a_plain_path_delivers(
        (frames, packets) in stream_of_frames(), wire in wires(), tcp in any::<bool>(), udp in any::<bool>(),
    ) {
        let down = frames.first().is_some_and(|frame| is_down(frame));
        let delivered = Ends::connected(Accepts { tcp, udp }).carry(down, &frames, &wire);

        let delivered: Vec<_> = delivered.iter().flat_map(|frame| cut(frame)).collect();
        prop_assert_eq!(by_flow(delivered), by_flow(plain_path(packets, &wire)));
    }
}

fn is_down(frame: &[u8]) -> bool {
    let packet = &frame[VNET_BYTES..];
    packet[12..15] == WEB[..3] || packet[8..23] == WEB6[..15]
}
