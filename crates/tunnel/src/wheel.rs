//! A hierarchical timer wheel: arming, moving and forgetting a timer cost the same for one peer as for a hundred thousand,
//! and a timer that is not due costs nothing. Four wheels of 256 places, the innermost a millisecond each; a timer of an
//! outer wheel moves inwards when its place comes up. Each key has at most one timer, and fires at or just after its time.

use std::time::{Duration, Instant};

const PLACES: usize = 256;
const LEVELS: u32 = 4;
/// Bits of a place's number.
const BITS: u32 = 8;
/// The list of what is due.
const DUE: u32 = LEVELS * PLACES as u32;
const NIL: u32 = u32::MAX;
/// Timers moved inwards in one call, so that a place with a crowd does not hold packets up.
const MOVES_PER_CALL: usize = 1_024;

/// The timers of keys `0..`, each in a doubly linked list.
pub(crate) struct Wheel {
    start: Instant,
    /// Milliseconds since `start` up to which places have come up.
    now: u64,
    /// The first key of each place, and of the list of what is due.
    heads: Box<[u32]>,
    occupied: [[u64; PLACES / 64]; LEVELS as usize],
    nodes: Vec<Node>,
}

#[derive(Clone, Copy)]
struct Node {
    at: u64,
    list: u32,
    before: u32,
    after: u32,
}

const IDLE: Node = Node {
    at: 0,
    list: NIL,
    before: NIL,
    after: NIL,
};

impl Wheel {
    pub(crate) fn new(start: Instant) -> Self {
        Self {
            start,
            now: 0,
            heads: vec![NIL; DUE as usize + 1].into(),
            occupied: Default::default(),
            nodes: Vec::new(),
        }
    }

    /// Sets the timer of `key`, or takes it away.
    pub(crate) fn arm(&mut self, key: u32, at: Option<Instant>) {
        if self.nodes.len() <= key as usize {
            if at.is_none() {
                return;
            }
            self.nodes.resize(key as usize + 1, IDLE);
        }
        self.unlink(key);
        if let Some(at) = at {
            let at = at.saturating_duration_since(self.start).as_nanos();
            let at = u64::try_from(at.div_ceil(1_000_000)).unwrap_or(u64::MAX);
            self.link(key, at);
        }
    }

    /// Takes a key whose timer is due; when many are to be moved inwards first, it may take several calls to find it.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<u32> {
        let now = now.saturating_duration_since(self.start).as_millis();
        self.advance(u64::try_from(now).unwrap_or(u64::MAX));
        let key = self.head(DUE)?;
        self.unlink(key);
        Some(key)
    }

    /// When [`Wheel::take_due`] has something to do, at the latest a place of an outer wheel before the next timer.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let next = match self.head(DUE) {
            Some(_) => self.now,
            None => self.next_place()?.0,
        };
        Some(self.start + Duration::from_millis(next))
    }

    fn advance(&mut self, now: u64) {
        let mut moves = 0;
        while moves < MOVES_PER_CALL {
            match self.next_place().filter(|(at, _)| *at <= now) {
                Some((at, list)) => {
                    self.now = at;
                    while let Some(key) = self.head(list).filter(|_| moves < MOVES_PER_CALL) {
                        moves += 1;
                        let at = self.node(key).at;
                        self.unlink(key);
                        self.link(key, at);
                    }
                }
                None => {
                    self.now = self.now.max(now);
                    return;
                }
            }
        }
    }

    /// The occupied place that comes up first, an outer one before an inner one of the same moment.
    fn next_place(&self) -> Option<(u64, u32)> {
        let places = (0..LEVELS).rev().zip(self.occupied.iter().rev());
        let places = places.filter_map(|(level, occupied)| {
            let shift = BITS * level;
            let hand = self.now >> shift;
            // The place under the hand is moved inwards as long as it is not empty.
            let under_hand = hand << shift == self.now && is_set(occupied, hand);
            let ahead = if under_hand {
                0
            } else {
                ahead(occupied, hand)?
            };
            Some(((hand + ahead) << shift, list_of(level, hand + ahead)))
        });
        places.min_by_key(|(at, _)| *at)
    }

    fn link(&mut self, key: u32, at: u64) {
        let list = match at.saturating_sub(self.now) {
            0 => DUE,
            left => {
                let level = (left.ilog2() / BITS).min(LEVELS - 1);
                let shift = BITS * level;
                // What is beyond the outermost wheel goes around once more.
                let place = (at >> shift).min((self.now >> shift) + PLACES as u64 - 1);
                list_of(level, place)
            }
        };
        let after = self.set_head(list, key);
        if let Some(after) = self.nodes.get_mut(after as usize) {
            after.before = key;
        }
        if let Some(node) = self.nodes.get_mut(key as usize) {
            *node = Node {
                at,
                list,
                before: NIL,
                after,
            };
        }
    }

    fn unlink(&mut self, key: u32) {
        let node = self.node(key);
        if node.list == NIL {
            return;
        }
        match self.nodes.get_mut(node.before as usize) {
            Some(before) => before.after = node.after,
            None => {
                self.set_head(node.list, node.after);
            }
        }
        if let Some(after) = self.nodes.get_mut(node.after as usize) {
            after.before = node.before;
        }
        if let Some(node) = self.nodes.get_mut(key as usize) {
            *node = IDLE;
        }
    }

    fn node(&self, key: u32) -> Node {
        self.nodes.get(key as usize).copied().unwrap_or(IDLE)
    }

    fn head(&self, list: u32) -> Option<u32> {
        let head = self.heads.get(list as usize).copied();
        head.filter(|head| *head != NIL)
    }

    /// Returns the head before.
    fn set_head(&mut self, list: u32, head: u32) -> u32 {
        let (level, place) = (list as usize / PLACES, list as usize % PLACES);
        let bits = self.occupied.get_mut(level);
        if let Some(word) = bits.and_then(|bits| bits.get_mut(place / 64)) {
            let bit = 1 << (place % 64);
            *word = if head == NIL {
                *word & !bit
            } else {
                *word | bit
            };
        }
        let slot = self.heads.get_mut(list as usize);
        slot.map_or(NIL, |slot| std::mem::replace(slot, head))
    }
}

fn list_of(level: u32, place: u64) -> u32 {
    level * PLACES as u32 + (place % PLACES as u64) as u32
}

fn is_set(bits: &[u64; PLACES / 64], place: u64) -> bool {
    let place = place as usize % PLACES;
    bits.get(place / 64)
        .is_some_and(|word| word >> (place % 64) & 1 == 1)
}

/// How far the next set bit is from `hand`, going around.
fn ahead(bits: &[u64; PLACES / 64], hand: u64) -> Option<u64> {
    let first = (hand as usize + 1) % PLACES;
    let (word, bit) = (first / 64, first % 64);
    let words = (0..=bits.len()).map(|i| {
        let bits = bits.get((word + i) % bits.len()).copied().unwrap_or(0);
        match i {
            0 => bits & (u64::MAX << bit),
            _ => bits,
        }
    });
    let (i, bits) = words.enumerate().find(|(_, bits)| *bits != 0)?;
    Some((i * 64 + bits.trailing_zeros() as usize + 1 - bit) as u64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const YEAR_MS: u64 = 365 * 86_400_000;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_timer_that_was_taken_away_never_fires() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        wheel.arm(3, Some(start + ms(5)));
        wheel.arm(4, Some(start + ms(5)));

        wheel.arm(3, None);

        assert_eq!(wheel.take_due(start + ms(5)), Some(4));
        assert_eq!(wheel.take_due(start + ms(YEAR_MS)), None);
        assert_eq!(wheel.next_deadline(), None);
    }

    #[test]
    fn a_crowd_is_moved_inwards_over_several_calls_and_nobody_is_forgotten() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        let end = start + ms(7 * 86_400_000);
        for key in 0..5_000 {
            wheel.arm(key, Some(end));
        }

        assert_eq!(wheel.take_due(end - ms(1)), None);
        let mut fired = 0;
        let mut calls = 0;
        while wheel.next_deadline().is_some() {
            fired += u32::from(wheel.take_due(end).is_some());
            calls += 1;
        }

        assert_eq!(fired, 5_000);
        assert!(calls > 5_000, "the first calls only moved");
    }

    proptest! {
        #[test]
        fn it_fires_what_a_sorted_list_fires_when_that_does(
            steps in proptest::collection::vec((0_u32..20, 0_u32..34, any::<u64>(), 0_u32..5), 1..200)
        ) {
            let start = Instant::now();
            let (mut now, mut wheel) = (start, Wheel::new(start));
            let mut model = BTreeMap::new();
            for (key, bits, random, action) in steps {
                let span = ms(random % (1 << bits));
                if action == 0 {
                    now += span;
                    let mut fired = Vec::new();
                    while wheel.next_deadline().is_some_and(|at| at <= now) {
                        fired.extend(wheel.take_due(now));
                    }
                    fired.sort_unstable();
                    let due: Vec<u32> = model.iter().filter(|(_, at)| **at <= now).map(|(key, _)| *key).collect();
                    model.retain(|_, at| *at > now);
                    prop_assert_eq!(fired, due);
                } else {
                    let at = (action > 1).then_some(now + span);
                    wheel.arm(key, at);
                    match at {
                        Some(at) => model.insert(key, at),
                        None => model.remove(&key),
                    };
                }
                let first = model.values().min().copied();
                prop_assert_eq!(wheel.next_deadline().is_some(), first.is_some());
                prop_assert!(wheel.next_deadline() <= first.map(|at| at.max(now)));
            }
        }
    }
}
