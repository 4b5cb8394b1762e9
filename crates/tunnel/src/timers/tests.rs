use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn secs(n: u64) -> Duration {
    SECOND * u32::try_from(n).unwrap()
}

/// Timers with a session of `role` made at the returned instant.
fn connected(pace: Pace, role: Role) -> (Timers, Instant) {
    let start = Instant::now();
    let mut timers = Timers::new(pace, start);
    timers.on_established(role, start, start);
    (timers, start)
}

/// When, after `start` and before `end`, [`Timers::due`] first says something; its caller would sleep until `next`.
fn first_due(timers: &mut Timers, start: Instant, end: Duration) -> Option<(Duration, Due)> {
    loop {
        let (at, _) = timers.next()?;
        if at >= start + end {
            return None;
        }
        if let Some(due) = timers.due(at) {
            return Some((at - start, due));
        }
    }
}

#[test]
fn nothing_is_due_at_rest() {
    let now = Instant::now();
    let mut timers = Timers::new(Pace::agent(secs(25)), now);

    assert_eq!(timers.next(), None);
    assert_eq!(timers.due(now + secs(3_600)), None);
}

#[test]
fn a_session_dies_at_180_s_whoever_made_it() {
    for role in [Role::Initiator, Role::Responder] {
        let (mut timers, start) = connected(Pace::EDGE, role);

        assert!(timers.session_since(start + secs(179)).is_some());
        assert_eq!(timers.session_since(start + secs(180)), None);
        assert_eq!(
            first_due(&mut timers, start, secs(400)),
            Some((secs(180), Due::Expired))
        );
        assert_eq!(timers.next(), None);
    }
}

#[test]
fn an_old_session_is_renewed_by_its_initiator_when_it_sends() {
    for (role, age, renewed) in [
        (Role::Initiator, 119, false),
        (Role::Initiator, 120, true),
        (Role::Responder, 170, false),
    ] {
        let (mut timers, start) = connected(Pace::EDGE, role);

        timers.on_data_sent(start + secs(age));

        assert_eq!(timers.attempt().is_some(), renewed, "{role:?} {age}");
    }
}

#[test]
fn an_old_session_is_renewed_by_its_initiator_when_it_receives() {
    for (role, age, renewed) in [
        (Role::Initiator, 164, false),
        (Role::Initiator, 165, true),
        (Role::Responder, 170, false),
    ] {
        let (mut timers, start) = connected(Pace::EDGE, role);

        timers.on_data_received(start + secs(age));

        assert_eq!(timers.attempt().is_some(), renewed, "{role:?} {age}");
    }
}

#[test]
fn an_agent_renews_even_what_it_answered_and_nobody_uses() {
    let (mut timers, start) = connected(Pace::agent(Duration::ZERO), Role::Responder);

    assert_eq!(
        first_due(&mut timers, start, secs(400)),
        Some((secs(165), Due::Handshake))
    );
}

#[test]
fn silence_after_data_starts_a_handshake_and_what_is_heard_ends_it() {
    let (mut timers, start) = connected(Pace::EDGE, Role::Responder);
    timers.on_data_sent(start + secs(1));
    timers.on_data_sent(start + secs(9));
    timers.on_keepalive_received(start + secs(10));
    timers.on_data_sent(start + secs(11));

    assert_eq!(
        first_due(&mut timers, start, secs(100)),
        Some((secs(26), Due::Handshake))
    );
}

#[test]
fn an_agent_is_less_patient_the_first_time_than_later() {
    let (mut timers, start) = connected(Pace::agent(Duration::ZERO), Role::Initiator);
    let mut waits = Vec::new();
    let mut now = start;
    for _ in 0..4 {
        timers.on_data_sent(now);
        let (after, due) = first_due(&mut timers, now, secs(60)).unwrap();
        assert_eq!(due, Due::Handshake);
        waits.push(after.as_secs());
        now += after;
        timers.on_established(Role::Initiator, now, now);
    }

    assert_eq!(waits, [3, 6, 12, 15]);
}

#[test]
fn who_has_heard_data_and_says_nothing_owes_a_keepalive_once() {
    let (mut timers, start) = connected(Pace::EDGE, Role::Responder);
    timers.on_data_received(start + secs(2));
    timers.on_data_received(start + secs(5));

    assert_eq!(
        first_due(&mut timers, start, secs(100)),
        Some((secs(12), Due::Keepalive))
    );
    timers.on_keepalive_sent(start + secs(12));
    assert_eq!(first_due(&mut timers, start, secs(100)), None);
}

#[test]
fn the_persistent_keepalive_counts_from_the_last_packet() {
    let (mut timers, start) = connected(Pace::agent(secs(25)), Role::Initiator);
    timers.on_data_sent(start + secs(10));
    timers.on_data_received(start + secs(11));
    timers.on_keepalive_sent(start + secs(20));

    assert_eq!(
        first_due(&mut timers, start, secs(100)),
        Some((secs(45), Due::Keepalive))
    );
}

/// The waits in milliseconds before each of the first tries, of which the `told`-th is answered by a cookie.
fn waits(pace: Pace, told: Option<usize>) -> Vec<u64> {
    let start = Instant::now();
    let mut timers = Timers::new(pace, start);
    let mut jitter = Jitter(7);
    timers.want_handshake(start);
    let mut now = start;
    let mut waits = Vec::new();
    for n in 0..8 {
        let (after, due) = first_due(&mut timers, now, secs(60)).unwrap();
        assert_eq!(due, Due::Handshake);
        now += after;
        waits.push(u64::try_from(after.as_millis()).unwrap());
        timers.on_initiation(&mut jitter, now);
        if told == Some(n) {
            timers.be_patient();
        }
    }
    assert_eq!(timers.attempt().unwrap().since, start);
    assert_eq!(waits[0], 0);
    waits
}

#[test]
fn retries_slow_down_and_stay_under_five_seconds() {
    let patient = Pace::agent(Duration::ZERO).patient();
    let standby = Pace::agent(Duration::ZERO).standby();
    for (pace, first) in [(patient, 1_000), (standby, 1_000), (Pace::EDGE, 4_600)] {
        let waits = waits(pace, None);
        assert!(
            (first..first + MAX_JITTER_MS).contains(&waits[1]),
            "{waits:?}"
        );
        assert!(
            waits[4..].iter().all(|wait| (4_600..5_000).contains(wait)),
            "{waits:?}"
        );
    }
}

#[test]
fn a_home_that_waits_for_its_gateway_tries_each_second_until_a_cookie_says_that_it_is_busy() {
    let eager = waits(Pace::agent(Duration::ZERO), None);
    let told = waits(Pace::agent(Duration::ZERO), Some(2));

    let second = 1_000..1_000 + MAX_JITTER_MS;
    assert!(eager[1..].iter().all(|w| second.contains(w)), "{eager:?}");
    assert!(told[1..4].iter().all(|w| second.contains(w)), "{told:?}");
    assert!(
        told[4..].iter().all(|wait| (4_600..5_000).contains(wait)),
        "{told:?}"
    );
}

#[test]
fn an_attempt_given_up_leaves_nothing_due() {
    let start = Instant::now();
    let mut timers = Timers::new(Pace::EDGE, start);
    timers.want_handshake(start);

    timers.give_up_attempt();

    assert_eq!(timers.next(), None);
}
