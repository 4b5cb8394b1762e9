//! When a drain is over: tunnels have fallen silent, or the time is up. Pure; control asks it.

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
    silent_since: Instant,
}

impl Drain {
    /// Begins with `carried` bytes on the counters.
    pub(crate) fn begin(now: Instant, limit: Duration, carried: u64) -> Self {
        Self {
            deadline: now + limit,
            carried,
            silent_since: now,
        }
    }

    /// Takes note of the counters.
    pub(crate) fn note(&mut self, now: Instant, carried: u64) {
        if carried != self.carried {
            self.carried = carried;
            self.silent_since = now;
        }
    }

    /// Whether there is nothing left to wait for.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        now >= self.deadline || now.saturating_duration_since(self.silent_since) >= SILENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_waits_for_silence_but_not_beyond_its_limit() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut drain = Drain::begin(start, Duration::from_secs(3), 100);

        drain.note(at(900), 200);
        assert!(!drain.is_over(at(1_500)), "bytes moved 600 ms ago");
        assert!(drain.is_over(at(1_900)));

        drain.note(at(2_900), 300);
        assert!(!drain.is_over(at(2_950)));
        assert!(drain.is_over(at(3_000)), "the limit holds");
    }
}
