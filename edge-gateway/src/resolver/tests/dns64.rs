//! Translation in front of the resolver, over nsd's zones.

use std::net::Ipv6Addr;
use std::sync::Arc;

use super::*;
use crate::answers::Answers;
use crate::dns64::Dns64;
use crate::own_names::OwnNames;

const PREFIX: &str = "2001:db8:64::/96";
/// [`WEB`] behind it.
const TRANSLATED: &str = "2001:db8:64::cb00:710a";

fn answers(internet: &Internet, dns: config::Dns) -> Answers {
    let dns = config::Dns {
        dns64: Some(PREFIX.parse().unwrap()),
        trust_anchor_file: Some(internet.dir.path().join("root.key")),
        ..dns
    };
    let resolver = (Resolver::new(&dns).unwrap(), dns.dns64.map(Dns64));
    Answers::new(OwnNames::new(&dns), resolver, dns.homes(), Arc::default())
}

fn translating(internet: &Internet, dnssec: bool) -> Answers {
    let dns = config::Dns::forwarding_to(internet.address);
    answers(internet, config::Dns { dnssec, ..dns })
}

async fn asked(answers: &Answers, query: &Message) -> Message {
    let query = query.to_vec().unwrap();
    let from = "192.0.2.9".parse().unwrap();
    let answer = answers.answer(&query, from, Asking::Anyhow).await;
    Message::from_vec(&answer.into_message().unwrap()).unwrap()
}

async fn asked_for(answers: &Answers, name: &str, kind: RecordType) -> Message {
    asked(answers, &query(name, kind)).await
}

fn shown(message: &Message) -> Vec<String> {
    let records = message.answers.iter();
    let records = records.filter(|it| it.record_type() != RecordType::RRSIG);
    records
        .map(|it| format!("{} {} {}", it.name, it.ttl, it.data))
        .collect()
}

fn reverse(address: &str) -> String {
    Name::from(IpAddr::V6(address.parse::<Ipv6Addr>().unwrap())).to_string()
}

#[tokio::test]
async fn nothing_is_made_of_what_is_not_proven_not_there_or_has_an_address() {
    let internet = Internet::start();
    let answers = translating(&internet, true);

    let bogus = asked_for(&answers, "www.bogus.", RecordType::AAAA).await;
    assert_eq!(bogus.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(bogus.answers.len(), 0);
    let absent = asked_for(&answers, "nothing.lab.", RecordType::AAAA).await;
    assert_eq!(absent.metadata.response_code, ResponseCode::NXDomain);
    let six = asked_for(&answers, "six.lab.", RecordType::AAAA).await;
    assert_eq!(shown(&six), ["six.lab. 300 2001:db8::6"]);
    assert!(six.metadata.authentic_data);
    let none = asked_for(&answers, "big.lab.", RecordType::AAAA).await;
    assert_eq!(none.metadata.response_code, ResponseCode::NoError);
    assert_eq!(none.answers.len(), 0);
    assert!(!none.authorities.is_empty(), "its absence can be kept");
}

#[tokio::test]
async fn who_asks_unchecked_and_with_proofs_gets_the_empty_answer() {
    let internet = Internet::start();
    let mut unchecked = query("www.lab.", RecordType::AAAA);
    unchecked.metadata.checking_disabled = true;

    let answer = asked(&translating(&internet, true), &unchecked).await;

    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert_eq!(answer.answers.len(), 0);
}

#[tokio::test]
async fn ipv4_addresses_are_translated_and_live_as_long_as_the_absence_of_others() {
    let internet = Internet::start();
    for dnssec in [true, false] {
        let answers = translating(&internet, dnssec);
        for name in ["www.lab.", "mapped.lab.", "www.plain."] {
            let answer = asked_for(&answers, name, RecordType::AAAA).await;
            let ttl_s = if name == "mapped.lab." { 300 } else { 60 };
            assert_eq!(shown(&answer), [format!("{name} {ttl_s} {TRANSLATED}")]);
            assert!(!answer.metadata.authentic_data, "{name} was made here");
        }
        let alias = asked_for(&answers, "alias.lab.", RecordType::AAAA).await;
        let expected = [
            "alias.lab. 300 www.plain.".to_owned(),
            format!("www.plain. 60 {TRANSLATED}"),
        ];
        assert_eq!(shown(&alias), expected);
    }
}

#[tokio::test]
async fn addresses_are_made_where_nobody_had_to_be_asked_for_the_absence_of_others() {
    let internet = Internet::start();
    let answers = translating(&internet, true);
    // What is proven of the name's types denies IPv6 addresses, too.
    let learned = asked_for(&answers, "www.lab.", RecordType::MX).await;
    assert!(learned.metadata.authentic_data);

    let answer = asked_for(&answers, "www.lab.", RecordType::AAAA).await;

    let made = answer.answers.iter().map(|it| it.data.to_string());
    assert_eq!(made.collect::<Vec<_>>(), [TRANSLATED]);
    assert!(answer.answers[0].ttl <= 60, "as long as the absence lasts");
    assert!(!answer.metadata.authentic_data);
}

#[tokio::test]
async fn the_name_of_a_translated_address_is_that_of_the_ipv4_one() {
    let internet = Internet::start();
    let asked_name = reverse(TRANSLATED);

    let answer = asked_for(&translating(&internet, true), &asked_name, RecordType::PTR).await;

    let expected = [
        format!("{asked_name} 300 10.113.0.203.in-addr.arpa."),
        "10.113.0.203.in-addr.arpa. 300 www.lab.".to_owned(),
    ];
    assert_eq!(shown(&answer), expected);
    assert!(!answer.metadata.authentic_data);
    assert_eq!(answer.queries[0].name().to_string(), asked_name);
}

#[tokio::test]
async fn the_name_of_a_private_address_is_asked_of_nobody_behind_the_prefix_either() {
    let internet = Internet::start();
    let recursing = config::Dns {
        upstream: Upstream::Recurse(vec![internet.address.ip()]),
        ..config::Dns::forwarding_to(internet.address)
    };
    let asked_name = reverse("2001:db8:64::10.1.2.3");

    let answer = asked_for(&answers(&internet, recursing), &asked_name, RecordType::PTR).await;

    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(answer.answers.len(), 1, "the alias");
    assert_eq!(answer.authorities[0].name.to_string(), "10.in-addr.arpa.");
}

#[tokio::test]
async fn the_prefix_is_told_by_the_name_for_it() {
    let internet = Internet::start();
    let answers = translating(&internet, true);

    let told = asked_for(&answers, "ipv4only.arpa.", RecordType::AAAA).await;
    let plain = asked_for(&answers, "ipv4only.arpa.", RecordType::A).await;

    let expected = [
        "ipv4only.arpa. 300 2001:db8:64::c000:aa",
        "ipv4only.arpa. 300 2001:db8:64::c000:ab",
    ];
    assert_eq!(shown(&told), expected);
    assert_eq!(addresses(&plain), ["192.0.0.170", "192.0.0.171"]);
    for (asked, kind, code) in [
        ("ipv4only.arpa.", RecordType::TXT, ResponseCode::NoError),
        ("a.ipv4only.arpa.", RecordType::AAAA, ResponseCode::NXDomain),
    ] {
        let none = asked_for(&answers, asked, kind).await;
        assert_eq!(none.metadata.response_code, code, "{asked}");
        assert_eq!(none.answers.len(), 0, "{asked}");
    }
}
