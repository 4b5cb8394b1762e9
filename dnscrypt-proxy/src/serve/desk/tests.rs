mod ahead;
mod room;
mod stale;

use std::net::{IpAddr, Ipv4Addr};

use hickory_proto::rr::RecordType;

use super::*;
use crate::proto::message::{self, HEADER};

const HOME: Holder = Holder {
    class: Class::Home,
    home: IpAddr::V4(Ipv4Addr::new(10, 64, 0, 16)),
    network: IpAddr::V4(Ipv4Addr::new(10, 64, 0, 16)),
};
const STRANGER: Holder = Holder {
    class: Class::Stranger,
    home: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7)),
    network: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7)),
};
const AD: u8 = 0x20;
const CD: u8 = 0x10;
const NOTIFY: u8 = 4 << 3;

/// A query of a client, without EDNS.
struct Asking {
    name: &'static str,
    rtype: RecordType,
    id: u16,
    flags: [u8; 2],
    dnssec_ok: Option<bool>,
}

const PLAIN: Asking = Asking {
    name: "www.example.com",
    rtype: RecordType::A,
    id: 7,
    flags: [1, 0],
    dnssec_ok: None,
};

impl Asking {
    fn query(&self) -> Query {
        let mut bytes = message::query(self.id, self.name, self.rtype, 1232).unwrap();
        bytes[2..4].copy_from_slice(&self.flags);
        let opt_at = bytes.len() - 11;
        match self.dnssec_ok {
            Some(dnssec_ok) => bytes[opt_at + 7] = u8::from(dnssec_ok) << 7,
            None => {
                bytes.truncate(opt_at);
                bytes[11] = 0;
            }
        }
        // The library writes names in lower case.
        bytes[HEADER + 1..HEADER + 1 + self.name.len()]
            .iter_mut()
            .zip(self.name.bytes())
            .filter(|(written, _)| written.is_ascii_lowercase())
            .for_each(|(written, given)| *written = given);
        Query::read(&bytes).unwrap()
    }
}

/// The resolver's answer: one A record.
fn answer(query: &Query, ttl_s: u32) -> Vec<u8> {
    let mut bytes = query.refuse(0, None);
    bytes.truncate(HEADER + query.question().len());
    bytes[11] = 0;
    bytes[7] = 1;
    bytes.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
    bytes.extend_from_slice(&ttl_s.to_be_bytes());
    bytes.extend_from_slice(&[0, 4, 192, 0, 2, 1]);
    bytes
}

fn ttl(answer: &[u8]) -> u32 {
    let at = answer.len() - 10;
    u32::from_be_bytes(answer[at..at + 4].try_into().unwrap())
}

const BOUNDS: Bounds = Bounds {
    kept_bytes: 1 << 20,
    waiting: 64,
    ahead: 2,
};

fn desk() -> Desk<u32> {
    Desk::new(BOUNDS)
}

/// A desk that has the answer to the plain question.
fn desk_that_knows(ttl_s: u32) -> Desk<u32> {
    let mut desk = desk();
    let query = PLAIN.query();
    assert_eq!(desk.wait(query.clone(), 0, HOME, 0), Wait::Ask(1));
    desk.answered(1, Heard::Answer(answer(&query, ttl_s)), 1000);
    desk
}

/// The kept answer, within its lifetime.
fn fresh(desk: &mut Desk<u32>, query: &Query, now_s: u64) -> Option<Vec<u8>> {
    if let Look::Fresh(answer) | Look::Ending(answer) = desk.find(query, now_s) {
        Some(answer)
    } else {
        None
    }
}

#[test]
fn an_answer_is_never_given_to_another_question() {
    let mut desk = desk_that_knows(300);

    for other in [
        Asking {
            name: "ww2.example.com",
            ..PLAIN
        },
        Asking {
            rtype: RecordType::AAAA,
            ..PLAIN
        },
        Asking {
            dnssec_ok: Some(true),
            ..PLAIN
        },
        Asking {
            flags: [1, AD],
            ..PLAIN
        },
        Asking {
            flags: [1, CD],
            ..PLAIN
        },
        Asking {
            flags: [0, 0],
            ..PLAIN
        },
        Asking {
            flags: [1 | NOTIFY, 0],
            ..PLAIN
        },
    ] {
        assert_eq!(
            fresh(&mut desk, &other.query(), 1000),
            None,
            "{:?}",
            other.flags
        );
    }
    assert!(fresh(&mut desk, &PLAIN.query(), 1000).is_some());
}

#[test]
fn type_numbers_that_differ_by_a_letters_case_are_different_questions() {
    let https = Asking {
        rtype: RecordType::from(0x41),
        ..PLAIN
    };
    let other = Asking {
        rtype: RecordType::from(0x61),
        ..PLAIN
    };
    let bytes = answer(&https.query(), 300);

    assert!(https.query().is_question_of(&bytes));
    assert!(!other.query().is_question_of(&bytes));
    assert!(!other.query().is_question_of(&bytes[..20]));
}

#[test]
fn an_answer_to_another_question_than_was_asked_is_not_kept_and_reaches_nobody() {
    let mut desk = desk();
    let other = Asking {
        name: "ww2.example.com",
        ..PLAIN
    };
    desk.wait(PLAIN.query(), 0, HOME, 0);

    let served = desk.answered(1, Heard::Answer(answer(&other.query(), 300)), 0);

    let given = served[0].answer.as_deref().unwrap();
    assert_eq!(message::rcode_low(given), 2);
    assert_eq!(fresh(&mut desk, &PLAIN.query(), 0), None);
    assert_eq!(fresh(&mut desk, &other.query(), 0), None);
}

#[test]
fn failures_are_not_kept() {
    let mut desk = desk();
    desk.wait(PLAIN.query(), 0, HOME, 0);

    let served = desk.answered(1, Heard::Answer(PLAIN.query().refuse(2, None)), 0);

    assert_eq!(message::rcode_low(served[0].answer.as_deref().unwrap()), 2);
    assert_eq!(fresh(&mut desk, &PLAIN.query(), 0), None);
}

#[test]
fn the_asker_gets_its_own_id_spelling_and_edns() {
    let mut desk = desk_that_knows(300);
    let spelled = Asking {
        name: "wWW.eXample.COM",
        id: 0x1234,
        dnssec_ok: Some(false),
        ..PLAIN
    };
    let query = spelled.query();

    let given = fresh(&mut desk, &query, 1000).unwrap();

    assert_eq!(given[..2], [0x12, 0x34]);
    assert_eq!(
        given[HEADER..HEADER + query.question().len()],
        *query.question()
    );
    assert_eq!(given[10..12], [0, 1], "an OPT record, as the query had one");
    let without = fresh(&mut desk, &PLAIN.query(), 1000).unwrap();
    assert_eq!(without[10..12], [0, 0]);
}

#[test]
fn lifetimes_count_down_and_end_before_zero() {
    let mut desk = desk_that_knows(300);
    let query = PLAIN.query();

    let mut at = |now_s| fresh(&mut desk, &query, now_s).map(|answer| ttl(&answer));

    assert_eq!(at(1000), Some(300));
    assert_eq!(at(1100), Some(200));
    assert_eq!(at(1299), Some(1));
    assert_eq!(at(1300), None);
    assert_eq!(at(u64::MAX), None);
}

#[test]
fn the_same_question_at_the_same_time_is_asked_once_and_answers_everybody_in_their_own_words() {
    let mut desk = desk();
    let names = ["www.example.com", "WWW.example.com", "www.EXAMPLE.com"];
    let queries: Vec<_> = names
        .into_iter()
        .zip(10..)
        .map(|(name, id)| Asking { name, id, ..PLAIN }.query())
        .collect();

    let waits: Vec<_> = queries
        .iter()
        .zip(0..)
        .map(|(query, to)| desk.wait(query.clone(), to, HOME, 0))
        .collect();
    let served = desk.answered(1, Heard::Answer(answer(&queries[0], 300)), 0);

    assert_eq!(waits, [Wait::Ask(1), Wait::Joined, Wait::Joined]);
    assert_eq!(served.len(), 3);
    for (place, (served, query)) in served.iter().zip(&queries).enumerate() {
        let given = served.answer.as_deref().unwrap();
        assert_eq!(served.to as usize, place);
        assert_eq!(served.share == Share::Own, place == 0);
        assert_eq!(given[..2], query.id.to_be_bytes());
        assert_eq!(
            given[HEADER..HEADER + query.question().len()],
            *query.question()
        );
    }
    assert!(desk.answered(1, Heard::Silence, 0).is_empty(), "once");
}

#[test]
fn what_is_no_ordinary_question_is_asked_for_each_and_its_answer_left_as_it_is() {
    let mut desk = desk();
    let notify = Asking {
        flags: [1 | NOTIFY, 0],
        ..PLAIN
    };

    let first = desk.wait(notify.query(), 0, HOME, 0);
    let second = desk.wait(notify.query(), 1, HOME, 0);
    let served = desk.answered(1, Heard::Answer(vec![1, 2, 3]), 0);

    assert_eq!((first, second), (Wait::Ask(1), Wait::Ask(2)));
    assert_eq!(served[0].answer.as_deref(), Some(&[1, 2, 3][..]));
    assert_eq!(served.len(), 1);
}

#[test]
fn without_an_answer_everybody_who_waits_is_told_so_and_the_question_can_be_asked_again() {
    let mut desk = desk();
    desk.wait(PLAIN.query(), 0, HOME, 0);
    desk.wait(PLAIN.query(), 1, HOME, 0);

    let served = desk.answered(1, Heard::Silence, 0);

    assert!(served.iter().all(|served| served.answer.is_none()));
    assert_eq!(served.len(), 2);
    assert_eq!(desk.wait(PLAIN.query(), 2, HOME, 0), Wait::Ask(2));
}

#[test]
fn one_more_than_may_wait_is_not_let_in_until_somebody_has_left() {
    let mut desk: Desk<u32> = Desk::new(Bounds {
        waiting: 2,
        ..BOUNDS
    });
    desk.wait(PLAIN.query(), 0, HOME, 0);
    desk.wait(PLAIN.query(), 1, HOME, 0);

    let third = desk.wait(PLAIN.query(), 2, HOME, 0);
    desk.answered(1, Heard::Silence, 0);

    assert_eq!(third, Wait::Full(2));
    assert_eq!(desk.wait(PLAIN.query(), 2, HOME, 0), Wait::Ask(2));
}

#[test]
fn the_bound_in_bytes_holds_under_100_000_names() {
    let bytes = 200_000;
    let mut desk: Desk<u32> = Desk::new(Bounds {
        kept_bytes: bytes,
        ..BOUNDS
    });

    for n in 1..=100_000_u64 {
        let name = format!("n{n}.example.com");
        let query = message::query(1, &name, RecordType::A, 1232).unwrap();
        let query = Query::read(&query).unwrap();
        assert_eq!(desk.wait(query.clone(), 0, HOME, 0), Wait::Ask(n));
        desk.answered(n, Heard::Answer(answer(&query, 300)), 0);
        assert!(desk.kept.used_bytes() <= bytes);
        if n == 100_000 {
            assert!(fresh(&mut desk, &query, 0).is_some());
        }
    }

    assert!(desk.kept.len() > 100);
    assert!(desk.asked.is_empty() && desk.by_key.is_empty());
}

#[test]
fn strangers_that_wait_for_one_question_or_many_leave_places_for_the_homes() {
    let mut desk = Desk::new(Bounds {
        waiting: 8,
        ..BOUNDS
    });
    assert_eq!(desk.wait(PLAIN.query(), 0, STRANGER, 0), Wait::Ask(1));
    assert_eq!(desk.wait(PLAIN.query(), 1, STRANGER, 0), Wait::Joined);

    assert_eq!(desk.wait(PLAIN.query(), 2, STRANGER, 0), Wait::Full(2));
    for home in 3..9 {
        assert_eq!(desk.wait(PLAIN.query(), home, HOME, 0), Wait::Joined);
    }
    assert_eq!(desk.wait(PLAIN.query(), 9, HOME, 0), Wait::Full(9));
    desk.answered(1, Heard::Silence, 0);

    assert_eq!(desk.wait(PLAIN.query(), 0, STRANGER, 0), Wait::Ask(2));
    assert_eq!(desk.wait(PLAIN.query(), 1, STRANGER, 0), Wait::Joined);
    assert_eq!(desk.wait(PLAIN.query(), 2, STRANGER, 0), Wait::Full(2));
}
