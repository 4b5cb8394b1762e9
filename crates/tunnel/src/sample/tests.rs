use super::*;
use crate::offload::segment::Segments;
use crate::offload::vnet::{Kind, Vnet};

fn one_in(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

fn drawn_places(sampler: &mut Sampler, packets: u32) -> Vec<u32> {
    (0..packets).filter(|_| sampler.draws()).collect()
}

/// A frame of `count` segments of 100 bytes of payload and 40 of headers, its last one with 7.
fn frame(count: u16) -> Vec<u8> {
    let len = 40 + (count - 1) * 100 + 7;
    let mut packet = vec![0; usize::from(len)];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    packet[32] = 0x50;
    [
        Vnet::super_packet(Kind::Tcp4, 100, 40, 20).as_slice(),
        &packet,
    ]
    .concat()
}

fn lengths_drawn(sampler: &mut Sampler, frame: &[u8]) -> Vec<usize> {
    let (vnet, packet) = Vnet::split(frame).unwrap();
    let packets = Segments::of(vnet, packet).unwrap();
    if sampler.passes(packets.count()) {
        return Vec::new();
    }
    packets.lengths().filter(|_| sampler.draws()).collect()
}

#[test]
fn exactly_one_of_every_n_is_drawn_and_not_always_the_same() {
    let mut sampler = Sampler::new(one_in(100), 7);

    let places = drawn_places(&mut sampler, 100_000);

    let blocks: Vec<u32> = places.iter().map(|place| place / 100).collect();
    assert_eq!(blocks, (0..1_000).collect::<Vec<_>>());
    let mut offsets: Vec<u32> = places.iter().map(|place| place % 100).collect();
    offsets.sort_unstable();
    offsets.dedup();
    assert_eq!(offsets.len(), 100, "every place is chosen some time");
}

#[test]
fn another_seed_has_another_phase() {
    let phases = (0..1_000).map(|seed| Sampler::new(one_in(1_000), seed).left);
    let mean = phases.map(u64::from).sum::<u64>() / 1_000;

    assert!((450..550).contains(&mean), "{mean}");
}

#[test]
fn every_packet_has_the_same_chance_alone_or_within_a_frame() {
    const SEEDS: u64 = 40_000;
    let big = frame(150);
    let small = frame(3);
    let total = 2 * (149 * 140 + 47) + 3 * (2 * 140 + 47);
    let (mut estimated, mut last_ones) = (0, 0);
    for seed in 0..SEEDS {
        let mut sampler = Sampler::new(one_in(100), seed);
        for frame in [&small, &big, &small, &big, &small] {
            for bytes in lengths_drawn(&mut sampler, frame) {
                estimated += bytes * 100;
                last_ones += usize::from(bytes == 47);
            }
        }
    }

    let mean = estimated as f64 / SEEDS as f64;
    let off = mean / f64::from(total) - 1.0;
    assert!(off.abs() < 0.005, "{mean} for {total}");
    // Five of the 309 packets are short: a chance of 0.05 in each run, a deviation of 43 over all.
    assert!((1_780..2_220).contains(&last_ones), "{last_ones}");
}

#[test]
fn a_rhythm_as_long_as_n_is_not_mistaken() {
    // Every hundredth packet is large, always at the same place.
    let mut sampler = Sampler::new(one_in(100), 3);
    let large = (0..1_000_000_u32).filter(|n| sampler.draws() && n % 100 == 42);

    let large = large.count();

    assert!((50..150).contains(&large), "{large} of 10,000");
}

#[test]
fn nothing_grows_where_nobody_counts() {
    let mut sampler = Sampler::new(one_in(100), 1);
    let drawn = Drawn {
        direction: Direction::ToRouter,
        remote: [192, 0, 2, 1].into(),
        bytes: 1,
    };
    for _ in 0..2 * MAX_DRAWN {
        sampler.note(drawn);
    }

    assert_eq!(std::iter::from_fn(|| sampler.poll()).count(), MAX_DRAWN);
}
