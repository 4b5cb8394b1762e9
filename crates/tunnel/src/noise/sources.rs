//! How many handshake messages one address may have worked on while there are more than can be afforded. What cookies
//! are for (whitepaper, section 5.3): who has shown one is where it says, and can be told to wait.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// One in so long, for one address.
const BETWEEN: Duration = Duration::from_millis(50);
/// And so many at once: homes behind one address of a carrier's NAT may come back together.
const AT_ONCE: u32 = 20;
/// Addresses that fall onto one place share what it is allowed. Nobody can choose where one falls.
const PLACES: usize = 4_096;

/// One place for many addresses: it never grows.
#[derive(Default)]
pub(super) struct Sources {
    hasher: RandomState,
    /// When each has waited enough for all that it was allowed; empty until there is need.
    paid: Vec<Instant>,
}

impl Sources {
    /// Whether a message from this address may be worked on, of which there is one fewer then.
    pub(super) fn take(&mut self, from: IpAddr, now: Instant) -> bool {
        if self.paid.is_empty() {
            self.paid = vec![now; PLACES];
        }
        let place = self.hasher.hash_one(network(from)) as usize % PLACES;
        let Some(paid) = self.paid.get_mut(place) else {
            return false;
        };
        let next = now.max(*paid) + BETWEEN;
        let is_allowed = next <= now + BETWEEN * AT_ONCE;
        if is_allowed {
            *paid = next;
        }
        is_allowed
    }
}

/// What one subscriber has: an address of IPv4, or the first half of one of IPv6.
fn network(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
    }
}
