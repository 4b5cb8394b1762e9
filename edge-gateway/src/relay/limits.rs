//! Who may use the relay, and how much it is used.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What the relay has done since it was started.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) quic_sessions: AtomicU64,
    pub(crate) tls_sessions: AtomicU64,
    pub(crate) quic_open: AtomicU64,
    pub(crate) tls_open: AtomicU64,
    pub(crate) from_routers_bytes: AtomicU64,
    pub(crate) to_routers_bytes: AtomicU64,
    pub(crate) refused_target: AtomicU64,
    pub(crate) refused_full: AtomicU64,
    pub(crate) refused_connections: AtomicU64,
    /// Questions of those who took it for a web server.
    pub(crate) pages: AtomicU64,
}

/// Adds to a figure; nobody decides anything by it, so that no order is needed.
pub(super) fn count(figure: &AtomicU64, amount: usize) {
    figure.fetch_add(amount as u64, Ordering::Relaxed);
}

/// Sessions, or connections, at a time, in all and by source.
#[derive(Debug)]
pub(super) struct Limits {
    max: usize,
    max_per_source: usize,
    // Taken at the beginning and end of each, by whichever task serves it.
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_source: HashMap<IpAddr, usize>,
}

impl Limits {
    pub(super) fn new(max: usize, max_per_source: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            max_per_source,
            open: Mutex::default(),
        })
    }

    /// How many there may be.
    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// A place for one more, given back when it is dropped.
    pub(super) fn enter(self: &Arc<Self>, source: IpAddr) -> Option<Place> {
        let source = network_of(source);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = open.by_source.get(&source).copied().unwrap_or(0);
        if open.total >= self.max || mine >= self.max_per_source {
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
pub(super) struct Place {
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
pub(super) struct Counted<'f>(&'f AtomicU64);

impl<'f> Counted<'f> {
    pub(super) fn new(open: &'f AtomicU64) -> Self {
        count(open, 1);
        Self(open)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A home has a network of IPv6, of which it may use any address.
fn network_of(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & (u128::MAX << 72)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_has_its_share_is_refused_and_others_are_not() {
        let limits = Limits::new(4, 2);
        let source = |text: &str| text.parse().unwrap();
        let _first = limits.enter(source("2001:db8:0:1::1")).unwrap();
        let _second = limits.enter(source("2001:db8:0:2::1")).unwrap();

        assert!(limits.enter(source("2001:db8:0:3::1")).is_none());
        assert!(limits.enter(source("192.0.2.1")).is_some());
    }

    #[test]
    fn a_full_relay_refuses_until_somebody_leaves() {
        let limits = Limits::new(1, 1);
        let first = limits.enter("192.0.2.1".parse().unwrap());
        assert!(limits.enter("192.0.2.2".parse().unwrap()).is_none());

        drop(first);

        assert!(limits.enter("192.0.2.2".parse().unwrap()).is_some());
    }
}
