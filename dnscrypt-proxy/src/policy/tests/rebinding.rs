//! Answers from outside that lead inside, by every way that a record has.

use std::str::FromStr as _;

use hickory_proto::rr::rdata::svcb::{IpHint, SvcParamKey, SvcParamValue};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, HTTPS, SVCB};
use hickory_proto::rr::{Name, Record};

use super::*;

fn refusing() -> Policy {
    Policy::new(Rules {
        rebinding: Rebinding::Refused,
        rebind_allow: vec!["Plex.direct".parse().unwrap()],
        ..Rules::default()
    })
}

fn record(name: &str, data: RData) -> Record {
    Record::from_rdata(Name::from_str(name).unwrap(), 60, data)
}

fn address(text: &str) -> RData {
    match text.parse().unwrap() {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    }
}

/// What the policy makes of a resolver's answer to a question, and what it is told by.
fn judged(policy: &Policy, name: &str, build: impl FnOnce(&mut Message)) -> (Response, Message) {
    let bytes = message::query(7, name, RecordType::A, 1232).unwrap();
    let query = Query::read(&bytes).unwrap();
    let mut answer = Message::from_vec(&bytes).unwrap().into_response();
    build(&mut answer);
    let response = Response::read(&answer.to_vec().unwrap(), &query).unwrap();
    let response = policy.judge(&query, response);
    let given = query.adopt(&response.stored, response.error);
    (response, Message::from_vec(&given).unwrap())
}

fn is_refused(build: impl FnOnce(&mut Message)) -> bool {
    let (response, given) = judged(&refusing(), "Www.evil.example", build);
    if response.error.is_none() {
        return false;
    }
    assert_eq!(extended_error(&given), Some(15));
    assert!(given.answers.is_empty() && given.additionals.is_empty());
    assert_eq!(response.lifetime_s, None, "a refusal is not kept");
    true
}

fn answers_with(text: &str) -> bool {
    is_refused(|answer| {
        answer.add_answer(record("www.evil.example.", address(text)));
    })
}

#[test]
fn addresses_of_the_internet_pass() {
    for text in [
        "192.0.2.1",
        "9.255.255.255",
        "11.0.0.0",
        "172.15.0.1",
        "172.32.0.1",
        "100.63.255.255",
        "100.128.0.0",
        "169.253.0.1",
        "192.167.1.1",
        "224.0.0.251",
        "2001:db8::1",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
        "2002:808:808::1",
        "fe00::1",
    ] {
        assert!(!answers_with(text), "{text}");
    }
}

#[test]
fn addresses_of_the_inside_are_refused_in_every_writing() {
    for text in [
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.0.1",
        "127.0.0.1",
        "127.255.0.1",
        "169.254.1.1",
        "0.0.0.0",
        "0.1.2.3",
        "100.64.0.1",
        "100.127.255.255",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "febf::1",
        "fec0::1",
        "fc00::1",
        "fdff::1",
        "::ffff:192.168.1.1",
        "::ffff:0.0.0.0",
        "::127.0.0.1",
        "64:ff9b::10.0.0.1",
        "2002:c0a8:101::1",
    ] {
        assert!(answers_with(text), "{text}");
    }
}

#[test]
fn an_address_behind_an_alias_or_among_good_ones_is_found() {
    let alias = || RData::CNAME(CNAME(Name::from_str("a.evil.example.").unwrap()));

    assert!(is_refused(|answer| {
        answer.add_answer(record("www.evil.example.", alias()));
        answer.add_answer(record("a.evil.example.", address("192.0.2.1")));
        answer.add_answer(record("a.evil.example.", address("192.168.1.1")));
    }));
}

#[test]
fn an_address_in_another_section_is_found() {
    assert!(is_refused(|answer| {
        answer.add_additional(record("ns.evil.example.", address("192.168.1.1")));
    }));
    assert!(is_refused(|answer| {
        answer.add_authority(record("ns.evil.example.", address("fd00::1")));
    }));
}

#[test]
fn a_hint_beside_a_service_is_found() {
    let service = |key, value| {
        let svcb = SVCB::new(
            1,
            Name::from_str("svc.evil.example.").unwrap(),
            vec![(key, value)],
        );
        RData::HTTPS(HTTPS(svcb))
    };
    let four = |text: &str| {
        let hint = SvcParamValue::Ipv4Hint(IpHint(vec![
            A::from_str("192.0.2.1").unwrap(),
            A::from_str(text).unwrap(),
        ]));
        service(SvcParamKey::Ipv4Hint, hint)
    };
    let six = |text: &str| {
        let hint = SvcParamValue::Ipv6Hint(IpHint(vec![AAAA::from_str(text).unwrap()]));
        service(SvcParamKey::Ipv6Hint, hint)
    };
    let has = |data| {
        is_refused(|answer| {
            answer.add_answer(record("www.evil.example.", data));
        })
    };

    assert!(!has(four("198.51.100.1")));
    assert!(!has(six("2001:db8::1")));
    assert!(has(four("192.168.1.1")));
    assert!(has(six("fe80::1")));
}

#[test]
fn only_allowed_names_and_what_is_below_may_lead_inside() {
    let inside = |answer: &mut Message| {
        let name = answer.queries[0].name().clone();
        answer.add_answer(Record::from_rdata(name, 60, address("192.168.1.9")));
    };
    let policy = refusing();

    for name in ["plex.direct.evil.example", "notplex.direct", "direct"] {
        assert!(judged(&policy, name, inside).0.error.is_some(), "{name}");
    }
    assert_eq!(policy.figures().rebinding, 3);
    for name in ["plex.direct", "192-168-1-9.HASH.plex.Direct"] {
        let (response, given) = judged(&policy, name, inside);
        assert_eq!((response.error, given.answers.len()), (None, 1), "{name}");
        assert_eq!(response.lifetime_s, Some(60));
    }
}

#[test]
fn the_gateways_alone_are_found_by_name_and_only_as_long_as_they_are_ours() {
    let policy = refusing();
    let is_refused = |addresses: &[&str]| {
        let (response, _) = judged(&policy, "dns.pop1.example", |answer| {
            for text in addresses {
                answer.add_answer(record("dns.pop1.example.", address(text)));
            }
        });
        response.error.is_some()
    };
    let before = policy.generation();
    policy.set_gateways(vec![
        "10.64.0.1".parse().unwrap(),
        "fd64::1".parse().unwrap(),
    ]);

    assert_ne!(
        policy.generation(),
        before,
        "what is kept was judged otherwise"
    );
    assert!(!is_refused(&["10.64.0.1", "fd64::1"]));
    assert!(is_refused(&["10.64.0.2"]));
    assert!(is_refused(&["10.64.0.1", "192.168.1.1"]));
    let four = IpHint(vec![A::from_str("10.64.0.1").unwrap()]);
    let six = IpHint(vec![AAAA::from_str("fd64::1").unwrap()]);
    let hints = vec![
        (SvcParamKey::Ipv4Hint, SvcParamValue::Ipv4Hint(four)),
        (SvcParamKey::Ipv6Hint, SvcParamValue::Ipv6Hint(six)),
    ];
    let service = SVCB::new(1, Name::root(), hints);
    let (told, _) = judged(&policy, "_dns.dns.pop1.example", |answer| {
        answer.add_answer(record("_dns.dns.pop1.example.", RData::SVCB(service)));
    });
    assert_eq!(told.error, None);
    policy.set_gateways(Vec::new());
    assert!(is_refused(&["10.64.0.1"]));
}

#[test]
fn nothing_is_refused_where_it_is_not_asked_for() {
    let policy = Policy::new(Rules::default());

    let (response, _) = judged(&policy, "www.evil.example", |answer| {
        answer.add_answer(record("www.evil.example.", address("192.168.1.1")));
    });

    assert_eq!(response.error, None);
}

proptest! {
    #[test]
    fn a_service_of_any_bytes_is_looked_at_without_a_panic(data in prop::collection::vec(any::<u8>(), 0..80)) {
        let query = query("www.evil.example", RecordType::HTTPS);
        let mut bytes = query.refuse(0, None);
        bytes.truncate(HEADER + query.question().len());
        bytes[7] = 1;
        bytes[11] = 0;
        bytes.extend_from_slice(&[0xc0, 12, 0, 65, 0, 1, 0, 0, 0, 60, 0, data.len() as u8]);
        bytes.extend_from_slice(&data);
        let response = Response::read(&bytes, &query).unwrap();

        let judged = refusing().judge(&query, response.clone());

        prop_assert!(judged == response || judged.error.is_some());
    }
}
