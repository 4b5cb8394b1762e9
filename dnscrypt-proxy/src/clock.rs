//! Where the shell gets the time of day from. A router without a battery passes its own floor-bounded
//! clock; tests pass one they can turn.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Answers with the unix time in seconds.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The operating system's clock.
#[must_use]
pub fn system() -> Clock {
    Arc::new(|| {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
    })
}
