//! Answers that are asked anew before they end.

use super::*;

const NEAR_END_S: u64 = 1275;

/// A desk whose answer to the plain question is asked for often, and near its end.
fn desk_near_the_end() -> Desk<u32> {
    let mut desk = desk_that_knows(300);
    for _ in 0..3 {
        assert!(matches!(desk.find(&PLAIN.query(), 1000), Look::Fresh(_)));
    }
    desk
}

#[test]
fn what_is_seldom_asked_for_or_far_from_its_end_is_not_asked_anew() {
    let mut seldom = desk_that_knows(300);
    let mut early = desk_near_the_end();
    let mut short = desk_that_knows(9);
    let query = PLAIN.query();

    for _ in 0..3 {
        assert!(matches!(seldom.find(&query, NEAR_END_S), Look::Fresh(_)));
    }
    assert!(matches!(early.find(&query, 1200), Look::Fresh(_)));
    for _ in 0..9 {
        assert!(matches!(short.find(&query, 1008), Look::Fresh(_)));
    }
}

#[test]
fn what_is_near_its_end_is_given_and_asked_anew_once() {
    let mut desk = desk_near_the_end();
    let query = PLAIN.query();

    let found = desk.find(&query, NEAR_END_S);
    let Look::Ending(given) = found else {
        panic!("{found:?}");
    };
    assert_eq!(ttl(&given), 25);
    assert_eq!(desk.ask_ahead(&query), Some(2));

    assert!(matches!(desk.find(&query, NEAR_END_S), Look::Fresh(_)));
    assert_eq!(desk.ask_ahead(&query), None, "it is on its way");
    let anew = Heard::Answer(answer(&query, 300));
    assert!(desk.answered(2, anew, NEAR_END_S).is_empty());
    let given = fresh(&mut desk, &query, NEAR_END_S).unwrap();
    assert_eq!(ttl(&given), 300);
}

#[test]
fn an_answer_asked_anew_in_vain_stays_to_its_end_and_is_not_asked_for_again() {
    let mut desk = desk_near_the_end();
    let query = PLAIN.query();
    desk.find(&query, NEAR_END_S);
    desk.ask_ahead(&query);

    desk.answered(2, Heard::Silence, NEAR_END_S + 5);

    assert!(matches!(desk.find(&query, 1299), Look::Fresh(_)));
    assert_eq!(desk.find(&query, 1300), Look::Stale);
}

#[test]
fn an_answer_asked_anew_and_refused_by_validation_is_good_to_its_end_and_stands_in_for_nothing() {
    let mut desk = desk_near_the_end();
    let query = PLAIN.query();
    desk.ask_ahead(&query);

    desk.answered(2, Heard::Refused(query.refuse(2, None)), NEAR_END_S);

    assert!(matches!(desk.find(&query, 1299), Look::Fresh(_)));
    assert_eq!(desk.stale(&query, 1300), None);
    desk.wait(query.clone(), 5, HOME, 1_300_000);
    assert_eq!(desk.poll_timeout(), None);
    let served = desk.answered(3, Heard::Silence, 1300);
    assert_eq!(served[0].answer, None);
    assert_eq!(desk.find(&query, 1300), Look::Nothing);
}

#[test]
fn questions_asked_ahead_are_bounded_and_take_no_place_of_those_who_wait() {
    let mut desk = Desk::new(Bounds {
        waiting: 2,
        ..BOUNDS
    });
    let name = |name| Asking { name, ..PLAIN }.query();
    let [a, b, c] = ["aaa.example.com", "bbb.example.com", "ccc.example.com"].map(name);

    assert_eq!(desk.ask_ahead(&a), Some(1));
    assert_eq!(desk.ask_ahead(&b), Some(2));
    assert_eq!(desk.ask_ahead(&c), None);

    assert_eq!(desk.wait(c.clone(), 0, HOME, 0), Wait::Ask(3));
    assert_eq!(desk.wait(c.clone(), 1, HOME, 0), Wait::Joined);
    assert_eq!(desk.wait(c.clone(), 2, HOME, 0), Wait::Full(2));
    desk.answered(1, Heard::Silence, 0);
    assert_eq!(desk.ask_ahead(&c), None, "it is on its way");
    assert_eq!(desk.ask_ahead(&a), Some(4));
}

#[test]
fn a_desk_that_asks_nothing_ahead_leaves_what_is_near_its_end_alone() {
    let mut desk: Desk<u32> = Desk::new(Bounds { ahead: 0, ..BOUNDS });

    assert_eq!(desk.ask_ahead(&PLAIN.query()), None);
    assert!(desk.asked.is_empty());
}

#[test]
fn whoever_comes_after_the_end_joins_the_question_and_its_time_runs_from_then() {
    let mut desk = desk_near_the_end();
    let query = PLAIN.query();
    desk.ask_ahead(&query);

    let wait = desk.wait(query.clone(), 5, HOME, 1_301_000);
    assert_eq!(wait, Wait::Joined);
    assert_eq!(desk.poll_timeout(), Some(1_301_000 + STALE_AFTER_MS));
    let served = desk.handle_timeout(1_301_000 + STALE_AFTER_MS);

    assert_eq!((served.len(), served[0].share), (1, Share::Others));
    assert_eq!((desk.places.taken, desk.ahead), (0, 1));
    desk.answered(2, Heard::Silence, 1305);
    assert_eq!(desk.ahead, 0);
}
