//! Everybody's DNSCrypt client against everybody's DNSCrypt server, and our answers beside another resolver's.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use lab::{
    Asking, BIG_NAME, BOGUS_NAME, DnscryptProxy, DnscryptStub, ForeignServer, Internet, Lab, Netns,
    PAGE_NAME, Peers, Programs, RESOLVER, Said, Unbound, World, ask_all, is_whole, questions,
    resolves,
};

/// What is asked of our resolver and of unbound.
const QUESTIONS: usize = 10_000;
const SEED: u64 = 20_261_122;

/// The ways that use post-quantum certificates where there are such.
const POST_QUANTUM: [Asking; 3] = [Asking::Udp, Asking::Tcp, Asking::EphemeralKeys];

/// Ways of asking of the foreign client, some of them post-quantum, and kdig through our stub.
fn ask_every_way(lab: &Lab, netns: &Netns, stamp: &str, [ways, post_quantum]: [&[Asking]; 2]) {
    let (peers, programs) = (
        Peers::of_this_build().unwrap(),
        Programs::of_this_build().unwrap(),
    );
    for asking in ways.iter().copied() {
        let client = DnscryptProxy::start(lab, netns, &peers, stamp, asking).unwrap();
        resolves(&client.dig(&[PAGE_NAME, "A"]).unwrap()).unwrap();
        let big = client.dig(&[BIG_NAME, "TXT"]).unwrap();
        assert!(
            is_whole(&big),
            "{asking:?}: an answer too big for UDP: {big}"
        );
        let log = client.log();
        let is_post_quantum = log.contains("using the post-quantum X-Wing key exchange");
        assert_eq!(is_post_quantum, post_quantum.contains(&asking), "{log}");
    }
    let stub = DnscryptStub::start(lab, netns, &programs, stamp).unwrap();
    // By itself it goes to TCP only when an answer says so.
    for transport in [&[][..], &["+tcp"]] {
        let ask = |question: [&str; 2]| stub.kdig(&[transport, &question].concat());
        resolves(&ask([PAGE_NAME, "A"]).unwrap()).unwrap();
        let big = ask([BIG_NAME, "TXT"]).unwrap();
        assert!(is_whole(&big), "{transport:?}: {big}");
    }
}

#[test]
fn every_client_resolves_through_encrypted_dns_and_through_dnsdist() {
    let lab = Lab::for_test().unwrap();
    let _internet = Internet::start(&lab).unwrap();
    let peers = Peers::of_this_build().unwrap();
    let encrypted_dns =
        ForeignServer::encrypted_dns(&lab, &peers, "203.0.113.10:443".parse().unwrap()).unwrap();
    let dnsdist = ForeignServer::dnsdist(&lab, "203.0.113.10:8443".parse().unwrap()).unwrap();

    ask_every_way(
        &lab,
        &lab.pop,
        &encrypted_dns.stamp,
        [&Asking::ALL, &POST_QUANTUM],
    );
    // It has a classical certificate alone, and gives it over UDP alone: the client that forces TCP never gets it. A dnsdist that
    // gives it is to be asked in every way.
    let certificate = |transport: &[&str]| {
        let asked = ["dig", "+tries=1", "+time=3", "@203.0.113.10", "-p", "8443"];
        let named = ["TXT", ForeignServer::DNSDIST_NAME];
        let said = lab.pop.output(&[&asked, &named[..], transport].concat());
        String::from_utf8(said.unwrap().stdout).unwrap()
    };
    let over_udp = certificate(&["+notcp"]);
    assert!(over_udp.contains("\"DNSC"), "{over_udp}");
    let over_tcp = certificate(&["+tcp"]);
    assert!(!over_tcp.contains("\"DNSC"), "{over_tcp}");
    let mut over_udp = Asking::ALL.to_vec();
    over_udp.retain(|asking| *asking != Asking::Tcp);
    ask_every_way(&lab, &lab.pop, &dnsdist.stamp, [&over_udp, &[]]);
}

#[test]
fn every_client_resolves_through_our_edge() {
    let world = World::protected().unwrap();

    ask_every_way(
        &world.lab,
        &world.lab.home,
        &world.pop.stamp,
        [&Asking::ALL, &POST_QUANTUM],
    );

    let peers = Peers::of_this_build().unwrap();
    let client = DnscryptProxy::start(
        &world.lab,
        &world.lab.home,
        &peers,
        &world.pop.stamp,
        Asking::Elder,
    )
    .unwrap();
    let bogus = client.dig(&[BOGUS_NAME, "A"]).unwrap();
    assert!(bogus.contains("status: SERVFAIL"), "{bogus}");
}

#[test]
fn ten_thousand_answers_are_those_that_unbound_gives_for_the_same_zones() {
    let world = World::protected().unwrap();
    let _unbound = Unbound::start(&world.lab, &world.internet.zones).unwrap();

    compare(&world.lab, (&world.lab.home, "192.168.1.1", 53), QUESTIONS);
}

/// Asks unbound, and a stub of ours somewhere.
fn compare(lab: &Lab, (netns, stub, port): (&Netns, &str, u16), count: usize) {
    let dir = lab.folder("names").unwrap();
    let questions = questions(count, SEED);

    let theirs = ask_all(&lab.internet, &dir, (RESOLVER, 53), &questions).unwrap();
    let ours = ask_all(netns, &dir, (stub, port), &questions).unwrap();

    assert_eq!(theirs.len(), count, "questions that unbound answered");
    let differing: Vec<String> = theirs
        .iter()
        .filter(|(question, theirs)| {
            ours.get(*question)
                .is_none_or(|ours| !agree(question, ours, theirs))
        })
        .map(|(question, theirs)| {
            let ours = ours.get(question);
            format!("{question}: {ours:?}\n  unbound: {theirs:?}")
        })
        .collect();
    assert!(
        differing.is_empty(),
        "{} answers differ, such as\n{}",
        differing.len(),
        differing[..differing.len().min(40)].join("\n")
    );
}

/// Equal; but a denial behind an alias of an unsigned zone comes without the alias, and one who asks for an alias gets it
/// with NOERROR, where unbound tells that its target is missing.
fn agree(question: &str, ours: &Said, theirs: &Said) -> bool {
    let is_of_alias = question.ends_with(" CNAME") && ours.status == "NOERROR";
    if is_of_alias && theirs.status == "NXDOMAIN" {
        return ours.records == theirs.records && ours.authentic == theirs.authentic;
    }
    let is_alias = |record: &String| record.contains(" in cname ");
    let is_bare_denial = ours.records.is_empty()
        && !(ours.authentic || theirs.authentic)
        && ours.status == theirs.status
        && theirs.records.iter().all(is_alias);
    ours == theirs || is_bare_denial
}
