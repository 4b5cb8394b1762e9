//! When a drain is over: whoever can has moved to another gateway and tunnels have fallen silent, or the time is up.
//! Pure; control asks it.

use std::time::Duration;

use tokio::time::Instant;

/// Routers keep talking to a gateway that is going away for as long as they have something to say; this
/// much silence means that they are done or have moved.
const SILENCE: Duration = Duration::from_secs(1);

/// A drain under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drain {
    deadline: Instant,
    carried: u64,
    movable: usize,
    silent_since: Instant,
}

impl Drain {
    /// Begins with `carried` bytes on the counters, and so many routers that have another gateway to go to.
    pub(crate) fn begin(now: Instant, limit: Duration, carried: u64, movable: usize) -> Self {
        Self {
            deadline: now + limit,
            carried,
            movable,
            silent_since: now,
        }
    }

    /// Takes note of the counters, and of how many are still to move.
    pub(crate) fn note(&mut self, now: Instant, carried: u64, movable: usize) {
        self.movable = movable;
        if carried != self.carried {
            self.carried = carried;
            self.silent_since = now;
        }
    }

    /// Whether there is nothing left to wait for.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        let is_silent = now.saturating_duration_since(self.silent_since) >= SILENCE;
        now >= self.deadline || (self.movable == 0 && is_silent)
    }

    /// How long it may last yet.
    pub(crate) fn left(&self, now: Instant) -> Duration {
        self.deadline.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_waits_for_silence_but_not_beyond_its_limit() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut drain = Drain::begin(start, Duration::from_secs(3), 100, 0);

        drain.note(at(900), 200, 0);
        assert!(!drain.is_over(at(1_500)), "bytes moved 600 ms ago");
        assert!(drain.is_over(at(1_900)));

        drain.note(at(2_900), 300, 0);
        assert!(!drain.is_over(at(2_950)));
        assert!(drain.is_over(at(3_000)), "the limit holds");
    }

    #[test]
    fn routers_that_can_move_are_waited_for_however_silent_they_are() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut drain = Drain::begin(start, Duration::from_secs(5), 100, 2);

        drain.note(at(2_000), 100, 1);
        assert!(!drain.is_over(at(2_000)));
        drain.note(at(2_100), 100, 0);
        assert!(drain.is_over(at(2_100)));
        assert_eq!(drain.left(at(4_000)), Duration::from_secs(1));
    }
}
