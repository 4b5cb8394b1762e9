//! What becomes of lookups while resolvers are away, slow or exchanged. Time is the paused clock's: what takes
//! none was given at once.

use std::time::Duration;

use dnscrypt_proxy::listen::Limits;
use dnscrypt_proxy::upstream::{Prefer, Settings};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsCode;
use tokio::time::{Instant, advance, pause};

use super::rig::{
    HOUR, Server, Stub, Wire, a_query, ask_udp, pass, records, settings, upstream, with_edns,
};

/// The rig's answers live so long.
const TTL: Duration = Duration::from_secs(300);
const AT_ONCE: Duration = Duration::from_millis(20);

async fn timed(stub: &Stub, name: &str) -> (Message, Duration) {
    let asked = Instant::now();
    let answer = ask_udp(stub.addr, &a_query(name)).await;
    (answer, asked.elapsed())
}

fn is_stale(answer: &Message) -> bool {
    records(answer) == 1 && answer.answers[0].ttl == 30
}

/// A server behind a wire, a stub that knows two answers, and the clock paused behind their lifetimes.
async fn with_two_stale_answers() -> (Server, Wire, Stub) {
    let server = Server::start().await;
    let wire = Wire::start(server.addr).await;
    let stub = Stub::start(vec![wire.stamp(&server)], &server).await;
    for name in ["a.example", "b.example"] {
        assert_eq!(records(&ask_udp(stub.addr, &a_query(name)).await), 1);
    }
    pause();
    advance(TTL).await;
    (server, wire, stub)
}

#[tokio::test]
async fn ten_minutes_without_a_resolver_are_bridged_and_over_two_seconds_after_it_is_back() {
    let (_server, wire, stub) = with_two_stale_answers().await;
    wire.cut(true);

    let (first, waited) = timed(&stub, "a.example").await;
    assert!(is_stale(&first));
    assert!(waited <= Duration::from_secs(2), "{waited:?}");
    // The flight of the first question finds out that nobody answers.
    pass(Duration::from_secs(6)).await;
    let before = wire.seen().len();
    for second in 0..600 {
        for name in ["a.example", "b.example"] {
            let (answer, waited) = timed(&stub, name).await;
            assert!(is_stale(&answer), "{name} after {second} s");
            assert!(waited < AT_ONCE, "{name} after {second} s: {waited:?}");
        }
        pass(Duration::from_secs(1)).await;
    }
    let probes = wire.seen().split_off(before);
    wire.cut(false);
    let back = Instant::now();
    while is_stale(&timed(&stub, "a.example").await.0) {
        pass(Duration::from_millis(50)).await;
    }

    assert!(
        back.elapsed() < Duration::from_secs(2),
        "{:?}",
        back.elapsed()
    );
    assert!((300..=900).contains(&probes.len()), "{}", probes.len());
    assert!(probes.iter().all(|probe| probe.len() < 128));
    assert!(!is_stale(&timed(&stub, "b.example").await.0));
}

#[tokio::test]
async fn no_stale_answer_stands_in_for_one_that_validation_refused_and_none_claims_to_be_proven() {
    let server = Server::start().await;
    let stub = Stub::start(vec![server.stamp()], &server).await;
    let query = with_edns(a_query("a.example"));
    assert!(ask_udp(stub.addr, &query).await.metadata.authentic_data);
    pause();
    advance(TTL).await;
    server.mute(true);
    let stale = ask_udp(stub.addr, &query).await;
    assert!(is_stale(&stale), "{stale}");
    assert!(!stale.metadata.authentic_data, "{stale}");

    server.mute(false);
    server.find_bogus();
    pass(Duration::from_secs(40)).await;
    for _ in 0..2 {
        let refused = ask_udp(stub.addr, &query).await;
        assert_eq!(refused.metadata.response_code, ResponseCode::ServFail);
        let edns = refused.edns.as_ref().unwrap();
        let said = edns.options().get(EdnsCode::Unknown(15)).unwrap();
        let said: Vec<u8> = said.try_into().unwrap();
        assert_eq!(said, [0, 6], "DNSSEC Bogus");
        pass(Duration::from_secs(3)).await;
    }
}

#[tokio::test]
async fn a_question_that_failed_is_answered_as_soon_as_a_resolver_is_back() {
    let (_server, wire, stub) = with_two_stale_answers().await;
    wire.cut(true);
    let (failed, _) = timed(&stub, "new.example").await;
    assert_eq!(failed.metadata.response_code, ResponseCode::ServFail);
    pass(Duration::from_secs(30)).await;

    let (failed, waited) = timed(&stub, "new.example").await;
    wire.cut(false);
    let back = Instant::now();
    while records(&timed(&stub, "new.example").await.0) == 0 {
        pass(Duration::from_millis(50)).await;
    }

    assert_eq!(failed.metadata.response_code, ResponseCode::ServFail);
    assert!(waited < Duration::from_secs(4), "{waited:?}");
    assert!(
        back.elapsed() < Duration::from_secs(2),
        "{:?}",
        back.elapsed()
    );
}

#[tokio::test]
async fn a_question_that_waits_is_answered_when_the_resolver_comes_back() {
    let (_server, wire, stub) = with_two_stale_answers().await;
    wire.cut(true);
    pass(Duration::from_secs(1)).await;

    let asking = tokio::spawn(async move { timed(&stub, "new.example").await });
    pass(Duration::from_millis(2_500)).await;
    wire.cut(false);
    let (answer, _) = asking.await.unwrap();

    assert_eq!(records(&answer), 1);
}

#[tokio::test]
async fn nobody_probes_at_night_what_nobody_asks() {
    let (_server, wire, stub) = with_two_stale_answers().await;
    wire.cut(true);
    assert!(is_stale(&timed(&stub, "a.example").await.0));
    pass(Duration::from_secs(120)).await;

    let before = wire.seen().len();
    pass(Duration::from_secs(600)).await;

    let probes = wire.seen().len() - before;
    assert!((20..=120).contains(&probes), "{probes}");
}

#[tokio::test]
async fn an_answer_that_is_wanted_often_is_renewed_before_it_ends() {
    let server = Server::start().await;
    let stub = Stub::start(vec![server.stamp()], &server).await;
    pause();
    for _ in 0..4 {
        timed(&stub, "often.example").await;
    }
    timed(&stub, "seldom.example").await;

    advance(TTL - Duration::from_secs(20)).await;
    for name in ["often.example", "seldom.example"] {
        let (answer, waited) = timed(&stub, name).await;
        assert_eq!(answer.answers[0].ttl, 20);
        assert!(waited < AT_ONCE);
    }
    pass(Duration::from_secs(30)).await;
    let (answer, waited) = timed(&stub, "often.example").await;

    assert!((265..=280).contains(&answer.answers[0].ttl));
    assert!(waited < AT_ONCE);
    assert_eq!(server.asked(), 3);
    assert_eq!(stub.stub.figures().prefetched, 1);
}

/// Two servers behind one stub, both warm.
async fn with_two_servers(prefer: Prefer) -> (Server, Server, Stub) {
    let (first, second) = (Server::start().await, Server::start().await);
    let settings = Settings {
        prefer,
        ..settings(&first)
    };
    for server in [&first, &second] {
        let one = upstream(vec![server.stamp()], settings.clone());
        one.resolve(&a_query("warm.example")).await.unwrap();
    }
    let upstream = upstream(vec![first.stamp(), second.stamp()], settings);
    let stub = Stub::start_before(upstream, Limits::ROUTER).await;
    (first, second, stub)
}

#[tokio::test]
async fn a_late_answer_is_asked_elsewhere_and_nothing_is_held_against_the_slower() {
    let (first, second, stub) = with_two_servers(Prefer::Order).await;
    pause();
    for n in 0..20 {
        timed(&stub, &format!("n{n}.example")).await;
    }
    let asked = second.asked();

    first.delay(Duration::from_secs(5));
    let (answer, waited) = timed(&stub, "late.example").await;
    first.delay(Duration::ZERO);

    assert_eq!(records(&answer), 1);
    assert!(waited < Duration::from_millis(200), "{waited:?}");
    assert_eq!(second.asked(), asked + 1);
    assert_eq!(stub.stub.upstream().health()[0].failures, 0);
    timed(&stub, "next.example").await;
    assert_eq!(second.asked(), asked + 1, "the first is preferred still");
}

#[tokio::test]
async fn a_silent_resolver_costs_few_questions_a_second_try() {
    let (first, second, stub) = with_two_servers(Prefer::Order).await;
    pause();
    timed(&stub, "n.example").await;
    let (asked, before) = (first.asked(), second.asked());

    first.mute(true);
    let mut slow = 0;
    for n in 0..200 {
        let (answer, waited) = timed(&stub, &format!("silent{n}.example")).await;
        assert_eq!(records(&answer), 1);
        slow += u32::from(waited > Duration::from_millis(300));
    }

    assert_eq!(second.asked() - before, 200);
    // A hundred hedges at most come from a thousand questions, and ten are in the purse.
    assert!(first.asked() - asked <= 30, "{}", first.asked() - asked);
    assert!(slow <= 2, "{slow}");
}

#[tokio::test]
async fn the_fastest_is_asked_only_where_that_is_wanted() {
    for (prefer, most_at) in [(Prefer::Order, 0), (Prefer::Latency, 1)] {
        let (first, second, stub) = with_two_servers(prefer).await;
        pause();
        first.delay(Duration::from_millis(40));
        second.delay(Duration::from_millis(10));
        let before = [first.asked(), second.asked()];

        for n in 0..60 {
            timed(&stub, &format!("n{n}.example")).await;
        }

        let asked = [first.asked() - before[0], second.asked() - before[1]];
        assert!(asked[most_at] >= 55, "{prefer:?}: {asked:?}");
        assert!(asked[1 - most_at] <= 10, "{prefer:?}: {asked:?}");
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_question_in_flight_moves_to_the_resolver_that_is_leased_now() {
    let (gone, here) = (Server::start().await, Server::start().await);
    let wire = Wire::start(gone.addr).await;
    let stub = Stub::start(vec![wire.stamp(&gone)], &gone).await;
    timed(&stub, "before.example").await;
    pause();
    wire.cut(true);

    let handle = std::sync::Arc::clone(&stub.stub);
    let asking = tokio::spawn(async move { timed(&stub, "moving.example").await });
    pass(Duration::from_millis(300)).await;
    handle.upstream().set_stamps(vec![here.stamp()]);
    let (answer, waited) = asking.await.unwrap();

    assert_eq!(records(&answer), 1);
    assert!(waited < Duration::from_millis(400), "{waited:?}");
}

#[tokio::test]
async fn a_question_is_under_way_to_four_at_most() {
    let mut servers = Vec::new();
    for _ in 0..6 {
        servers.push(Server::start().await);
    }
    let stamps = servers.iter().map(Server::stamp).collect();
    let upstream = upstream(stamps, settings(&servers[0]));
    upstream.resolve(&a_query("warm.example")).await.unwrap();
    servers.iter().for_each(|server| server.mute(true));
    let asked = |servers: &[Server]| servers.iter().filter(|one| one.asked() > 0).count();
    pause();

    let query = a_query("silent.example");
    let asking = tokio::spawn(async move { upstream.resolve(&query).await });
    pass(Duration::from_millis(1_500)).await;
    let under_way = asked(&servers);

    assert!(asking.await.unwrap().is_err());
    assert_eq!(under_way, 4);
    assert!(asked(&servers) > 4, "who ends makes room");
}

#[tokio::test]
async fn a_question_ends_however_often_resolvers_change() {
    let server = Server::start().await;
    let upstream = upstream(vec![server.stamp()], settings(&server));
    upstream.resolve(&a_query("warm.example")).await.unwrap();
    server.mute(true);
    pause();
    let began = Instant::now();

    let (asked, query) = (upstream.clone(), a_query("silent.example"));
    let asking = tokio::spawn(async move {
        let outcome = asked.resolve(&query).await;
        (outcome.is_err(), began.elapsed())
    });
    for _ in 0..30 {
        pass(Duration::from_secs(1)).await;
        upstream.network_changed();
    }
    let (failed, lasted) = asking.await.unwrap();

    assert!(failed);
    assert!(lasted <= Duration::from_millis(8_100), "{lasted:?}");
}

#[tokio::test]
async fn on_another_network_a_resolver_is_not_waited_for_as_long_as_it_was_unusable() {
    let (server, wire, stub) = with_two_stale_answers().await;
    server.advance(30 * HOUR);
    for _ in 0..600 {
        assert!(is_stale(&timed(&stub, "a.example").await.0));
        pass(Duration::from_secs(1)).await;
    }

    server.rotate();
    wire.cut(true);
    stub.stub.upstream().network_changed();
    assert!(is_stale(&timed(&stub, "a.example").await.0));
    pass(Duration::from_secs(8)).await;
    wire.cut(false);
    let back = Instant::now();
    while is_stale(&timed(&stub, "a.example").await.0) {
        pass(Duration::from_millis(50)).await;
    }

    let waited = back.elapsed();
    assert!(waited < Duration::from_secs(2), "{waited:?}");
}

#[tokio::test]
async fn an_oversized_question_is_held_against_nobody() {
    let server = Server::start().await;
    let upstream = upstream(vec![server.stamp()], settings(&server));

    assert!(upstream.resolve(&vec![0; 5_000]).await.is_err());

    assert_eq!(upstream.health()[0].failures, 0);
}
