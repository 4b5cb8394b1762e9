//! Which of two WANs the tunnel uses: the first while it works, the second meanwhile, and back without flapping.
//!
//! ```text
//!   First ── no way, or nobody answers ──▶ Second
//!     ▲ ▲── first has had a way for STEADY ──┤  (when the way was what failed)
//!     │ └── tried after a pause that grows ──┘  (when nobody answered)
//!     └──▶ Second again when a try is not answered within TRIAL
//! ```

use std::time::{Duration, Instant};

/// A link that was lost must stand this long before the tunnel goes back to it.
const STEADY: Duration = Duration::from_secs(10);
/// A first WAN on which nobody answered is tried again after this, then after twice as long, up to the most.
const RETRY: Duration = Duration::from_secs(60);
const RETRY_MOST: Duration = Duration::from_secs(900);
/// A handshake over it takes at most this: three initiations would take longer, but the home waits meanwhile.
const TRIAL: Duration = Duration::from_secs(3);

/// A WAN by its place in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// `wan.interface`.
    First,
    /// `wan.backup`.
    Second,
}

/// Which of them can be used: each has a link and a way to the gateway, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usable {
    pub(crate) first: bool,
    pub(crate) second: bool,
}

/// Why the second is in use, and when the first is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    First,
    /// Being tried while the second works; the verdict is due then.
    Trial(Instant),
    /// The first has no way; it has had one again since then.
    Lost(Option<Instant>),
    /// Nobody answered over the first; it is tried then.
    Silent(Instant),
}

/// The choice between two WANs.
#[derive(Debug)]
pub(crate) struct Choice {
    state: State,
    usable: Usable,
    pause: Duration,
}

impl Choice {
    /// Begins with the first.
    pub(crate) fn new() -> Self {
        Self {
            state: State::First,
            usable: Usable {
                first: true,
                second: false,
            },
            pause: RETRY,
        }
    }

    /// The WAN in use.
    pub(crate) fn in_use(&self) -> Which {
        match self.state {
            State::First | State::Trial(_) => Which::First,
            State::Lost(_) | State::Silent(_) => Which::Second,
        }
    }

    /// Takes what the kernel says about the two.
    pub(crate) fn handle_usable(&mut self, usable: Usable, now: Instant) {
        self.usable = usable;
        self.state = match self.state {
            State::First | State::Trial(_) if !usable.first && usable.second => State::Lost(None),
            State::Lost(_) | State::Silent(_) if !usable.second && usable.first => State::First,
            State::Lost(since) => State::Lost(usable.first.then(|| since.unwrap_or(now))),
            State::First | State::Trial(_) | State::Silent(_) => self.state,
        };
        self.handle_timeout(Answered::No, now);
    }

    /// Nobody answers over the WAN in use.
    pub(crate) fn handle_silence(&mut self, now: Instant) {
        self.state = match self.in_use() {
            Which::First if self.usable.second => self.wait_longer(now),
            Which::Second if self.usable.first => State::First,
            Which::First | Which::Second => self.state,
        };
    }

    /// Does what is due; `answered` is whether a handshake was answered since the try began.
    pub(crate) fn handle_timeout(&mut self, answered: Answered, now: Instant) {
        if self.poll_timeout().is_none_or(|at| now < at) {
            return;
        }
        self.state = match (self.state, answered) {
            (State::Trial(_), Answered::Yes) => {
                self.pause = RETRY;
                State::First
            }
            (State::Trial(_), Answered::No) if self.usable.second => self.wait_longer(now),
            (State::Silent(_), _) if self.usable.first => State::Trial(now + TRIAL),
            (State::Silent(_), _) => State::Lost(None),
            (State::Trial(_) | State::Lost(_) | State::First, _) => State::First,
        };
    }

    /// When [`Choice::handle_timeout`] is to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::First | State::Lost(None) => None,
            State::Lost(Some(since)) => Some(since + STEADY),
            State::Trial(at) | State::Silent(at) => Some(at),
        }
    }

    /// Since when the first is being tried.
    pub(crate) fn trial_since(&self) -> Option<Instant> {
        match self.state {
            State::Trial(until) => Some(until - TRIAL),
            State::First | State::Lost(_) | State::Silent(_) => None,
        }
    }

    fn wait_longer(&mut self, now: Instant) -> State {
        let at = now + self.pause;
        self.pause = (self.pause * 2).min(RETRY_MOST);
        State::Silent(at)
    }
}

/// Whether a handshake was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answered {
    Yes,
    No,
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Usable = Usable {
        first: true,
        second: true,
    };
    const ONLY_SECOND: Usable = Usable {
        first: false,
        second: true,
    };
    const ONLY_FIRST: Usable = Usable {
        first: true,
        second: false,
    };

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn silence_and_a_lost_link_change_nothing_without_a_second_wan() {
        let now = Instant::now();
        let mut choice = Choice::new();

        choice.handle_usable(ONLY_FIRST, now);
        choice.handle_silence(now);
        choice.handle_usable(
            Usable {
                first: false,
                second: false,
            },
            now,
        );

        assert_eq!(choice.in_use(), Which::First);
    }

    #[test]
    fn a_lost_first_is_left_at_once_and_taken_again_only_after_it_stood_for_a_while() {
        let start = Instant::now();
        let mut choice = Choice::new();

        choice.handle_usable(ONLY_SECOND, start);
        assert_eq!(choice.in_use(), Which::Second);
        choice.handle_usable(BOTH, after(start, 1));
        choice.handle_usable(ONLY_SECOND, after(start, 5));
        choice.handle_usable(BOTH, after(start, 6));
        choice.handle_timeout(Answered::No, after(start, 12));
        assert_eq!(choice.in_use(), Which::Second, "it flaps");
        choice.handle_timeout(Answered::No, after(start, 16));

        assert_eq!(choice.in_use(), Which::First);
    }

    #[test]
    fn a_silent_first_is_tried_with_pauses_that_grow_and_kept_once_it_answers() {
        let start = Instant::now();
        let mut choice = Choice::new();
        choice.handle_usable(BOTH, start);

        choice.handle_silence(start);
        assert_eq!(choice.in_use(), Which::Second);
        let first_try = choice.poll_timeout().unwrap();
        choice.handle_timeout(Answered::No, first_try);
        assert_eq!(
            (choice.in_use(), choice.trial_since()),
            (Which::First, Some(first_try))
        );
        let verdict = choice.poll_timeout().unwrap();
        choice.handle_timeout(Answered::No, verdict);
        assert_eq!(choice.in_use(), Which::Second);
        let second_try = choice.poll_timeout().unwrap();
        assert_eq!(second_try - verdict, RETRY * 2);
        choice.handle_timeout(Answered::No, second_try);
        choice.handle_timeout(Answered::Yes, second_try + TRIAL);

        assert_eq!(
            (choice.in_use(), choice.poll_timeout()),
            (Which::First, None)
        );
    }

    #[test]
    fn the_second_is_left_when_it_loses_its_way_or_falls_silent() {
        let start = Instant::now();
        for is_silent in [true, false] {
            let mut choice = Choice::new();
            choice.handle_usable(BOTH, start);
            choice.handle_silence(start);

            if is_silent {
                choice.handle_silence(after(start, 7));
            } else {
                choice.handle_usable(ONLY_FIRST, after(start, 7));
            }

            assert_eq!(choice.in_use(), Which::First);
        }
    }
}
