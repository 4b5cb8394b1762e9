//! What is cut and joined against what a path without offloads carries, packet by packet and flow by flow.

use proptest::prelude::*;

mod made;
mod whole;

use super::coalesce::Coalescer;
use super::segment::Segments;
use super::vnet::Vnet;
use super::{Accepts, VNET_BYTES, checksum, ecn};
use crate::dropped::Dropped;
use made::{Made, network_len, reference_sum, stream};

const EVERYTHING: Accepts = Accepts {
    tcp: true,
    udp: true,
};

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
    if segments.count() > 1 {
        let is_v4 = packet[0] >> 4 == 4;
        let is_part = is_v4 && (packet[6] & 0x3f != 0 || packet[7] != 0);
        assert!(!is_part, "a kernel does not cut a fragment");
        // GSO_UDP_L4; older kernels refuse more (UDP_MAX_SEGMENTS).
        assert!(frame[1] != 5 || segments.count() <= 64);
    }
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
        let header = network_len(&packet);
        let sum = reference_sum(&packet[..header]);
        packet[10..12].copy_from_slice(&(!sum).to_be_bytes());
    }
    packet
}

/// Packets by flow, in order: protocol, addresses and ports; what has no ports is a flow by itself.
fn by_flow(packets: Vec<Vec<u8>>) -> std::collections::BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut flows = std::collections::BTreeMap::<_, Vec<_>>::new();
    for packet in packets {
        let start = network_len(&packet);
        let is_v6 = packet[0] >> 4 == 6;
        let mut key = vec![packet[0] >> 4, packet[if is_v6 { 6 } else { 9 }]];
        let addresses = if is_v6 { 8..40 } else { 12..20 };
        key.extend(&packet[addresses]);
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

/// Makes a packet one that may not follow.
type Spoil = fn(&mut Made);

#[test]
fn what_the_kernel_would_not_cut_into_the_same_packets_is_not_joined() {
    let first = Made::tcp(1, 0, &[7; 100]);
    let next = Made::tcp(1, 100, &[8; 100]);
    let cases: [(&str, Spoil); 22] = [
        ("a gap", |made| made.sequence = 101),
        ("a repetition", |made| made.sequence = 0),
        ("another acknowledgement", |made| made.ack = 78),
        ("another window", |made| made.window = 501),
        ("another mark", |made| made.tos = 3),
        ("another time to live", |made| made.ttl = 63),
        ("options", |made| made.options = vec![1; 4]),
        ("more than the first", |made| made.payload = vec![8; 101]),
        ("nothing in it", |made| made.payload.clear()),
        ("an end", |made| made.flags = 0x11),
        ("urgency", |made| made.flags = 0x30),
        ("a reset", |made| made.flags = 0x14),
        ("a reduced window", |made| made.flags = 0x90),
        ("an urgent pointer", |made| made.urgent = 1),
        ("another server", |made| made.web ^= 1),
        ("a wrong checksum", |made| made.spoilt_checksum = true),
        ("leave to fragment", |made| made.dont_fragment = false),
        ("a fragment", |made| {
            (made.fragment, made.dont_fragment) = (true, false);
        }),
        ("the last fragment", |made| {
            (made.offset, made.dont_fragment) = (9, false);
        }),
        ("a fragment from afar", |made| {
            (made.offset, made.dont_fragment) = (0x100, false);
        }),
        ("the last fragment of the longest packet", |made| {
            (made.offset, made.dont_fragment) = (0x1f00, false);
        }),
        ("options of IP", |made| made.ip_options = 1),
    ];

    for (what, spoil) in cases {
        let mut second = next.clone();
        spoil(&mut second);
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
fn other_options_and_another_flow_label_are_kept_apart_too() {
    let stamped = Made {
        options: vec![1; 12],
        ..Made::tcp(1, 0, &[7; 100])
    };
    let labelled = Made {
        v6: true,
        label: 0x1234,
        ..Made::tcp(1, 0, &[7; 100])
    };
    let cases: [(&Made, Spoil); 2] = [
        (&stamped, |made| made.options[11] = 2),
        (&labelled, |made| made.label ^= 1),
    ];

    for (first, spoil) in cases {
        let mut second = Made {
            sequence: 100,
            ..first.clone()
        };
        let joined = [first.build(), second.build()];
        assert_eq!(frames(&joined), [joined[0].len() + 100]);
        spoil(&mut second);
        let packets = [first.build(), second.build()];
        let lengths = [packets[0].len(), packets[1].len()];
        assert_eq!(frames(&packets), lengths, "{second:?}");
        assert_eq!(through(&packets, EVERYTHING, 2), packets);
    }
}

#[test]
fn fragments_are_never_joined_the_last_ones_of_several_packets_neither() {
    for offset in [9, 0x100, 0x1f00] {
        let last = |n: u8| Made {
            offset,
            ..Made::udp(1, n.into(), &[n; 64])
        };
        let packets: Vec<_> = (1..4).map(|n| last(n).build()).collect();

        assert_eq!(frames(&packets), [92; 3], "{offset}");
    }
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
fn datagrams_are_not_joined_when_udp_counts_otherwise_than_ip_or_has_no_checksum() {
    let first = Made::udp(1, 1, &[7; 100]);
    let next = Made::udp(1, 2, &[8; 100]).summing_to_zero();
    let unsummed = Made {
        unsummed: true,
        ..next.clone()
    };
    let shorter = Made {
        payload: vec![8; 98],
        ..next.clone()
    };
    let odd = Made {
        payload: vec![8; 97],
        ..next.clone()
    };

    for second in [unsummed, shorter.trailed(), odd.trailed()] {
        let packets = [first.build(), second.build()];
        let lengths = packets.each_ref().map(Vec::len);
        assert_eq!(frames(&packets), lengths, "{second:?}");
        assert_eq!(through(&packets, EVERYTHING, 2), packets);
    }
    assert_eq!(frames(&[first.build(), next.build()]), [228]);
}

#[test]
fn a_frame_is_never_of_more_datagrams_than_every_kernel_takes() {
    for v6 in [false, true] {
        let made = |id| Made {
            v6,
            ..Made::udp(1, id, &[1; 10])
        };
        let packets: Vec<_> = (0..150).map(|id| made(id).build()).collect();

        let headers = made(0).start() + 8;
        assert_eq!(
            frames(&packets),
            [64, 64, 22].map(|count| headers + count * 10)
        );
    }
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
    fn the_sum_is_that_of_the_rfc(bytes in proptest::collection::vec(any::<u8>(), 0..1_600)) {
        let sum = checksum::fold(checksum::add(0, &bytes));
        prop_assert_eq!(u16::from_be_bytes(sum.to_ne_bytes()) % 0xffff, reference_sum(&bytes) % 0xffff);
    }
}
