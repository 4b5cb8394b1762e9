//! Packets drawn for statistics: a length and an address of the internet, and nothing else.

use std::num::NonZeroU32;

use crate::rig::{INNER, INNER6, Pair, WEB, WEB6, ip, key, lease, packet, public};
use tunnel::edge::PeerConfig;
use tunnel::sample::{Direction, Drawn};

fn sampling(one_in: u32) -> Pair {
    let mut pair = Pair::connected();
    pair.edge()
        .set_sampling(NonZeroU32::new(one_in).unwrap(), 5);
    pair
}

fn drawn(pair: &mut Pair) -> Vec<Drawn> {
    std::iter::from_fn(|| pair.edge().poll_drawn()).collect()
}

#[test]
fn a_gateway_that_was_not_told_to_draws_nothing() {
    let mut pair = Pair::connected();
    for n in 0..1_000 {
        pair.home_sends(&packet(INNER, WEB, 100, n)).unwrap();
        pair.internet_sends(0, &packet(WEB, INNER, 100, n)).unwrap();
    }
    pair.advance(std::time::Duration::from_secs(1));

    assert_eq!(drawn(&mut pair), []);
}

#[test]
fn what_goes_from_home_to_home_or_to_the_gateway_is_never_drawn() {
    let mut pair = sampling(1);
    pair.edge().set_inner(vec![ip("10.64.0.1")]);
    let neighbour = PeerConfig {
        id: [8; 32],
        public: public(&key(8)),
        allowed: vec!["10.64.0.8/32".parse().unwrap()],
        ..lease(pair.start)
    };
    pair.admit(neighbour).unwrap();

    for n in 0..100 {
        let others = ["10.64.0.8", "10.64.0.1"];
        for other in others {
            pair.home_sends(&packet(INNER, other, 100, n)).unwrap();
            pair.internet_sends(0, &packet(other, INNER, 100, n))
                .unwrap();
        }
    }
    pair.advance(std::time::Duration::from_secs(1));

    assert_eq!(drawn(&mut pair), []);
}

#[test]
fn what_is_drawn_tells_the_internets_side_alone() {
    let mut pair = sampling(1);

    pair.home_sends(&packet(INNER, WEB, 100, 1)).unwrap();
    pair.home_sends(&packet(INNER6, WEB6, 200, 2)).unwrap();
    pair.advance(std::time::Duration::from_secs(1));
    pair.internet_sends(0, &packet(WEB, INNER, 300, 3)).unwrap();

    let expected = [
        (Direction::FromRouter, WEB, 100),
        (Direction::FromRouter, WEB6, 200),
        (Direction::ToRouter, WEB, 300),
    ];
    let expected = expected.map(|(direction, remote, bytes)| Drawn {
        direction,
        remote: ip(remote),
        bytes,
    });
    assert_eq!(drawn(&mut pair), expected);
}

#[test]
fn what_is_dropped_is_not_drawn() {
    let mut pair = sampling(1);
    for n in 0..10 {
        let lost = [
            packet(WEB, "10.64.0.9", 100, n),
            packet(WEB, INNER, 1_421, n),
        ];
        for lost in lost {
            pair.internet_sends(0, &lost).unwrap_err();
        }
        pair.home_sends(&packet(INNER, WEB, 100, n)).unwrap();
    }
    pair.advance(std::time::Duration::from_secs(1));

    let drawn = drawn(&mut pair);
    assert_eq!(drawn.len(), 10);
    assert!(drawn.iter().all(|d| d.direction == Direction::FromRouter));
}
