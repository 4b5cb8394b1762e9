//! An agent and its gateways over time: connecting, renewing, roaming, failing over, on good cables and bad.

use std::collections::HashSet;
use std::time::Duration;

use crate::rig::{
    Cable, Flying, GATEWAYS, INNER, INNER6, Pair, WEB, WEB6, agent_config, is_connected, key,
    lease, packet, public, seconds, socket,
};
use proptest::prelude::*;
use tunnel::Dropped;
use tunnel::agent::{AgentEvent, AgentTunnel};
use tunnel::edge::{EdgeEvent, EdgeLimits, PeerConfig};

/// Sends a packet each way and says whether both arrived.
fn both_ways(pair: &mut Pair, n: usize) -> bool {
    let (up, down) = (packet(INNER, WEB, 300, 1), packet(WEB, INNER, 300, 2));
    pair.at_internet.clear();
    pair.at_home.clear();
    pair.home_sends(&up).unwrap();
    pair.advance(seconds(1));
    let sent = pair.internet_sends(n, &down);
    pair.advance(seconds(1));
    sent.is_ok() && pair.at_internet == [up] && pair.at_home == [down]
}

#[test]
fn packets_pass_both_ways_in_both_families_unchanged() {
    let mut pair = Pair::connected();
    let up = [
        packet(INNER, WEB, 1_420, 1),
        packet(INNER6, WEB6, 1_280, 2),
        packet(INNER, WEB, 29, 3),
    ];
    let down = [packet(WEB, INNER, 1_420, 4), packet(WEB6, INNER6, 61, 5)];

    for packet in &up {
        pair.home_sends(packet).unwrap();
    }
    pair.advance(seconds(1));
    for packet in &down {
        pair.internet_sends(0, packet).unwrap();
    }
    pair.advance(seconds(1));

    assert_eq!(pair.at_internet, up);
    assert_eq!(pair.at_home, down);
    let (agent, edge) = (pair.agent.stats(pair.now).traffic, pair.peer().traffic);
    assert_eq!(
        (agent.tx_bytes, agent.rx_bytes),
        (1_420 + 1_280 + 29, 1_420 + 61)
    );
    assert_eq!(
        (edge.rx_bytes, edge.tx_bytes),
        (agent.tx_bytes, agent.rx_bytes)
    );
    assert_eq!((edge.rx_packets, edge.tx_packets), (3, 2));
    assert_eq!(
        (pair.agent.dropped().total(), pair.edge().dropped().total()),
        (0, 0)
    );
}

#[test]
fn traffic_is_told_a_part_of_the_table_at_a_time_and_of_those_alone_who_have_some() {
    let mut pair = Pair::connected();
    let silent = PeerConfig {
        id: [8; 32],
        public: public(&key(8)),
        allowed: vec!["10.64.0.8/32".parse().unwrap()],
        ..lease(pair.now)
    };
    pair.admit(silent).unwrap();
    assert!(both_ways(&mut pair, 0));
    let expected = ([7; 32], pair.peer().traffic);

    let edge = pair.edge();
    let places = edge.places();
    let parts = (0..places).map(|place| edge.traffic_at(place..place + 1));

    assert_eq!(places, 2);
    assert_eq!(parts.flatten().collect::<Vec<_>>(), [expected]);
    assert_eq!(edge.traffic_at(places..places + 9).count(), 0);
}

#[test]
fn lengths_on_the_wire_are_padded_to_16_but_never_beyond_the_mtu() {
    let mut pair = Pair::connected();
    for (inner, outer) in [(24, 64), (32, 64), (33, 80), (1_410, 1_452), (1_420, 1_452)] {
        pair.home_sends(&packet(INNER, WEB, inner, 1)).unwrap();

        assert_eq!(pair.seen.last().unwrap().bytes.len(), outer, "{inner}");
    }
}

#[test]
fn what_waited_for_the_session_arrives_in_order() {
    let mut pair = Pair::new();
    let sent: Vec<_> = (0..10).map(|n| packet(INNER, WEB, 100, n)).collect();
    for packet in &sent {
        pair.home_sends(packet).unwrap();
    }

    pair.connect();

    assert_eq!(pair.at_internet, sent);
}

#[test]
fn an_idle_tunnel_stays_up_for_a_day_and_costs_little() {
    let mut pair = Pair::connected();
    pair.seen.clear();

    pair.advance(seconds(86_400));

    assert!(is_connected(&pair));
    assert!(
        !pair
            .agent_events
            .iter()
            .any(|e| matches!(e, AgentEvent::Disconnected { .. }))
    );
    let per_hour = pair.seen.len() / 24;
    assert!(
        (100..450).contains(&per_hour),
        "{per_hour} datagrams an hour"
    );
    assert!(both_ways(&mut pair, 0));
}

#[test]
fn a_used_session_is_renewed_every_two_minutes_without_a_gap() {
    let mut pair = Pair::connected();
    let mut sent = Vec::new();
    for n in 0..6_000 {
        let packet = packet(INNER, WEB, 100, n);
        pair.home_sends(&packet).unwrap();
        sent.push(packet);
        pair.advance(Duration::from_millis(100));
    }
    pair.advance(seconds(1));

    assert_eq!(pair.at_internet, sent);
    let handshakes = pair.edge().handshakes().total();
    assert!(
        (5..=7).contains(&handshakes),
        "{handshakes} handshakes in 10 minutes"
    );
    // The first, and one that was due while an ask had no answer yet; the others came inside the session.
    let at_the_door = pair.seen_of_kind(1).len();
    assert!(at_the_door <= 2, "{at_the_door} at the door");
}

#[test]
fn a_home_that_is_in_stays_in_while_nobody_gets_through_the_gateways_door() {
    let mut pair = Pair::connected();
    pair.is_door_shut = true;
    let mut sent = Vec::new();
    for n in 0..6_000 {
        let packet = packet(INNER, WEB, 100, n);
        pair.home_sends(&packet).unwrap();
        sent.push(packet);
        pair.advance(Duration::from_millis(100));
    }
    pair.advance(seconds(1));

    assert_eq!(pair.at_internet, sent);
    assert_eq!(pair.agent_events.len(), 1, "{:?}", pair.agent_events);
}

#[test]
fn a_gateway_that_was_restarted_is_found_though_a_renewal_inside_is_lost_on_it() {
    let mut pair = Pair::connected();
    pair.advance(seconds(100));
    pair.restart_gateway(0);
    pair.advance(seconds(60));

    assert!(both_ways(&mut pair, 0));
}

#[test]
fn a_download_alone_does_not_make_the_agent_restless() {
    let mut pair = Pair::connected();
    pair.seen.clear();
    for n in 0..1_000 {
        pair.internet_sends(0, &packet(WEB, INNER, 1_000, n))
            .unwrap();
        pair.advance(Duration::from_millis(100));
    }

    assert_eq!(pair.at_home.len(), 1_000);
    assert!(pair.seen_of_kind(1).len() <= 1, "{}", pair.history());
}

#[test]
fn an_upload_without_answers_settles_after_a_few_handshakes() {
    let mut pair = Pair::connected();
    pair.seen.clear();
    for n in 0..1_100 {
        pair.home_sends(&packet(INNER, WEB, 1_000, n)).unwrap();
        pair.advance(Duration::from_millis(100));
    }

    assert_eq!(pair.at_internet.len(), 1_100);
    let initiations = pair.seen_of_kind(1).len();
    assert!(initiations <= 3, "{initiations}\n{}", pair.history());
}

#[test]
fn a_gateway_that_was_restarted_is_found_again_within_five_seconds_of_use() {
    for down_ms in [200, 2_000, 4_500] {
        let mut pair = Pair::connected();
        assert!(both_ways(&mut pair, 0));
        pair.gateways[0].is_up = false;
        // The home goes on sending, as a download's acknowledgements do.
        for n in 0..down_ms / 100 {
            _ = pair.home_sends(&packet(INNER, WEB, 100, n));
            pair.advance(Duration::from_millis(100));
        }
        pair.restart_gateway(0);
        let back = pair.now;
        pair.at_internet.clear();
        while pair.at_internet.is_empty() {
            _ = pair.home_sends(&packet(INNER, WEB, 100, 0));
            pair.advance(Duration::from_millis(100));
            assert!(
                pair.now - back < seconds(5),
                "down {down_ms} ms\n{}",
                pair.history()
            );
        }
        assert!(both_ways(&mut pair, 0));
    }
}

#[test]
fn an_agent_that_was_restarted_is_let_in_at_once() {
    let mut pair = Pair::connected();
    assert!(both_ways(&mut pair, 0));
    let mut config = agent_config(&[(100, &GATEWAYS[..1])], &["10.64.0.7/32"]);
    // A moment later by the calendar too.
    config.calendar += pair.now - pair.start + Duration::from_millis(20);
    pair.agent = AgentTunnel::new(config, pair.now).unwrap();
    let back = pair.now;

    pair.run_until(seconds(2), is_connected);

    assert!(pair.now - back < Duration::from_millis(100));
    assert!(both_ways(&mut pair, 0));
}

#[test]
fn a_silent_gateway_is_left_for_the_next_and_the_next() {
    let mut pair = Pair::with(3, Cable::GOOD, 1, EdgeLimits::default());
    pair.gateways[0].is_up = false;
    pair.gateways[1].is_up = false;

    pair.connect();

    assert_eq!(pair.agent.gateway(), public(&key(102)));
    assert!(pair.now - pair.start < seconds(25));
    assert!(both_ways(&mut pair, 2));
}

#[test]
fn a_gateway_that_dies_is_left_and_its_packets_go_by_the_next() {
    let mut pair = Pair::with(2, Cable::GOOD, 1, EdgeLimits::default());
    pair.connect();
    pair.gateways[0].is_up = false;
    let died = pair.now;

    pair.home_sends(&packet(INNER, WEB, 100, 1)).unwrap();
    pair.run_until(seconds(60), |pair| {
        pair.agent.gateway() == public(&key(101)) && is_connected(pair)
    });

    assert!(pair.now - died < seconds(25), "{:?}", pair.now - died);
    assert!(both_ways(&mut pair, 1));
    let [first, .., last] = &pair.agent_events[..] else {
        panic!("{:?}", pair.agent_events)
    };
    assert!(
        matches!(first, AgentEvent::Connected { gateway, .. } if *gateway == public(&key(100)))
    );
    assert!(matches!(last, AgentEvent::Moved { gateway, .. } if *gateway == public(&key(101))));
}

#[test]
fn all_endpoints_of_a_gateway_are_tried_in_turn() {
    let mut pair = Pair::new();
    let endpoints = ["192.0.2.77:1", "192.0.2.78:1", GATEWAYS[0]];
    let config = agent_config(&[(100, &endpoints)], &["10.64.0.7/32"]);
    pair.agent = AgentTunnel::new(config, pair.now).unwrap();

    pair.connect();

    let mut tried: Vec<_> = pair.seen_of_kind(1).iter().map(|f| f.to).collect();
    tried.dedup();
    assert_eq!(tried, endpoints.map(socket));
}

#[test]
fn an_agent_that_roams_is_answered_where_it_is() {
    let mut pair = Pair::connected();
    pair.agent_address = socket("203.0.113.99:1234");

    assert!(both_ways(&mut pair, 0));

    assert_eq!(pair.peer().endpoint, Some(pair.agent_address));
    assert!(
        pair.gateways[0]
            .events
            .contains(&EdgeEvent::Roamed { id: [7; 32] })
    );
}

#[test]
fn a_gateway_that_roams_is_followed_by_its_packets() {
    let mut pair = Pair::connected();
    let moved = socket("192.0.2.200:51820");
    pair.gateways[0].address = moved;
    pair.internet_sends(0, &packet(WEB, INNER, 100, 1)).unwrap();
    pair.advance(seconds(1));

    assert!(both_ways(&mut pair, 0));

    assert!(
        pair.agent_events
            .contains(&AgentEvent::Roamed { endpoint: moved })
    );
}

#[test]
fn a_network_change_shakes_hands_at_once_and_keeps_the_session() {
    let mut pair = Pair::connected();
    let before = pair.edge().handshakes().total();
    pair.agent_address = socket("203.0.113.99:1234");

    let now = pair.now;
    pair.agent.handle_network_change(now);
    pair.advance(Duration::from_millis(100));

    assert_eq!(pair.edge().handshakes().total(), before + 1);
    assert_eq!(pair.peer().endpoint, Some(pair.agent_address));
    assert!(is_connected(&pair));
}

#[test]
fn a_peer_that_went_silent_sleeps_and_is_woken_by_a_packet_for_it() {
    let mut pair = Pair::connected();
    let silent = AgentTunnel::new(
        agent_config(&[(100, &["192.0.2.77:1"])], &["10.64.0.7/32"]),
        pair.now,
    );
    let asleep_agent = std::mem::replace(&mut pair.agent, silent.unwrap());
    pair.agent_address = socket("203.0.113.1:1");
    pair.advance(seconds(400));
    assert_eq!(
        (pair.edge().peer_count(), pair.edge().awake_count()),
        (1, 0)
    );
    assert!(
        pair.gateways[0]
            .events
            .contains(&EdgeEvent::Asleep { id: [7; 32] })
    );

    (pair.agent, pair.agent_address) = (asleep_agent, socket(crate::rig::AGENT));
    pair.seen.clear();
    let down = packet(WEB, INNER, 100, 1);
    pair.internet_sends(0, &down).unwrap();
    pair.advance(seconds(2));

    assert_eq!(pair.at_home, [down]);
    assert_eq!(pair.edge().awake_count(), 1);
}

#[test]
fn a_thousand_sleeping_peers_need_no_ticks() {
    let mut pair = Pair::new();
    for n in 0..1_000_u32 {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_be_bytes());
        let allowed = vec![format!("10.65.{}.{}/32", n / 250, n % 250).parse().unwrap()];
        let peer = PeerConfig {
            id,
            public: id,
            psk: None,
            allowed,
            ..lease(pair.now)
        };
        pair.admit(peer).unwrap();
    }

    let end = lease(pair.start).not_after;
    let mut calls = 0;
    while let Some((next, _why)) = pair.edge().poll_timeout().filter(|(at, _)| *at < end) {
        pair.edge().handle_timeout(next);
        calls += 1;
    }

    assert!(calls < 10, "{calls} wake-ups in a week");
    assert_eq!(pair.edge().awake_count(), 0);
    for _ in 0..10 {
        pair.edge().handle_timeout(end + Duration::from_millis(1));
    }
    let expired = std::iter::from_fn(|| pair.edge().poll_event()).count();
    assert_eq!(expired, 1_001, "the rig has a peer of its own");
}

#[test]
fn a_renewed_lease_with_the_same_gateway_keeps_the_session() {
    let mut pair = Pair::connected();
    pair.seen.clear();
    let next = agent_config(
        &[(101, &GATEWAYS[1..2]), (100, &GATEWAYS[..1])],
        &["10.64.0.7/32"],
    );

    let now = pair.now;
    pair.agent
        .replace_lease(next.gateways, next.addresses, now)
        .unwrap();

    assert!(both_ways(&mut pair, 0));
    let to_ours = |flying: &Flying| flying.to == socket(GATEWAYS[0]);
    assert!(!pair.seen_of_kind(1).iter().any(to_ours));
}

#[test]
fn a_renewed_lease_without_the_gateway_in_use_moves_to_the_first() {
    let mut pair = Pair::with(2, Cable::GOOD, 1, EdgeLimits::default());
    pair.connect();
    let next = agent_config(&[(101, &GATEWAYS[1..2])], &["10.64.0.7/32"]);

    let now = pair.now;
    pair.agent
        .replace_lease(next.gateways, next.addresses, now)
        .unwrap();
    pair.advance(seconds(1));

    assert_eq!(pair.agent.gateway(), public(&key(101)));
    assert!(both_ways(&mut pair, 1));
}

#[test]
fn a_run_of_full_packets_leaves_in_one_transmit() {
    let mut pair = Pair::connected();
    let now = pair.now;
    for n in 0..44 {
        pair.agent
            .handle_tun_input(&packet(INNER, WEB, 1_420, n), now)
            .unwrap();
    }

    let run = pair.agent.poll_transmit().unwrap();

    assert_eq!((run.payload.len(), run.segment), (44 * 1_452, 1_452));
    assert_eq!(pair.agent.poll_transmit(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the cable does short of cutting it, what arrives is what was sent, at most once, and renewal goes on.
    #[test]
    fn a_bad_cable_loses_packets_and_nothing_else(
        seed in any::<u64>(),
        loss_percent in 0_u64..30,
        duplicate_percent in 0_u64..20,
        jitter_ms in 0_u64..200,
    ) {
        let cable = Cable { loss_percent, delay_ms: 20, jitter_ms, duplicate_percent };
        let mut pair = Pair::with(2, cable, seed, EdgeLimits::default());
        pair.connect();
        let mut sent = HashSet::new();
        for n in 0..1_500_u32 {
            let len = 60 + (n as usize * 37) % 1_300;
            let up = packet(INNER, WEB, len, n);
            if pair.home_sends(&up).is_ok() {
                sent.insert(up);
            }
            for gateway in 0..2 {
                let down = packet(WEB, INNER, len, n * 2 + gateway as u32);
                if pair.internet_sends(gateway, &down).is_ok() {
                    sent.insert(down.clone());
                }
            }
            pair.advance(Duration::from_millis(400));
        }
        pair.advance(seconds(60));

        let arrived: Vec<_> = pair.at_internet.iter().chain(&pair.at_home).collect();
        let distinct: HashSet<_> = arrived.iter().collect();
        prop_assert_eq!(distinct.len(), arrived.len(), "seed {}: delivered twice\n{}", seed, pair.history());
        prop_assert!(arrived.iter().all(|packet| sent.contains(*packet)), "seed {}", seed);
        let least = (100 - loss_percent as usize) * 1_500 * 8 / 1_000;
        prop_assert!(pair.at_internet.len() > least, "seed {}: only {} of 1500 arrived\n{}", seed, pair.at_internet.len(), pair.history());
        for gateway in &pair.gateways {
            let counts = gateway.edge.dropped();
            prop_assert_eq!(counts.get(Dropped::SourceMismatch) + counts.get(Dropped::Forged) + counts.get(Dropped::Malformed), 0);
        }
    }
}

#[test]
fn the_home_is_told_when_its_packet_does_not_fit_and_may_not_be_cut() {
    let mut pair = Pair::connected();
    pair.agent.set_mtu(1_300, pair.now);
    let mut packet = packet(INNER, WEB, 1_400, 1);
    packet[6] = 0x40;

    assert_eq!(pair.home_sends(&packet), Err(Dropped::TooBig));

    let frame = pair.agent.poll_tun().unwrap();
    let told = &frame[tunnel::offload::VNET_BYTES..];
    assert_eq!(
        (told[9], told[20], told[21]),
        (1, 3, 4),
        "ICMP: fragmentation needed"
    );
    assert_eq!(told[26..28], 1_300_u16.to_be_bytes());
    assert_eq!(told[28..48], packet[..20]);
}
