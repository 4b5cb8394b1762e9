use super::*;

const WORK: Line = Line {
    rtt: Some(Duration::from_millis(20)),
    is_at_work: true,
};
const IDLE: Line = Line {
    is_at_work: false,
    ..WORK
};

/// A path that takes packets up to `takes` and answers each after a round trip, for so long; the lengths that were tried.
fn run(probe: &mut Probe, line: Line, takes: u16, start: Instant, lasts: Duration) -> Vec<u16> {
    let (mut now, mut tried) = (start, Vec::new());
    while let Some(due) = probe.next(line) {
        now = due.unwrap_or(now).max(now);
        if now >= start + lasts {
            break;
        }
        for length in probe.handle_timeout(line, now) {
            tried.push(length);
            if length <= takes {
                let sequence = probe.sequence(length);
                assert!(probe.handle_answer(sequence, now + line.rtt.unwrap()));
            }
        }
    }
    tried
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn a_line_on_which_nothing_passes_says_nothing_of_lengths() {
    let start = Instant::now();
    let mut probe = Probe::new(1_420);
    let mut now = start;

    for _ in 0..100 {
        now = probe.next(WORK).unwrap().unwrap_or(now).max(now);
        probe.handle_timeout(WORK, now);
    }

    assert!(now > start + seconds(60));
    assert_eq!(probe.mtu(), 1_420);
}

#[test]
fn an_answer_of_another_way_or_beyond_the_link_changes_nothing() {
    let start = Instant::now();
    let mut probe = Probe::new(1_420);
    run(&mut probe, WORK, 1_280, start, seconds(10));
    let before = probe.sequence(1_400);
    probe.restart();

    assert!(probe.handle_answer(before, start));
    assert!(probe.handle_answer(probe.sequence(1_421), start));
    assert!(!probe.handle_answer(1_400, start), "an ask's");

    assert_eq!(probe.mtu(), 1_280);
}

#[test]
fn a_link_that_takes_no_more_than_ipv6_needs_is_not_probed() {
    let start = Instant::now();
    let mut probe = Probe::new(1_280);

    assert_eq!(run(&mut probe, WORK, 1_280, start, seconds(600)), []);
}

#[test]
fn an_idle_home_costs_one_check_and_no_wake_up() {
    let start = Instant::now();
    let mut probe = Probe::new(1_420);

    assert_eq!(
        run(&mut probe, IDLE, 1_420, start, seconds(600)),
        [1_420, 0]
    );
    assert_eq!(probe.next(IDLE), None);
}

#[test]
fn a_black_hole_is_left_within_a_second_and_measured_within_three() {
    for takes in [1_280, 1_290, 1_340, 1_372, 1_399, 1_412, 1_419] {
        let start = Instant::now();
        let mut probe = Probe::new(1_420);

        run(&mut probe, WORK, takes, start, seconds(1));
        assert!(probe.mtu() <= takes, "{takes}: {}", probe.mtu());
        run(&mut probe, WORK, takes, start + seconds(1), seconds(2));

        assert!(probe.mtu() <= takes, "{takes}: {}", probe.mtu());
        assert!(probe.mtu() + GRAIN > takes, "{takes}: {}", probe.mtu());
    }
}

#[test]
fn pppoe_is_found_by_itself_in_a_tunnel_over_either_family() {
    for (ceiling, outside) in [(1_440, 60), (1_420, 80)] {
        let start = Instant::now();
        let mut probe = Probe::new(ceiling);

        run(&mut probe, WORK, 1_492 - outside, start, seconds(3));

        assert_eq!(probe.mtu(), 1_492 - outside);
    }
}

#[test]
fn a_path_that_becomes_shorter_under_work_is_noticed_within_seconds() {
    let start = Instant::now();
    let mut probe = Probe::new(1_420);
    run(&mut probe, WORK, 1_420, start, seconds(60));
    assert_eq!(probe.mtu(), 1_420);

    run(&mut probe, WORK, 1_340, start + seconds(60), seconds(6));

    assert!((1_280..=1_340).contains(&probe.mtu()), "{}", probe.mtu());
}

#[test]
fn a_path_that_widens_is_used_again_after_two_minutes() {
    let start = Instant::now();
    let mut probe = Probe::new(1_420);
    run(&mut probe, WORK, 1_340, start, seconds(100));
    assert_eq!(probe.mtu(), 1_340);

    run(&mut probe, WORK, 1_420, start + seconds(100), seconds(30));

    assert_eq!(probe.mtu(), 1_420);
}

#[test]
fn a_black_hole_that_stays_costs_little() {
    let start = Instant::now();
    let mut probe = Probe::new(1_420);
    run(&mut probe, WORK, 1_340, start, seconds(10));

    let tried = run(&mut probe, WORK, 1_340, start + seconds(10), seconds(600));

    let bytes: usize = tried.iter().copied().map(usize::from).sum();
    assert!(bytes < 400_000, "{bytes} in ten minutes");
    assert_eq!(probe.mtu(), 1_340);
}

#[test]
fn a_jumbo_link_is_measured_in_a_few_rounds_of_a_few_packets() {
    let start = Instant::now();
    let mut probe = Probe::new(8_900);

    let tried = run(&mut probe, WORK, 1_337, start, seconds(6));

    assert_eq!(probe.mtu(), 1_336);
    assert!(tried.len() < 150, "{}", tried.len());
}
