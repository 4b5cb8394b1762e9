//! Answers that have ended.

use super::*;

/// When the answer to the plain question has ended.
const ENDED_S: u64 = 1300;
const ENDED_MS: u64 = ENDED_S * 1000;
const DAY_S: u64 = 24 * 3600;
const EDE_STALE: [u8; 6] = [0, 15, 0, 2, 0, 3];

const WITH_EDNS: Asking = Asking {
    dnssec_ok: Some(false),
    ..PLAIN
};

/// A desk whose answer to the plain question has ended, and who waits for a better one.
fn desk_that_asks_again() -> Desk<u32> {
    let mut desk = desk_that_knows(300);
    let query = PLAIN.query();
    assert_eq!(desk.find(&query, ENDED_S), Look::Stale);
    assert_eq!(desk.wait(query, 7, HOME, ENDED_MS), Wait::Ask(2));
    desk
}

fn records(answer: &[u8]) -> u8 {
    answer[7]
}

fn nothing_stale(desk: &mut Desk<u32>, query: &Query, now_s: u64) {
    assert_eq!(desk.find(query, now_s), Look::Nothing);
    assert_eq!(desk.stale(query, now_s), None);
}

#[test]
fn what_validation_refuses_is_given_as_it_is_and_nothing_older_comes_back() {
    let mut desk = desk_that_asks_again();
    let query = PLAIN.query();

    let served = desk.answered(2, Heard::Refused(query.refuse(2, None)), ENDED_S);

    let given = served[0].answer.as_deref().unwrap();
    assert_eq!((message::rcode_low(given), served[0].is_stale), (2, false));
    nothing_stale(&mut desk, &query, ENDED_S);
    desk.wait(query.clone(), 8, HOME, ENDED_MS);
    assert_eq!(desk.poll_timeout(), None);
    let served = desk.answered(3, Heard::Silence, ENDED_S);
    assert_eq!(served[0].answer, None);
}

#[test]
fn what_validation_refuses_after_somebody_was_given_a_stale_answer_is_given_to_nobody_else() {
    let mut desk = desk_that_asks_again();
    let query = PLAIN.query();
    assert_eq!(desk.handle_timeout(ENDED_MS + STALE_AFTER_MS).len(), 1);

    desk.answered(2, Heard::Refused(query.refuse(2, None)), ENDED_S + 3);

    nothing_stale(&mut desk, &query, ENDED_S + 3);
}

#[test]
fn a_refusal_that_cannot_be_read_removes_what_is_stale_all_the_same() {
    let mut desk = desk_that_asks_again();

    let served = desk.answered(2, Heard::Refused(vec![1, 2, 3]), ENDED_S);

    assert_eq!(message::rcode_low(served[0].answer.as_deref().unwrap()), 2);
    nothing_stale(&mut desk, &PLAIN.query(), ENDED_S);
}

#[test]
fn a_stale_answer_is_never_given_to_another_question() {
    let mut desk = desk_that_asks_again();
    desk.answered(2, Heard::Silence, ENDED_S);
    assert!(matches!(desk.find(&PLAIN.query(), ENDED_S), Look::Vain(_)));

    for (other, number) in [
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
            flags: [1 | NOTIFY, 0],
            ..PLAIN
        },
    ]
    .iter()
    .zip(3..)
    {
        let query = other.query();
        nothing_stale(&mut desk, &query, ENDED_S);
        let wait = desk.wait(query.clone(), 8, HOME, ENDED_MS);
        assert_eq!(wait, Wait::Ask(number));
        assert_eq!(desk.poll_timeout(), None);
        let served = desk.answered(number, Heard::Answer(query.refuse(2, None)), ENDED_S);
        assert_eq!(message::rcode_low(served[0].answer.as_deref().unwrap()), 2);
    }
}

#[test]
fn an_answer_that_ended_a_day_ago_is_given_to_nobody() {
    let mut desk = desk_that_knows(300);
    let query = PLAIN.query();

    assert!(desk.stale(&query, ENDED_S + DAY_S - 1).is_some());
    assert_eq!(desk.stale(&query, ENDED_S + DAY_S), None);
    let late_ms = (ENDED_S + DAY_S) * 1000;
    desk.wait(query.clone(), 7, HOME, late_ms);
    assert_eq!(desk.poll_timeout(), None);
    let served = desk.answered(2, Heard::Silence, ENDED_S + DAY_S);
    assert_eq!(served[0].answer, None);
    nothing_stale(&mut desk, &query, ENDED_S + DAY_S);
}

#[test]
fn what_came_since_is_not_undone_by_a_failure_even_where_it_may_not_be_kept() {
    let query = PLAIN.query();
    for (newer, rcode) in [(query.refuse(3, None), 3), (answer(&query, 0), 0)] {
        let mut desk = desk_that_asks_again();

        let served = desk.answered(2, Heard::Answer(newer), ENDED_S);
        desk.wait(query.clone(), 8, HOME, ENDED_MS);
        let after = desk.answered(3, Heard::Silence, ENDED_S);

        let given = served[0].answer.as_deref().unwrap();
        assert_eq!(
            (message::rcode_low(given), served[0].is_stale),
            (rcode, false)
        );
        assert_eq!(after[0].answer, None);
    }
}

#[test]
fn nobody_is_served_before_the_time_and_nobody_for_whom_nothing_is_kept() {
    let mut desk = desk_that_asks_again();
    let other = Asking {
        rtype: RecordType::AAAA,
        ..PLAIN
    };
    desk.wait(other.query(), 8, HOME, ENDED_MS);

    let due_ms = desk.poll_timeout().unwrap();
    assert_eq!(due_ms, ENDED_MS + STALE_AFTER_MS);
    assert!(desk.handle_timeout(due_ms - 1).is_empty());
    let served = desk.handle_timeout(due_ms);

    assert_eq!(served.len(), 1);
    assert_eq!(served[0].to, 7);
    assert_eq!(desk.poll_timeout(), None);
}

#[test]
fn one_whose_stale_answer_made_room_for_others_waits_on() {
    let mut desk = desk_that_asks_again();
    desk.kept = Cache::new(1 << 20);

    assert!(desk.handle_timeout(ENDED_MS + STALE_AFTER_MS).is_empty());

    let late = Heard::Answer(answer(&PLAIN.query(), 300));
    let served = desk.answered(2, late, ENDED_S + 2);
    assert_eq!(served.len(), 1);
}

#[test]
fn whoever_has_waited_long_enough_gets_the_stale_answer_and_what_comes_late_is_kept() {
    let mut desk = desk_that_knows(300);
    let query = WITH_EDNS.query();
    desk.wait(query.clone(), 7, HOME, ENDED_MS);
    desk.wait(PLAIN.query(), 8, HOME, ENDED_MS + 1_000);

    let served = desk.handle_timeout(ENDED_MS + STALE_AFTER_MS);

    let shares: Vec<_> = served.iter().map(|it| (it.to, it.share)).collect();
    assert_eq!(shares, [(7, Share::Own), (8, Share::Others)]);
    assert!(served.iter().all(|served| served.is_stale));
    let with_edns = served[0].answer.as_deref().unwrap();
    assert!(with_edns.ends_with(&EDE_STALE));
    let plain = served[1].answer.as_deref().unwrap();
    assert_eq!((records(plain), ttl(plain)), (1, 30));
    let late = Heard::Answer(answer(&query, 300));
    assert!(desk.answered(2, late, ENDED_S + 3).is_empty());
    assert!(fresh(&mut desk, &query, ENDED_S + 3).is_some());
}

#[test]
fn when_nobody_can_be_reached_all_who_wait_get_the_stale_answer() {
    let query = PLAIN.query();
    let other = Asking {
        name: "ww2.example.com",
        ..PLAIN
    };
    for failure in [
        Heard::Silence,
        Heard::Answer(query.refuse(2, None)),
        Heard::Answer(vec![1, 2, 3]),
        Heard::Answer(answer(&other.query(), 300)),
    ] {
        let mut desk = desk_that_asks_again();
        desk.wait(query.clone(), 8, STRANGER, ENDED_MS + 900);

        let served = desk.answered(2, failure, ENDED_S + 1);

        assert_eq!(served.len(), 2);
        for served in served {
            let given = served.answer.as_deref().unwrap();
            assert_eq!((records(given), ttl(given)), (1, 30));
            assert!(served.is_stale);
        }
        assert_eq!(desk.poll_timeout(), None);
    }
}

#[test]
fn what_fails_for_strangers_is_asked_again_for_the_homes() {
    let mut desk = desk_that_knows(300);
    let query = PLAIN.query();

    desk.wait(query.clone(), 7, STRANGER, ENDED_MS);
    let served = desk.answered(2, Heard::Answer(query.refuse(2, None)), ENDED_S);
    assert!(served[0].is_stale);
    assert_eq!(desk.find(&query, ENDED_S), Look::Stale);

    desk.wait(query.clone(), 7, STRANGER, ENDED_MS);
    let due_ms = ENDED_MS + STALE_AFTER_MS;
    assert_eq!(desk.handle_timeout(due_ms).len(), 1);
    assert_eq!(desk.find(&query, ENDED_S + 2), Look::Stale);
    assert_eq!(desk.wait(query, 8, HOME, ENDED_MS + 2_000), Wait::Joined);
    assert_eq!(desk.handle_timeout(due_ms + 2_000).len(), 1);
    assert_eq!((desk.places.taken, desk.places.strangers), (1, 1));
}

#[test]
fn after_a_failure_nobody_waits_for_half_a_minute_and_then_it_is_asked_again() {
    let mut desk = desk_that_asks_again();
    let query = WITH_EDNS.query();
    desk.handle_timeout(ENDED_MS + STALE_AFTER_MS);
    desk.answered(2, Heard::Silence, ENDED_S + 8);

    for now_s in [ENDED_S + 8, ENDED_S + 36] {
        let found = desk.find(&query, now_s);
        let Look::Vain(given) = found else {
            panic!("{found:?}");
        };
        assert!(given.ends_with(&EDE_STALE));
    }
    assert_eq!(desk.find(&query, ENDED_S + 38), Look::Stale);
    let again_ms = (ENDED_S + 38) * 1000;
    assert_eq!(desk.wait(query, 9, HOME, again_ms), Wait::Ask(3));
    assert_eq!(desk.poll_timeout(), Some(again_ms + STALE_AFTER_MS));
}

#[test]
fn a_stale_answer_is_not_said_to_be_proven() {
    let mut desk = desk();
    let proven = Asking {
        flags: [1, AD],
        ..PLAIN
    };
    let query = proven.query();
    let mut bytes = answer(&query, 300);
    bytes[3] |= AD;
    desk.wait(query.clone(), 0, HOME, 0);
    desk.answered(1, Heard::Answer(bytes), 0);

    let kept = fresh(&mut desk, &query, 0).unwrap();
    let stale = desk.stale(&query, 300).unwrap();

    assert_eq!((kept[3] & AD, stale[3] & AD), (AD, 0));
}

#[test]
fn those_who_got_a_stale_answer_leave_their_places_and_the_question_keeps_one() {
    let mut desk = Desk::new(Bounds {
        waiting: 8,
        ..BOUNDS
    });
    let query = PLAIN.query();
    desk.wait(query.clone(), 0, HOME, 0);
    desk.answered(1, Heard::Answer(answer(&query, 300)), 1000);
    for stranger in 0..2 {
        desk.wait(query.clone(), stranger, STRANGER, ENDED_MS);
    }
    for home in 2..8 {
        desk.wait(query.clone(), home, HOME, ENDED_MS);
    }
    let other = Asking {
        name: "ww2.example.com",
        ..PLAIN
    };
    let wait = |desk: &mut Desk<u32>, holder| desk.wait(other.query(), 9, holder, ENDED_MS);

    assert_eq!(wait(&mut desk, HOME), Wait::Full(9));
    assert_eq!(desk.handle_timeout(ENDED_MS + STALE_AFTER_MS).len(), 8);

    assert_eq!((desk.places.taken, desk.places.strangers), (1, 1));
    assert_eq!(wait(&mut desk, STRANGER), Wait::Ask(3));
    assert_eq!(wait(&mut desk, STRANGER), Wait::Full(9));
    desk.answered(2, Heard::Silence, ENDED_S + 5);
    desk.answered(3, Heard::Silence, ENDED_S + 5);
    assert_eq!((desk.places.taken, desk.places.strangers), (0, 0));
    assert!(desk.asked.is_empty() && desk.by_key.is_empty() && desk.due.is_empty());
}
