//! What a gateway or an agent does not let through, each under the reason it is counted by.

use std::time::Duration;

use crate::rig::{
    AGENT, GATEWAYS, INNER, Pair, TODAY, WEB, WEB6, agent_config, key, lease, packet, public,
};
use tunnel::agent::{AgentConfigError, AgentTunnel};
use tunnel::edge::{EdgeEvent, EdgeLimits, EdgeTunnel, PeerConfig, UpsertError, Upserted};
use tunnel::{Dropped, dropped::DropCounts};

/// An agent with the rig's key that says it may use any address, so that it sends whatever it is given, and nothing else.
fn liar(pair: &Pair) -> AgentTunnel {
    let mut config = agent_config(&[(100, &GATEWAYS[..1])], &["0.0.0.0/0", "::/0"]);
    config.gateways[0].inner.clear();
    AgentTunnel::new(config, pair.now).unwrap()
}

/// The first initiation of an agent with the key `n` to the gateway with the key `gateway`.
fn initiation(pair: &Pair, n: u8, gateway: u8) -> Vec<u8> {
    let mut config = agent_config(&[(gateway, &GATEWAYS[..1])], &["10.0.0.1/32"]);
    config.private = key(n);
    let mut agent = AgentTunnel::new(config, pair.now).unwrap();
    agent.handle_timeout(pair.now);
    agent.poll_transmit().unwrap().payload.to_vec()
}

fn only(counts: &DropCounts, reason: Dropped, count: u64) {
    assert_eq!(
        (counts.get(reason), counts.total()),
        (count, count),
        "{counts:?}"
    );
}

#[test]
fn a_replayed_packet_is_dropped() {
    let mut pair = Pair::connected();
    pair.home_sends(&packet(INNER, WEB, 100, 1)).unwrap();
    pair.advance(Duration::from_secs(1));
    let sent = pair.seen.last().unwrap().clone();

    let again = pair.inject(AGENT, &sent.bytes);

    assert_eq!(again, Err(Dropped::Replayed));
    assert_eq!(pair.at_internet.len(), 1);
    only(pair.edge().dropped(), Dropped::Replayed, 1);
}

#[test]
fn a_replayed_initiation_is_dropped_and_leaves_the_session_alone() {
    let mut pair = Pair::connected();
    let initiation = pair.seen_of_kind(1)[0].clone();

    let again = pair.inject("203.0.113.66:1", &initiation.bytes);

    assert_eq!(again, Err(Dropped::Replayed));
    pair.home_sends(&packet(INNER, WEB, 100, 1)).unwrap();
    pair.advance(Duration::from_secs(1));
    assert_eq!(pair.at_internet.len(), 1);
}

#[test]
fn an_initiation_replayed_while_the_peer_sleeps_moves_nothing_and_is_forgotten() {
    let mut pair = Pair::connected();
    let initiation = pair.seen_of_kind(1)[0].clone();
    let (now, peer) = (pair.now, public(&key(7)));
    pair.restart_gateway(0);

    assert_eq!(pair.inject("203.0.113.66:1", &initiation.bytes), Ok(None));

    assert_eq!(pair.edge().awake_count(), 1);
    let stats = pair.edge().peer_stats(&peer, now).unwrap();
    assert_eq!((stats.endpoint, stats.session_age), (None, None));
    for s in 1..20 {
        pair.edge().handle_timeout(now + Duration::from_secs(s));
    }
    assert_eq!(pair.edge().awake_count(), 0);
}

#[test]
fn a_response_that_comes_twice_is_unexpected() {
    let mut pair = Pair::connected();
    let response = pair.seen_of_kind(2)[0].clone();
    let mut buf = [0; 2_048];

    let again = pair
        .agent
        .handle_network_input(&response.bytes, response.from, &mut buf, pair.now);

    assert_eq!(again, Err(Dropped::Unexpected));
    only(pair.agent.dropped(), Dropped::Unexpected, 1);
}

#[test]
fn a_packet_with_anothers_inner_source_is_dropped() {
    for (source, destination) in [("10.64.0.8", WEB), ("127.0.0.1", WEB), ("fd64::8", WEB6)] {
        let mut pair = Pair::new();
        pair.agent = liar(&pair);
        pair.connect();

        pair.home_sends(&packet(source, destination, 100, 1))
            .unwrap();
        pair.advance(Duration::from_secs(1));

        assert!(pair.at_internet.is_empty(), "{source}");
        only(pair.edge().dropped(), Dropped::SourceMismatch, 1);
        let stats = pair.peer();
        assert_eq!(stats.traffic.rx_bytes, 0, "what is dropped is not billed");
    }
}

#[test]
fn the_agent_itself_does_not_send_what_is_not_its_lease() {
    let mut pair = Pair::connected();

    assert_eq!(
        pair.home_sends(&packet("192.168.1.10", WEB, 100, 1)),
        Err(Dropped::SourceMismatch)
    );

    only(pair.agent.dropped(), Dropped::SourceMismatch, 1);
}

#[test]
fn the_agent_takes_neither_its_own_address_nor_what_is_for_others_from_a_gateway() {
    let mut pair = Pair::new();
    let mut wide = lease(pair.now);
    wide.allowed = vec!["10.64.0.0/16".parse().unwrap()];
    pair.admit(wide).unwrap();
    pair.connect();

    pair.internet_sends(0, &packet(INNER, INNER, 100, 1))
        .unwrap();
    pair.internet_sends(0, &packet(WEB, "10.64.0.8", 100, 2))
        .unwrap();
    pair.advance(Duration::from_secs(1));

    assert!(pair.at_home.is_empty());
    assert_eq!(pair.agent.dropped().get(Dropped::SourceMismatch), 1);
    assert_eq!(pair.agent.dropped().get(Dropped::NotRouted), 1);
}

#[test]
fn a_key_without_a_lease_gets_no_answer_and_wakes_nothing() {
    let mut pair = Pair::new();
    let stranger = initiation(&pair, 66, 100);

    assert_eq!(
        pair.inject("203.0.113.66:1", &stranger),
        Err(Dropped::UnknownPeer)
    );

    assert!(pair.seen.is_empty());
    assert_eq!(pair.edge().awake_count(), 0);
}

#[test]
fn an_initiation_for_another_gateways_key_is_dropped() {
    let mut pair = Pair::new();
    let misdirected = initiation(&pair, 7, 101);

    assert_eq!(
        pair.inject(AGENT, &misdirected),
        Err(Dropped::WrongRecipient)
    );

    only(pair.edge().dropped(), Dropped::WrongRecipient, 1);
}

#[test]
fn a_changed_ciphertext_is_forged() {
    let mut pair = Pair::connected();
    pair.gateways[0].is_up = false;
    pair.home_sends(&packet(INNER, WEB, 100, 1)).unwrap();
    let mut sent = pair.seen.last().unwrap().bytes.clone();
    *sent.last_mut().unwrap() ^= 1;

    assert_eq!(pair.inject(AGENT, &sent), Err(Dropped::Forged));
    assert_eq!(
        pair.inject(AGENT, &pair.seen.last().unwrap().bytes.clone())
            .map(|p| p.is_some()),
        Ok(true)
    );
}

#[test]
fn a_forged_packet_does_not_move_the_endpoint() {
    let mut pair = Pair::connected();
    pair.home_sends(&packet(INNER, WEB, 100, 1)).unwrap();
    let mut forged = pair.seen.last().unwrap().bytes.clone();
    forged[8..16].copy_from_slice(&99_u64.to_le_bytes());

    assert_eq!(pair.inject("203.0.113.66:1", &forged), Err(Dropped::Forged));

    let stats = pair.peer();
    assert_eq!(stats.endpoint, Some(crate::rig::socket(AGENT)));
}

#[test]
fn a_counter_beyond_the_protocols_limit_is_dropped_before_it_is_opened() {
    let mut pair = Pair::connected();
    pair.home_sends(&packet(INNER, WEB, 100, 1)).unwrap();
    for counter in [u64::MAX, u64::MAX - 1_024, u64::MAX - (1 << 13)] {
        let mut sent = pair.seen.last().unwrap().bytes.clone();
        sent[8..16].copy_from_slice(&counter.to_le_bytes());

        assert_eq!(pair.inject(AGENT, &sent), Err(Dropped::Replayed));
    }
}

#[test]
fn what_is_no_wireguard_message_is_malformed() {
    let mut pair = Pair::connected();
    let data = pair.seen_of_kind(4)[0].bytes.clone();
    let mut reserved = data.clone();
    reserved[1] = 1;

    for bad in [
        &[][..],
        &[4],
        &[4, 0, 0, 0],
        &data[..31],
        &reserved,
        &[1; 148],
        &[0; 64],
        b"GET / HTTP/1.1\r\n",
    ] {
        assert_eq!(
            pair.inject(AGENT, bad),
            Err(Dropped::Malformed),
            "{bad:02x?}"
        );
    }
    for bad in [&[][..], &[0x45], &[0x65; 30], &[0; 40]] {
        assert_eq!(pair.home_sends(bad), Err(Dropped::Malformed), "{bad:02x?}");
        assert_eq!(
            pair.internet_sends(0, bad),
            Err(Dropped::Malformed),
            "{bad:02x?}"
        );
    }
}

#[test]
fn what_is_longer_than_the_mtu_or_the_buffer_is_too_big() {
    let mut pair = Pair::connected();
    assert_eq!(
        pair.home_sends(&packet(INNER, WEB, 1_421, 1)),
        Err(Dropped::TooBig)
    );
    assert_eq!(
        pair.internet_sends(0, &packet(WEB, INNER, 1_421, 1)),
        Err(Dropped::TooBig)
    );
    pair.gateways[0].is_up = false;
    pair.home_sends(&packet(INNER, WEB, 1_420, 1)).unwrap();
    let (sent, now) = (pair.seen.last().unwrap().clone(), pair.now);
    let mut buf = [0; 1_451];

    let received = pair
        .edge()
        .handle_network_input(&sent.bytes, sent.from, &mut buf, now);

    assert_eq!(received.map(|p| p.is_some()), Err(Dropped::TooBig));
}

#[test]
fn a_destination_that_nobody_has_is_not_routed() {
    let mut pair = Pair::connected();

    for (source, destination) in [(WEB, "10.64.0.8"), (WEB6, "fd64::8")] {
        assert_eq!(
            pair.internet_sends(0, &packet(source, destination, 100, 1)),
            Err(Dropped::NotRouted)
        );
    }
}

#[test]
fn an_expired_lease_stops_traffic_both_ways_and_handshakes() {
    let mut pair = Pair::new();
    let mut short = lease(pair.now);
    short.not_after = pair.now + Duration::from_secs(60);
    pair.admit(short).unwrap();
    pair.connect();
    pair.home_sends(&packet(INNER, WEB, 100, 1)).unwrap();
    pair.advance(Duration::from_secs(58));
    assert_eq!(pair.at_internet.len(), 1);

    pair.advance(Duration::from_secs(3));

    pair.home_sends(&packet(INNER, WEB, 100, 2)).unwrap();
    pair.advance(Duration::from_secs(30));
    assert_eq!(
        pair.internet_sends(0, &packet(WEB, INNER, 100, 3)),
        Err(Dropped::LeaseExpired)
    );
    assert_eq!((pair.at_internet.len(), pair.at_home.len()), (1, 0));
    let counts = pair.edge().dropped();
    assert!(counts.get(Dropped::LeaseExpired) >= 3, "{counts:?}");
    assert_eq!(
        counts.total(),
        counts.get(Dropped::LeaseExpired),
        "{counts:?}"
    );
    let expired = EdgeEvent::Expired {
        id: [7; 32],
        public: public(&key(7)),
    };
    assert_eq!(
        pair.gateways[0]
            .events
            .iter()
            .filter(|e| **e == expired)
            .count(),
        1
    );
    assert_eq!(pair.edge().awake_count(), 0);
}

#[test]
fn a_renewed_lease_passes_again() {
    let mut pair = Pair::new();
    let mut short = lease(pair.now);
    short.not_after = pair.now + Duration::from_secs(10);
    pair.admit(short).unwrap();
    pair.connect();
    pair.advance(Duration::from_secs(20));
    let renewed = lease(pair.now);

    assert_eq!(pair.admit(renewed), Ok(Upserted::Updated));

    pair.home_sends(&packet(INNER, WEB, 100, 1)).unwrap();
    pair.advance(Duration::from_secs(10));
    pair.home_sends(&packet(INNER, WEB, 100, 2)).unwrap();
    pair.advance(Duration::from_secs(1));
    assert_eq!(pair.at_internet.last(), Some(&packet(INNER, WEB, 100, 2)));
}

#[test]
fn a_revoked_peer_is_gone_at_once() {
    let mut pair = Pair::connected();
    pair.home_sends(&packet(INNER, WEB, 100, 1)).unwrap();
    pair.advance(Duration::from_secs(1));
    let now = pair.now;

    let last = pair.edge().remove_peer(&public(&key(7)), now).unwrap();

    assert_eq!(last.traffic.rx_bytes, 100);
    pair.home_sends(&packet(INNER, WEB, 100, 2)).unwrap();
    pair.advance(Duration::from_secs(30));
    assert_eq!(pair.at_internet.len(), 1);
    assert_eq!(
        pair.internet_sends(0, &packet(WEB, INNER, 100, 3)),
        Err(Dropped::NotRouted)
    );
    let counts = pair.edge().dropped();
    assert!(
        counts.get(Dropped::NoSession) >= 1 && counts.get(Dropped::UnknownPeer) >= 1,
        "{counts:?}"
    );
    assert_eq!(
        (pair.edge().peer_count(), pair.edge().awake_count()),
        (0, 0)
    );
}

#[test]
fn initiations_under_load_get_cookies_and_who_returns_one_gets_in() {
    let limits = EdgeLimits {
        handshakes_per_s: 5,
        ..EdgeLimits::default()
    };
    let mut pair = Pair::with(1, crate::rig::Cable::GOOD, 1, limits);
    for n in 0..20 {
        let stranger = initiation(&pair, 200, 100);
        let expected = if n < 5 {
            Dropped::UnknownPeer
        } else {
            Dropped::RateLimited
        };
        assert_eq!(
            pair.inject("203.0.113.66:1", &stranger),
            Err(expected),
            "{n}"
        );
    }
    assert_eq!(pair.seen_of_kind(3).len(), 15);

    // The flood goes on while the agent connects: every second begins with strangers.
    for _ in 0..40 {
        for _ in 0..5 {
            let stranger = initiation(&pair, 200, 100);
            assert!(pair.inject("203.0.113.66:1", &stranger).is_err());
        }
        pair.advance(Duration::from_millis(100));
    }

    let to_agent = |f: &crate::rig::Flying| f.to == crate::rig::socket(AGENT);
    assert!(
        pair.seen_of_kind(3).iter().any(to_agent),
        "the agent was asked for a cookie"
    );
    assert!(
        matches!(pair.agent.link(), tunnel::agent::Link::Connected { .. }),
        "{}",
        pair.history()
    );
}

#[test]
fn a_cookie_of_anothers_address_is_worth_nothing() {
    let limits = EdgeLimits {
        handshakes_per_s: 0,
        ..EdgeLimits::default()
    };
    let mut pair = Pair::with(1, crate::rig::Cable::GOOD, 1, limits);
    pair.advance(Duration::from_secs(1));
    pair.gateways[0].is_up = false;
    pair.advance(Duration::from_secs(2));
    let with_cookie = pair.seen_of_kind(1).last().unwrap().bytes.clone();
    assert_ne!(with_cookie[132..], [0; 16], "the agent returns the cookie");

    assert_eq!(
        pair.inject("203.0.113.66:1", &with_cookie),
        Err(Dropped::RateLimited)
    );
    assert_eq!(pair.inject(AGENT, &with_cookie), Ok(None));
}

#[test]
fn what_waits_for_a_session_is_bounded_and_the_oldest_makes_room() {
    let mut pair = Pair::new();
    pair.gateways[0].is_up = false;

    let results: Vec<_> = (0..70)
        .map(|n| pair.home_sends(&packet(INNER, WEB, 100, n)))
        .collect();

    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 64);
    assert_eq!(results.last(), Some(&Err(Dropped::QueueFull)));
    pair.gateways[0].is_up = true;
    pair.connect();
    pair.advance(Duration::from_secs(1));
    let kept: Vec<_> = (6..70).map(|n| packet(INNER, WEB, 100, n)).collect();
    assert_eq!(pair.at_internet, kept);
}

#[test]
fn no_more_peers_are_awake_than_the_limit() {
    let limits = EdgeLimits {
        max_awake: 1,
        ..EdgeLimits::default()
    };
    let mut pair = Pair::with(1, crate::rig::Cable::GOOD, 1, limits);
    let second = PeerConfig {
        id: [8; 32],
        public: public(&key(8)),
        psk: None,
        allowed: vec![],
        ..lease(pair.now)
    };
    pair.admit(second).unwrap();
    pair.connect();
    let initiation = initiation(&pair, 8, 100);

    assert_eq!(
        pair.inject("203.0.113.8:1", &initiation),
        Err(Dropped::TableFull)
    );
}

#[test]
fn a_full_table_takes_a_new_lease_only_in_the_place_of_an_expired_one() {
    let now = std::time::Instant::now();
    let limits = EdgeLimits {
        max_peers: 2,
        ..EdgeLimits::default()
    };
    let mut edge = EdgeTunnel::with_limits(key(100), limits, TODAY, now);
    let peer = |n: u8, secs: u64| PeerConfig {
        id: [n; 32],
        public: public(&key(n)),
        psk: None,
        allowed: vec![format!("10.64.0.{n}/32").parse().unwrap()],
        not_after: now + Duration::from_secs(secs),
        rates: tunnel::rate::Rates::default(),
    };
    assert_eq!(edge.upsert_peer(peer(1, 10), now), Ok(Upserted::Added));
    assert_eq!(edge.upsert_peer(peer(2, 99), now), Ok(Upserted::Added));

    assert_eq!(
        edge.upsert_peer(peer(3, 99), now),
        Err(UpsertError::Full { max: 2 })
    );
    let later = now + Duration::from_secs(11);
    edge.handle_timeout(later);
    assert_eq!(edge.upsert_peer(peer(3, 99), later), Ok(Upserted::Added));

    assert!(edge.peer_stats(&public(&key(1)), later).is_none());
    assert!(edge.peer_stats(&public(&key(2)), later).is_some());
}

#[test]
fn neither_key_nor_address_of_another_lease_is_given_away() {
    let mut pair = Pair::new();
    let mine = lease(pair.now);
    let address = PeerConfig {
        id: [8; 32],
        public: public(&key(8)),
        psk: None,
        ..mine.clone()
    };
    let same_key = PeerConfig {
        id: [8; 32],
        allowed: vec![],
        ..mine.clone()
    };

    let taken = pair.admit(address);
    let key_taken = pair.admit(same_key);

    assert_eq!(
        taken,
        Err(UpsertError::AddressTaken {
            net: mine.allowed[0],
            by: Some([7; 32])
        })
    );
    assert_eq!(key_taken, Err(UpsertError::KeyTaken { by: [7; 32] }));
    pair.connect();
}

#[test]
fn a_device_with_a_new_key_loses_the_old_ones_session() {
    let mut pair = Pair::connected();
    let rekeyed = PeerConfig {
        public: public(&key(9)),
        psk: None,
        ..lease(pair.now)
    };

    assert_eq!(pair.admit(rekeyed), Ok(Upserted::Rekeyed));

    pair.home_sends(&packet(INNER, WEB, 100, 1)).unwrap();
    pair.advance(Duration::from_secs(10));
    assert!(pair.at_internet.is_empty());
    assert!(pair.edge().dropped().get(Dropped::UnknownPeer) >= 1);
}

#[test]
fn a_lease_without_a_gateway_or_an_address_makes_no_tunnel() {
    let now = std::time::Instant::now();

    let nowhere = AgentTunnel::new(agent_config(&[(100, &[])], &["10.64.0.7/32"]), now);
    let nobody = AgentTunnel::new(agent_config(&[(100, &GATEWAYS)], &[]), now);

    assert_eq!(nowhere.err(), Some(AgentConfigError::NoEndpoint));
    assert_eq!(nobody.err(), Some(AgentConfigError::NoAddress));
}

#[test]
fn the_internet_cannot_wake_more_peers_in_a_second_than_the_budget() {
    let mut pair = Pair::connected();
    pair.advance(Duration::from_secs(1));
    let (now, awake) = (pair.now, lease(pair.now));
    let ended = PeerConfig {
        not_after: now,
        ..awake.clone()
    };
    let mut wake_again = || {
        pair.admit(ended.clone()).unwrap();
        pair.edge().handle_timeout(now);
        assert_eq!(pair.edge().awake_count(), 0);
        pair.admit(awake.clone()).unwrap();
        pair.internet_sends(0, &packet(WEB, INNER, 100, 1))
    };

    let results: Vec<_> = (0..210).map(|_| wake_again()).collect();

    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 200);
    assert_eq!(results.last(), Some(&Err(Dropped::RateLimited)));
}
