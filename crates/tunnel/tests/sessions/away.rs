//! A gateway that is away, for long or for a long round trip, and a home that waits for it.

use std::time::Duration;

use crate::rig::{Cable, INNER, Pair, WEB, is_connected, packet, seconds};
use tunnel::edge::EdgeLimits;

#[test]
fn an_only_gateway_is_tried_for_ever_at_a_bounded_rate() {
    let mut pair = Pair::new();
    pair.gateways[0].is_up = false;
    pair.advance(seconds(3_600));
    let initiations = pair.seen_of_kind(1).len();
    assert!(
        (1_000..2_200).contains(&initiations),
        "{initiations} in an hour"
    );

    pair.gateways[0].is_up = true;
    let back = pair.now;
    pair.connect();

    assert!(pair.now - back < seconds(6));
}

#[test]
fn a_gateway_that_was_away_for_ten_minutes_is_found_at_once_and_told_the_latest() {
    let mut pair = Pair::connected();
    pair.gateways[0].is_up = false;
    for n in 0..600 {
        let _sent = pair.home_sends(&packet(INNER, WEB, 100, n));
        pair.advance(seconds(1));
    }
    pair.at_internet.clear();

    pair.gateways[0].is_up = true;
    let back = pair.now;
    pair.run_until(seconds(60), |pair| !pair.at_internet.is_empty());

    assert!(pair.now - back < Duration::from_millis(1_500));
    pair.advance(seconds(1));
    assert_eq!(pair.at_internet.len(), 64);
    assert_eq!(pair.at_internet.last(), Some(&packet(INNER, WEB, 100, 599)));
}

/// Sends something each second; for how many seconds there was no tunnel.
fn seconds_without(pair: &mut Pair, seconds_of: u32) -> usize {
    let mut without = 0;
    for n in 0..seconds_of {
        let _sent = pair.home_sends(&packet(INNER, WEB, 100, n));
        pair.advance(seconds(1));
        without += usize::from(!is_connected(pair));
    }
    without
}

#[test]
fn a_gateway_behind_a_round_trip_longer_than_the_wait_between_two_tries_is_reached() {
    for (rtt_ms, within) in [
        (900, 2),
        (1_300, 4),
        (1_400, 4),
        (2_000, 6),
        (3_000, 8),
        (3_500, 8),
    ] {
        let cable = Cable {
            delay_ms: rtt_ms / 2,
            ..Cable::GOOD
        };
        let mut pair = Pair::with(1, cable, 1, EdgeLimits::default());

        let without = seconds_without(&mut pair, 120);

        assert!(without <= within, "{without} s at {rtt_ms} ms");
    }
}

#[test]
fn a_far_gateway_that_asks_for_cookies_is_reached() {
    let limits = EdgeLimits {
        handshakes_per_s: 0,
        ..EdgeLimits::default()
    };
    for (rtt_ms, within) in [(900, 4), (1_300, 10), (1_500, 10), (2_000, 10), (3_000, 20)] {
        let cable = Cable {
            delay_ms: rtt_ms / 2,
            ..Cable::GOOD
        };
        let mut pair = Pair::with(1, cable, 1, limits);

        let without = seconds_without(&mut pair, 60);

        assert!(without <= within, "{without} s at {rtt_ms} ms");
    }
}

#[test]
fn a_session_outlives_a_round_trip_that_grows_longer_than_the_wait_between_two_tries() {
    for rtt_ms in [1_000, 1_400, 2_000, 3_000] {
        for gateways in [1, 2] {
            let mut pair = Pair::with(gateways, Cable::GOOD, 1, EdgeLimits::default());
            pair.connect();
            pair.cable.delay_ms = rtt_ms / 2;

            let without = seconds_without(&mut pair, 600);

            assert_eq!(without, 0, "{rtt_ms} ms, {gateways} gateways");
        }
    }
}

#[test]
fn a_gateway_that_was_away_for_long_is_missed_as_much_the_next_time() {
    let mut pair = Pair::connected();
    for away in [1_200, 14] {
        pair.gateways[0].is_up = false;
        seconds_without(&mut pair, away);
        pair.gateways[0].is_up = true;
        pair.connect();
        seconds_without(&mut pair, 30);
    }
    let before = pair.seen_of_kind(1).len();
    pair.gateways[0].is_up = false;
    seconds_without(&mut pair, 14);

    let tries = pair.seen_of_kind(1).len() - before;
    assert!((6..=14).contains(&tries), "{tries}");
}
