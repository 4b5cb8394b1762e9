//! How often each source may ask, by nothing that tells who it is: a fixed table of times under a hash whose key is made
//! with it. All workers share it without a lock.
//!
//! A bucket is one number, the time at which it will be full again (GCRA). Where a set of buckets has no room for one more
//! source, the one that is nearest to being full makes way, which is mostly one that is full, and then nothing is lost.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::Server;
use crate::listen::homes::HOME_BITS;
use crate::listen::{Homes, Rate};

/// Sources of a busy second: a mebibyte.
const BUCKETS: usize = 1 << 17;
/// Of one set, in half a cache line.
const WAYS: usize = 4;
const SETS: u64 = (BUCKETS / WAYS) as u64;
/// The rest is the source's mark: eight years of microseconds.
const TIME_BITS: u32 = 48;
const TIME: u64 = (1 << TIME_BITS) - 1;
/// Another worker has changed the bucket meanwhile: rare, and the second time is rarer.
const TRIES: usize = 4;
const MICROS: u64 = 1_000_000;

/// The rates of all sources.
#[derive(Debug)]
pub struct Rates {
    keyed: RandomState,
    homes: Homes,
    buckets: Box<[AtomicU64]>,
    began: Instant,
    step_us: u64,
    depth_us: u64,
}

impl Rates {
    /// The same rate for each home.
    #[must_use]
    pub fn new(rate: Rate, homes: Homes) -> Self {
        let step_us = (MICROS / u64::from(rate.per_second.get())).max(1);
        Self {
            keyed: RandomState::new(),
            homes,
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            began: Instant::now(),
            step_us,
            depth_us: step_us * u64::from(rate.burst.get()),
        }
    }

    /// Those that a server is to keep.
    pub(super) fn of(server: &Server) -> Option<Self> {
        let rate = server.limits.rate?;
        Some(Self::new(rate, server.homes.clone()))
    }

    /// The time as [`admit`](Self::admit) takes it.
    #[must_use]
    pub fn moment_us(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.began).as_micros();
        // The first second is spent, so that an empty bucket is in the past.
        u64::try_from(since).map_or(TIME, |since| since + MICROS) & TIME
    }

    /// Whether a source may ask once more; if so, that was it.
    #[must_use]
    pub fn admit(&self, source: IpAddr, now_us: u64) -> bool {
        let hash = self.keyed.hash_one(self.homes.of(source, HOME_BITS));
        let mark = hash & !TIME;
        let start = usize::try_from(hash % SETS).unwrap_or_default() * WAYS;
        let set = self.buckets.get(start..start + WAYS).unwrap_or_default();
        for _ in 0..TRIES {
            let Some((bucket, seen)) = pick(set, mark) else {
                return true;
            };
            let full_at = if seen & !TIME == mark { seen & TIME } else { 0 };
            let full_at = full_at.max(now_us) + self.step_us;
            if full_at - now_us > self.depth_us {
                return false;
            }
            let (order, new) = (Ordering::Relaxed, mark | (full_at & TIME));
            if bucket.compare_exchange(seen, new, order, order).is_ok() {
                return true;
            }
        }
        true
    }
}

/// The bucket of a mark, or the one of its set that is full first, and what it holds.
fn pick(set: &[AtomicU64], mark: u64) -> Option<(&AtomicU64, u64)> {
    let seen = || {
        set.iter()
            .map(|bucket| (bucket, bucket.load(Ordering::Relaxed)))
    };
    let own = seen().find(|(_, seen)| seen & !TIME == mark);
    own.or_else(|| seen().min_by_key(|(_, seen)| seen & TIME))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    fn rates(per_second: u32, burst: u32) -> Rates {
        let rate = Rate {
            per_second: per_second.try_into().unwrap(),
            burst: burst.try_into().unwrap(),
        };
        Rates::new(rate, Homes::within([("fd65::1".parse().unwrap(), 48)]))
    }

    fn asked(rates: &Rates, source: &str, times: usize, now: Instant) -> usize {
        let source = source.parse().unwrap();
        let now_us = rates.moment_us(now);
        (0..times).filter(|_| rates.admit(source, now_us)).count()
    }

    #[test]
    fn who_asks_at_once_gets_the_burst_and_no_more() {
        let rates = rates(10, 25);
        let now = Instant::now();

        assert_eq!(asked(&rates, "10.64.0.7", 1_000, now), 25);
        assert_eq!(asked(&rates, "10.64.0.7", 1_000, now), 0);
        let later = now + Duration::from_millis(300);
        assert_eq!(asked(&rates, "10.64.0.7", 1_000, later), 3);
    }

    #[test]
    fn in_no_window_is_more_than_rate_and_burst_and_who_keeps_to_it_loses_nothing() {
        let rates = rates(50, 5);
        let began = Instant::now();
        let at = |ms: u64| rates.moment_us(began + Duration::from_millis(ms));

        let kept = (0..500).filter(|n| rates.admit([10, 64, 0, 8].into(), at(n * 20)));
        assert_eq!(kept.count(), 500);
        let flood = (0..10_000).filter(|n| rates.admit([10, 64, 0, 9].into(), at(*n)));
        assert_eq!(flood.count(), 5 + 499);
    }

    #[test]
    fn a_home_is_one_source_whichever_of_its_addresses_asks_and_another_one_is_not() {
        let rates = rates(1, 2);
        let now = Instant::now();

        assert_eq!(asked(&rates, "fd64:0:0:1::1", 1, now), 1);
        assert_eq!(asked(&rates, "fd64:0:0:1:ffff::2", 2, now), 1);
        assert_eq!(asked(&rates, "fd64:0:0:2::1", 2, now), 2);
    }

    #[test]
    fn homes_behind_the_tunnel_have_one_address_each_and_take_nothing_from_their_neighbours() {
        let rates = rates(1, 2);
        let now = Instant::now();

        assert_eq!(asked(&rates, "fd65::10", 9, now), 2);
        assert_eq!(asked(&rates, "fd65::11", 9, now), 2);
    }

    #[test]
    fn a_crowd_of_sources_takes_no_more_room_and_a_flood_in_it_is_limited_still() {
        let rates = rates(1, 3);
        let now = Instant::now();
        let mut flood = 0;

        for n in 0..200_000_u32 {
            let source = Ipv4Addr::from_bits(0x0a00_0000 + n);
            assert!(rates.admit(source.into(), rates.moment_us(now)));
            if n % 100 == 0 {
                flood += asked(&rates, "192.0.2.1", 1, now);
            }
        }

        assert_eq!(rates.buckets.len(), BUCKETS);
        assert_eq!(flood, 3, "of 2,000: the emptiest bucket makes way last");
    }
}
