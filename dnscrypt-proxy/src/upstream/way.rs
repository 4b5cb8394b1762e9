//! The ways to one resolver: straight, or through relays, which hide who asks from it and learn nothing of what is asked
//! ("Anonymized DNSCrypt" in the draft).

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use rand_core::{OsRng, RngCore as _};

use crate::proto::relay::wrap;

/// How resolvers are reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Route {
    /// They are asked themselves.
    #[default]
    Direct,
    /// Through one of these relays, and in no other way: where none leads to a resolver, it is not asked.
    Relays(Vec<SocketAddr>),
}

/// One way to one resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    resolver: SocketAddr,
    relay: Option<SocketAddr>,
}

impl Way {
    /// Whom packets are sent to.
    pub(super) fn next_hop(&self) -> SocketAddr {
        self.relay.unwrap_or(self.resolver)
    }

    pub(super) fn is_relayed(&self) -> bool {
        self.relay.is_some()
    }

    /// A packet for the resolver as it goes to the next hop.
    pub(super) fn dress<'a>(&self, packet: &'a [u8]) -> Cow<'a, [u8]> {
        match self.relay {
            None => Cow::Borrowed(packet),
            Some(_) => Cow::Owned(wrap(self.resolver, packet)),
        }
    }
}

/// All ways to one resolver, of which one is taken until it is silent.
#[derive(Debug)]
pub struct Ways {
    ways: Vec<Way>,
    // Two queries that find the same way silent move on once.
    taken: AtomicUsize,
}

impl Ways {
    /// The ways of a route. A relay at the resolver's own address would hide nothing from it and is none of them.
    #[must_use]
    pub fn new(resolver: SocketAddr, route: &Route) -> Self {
        let ways = list(resolver, route);
        // Clients spread over the relays.
        let count = u32::try_from(ways.len()).unwrap_or(u32::MAX).max(1);
        let first = usize::try_from(OsRng.next_u32() % count).unwrap_or_default();
        Self {
            ways,
            taken: first.into(),
        }
    }

    /// Whether these are the ways of a route.
    pub(super) fn are_of(&self, resolver: SocketAddr, route: &Route) -> bool {
        self.ways == list(resolver, route)
    }

    pub(super) fn count(&self) -> usize {
        self.ways.len()
    }

    /// The way to take now, if any leads to the resolver.
    pub(super) fn now(&self) -> Option<Way> {
        let at = self.taken.load(Ordering::Relaxed);
        self.ways.get(at % self.ways.len().max(1)).copied()
    }

    /// Nothing came back on this way: the next one is taken, if there are others.
    pub(super) fn silent(&self, way: Way) {
        let at = self.taken.load(Ordering::Relaxed);
        if self.now() == Some(way) {
            let next = (at + 1) % self.ways.len().max(1);
            // Somebody else may have moved on meanwhile.
            let _moved =
                self.taken
                    .compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

fn list(resolver: SocketAddr, route: &Route) -> Vec<Way> {
    match route {
        Route::Direct => vec![Way {
            resolver,
            relay: None,
        }],
        Route::Relays(relays) => relays
            .iter()
            .filter(|relay| relay.ip().to_canonical() != resolver.ip().to_canonical())
            .map(|relay| Way {
                resolver,
                relay: Some(*relay),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::relay::{PREFIX, is_anonymized};

    fn resolver() -> SocketAddr {
        "9.9.9.9:443".parse().unwrap()
    }

    fn relays(texts: &[&str]) -> Route {
        Route::Relays(texts.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[test]
    fn without_a_relay_that_leads_there_is_no_way_and_never_the_straight_one() {
        for route in [
            relays(&[]),
            relays(&["9.9.9.9:8443"]),
            relays(&["[::ffff:9.9.9.9]:443"]),
        ] {
            assert_eq!(Ways::new(resolver(), &route).now(), None, "{route:?}");
        }
    }

    #[test]
    fn a_silent_way_gives_place_to_each_other_one_in_turn() {
        let route = relays(&["1.1.1.1:443", "2.2.2.2:443", "9.9.9.9:443"]);
        let ways = Ways::new(resolver(), &route);
        let first = ways.now().unwrap();

        ways.silent(first);
        let second = ways.now().unwrap();
        // Late news of the first.
        ways.silent(first);

        assert_ne!(first, second);
        assert_eq!(ways.now(), Some(second));
        ways.silent(second);
        assert_eq!(ways.now(), Some(first));
        assert_eq!(ways.count(), 2);
    }

    #[test]
    fn a_relay_is_sent_the_packet_behind_the_resolvers_address_and_the_resolver_the_packet() {
        let straight = Ways::new(resolver(), &Route::Direct).now().unwrap();
        let relayed = Ways::new(resolver(), &relays(&["1.1.1.1:443"]))
            .now()
            .unwrap();

        assert_eq!(straight.next_hop(), resolver());
        assert_eq!(straight.dress(b"packet").as_ref(), b"packet");
        assert_eq!(relayed.next_hop(), "1.1.1.1:443".parse().unwrap());
        let dressed = relayed.dress(b"packet");
        assert!(is_anonymized(&dressed));
        assert_eq!(&dressed[PREFIX..], b"packet");
        assert_eq!(&dressed[20..PREFIX], [0xff, 0xff, 9, 9, 9, 9, 1, 187]);
    }
}
