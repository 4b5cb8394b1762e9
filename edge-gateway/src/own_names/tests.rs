use std::net::SocketAddr;

use dnscrypt_proxy::proto::message;

use super::*;
use crate::config::{DnsZone, Doors};

fn dns(upstream: Upstream, doors: Option<Doors>) -> config::Dns {
    config::Dns {
        upstream,
        dnssec: true,
        doors,
        ..config::Dns::forwarding_to("192.0.2.1:53".parse().unwrap())
    }
}

fn recursing() -> OwnNames {
    OwnNames::new(&dns(Upstream::Recurse(Vec::new()), None))
}

fn with_doors() -> OwnNames {
    with_doors_at(&["10.64.0.1", "fd64::1"])
}

fn with_doors_at(addresses: &[&str]) -> OwnNames {
    designating(doors(addresses))
}

fn designating(doors: Doors) -> OwnNames {
    OwnNames::new(&dns(Upstream::Recurse(Vec::new()), Some(doors)))
}

fn doors(addresses: &[&str]) -> Doors {
    let all = |port| {
        let addresses = addresses.iter();
        addresses
            .map(|ip| SocketAddr::new(ip.parse().unwrap(), port))
            .collect::<Vec<_>>()
    };
    Doors {
        name: "dns.pop1.example".to_owned(),
        host: name("dns.pop1.example."),
        certificate_file: "".into(),
        key_file: "".into(),
        tls: all(853),
        https: all(8443),
        shared: Vec::new(),
        quic: all(853),
        max_connections: 1,
        max_per_source: 1,
    }
}

fn ask(own: &OwnNames, asked: &str, kind: RecordType) -> Option<Message> {
    let query = message::query(3, asked, kind, 1232).unwrap();
    own.answer(&query)
        .map(|answer| Message::from_vec(&answer).unwrap())
}

fn is_nothing(answer: &Message, code: ResponseCode) -> bool {
    answer.metadata.response_code == code
        && answer.answers.is_empty()
        && answer
            .authorities
            .iter()
            .any(|record| record.record_type() == RecordType::SOA)
}

#[test]
fn names_of_the_internet_are_not_ours() {
    let own = with_doors();

    for (asked, kind) in [
        ("example.com", RecordType::A),
        ("notlocal", RecordType::A),
        ("localhost.example.com", RecordType::A),
        ("arpa", RecordType::NS),
        ("ipv4only.arpa", RecordType::AAAA),
        ("1.1.1.1.in-addr.arpa", RecordType::PTR),
        ("32.172.in-addr.arpa", RecordType::PTR),
        ("home.arpa", RecordType::DS),
        ("dns.pop1.example", RecordType::TXT),
        ("_dns.dns.pop1.example", RecordType::A),
        ("pop1.example", RecordType::A),
    ] {
        assert_eq!(ask(&own, asked, kind), None, "{asked}");
    }
    assert_eq!(own.answer(b"no message"), None);
}

#[test]
fn names_of_one_machine_or_one_home_end_here_and_can_be_kept() {
    let own = recursing();

    for asked in [
        "printer.local",
        "INVALID",
        "facebookcorewwwi.onion",
        "x.alt",
        "nas.home.arpa",
        "wiki.internal",
        "a.test",
        "7.0.64.10.in-addr.arpa",
        "1.168.192.in-addr.arpa",
        "1.31.172.in-addr.arpa",
        "1.100.100.in-addr.arpa",
        "1.0.0.0.d.f.ip6.arpa",
        "1.0.0.0.c.f.ip6.arpa",
        "1.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
        "printer.service.arpa",
    ] {
        let answer = ask(&own, asked, RecordType::A).unwrap();
        assert!(
            is_nothing(&answer, ResponseCode::NXDomain),
            "{asked}: {answer}"
        );
    }
}

#[test]
fn a_private_zone_has_its_own_name_and_no_records_of_it() {
    let own = recursing();
    let zeros = "0.".repeat(31);

    for asked in [
        "10.in-addr.arpa",
        "168.192.in-addr.arpa",
        "64.100.in-addr.arpa",
        "d.f.ip6.arpa",
        "home.arpa",
        "service.arpa",
        &format!("0.{zeros}ip6.arpa"),
        &format!("1.{zeros}ip6.arpa"),
    ] {
        let answer = ask(&own, asked, RecordType::PTR).unwrap();
        assert!(
            is_nothing(&answer, ResponseCode::NoError),
            "{asked}: {answer}"
        );
    }
    assert_eq!(
        ask(&own, &format!("2.{zeros}ip6.arpa"), RecordType::PTR),
        None
    );
}

#[test]
fn where_lookups_are_forwarded_a_networks_own_names_are_the_forwarders() {
    let forward = Upstream::Forward(vec!["192.0.2.1:53".parse().unwrap()]);
    let own = OwnNames::new(&dns(forward, None));

    assert_eq!(ask(&own, "wiki.internal", RecordType::A), None);
    assert_eq!(ask(&own, "7.0.64.10.in-addr.arpa", RecordType::PTR), None);
    assert!(ask(&own, "x.onion", RecordType::A).is_some());
    assert!(ask(&own, "_dns.resolver.arpa", RecordType::SVCB).is_some());
}

#[test]
fn localhost_is_this_machine_whatever_stands_before_it() {
    let own = recursing();

    for (asked, kind, data) in [
        ("localhost", RecordType::A, "127.0.0.1"),
        ("www.LocalHost", RecordType::AAAA, "::1"),
    ] {
        let answer = ask(&own, asked, kind).unwrap();
        assert_eq!(answer.answers[0].data.to_string(), data);
    }
    let mail = ask(&own, "localhost", RecordType::MX).unwrap();
    assert!(is_nothing(&mail, ResponseCode::NoError));
}

#[test]
fn without_doors_and_for_other_questions_the_resolver_has_no_designation() {
    for (own, asked, kind) in [
        (recursing(), "_dns.resolver.arpa", RecordType::SVCB),
        (with_doors(), "_dns.resolver.arpa", RecordType::A),
        (with_doors(), "resolver.arpa", RecordType::SVCB),
        (with_doors(), "resolver.arpa", RecordType::DS),
        (with_doors(), "x._dns.resolver.arpa", RecordType::SVCB),
    ] {
        let answer = ask(&own, asked, kind).unwrap();
        assert!(
            is_nothing(&answer, ResponseCode::NoError),
            "{asked}: {answer}"
        );
    }
}

#[test]
fn the_doors_are_designated_with_ports_addresses_and_path() {
    let own = with_doors();

    let by_resolver = ask(&own, "_DNS.resolver.arpa", RecordType::SVCB).unwrap();
    let by_name = ask(&own, "_dns.dns.pop1.example", RecordType::SVCB).unwrap();

    let shown: Vec<_> = by_resolver
        .answers
        .iter()
        .map(|record| record.data.to_string())
        .collect();
    let hints = "ipv4hint=\"10.64.0.1\" ipv6hint=\"fd64::1\"";
    assert_eq!(shown.len(), 3);
    for (record, alpn) in shown.iter().zip(["h2,h3", "doq", "dot"]) {
        assert!(record.contains("dns.pop1.example."), "{record}");
        assert!(
            record.contains(alpn) && record.contains("10.64.0.1"),
            "{record} {hints}"
        );
    }
    assert!(
        shown[0].contains("8443") && shown[1].contains("853"),
        "{shown:?}"
    );
    assert_eq!(by_resolver.additionals.len(), 2);
    let of_name: Vec<_> = by_name
        .answers
        .iter()
        .map(|record| record.data.to_string())
        .collect();
    assert_eq!(of_name, shown);
    let v6 = ask(&own, "dns.pop1.example", RecordType::AAAA).unwrap();
    assert_eq!(v6.answers[0].data.to_string(), "fd64::1");
}

#[test]
fn a_port_that_dnscrypt_has_too_is_designated_for_http_2_and_never_for_http_3() {
    let own = designating(Doors {
        https: Vec::new(),
        shared: vec!["10.64.0.2:443".parse().unwrap()],
        ..doors(&["10.64.0.1"])
    });

    let told = ask(&own, "_dns.resolver.arpa", RecordType::SVCB).unwrap();
    let RData::SVCB(https) = &told.answers[0].data else {
        panic!("{told}");
    };

    let parameters = https.svc_params.iter().map(|(_, value)| value);
    let said: Vec<String> = parameters.map(ToString::to_string).collect();
    assert_eq!(said[..2], ["h2,", "443"], "{said:?}");
    assert!(said.iter().any(|it| it.contains("10.64.0.2")), "{said:?}");
    assert!(said.iter().any(|it| it.contains("/dns-query")), "{said:?}");
    assert_eq!(told.answers.len(), 3);
    let host = ask(&own, "dns.pop1.example", RecordType::A).unwrap();
    assert_eq!(host.answers.len(), 2, "{host}");
}

#[test]
fn a_family_in_which_there_are_no_doors_is_not_asked_for_elsewhere() {
    let own = with_doors_at(&["10.64.0.1"]);

    let answer = ask(&own, "dns.pop1.example", RecordType::AAAA).unwrap();

    assert!(is_nothing(&answer, ResponseCode::NoError), "{answer}");
}

#[test]
fn a_zone_with_resolvers_of_its_own_is_theirs_and_what_only_lies_around_it_is_not() {
    let zone = |text: &str| DnsZone {
        name: name(text),
        forward: vec!["10.1.2.3:53".parse().unwrap()],
        dnssec: false,
    };
    let zones = ["arpa.", "corp.internal.", "home.arpa.", "10.in-addr.arpa."];
    let own = OwnNames::new(&config::Dns {
        zones: zones.map(zone).to_vec(),
        ..dns(Upstream::Recurse(Vec::new()), None)
    });

    for asked in [
        "internal",
        "other.internal",
        "168.192.in-addr.arpa",
        "_dns.resolver.arpa",
        "localhost",
    ] {
        let answer = ask(&own, asked, RecordType::TXT);
        assert!(answer.is_some(), "{asked} is answered here");
    }
    for asked in [
        "corp.internal",
        "www.CORP.internal",
        "home.arpa",
        "printer.home.arpa",
        "3.2.1.10.in-addr.arpa",
        "1.1.1.1.in-addr.arpa",
    ] {
        assert_eq!(ask(&own, asked, RecordType::TXT), None, "{asked}");
    }
}
