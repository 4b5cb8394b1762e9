use super::*;

fn home(n: u8) -> Holder {
    let home = IpAddr::V4(Ipv4Addr::new(10, 64, 0, n));
    Holder {
        class: Class::Home,
        home,
        network: home,
    }
}

fn named(name: &str) -> Query {
    let query = message::query(7, name, RecordType::A, 1232).unwrap();
    Query::read(&query).unwrap()
}

/// A desk with eight places.
fn small_desk() -> Desk<u32> {
    Desk::new(Bounds {
        waiting: 8,
        ..BOUNDS
    })
}

/// One with eight places, all of which one home has, for questions of their own: to 0 to 7.
fn full_desk() -> Desk<u32> {
    let mut desk = small_desk();
    for n in 0..8 {
        let query = named(&format!("n{n}.example.com"));
        assert_eq!(
            desk.wait(query, n, home(16), 0),
            Wait::Ask(u64::from(n) + 1)
        );
    }
    desk
}

/// Those who were turned out.
fn turned_out(desk: &mut Desk<u32>) -> Vec<u32> {
    let waiting = desk.out.waiting.drain(..);
    waiting.map(|(_, to)| to).collect()
}

#[test]
fn who_has_as_many_as_the_others_is_not_let_in_for_more() {
    let mut desk = full_desk();

    for n in 0..4 {
        let query = named(&format!("m{n}.example.com"));
        assert!(matches!(desk.wait(query, 10, home(17), 0), Wait::Ask(_)));
    }

    for n in [16, 17] {
        assert_eq!(desk.wait(PLAIN.query(), 9, home(n), 0), Wait::Full(9));
    }
    assert_eq!(turned_out(&mut desk), [0, 1, 2, 3]);
    assert_eq!(desk.places.taken, 8);
}

#[test]
fn a_question_whose_only_place_is_given_up_is_to_end_and_its_answer_is_kept_for_nobody() {
    let mut desk = full_desk();

    assert_eq!(desk.wait(PLAIN.query(), 8, home(17), 0), Wait::Ask(9));

    assert_eq!(turned_out(&mut desk), [0]);
    assert_eq!(desk.out.questions, [1]);
    let query = named("n0.example.com");
    assert!(
        desk.answered(1, Heard::Answer(answer(&query, 300)), 0)
            .is_empty()
    );
    assert_eq!(fresh(&mut desk, &query, 0), None);
    assert_eq!((desk.ending, desk.places.taken), (0, 8));
}

#[test]
fn the_same_question_is_asked_anew_while_the_one_that_was_given_up_ends() {
    let mut desk = full_desk();
    desk.wait(PLAIN.query(), 8, home(17), 0);
    let query = named("n0.example.com");

    assert_eq!(desk.wait(query.clone(), 9, home(17), 0), Wait::Ask(10));
    assert!(desk.answered(1, Heard::Silence, 0).is_empty());
    let joined = desk.wait(query.clone(), 10, home(18), 0);
    let served = desk.answered(10, Heard::Answer(answer(&query, 300)), 0);

    assert_eq!(joined, Wait::Joined);
    assert_eq!(served.iter().map(|one| one.to).collect::<Vec<_>>(), [9, 10]);
    assert!(fresh(&mut desk, &query, 0).is_some());
}

#[test]
fn who_joined_a_question_gets_its_answer_though_the_one_who_asked_it_was_turned_out() {
    let mut desk = full_desk();
    let query = named("n0.example.com");

    assert_eq!(desk.wait(query.clone(), 8, home(17), 0), Wait::Joined);

    assert_eq!(turned_out(&mut desk), [0]);
    assert!(desk.out.questions.is_empty(), "somebody waits for it");
    let served = desk.answered(1, Heard::Answer(answer(&query, 300)), 0);
    assert_eq!(
        (served.len(), served[0].to, served[0].share),
        (1, 8, Share::Others)
    );
    assert!(served[0].answer.is_some());
    assert!(fresh(&mut desk, &query, 0).is_some());
}

#[test]
fn who_joined_asks_alone_where_the_one_who_was_turned_out_would_have_been_refused() {
    let mut desk = full_desk();
    desk.wait(named("n0.example.com"), 8, home(17), 0);

    let turned_away = desk.turned_away(1);

    let whose = turned_away.iter().map(|(_, to, share)| (*to, *share));
    assert_eq!(whose.collect::<Vec<_>>(), [(8, Share::Others)]);
}

#[test]
fn a_question_that_goes_on_for_nobody_but_the_memory_gives_its_place_up_too() {
    let mut desk = desk_that_knows(300);
    let (query, late_ms) = (PLAIN.query(), 2_000_000);
    desk.wait(query.clone(), 1, home(16), late_ms);
    assert_eq!(desk.handle_timeout(late_ms + STALE_AFTER_MS).len(), 1);
    for n in 0..15 {
        desk.wait(named(&format!("n{n}.example.com")), n, home(16), late_ms);
    }
    for n in 0..48 {
        let who = home(17 + n / 16);
        let name = format!("m{n}.example.com");
        let wait = desk.wait(named(&name), n.into(), who, late_ms);
        assert!(matches!(wait, Wait::Ask(_)), "{n}");
    }
    assert_eq!(desk.places.taken, 64);

    desk.wait(named("other.example.com"), 99, home(99), late_ms);
    while desk.out.questions != [2] {
        desk.out.questions.clear();
        let name = format!("o{}.example.com", desk.last);
        let wait = desk.wait(named(&name), 100, home(99), late_ms);
        assert!(matches!(wait, Wait::Ask(_)), "it was never given up");
    }

    assert_eq!(desk.by_key.len(), desk.asked.len() - desk.ending);
}

#[test]
fn as_many_as_wait_may_be_ending_and_then_nobody_is_let_in_until_some_have() {
    let mut desk = small_desk();
    let mut asked = Vec::new();
    let mut full = None;
    for n in 0..60 {
        let query = named(&format!("n{n}.example.com"));
        // Each gives all of its own up before the next one comes.
        match desk.wait(query, n, home(16 + (n / 4) as u8), 0) {
            Wait::Ask(number) => asked.push(number),
            Wait::Joined => {}
            Wait::Full(_) => full = full.or(Some(n)),
        }
    }
    assert!(desk.asked.len() <= BOUNDS_OF_SMALL.on_their_way());
    assert!(desk.ending <= 8 && full.is_some());

    for number in asked {
        desk.answered(number, Heard::Silence, 0);
    }

    assert_eq!((desk.ending, desk.places.taken), (0, 0));
    assert!(desk.asked.is_empty() && desk.by_key.is_empty());
}

const BOUNDS_OF_SMALL: Bounds = Bounds {
    waiting: 8,
    ..BOUNDS
};
