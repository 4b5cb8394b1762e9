use hickory_proto::op::Edns;
use hickory_proto::rr::rdata::{A, SOA};

use super::*;

fn dns64() -> Dns64 {
    Dns64("2001:db8:64::/96".parse().unwrap())
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn request(asked: &str, kind: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name(asked), kind));
    message
}

fn take(request: &Message) -> Option<Asked> {
    dns64().take(&request.to_vec().unwrap())
}

fn answer(records: &[Record]) -> Message {
    let mut message = Message::response(7, OpCode::Query);
    message.metadata.authentic_data = true;
    message.add_query(Query::query(name("www.lab."), RecordType::AAAA));
    message.add_answers(records.iter().cloned());
    message
}

fn v4(owner: &str, ttl_s: u32) -> Record {
    Record::from_rdata(name(owner), ttl_s, RData::A(A::new(192, 0, 2, 33)))
}

fn v6(text: &str) -> Record {
    let data = RData::AAAA(AAAA(text.parse().unwrap()));
    Record::from_rdata(name("www.lab."), 300, data)
}

fn alias(owner: &str, target: &str) -> Record {
    Record::from_rdata(name(owner), 40, RData::CNAME(CNAME(name(target))))
}

fn soa(ttl_s: u32, minimum_s: u32) -> Record {
    let data = SOA::new(name("ns.lab."), name("host.lab."), 1, 2, 3, 4, minimum_s);
    Record::from_rdata(name("lab."), ttl_s, RData::SOA(data))
}

fn shown(message: &Message) -> Vec<String> {
    let records = message.answers.iter();
    let shown =
        records.map(|it| format!("{} {} {} {}", it.name, it.ttl, it.record_type(), it.data));
    shown.collect()
}

#[test]
fn who_validates_and_translates_by_himself_gets_the_answers_as_they_are() {
    let with = |dnssec_ok, checking_disabled| {
        let mut request = request("www.lab.", RecordType::AAAA);
        let mut edns = Edns::new();
        edns.set_dnssec_ok(dnssec_ok);
        request.set_edns(edns);
        request.metadata.checking_disabled = checking_disabled;
        take(&request).is_some()
    };

    assert!(!with(true, true));
    assert!(with(true, false));
    assert!(with(false, true));
    assert!(with(false, false));
}

#[test]
fn questions_for_other_things_than_addresses_and_their_names_are_left_alone() {
    let inside = "1.2.2.0.0.0.0.c.0.0.0.0.0.0.0.0.0.0.0.0.4.6.0.0.8.b.d.0.1.0.0.2.ip6.arpa.";
    let outside = inside.replace("4.6.0.0.8", "5.6.0.0.8");
    for (asked, kind) in [
        ("www.lab.", RecordType::A),
        ("www.lab.", RecordType::HTTPS),
        (inside, RecordType::TXT),
        (&*outside, RecordType::PTR),
        (&inside[2..], RecordType::PTR),
        ("33.2.0.192.in-addr.arpa.", RecordType::PTR),
        ("ip6.arpa.", RecordType::PTR),
        ("www.lab.", RecordType::PTR),
    ] {
        assert!(take(&request(asked, kind)).is_none(), "{asked} {kind}");
    }
    let mut chaos = request("www.lab.", RecordType::AAAA);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert!(take(&chaos).is_none());
    let mut iterative = request("www.lab.", RecordType::AAAA);
    iterative.metadata.recursion_desired = false;
    assert!(take(&iterative).is_none());

    let Some(Asked::Reverse(_, target)) = take(&request(inside, RecordType::PTR)) else {
        panic!("the name of an address behind the prefix");
    };
    assert_eq!(target, name("33.2.0.192.in-addr.arpa."));
}

#[test]
fn a_name_that_is_not_there_or_has_an_address_wants_none() {
    let mut absent = answer(&[]);
    absent.metadata.response_code = ResponseCode::NXDomain;

    assert!(!is_wanting(&absent));
    assert!(!is_wanting(&answer(&[v6("2001:db8::6")])));
    assert!(!is_wanting(&answer(&[
        v6("::ffff:192.0.2.1"),
        v6("2001:db8::6")
    ])));
    assert!(is_wanting(&answer(&[])));
    assert!(is_wanting(&answer(&[alias("www.lab.", "a.lab.")])));
    assert!(is_wanting(&answer(&[v6("::ffff:192.0.2.1")])));
}

#[test]
fn without_ipv4_addresses_the_answer_stays_as_it_was() {
    let mut empty = answer(&[]);
    empty.add_authority(soa(300, 60));

    assert_eq!(dns64().synthesize(empty.clone(), answer(&[])), empty);
    let only_alias = answer(&[alias("www.lab.", "a.lab.")]);
    assert_eq!(dns64().synthesize(empty.clone(), only_alias), empty);
    let well_known = Dns64("64:ff9b::/96".parse().unwrap());
    let private = answer(&[v4("www.lab.", 300)]);
    assert_eq!(well_known.synthesize(empty.clone(), private), empty);
}

#[test]
fn addresses_that_are_never_ones_are_taken_out_and_nothing_is_proven_any_more() {
    let mixed = answer(&[v6("::ffff:192.0.2.1"), v6("2001:db8::6")]);

    let rest = without_excluded(mixed);

    assert_eq!(shown(&rest), ["www.lab. 300 AAAA 2001:db8::6"]);
    assert!(!rest.metadata.authentic_data);
    let whole = answer(&[v6("2001:db8::6")]);
    assert_eq!(without_excluded(whole.clone()), whole);
    let none = dns64().synthesize(answer(&[v6("::ffff:192.0.2.1")]), answer(&[]));
    assert_eq!(none.answers, []);
}

#[test]
fn an_address_is_made_at_the_end_of_its_aliases_and_lives_as_long_as_both_answers() {
    let aliases = [
        alias("www.lab.", "a.lab."),
        alias("a.lab.", "b.lab."),
        v4("b.lab.", 90),
        v4("b.lab.", 20),
    ];
    for (soa, ttls_s) in [
        (Some(soa(300, 60)), [60, 20]),
        (Some(soa(30, 60)), [30, 20]),
        (None, [90, 20]),
    ] {
        let mut empty = answer(&[]);
        empty.authorities.extend(soa);

        let made = dns64().synthesize(empty, answer(&aliases));

        let expected = [
            "www.lab. 40 CNAME a.lab.".to_owned(),
            "a.lab. 40 CNAME b.lab.".to_owned(),
            format!("b.lab. {} AAAA 2001:db8:64::c000:221", ttls_s[0]),
            format!("b.lab. {} AAAA 2001:db8:64::c000:221", ttls_s[1]),
        ];
        assert_eq!(shown(&made), expected);
        assert_eq!(made.queries[0].query_type(), RecordType::AAAA);
        assert_eq!(made.authorities, []);
        assert!(!made.metadata.authentic_data);
    }
    let long = dns64().synthesize(answer(&[]), answer(&[v4("www.lab.", 86_400)]));
    assert_eq!(long.answers[0].ttl, TTL_S);
}
