//! What time it is for a router that may have started in 1970.
//!
//! The calendar is believed unless a quorum has sworn that a later time is past; then that time, plus what has passed
//! since it was learnt, is used.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use netio::clock::{since_boot, unix_s};

/// The agent's clock; copies share the floor.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    // Written once per renewal by the control loop, read by the resolver's stub: nobody waits.
    floor: Arc<Mutex<Floor>>,
}

#[derive(Debug, Clone, Copy)]
struct Floor {
    unix_s: u64,
    learnt: Duration,
}

impl Clock {
    /// A clock that knows that `unix_s` is past.
    pub(crate) fn with_floor(unix_s: u64) -> Self {
        let floor = Floor {
            unix_s,
            learnt: since_boot(),
        };
        Self {
            floor: Arc::new(Mutex::new(floor)),
        }
    }

    /// Learns of a later time that is past; an earlier one changes nothing.
    pub(crate) fn raise(&self, unix_s: u64) {
        let now = since_boot();
        let mut floor = self.floor.lock().unwrap_or_else(PoisonError::into_inner);
        if unix_s > floor.at(now) {
            *floor = Floor {
                unix_s,
                learnt: now,
            };
        }
    }

    /// Seconds since 1970.
    pub(crate) fn now(&self) -> u64 {
        let floor = *self.floor.lock().unwrap_or_else(PoisonError::into_inner);
        unix_s().max(floor.at(since_boot()))
    }
}

impl Floor {
    fn at(&self, since_boot: Duration) -> u64 {
        self.unix_s
            .saturating_add(since_boot.saturating_sub(self.learnt).as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calendar_behind_the_floor_is_not_believed_and_the_floor_goes_on() {
        let far = unix_s() + 1_000_000;
        let clock = Clock::with_floor(far);
        let floor = Floor {
            unix_s: far,
            learnt: Duration::from_secs(10),
        };

        assert!(clock.now() >= far);
        assert_eq!(floor.at(Duration::from_secs(70)), far + 60);
        assert_eq!(floor.at(Duration::from_secs(5)), far);
    }

    #[test]
    fn a_calendar_ahead_of_the_floor_is_believed() {
        let clock = Clock::with_floor(0);

        clock.raise(1);

        assert!(clock.now().abs_diff(unix_s()) <= 1);
    }
}
