use std::net::Ipv4Addr;
use std::str::FromStr as _;

use hickory_proto::op::{Edns, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::rdata::{A, CNAME, NS, SOA};
use hickory_proto::rr::{RData, Record};

use super::*;
use crate::proto::message;

fn name(text: &str) -> Name {
    Name::from_str(text).unwrap()
}

fn asked(text: &str, qtype: RecordType) -> Query {
    Query::read(&message::query(7, text, qtype, 1232).unwrap()).unwrap()
}

fn response(asked: &Query, code: ResponseCode) -> Message {
    let mut message = Message::from_vec(&asked.to_upstream(7, 1232)).unwrap();
    message.metadata.message_type = MessageType::Response;
    message.metadata.op_code = OpCode::Query;
    message.metadata.response_code = code;
    message.metadata.authoritative = true;
    message.metadata.authentic_data = true;
    message
}

fn a(owner: &str) -> Record {
    Record::from_rdata(name(owner), 300, RData::A(A(Ipv4Addr::new(192, 0, 2, 1))))
}

fn cname(owner: &str, target: &str) -> Record {
    Record::from_rdata(name(owner), 300, RData::CNAME(CNAME(name(target))))
}

fn ns(owner: &str) -> Record {
    Record::from_rdata(name(owner), 300, RData::NS(NS(name("ns.example."))))
}

fn soa(owner: &str) -> Record {
    let soa = SOA::new(name("ns.example."), name("host.example."), 1, 2, 3, 4, 60);
    Record::from_rdata(name(owner), 300, RData::SOA(soa))
}

fn judged(datagram: &[u8], asked: &Query) -> Verdict {
    judge(datagram, asked, |_| true)
}

/// What is left, as owner and type, by section.
fn kept(verdict: Verdict) -> [Vec<(String, RecordType)>; 3] {
    let Verdict::Answer(bytes) = verdict else {
        panic!("{verdict:?}");
    };
    let message = Message::from_vec(&bytes).unwrap();
    assert!(!message.metadata.authentic_data, "nothing was proven here");
    assert!(!message.metadata.authoritative);
    let sections = [message.answers, message.authorities, message.additionals];
    sections.map(|records| {
        let records = records.into_iter();
        records
            .map(|record| (record.name.to_string(), record.record_type()))
            .collect()
    })
}

fn pairs(expected: &[(&str, RecordType)]) -> Vec<(String, RecordType)> {
    let expected = expected.iter();
    expected
        .map(|(name, kind)| ((*name).to_owned(), *kind))
        .collect()
}

#[test]
fn records_of_other_names_do_not_come_along() {
    let asked = asked("www.example.", RecordType::A);
    let mut message = response(&asked, ResponseCode::NoError);
    message.answers = vec![a("bank.example."), a("www.example."), a("www.bank.")];
    message.authorities = vec![ns("example."), ns("bank.")];
    message.additionals = vec![a("ns.example."), a("www.bank.")];

    let [answers, authorities, additionals] = kept(judged(&message.to_vec().unwrap(), &asked));

    assert_eq!(answers, pairs(&[("www.example.", RecordType::A)]));
    assert_eq!(authorities, []);
    assert_eq!(additionals, []);
}

#[test]
fn aliases_are_followed_in_any_order_and_no_further_than_they_lead() {
    let asked = asked("www.example.", RecordType::A);
    let mut message = response(&asked, ResponseCode::NoError);
    message.answers = vec![
        a("host.example."),
        cname("www.example.", "a.example."),
        cname("b.example.", "c.example."),
        cname("a.example.", "host.example."),
    ];

    let [mut answers, ..] = kept(judged(&message.to_vec().unwrap(), &asked));

    answers.sort();
    let expected = pairs(&[
        ("a.example.", RecordType::CNAME),
        ("host.example.", RecordType::A),
        ("www.example.", RecordType::CNAME),
    ]);
    assert_eq!(answers, expected);
}

#[test]
fn a_name_that_is_not_there_keeps_the_soa_of_its_own_zone_alone() {
    let asked = asked("no.sub.example.", RecordType::A);
    for code in [ResponseCode::NXDomain, ResponseCode::NoError] {
        let mut message = response(&asked, code);
        message.authorities = vec![ns("example."), soa("example."), ns("bank.")];
        message.additionals = vec![a("ns.example.")];

        let [answers, authorities, additionals] = kept(judged(&message.to_vec().unwrap(), &asked));

        assert_eq!(answers, []);
        assert_eq!(authorities, pairs(&[("example.", RecordType::SOA)]));
        assert_eq!(additionals, []);
    }
}

#[test]
fn another_zones_soa_does_not_say_that_a_name_is_not_there() {
    let asked = asked("www.example.", RecordType::A);
    let mut message = response(&asked, ResponseCode::NXDomain);
    message.authorities = vec![soa("bank.")];

    let [_, authorities, _] = kept(judged(&message.to_vec().unwrap(), &asked));

    assert_eq!(authorities, []);
}

#[test]
fn the_clean_case_is_cut_without_being_written_anew() {
    let asked = asked("www.example.", RecordType::A);
    let mut message = response(&asked, ResponseCode::NoError);
    message.answers = vec![a("www.example.")];
    let clean = message.to_vec().unwrap();
    message.authorities = vec![ns("example.")];
    message.additionals = vec![a("ns.example.")];
    let whole = message.to_vec().unwrap();

    let Verdict::Answer(answer) = judged(&whole, &asked) else {
        panic!("it is an answer");
    };

    let end = HEADER + asked.question().len() + 16;
    assert_eq!(answer[HEADER..], clean[HEADER..end]);
}

#[test]
fn referrals_and_aliases_that_lead_nowhere_are_incomplete() {
    let asked = asked("www.example.", RecordType::A);
    let mut referral = response(&asked, ResponseCode::NoError);
    referral.authorities = vec![ns("example.")];
    let mut alias = response(&asked, ResponseCode::NoError);
    alias.answers = vec![cname("www.example.", "a.example.")];
    let mut round = response(&asked, ResponseCode::NoError);
    round.answers = vec![
        cname("www.example.", "a.example."),
        cname("a.example.", "www.example."),
    ];

    for message in [referral, alias, round] {
        let verdict = judged(&message.to_vec().unwrap(), &asked);
        assert_eq!(verdict, Verdict::Incomplete);
    }
}

#[test]
fn a_failure_is_bogus_where_its_explanation_says_that_validation_failed_and_nowhere_else() {
    let asked = asked("www.example.", RecordType::A);
    let explained = |code: u16| {
        let mut refusal = response(&asked, ResponseCode::ServFail);
        let mut edns = Edns::new();
        let said = [&code.to_be_bytes()[..], b"text"].concat();
        edns.options_mut().insert(EdnsOption::Unknown(15, said));
        refusal.set_edns(edns);
        judged(&refusal.to_vec().unwrap(), &asked)
    };

    for code in [5, 13, 22, 23, 6 << 8] {
        assert_eq!(explained(code), Verdict::Refused { is_bogus: false });
    }
    for code in 6..=12 {
        assert_eq!(explained(code), Verdict::Refused { is_bogus: true });
    }
}

#[test]
fn failures_cuts_and_garbage_are_told_apart() {
    let asked = asked("www.example.", RecordType::A);
    for code in [
        ResponseCode::ServFail,
        ResponseCode::Refused,
        ResponseCode::FormErr,
    ] {
        let refusal = response(&asked, code).to_vec().unwrap();
        assert_eq!(
            judged(&refusal, &asked),
            Verdict::Refused { is_bogus: false }
        );
    }
    let mut message = response(&asked, ResponseCode::NoError);
    message.answers = vec![a("www.example.")];
    let whole = message.to_vec().unwrap();
    let end = HEADER + asked.question().len() + 16;
    for len in HEADER..end {
        assert_eq!(judged(&whole[..len], &asked), Verdict::Garbled, "{len}");
    }
    message.metadata.truncation = true;
    assert_eq!(judged(&message.to_vec().unwrap(), &asked), Verdict::Cut);
}
