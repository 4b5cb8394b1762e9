mod files;
mod forward;
mod rebinding;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, Record};
use proptest::prelude::*;

use super::*;
use crate::proto::message;

fn query(name: &str, rtype: RecordType) -> Query {
    Query::read(&message::query(7, name, rtype, 1232).unwrap()).unwrap()
}

fn verdict(policy: &Policy, query: &Query) -> Verdict {
    policy.decide(query, &query.key(), 0)
}

/// The policy's own answer, as another parser reads it. `None`: a resolver is asked.
fn answer(policy: &Policy, name: &str, rtype: RecordType) -> Option<Message> {
    let query = query(name, rtype);
    match verdict(policy, &query) {
        Verdict::Answer(made) => {
            let bytes = query.adopt(&made.stored, made.error);
            Some(Message::from_vec(&bytes).unwrap())
        }
        Verdict::Pass => None,
        Verdict::Alias(target) => panic!("{name} stands for {target:?}"),
    }
}

fn addresses(message: &Message) -> Vec<IpAddr> {
    message
        .answers
        .iter()
        .filter_map(|record| record.data.ip_addr())
        .collect()
}

/// The code of the extended error in an answer (RFC 8914).
fn extended_error(message: &Message) -> Option<u8> {
    let bytes = message.edns.as_ref().unwrap().options();
    let option = bytes.get(hickory_proto::rr::rdata::opt::EdnsCode::Unknown(15))?;
    let bytes: Vec<u8> = option.try_into().unwrap();
    bytes.get(1).copied()
}

fn plain() -> Policy {
    Policy::new(Rules {
        local_domain: Some("lan".parse().unwrap()),
        ..Rules::default()
    })
}

#[test]
fn names_of_the_internet_are_asked_though_they_look_like_others() {
    let policy = plain();

    for (name, rtype) in [
        ("www.example", RecordType::A),
        ("example", RecordType::NS),
        ("lan.example.com", RecordType::A),
        ("wlan", RecordType::NS),
        ("mylan.com", RecordType::A),
        ("localhost.com", RecordType::A),
        ("notlocal.com", RecordType::A),
        ("onion.com", RecordType::A),
        ("home.arpa", RecordType::DS),
        ("arpa", RecordType::NS),
        ("in-addr.arpa", RecordType::NS),
        ("172.in-addr.arpa", RecordType::NS),
        ("1.32.172.in-addr.arpa", RecordType::PTR),
        ("1.0.128.100.in-addr.arpa", RecordType::PTR),
        ("8.8.8.8.in-addr.arpa", RecordType::PTR),
        ("010.in-addr.arpa", RecordType::PTR),
        ("8.b.d.0.0.0.0.2.ip6.arpa", RecordType::PTR),
        ("e.f.ip6.arpa", RecordType::PTR),
        ("10.ip6.arpa", RecordType::PTR),
        ("use-application-dns.net", RecordType::A),
        ("mask.icloud.com", RecordType::A),
        (".", RecordType::NS),
        (".", RecordType::TXT),
        ("com", RecordType::NS),
        ("com", RecordType::SOA),
        ("com", RecordType::DS),
        ("com", RecordType::DNSKEY),
    ] {
        assert!(answer(&policy, name, rtype).is_none(), "{name} {rtype}");
    }
}

#[test]
fn special_use_names_are_answered_here_in_a_way_that_is_kept() {
    let policy = plain();
    let (none, empty) = (ResponseCode::NXDomain, ResponseCode::NoError);

    for (name, rtype, rcode) in [
        ("invalid", RecordType::A, none),
        ("www.Test", RecordType::AAAA, none),
        ("printer.local", RecordType::A, none),
        ("lb._dns-sd._udp.local", RecordType::PTR, none),
        ("expyuzz4wqqyqhjn.ONION", RecordType::A, none),
        ("some.name.alt", RecordType::TXT, none),
        ("db.corp.internal", RecordType::A, none),
        ("nas.home.arpa", RecordType::A, none),
        ("home.arpa", RecordType::SOA, empty),
        ("nas.home.arpa", RecordType::DS, none),
        ("_dns.resolver.arpa", RecordType::SVCB, empty),
        ("resolver.arpa", RecordType::A, empty),
        ("x._dns.resolver.arpa", RecordType::A, empty),
        ("_tcp.default.service.arpa", RecordType::PTR, none),
        ("printer", RecordType::A, empty),
        ("printer", RecordType::AAAA, empty),
        ("printer", RecordType::HTTPS, empty),
        ("printer", RecordType::TXT, empty),
        ("printer", RecordType::SRV, empty),
        ("printer", RecordType::MX, empty),
        ("printer", RecordType::ANY, empty),
        ("PRINTER", RecordType::Unknown(65_280), empty),
        ("lan", RecordType::SOA, empty),
        ("printer.lan", RecordType::A, none),
        ("localhost", RecordType::MX, empty),
        ("10.in-addr.arpa", RecordType::SOA, empty),
        ("3.2.1.10.in-addr.arpa", RecordType::PTR, none),
        ("2.1.10.in-addr.arpa", RecordType::NS, empty),
        ("x.10.in-addr.arpa", RecordType::PTR, none),
        ("1.1.168.192.in-addr.arpa", RecordType::PTR, none),
        ("1.0.31.172.in-addr.arpa", RecordType::PTR, none),
        ("1.0.64.100.in-addr.arpa", RecordType::PTR, none),
        ("255.255.255.255.in-addr.arpa", RecordType::PTR, empty),
        ("d.f.ip6.arpa", RecordType::NS, empty),
        ("0.8.e.f.ip6.arpa", RecordType::PTR, empty),
        ("8.b.d.0.1.0.0.2.ip6.arpa", RecordType::PTR, empty),
    ] {
        let answer = answer(&policy, name, rtype).unwrap_or_else(|| panic!("{name} was asked"));

        assert_eq!(answer.metadata.response_code, rcode, "{name} {rtype}");
        assert!(answer.answers.is_empty(), "{name} {rtype}");
        let soa = &answer.authorities[0];
        assert!(
            soa.name.zone_of(answer.queries[0].name()),
            "{name}: the SOA is of {}",
            soa.name
        );
        assert!(
            matches!(&soa.data, RData::SOA(soa) if soa.minimum > 0),
            "{name}"
        );
        assert_eq!(extended_error(&answer), None, "{name}");
    }
}

#[test]
fn localhost_and_all_below_is_this_machine() {
    let four: IpAddr = Ipv4Addr::LOCALHOST.into();
    let six: IpAddr = Ipv6Addr::LOCALHOST.into();

    for name in ["localhost", "LocalHost", "a.b.localhost"] {
        let of = |rtype| addresses(&answer(&plain(), name, rtype).unwrap());
        assert_eq!(of(RecordType::A), [four]);
        assert_eq!(of(RecordType::AAAA), [six]);
        assert_eq!(of(RecordType::ANY), [four, six]);
    }
}

#[test]
fn a_policy_of_nothing_lets_all_pass() {
    for name in [
        "localhost",
        "a.onion",
        "printer.lan",
        "1.0.0.127.in-addr.arpa",
    ] {
        assert!(answer(&Policy::none(), name, RecordType::A).is_none());
    }
}

#[test]
fn canaries_are_denied_by_choice_each() {
    let browser = Policy::new(Rules {
        browser_doh: OwnResolver::Denied,
        ..Rules::default()
    });
    let relay = Policy::new(Rules {
        private_relay: OwnResolver::Denied,
        ..Rules::default()
    });
    let denied = |policy, name| {
        let answer = answer(policy, name, RecordType::A);
        answer.map(|answer| answer.metadata.response_code)
    };

    assert_eq!(denied(&browser, "mask.icloud.com"), None);
    assert_eq!(denied(&relay, "use-application-dns.net"), None);
    assert_eq!(denied(&relay, "www.icloud.com"), None);
    let none = Some(ResponseCode::NXDomain);
    assert_eq!(denied(&browser, "Use-Application-DNS.net"), none);
    assert_eq!(denied(&relay, "mask.icloud.com"), none);
    assert_eq!(denied(&relay, "mask-h2.icloud.com"), none);
}

#[test]
fn a_cloak_needs_a_name_and_either_addresses_or_one_other_name() {
    for wrong in [
        "",
        "a.example",
        "a.example b.example c.example",
        "a.example 192.0.2.1 b.example",
        "a..example 192.0.2.1",
        "a.example 1 2 3",
        "a.example 1.1.1.1 1.1.1.2 1.1.1.3 1.1.1.4 1.1.1.5 1.1.1.6 1.1.1.7 1.1.1.8 1.1.1.9",
    ] {
        assert_eq!(wrong.parse::<Cloak>(), Err(NotAName), "{wrong}");
    }
}

#[test]
fn a_cloaked_name_has_its_own_addresses_and_says_so() {
    let policy = Policy::new(Rules {
        cloaks: vec![
            "nas.example.com 192.168.1.5 fd01::5".parse().unwrap(),
            "www.search.example safe.search.example".parse().unwrap(),
        ],
        ..Rules::default()
    });

    assert!(answer(&policy, "www.nas.example.com", RecordType::A).is_none());
    assert!(answer(&policy, "example.com", RecordType::A).is_none());
    let four = answer(&policy, "NAS.example.com", RecordType::A).unwrap();
    let text = answer(&policy, "nas.example.com", RecordType::TXT).unwrap();
    assert_eq!(addresses(&four), ["192.168.1.5".parse::<IpAddr>().unwrap()]);
    assert_eq!(extended_error(&four), Some(4));
    assert_eq!(text.metadata.response_code, ResponseCode::NoError);
    let other = verdict(&policy, &query("www.search.example", RecordType::A));
    assert!(matches!(other, Verdict::Alias(name) if &*name == b"\x04safe\x06search\x07example\0"));
}

/// What a name that stands for `target.example` is answered, when that one's answer is this.
fn aliased(rtype: RecordType, build: impl FnOnce(&mut Message)) -> Option<Message> {
    let target: WireName = "target.example".parse().unwrap();
    let (own, asked) = (query("a.example", rtype), query("target.example", rtype));
    let mut message = Message::from_vec(&asked.to_upstream(7, 1232)).unwrap();
    message = message.into_response();
    build(&mut message);
    let response = Response::read(&message.to_vec().unwrap(), &asked).unwrap();
    let made = Policy::alias(&own, target.as_bytes(), &response)?;
    Some(Message::from_vec(&own.adopt(&made.stored, None)).unwrap())
}

fn record(name: &str, ttl: u32, address: &str) -> Record {
    let data = match address.parse().unwrap() {
        IpAddr::V4(v4) => RData::A(v4.into()),
        IpAddr::V6(v6) => RData::AAAA(v6.into()),
    };
    Record::from_rdata(name.parse().unwrap(), ttl, data)
}

#[test]
fn an_alias_has_only_addresses_that_were_asked_for_and_answered() {
    let answer = aliased(RecordType::A, |message| {
        message.add_answer(record("target.example.", 300, "192.0.2.1"));
        message.add_answer(record("target.example.", 300, "2001:db8::1"));
        message.add_authority(record("ns.example.", 300, "192.0.2.2"));
        message.add_additional(record("ns.example.", 300, "192.0.2.3"));
    });

    let expected: [IpAddr; 1] = ["192.0.2.1".parse().unwrap()];
    assert_eq!(addresses(&answer.unwrap()), expected);
}

#[test]
fn an_alias_lives_no_longer_than_what_it_stands_for() {
    let ttls = |ttl| {
        let answer = aliased(RecordType::A, |message| {
            message.add_answer(record("target.example.", ttl, "192.0.2.1"));
        });
        let answers = answer.unwrap().answers;
        answers.iter().map(|record| record.ttl).collect::<Vec<_>>()
    };

    assert_eq!((ttls(7), ttls(3_600)), (vec![7; 2], vec![60; 2]));
}

#[test]
fn an_alias_of_a_failure_is_none_and_one_of_no_name_says_so() {
    let with = |code| {
        let answer = aliased(RecordType::A, |message| {
            message.metadata.response_code = code;
        });
        answer.map(|answer| (answer.metadata.response_code, answer.answers.len()))
    };

    for code in [ResponseCode::ServFail, ResponseCode::Refused] {
        assert_eq!(with(code), None, "{code}");
    }
    let nobody = ResponseCode::NXDomain;
    assert_eq!(with(nobody), Some((nobody, 1)));
    assert_eq!(
        with(ResponseCode::NoError),
        Some((ResponseCode::NoError, 1))
    );
}

#[test]
fn questions_for_ipv6_are_denied_only_while_there_is_none() {
    let policy = Policy::new(Rules {
        aaaa: Aaaa::Denied,
        ..Rules::default()
    });
    let before = policy.generation();

    let denied = answer(&policy, "www.example", RecordType::AAAA).unwrap();
    policy.set_aaaa(Aaaa::Asked);

    assert_eq!(denied.metadata.response_code, ResponseCode::NoError);
    assert_eq!(extended_error(&denied), Some(17));
    assert!(answer(&policy, "www.example", RecordType::A).is_none());
    assert!(answer(&policy, "www.example", RecordType::AAAA).is_none());
    assert_ne!(policy.generation(), before);
}

#[test]
fn a_name_is_refused_beyond_255_bytes_and_with_letters_that_no_host_has() {
    let long = |labels: usize| ["a".repeat(62).as_str()].repeat(labels).join(".");
    let fits = format!("{}.bb", long(4).split_at(247).0);

    for wrong in [
        "",
        ".",
        "..",
        "a..b",
        ".a",
        "a b",
        "ä.example",
        "a/b",
        &"a".repeat(64),
        &long(5),
    ] {
        assert_eq!(wrong.parse::<WireName>(), Err(NotAName), "{wrong}");
    }
    assert!(fits.parse::<WireName>().is_ok());
    assert_eq!(
        "A_b.Example.".parse::<WireName>().unwrap(),
        "a_b.example".parse().unwrap()
    );
}

proptest! {
    #[test]
    fn no_spelling_of_a_special_name_passes(
        labels in prop::collection::vec("[a-zA-Z0-9]{1,20}", 0..8),
        end in prop::sample::select(vec![
            "local", "onion", "alt", "test", "invalid", "internal", "localhost", "lan", "home.arpa", "resolver.arpa",
            "10.in-addr.arpa", "168.192.in-addr.arpa", "d.f.ip6.arpa", "a.e.f.ip6.arpa",
        ]),
        upper in any::<u32>(),
    ) {
        let name = labels.iter().map(|label| format!("{label}.")).collect::<String>() + end;
        let spelled: String = name.chars().enumerate().map(|(at, c)| {
            if upper >> (at % 32) & 1 == 1 { c.to_ascii_uppercase() } else { c }
        }).collect();

        prop_assert!(answer(&plain(), &spelled, RecordType::A).is_some(), "{}", spelled);
    }

    #[test]
    fn the_address_of_a_reverse_name_is_the_one_it_was_made_of(bytes in any::<[u8; 16]>(), is_v4 in any::<bool>()) {
        let address: IpAddr = if is_v4 {
            IpAddr::from(*bytes.first_chunk::<4>().unwrap())
        } else {
            bytes.into()
        };
        let name = hickory_proto::rr::Name::from(address).to_ascii();
        let wire: WireName = name.parse().unwrap();

        let read = reverse::read(wire.as_bytes()).unwrap();

        prop_assert_eq!(read.address, Some(address));
    }

    #[test]
    fn any_bytes_as_a_name_are_looked_at_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = special::look_up(&bytes, RecordType::A);
        let _ = reverse::read(&bytes);
        prop_assert!(!Lists::none().blocks(&bytes));
    }
}
