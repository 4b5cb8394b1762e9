//! What stands in the announcements' table, and what each word of a worker changes there. Pure.

use std::collections::{HashMap, HashSet};

use ipnet::IpNet;

/// What a worker tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// These are carried from now on.
    Carried(Vec<IpNet>),
    /// These are not any more.
    Left(Vec<IpNet>),
    /// These are all that the worker carries: words before this one were lost.
    All(Vec<IpNet>),
}

/// A route to be made or removed, with its metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Add(IpNet, u32),
    Delete(IpNet, u32),
}

/// A route, and the worker whose it is: a router that gets another key may change workers, and their words are not in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    metric: u32,
    worker: u8,
}

/// Every announced address.
#[derive(Debug, Default)]
pub(super) struct Standing(HashMap<IpNet, Place>);

impl Standing {
    /// Takes a worker's word; what is to be changed, in this order.
    pub(super) fn apply(&mut self, worker: u8, word: Word, metric: u32) -> Vec<Change> {
        match word {
            Word::Carried(addresses) => self.add(addresses, Place { metric, worker }),
            Word::Left(addresses) => self.remove(addresses, worker),
            Word::All(addresses) => {
                let all: HashSet<IpNet> = addresses.into_iter().collect();
                let is_of = |place: &Place| place.worker == worker;
                let left: Vec<IpNet> = self
                    .0
                    .iter()
                    .filter(|(address, place)| is_of(place) && !all.contains(*address))
                    .map(|(address, _)| *address)
                    .collect();
                // A route that stands keeps its age: nothing has happened to it.
                let stands = |address: &IpNet| self.0.get(address).is_some_and(is_of);
                let new = all.into_iter().filter(|address| !stands(address)).collect();
                let mut changes = self.remove(left, worker);
                changes.extend(self.add(new, Place { metric, worker }));
                changes
            }
        }
    }

    /// Everything, to be removed.
    pub(super) fn clear(&mut self) -> Vec<Change> {
        let all = self.0.drain();
        all.map(|(address, place)| Change::Delete(address, place.metric))
            .collect()
    }

    fn add(&mut self, addresses: Vec<IpNet>, place: Place) -> Vec<Change> {
        let mut changes = Vec::new();
        for address in addresses {
            let before = self.0.insert(address, place);
            changes.push(Change::Add(address, place.metric));
            let old = before.filter(|before| before.metric != place.metric);
            changes.extend(old.map(|old| Change::Delete(address, old.metric)));
        }
        changes
    }

    fn remove(&mut self, addresses: Vec<IpNet>, worker: u8) -> Vec<Change> {
        let mut changes = Vec::new();
        for address in addresses {
            let place = self.0.get(&address).filter(|place| place.worker == worker);
            if let Some(Place { metric, .. }) = place.copied() {
                self.0.remove(&address);
                changes.push(Change::Delete(address, metric));
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(n: u8) -> IpNet {
        IpNet::new([10, 64, 0, n].into(), 32).unwrap()
    }

    fn nets(numbers: &[u8]) -> Vec<IpNet> {
        numbers.iter().map(|n| net(*n)).collect()
    }

    #[test]
    fn a_worker_removes_no_route_of_another() {
        let mut standing = Standing::default();
        standing.apply(0, Word::Carried(nets(&[1])), 9);
        standing.apply(1, Word::Carried(nets(&[1, 2])), 8);

        assert_eq!(standing.apply(0, Word::Left(nets(&[1, 2, 3])), 7), []);
        assert_eq!(standing.apply(0, Word::All(Vec::new()), 7), []);
        let left = standing.apply(1, Word::Left(nets(&[1])), 7);
        assert_eq!(left, [Change::Delete(net(1), 8)]);
    }

    #[test]
    fn a_later_announcement_stands_before_the_earlier_one_goes() {
        let mut standing = Standing::default();
        standing.apply(0, Word::Carried(nets(&[1])), 9);

        let changes = standing.apply(0, Word::Carried(nets(&[1])), 8);

        assert_eq!(changes, [Change::Add(net(1), 8), Change::Delete(net(1), 9)]);
    }

    #[test]
    fn what_a_worker_says_of_all_makes_good_what_was_lost_and_touches_nothing_else() {
        let mut standing = Standing::default();
        standing.apply(0, Word::Carried(nets(&[1, 2])), 9);
        standing.apply(1, Word::Carried(nets(&[4])), 9);

        let changes = standing.apply(0, Word::All(nets(&[2, 3])), 7);

        assert_eq!(changes, [Change::Delete(net(1), 9), Change::Add(net(3), 7)]);
        let mut all = standing.clear();
        all.sort_by_key(|change| format!("{change:?}"));
        assert_eq!(
            all,
            [
                Change::Delete(net(2), 9),
                Change::Delete(net(3), 7),
                Change::Delete(net(4), 9)
            ]
        );
    }
}
