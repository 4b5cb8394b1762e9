//! Who has how many connections: when there is no more room, whoever has the most gives one up to somebody who has fewer, so that those who hold
//! many keep nobody out. Strangers have a quarter, and share that among themselves.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::listen::{Class, Holder, Limits};

const PART_OF_STRANGERS: usize = 4;

/// The shares of all sources that have a connection.
#[derive(Debug)]
pub(super) struct Shares {
    most: usize,
    each: usize,
    strangers: usize,
    all: usize,
    by_source: HashMap<IpAddr, (Class, usize)>,
}

/// What becomes of one more connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// There is room.
    Free,
    /// Once this source has one less.
    From(IpAddr),
    /// None.
    None,
}

impl Shares {
    pub(super) fn of(limits: Limits) -> Self {
        Self {
            most: limits.tcp_connections,
            each: limits.tcp_per_source,
            strangers: 0,
            all: 0,
            by_source: HashMap::new(),
        }
    }

    /// Whether this one may have one more, and whose place it would be.
    pub(super) fn room(&self, holder: Holder) -> Room {
        let own = self.by_source.get(&holder.home).map_or(0, |(_, own)| *own);
        if own >= self.each {
            return Room::None;
        }
        let is_stranger = holder.class == Class::Stranger;
        let no_more = is_stranger && self.strangers >= (self.most / PART_OF_STRANGERS).max(1);
        if self.all < self.most && !no_more {
            return Room::Free;
        }
        let may_give = |class: &Class| !is_stranger || *class == Class::Stranger;
        let others = self
            .by_source
            .iter()
            .filter(|(_, (class, _))| may_give(class));
        match others.max_by_key(|(_, (_, has))| *has) {
            Some((source, (_, has))) if *has > own + 1 => Room::From(*source),
            _ => Room::None,
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.all == 0 && self.strangers == 0 && self.by_source.is_empty()
    }

    pub(super) fn take(&mut self, holder: Holder) {
        self.all += 1;
        self.strangers += usize::from(holder.class == Class::Stranger);
        let (_, own) = self
            .by_source
            .entry(holder.home)
            .or_insert((holder.class, 0));
        *own += 1;
    }

    pub(super) fn give_back(&mut self, holder: Holder) {
        let Some((class, own)) = self.by_source.get_mut(&holder.home) else {
            return;
        };
        self.all = self.all.saturating_sub(1);
        if *class == Class::Stranger {
            self.strangers = self.strangers.saturating_sub(1);
        }
        *own = own.saturating_sub(1);
        if *own == 0 {
            self.by_source.remove(&holder.home);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::listen::Homes;

    const LIMITS: Limits = Limits {
        tcp_connections: 64,
        tcp_per_source: 16,
        ..Limits::SERVER
    };

    fn home(n: u32) -> Holder {
        let homes = Homes::within([([10, 64, 0, 1].into(), 16)]);
        let address = u32::from(Ipv4Addr::new(10, 64, 0, 16)) + n;
        Holder::of(&homes, Ipv4Addr::from(address).into())
    }

    fn stranger(n: u8) -> Holder {
        let homes = Homes::within([([10, 64, 0, 1].into(), 16)]);
        Holder::of(&homes, [203, 0, 113, n].into())
    }

    /// Opens as many as there is room for, as the connections do.
    fn opened(shares: &mut Shares, holder: Holder, by: impl Fn(IpAddr) -> Holder) -> usize {
        let mut count = 0;
        while count < 100 {
            match shares.room(holder) {
                Room::Free => {}
                Room::From(source) => shares.give_back(by(source)),
                Room::None => break,
            }
            shares.take(holder);
            count += 1;
        }
        count
    }

    fn any(source: IpAddr) -> Holder {
        let homes = Homes::within([([10, 64, 0, 1].into(), 16)]);
        Holder::of(&homes, source)
    }

    #[test]
    fn nobody_has_more_than_their_own_bound() {
        let mut shares = Shares::of(LIMITS);

        assert_eq!(opened(&mut shares, home(0), any), 16);
        assert_eq!(shares.room(home(0)), Room::None);
    }

    #[test]
    fn where_many_hold_what_they_can_a_home_that_comes_has_its_share_of_theirs() {
        let mut shares = Shares::of(LIMITS);
        for n in 0..20 {
            opened(&mut shares, home(n), any);
        }
        assert_eq!(shares.all, 64);

        let came = opened(&mut shares, home(99), any);

        assert!((2..=4).contains(&came), "{came}");
        assert_eq!(shares.all, 64);
        // Who has as few as the others takes nothing from them.
        assert_eq!(opened(&mut shares, home(99), any), 0);
    }

    #[test]
    fn strangers_share_a_quarter_and_never_have_a_homes_place() {
        let mut shares = Shares::of(LIMITS);
        for n in 0..10 {
            opened(&mut shares, stranger(n), any);
        }
        assert_eq!((shares.all, shares.strangers), (16, 16));
        assert!(opened(&mut shares, stranger(99), any) >= 1);
        assert_eq!(shares.strangers, 16);

        let homes: usize = (0..3).map(|n| opened(&mut shares, home(n), any)).sum();
        assert_eq!(homes, 48);
        assert!(opened(&mut shares, home(3), any) >= 8);
    }
}
