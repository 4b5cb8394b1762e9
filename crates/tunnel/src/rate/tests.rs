use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::offload::vnet::Vnet;

const MTU: usize = 1_420;
const SLOWEST: u64 = 64_000;

fn bucket(bits_per_s: u64, now: Instant) -> Bucket {
    Bucket::renewed(None, bits_per_s, now)
}

fn burst_bytes(bucket: &Bucket) -> u64 {
    bucket.depth / PARTS_PER_BYTE
}

fn rate(bits_per_s: u64) -> Option<NonZeroU64> {
    NonZeroU64::new(bits_per_s)
}

fn both(bits_per_s: u64) -> Rates {
    Rates {
        to_router: rate(bits_per_s),
        from_router: rate(bits_per_s),
    }
}

fn meter(rates: Rates, now: Instant) -> Meter {
    Meter::renewed(None, rates, now).unwrap()
}

/// A frame of the TUN device that stands for `count` TCP segments of 1,000 bytes of payload.
fn super_packet(count: usize) -> Vec<u8> {
    let len = u16::try_from(40 + count * 1_000).unwrap();
    let mut packet = vec![0; usize::from(len)];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    packet[9] = 6;
    packet[32] = 0x50;
    let vnet = Vnet::super_packet(crate::offload::vnet::Kind::Tcp4, 1_000, 40, 20);
    [vnet.as_slice(), &packet].concat()
}

fn segments(frame: &[u8]) -> Segments<'_> {
    let (vnet, packet) = Vnet::split(frame).unwrap();
    Segments::of(vnet, packet).unwrap()
}

#[test]
fn what_goes_beyond_the_burst_is_refused_until_time_has_passed() {
    let start = Instant::now();
    let mut bucket = bucket(50_000_000, start);

    let passed = (0..100_000).take_while(|_| bucket.take(MTU)).count() * MTU;
    assert_eq!(passed as u64 / 1_420, burst_bytes(&bucket) / 1_420);
    assert_eq!(burst_bytes(&bucket), 1_562_500, "a quarter of a second");

    // 1,420 bytes take 227.2 µs, and 500 were left.
    bucket.fill(start + Duration::from_nanos(140_000));
    assert!(!bucket.take(MTU));
    bucket.fill(start + Duration::from_nanos(227_200));
    assert!(bucket.take(MTU));
    assert!(!bucket.take(MTU));
}

#[test]
fn the_slowest_lease_still_carries_the_longest_packet() {
    let mut bucket = bucket(SLOWEST, Instant::now());

    assert!(bucket.take(65_535));
}

#[test]
fn a_day_of_silence_saves_up_one_burst() {
    let start = Instant::now();
    let mut bucket = bucket(MAX_BITS_PER_S, start);
    bucket.fill(start + Duration::from_secs(86_400));

    let passed = (0..u64::MAX).take_while(|_| bucket.take(65_535)).count();

    assert_eq!(passed as u64, burst_bytes(&bucket) / 65_535);
}

#[test]
fn a_clock_that_stands_or_goes_back_gives_nothing() {
    let start = Instant::now() + Duration::from_secs(1);
    let mut bucket = bucket(8_000_000, start);
    while bucket.take(1) {}

    bucket.fill(start);
    bucket.fill(start.checked_sub(Duration::from_secs(1)).unwrap());

    assert!(!bucket.take(1));
}

#[test]
fn a_frame_is_charged_by_what_it_stands_for_and_its_end_is_left_out() {
    let start = Instant::now();
    let mut meter = meter(both(3_200_000), start);
    let frame = super_packet(60);
    let packets = segments(&frame);
    assert_eq!(packets.total(), 60 * 1_040);

    let first = meter.take_to_router(&packets, start);
    let second = meter.take_to_router(&packets, start);

    // 100,000 bytes in all: 96 packets with their headers, where the frame itself has 60,040.
    assert_eq!((first, second), (60, 36));
}

#[test]
fn the_directions_do_not_pay_for_each_other_and_one_may_be_without_a_limit() {
    let now = Instant::now();
    let mut meter = meter(
        Rates {
            to_router: rate(SLOWEST),
            from_router: None,
        },
        now,
    );
    let packet = [0; MTU];
    let packet = Segments::plain(&packet);
    while meter.take_to_router(&packet, now) == 1 {}

    assert!((0..10_000).all(|_| meter.take_from_router(65_535, now)));
}

#[test]
fn a_renewal_fills_no_bucket_and_one_without_limits_ends_them() {
    let now = Instant::now();
    let mut slow = meter(both(SLOWEST), now);
    while slow.take_from_router(MTU, now) {}

    let mut fast = Meter::renewed(Some(&slow), both(8_000_000), now).unwrap();
    assert!(!fast.take_from_router(MTU, now));
    assert!(fast.take_from_router(MTU, now + Duration::from_millis(2)));

    assert!(Meter::renewed(Some(&fast), Rates::default(), now).is_none());
}

proptest! {
    #[test]
    fn in_no_window_passes_more_than_rate_and_burst(
        bits_per_s in prop_oneof![SLOWEST..10_000_000, 10_000_000..MAX_BITS_PER_S],
        offers in prop::collection::vec((0..5_000_000_u64, 20..65_535_usize), 1..200),
    ) {
        let start = Instant::now();
        let mut bucket = bucket(bits_per_s, start);
        let mut at = 0;
        let mut passed: Vec<(u64, u128)> = Vec::new();
        for (gap, bytes) in offers {
            at += gap;
            bucket.fill(start + Duration::from_nanos(at));
            if bucket.take(bytes) {
                passed.push((at, u128::from(bytes as u64)));
            }
        }
        for (first, (from, _)) in passed.iter().enumerate() {
            let mut sum = 0;
            for (to, bytes) in &passed[first..] {
                sum += bytes * u128::from(PARTS_PER_BYTE);
                let earned = u128::from(to - from) * u128::from(bits_per_s);
                prop_assert!(sum <= earned + u128::from(bucket.depth));
            }
        }
    }

    #[test]
    fn a_sender_that_keeps_to_rate_and_burst_loses_nothing(
        bits_per_s in SLOWEST..MAX_BITS_PER_S,
        burst in prop::collection::vec(20..9_000_usize, 0..7),
        sizes in prop::collection::vec(20..9_000_usize, 1..300),
    ) {
        let start = Instant::now();
        let mut bucket = bucket(bits_per_s, start);
        for bytes in burst {
            prop_assert!(bucket.take(bytes));
        }
        let mut at = 0;
        for bytes in sizes {
            at += (bytes as u64 * PARTS_PER_BYTE).div_ceil(bits_per_s);
            bucket.fill(start + Duration::from_nanos(at));
            prop_assert!(bucket.take(bytes), "{bytes} at {at}");
        }
    }
}
