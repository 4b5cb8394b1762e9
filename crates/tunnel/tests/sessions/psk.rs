//! Pre-shared keys: right static keys alone make no session where one is agreed, in either direction.

use std::time::Duration;

use tunnel::edge::{PeerConfig, Upserted};
use tunnel::{Dropped, Psk};

use crate::rig::{
    GATEWAYS, INNER, INNER_NET, Pair, WEB, agent_config, is_connected, lease, packet,
};

const AGREED: [u8; 32] = [0x51; 32];
const OTHER: [u8; 32] = [0x52; 32];

/// Gives each end its key and lets them try.
fn tried(at_edge: Option<[u8; 32]>, at_agent: Option<[u8; 32]>) -> Pair {
    let mut pair = Pair::new();
    set_edge(&mut pair, at_edge);
    set_agent(&mut pair, at_agent);
    pair.advance(Duration::from_secs(4));
    pair
}

fn set_edge(pair: &mut Pair, psk: Option<[u8; 32]>) -> Upserted {
    let terms = PeerConfig {
        psk: psk.map(Psk::from),
        ..lease(pair.start)
    };
    pair.admit(terms).unwrap()
}

fn set_agent(pair: &mut Pair, psk: Option<[u8; 32]>) {
    let mut next = agent_config(&[(100, &GATEWAYS[..1])], &[INNER_NET]);
    next.gateways[0].psk = psk.map(Psk::from);
    let now = pair.now;
    pair.agent
        .replace_lease(next.gateways, next.addresses, now)
        .unwrap();
}

#[test]
fn right_static_keys_without_the_agreed_key_get_no_session() {
    for (at_edge, at_agent) in [
        (Some(AGREED), None),
        (None, Some(AGREED)),
        (Some(AGREED), Some(OTHER)),
    ] {
        let pair = tried(at_edge, at_agent);

        assert!(!is_connected(&pair), "{at_edge:?} {at_agent:?}");
        assert!(!pair.seen_of_kind(2).is_empty(), "the gateway answered");
        assert!(pair.agent.dropped().get(Dropped::Forged) > 0);
        assert_eq!(pair.seen_of_kind(4).len(), 0, "no data was sent");
    }
}

#[test]
fn both_ends_with_the_agreed_key_or_both_without_pass_packets() {
    for psk in [Some(AGREED), None] {
        let mut pair = tried(psk, psk);
        let up = packet(INNER, WEB, 300, 1);
        pair.home_sends(&up).unwrap();
        pair.advance(Duration::from_secs(1));

        assert!(is_connected(&pair));
        assert_eq!(pair.at_internet, [up]);
    }
}

#[test]
fn another_key_ends_the_session_and_the_same_one_does_not() {
    let mut pair = tried(Some(AGREED), Some(AGREED));

    assert_eq!(set_edge(&mut pair, Some(AGREED)), Upserted::Updated);
    assert!(pair.peer().session_age.is_some());
    assert_eq!(set_edge(&mut pair, Some(OTHER)), Upserted::Updated);
    assert!(pair.peer().session_age.is_none());
    set_agent(&mut pair, Some(OTHER));
    pair.advance(Duration::from_secs(10));
    assert!(is_connected(&pair));
}

#[test]
fn a_gateway_that_learns_the_key_after_the_agent_is_found_at_the_next_try() {
    let mut pair = tried(None, Some(AGREED));
    assert!(!is_connected(&pair));

    set_edge(&mut pair, Some(AGREED));
    pair.advance(Duration::from_secs(6));

    assert!(is_connected(&pair));
}

#[test]
fn debug_shows_no_key() {
    let terms = PeerConfig {
        psk: Some(Psk::from(AGREED)),
        ..lease(std::time::Instant::now())
    };

    let shown = format!("{terms:?}");

    assert!(shown.contains("psk: Some(Psk)"), "{shown}");
}
