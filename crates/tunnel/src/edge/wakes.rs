//! The budget for waking peers.

use std::time::{Duration, Instant};

use crate::dropped::Dropped;

/// Peers that packets from the internet may wake in a second: each costs a handshake.
const WAKES_PER_S: u32 = 200;

/// The budget for waking peers in the current second.
pub(super) struct Wakes {
    since: Instant,
    left: u32,
}

impl Wakes {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            left: WAKES_PER_S,
        }
    }

    pub(super) fn take(&mut self, now: Instant) -> Result<(), Dropped> {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            *self = Self::new(now);
        }
        self.left = self.left.checked_sub(1).ok_or(Dropped::RateLimited)?;
        Ok(())
    }
}
