//! How many connections one source holds, so that nobody takes all places. A source is a keyed hash of a
//! network, with a key that dies with the process: no address is kept, and only while it is connected.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Many routers may stand behind one carrier-grade NAT; each needs a connection for a second.
pub(crate) const MAX_PER_SOURCE: u32 = 256;
/// What one customer of an IPv6 provider usually has.
const V6_PREFIX: u32 = 56;

/// Counts the connections of each source.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    key: RandomState,
    // Contended when connections begin and end; its size is bounded by the number of connections.
    held: Arc<Mutex<HashMap<u64, u32>>>,
}

impl Sources {
    /// Takes a place for one more connection, until the place is dropped.
    pub(crate) fn admit(&self, address: IpAddr) -> Option<Place> {
        let source = self.key.hash_one(network(address));
        let mut held = lock(&self.held);
        let count = held.entry(source).or_default();
        if *count >= MAX_PER_SOURCE {
            return None;
        }
        *count += 1;
        Some(Place {
            source,
            held: Arc::clone(&self.held),
        })
    }
}

/// One connection's place.
#[derive(Debug)]
pub(crate) struct Place {
    source: u64,
    held: Arc<Mutex<HashMap<u64, u32>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = lock(&self.held);
        if let Some(count) = held.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.source);
            }
        }
    }
}

fn lock(held: &Mutex<HashMap<u64, u32>>) -> MutexGuard<'_, HashMap<u64, u32>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> (128 - V6_PREFIX)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_refused_beyond_its_share_and_others_are_not() {
        let sources = Sources::default();
        let hoarder: IpAddr = "2001:db8:0:1::1".parse().unwrap();
        let same_customer = "2001:db8:0:ff::2".parse().unwrap();
        let other = "2001:db8:0:100::1".parse().unwrap();
        let mut places: Vec<Place> = (0..MAX_PER_SOURCE)
            .map(|_| sources.admit(hoarder).unwrap())
            .collect();

        assert!(sources.admit(same_customer).is_none());
        assert!(sources.admit(other).is_some());
        assert!(sources.admit("192.0.2.1".parse().unwrap()).is_some());

        places.pop();
        assert!(sources.admit(same_customer).is_some());
    }

    #[test]
    fn a_source_that_has_gone_is_forgotten() {
        let sources = Sources::default();
        drop(sources.admit("192.0.2.1".parse().unwrap()));

        assert!(lock(&sources.held).is_empty());
    }
}
