//! The two clocks a router has: one that counts from boot and never steps, and the calendar, which may be wrong
//! until NTP has run. What the calendar may be trusted for is `trust`'s business.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time since boot, including time asleep; it never goes back.
#[must_use]
pub fn since_boot() -> Duration {
    let zero = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let read = read_clock(libc::CLOCK_BOOTTIME).or_else(|| read_clock(libc::CLOCK_MONOTONIC));
    let t = read.unwrap_or(zero);
    Duration::new(
        u64::try_from(t.tv_sec).unwrap_or(0),
        u32::try_from(t.tv_nsec).unwrap_or(0),
    )
}

/// The time since 1970 by the system's calendar; zero when it stands before.
#[must_use]
pub fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Seconds since 1970 by the system's calendar; 0 when it stands before 1970.
#[must_use]
pub fn unix_s() -> u64 {
    since_1970().as_secs()
}

#[expect(unsafe_code, reason = "clock_gettime has no safe form in std")]
fn read_clock(id: libc::clockid_t) -> Option<libc::timespec> {
    let mut t = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `t` is a valid, writable timespec for the whole call.
    let status = unsafe { libc::clock_gettime(id, &raw mut t) };
    (status == 0).then_some(t)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_does_not_go_back() {
        let first = since_boot();

        let second = since_boot();

        assert!(first > Duration::ZERO && second >= first);
    }

    #[test]
    fn the_calendar_agrees_with_the_standard_library() {
        let std = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();

        assert!(unix_s().abs_diff(std) <= 1);
    }
}
