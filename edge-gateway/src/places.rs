//! Places for what is open at the same time, in all and by source, and how much is counted of it.

mod arrivals;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dnscrypt_proxy::listen::Homes;

pub(crate) use arrivals::{over_begun_tls, over_quic, over_tls};

/// Most homes of the internet have so long a network, or a longer one.
const HOME_BITS: u32 = 56;

/// Adds to a figure; nobody decides anything by it, so that no order is needed.
pub(crate) fn count(figure: &AtomicU64, amount: usize) {
    figure.fetch_add(amount as u64, Ordering::Relaxed);
}

/// Sessions, or connections, at a time, in all and by source.
#[derive(Debug)]
pub(crate) struct Limits {
    max: usize,
    max_per_source: usize,
    homes: Homes,
    refused: Arc<AtomicU64>,
    // Taken at the beginning and end of each, by whichever task serves it.
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_source: HashMap<IpAddr, usize>,
}

impl Limits {
    /// `refused` counts those who find no place; `homes` says who is one source.
    pub(crate) fn new(
        (max, max_per_source): (usize, usize),
        homes: &Homes,
        refused: &Arc<AtomicU64>,
    ) -> Arc<Self> {
        Arc::new(Self {
            max,
            max_per_source,
            homes: homes.clone(),
            refused: Arc::clone(refused),
            open: Mutex::default(),
        })
    }

    /// How many there may be.
    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// A place for one more, given back when it is dropped.
    pub(crate) fn enter(self: &Arc<Self>, source: IpAddr) -> Option<Place> {
        let source = self.homes.of(source, HOME_BITS);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = open.by_source.get(&source).copied().unwrap_or(0);
        if open.total >= self.max || mine >= self.max_per_source {
            count(&self.refused, 1);
            return None;
        }
        open.by_source.insert(source, mine + 1);
        open.total += 1;
        Some(Place {
            limits: Arc::clone(self),
            source,
        })
    }
}

/// The right to one session, or one connection.
#[derive(Debug)]
pub(crate) struct Place {
    limits: Arc<Limits>,
    source: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self
            .limits
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        open.total -= 1;
        if let Some(mine) = open.by_source.get_mut(&self.source) {
            *mine -= 1;
            if *mine == 0 {
                open.by_source.remove(&self.source);
            }
        }
    }
}

/// Counts one more of what is open as long as it lives.
pub(crate) struct Counted<'f>(&'f AtomicU64);

impl<'f> Counted<'f> {
    pub(crate) fn new(open: &'f AtomicU64) -> Self {
        count(open, 1);
        Self(open)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_has_its_share_is_refused_and_others_are_not() {
        let refused = Arc::default();
        let limits = Limits::new((4, 2), &Homes::default(), &refused);
        let source = |text: &str| text.parse().unwrap();
        let _first = limits.enter(source("2001:db8:0:1::1")).unwrap();
        let _second = limits.enter(source("2001:db8:0:2::1")).unwrap();

        assert!(limits.enter(source("2001:db8:0:3::1")).is_none());
        assert_eq!(refused.load(Ordering::Relaxed), 1);
        assert!(limits.enter(source("192.0.2.1")).is_some());
    }

    #[test]
    fn a_home_behind_the_tunnel_takes_no_place_of_its_neighbours() {
        let homes = Homes::within([("fd64::1".parse().unwrap(), 48)]);
        let limits = Limits::new((4, 1), &homes, &Arc::default());
        let _held = limits.enter("fd64::10".parse().unwrap()).unwrap();

        assert!(limits.enter("fd64::10".parse().unwrap()).is_none());
        assert!(limits.enter("fd64::11".parse().unwrap()).is_some());
    }

    #[test]
    fn a_full_house_refuses_until_somebody_leaves() {
        let limits = Limits::new((1, 1), &Homes::default(), &Arc::default());
        let first = limits.enter("192.0.2.1".parse().unwrap());
        assert!(limits.enter("192.0.2.2".parse().unwrap()).is_none());

        drop(first);

        assert!(limits.enter("192.0.2.2".parse().unwrap()).is_some());
    }
}
