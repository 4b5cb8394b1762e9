//! When to ask the provisioning server again.

use std::time::Duration;

use rand_core::{OsRng, RngCore};

/// The first retry comes within this.
const FIRST_RETRY: Duration = Duration::from_secs(2);
/// A server that was away for hours is not run over when it is back: at 1,000,000 routers this is 1,100 a second.
const LONGEST_RETRY: Duration = Duration::from_secs(15 * 60);
/// How often a router that was refused for good asks whether the provider has changed its mind.
const RARE_RETRY: Duration = Duration::from_secs(6 * 3600);
/// A lease is renewed after this part of its life: daily for one of 7 days.
const RENEWALS_PER_LIFE: u64 = 7;

/// Growing pauses between attempts. There is no end: a router without a lease has nothing else to do.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause after one more failure: doubled each time up to a cap, and then between half and all of it by chance.
    pub(crate) fn next(&mut self) -> Duration {
        let doubled = FIRST_RETRY.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        by_chance(doubled.min(LONGEST_RETRY))
    }

    /// Forgets the failures.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// The pause before asking again after a refusal that only the provider can lift.
pub(crate) fn rarely() -> Duration {
    by_chance(RARE_RETRY)
}

/// How long to wait before a lease is renewed; zero when it is due.
pub(crate) fn until_renewal(not_before: u64, not_after: u64, now: u64) -> Duration {
    let pause_s = not_after.saturating_sub(not_before) / RENEWALS_PER_LIFE;
    let due = not_before.saturating_add(pause_s);
    let early = by_chance(Duration::from_secs(pause_s / 4));
    Duration::from_secs(due.saturating_sub(now)).saturating_sub(early)
}

/// Whether a lease is old enough to be renewed with a new key.
pub(crate) fn is_due(not_before: u64, not_after: u64, now: u64) -> bool {
    let pause_s = not_after.saturating_sub(not_before) / RENEWALS_PER_LIFE;
    // As early as `until_renewal` ever says.
    now >= not_before.saturating_add(pause_s - pause_s / 4)
}

/// Between half and all of `longest`.
pub(crate) fn by_chance(longest: Duration) -> Duration {
    let share = f64::from(OsRng.next_u32()) / f64::from(u32::MAX);
    longest.mul_f64(0.5 + share / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_start_again_after_a_success() {
        let mut backoff = Backoff::default();

        for doubling in 0..40 {
            let longest = FIRST_RETRY
                .saturating_mul(1 << doubling.min(16))
                .min(LONGEST_RETRY);
            let pause = backoff.next();
            assert!(
                pause <= longest && pause >= longest / 2,
                "{doubling}: {pause:?}"
            );
        }
        backoff.reset();
        assert!(backoff.next() <= FIRST_RETRY);
    }

    #[test]
    fn a_week_is_renewed_after_about_a_day_and_an_old_lease_at_once() {
        const DAY: u64 = 86_400;
        let begin = 1_000_000;

        let fresh = until_renewal(begin, begin + 7 * DAY, begin);
        let old = until_renewal(begin, begin + 7 * DAY, begin + 3 * DAY);

        assert!(fresh <= Duration::from_secs(DAY) && fresh >= Duration::from_secs(DAY * 3 / 4));
        assert_eq!(old, Duration::ZERO);
    }

    #[test]
    fn a_lease_that_ends_before_it_begins_is_renewed_at_once() {
        assert_eq!(until_renewal(10, 5, 10), Duration::ZERO);
    }
}
