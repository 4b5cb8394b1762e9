//! What a lease may carry: for each direction a token bucket in bytes of inner packets. Packets beyond it are dropped, never
//! kept waiting. A frame that stands for many packets is charged packet by packet, as if each had come by itself.

use std::num::NonZeroU64;
use std::time::Instant;

use crate::offload::segment::Segments;

/// A bucket holds what comes in so long, which is more than a sender of TCP waits that lost the end of its window (Linux: 200 ms):
/// it finds what it missed in the meantime. Over five seconds the rate is exceeded by a twentieth at the most.
const BURST_MS: u64 = 250;
/// And at least the longest frame of a TUN device, so that a slow lease carries every packet.
const MIN_BURST_BYTES: u64 = 65_536;
/// More than any interface has. A bucket of so much is what 64 bits count, 184 ms.
const MAX_BITS_PER_S: u64 = 100_000_000_000;
/// A bucket counts in parts of a bit: what a rate of one bit a second yields in a nanosecond. So nothing is ever rounded.
const PARTS_PER_BIT: u64 = 1_000_000_000;
const PARTS_PER_BYTE: u64 = 8 * PARTS_PER_BIT;

/// Bits of inner packets in a second; none for as much as there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// From the internet.
    pub to_router: Option<NonZeroU64>,
    /// To the internet.
    pub from_router: Option<NonZeroU64>,
}

/// The buckets of one lease.
#[derive(Debug)]
pub(crate) struct Meter {
    rates: Rates,
    to_router: Option<Bucket>,
    from_router: Option<Bucket>,
}

impl Meter {
    /// The buckets of a lease that is limited. Those of its former terms hand over what they hold, so that a renewal gives
    /// nothing away.
    pub(crate) fn renewed(former: Option<&Self>, rates: Rates, now: Instant) -> Option<Self> {
        let renewed = |former: Option<&Bucket>, rate: Option<NonZeroU64>| {
            rate.map(|rate| Bucket::renewed(former, rate.get(), now))
        };
        (rates != Rates::default()).then(|| Self {
            rates,
            to_router: renewed(
                former.and_then(|meter| meter.to_router.as_ref()),
                rates.to_router,
            ),
            from_router: renewed(
                former.and_then(|meter| meter.from_router.as_ref()),
                rates.from_router,
            ),
        })
    }

    pub(crate) fn rates(&self) -> Rates {
        self.rates
    }

    /// How many packets of a frame may go to the router, counted from its first.
    pub(crate) fn take_to_router(&mut self, packets: &Segments<'_>, now: Instant) -> usize {
        let Some(bucket) = &mut self.to_router else {
            return packets.count();
        };
        bucket.fill(now);
        packets
            .lengths()
            .take_while(|len| bucket.take(*len))
            .count()
    }

    /// Whether a packet of the router may pass.
    pub(crate) fn take_from_router(&mut self, bytes: usize, now: Instant) -> bool {
        let Some(bucket) = &mut self.from_router else {
            return true;
        };
        bucket.fill(now);
        bucket.take(bytes)
    }
}

#[derive(Debug)]
struct Bucket {
    bits_per_s: u64,
    /// In parts of a bit, as what follows.
    level: u64,
    depth: u64,
    filled: Instant,
}

impl Bucket {
    fn renewed(former: Option<&Self>, bits_per_s: u64, now: Instant) -> Self {
        let bits_per_s = bits_per_s.min(MAX_BITS_PER_S);
        let depth = (bits_per_s / 1_000 * BURST_MS)
            .saturating_mul(PARTS_PER_BIT)
            .max(MIN_BURST_BYTES * PARTS_PER_BYTE);
        match former {
            Some(former) => Self {
                bits_per_s,
                level: former.level.min(depth),
                depth,
                filled: former.filled,
            },
            None => Self {
                bits_per_s,
                level: depth,
                depth,
                filled: now,
            },
        }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled);
        self.filled += passed;
        // Longer than it takes to fill any bucket.
        let nanos = u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX);
        let grown = nanos.saturating_mul(self.bits_per_s);
        self.level = self.level.saturating_add(grown).min(self.depth);
    }

    fn take(&mut self, bytes: usize) -> bool {
        let cost = (bytes as u64).saturating_mul(PARTS_PER_BYTE);
        match self.level.checked_sub(cost) {
            Some(left) => {
                self.level = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests;
