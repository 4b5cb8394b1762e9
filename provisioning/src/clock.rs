//! The one place that reads the clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Unix seconds; a clock before 1970 reads as 0.
pub fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
