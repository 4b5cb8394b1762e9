//! What the stub answers or refuses by itself, seen by a client before it and by the resolver behind it.

use std::time::Duration;

use dnscrypt_proxy::policy::{Aaaa, OwnResolver, Policy, Rebinding, Rules};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RData;
use hickory_proto::rr::rdata::opt::EdnsCode;

use super::rig::{Server, Stub, a_query, ask_tcp, ask_udp, pass, records, with_edns};

/// The code of the extended error in an answer (RFC 8914).
fn extended_error(answer: &Message) -> Option<u8> {
    let option = answer.edns.as_ref()?.options().get(EdnsCode::Unknown(15))?;
    let bytes: Vec<u8> = option.try_into().unwrap();
    bytes.get(1).copied()
}

async fn judging(server: &Server, rules: Rules) -> Stub {
    let policy = Policy::new(rules);
    policy.settle();
    Stub::start_judging(policy, server).await
}

#[tokio::test]
async fn what_is_the_homes_or_blocked_is_answered_and_no_resolver_hears_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let (list, leases) = (folder.path().join("list"), folder.path().join("leases"));
    std::fs::write(&list, "||ads.example^\n").unwrap();
    std::fs::write(&leases, "0 aa:bb:cc:dd:ee:ff 192.168.1.9 phone *\n").unwrap();
    let server = Server::start().await;
    let rules = Rules {
        local_domain: Some("lan".parse().unwrap()),
        leases_files: vec![leases],
        blocklists: vec![list],
        browser_doh: OwnResolver::Denied,
        ..Rules::default()
    };
    let stub = judging(&server, rules).await;

    for (name, rcode, count) in [
        ("Printer.LOCAL", ResponseCode::NXDomain, 0),
        ("x.onion", ResponseCode::NXDomain, 0),
        ("_dns.resolver.arpa", ResponseCode::NoError, 0),
        ("use-application-dns.net", ResponseCode::NXDomain, 0),
        ("x.ADS.example", ResponseCode::NXDomain, 0),
        ("nobody.lan", ResponseCode::NXDomain, 0),
        ("phone.lan", ResponseCode::NoError, 1),
        ("Phone", ResponseCode::NoError, 1),
        ("localhost", ResponseCode::NoError, 1),
    ] {
        let query = with_edns(a_query(name));
        for answer in [
            ask_udp(stub.addr, &query).await,
            ask_tcp(stub.addr, &query).await,
        ] {
            assert_eq!(answer.metadata.response_code, rcode, "{name}");
            assert_eq!((records(&answer), answer.metadata.id), (count, 0x4242));
            assert_eq!(answer.queries[0].name().to_ascii(), format!("{name}."));
        }
    }
    assert_eq!(server.asked(), 0);
    let figures = stub.stub.figures();
    assert_eq!((figures.policy.own, figures.policy.blocked), (16, 2));
    assert_eq!((figures.asked, figures.cached), (0, 0));
}

#[tokio::test]
async fn an_answer_that_leads_inside_is_refused_each_time_and_told() {
    let server = Server::start().await;
    let rules = Rules {
        rebinding: Rebinding::Refused,
        rebind_allow: vec!["fine.example".parse().unwrap()],
        ..Rules::default()
    };
    let stub = judging(&server, rules).await;

    for _ in 0..2 {
        let answer = ask_udp(stub.addr, &with_edns(a_query("inside.evil.example"))).await;
        assert_eq!(records(&answer), 0);
        assert_eq!(extended_error(&answer), Some(15));
    }
    let allowed = ask_udp(stub.addr, &a_query("inside.fine.example")).await;

    assert_eq!((server.asked(), records(&allowed)), (3, 1));
    assert_eq!(stub.stub.figures().policy.rebinding, 2);
}

#[tokio::test]
async fn a_name_that_stands_for_another_has_its_addresses_and_is_not_asked_itself() {
    let server = Server::start().await;
    let rules = Rules {
        cloaks: vec![
            "www.search.example r2.search.example".parse().unwrap(),
            "here.example nas.lan".parse().unwrap(),
            "nas.lan 192.168.1.5".parse().unwrap(),
            "round.example here.example".parse().unwrap(),
        ],
        ..Rules::default()
    };
    let stub = judging(&server, rules).await;
    let target = |answer: &Message| {
        let RData::CNAME(name) = &answer.answers[0].data else {
            panic!("no alias: {answer}");
        };
        name.0.to_ascii()
    };

    for _ in 0..2 {
        let answer = ask_udp(stub.addr, &with_edns(a_query("WWW.search.example"))).await;
        assert_eq!(target(&answer), "r2.search.example.");
        assert_eq!(answer.answers[1].name.to_ascii(), "r2.search.example.");
        assert_eq!((records(&answer), extended_error(&answer)), (3, Some(4)));
    }
    let here = ask_udp(stub.addr, &a_query("here.example")).await;
    let round = ask_udp(stub.addr, &a_query("round.example")).await;

    assert_eq!((target(&here), records(&here)), ("nas.lan.".to_owned(), 2));
    assert_eq!(round.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(server.asked(), 1, "the other name, once");
}

async fn cloaking(server: &Server, cloaks: &[&str]) -> Stub {
    let rules = Rules {
        cloaks: cloaks.iter().map(|cloak| cloak.parse().unwrap()).collect(),
        ..Rules::default()
    };
    judging(server, rules).await
}

#[tokio::test]
async fn a_name_that_stands_for_one_that_fails_or_is_not_there_shares_its_fate() {
    let server = Server::start().await;
    let stub = cloaking(
        &server,
        &["a.example broken.example", "b.example nobody.example"],
    )
    .await;

    let failed = ask_udp(stub.addr, &a_query("a.example")).await;
    let nobody = ask_udp(stub.addr, &a_query("b.example")).await;

    let code = |answer: &Message| (answer.metadata.response_code, records(answer));
    assert_eq!(code(&failed), (ResponseCode::ServFail, 0));
    assert_eq!(code(&nobody), (ResponseCode::NXDomain, 1));
}

#[tokio::test]
async fn a_name_that_stands_for_another_is_prefetched_and_bridged_like_it() {
    let server = Server::start().await;
    let stub = cloaking(&server, &["a.example target.example"]).await;
    let query = a_query("a.example");
    for _ in 0..5 {
        let answer = ask_udp(stub.addr, &query).await;
        assert_eq!((records(&answer), answer.answers[1].ttl), (2, 60));
    }
    tokio::time::pause();

    tokio::time::advance(Duration::from_secs(285)).await;
    let ending = ask_udp(stub.addr, &query).await;
    assert_eq!((records(&ending), ending.answers[1].ttl), (2, 15));
    pass(Duration::from_secs(1)).await;
    assert_eq!((server.asked(), stub.stub.figures().prefetched), (2, 1));

    server.mute(true);
    tokio::time::advance(Duration::from_secs(301)).await;
    let stale = ask_udp(stub.addr, &query).await;
    assert_eq!((records(&stale), stale.answers[1].ttl), (2, 30));
    assert_eq!(stub.stub.figures().stale, 1);
}

#[tokio::test]
async fn what_was_kept_is_forgotten_when_the_policy_changes() {
    let server = Server::start().await;
    let stub = judging(&server, Rules::default()).await;
    let query = a_query("a.example");
    ask_udp(stub.addr, &query).await;
    ask_udp(stub.addr, &query).await;
    assert_eq!(server.asked(), 1);

    stub.stub.policy().set_aaaa(Aaaa::Asked);
    ask_udp(stub.addr, &query).await;
    assert_eq!(server.asked(), 1, "that was no change");
    stub.stub.policy().set_aaaa(Aaaa::Denied);
    ask_udp(stub.addr, &query).await;

    assert_eq!(server.asked(), 2);
}
