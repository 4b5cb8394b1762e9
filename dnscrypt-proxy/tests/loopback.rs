//! The stub against the server, whole, over real sockets on loopback.

#![expect(clippy::unwrap_used, reason = "a test rig that fails should say where")]

#[path = "loopback/inside.rs"]
mod inside;
#[path = "loopback/policy.rs"]
mod policy;
#[path = "loopback/post_quantum.rs"]
mod post_quantum;
#[path = "loopback/rig.rs"]
mod rig;
#[path = "loopback/rotation.rs"]
mod rotation;
#[path = "loopback/steady.rs"]
mod steady;

use std::sync::atomic::Ordering;
use std::time::Duration;

use dnscrypt_proxy::certs::write_series;
use dnscrypt_proxy::listen::Limits;
use dnscrypt_proxy::proto::cert::PostQuantum;
use dnscrypt_proxy::proto::dropped::{Counted, Dropped};
use dnscrypt_proxy::upstream::{FetchBy, FetchError, KeyPolicy, ResolveError, Route, Ways, fetch};
use hickory_proto::op::{Message, ResponseCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use rig::{
    HOUR, Server, Stub, Wire, a_query, ask_tcp, ask_udp, network_error, records, settings, wishing,
    with_edns,
};

#[tokio::test]
async fn a_wrong_provider_key_means_servfail_and_not_one_query() {
    let server = Server::start().await;
    let mut stamp = server.stamp();
    stamp.provider_key = [9; 32];
    let stub = Stub::start(vec![stamp], &server).await;

    let answer = ask_udp(stub.addr, &with_edns(a_query("a.example"))).await;

    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert!(network_error(&answer));
    assert_eq!(server.asked(), 0);
    let health = &stub.stub.upstream().health()[0];
    assert!(
        health
            .last_error
            .as_deref()
            .unwrap()
            .contains("not signed by the provider")
    );
}

#[tokio::test]
async fn a_resolver_that_is_not_there_means_servfail_over_udp_and_tcp() {
    let server = Server::start().await;
    let mut stamp = server.stamp();
    stamp.addr.set_port(9);
    let stub = Stub::start(vec![stamp], &server).await;

    let over_udp = ask_udp(stub.addr, &a_query("a.example")).await;
    let over_tcp = ask_tcp(stub.addr, &a_query("b.example")).await;

    assert_eq!(over_udp.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(over_tcp.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(stub.stub.figures().failed, 2);
}

#[tokio::test]
async fn an_expired_certificate_is_not_used_and_a_rotated_one_is() {
    let server = Server::start().await;
    let stub = Stub::start(vec![server.stamp()], &server).await;
    assert_eq!(records(&ask_udp(stub.addr, &a_query("a.example")).await), 1);

    server.advance(30 * HOUR);
    let expired = ask_udp(stub.addr, &a_query("b.example")).await;
    server.rotate();
    stub.stub.upstream().network_changed();
    let renewed = ask_udp(stub.addr, &a_query("c.example")).await;

    assert_eq!(expired.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(records(&renewed), 1);
}

#[tokio::test]
async fn queries_under_the_old_key_are_answered_after_a_rotation() {
    let server = Server::start().await;
    let stub = Stub::start(vec![server.stamp()], &server).await;
    assert_eq!(records(&ask_udp(stub.addr, &a_query("a.example")).await), 1);
    let first = stub.stub.upstream().health()[0]
        .certificate
        .clone()
        .unwrap();

    server.advance(9 * HOUR);
    server.rotate();
    let answer = ask_udp(stub.addr, &a_query("b.example")).await;

    assert_eq!(records(&answer), 1);
    assert_eq!(stub.stub.upstream().health()[0].certificate, Some(first));
    assert_eq!(server.keys(), 4);
}

#[tokio::test]
async fn a_server_that_restarted_with_new_keys_is_found_again_within_one_query() {
    let server = Server::start().await;
    let stub = Stub::start(vec![server.stamp()], &server).await;
    assert_eq!(records(&ask_udp(stub.addr, &a_query("a.example")).await), 1);

    // The suspicion that certificates changed is allowed a few seconds after they were fetched.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(6)).await;
    tokio::time::resume();
    server.forget_keys();
    let answer = ask_udp(stub.addr, &a_query("b.example")).await;

    assert_eq!(records(&answer), 1);
}

#[tokio::test]
async fn certificates_signed_elsewhere_serve_without_the_provider_key() {
    let dir = tempfile::tempdir().unwrap();
    write_series(&rig::provider(), dir.path(), rig::series()).unwrap();
    let server = Server::start_from_directory(dir.path()).await;
    let stub = Stub::start(vec![server.stamp()], &server).await;

    let answer = ask_udp(stub.addr, &a_query("a.example")).await;

    assert_eq!(records(&answer), 1);
}

#[tokio::test]
async fn certificates_are_served_over_udp_and_tcp_under_their_name_only() {
    let server = Server::start().await;
    let sockets = settings(&server).sockets;
    let mut other = server.stamp();
    other.provider_name = "2.dnscrypt-cert.other.example".to_owned();

    let stamp = server.stamp();
    let ways = Ways::new(stamp.addr, &Route::Direct);
    let by = |by| fetch(&stamp, &ways, &sockets, by);
    let (over_udp, padded, over_tcp) = (
        by(FetchBy::Udp).await.unwrap(),
        by(FetchBy::PaddedUdp).await.unwrap(),
        by(FetchBy::Tcp).await.unwrap(),
    );
    let of_other = fetch(&other, &ways, &sockets, FetchBy::Tcp).await;

    // The post-quantum one does not fit into what a small query may be answered with.
    assert_eq!((over_udp.records.len(), over_udp.incomplete), (1, true));
    assert_eq!((over_tcp.records.len(), over_tcp.incomplete), (2, false));
    assert_eq!(padded, over_tcp);
    assert!(matches!(of_other, Err(FetchError::NoAnswer)));
    assert_eq!(server.counters.get(Counted::CertQuery), 3);
    assert_eq!(server.counters.dropped(Dropped::UnknownMagic), 1);
}

#[tokio::test]
async fn lookups_pass_over_udp_and_tcp() {
    let server = Server::start().await;
    let stub = Stub::start(vec![server.stamp()], &server).await;

    let over_udp = ask_udp(stub.addr, &a_query("a.example")).await;
    let over_tcp = ask_tcp(stub.addr, &a_query("b.example")).await;

    assert_eq!(records(&over_udp), 1);
    assert_eq!(records(&over_tcp), 1);
    assert_eq!(stub.stub.figures().queries, 2);
    assert_eq!(stub.stub.figures().asked, 2);
}

#[tokio::test]
async fn an_answer_too_big_for_udp_comes_over_tcp_and_makes_room_for_the_next() {
    let server = Server::start().await;
    let stub = Stub::start(vec![server.stamp()], &server).await;
    // The first query is long, and so may be its answer.
    ask_udp(stub.addr, &a_query("a.example")).await;

    let answer = ask_udp(stub.addr, &with_edns(a_query("r40.example"))).await;

    assert_eq!(records(&answer), 40);
    assert_eq!(server.counters.get(Counted::Truncated), 1);
    assert_eq!(server.counters.get(Counted::TcpQuery), 1);
    assert_eq!(stub.stub.upstream().health()[0].udp_target, 512 + 64);
}

#[tokio::test]
async fn an_answer_too_big_for_the_asker_is_cut_and_whole_over_tcp() {
    let server = Server::start().await;
    let stub = Stub::start(vec![server.stamp()], &server).await;
    ask_udp(stub.addr, &a_query("a.example")).await;

    let over_udp = ask_udp(stub.addr, &a_query("r40.example")).await;
    let over_tcp = ask_tcp(stub.addr, &a_query("r40.example")).await;

    assert!(over_udp.metadata.truncation);
    assert_eq!(records(&over_udp), 0);
    assert_eq!(records(&over_tcp), 40);
    assert_eq!(
        server.asked(),
        3,
        "one before, one over UDP, one over TCP; the rest from the cache"
    );
}

#[tokio::test]
async fn an_answer_beyond_4096_bytes_is_cut_even_over_tcp() {
    let server = Server::start().await;
    let stub = Stub::start(vec![server.stamp()], &server).await;

    let answer = ask_tcp(stub.addr, &a_query("r300.example")).await;

    assert!(answer.metadata.truncation);
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
}

#[tokio::test]
async fn a_repeated_question_in_any_spelling_is_answered_from_the_cache() {
    let server = Server::start().await;
    let stub = Stub::start(vec![server.stamp()], &server).await;

    ask_udp(stub.addr, &a_query("a.example")).await;
    let again = ask_udp(stub.addr, &a_query("A.eXample")).await;

    assert_eq!(server.asked(), 1);
    assert_eq!(stub.stub.figures().cache_hits, 1);
    assert_eq!(again.queries[0].name().to_string(), "A.eXample.");
}

#[tokio::test]
async fn identical_questions_in_flight_are_asked_once() {
    let server = Server::start().await;
    let stub = Stub::start(vec![server.stamp()], &server).await;
    server.hold(true);

    let asks = (0..20).map(|_| {
        let addr = stub.addr;
        tokio::spawn(async move { ask_udp(addr, &a_query("a.example")).await })
    });
    let asks: Vec<_> = asks.collect();
    while stub.stub.figures().coalesced < 19 {
        tokio::task::yield_now().await;
    }
    server.hold(false);
    for ask in asks {
        assert_eq!(records(&ask.await.unwrap()), 1);
    }

    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn a_stale_answer_stands_in_when_the_resolver_is_gone() {
    let server = Server::start().await;
    let stub = Stub::start(vec![server.stamp()], &server).await;
    ask_udp(stub.addr, &a_query("a.example")).await;
    server.mute(true);

    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(301)).await;
    tokio::time::resume();
    let answer = ask_udp(stub.addr, &with_edns(a_query("a.example"))).await;

    // With EDNS this is another question only if DNSSEC was asked for, which it was not.
    assert_eq!(records(&answer), 1);
    assert_eq!(answer.answers[0].ttl, 30);
    assert_eq!(stub.stub.figures().stale, 1);
}

#[tokio::test]
async fn the_next_resolver_is_asked_when_the_first_fails_or_refuses() {
    let server = Server::start().await;
    let refusing = Server::start().await;
    refusing.refuse(true);
    let mut dead = server.stamp();
    dead.addr.set_port(9);
    let stub = Stub::start(vec![dead, refusing.stamp(), server.stamp()], &server).await;

    let failures = || -> Vec<_> {
        let health = stub.stub.upstream().health();
        health.iter().map(|health| health.failures).collect()
    };

    let answer = ask_udp(stub.addr, &a_query("a.example")).await;
    assert_eq!((records(&answer), refusing.asked()), (1, 1));
    assert_eq!(failures(), [1, 0, 0], "one refusal is about one name");

    for name in ["b", "c", "d", "e"] {
        ask_udp(stub.addr, &a_query(&format!("{name}.example"))).await;
    }
    assert_eq!(failures(), [1, 1, 0]);
    // The next question goes to the healthy one at once.
    ask_udp(stub.addr, &a_query("f.example")).await;
    assert_eq!(refusing.asked(), 5);
}

#[tokio::test]
async fn a_name_that_is_refused_again_and_again_is_held_against_nobody() {
    let server = Server::start().await;
    let stub = Stub::start(vec![server.stamp()], &server).await;

    for n in 0..10 {
        server.refuse(true);
        let refused = ask_udp(stub.addr, &a_query(&format!("refused{n}.example"))).await;
        assert_eq!(refused.metadata.response_code, ResponseCode::ServFail);
        assert_eq!(stub.stub.upstream().health()[0].failures, 0);
        server.refuse(false);
        let other = ask_udp(stub.addr, &a_query(&format!("other{n}.example"))).await;
        assert_eq!(records(&other), 1);
    }
}

#[tokio::test]
async fn the_wire_shows_no_name_and_only_padded_sizes() {
    let server = Server::start().await;
    let wire = Wire::start(server.addr).await;
    let settings = wishing(PostQuantum::Off, &server);
    let upstream = rig::upstream(vec![wire.stamp(&server)], settings);

    for name in [
        "secret-name.example",
        "another-rather-long-secret-name.example",
    ] {
        upstream.resolve(&a_query(name)).await.unwrap();
    }

    let seen = wire.seen();
    let queries: Vec<_> = seen.iter().filter(|packet| packet.len() > 256).collect();
    assert_eq!(queries.len(), 2);
    for query in &queries {
        assert_eq!((query.len() - 68) % 64, 0);
        assert!(!query.windows(6).any(|bytes| bytes == b"secret"));
    }
    assert_eq!(queries[0][8..40], queries[1][8..40], "one key per network");
    assert_ne!(
        queries[0][40..52],
        queries[1][40..52],
        "a nonce serves once"
    );
}

#[tokio::test]
async fn ephemeral_keys_and_a_network_change_show_another_key() {
    let server = Server::start().await;
    let wire = Wire::start(server.addr).await;
    let ephemeral = dnscrypt_proxy::upstream::Settings {
        keys: KeyPolicy::PerQuery,
        ..wishing(PostQuantum::Off, &server)
    };
    let settings = wishing(PostQuantum::Off, &server);
    let one = rig::upstream(vec![wire.stamp(&server)], settings);
    let many = rig::upstream(vec![wire.stamp(&server)], ephemeral);

    for upstream in [&one, &many] {
        upstream.resolve(&a_query("a.example")).await.unwrap();
        upstream.resolve(&a_query("b.example")).await.unwrap();
    }
    one.network_changed();
    one.resolve(&a_query("c.example")).await.unwrap();

    let keys: Vec<_> = wire
        .seen()
        .iter()
        .filter(|packet| packet.len() > 256)
        .map(|p| p[8..40].to_vec())
        .collect();
    assert_eq!(keys[0], keys[1]);
    assert_ne!(keys[2], keys[3]);
    assert_ne!(keys[4], keys[0]);
}

#[tokio::test]
async fn forged_answers_before_the_true_one_change_nothing() {
    let server = Server::start().await;
    let wire = Wire::start(server.addr).await;
    wire.forge.store(true, Ordering::Relaxed);
    let upstream = rig::upstream(vec![wire.stamp(&server)], settings(&server));

    let answer = upstream.resolve(&a_query("a.example")).await;

    assert!(answer.is_ok());
    assert_eq!(server.counters.get(Counted::TcpQuery), 0);
}

#[tokio::test]
async fn a_lost_packet_is_sent_again_and_lost_udp_goes_over_tcp() {
    let server = Server::start().await;
    let wire = Wire::start(server.addr).await;
    let upstream = rig::upstream(vec![wire.stamp(&server)], settings(&server));
    upstream.resolve(&a_query("a.example")).await.unwrap();

    wire.lose(1);
    upstream.resolve(&a_query("b.example")).await.unwrap();
    assert_eq!(server.counters.get(Counted::TcpQuery), 0);
    wire.lose(1000);
    let over_tcp = upstream.resolve(&a_query("c.example")).await;

    assert!(over_tcp.is_ok());
    assert_eq!(server.counters.get(Counted::TcpQuery), 1);
}

#[tokio::test]
async fn no_resolver_and_oversized_questions_have_their_own_errors() {
    let server = Server::start().await;
    let nobody = rig::upstream(vec![], settings(&server));
    let somebody = rig::upstream(vec![server.stamp()], settings(&server));

    assert!(matches!(
        nobody.resolve(&a_query("a.example")).await,
        Err(ResolveError::NoResolver)
    ));
    assert!(matches!(
        somebody.resolve(&vec![0; 5000]).await,
        Err(ResolveError::TooLong)
    ));
}

#[tokio::test]
async fn garbage_on_the_lan_is_counted_or_told_off_and_never_asked() {
    let server = Server::start().await;
    let stub = Stub::start(vec![server.stamp()], &server).await;
    let notify = |mut query: Vec<u8>| {
        query[2] = 0x20;
        query
    };
    let chaos = |mut query: Vec<u8>| {
        *query.last_mut().unwrap() = 3;
        query
    };

    rig::send(stub.addr, &[0; 5]).await;
    rig::send(stub.addr, &[0xff; 600]).await;
    let malformed = ask_udp(stub.addr, &[0; 12]).await;
    let operation = ask_udp(stub.addr, &notify(a_query("a.example"))).await;
    let class = ask_udp(stub.addr, &chaos(a_query("a.example"))).await;

    assert_eq!(malformed.metadata.response_code, ResponseCode::FormErr);
    assert_eq!(operation.metadata.response_code, ResponseCode::NotImp);
    assert_eq!(class.metadata.response_code, ResponseCode::Refused);
    assert_eq!(stub.stub.counters().dropped(Dropped::Malformed), 1);
    assert_eq!(stub.stub.counters().dropped(Dropped::NotAQuery), 1);
    assert_eq!(server.asked(), 0);
}

#[tokio::test]
async fn a_message_over_tcp_that_is_longer_than_any_query_is_dropped() {
    let server = Server::start().await;
    let stub = Stub::start(vec![server.stamp()], &server).await;
    let mut stream = tokio::net::TcpStream::connect(stub.addr).await.unwrap();

    stream.write_all(&4_097_u16.to_be_bytes()).await.unwrap();

    assert!(stream.read_u8().await.is_err(), "it is closed");
    assert_eq!(stub.stub.counters().dropped(Dropped::TooLong), 1);
}

#[tokio::test]
async fn a_burst_is_answered_whole_and_each_sender_is_told_what_it_asked() {
    let server = Server::start().await;
    let stub = Stub::start(vec![server.stamp()], &server).await;
    let names = ["a.example", "longer.example"];
    let mut senders = Vec::new();
    for name in names {
        assert_eq!(records(&ask_udp(stub.addr, &a_query(name)).await), 1);
        senders.push((name, std::net::UdpSocket::bind("127.0.0.1:0").unwrap()));
    }

    // Nobody else has a turn before all of it waits.
    for id in 0..100_u16 {
        for (name, socket) in &senders {
            let mut query = a_query(name);
            query[..2].copy_from_slice(&id.to_be_bytes());
            socket.send_to(&query, stub.addr).unwrap();
        }
    }

    for (name, socket) in senders {
        socket.set_nonblocking(true).unwrap();
        let socket = tokio::net::UdpSocket::from_std(socket).unwrap();
        let mut answer = [0; 512];
        for id in 0..100 {
            let len = socket.recv(&mut answer).await.unwrap();
            let answer = Message::from_vec(&answer[..len]).unwrap();
            assert_eq!(answer.metadata.id, id);
            assert_eq!(answer.queries[0].name().to_ascii(), format!("{name}."));
            assert_eq!(records(&answer), 1);
        }
    }
    assert_eq!(server.asked(), 2);
}

#[tokio::test]
async fn what_comes_after_a_full_batch_is_taken_though_nothing_of_it_is_answered() {
    let server = Server::start().await;
    let stub = Stub::start(vec![server.stamp()], &server).await;
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut answer = a_query("a.example");
    answer[2] |= 0x80;

    // Nobody else has a turn before all of it waits.
    let count = 2 * Limits::ROUTER.udp_batch + 1;
    for _ in 0..count {
        socket.send_to(&answer, stub.addr).unwrap();
    }

    let taken = async {
        while stub.stub.counters().dropped(Dropped::NotAQuery) < count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), taken)
        .await
        .unwrap();
}

#[tokio::test]
async fn too_many_queries_and_connections_are_dropped_and_counted() {
    let server = Server::start().await;
    let limits = Limits {
        in_flight: 2,
        udp_batch: 3,
        tcp_connections: 8,
        tcp_per_source: 2,
        rate: None,
    };
    let stub = Stub::start_with(vec![server.stamp()], &server, limits).await;
    server.hold(true);

    for name in ["a.example", "b.example", "c.example"] {
        rig::send(stub.addr, &a_query(name)).await;
    }
    while stub.stub.counters().dropped(Dropped::Overloaded) < 1 {
        tokio::task::yield_now().await;
    }
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(tokio::net::TcpStream::connect(stub.addr).await.unwrap());
    }
    while stub.stub.counters().dropped(Dropped::TooManyConnections) < 1 {
        tokio::task::yield_now().await;
    }
    drop(streams);
    server.hold(false);

    while stub.stub.counters().get(Counted::Answer) < 2 {
        tokio::task::yield_now().await;
    }

    // Places are given back.
    assert_eq!(records(&ask_udp(stub.addr, &a_query("c.example")).await), 1);
}

#[tokio::test]
async fn a_source_that_asks_what_nobody_answers_leaves_room_to_others() {
    let server = Server::start().await;
    let limits = Limits {
        in_flight: 8,
        ..Limits::ROUTER
    };
    let stub = Stub::start_with(vec![server.stamp()], &server, limits).await;
    server.hold(true);
    let [greedy, modest] = ["127.0.0.1:0", "127.0.0.2:0"].map(tokio::net::UdpSocket::bind);
    let (greedy, modest) = (greedy.await.unwrap(), modest.await.unwrap());

    for n in 0..8 {
        let query = a_query(&format!("greedy{n}.example"));
        greedy.send_to(&query, stub.addr).await.unwrap();
    }
    while stub.stub.counters().dropped(Dropped::Overloaded) < 3 {
        tokio::task::yield_now().await;
    }
    for name in ["a.example", "b.example"] {
        modest.send_to(&a_query(name), stub.addr).await.unwrap();
    }
    while stub.stub.figures().asked < 7 {
        tokio::task::yield_now().await;
    }
    server.hold(false);

    for _ in 0..2 {
        let mut answer = [0; 512];
        let len = modest.recv(&mut answer).await.unwrap();
        assert_eq!(records(&Message::from_vec(&answer[..len]).unwrap()), 1);
    }
    assert_eq!(stub.stub.counters().dropped(Dropped::Overloaded), 3);
}

#[tokio::test]
async fn a_lookup_that_waits_takes_little_memory() {
    let server = Server::start().await;
    let upstream = rig::upstream(vec![server.stamp()], settings(&server));
    let query = a_query("a.example");

    let size = std::mem::size_of_val(&upstream.resolve(&query));

    assert!(size < 2_500, "{size} bytes for each of hundreds");
}
