use super::*;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// One that has answered so often, each time after so long.
fn measured(took: Duration, times: u32, now: Instant) -> Standing {
    let mut standing = Standing::default();
    for _ in 0..times {
        standing.asked(now);
        standing.heard(Some(took), now);
        standing.ended();
    }
    standing
}

#[tokio::test]
async fn who_is_not_asked_is_not_silent_and_who_answers_anybody_is_not_either() {
    let start = Instant::now();
    let mut standing = Standing::default();
    assert!(!standing.is_silent(start + ms(10_000)));

    standing.asked(start);
    standing.asked(start);
    standing.heard(None, start + ms(900));
    standing.ended();

    assert!(!standing.is_silent(start + ms(1_800)));
    assert!(!standing.is_unheard_since(start));
    assert!(standing.is_silent(start + ms(1_900)));
    standing.ended();
    assert!(!standing.is_silent(start + ms(10_000)));
}

#[tokio::test]
async fn being_outpaced_is_no_failure_and_makes_slower() {
    let start = Instant::now();
    let mut standing = measured(ms(10), 20, start);
    let before = standing.speed();

    for n in 0..100 {
        let now = start + ms(n * 20);
        standing.asked(now);
        assert!(!standing.outpaced(ms(60), now), "after {n}");
        standing.ended();
        standing.asked(now);
        standing.heard(Some(ms(70)), now);
        standing.ended();
    }

    assert!(!standing.is_down());
    assert!(standing.speed() > before);
    assert!(standing.late_after() > ms(60));
}

#[tokio::test]
async fn silence_shows_in_one_long_wait_or_in_many_short_ones() {
    let start = Instant::now();
    let mut waiting = measured(ms(10), 20, start);
    let mut outpaced = measured(ms(10), 20, start);

    waiting.asked(start);
    let long = waiting.outpaced(ms(1_000), start + ms(1_000));
    let short: Vec<bool> = (0..5)
        .map(|n| {
            let now = start + ms(n * 70);
            outpaced.asked(now);
            let silent = outpaced.outpaced(ms(50), now);
            outpaced.ended();
            silent
        })
        .collect();

    assert!(long);
    assert_eq!(short.iter().filter(|silent| **silent).count(), 1);
    assert!(short[4]);
}

#[tokio::test]
async fn a_burst_of_late_answers_is_not_silence() {
    let start = Instant::now();
    let mut standing = measured(ms(10), 20, start);

    let silent = (0..100).any(|_| standing.outpaced(ms(50), start + ms(50)));

    assert!(!silent);
}

#[tokio::test]
async fn a_resolver_that_failed_is_watched_by_one_until_it_is_up() {
    let now = Instant::now();
    let mut standing = Standing::default();

    assert_eq!(standing.failed("no answer".to_owned()), Watch::Begin);
    assert_eq!(standing.failed("no answer".to_owned()), Watch::Goes);
    assert_eq!(standing.keep_watch(now), Some(0));
    standing.recovered();
    assert!(!standing.is_down());
    assert_eq!(standing.failed("no answer".to_owned()), Watch::Goes);
    assert_eq!(standing.keep_watch(now), Some(1));
    standing.served();

    assert_eq!(standing.keep_watch(now), None);
    assert_eq!(standing.failed("no answer".to_owned()), Watch::Begin);
    assert_eq!(standing.keep_watch(now), Some(0));
}

#[tokio::test]
async fn a_refusal_is_about_its_question_unless_there_is_nothing_else() {
    let mut standing = Standing::default();
    let refused = |standing: &mut Standing, times: u32| (0..times).any(|_| standing.refused());

    for _ in 0..10 {
        assert!(!refused(&mut standing, MOST_REFUSALS - 1));
        standing.served();
    }

    assert!(refused(&mut standing, MOST_REFUSALS));
}

#[tokio::test]
async fn a_pause_for_what_cannot_be_used_is_over_with_its_reason() {
    let now = Instant::now();
    let mut standing = Standing::default();
    let _watch = standing.failed("no certificate".to_owned());
    for _ in 0..20 {
        standing.unusable();
    }
    assert_eq!(standing.keep_watch(now), Some(MOST_UNUSABLE));

    standing.away();
    assert_eq!(standing.keep_watch(now), Some(0));
    standing.unusable();
    standing.forget();
    let _watch = standing.failed("no answer".to_owned());

    assert_eq!(standing.keep_watch(now), Some(0));
}

#[tokio::test]
async fn what_was_measured_long_ago_is_measured_again_once() {
    let start = Instant::now();
    let mut standing = measured(ms(10), 1, start);

    assert!(!standing.wants_measuring(start + ms(59_000)));
    assert!(standing.wants_measuring(start + ms(60_000)));
    assert!(!standing.wants_measuring(start + ms(60_001)));
}

#[tokio::test]
async fn an_answer_is_late_after_nineteen_of_twenty_and_within_bounds() {
    let now = Instant::now();

    assert_eq!(Standing::default().late_after(), UNMEASURED);
    assert_eq!(measured(ms(1), 50, now).late_after(), LATE_AFTER[0]);
    assert_eq!(measured(ms(3_000), 50, now).late_after(), LATE_AFTER[1]);
    let mut varied = measured(ms(100), 50, now);
    for took in [80, 120].into_iter().cycle().take(50) {
        varied.heard(Some(ms(took)), now);
    }
    assert!((ms(130)..ms(220)).contains(&varied.late_after()));
}

#[tokio::test]
async fn equals_are_of_one_class_and_twice_as_slow_is_slower() {
    let now = Instant::now();
    let speed = |took| measured(took, 1, now).speed();

    assert_eq!(speed(ms(9)), speed(ms(10)));
    assert!(speed(ms(10)) < speed(ms(20)));
    assert!(speed(Duration::ZERO) < speed(ms(1)));
    assert_eq!(Standing::default().speed(), 0);
}

#[test]
fn one_question_of_ten_is_asked_twice_after_the_first_few() {
    let mut hedges = Hedges::default();

    let spent = (0..1_000)
        .filter(|_| {
            hedges.earn();
            hedges.spend()
        })
        .count();

    assert!((100..=111).contains(&spent), "{spent}");
}
