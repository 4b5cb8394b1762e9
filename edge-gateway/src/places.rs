//! Places for what is open at the same time, in all and by source, and how much is counted of it.

mod arrivals;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dnscrypt_proxy::listen::{Holder, Homes, Seat, Seats};

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
    homes: Homes,
    seats: Seats,
    refused: Arc<AtomicU64>,
}

impl Limits {
    /// Whoever has the most gives the oldest up to somebody who has fewer. `refused` counts those and those who find no place; `homes` says
    /// who is one source.
    pub(crate) fn new(
        (max, max_per_source): (usize, usize),
        homes: &Homes,
        refused: &Arc<AtomicU64>,
    ) -> Arc<Self> {
        Self::with(Seats::bounded(max, max_per_source), homes, refused)
    }

    /// For what carries a home's tunnel: to lose it is worse than to go without.
    pub(crate) fn kept(
        (max, max_per_source): (usize, usize),
        refused: &Arc<AtomicU64>,
    ) -> Arc<Self> {
        let seats = Seats::kept(max, max_per_source);
        // Nobody comes from within a tunnel that is still to be.
        Self::with(seats, &Homes::default(), refused)
    }

    fn with(seats: Seats, homes: &Homes, refused: &Arc<AtomicU64>) -> Arc<Self> {
        Arc::new(Self {
            homes: homes.clone(),
            seats,
            refused: Arc::clone(refused),
        })
    }

    /// How many there may be.
    pub(crate) fn max(&self) -> usize {
        self.seats.most()
    }

    /// A place for one more.
    pub(crate) fn enter(&self, source: IpAddr) -> Option<Place> {
        let seat = self.seats.take(Holder::by(&self.homes, source, HOME_BITS));
        if seat.is_none() {
            count(&self.refused, 1);
        }
        let refused = Arc::clone(&self.refused);
        Some(Place {
            seat: seat?,
            refused,
        })
    }
}

/// The right to one session, or one connection.
#[derive(Debug)]
pub(crate) struct Place {
    seat: Seat,
    refused: Arc<AtomicU64>,
}

impl Place {
    /// Serves for as long as the place is had, and gives it back.
    pub(crate) async fn during(self, serving: impl Future<Output = ()>) {
        if self.seat.during(serving).await.is_err() {
            count(&self.refused, 1);
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

    #[tokio::test]
    async fn a_full_house_is_open_to_who_has_fewer_and_ends_what_others_had_for_longest() {
        let refused = Arc::default();
        let limits = Limits::new((4, 4), &Homes::default(), &refused);
        let source = |n: u8| IpAddr::from([192, 0, n, 1]);
        let mut held: Vec<_> = (0..4).map(|_| limits.enter(source(1)).unwrap()).collect();
        let _theirs = [(); 2].map(|()| limits.enter(source(2)).unwrap());

        assert!(limits.enter(source(2)).is_none(), "as many as the other");
        assert!(limits.enter(source(1)).is_none());
        let kept = held.split_off(2);
        for place in held {
            place.during(std::future::pending()).await;
        }
        for place in kept {
            place.during(async {}).await;
        }

        assert_eq!(refused.load(Ordering::Relaxed), 4);
        assert_eq!(limits.seats.taken(), 2);
    }

    #[test]
    fn a_house_whose_places_are_kept_refuses_until_somebody_leaves() {
        let limits = Limits::kept((2, 2), &Arc::default());
        let source = |n: u8| IpAddr::from([192, 0, n, 1]);
        let first = limits.enter(source(1));
        let _second = limits.enter(source(1));
        assert!(limits.enter(source(2)).is_none());

        drop(first);

        assert!(limits.enter(source(2)).is_some());
    }
}
