//! Leases with a rate: what goes beyond it dies at the gateway, in the direction that it is for, and nothing else changes.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::rig::{INNER, Pair, WEB, key, lease, packet, public};
use tunnel::Dropped;
use tunnel::edge::{PeerConfig, Upserted};
use tunnel::rate::Rates;

/// 250 ms of 3.2 Mb/s are 100,000 bytes; a packet has 1,000.
const RATE: u64 = 3_200_000;
const BURST: usize = 100;
const LEN: usize = 1_000;

fn down(bits_per_s: u64) -> Rates {
    Rates {
        to_router: NonZeroU64::new(bits_per_s),
        from_router: None,
    }
}

fn up(bits_per_s: u64) -> Rates {
    Rates {
        to_router: None,
        from_router: NonZeroU64::new(bits_per_s),
    }
}

fn admit(pair: &mut Pair, rates: Rates) -> Upserted {
    let terms = PeerConfig {
        rates,
        ..lease(pair.start)
    };
    pair.admit(terms).unwrap()
}

/// How many of so many packets to the router its gateway takes at once.
fn taken(pair: &mut Pair, count: u32) -> usize {
    let packet = packet(WEB, INNER, LEN, 1);
    (0..count)
        .filter(|_| pair.internet_sends(0, &packet).is_ok())
        .count()
}

#[test]
fn what_is_beyond_the_rate_to_the_router_is_dropped_and_not_counted_as_carried() {
    let mut pair = Pair::connected();
    admit(&mut pair, down(RATE));

    assert_eq!(taken(&mut pair, 250), BURST);
    pair.advance(Duration::from_millis(125));
    assert_eq!(taken(&mut pair, 250), 50);
    pair.advance(Duration::from_secs(1));

    assert_eq!(pair.at_home.len(), 150);
    assert_eq!(pair.edge().dropped().get(Dropped::OverLimit), 350);
    assert_eq!(pair.peer().traffic.tx_bytes, 150_000);
}

#[test]
fn a_frame_that_stands_for_many_loses_its_end_and_its_beginning_arrives() {
    let mut pair = Pair::connected();
    admit(&mut pair, down(RATE));
    // Sixty segments of 1,000 bytes of payload in TCP over IPv4: the header of virtio, then one packet.
    let mut frame = vec![1, 1];
    for number in [40_u16, 1_000, 20, 16] {
        frame.extend(number.to_ne_bytes());
    }
    let mut tcp = packet(WEB, INNER, 40 + 60 * 1_000, 1);
    (tcp[9], tcp[32]) = (6, 0x50);
    frame.extend(tcp);

    let now = pair.now;
    for _ in 0..3 {
        // The third is dropped whole.
        let _counted = pair.edge().handle_tun_frame(&frame, now);
    }
    pair.advance(Duration::from_secs(1));

    // 100,000 bytes are 96 packets of 1,040.
    assert_eq!(pair.at_home.len(), 96);
    assert_eq!(pair.edge().dropped().get(Dropped::OverLimit), 180 - 96);
    assert_eq!(pair.peer().traffic.tx_bytes, 96 * 1_040);
}

#[test]
fn what_is_beyond_the_rate_from_the_router_does_not_reach_the_internet() {
    let mut pair = Pair::connected();
    admit(&mut pair, up(RATE));
    let packet = packet(INNER, WEB, LEN, 1);

    for _ in 0..250 {
        pair.home_sends(&packet).unwrap();
    }
    pair.advance(Duration::from_secs(1));

    assert_eq!(pair.at_internet.len(), BURST);
    assert_eq!(pair.edge().dropped().get(Dropped::OverLimit), 150);
    assert_eq!(pair.peer().traffic.rx_bytes, 100_000);
    assert_eq!(taken(&mut pair, 250), 250, "the way back has no limit");
}

#[test]
fn a_renewed_lease_changes_the_rate_and_keeps_the_session() {
    let mut pair = Pair::connected();
    let handshakes = pair.seen_of_kind(1).len();
    admit(&mut pair, down(RATE));
    assert_eq!(taken(&mut pair, 250), BURST);

    assert_eq!(admit(&mut pair, down(2 * RATE)), Upserted::Updated);
    assert_eq!(taken(&mut pair, 250), 0, "a renewal is no gift");
    pair.advance(Duration::from_millis(125));
    assert_eq!(taken(&mut pair, 250), BURST);
    assert_eq!(admit(&mut pair, Rates::default()), Upserted::Updated);
    assert_eq!(taken(&mut pair, 250), 250);

    assert_eq!(pair.seen_of_kind(1).len(), handshakes);
}

#[test]
fn the_same_terms_again_fill_no_bucket() {
    let mut pair = Pair::connected();
    admit(&mut pair, down(RATE));
    assert_eq!(taken(&mut pair, 250), BURST);

    for _ in 0..10 {
        admit(&mut pair, down(RATE));
    }

    assert_eq!(taken(&mut pair, 250), 0);
}

#[test]
fn a_bucket_survives_the_sleep_of_its_peer() {
    let mut pair = Pair::connected();
    admit(&mut pair, down(64_000));
    // 65,536 bytes, and eight in a millisecond.
    assert_eq!(taken(&mut pair, 250), 65);
    let now = pair.now;
    let other = PeerConfig {
        psk: Some(tunnel::Psk::from([1; 32])),
        rates: down(64_000),
        ..lease(pair.start)
    };
    pair.admit(other).unwrap();
    assert_eq!(pair.edge().awake_count(), 0);

    assert_eq!((taken(&mut pair, 10), pair.now), (0, now));
}

#[test]
fn a_home_without_a_limit_is_not_touched_by_its_neighbours() {
    let mut pair = Pair::connected();
    let neighbour = PeerConfig {
        id: [8; 32],
        public: public(&key(8)),
        allowed: vec!["10.64.0.8/32".parse().unwrap()],
        rates: down(64_000),
        ..lease(pair.start)
    };
    pair.admit(neighbour).unwrap();

    assert_eq!(taken(&mut pair, 2_000), 2_000);
    assert_eq!(pair.edge().dropped().total(), 0);
}
