//! The time that handshakes may take from packets. Anybody can make messages that look like handshakes; whether one is
//! worth anything shows after it has been worked on.
//!
//! While packets wait, what comes to nothing may have a hundredth of the time and what does not a quarter. While none
//! wait, handshakes have what is left over, in turns short enough that the next packet hardly notices. But what comes to
//! nothing has a hundredth for as long as any worker is busy with packets: time that is left over here is taken from the
//! others, who share the machine's caches, pipelines and interrupts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_millis(10);
const MAX_WASTED: Duration = Duration::from_micros(100);
const MAX_USEFUL: Duration = Duration::from_micros(2_500);
/// About what one handshake takes.
const TURN: Duration = Duration::from_micros(250);
/// A worker is busy that has spent this much of a window on packets.
const BUSY: Duration = Duration::from_millis(1);
/// And is taken to be so for a while after, as packets come in bursts.
const BUSY_FOR: Duration = Duration::from_millis(50);

/// Whether any of a gateway's workers is busy with packets.
#[derive(Clone, Debug)]
pub(super) struct Rush {
    began: Instant,
    /// In microseconds after that.
    until: Arc<AtomicU64>,
}

impl Rush {
    /// Nobody is busy.
    pub(super) fn none(now: Instant) -> Self {
        Self {
            began: now,
            until: Arc::default(),
        }
    }

    fn note(&self, now: Instant) {
        let until = self.micros(now + BUSY_FOR);
        self.until.fetch_max(until, Ordering::Relaxed);
    }

    fn is_on(&self, now: Instant) -> bool {
        self.micros(now) < self.until.load(Ordering::Relaxed)
    }

    fn micros(&self, at: Instant) -> u64 {
        let after = at.saturating_duration_since(self.began);
        u64::try_from(after.as_micros()).unwrap_or(u64::MAX)
    }
}

/// Whether a message came to something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worth {
    /// It was answered, or handed to whom it is for.
    Something,
    /// It was dropped.
    Nothing,
}

/// What has been spent in the current window.
#[derive(Debug)]
pub(super) struct Budget {
    rush: Rush,
    since: Instant,
    packets: Duration,
    useful: Duration,
    wasted: Duration,
}

/// One turn of handshakes.
#[derive(Debug)]
pub(super) struct Turn {
    began: Instant,
    now: Instant,
    useful_left: Duration,
    wasted_left: Duration,
    useful: Duration,
    wasted: Duration,
}

impl Budget {
    pub(super) fn new(rush: Rush, now: Instant) -> Self {
        Self {
            rush,
            since: now,
            packets: Duration::ZERO,
            useful: Duration::ZERO,
            wasted: Duration::ZERO,
        }
    }

    /// The time from `woken` to `now` was spent on packets.
    pub(super) fn note_packets(&mut self, woken: Instant, now: Instant) {
        self.roll(now);
        self.packets += now.saturating_duration_since(woken);
        if self.packets >= BUSY {
            self.rush.note(now);
        }
    }

    /// Begins a window when the last one is over: what was spent in it no longer counts.
    fn roll(&mut self, now: Instant) {
        if now.saturating_duration_since(self.since) >= WINDOW {
            *self = Self::new(self.rush.clone(), now);
        }
    }

    /// Begins a turn, in which packets wait or do not.
    pub(super) fn turn(&mut self, now: Instant, packets_wait: bool) -> Turn {
        self.roll(now);
        let left = |is_short: bool, max: Duration, spent| {
            if is_short {
                max.saturating_sub(spent)
            } else {
                Duration::MAX
            }
        };
        let is_rush = packets_wait || self.rush.is_on(now);
        Turn {
            began: now,
            now,
            useful_left: left(packets_wait, MAX_USEFUL, self.useful),
            wasted_left: left(is_rush, MAX_WASTED, self.wasted),
            useful: Duration::ZERO,
            wasted: Duration::ZERO,
        }
    }

    /// Ends it, and says until when there is no time for another.
    pub(super) fn settle(&mut self, turn: Turn) -> Option<Instant> {
        self.useful += turn.useful;
        self.wasted += turn.wasted;
        (turn.wasted >= turn.wasted_left).then(|| self.since + WINDOW)
    }
}

impl Turn {
    /// Whether there is time for one more.
    pub(super) fn is_open(&self) -> bool {
        self.now.saturating_duration_since(self.began) < TURN
            && self.useful < self.useful_left
            && self.wasted < self.wasted_left
    }

    /// When the last message was done with.
    pub(super) fn now(&self) -> Instant {
        self.now
    }

    /// A message is done with.
    pub(super) fn note(&mut self, now: Instant, worth: Worth) {
        let spent = now.saturating_duration_since(self.now);
        self.now = now;
        match worth {
            Worth::Something => self.useful += spent,
            Worth::Nothing => self.wasted += spent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING_US: u64 = 2;
    const SOMETHING_US: u64 = 300;

    /// How many messages of one sort are taken in a second of turns that begin every 500 microseconds, each after this
    /// much work on packets; the loop rests when it is told to.
    fn taken(worth: Worth, packets_wait: bool, work: Duration, rush: Rush) -> u64 {
        let cost = match worth {
            Worth::Something => Duration::from_micros(SOMETHING_US),
            Worth::Nothing => Duration::from_micros(NOTHING_US),
        };
        let start = Instant::now();
        let mut budget = Budget::new(rush, start);
        let (mut count, mut rests_until) = (0, start);
        for turn in 0..2_000 {
            let woken = start + Duration::from_micros(500) * turn;
            let mut now = woken + work;
            budget.note_packets(woken, now);
            if woken < rests_until {
                continue;
            }
            let mut turn = budget.turn(now, packets_wait);
            while turn.is_open() {
                now += cost;
                turn.note(now, worth);
                count += 1;
            }
            rests_until = budget.settle(turn).unwrap_or(rests_until);
        }
        count
    }

    fn nobody() -> Rush {
        Rush::none(Instant::now())
    }

    #[test]
    fn what_comes_to_nothing_has_a_hundredth_of_the_time_while_packets_wait() {
        let percent = taken(Worth::Nothing, true, Duration::ZERO, nobody()) * NOTHING_US / 10_000;

        assert_eq!(percent, 1);
    }

    #[test]
    fn what_comes_to_nothing_has_a_hundredth_of_the_time_between_packets_that_take_a_tenth() {
        let percent_beside = |work| {
            let work = Duration::from_micros(work);
            taken(Worth::Nothing, false, work, nobody()) * NOTHING_US / 10_000
        };

        assert!((1..=2).contains(&percent_beside(60)));
        assert!(percent_beside(10) >= 40);
    }

    #[test]
    fn a_worker_without_packets_wastes_no_time_that_a_busy_one_needs_until_that_one_is_done() {
        let now = Instant::now();
        let rush = Rush::none(now);
        let (mut busy, mut idle) = (
            Budget::new(rush.clone(), now),
            Budget::new(rush.clone(), now),
        );
        busy.note_packets(now, now + BUSY);

        let rests_until = |idle: &mut Budget, now| {
            idle.note_packets(now, now);
            let mut turn = idle.turn(now, false);
            turn.note(now + MAX_WASTED, Worth::Nothing);
            idle.settle(turn)
        };

        let during = now + BUSY;
        assert_eq!(rests_until(&mut idle, during), Some(now + WINDOW));
        assert_eq!(rests_until(&mut idle, during + BUSY_FOR), None);
    }

    #[test]
    fn what_hides_among_packets_and_has_a_turn_of_its_own_each_time_has_no_more() {
        let start = Instant::now();
        let mut budget = Budget::new(nobody(), start);
        let (mut now, mut taken) = (start, 0_u64);
        for _ in 0..100_000 {
            now += Duration::from_micros(10);
            budget.note_packets(now, now);
            let mut turn = budget.turn(now, true);
            if turn.is_open() {
                taken += 1;
                now += Duration::from_micros(NOTHING_US);
                turn.note(now, Worth::Nothing);
            }
            budget.settle(turn);
        }

        let all_us = now.saturating_duration_since(start).as_micros();
        let percent = u128::from(taken * NOTHING_US * 100) / all_us;
        assert!(percent <= 1 && taken > 1_000, "{taken}, {percent} %");
    }

    #[test]
    fn a_handshake_among_the_first_packets_after_a_quiet_time_is_not_charged_for_a_crowd_before_it()
    {
        let start = Instant::now();
        let mut budget = Budget::new(nobody(), start);
        let mut crowd = budget.turn(start, true);
        crowd.note(start + MAX_WASTED, Worth::Nothing);
        budget.settle(crowd);

        assert!(!budget.turn(start + WINDOW / 2, true).is_open());
        assert!(budget.turn(start + WINDOW, true).is_open());
    }

    #[test]
    fn handshakes_have_a_quarter_of_the_time_while_packets_wait_and_more_while_none_do() {
        let percent = |packets_wait| {
            let taken = taken(Worth::Something, packets_wait, Duration::ZERO, nobody());
            taken * SOMETHING_US / 10_000
        };
        let (busy, idle) = (percent(true), percent(false));

        assert!((24..=28).contains(&busy), "{busy} %");
        assert!(idle >= 60, "{idle} %");
    }
}
