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
    pub(crate) open: AtomicU64,
    pub(crate) from_routers_bytes: AtomicU64,
    pub(crate) to_routers_bytes: AtomicU64,
    pub(crate) refused_target: AtomicU64,
    pub(crate) refused_full: AtomicU64,
    /// Questions of those who took it for a web server.
    pub(crate) pages: AtomicU64,
}

/// Adds to a figure; nobody decides anything by it, so that no order is needed.
pub(super) fn count(figure: &AtomicU64, amount: usize) {
    figure.fetch_add(amount as u64, Ordering::Relaxed);
}

/// Sessions at a time, in all and by source.
#[derive(Debug)]
pub(super) struct Limits {
    max: usize,
    max_per_source: usize,
    // Taken at the beginning and end of a session, by whichever task serves it.
    open: Mutex<HashMap<IpAddr, usize>>,
    figures: Arc<Figures>,
}

impl Limits {
    pub(super) fn new(max: u32, max_per_source: u32, figures: Arc<Figures>) -> Arc<Self> {
        Arc::new(Self {
            max: max as usize,
            max_per_source: max_per_source as usize,
            open: Mutex::default(),
            figures,
        })
    }

    /// A place for one more session, given back when it is dropped.
    pub(super) fn enter(self: &Arc<Self>, source: IpAddr) -> Option<Place> {
        let source = network_of(source);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let total: usize = open.values().sum();
        let mine = open.get(&source).copied().unwrap_or(0);
        if total >= self.max || mine >= self.max_per_source {
            count(&self.figures.refused_full, 1);
            return None;
        }
        open.insert(source, mine + 1);
        self.figures.open.store(total as u64 + 1, Ordering::Relaxed);
        Some(Place {
            limits: Arc::clone(self),
            source,
        })
    }
}

/// The right to one session.
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
        if let Some(mine) = open.get_mut(&self.source) {
            *mine -= 1;
            if *mine == 0 {
                open.remove(&self.source);
            }
        }
        let total: usize = open.values().sum();
        self.limits
            .figures
            .open
            .store(total as u64, Ordering::Relaxed);
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
        let figures = Arc::new(Figures::default());
        let limits = Limits::new(4, 2, Arc::clone(&figures));
        let source = |text: &str| text.parse().unwrap();
        let _first = limits.enter(source("2001:db8:0:1::1")).unwrap();
        let _second = limits.enter(source("2001:db8:0:2::1")).unwrap();

        assert!(limits.enter(source("2001:db8:0:3::1")).is_none());
        assert!(limits.enter(source("192.0.2.1")).is_some());
        assert_eq!(figures.refused_full.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_full_relay_refuses_until_somebody_leaves() {
        let figures = Arc::new(Figures::default());
        let limits = Limits::new(1, 1, Arc::clone(&figures));
        let first = limits.enter("192.0.2.1".parse().unwrap());
        assert!(limits.enter("192.0.2.2".parse().unwrap()).is_none());

        drop(first);

        assert_eq!(figures.open.load(Ordering::Relaxed), 0);
        assert!(limits.enter("192.0.2.2".parse().unwrap()).is_some());
    }
}
