//! The time that handshakes may take from packets. Anybody can make messages that look like handshakes; whether one is
//! worth anything shows after it has been worked on.
//!
//! While packets wait, what comes to nothing may have a hundredth of the time and what does not a quarter. While none
//! wait, handshakes have what is left over, in turns short enough that the next packet hardly notices.

use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_millis(10);
const MAX_WASTED: Duration = Duration::from_micros(100);
const MAX_USEFUL: Duration = Duration::from_micros(2_500);
/// About what one handshake takes.
const TURN: Duration = Duration::from_micros(250);

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
    since: Instant,
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
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            useful: Duration::ZERO,
            wasted: Duration::ZERO,
        }
    }

    /// Begins a turn, in which packets wait or do not.
    pub(super) fn turn(&mut self, now: Instant, packets_wait: bool) -> Turn {
        if now.saturating_duration_since(self.since) >= WINDOW {
            *self = Self::new(now);
        }
        let left = |max: Duration, spent| {
            if packets_wait {
                max.saturating_sub(spent)
            } else {
                Duration::MAX
            }
        };
        Turn {
            began: now,
            now,
            useful_left: left(MAX_USEFUL, self.useful),
            wasted_left: left(MAX_WASTED, self.wasted),
            useful: Duration::ZERO,
            wasted: Duration::ZERO,
        }
    }

    /// Ends it.
    pub(super) fn settle(&mut self, turn: Turn) {
        self.useful += turn.useful;
        self.wasted += turn.wasted;
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

    /// How many messages of one sort are taken in a second of turns that begin every 500 microseconds.
    fn taken(worth: Worth, packets_wait: bool) -> u64 {
        let cost = match worth {
            Worth::Something => Duration::from_micros(SOMETHING_US),
            Worth::Nothing => Duration::from_micros(NOTHING_US),
        };
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let mut count = 0;
        for turn in 0..2_000 {
            let mut now = start + Duration::from_micros(500) * turn;
            let mut turn = budget.turn(now, packets_wait);
            while turn.is_open() {
                now += cost;
                turn.note(now, worth);
                count += 1;
            }
            budget.settle(turn);
        }
        count
    }

    #[test]
    fn what_comes_to_nothing_has_a_hundredth_of_the_time_while_packets_wait() {
        let percent = taken(Worth::Nothing, true) * NOTHING_US / 10_000;

        assert_eq!(percent, 1);
    }

    #[test]
    fn handshakes_have_a_quarter_of_the_time_while_packets_wait_and_more_while_none_do() {
        let busy = taken(Worth::Something, true) * SOMETHING_US / 10_000;
        let idle = taken(Worth::Something, false) * SOMETHING_US / 10_000;

        assert!((24..=28).contains(&busy), "{busy} %");
        assert!(idle >= 60, "{idle} %");
    }
}
