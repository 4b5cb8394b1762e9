use std::net::Ipv4Addr;
use std::str::FromStr as _;

use hickory_proto::op::{
    Edns as JudgeEdns, Message, MessageType, Query as JudgeQuery, ResponseCode,
};
use hickory_proto::rr::rdata::opt::EdnsCode;
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{DNSClass, RData, Record};
use proptest::prelude::*;

use super::*;
use crate::proto::vectors::{dns_query, dns_response, replay};

fn judge_query(edns: Option<u16>) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let name = Name::from_str("Www.Example.com.").unwrap();
    message.add_query(JudgeQuery::query(name, RecordType::A));
    if let Some(size) = edns {
        let mut edns = JudgeEdns::new();
        edns.set_max_payload(size).set_dnssec_ok(true);
        message.set_edns(edns);
    }
    message
}

fn query(edns: Option<u16>) -> Query {
    Query::read(&judge_query(edns).to_vec().unwrap()).unwrap()
}

fn record(name: &str, ttl: u32) -> Record {
    let data = RData::A(A(Ipv4Addr::new(192, 0, 2, 1)));
    Record::from_rdata(Name::from_str(name).unwrap(), ttl, data)
}

fn soa(ttl: u32, minimum: u32) -> Record {
    let zone = Name::from_str("example.com.").unwrap();
    let data = SOA::new(zone.clone(), zone.clone(), 1, 2, 3, 4, minimum);
    Record::from_rdata(zone, ttl, RData::SOA(data))
}

fn response(build: impl FnOnce(&mut Message)) -> Response {
    let mut message = judge_query(None).into_response();
    build(&mut message);
    Response::read(&message.to_vec().unwrap(), &query(None)).unwrap()
}

#[test]
fn messages_that_are_not_one_query_are_refused() {
    let mut no_question = dns_query();
    no_question[5] = 0;
    let mut two = dns_query();
    two[5] = 2;
    let mut phantom_record = dns_query();
    phantom_record[11] = 1;
    let mut pointer = dns_query();
    pointer.splice(12..29, [0xc0, 0x0c]);

    assert_eq!(Query::read(&dns_response()), Err(Dropped::NotAQuery));
    for bad in [no_question, two, phantom_record, pointer] {
        assert_eq!(Query::read(&bad), Err(Dropped::Malformed));
    }
    for len in 0..dns_query().len() {
        assert_eq!(Query::read(&dns_query()[..len]), Err(Dropped::Malformed));
    }
}

#[test]
fn two_opt_records_or_one_with_a_name_are_refused() {
    let whole = judge_query(Some(1232)).to_vec().unwrap();
    let opt = whole.len() - 11;
    let mut two = [&whole[..], &whole[opt..]].concat();
    two[11] = 2;
    let mut named = whole.clone();
    named.splice(opt..=opt, [1, b'x', 0]);

    assert_eq!(Query::read(&two), Err(Dropped::Malformed));
    assert_eq!(Query::read(&named), Err(Dropped::Malformed));
}

#[test]
fn a_response_must_match_id_question_and_direction() {
    let mut other = dns_response();
    other[1] ^= 1;

    assert_eq!(check_response(&dns_response(), &dns_query()), Ok(()));
    assert_eq!(
        check_response(&other, &dns_query()),
        Err(Dropped::WrongQuestion)
    );
    assert_eq!(
        check_response(&dns_query(), &dns_query()),
        Err(Dropped::NotAResponse)
    );
    assert_eq!(check_response(&[], &dns_query()), Err(Dropped::Malformed));
    assert_eq!(
        check_response(&dns_response(), &dns_query()[..20]),
        Err(Dropped::WrongQuestion)
    );
}

#[test]
fn spelling_does_not_make_another_question_but_type_do_and_cd_do() {
    let plain = query(None).key();
    let mut lower = judge_query(None).to_vec().unwrap();
    lower[12..29].make_ascii_lowercase();
    let mut other_type = judge_query(None).to_vec().unwrap();
    other_type[30] = 28;
    let mut checking_disabled = judge_query(None).to_vec().unwrap();
    checking_disabled[3] |= CD;

    assert_eq!(Query::read(&lower).unwrap().key(), plain);
    assert_ne!(Query::read(&other_type).unwrap().key(), plain);
    assert_ne!(Query::read(&checking_disabled).unwrap().key(), plain);
    assert_ne!(query(Some(1232)).key(), plain);
}

#[test]
fn what_goes_upstream_is_read_by_another_parser_as_meant() {
    let upstream = query(Some(1232)).to_upstream(0x4242, 4096);

    let read = Message::from_vec(&upstream).unwrap();

    assert_eq!(read.metadata.id, 0x4242);
    assert!(read.metadata.recursion_desired);
    assert_eq!(read.queries, judge_query(None).queries);
    let edns = read.edns.unwrap();
    assert_eq!(edns.max_payload(), 4096);
    assert!(edns.flags().dnssec_ok);
    assert!(edns.options().as_ref().is_empty());
}

#[test]
fn a_refusal_carries_its_code_and_its_reason() {
    let answer = query(Some(1232)).refuse(2, Some(ExtendedError::NetworkError));
    let bad_version = query(Some(1232)).refuse(16, None);
    let without_edns = query(None).refuse(2, Some(ExtendedError::NetworkError));

    let read = Message::from_vec(&answer).unwrap();
    assert_eq!(read.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(read.metadata.id, 0x1234);
    assert_eq!(answer[answer.len() - 6..], [0, 15, 0, 2, 0, 23]);
    let read = Message::from_vec(&bad_version).unwrap();
    assert_eq!(read.edns.unwrap().rcode_high(), 1);
    assert!(Message::from_vec(&without_edns).unwrap().edns.is_none());
}

#[test]
fn only_queries_get_a_form_error() {
    assert_eq!(form_error(&dns_response()), None);
    assert_eq!(form_error(&dns_query()[..11]), None);
    let read = Message::from_vec(&form_error(&dns_query()[..15]).unwrap()).unwrap();
    assert_eq!(read.metadata.response_code, ResponseCode::FormErr);
    assert_eq!(read.metadata.id, 0x1234);
}

#[test]
fn an_adopted_answer_has_the_askers_id_spelling_and_edns() {
    let stored = response(|message| {
        message.add_answer(record("www.example.com.", 300));
        message.set_edns(JudgeEdns::new());
    });
    assert!(Message::from_vec(&stored.stored).unwrap().edns.is_none());

    let mut asker = judge_query(Some(1232));
    asker.metadata.id = 7;
    asker.queries[0].set_name(Name::from_str("WWW.EXAMPLE.COM.").unwrap());
    let asker = Query::read(&asker.to_vec().unwrap()).unwrap();
    let read = Message::from_vec(&asker.adopt(&stored.stored, None)).unwrap();

    assert_eq!(read.metadata.id, 7);
    assert!(
        read.queries[0]
            .name()
            .eq_case(&Name::from_str("WWW.EXAMPLE.COM.").unwrap())
    );
    assert_eq!(read.answers.len(), 1);
    assert_eq!(read.edns.unwrap().max_payload(), OUR_UDP_SIZE);
}

#[test]
fn an_answer_that_does_not_fit_becomes_the_question_with_tc() {
    let stored = response(|message| {
        for _ in 0..60 {
            message.add_answer(record("www.example.com.", 300));
        }
    });
    let asker = query(Some(1232));

    let (whole, fit) = asker.fit(asker.adopt(&stored.stored, None), 1232);
    assert_eq!(fit, Fit::Whole);
    let (short, fit) = asker.fit(whole, 512);

    assert_eq!(fit, Fit::Truncated);
    let read = Message::from_vec(&short).unwrap();
    assert!(read.metadata.truncation);
    assert_eq!(read.queries.len(), 1);
    assert!(read.answers.is_empty());
    assert!(read.edns.is_some());
}

#[test]
fn lifetimes_follow_the_rfcs() {
    let positive = response(|message| {
        message.add_answer(record("www.example.com.", 300));
        message.add_answer(record("www.example.com.", 200));
    });
    let negative = response(|message| {
        message.metadata.response_code = ResponseCode::NXDomain;
        message.add_authority(soa(900, 60));
    });
    let no_data = response(|message| {
        message.add_authority(soa(30, 60));
    });
    let negative_without_soa = response(|message| {
        message.metadata.response_code = ResponseCode::NXDomain;
    });
    let failed = response(|message| {
        message.metadata.response_code = ResponseCode::ServFail;
        message.add_answer(record("www.example.com.", 300));
    });
    let top_bit = response(|message| {
        message.add_answer(record("www.example.com.", 0x8000_0001));
    });

    assert_eq!((positive.positive, positive.lifetime_s), (true, Some(200)));
    assert_eq!((negative.positive, negative.lifetime_s), (false, Some(60)));
    assert_eq!((no_data.positive, no_data.lifetime_s), (false, Some(30)));
    assert_eq!(negative_without_soa.lifetime_s, None);
    assert_eq!(failed.lifetime_s, None);
    assert_eq!(top_bit.lifetime_s, Some(0));
}

#[test]
fn lifetimes_age_in_place() {
    let mut stored = response(|message| {
        message.add_answer(record("www.example.com.", 300));
        message.add_additional(record("ns.example.com.", 20));
    });

    age(&mut stored.stored, stored.ttl_at, 50, 0);

    let read = Message::from_vec(&stored.stored).unwrap();
    assert_eq!(read.answers[0].ttl, 250);
    assert_eq!(read.additionals[0].ttl, 0);
}

#[test]
fn records_after_the_opt_are_left_out_of_what_is_stored() {
    let mut message = judge_query(None).into_response();
    message.add_answer(record("www.example.com.", 300));
    message.set_edns(JudgeEdns::new());
    let mut bytes = message.to_vec().unwrap();
    // Another additional record, behind the OPT.
    bytes.extend_from_slice(&[0, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 9]);
    bytes[11] = 2;

    let response = Response::read(&bytes, &query(None)).unwrap();

    let read = Message::from_vec(&response.stored).unwrap();
    assert_eq!((read.answers.len(), read.additionals.len()), (1, 0));
    assert_eq!(response.ttl_at.len(), 1);
}

#[test]
fn a_certificate_query_is_recognised_in_any_case_and_only_in_class_in() {
    let bytes = super::query(1, "2.DNSCRYPT-cert.example.com", RecordType::TXT, 1232).unwrap();
    let mut chaos = judge_query(None);
    chaos.queries[0].set_query_class(DNSClass::CH);
    let chaos = Query::read(&chaos.to_vec().unwrap()).unwrap();

    assert!(
        Query::read(&bytes)
            .unwrap()
            .asks_for("2.dnscrypt-cert.Example.com")
    );
    assert!(
        !Query::read(&bytes)
            .unwrap()
            .asks_for("2.dnscrypt-cert.example.org")
    );
    assert!(!Query::read(&bytes).unwrap().asks_for("example.com"));
    assert!(!chaos.asks_for("www.example.com"));
}

#[test]
fn long_texts_are_split_into_strings_and_joined_again() {
    let text: Vec<u8> = (0..1320).map(|at| (at % 251) as u8).collect();
    let asked = super::query(1, "2.dnscrypt-cert.example.com", RecordType::TXT, 4096).unwrap();

    let answer = Query::read(&asked)
        .unwrap()
        .answer_txt(&[&text, b"short"], 600);

    assert_eq!(texts(&answer), Ok(vec![text, b"short".to_vec()]));
    assert_eq!(check_response(&answer, &asked), Ok(()));
    assert_eq!(Message::from_vec(&answer).unwrap().answers.len(), 2);
}

proptest! {
    #[test]
    fn no_bytes_make_the_readers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), header in any::<bool>()) {
        let bytes = if header { [&dns_response()[..33], &bytes].concat() } else { bytes };
        check(&bytes);
    }

    #[test]
    fn no_change_of_a_good_message_makes_the_readers_panic(at in 0_usize..60, to in any::<u8>()) {
        let mut bytes = judge_query(Some(1232)).into_response().to_vec().unwrap();
        if let Some(byte) = bytes.get_mut(at) {
            *byte = to;
        }
        check(&bytes);
    }
}

fn check(bytes: &[u8]) {
    let _ = check_response(bytes, &dns_query());
    let _ = texts(bytes);
    let _ = form_error(bytes);
    let _ = truncated(bytes, bytes);
    if let Ok(query) = Query::read(bytes) {
        assert!(Query::read(&query.to_upstream(1, 1232)).is_ok());
        let refusal = query.refuse(2, None);
        assert_eq!(check_response(&refusal, bytes), Ok(()));
    }
    if let Ok(mut response) = Response::read(bytes, &query(None)) {
        age(&mut response.stored, response.ttl_at, 1, 0);
        let _ = query(Some(512)).adopt(&response.stored, None);
    }
}

#[test]
fn the_corpus_is_replayed() {
    replay("message", check);
}

#[test]
fn a_padded_query_has_just_the_length_that_was_asked_for() {
    let name = "2.dnscrypt-cert.example.com";
    let bare = super::query(0xabcd, name, RecordType::TXT, 4096).unwrap();

    for len in [0, bare.len(), bare.len() + 3] {
        let padded = padded_query(0xabcd, name, RecordType::TXT, 4096, len);
        assert_eq!(padded.unwrap(), bare);
    }
    for len in [bare.len() + 4, 512, 3200, 4096] {
        let padded = padded_query(0xabcd, name, RecordType::TXT, 4096, len).unwrap();
        let read = Query::read(&padded).unwrap();
        assert_eq!(padded.len(), len);
        assert!(read.asks_for(name) && read.udp_size() == 4096);
    }
}

#[test]
fn an_answer_without_edns_or_with_records_behind_it_is_not_padded() {
    let plain = query(None).refuse(0, None);
    let mut behind = query(Some(1232)).refuse(0, None);
    behind[ARCOUNT_AT + 1] += 1;
    behind.extend_from_slice(&[0, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 1]);

    for whole in [plain, behind, vec![7; 40]] {
        let mut answer = whole.clone();
        pad_answer(&mut answer, 468);
        assert_eq!(answer, whole);
    }
}

#[test]
fn a_padded_answer_is_a_multiple_of_the_block_and_says_the_same() {
    let query = query(Some(1232));
    for length in [1, 300, 420, 2_000] {
        let text = vec![b'x'; length];
        let mut answer = query.answer_txt(&[&text], 60);
        let before = Message::from_vec(&answer).unwrap();

        pad_answer(&mut answer, 468);

        assert_eq!(answer.len() % 468, 0, "{length}");
        let after = Message::from_vec(&answer).unwrap();
        assert_eq!(after.answers, before.answers);
        let padding = after.edns.unwrap();
        assert!(padding.option(EdnsCode::Padding).is_some());
    }
}

#[test]
fn padding_to_512_is_the_drafts_option() {
    let name = "2.dnscrypt-cert.example.com";

    let padded = padded_query(0xabcd, name, RecordType::TXT, 4096, 512).unwrap();

    assert_eq!(
        hex::encode(&padded[45..60]),
        "00002910000000000001c8000c01c4"
    );
    assert!(padded[60..].iter().all(|byte| *byte == 0));
}

#[test]
fn an_answer_of_our_own_under_the_root_writes_it_out_since_libknot_takes_no_pointer_to_it() {
    let query = query(None);
    let root_at = query.question.len() - 5;
    let answer = query.own_answer(3, 10_800).end(root_at);

    let authority = answer.get(HEADER + query.question.len()..).unwrap();
    assert!(
        authority.starts_with(&[0, 0, 6]),
        "the owner: {authority:?}"
    );
    assert!(!authority.contains(&0xc0), "{authority:?}");
    let read = Message::from_vec(&answer).unwrap();
    let [soa] = read.authorities.as_slice() else {
        panic!("one record: {read:?}")
    };
    assert!(soa.name.is_root());

    let below = query.own_answer(3, 10_800).end(0);
    let authority = below.get(HEADER + query.question.len()..).unwrap();
    assert!(authority.starts_with(&[0xc0, 12]), "{authority:?}");
}
