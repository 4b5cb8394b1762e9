//! The whole tunnel, agent and gateway, against itself without offloads: the same packets, the same losses and the same
//! reordering on the wire, and what leaves the far device compared flow by flow.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use proptest::prelude::*;
use x25519_dalek::{PublicKey, StaticSecret};

use super::made::{HOME, HOME6, Made, WEB, WEB6, made_stream, reference_sum, transport_sum};
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
        for datagram in ends.sent(false) {
            let _answered = ends.edge.handle_datagram(&datagram, address(HERE), 0, now);
        }
        for datagram in ends.sent(true) {
            let _connected = ends
                .agent
                .handle_datagram(&datagram, address(THERE), 0, now);
        }
        assert!(matches!(ends.agent.link(), Link::Connected { .. }));
        // The first packet of the agent's proves to the gateway that there is a session.
        ends.carry(false, &[plain(&Made::tcp(9, 0, b"first").build())], &[]);
        ends
    }

    /// The datagrams that one end has sent.
    fn sent(&mut self, down: bool) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        loop {
            let run = if down {
                self.edge.poll_transmit()
            } else {
                self.agent.poll_transmit()
            };
            let Some(run) = run else { return sent };
            sent.extend(run.datagrams().map(<[u8]>::to_vec));
        }
    }

    /// Puts frames into one device and returns the frames that leave the other. Of the datagrams between, `wire` swaps or loses some.
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
        for datagram in over(wire, datagrams) {
            if down {
                let _opened = self
                    .agent
                    .handle_datagram(&datagram, address(THERE), 0, now);
                while let Some(frame) = self.agent.poll_tun() {
                    out.push(frame.to_vec());
                }
            } else {
                let _opened = self.edge.handle_datagram(&datagram, address(HERE), 0, now);
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
}

fn over(wire: &[Wire], datagrams: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut arrived = Vec::new();
    let mut late = None;
    for (place, datagram) in datagrams.into_iter().enumerate() {
        match wire.get(place).unwrap_or(&Wire::Arrives) {
            Wire::Arrives => arrived.push(datagram),
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

fn plain(packet: &[u8]) -> Vec<u8> {
    [&PLAIN[..], packet].concat()
}

/// The frame of a super-packet as a kernel makes it: `made` with all the payload, the sum of the pseudo-header in the checksum field.
fn super_frame(made: &Made, segment: usize) -> Vec<u8> {
    let mut packet = made.build();
    let start = made.start();
    let (kind, field) = match (made.udp, made.v6) {
        (true, _) => (5, 6_usize),
        (false, false) => (1, 16),
        (false, true) => (4, 16),
    };
    packet[start + field..start + field + 2].fill(0);
    let without = transport_sum(&packet, start, if made.udp { 17 } else { 6 });
    let transport = reference_sum(&packet[start..]);
    // The sum over all less the sum over the transport is that of the pseudo-header.
    let pseudo = reference_sum(&[without.to_be_bytes(), (!transport).to_be_bytes()].concat());
    packet[start + field..start + field + 2].copy_from_slice(&pseudo.to_be_bytes());
    let mut frame = vec![1, kind];
    let header_len = packet.len() - made.payload.len();
    for number in [header_len, segment, start, field] {
        frame.extend(u16::try_from(number).unwrap().to_ne_bytes());
    }
    assert_eq!(frame.len(), VNET_BYTES);
    frame.extend(packet);
    frame
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

/// What goes into the device: with offloads as frames of several packets here and there, and without.
fn stream_of_frames() -> impl Strategy<Value = (Vec<Vec<u8>>, Vec<Vec<u8>>)> {
    let grown = proptest::collection::vec((0..30_usize, 1..1_300_usize), 120);
    (made_stream(), grown, any::<bool>()).prop_map(|(stream, grown, down)| {
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for (made, (more, segment)) in stream.into_iter().zip(grown) {
            let mut made = Made { down, ..made };
            // The kernel makes super-packets of right and whole packets with data only.
            let is_part = made.fragment || made.offset != 0;
            let is_super = more > 20 && !is_part && !made.spoilt_checksum && made.flags & 0x27 == 0;
            if is_super && !made.payload.is_empty() {
                made.payload = made.payload.repeat(more);
                let segment = segment.clamp(made.payload.len().div_ceil(60), 1_300);
                made.payload.truncate(60_000.min(segment * 60));
                with.push(super_frame(&made, segment));
                without.extend(
                    separate(&made, segment)
                        .iter()
                        .map(|made| plain(&made.build())),
                );
            } else {
                let packet = plain(&made.build());
                with.push(packet.clone());
                without.push(packet);
            }
        }
        (with, without)
    })
}

fn wires() -> impl Strategy<Value = Vec<Wire>> {
    let one = prop_oneof![
        30 => Just(Wire::Arrives), 1 => Just(Wire::IsLost), 1 => Just(Wire::IsLate), 1 => Just(Wire::Twice)
    ];
    proptest::collection::vec(one, 0..600)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]

    #[test]
    fn the_far_device_delivers_with_offloads_what_it_delivers_without(
        (with, without) in stream_of_frames(), wire in wires(), tcp in any::<bool>(), udp in any::<bool>(),
    ) {
        let down = with.first().is_some_and(|frame| is_down(frame));
        let offloaded = Ends::connected(Accepts { tcp, udp }).carry(down, &with, &wire);
        let reference = Ends::connected(Accepts::default()).carry(down, &without, &wire);

        let offloaded: Vec<_> = offloaded.iter().flat_map(|frame| cut(frame)).collect();
        let reference: Vec<_> = reference.iter().map(|frame| frame[VNET_BYTES..].to_vec()).collect();
        prop_assert!(!reference.is_empty() || without.is_empty() || wire.contains(&Wire::IsLost));
        prop_assert_eq!(by_flow(offloaded), by_flow(reference));
    }
}

fn is_down(frame: &[u8]) -> bool {
    let packet = &frame[VNET_BYTES..];
    packet[12..15] == WEB[..3] || packet[8..23] == WEB6[..15]
}
