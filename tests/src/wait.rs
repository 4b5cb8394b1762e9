//! Waiting on a condition, with a bound: the only place in the lab that lets time pass.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const POLL: Duration = Duration::from_millis(20);

/// Polls `ready` until it gives a value; fails with `what` and the last reason once `within` is over.
pub fn wait_until<T>(
    what: &str,
    within: Duration,
    mut ready: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        let last = match ready() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if start.elapsed() >= within {
            match last {
                Some(error) => bail!("{what}: not within {} s: {error:#}", within.as_secs_f32()),
                None => bail!("{what}: not within {} s", within.as_secs_f32()),
            }
        }
        std::thread::sleep(POLL);
    }
}

/// `wait_until` for a plain yes or no.
pub fn wait_for(what: &str, within: Duration, mut holds: impl FnMut() -> bool) -> Result<()> {
    wait_until(what, within, || Ok(holds().then_some(())))
}
