//! Several gateways: which one carries the home, how soon a dead one is left, how a draining one is, and the way back.

use std::time::Duration;

use crate::rig::{Cable, GATEWAYS, INNER, Pair, WEB, agent_config, key, packet, public, seconds};
use tunnel::agent::{AgentEvent, AgentTunnel, GatewayState, Link, MoveReason};
use tunnel::edge::{Carried, EdgeEvent, EdgeLimits};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A home at work that is protected by the first of `count` gateways, and knows the others.
fn at_work(count: u8) -> Pair {
    let mut pair = Pair::with(count, Cable::GOOD, 1, EdgeLimits::default());
    pair.connect();
    work(&mut pair, seconds(3));
    assert_eq!(pair.agent.gateway(), public(&key(100)));
    pair.agent_events.clear();
    pair
}

/// The home sends, and is answered by whichever gateway carries it, ten times a second.
fn work(pair: &mut Pair, lasts: Duration) {
    for n in 0..lasts.as_millis() / 100 {
        let n = u32::try_from(n).unwrap();
        _ = pair.home_sends(&packet(INNER, WEB, 100, n));
        pair.advance(ms(50));
        let by = (0..pair.gateways.len())
            .find(|by| is_by(pair, *by))
            .unwrap();
        if pair.gateways[by].is_up {
            _ = pair.internet_sends(by, &packet(WEB, INNER, 100, n));
        }
        pair.advance(ms(50));
    }
}

fn is_by(pair: &Pair, n: usize) -> bool {
    pair.agent.gateway() == public(&key(100 + u8::try_from(n).unwrap()))
}

fn moves(pair: &Pair) -> Vec<(usize, MoveReason)> {
    let place = |gateway: &[u8; 32]| (100..103).position(|n| public(&key(n)) == *gateway);
    pair.agent_events
        .iter()
        .filter_map(|event| {
            let AgentEvent::Moved { gateway, why, .. } = event else {
                return None;
            };
            Some((place(gateway).unwrap(), *why))
        })
        .collect()
}

fn carried(pair: &Pair) -> Vec<usize> {
    pair.gateways
        .iter()
        .map(|gateway| gateway.edge.carried().active)
        .collect()
}

#[test]
fn a_dead_gateway_is_left_before_the_third_retransmission_of_a_download() {
    let mut pair = at_work(2);
    pair.gateways[0].is_up = false;
    // The acknowledgement of what came last; nothing more is sent by who only receives.
    pair.home_sends(&packet(INNER, WEB, 40, 1)).unwrap();
    let died = pair.now;

    pair.run_until(seconds(3), |pair| is_by(pair, 1));

    assert!(pair.now - died < ms(1_300), "{:?}", pair.now - died);
    assert_eq!(moves(&pair), [(1, MoveReason::Silent)]);
    let is_cut = |event: &AgentEvent| matches!(event, AgentEvent::Disconnected { .. });
    assert!(
        !pair.agent_events.iter().any(is_cut),
        "{:?}",
        pair.agent_events
    );
    pair.advance(ms(100));
    assert_eq!(pair.gateways[1].edge.carried().active, 1);
    pair.at_home.clear();
    pair.internet_sends(1, &packet(WEB, INNER, 500, 9)).unwrap();
    pair.advance(ms(100));
    assert_eq!(pair.at_home.len(), 1);
}

#[test]
fn an_idle_homes_dead_gateway_is_left_too_within_a_keepalive() {
    let mut pair = at_work(2);
    pair.advance(seconds(3_600));
    pair.gateways[0].is_up = false;
    let died = pair.now;

    pair.run_until(seconds(60), |pair| is_by(pair, 1));

    assert!(pair.now - died < seconds(38), "{:?}", pair.now - died);
}

#[test]
fn an_outage_of_the_line_moves_nobody() {
    let mut pair = at_work(3);
    for gateway in &mut pair.gateways {
        gateway.is_up = false;
    }
    work(&mut pair, seconds(10));
    for gateway in &mut pair.gateways {
        gateway.is_up = true;
    }
    work(&mut pair, seconds(10));

    assert_eq!(moves(&pair), []);
    assert!(matches!(pair.agent.link(), Link::Connected { .. }));
}

#[test]
fn a_gateway_of_another_hand_is_not_dead_because_it_answers_no_asks() {
    let mut pair = Pair::with(2, Cable::GOOD, 1, EdgeLimits::default());
    for gateway in &mut pair.gateways {
        gateway.edge.set_inner(Vec::new());
    }
    pair.connect();
    // Sending alone, as an upload without answers does.
    for n in 0..600 {
        pair.home_sends(&packet(INNER, WEB, 1_000, n)).unwrap();
        pair.advance(ms(100));
    }

    assert_eq!(moves(&pair), []);
    let asks = pair
        .seen_of_kind(4)
        .iter()
        .filter(|f| f.bytes.len() == 80)
        .count();
    assert!(asks <= 16, "{asks}");
    assert!(
        pair.seen_of_kind(1).len() < 16,
        "{}",
        pair.seen_of_kind(1).len()
    );
}

#[test]
fn a_dead_gateway_of_another_hand_is_found_out_by_a_handshake() {
    let mut pair = Pair::with(2, Cable::GOOD, 1, EdgeLimits::default());
    for gateway in &mut pair.gateways {
        gateway.edge.set_inner(Vec::new());
    }
    pair.connect();
    work(&mut pair, seconds(20));
    pair.gateways[0].is_up = false;
    pair.home_sends(&packet(INNER, WEB, 40, 1)).unwrap();
    let died = pair.now;

    pair.run_until(seconds(10), |pair| is_by(pair, 1));

    assert!(pair.now - died < seconds(3), "{:?}", pair.now - died);
}

#[test]
fn the_preferred_gateway_is_taken_again_after_thirty_good_seconds_and_not_before() {
    let mut pair = at_work(2);
    pair.gateways[0].is_up = false;
    work(&mut pair, seconds(20));
    assert!(is_by(&pair, 1));

    pair.restart_gateway(0);
    work(&mut pair, seconds(29));
    assert!(is_by(&pair, 1), "too soon");
    work(&mut pair, seconds(45));

    assert!(is_by(&pair, 0), "{}", pair.history());
    assert_eq!(moves(&pair).last(), Some(&(0, MoveReason::Preferred)));
}

#[test]
fn a_gateway_that_flaps_has_to_be_well_for_twice_as_long_each_time() {
    let mut pair = at_work(2);
    let mut away = Vec::new();
    for _ in 0..3 {
        pair.gateways[0].is_up = false;
        work(&mut pair, seconds(3));
        assert!(is_by(&pair, 1));
        pair.restart_gateway(0);
        let back = pair.now;
        while is_by(&pair, 1) {
            work(&mut pair, seconds(1));
        }
        away.push((pair.now - back).as_secs());
    }

    assert!((30..60).contains(&away[0]), "{away:?}");
    assert!((60..120).contains(&away[1]), "{away:?}");
    assert!((120..180).contains(&away[2]), "{away:?}");
}

#[test]
fn a_draining_gateway_is_left_at_once_and_no_packet_is_lost() {
    let mut pair = at_work(2);
    pair.at_internet.clear();
    pair.at_home.clear();
    let now = pair.now;
    pair.gateways[0].edge.drain(now);
    for n in 0..100 {
        pair.home_sends(&packet(INNER, WEB, 100, n)).unwrap();
        // The internet has not heard of the move for a while.
        pair.internet_sends(usize::from(n > 50), &packet(WEB, INNER, 100, n))
            .unwrap();
        pair.advance(ms(20));
    }
    pair.advance(ms(100));

    assert_eq!(moves(&pair), [(1, MoveReason::Draining)]);
    assert_eq!((pair.at_internet.len(), pair.at_home.len()), (100, 100));
    assert_eq!(carried(&pair), [0, 1]);
    assert_eq!(pair.gateways[0].edge.carried(), Carried::default());
    let states: Vec<_> = pair
        .agent
        .gateways(pair.now)
        .map(|g| (g.active, g.state))
        .collect();
    assert_eq!(
        states,
        [(false, GatewayState::Draining), (true, GatewayState::Well)]
    );
}

#[test]
fn an_idle_home_without_a_session_elsewhere_follows_a_drain_too() {
    let mut pair = at_work(2);
    pair.advance(seconds(3_600));
    let now = pair.now;

    pair.gateways[0].edge.drain(now);
    pair.run_until(seconds(1), |pair| is_by(pair, 1));
    pair.advance(ms(100));

    assert_eq!(carried(&pair), [0, 1]);
}

#[test]
fn a_peer_with_one_gateway_is_not_waited_for() {
    let mut pair = at_work(1);
    assert_eq!(
        pair.gateways[0].edge.carried(),
        Carried {
            active: 1,
            movable: 0
        }
    );
    let now = pair.now;
    pair.gateways[0].edge.drain(now);
    work(&mut pair, seconds(3));

    assert_eq!(moves(&pair), []);
    assert!(matches!(pair.agent.link(), Link::Connected { .. }));
}

#[test]
fn only_the_gateway_in_use_announces_the_home() {
    let mut pair = at_work(3);
    let told = |pair: &Pair, n: usize| -> Vec<bool> {
        let events = pair.gateways[n].events.iter();
        events
            .filter_map(|event| {
                if let EdgeEvent::Carried { addresses } = event {
                    assert_eq!(addresses.len(), 2);
                    return Some(true);
                }
                matches!(event, EdgeEvent::Left { .. }).then_some(false)
            })
            .collect()
    };
    assert_eq!(
        (told(&pair, 0), told(&pair, 1), told(&pair, 2)),
        (vec![true], vec![], vec![])
    );

    let now = pair.now;
    pair.gateways[0].edge.drain(now);
    work(&mut pair, seconds(1));
    assert_eq!(
        (told(&pair, 0), told(&pair, 1)),
        (vec![true, false], vec![true])
    );

    let gone = pair.now;
    pair.gateways[1].edge.remove_peer(&public(&key(7)), gone);
    work(&mut pair, seconds(2));
    assert_eq!(told(&pair, 1), [true, false]);
}

#[test]
fn a_gateway_that_was_not_told_of_the_return_announces_anew() {
    let mut pair = at_work(2);
    // The way to the first gateway is cut, and it goes on believing that it carries the home.
    pair.gateways[0].is_up = false;
    work(&mut pair, seconds(3));
    pair.gateways[0].is_up = true;
    pair.gateways[0].events.clear();
    work(&mut pair, seconds(1));
    let now = pair.now;
    pair.gateways[1].edge.drain(now);
    work(&mut pair, seconds(20));

    assert!(is_by(&pair, 0));
    let announces = |event: &&EdgeEvent| matches!(event, EdgeEvent::Carried { .. });
    assert_eq!(pair.gateways[0].events.iter().filter(announces).count(), 1);
}

#[test]
fn a_peer_of_another_hand_is_carried_by_whom_it_sends_to_even_while_it_sleeps() {
    let mut pair = Pair::with(1, Cable::GOOD, 1, EdgeLimits::default());
    let mut config = agent_config(&[(100, &GATEWAYS[..1])], &["10.64.0.7/32"]);
    config.gateways[0].inner.clear();
    pair.agent = AgentTunnel::new(config, pair.now).unwrap();
    pair.connect();
    assert_eq!(pair.gateways[0].edge.carried(), Carried::default());

    pair.home_sends(&packet(INNER, WEB, 100, 1)).unwrap();
    pair.advance(seconds(1));
    pair.agent_address = crate::rig::socket("203.0.113.200:9");
    pair.agent = AgentTunnel::new(
        agent_config(&[(100, &["192.0.2.77:1"])], &["10.64.0.7/32"]),
        pair.now,
    )
    .unwrap();
    pair.advance(seconds(400));

    assert_eq!(pair.gateways[0].edge.awake_count(), 0);
    assert_eq!(
        pair.gateways[0].edge.carried(),
        Carried {
            active: 1,
            movable: 0
        }
    );
}

#[test]
fn an_idle_home_costs_the_gateways_that_it_does_not_use_nothing() {
    let mut pair = at_work(3);
    pair.advance(seconds(600));
    pair.seen.clear();

    pair.advance(seconds(3_600));

    let to = |n: usize| {
        let address = pair.gateways[n].address;
        pair.seen
            .iter()
            .filter(|flying| flying.to == address)
            .count()
    };
    assert_eq!((to(1), to(2)), (0, 0));
    assert!(to(0) < 300, "{}", to(0));
    assert_eq!(pair.gateways[1].edge.awake_count(), 0);
}

#[test]
fn a_standby_that_a_lease_makes_the_only_gateway_is_kept_alive_while_the_home_idles() {
    let mut pair = at_work(2);
    let next = agent_config(&[(101, &GATEWAYS[1..2])], &["10.64.0.7/32"]);
    let now = pair.now;
    pair.agent
        .replace_lease(next.gateways, next.addresses, now)
        .unwrap();
    pair.advance(seconds(300));
    pair.seen.clear();

    pair.advance(seconds(600));

    let to = pair.gateways[1].address;
    let sent = pair.seen.iter().filter(|flying| flying.to == to).count();
    assert!(sent >= 20, "{sent}");
    assert_eq!(pair.gateways[1].edge.awake_count(), 1);
}

#[test]
fn a_bad_line_alone_makes_a_home_not_restless() {
    let cable = Cable {
        loss_percent: 20,
        delay_ms: 40,
        jitter_ms: 60,
        duplicate_percent: 0,
    };
    let mut pair = Pair::with(2, cable, 5, EdgeLimits::default());
    pair.connect();
    work(&mut pair, seconds(600));

    assert!(moves(&pair).len() <= 2, "{:?}", moves(&pair));
}
