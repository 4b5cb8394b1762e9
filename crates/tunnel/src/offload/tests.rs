//! What is cut and joined against what a path without offloads carries, packet by packet and flow by flow.

use proptest::prelude::*;

mod whole;

use super::coalesce::Coalescer;
use super::segment::Segments;
use super::vnet::Vnet;
use super::{Accepts, VNET_BYTES, checksum, ecn};
use crate::dropped::Dropped;

const EVERYTHING: Accepts = Accepts {
    tcp: true,
    udp: true,
};

const HOME: [u8; 4] = [10, 64, 0, 7];
const WEB: [u8; 4] = [203, 0, 113, 9];
const HOME6: [u8; 16] = [0xfd; 16];
const WEB6: [u8; 16] = [0x20; 16];

/// A packet that a test makes, complete but for its checksums and lengths, which [`Made::build`] fills in.
#[derive(Clone, Debug)]
struct Made {
    /// From the internet to the home, and not the other way.
    down: bool,
    v6: bool,
    udp: bool,
    flow: u8,
    tos: u8,
    ttl: u8,
    id: u16,
    dont_fragment: bool,
    fragment: bool,
    sequence: u32,
    ack: u32,
    flags: u8,
    window: u16,
    options: Vec<u8>,
    payload: Vec<u8>,
    spoilt_checksum: bool,
}

impl Made {
    fn tcp(flow: u8, sequence: u32, payload: &[u8]) -> Self {
        Self {
            down: false,
            v6: false,
            udp: false,
            flow,
            tos: 0,
            ttl: 64,
            id: 1,
            dont_fragment: true,
            fragment: false,
            sequence,
            ack: 77,
            flags: 0x10,
            window: 500,
            options: Vec::new(),
            payload: payload.to_vec(),
            spoilt_checksum: false,
        }
    }

    fn udp(flow: u8, id: u16, payload: &[u8]) -> Self {
        Self {
            udp: true,
            id,
            dont_fragment: false,
            ..Self::tcp(flow, 0, payload)
        }
    }

    fn start(&self) -> usize {
        if self.v6 { 40 } else { 20 }
    }

    fn build(&self) -> Vec<u8> {
        let mut transport = if self.udp {
            let mut udp = vec![0; 8];
            udp[1] = self.flow;
            udp[3] = 53;
            udp[4..6]
                .copy_from_slice(&u16::try_from(8 + self.payload.len()).unwrap().to_be_bytes());
            udp
        } else {
            let mut tcp = vec![0; 20];
            tcp[1] = self.flow;
            tcp[3] = 80;
            tcp[4..8].copy_from_slice(&self.sequence.to_be_bytes());
            tcp[8..12].copy_from_slice(&self.ack.to_be_bytes());
            tcp[12] = u8::try_from((20 + self.options.len()) / 4).unwrap() << 4;
            tcp[13] = self.flags;
            tcp[14..16].copy_from_slice(&self.window.to_be_bytes());
            tcp.extend(&self.options);
            tcp
        };
        transport.extend(&self.payload);
        let protocol = if self.udp { 17 } else { 6 };
        let mut packet = vec![0; self.start()];
        let total = packet.len() + transport.len();
        if self.v6 {
            packet[0] = 0x60 | self.tos >> 4;
            packet[1] = self.tos << 4;
            packet[4..6].copy_from_slice(&u16::try_from(transport.len()).unwrap().to_be_bytes());
            packet[6] = protocol;
            packet[7] = self.ttl;
            let (home, web) = if self.down { (24, 8) } else { (8, 24) };
            packet[home..home + 16].copy_from_slice(&HOME6);
            packet[web..web + 16].copy_from_slice(&WEB6);
        } else {
            packet[0] = 0x45;
            packet[1] = self.tos;
            packet[2..4].copy_from_slice(&u16::try_from(total).unwrap().to_be_bytes());
            packet[4..6].copy_from_slice(&self.id.to_be_bytes());
            packet[6] = u8::from(self.dont_fragment) << 6 | u8::from(self.fragment) << 5;
            packet[8] = self.ttl;
            packet[9] = protocol;
            let (home, web) = if self.down { (16, 12) } else { (12, 16) };
            packet[home..home + 4].copy_from_slice(&HOME);
            packet[web..web + 4].copy_from_slice(&WEB);
            let sum = reference_sum(&packet);
            packet[10..12].copy_from_slice(&(!sum).to_be_bytes());
        }
        packet.extend(transport);
        let sum = !transport_sum(&packet, self.start(), protocol);
        let sum = if self.spoilt_checksum {
            sum ^ 0x0100
        } else {
            sum
        };
        let at = self.start() + if self.udp { 6 } else { 16 };
        packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        packet
    }
}

/// RFC 1071 as its section 4.1 describes it, word by word.
fn reference_sum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

fn transport_sum(packet: &[u8], start: usize, protocol: u8) -> u16 {
    let addresses = if start == 40 {
        &packet[8..40]
    } else {
        &packet[12..20]
    };
    let len = u16::try_from(packet.len() - start).unwrap();
    let mut bytes = [addresses, &[0, protocol], &len.to_be_bytes()].concat();
    bytes.extend(&packet[start..]);
    reference_sum(&bytes)
}

/// What leaves a device with these offloads, cut again by the kernel's rules: our own cutter, which is held to built packets below.
fn through(packets: &[Vec<u8>], accepts: Accepts, flush_every: usize) -> Vec<Vec<u8>> {
    let mut coalescer = Coalescer::default();
    coalescer.set_accepts(accepts);
    let mut out = Vec::new();
    for batch in packets.chunks(flush_every.max(1)) {
        for packet in batch {
            assert!(coalescer.push(packet));
        }
        coalescer.flush();
        while let Some(frame) = coalescer.poll() {
            out.extend(cut(frame));
        }
    }
    out
}

fn cut(frame: &[u8]) -> Vec<Vec<u8>> {
    let (vnet, packet) = Vnet::split(frame).unwrap();
    let segments = Segments::of(vnet, packet).unwrap();
    let cut: Vec<Vec<u8>> = (0..segments.count())
        .map(|index| {
            let mut out = vec![0; 65_536];
            let len = segments.write(index, &mut out).unwrap();
            out.truncate(len);
            out
        })
        .collect();
    assert_eq!(segments.total(), cut.iter().map(Vec::len).sum::<usize>());
    assert_eq!(segments.longest(), cut.iter().map(Vec::len).max().unwrap());
    cut
}

/// The identification of a packet that may not be fragmented has no meaning (RFC 6864); the rest must be equal.
fn without_meaningless_id(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 && packet[6] & 0x40 != 0 {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
        let sum = reference_sum(&packet[..20]);
        packet[10..12].copy_from_slice(&(!sum).to_be_bytes());
    }
    packet
}

/// Packets by flow, in order: protocol, addresses and ports; what has no ports is a flow by itself.
fn by_flow(packets: Vec<Vec<u8>>) -> std::collections::BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut flows = std::collections::BTreeMap::<_, Vec<_>>::new();
    for packet in packets {
        let start = if packet[0] >> 4 == 6 { 40 } else { 20 };
        let mut key = vec![packet[0] >> 4, packet[if start == 40 { 6 } else { 9 }]];
        key.extend(packet.get(start..start + 4).unwrap_or_default());
        flows
            .entry(key)
            .or_default()
            .push(without_meaningless_id(packet));
    }
    flows
}

fn frames(packets: &[Vec<u8>]) -> Vec<usize> {
    let mut coalescer = Coalescer::default();
    coalescer.set_accepts(EVERYTHING);
    for packet in packets {
        assert!(coalescer.push(packet));
    }
    coalescer.flush();
    let frames = std::iter::from_fn(|| coalescer.poll().map(|frame| frame.len() - VNET_BYTES));
    frames.collect()
}

#[test]
fn a_header_that_does_not_fit_its_packet_is_malformed() {
    let packet = Made::tcp(1, 0, &[1; 100]).build();
    let header = |gso: u8, segment: u16, start: u16, offset: u16| {
        let mut frame = vec![1, gso];
        for number in [0, segment, start, offset] {
            frame.extend(number.to_ne_bytes());
        }
        frame.extend(&packet);
        frame
    };
    let judged = |frame: &[u8]| {
        let (vnet, packet) = Vnet::split(frame)?;
        Segments::of(vnet, packet).map(|segments| segments.count())
    };

    for bad in [
        vec![0; VNET_BYTES - 1],
        header(1, 0, 20, 16),
        header(2, 50, 20, 16),
        header(4, 50, 20, 16),
        header(1, 50, 10, 16),
        header(1, 50, 20, 6),
        header(1, 50, 400, 16),
        header(1, 50, 130, 16),
    ] {
        assert_eq!(
            judged(&bad),
            Err(Dropped::Malformed),
            "{:02x?}",
            &bad[..10.min(bad.len())]
        );
    }
    assert_eq!(judged(&header(1, 50, 20, 16)), Ok(2));
}

#[test]
fn consecutive_segments_of_a_flow_make_one_frame() {
    let packets: Vec<_> = (0..40)
        .map(|n| Made::tcp(1, n * 1_000, &[7; 1_000]).build())
        .collect();

    assert_eq!(frames(&packets), [40 + 40_000]);
}

#[test]
fn what_the_kernel_would_not_cut_into_the_same_packets_is_not_joined() {
    let first = Made::tcp(1, 0, &[7; 100]);
    let next = Made::tcp(1, 100, &[8; 100]);
    let cases: Vec<(&str, Made)> = vec![
        (
            "a gap",
            Made {
                sequence: 101,
                ..next.clone()
            },
        ),
        ("a repetition", first.clone()),
        (
            "another acknowledgement",
            Made {
                ack: 78,
                ..next.clone()
            },
        ),
        (
            "another window",
            Made {
                window: 501,
                ..next.clone()
            },
        ),
        (
            "another mark",
            Made {
                tos: 3,
                ..next.clone()
            },
        ),
        (
            "another time to live",
            Made {
                ttl: 63,
                ..next.clone()
            },
        ),
        (
            "options",
            Made {
                options: vec![1; 4],
                ..next.clone()
            },
        ),
        (
            "more than the first",
            Made {
                payload: vec![8; 101],
                ..next.clone()
            },
        ),
        (
            "nothing in it",
            Made {
                payload: vec![],
                ..next.clone()
            },
        ),
        (
            "an end",
            Made {
                flags: 0x11,
                ..next.clone()
            },
        ),
        (
            "urgency",
            Made {
                flags: 0x30,
                ..next.clone()
            },
        ),
        (
            "a reset",
            Made {
                flags: 0x14,
                ..next.clone()
            },
        ),
        (
            "a reduced window",
            Made {
                flags: 0x90,
                ..next.clone()
            },
        ),
        (
            "a wrong checksum",
            Made {
                spoilt_checksum: true,
                ..next.clone()
            },
        ),
        (
            "another fragmentation flag",
            Made {
                dont_fragment: false,
                ..next.clone()
            },
        ),
        (
            "a fragment",
            Made {
                fragment: true,
                dont_fragment: false,
                ..next.clone()
            },
        ),
    ];

    for (what, second) in cases {
        let packets = [first.build(), second.build()];
        assert_eq!(
            frames(&packets),
            [packets[0].len(), packets[1].len()],
            "{what}"
        );
        assert_eq!(through(&packets, EVERYTHING, 2), packets, "{what}");
    }
    assert_eq!(frames(&[first.build(), next.build()]), [240]);
}

#[test]
fn datagrams_that_may_be_fragmented_are_joined_only_while_they_are_numbered_on() {
    let counting: Vec<_> = (5..9)
        .map(|id| Made::udp(1, id, &[1; 64]).build())
        .collect();
    let constant: Vec<_> = (0..4).map(|_| Made::udp(1, 5, &[1; 64]).build()).collect();

    assert_eq!(frames(&counting), [28 + 4 * 64]);
    assert_eq!(frames(&constant), [92; 4]);
}

#[test]
fn a_shorter_or_pushed_segment_completes_its_frame() {
    let pushed = Made {
        flags: 0x18,
        ..Made::tcp(1, 100, &[1; 100])
    };
    let packets = [
        Made::tcp(1, 0, &[1; 100]).build(),
        pushed.build(),
        Made::tcp(1, 200, &[1; 100]).build(),
        Made::tcp(1, 300, &[1; 60]).build(),
        Made::tcp(1, 360, &[1; 60]).build(),
    ];

    assert_eq!(frames(&packets), [240, 200, 100]);
    let delivered = through(&packets, EVERYTHING, 5);
    assert_eq!(by_flow(delivered), by_flow(packets.to_vec()));
}

#[test]
fn no_frame_is_longer_than_an_ip_packet_and_no_packet_is_lost_when_many_flows_cross() {
    let long: Vec<_> = (0..100)
        .map(|n| Made::tcp(1, n * 1_400, &[7; 1_400]).build())
        .collect();
    assert!(frames(&long).iter().all(|len| *len <= 65_535));
    assert_eq!(by_flow(through(&long, EVERYTHING, 100)), by_flow(long));

    let crossing: Vec<_> = (0..400_u32)
        .map(|n| Made::tcp((n % 50) as u8, n / 50 * 200, &[7; 200]).build())
        .collect();
    assert_eq!(
        by_flow(through(&crossing, EVERYTHING, 400)),
        by_flow(crossing)
    );
}

#[test]
fn a_device_that_takes_no_super_packets_gets_none() {
    let packets: Vec<_> = (0..8)
        .map(|n| Made::tcp(1, n * 10, &[1; 10]).build())
        .collect();
    let mut coalescer = Coalescer::default();
    for packet in &packets {
        coalescer.push(packet);
    }

    for packet in &packets {
        assert_eq!(
            coalescer.poll().map(|frame| &frame[VNET_BYTES..]),
            Some(&packet[..])
        );
    }
    assert_eq!(coalescer.poll(), None);
}

#[test]
fn a_shell_that_never_writes_does_not_make_it_grow() {
    let mut coalescer = Coalescer::default();
    let packet = Made::udp(1, 1, &[0; 1_400]).build();

    let taken = (0..10_000).take_while(|_| coalescer.push(&packet)).count();

    assert!(taken < 400, "{taken} packets were kept");
}

#[test]
fn congestion_marks_cross_as_rfc_6040_says() {
    // Inner mark, outer mark, and what the inner one becomes; figure 4 of the RFC, row by row.
    let expected = [
        [Some(0), Some(0), Some(0), None],
        [Some(1), Some(1), Some(1), Some(3)],
        [Some(2), Some(1), Some(2), Some(3)],
        [Some(3), Some(3), Some(3), Some(3)],
    ];
    for v6 in [false, true] {
        for (inner, row) in (0..).zip(expected) {
            for (outer, expected) in (0..).zip(row) {
                let before = Made {
                    v6,
                    tos: 0xb8 | inner,
                    ..Made::tcp(1, 0, b"x")
                };
                let mut packet = before.build();
                let result = ecn::decapsulate(&mut packet, 0x2c | outer);
                match expected {
                    None => assert_eq!(result, Err(Dropped::Congested)),
                    Some(mark) => {
                        let after = Made {
                            tos: 0xb8 | mark,
                            ..before
                        };
                        assert_eq!((result, packet), (Ok(()), after.build()));
                    }
                }
            }
        }
    }
}

fn any_made() -> impl Strategy<Value = Made> {
    let network = (
        any::<bool>(),
        any::<bool>(),
        0..3_u8,
        any::<u8>(),
        any::<bool>(),
    );
    let fields = (
        prop_oneof![8 => Just(0_u8), 1 => 0..4_u8],
        prop_oneof![20 => Just(64_u8), 1 => Just(63)],
        prop_oneof![30 => Just(0x10_u8), 6 => Just(0x18), 1 => any::<u8>()],
        prop_oneof![20 => Just(500_u16), 1 => any::<u16>()],
        prop_oneof![9 => Just(0_usize), 1 => 0..4_usize, 3 => Just(3)],
        prop_oneof![12 => Just(100_usize), 2 => 0..220_usize, 1 => Just(1_340)],
        prop_oneof![40 => Just(false), 1 => Just(true)],
        prop_oneof![40 => Just(false), 1 => Just(true)],
    );
    (network, fields).prop_map(
        |((v6, udp, flow, byte, df), (tos, ttl, flags, window, options, len, fragment, spoilt))| {
            Made {
                down: false,
                v6,
                udp,
                flow,
                tos,
                ttl,
                id: 0,
                dont_fragment: df,
                fragment: fragment && !v6,
                sequence: 0,
                ack: 9,
                flags,
                window,
                options: vec![1; options * 4],
                payload: vec![byte; len],
                spoilt_checksum: spoilt,
            }
        },
    )
}

/// A stream, built.
fn stream() -> impl Strategy<Value = Vec<Vec<u8>>> {
    made_stream().prop_map(|made| made.iter().map(Made::build).collect())
}

/// A stream: sequence numbers and identifications go on per flow, but for a few that jump, repeat or are swapped.
fn made_stream() -> impl Strategy<Value = Vec<Made>> {
    let slips = proptest::collection::vec(
        (
            any::<bool>(),
            prop_oneof![9 => Just(0_u32), 1 => any::<u32>()],
        ),
        120,
    );
    (
        proptest::collection::vec(any_made(), 1..120),
        slips,
        any::<prop::sample::Index>(),
    )
        .prop_map(|(mut made, slips, at)| {
            let mut next = std::collections::HashMap::new();
            for (made, (counts, slip)) in made.iter_mut().zip(slips) {
                let (sequence, id) = next
                    .entry((made.v6, made.udp, made.flow))
                    .or_insert((0xffff_f000_u32, 0xfff0_u16));
                made.sequence = sequence.wrapping_add(slip);
                made.id = *id;
                *sequence = sequence.wrapping_add(u32::try_from(made.payload.len()).unwrap());
                *id = id.wrapping_add(u16::from(counts || made.udp));
            }
            let at = at.index(made.len());
            if at > 0 {
                made.swap(at - 1, at);
            }
            made
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_leaves_the_device_equals_what_a_plain_path_delivers_flow_by_flow(
        packets in stream(), flush_every in 1..130_usize, tcp in any::<bool>(), udp in any::<bool>(),
    ) {
        let delivered = through(&packets, Accepts { tcp, udp }, flush_every);

        prop_assert_eq!(by_flow(delivered), by_flow(packets));
    }

    #[test]
    fn a_cut_super_packet_is_the_packets_that_it_was_joined_from(
        v6 in any::<bool>(), udp in any::<bool>(), segment in 1..1_400_usize, count in 2..40_usize,
        last in 1..1_400_usize, options in 0..10_usize, sequence in any::<u32>(), id in any::<u16>(),
    ) {
        let made = |index: usize, len: usize| Made {
            v6,
            udp,
            sequence: sequence.wrapping_add(u32::try_from(index * segment).unwrap()),
            id: id.wrapping_add(u16::try_from(index).unwrap()),
            options: vec![1; options * 4],
            payload: vec![u8::try_from(index).unwrap(); len],
            ..Made::tcp(1, 0, &[])
        };
        let last = last.min(segment);
        let mut packets: Vec<_> = (0..count - 1).map(|index| made(index, segment).build()).collect();
        packets.push(made(count - 1, last).build());

        let mut coalescer = Coalescer::default();
        coalescer.set_accepts(EVERYTHING);
        for packet in &packets {
            prop_assert!(coalescer.push(packet));
        }
        coalescer.flush();
        let mut delivered = Vec::new();
        let mut frames = 0;
        while let Some(frame) = coalescer.poll() {
            frames += 1;
            delivered.extend(cut(frame));
        }

        prop_assert_eq!(delivered, packets);
        prop_assert!(frames <= 1 + (count * (segment + 60)) / 60_000);
    }

    #[test]
    fn no_frame_makes_cutting_panic(frame in proptest::collection::vec(any::<u8>(), 0..200), gso in 0..6_u8) {
        let mut frame = frame;
        if let Some(byte) = frame.get_mut(1) {
            *byte = gso;
        }
        if let Ok((vnet, packet)) = Vnet::split(&frame) && let Ok(segments) = Segments::of(vnet, packet) {
            let mut out = vec![0; 256];
            for index in 0..segments.count().min(300) {
                let _ = segments.write(index, &mut out);
            }
        }
    }

    #[test]
    fn no_packet_makes_joining_panic(packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..90), 0..20)) {
        let mut coalescer = Coalescer::default();
        coalescer.set_accepts(EVERYTHING);
        for mut packet in packets {
            if let Some(first) = packet.first_mut() {
                *first = if *first & 1 == 0 { 0x45 } else { 0x60 };
            }
            coalescer.push(&packet);
        }
        coalescer.flush();
        while coalescer.poll().is_some() {}
    }

    #[test]
    fn the_sum_is_that_of_the_rfc(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let sum = checksum::fold(checksum::add(0, &bytes));
        prop_assert_eq!(u16::from_be_bytes(sum.to_ne_bytes()) % 0xffff, reference_sum(&bytes) % 0xffff);
    }
}
