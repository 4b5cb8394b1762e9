//! Answers kept for as long as their lifetimes say, and a day longer for when no resolver can be reached.
//!
//! Bounded by bytes. Eviction is a clock: a hand goes round, spares what was used since it last came by,
//! and takes the rest. Lifetimes are RFC 2181's, negative answers RFC 2308's, staleness RFC 8767's.

use std::collections::HashMap;

use crate::proto::message::{Query, Response, age};

/// Nothing is kept longer, whatever its records say.
const MAX_TTL_S: u32 = 24 * 3600;
/// Nor any negative answer (RFC 2308, section 5).
const MAX_NEGATIVE_TTL_S: u32 = 3 * 3600;
/// How long after its lifetime an answer may still stand in (RFC 8767, section 5).
const STALE_S: u64 = 24 * 3600;
/// The lifetime that a stale answer is given (likewise).
const STALE_TTL_S: u32 = 30;
/// What an entry costs besides its bytes: slot, map entry, allocations.
const OVERHEAD: usize = 160;

/// What a look into the cache found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// An answer within its lifetime, its records' lifetimes lowered by its age.
    Fresh(Vec<u8>),
    /// An answer past its lifetime, for when there is no better one.
    Stale(Vec<u8>),
    /// Nothing.
    Nothing,
}

/// The cache. `now_s` counts seconds from any start, and never goes back.
#[derive(Debug)]
pub struct Cache {
    index: HashMap<Box<[u8]>, usize>,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    hand: usize,
    used_bytes: usize,
    max_bytes: usize,
}

#[derive(Debug)]
struct Slot {
    key: Box<[u8]>,
    stored: Box<[u8]>,
    ttl_at: Box<[u16]>,
    stored_at_s: u64,
    lifetime_s: u32,
    used: bool,
}

impl Slot {
    fn cost(&self) -> usize {
        OVERHEAD + 2 * self.key.len() + self.stored.len() + 2 * self.ttl_at.len()
    }
}

impl Cache {
    /// Keeps at most that many bytes, overhead included; 0 keeps nothing.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Self {
            index: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            hand: 0,
            used_bytes: 0,
            max_bytes,
        }
    }

    /// Looks for an answer to a key ([`Query::key`]).
    pub fn get(&mut self, key: &[u8], now_s: u64) -> Found {
        let Some(at) = self.index.get(key).copied() else {
            return Found::Nothing;
        };
        let Some(slot) = self.slots.get_mut(at).and_then(Option::as_mut) else {
            return Found::Nothing;
        };
        let age_s = now_s.saturating_sub(slot.stored_at_s);
        if age_s >= u64::from(slot.lifetime_s) + STALE_S {
            self.remove(at);
            return Found::Nothing;
        }
        slot.used = true;
        let mut answer = slot.stored.to_vec();
        let age_s = u32::try_from(age_s).unwrap_or(u32::MAX);
        if age_s < slot.lifetime_s {
            age(&mut answer, &slot.ttl_at, age_s, 0);
            return Found::Fresh(answer);
        }
        age(&mut answer, &slot.ttl_at, u32::MAX, STALE_TTL_S);
        Found::Stale(answer)
    }

    /// An answer within its lifetime as a query gets it; `key` is one that the query has.
    #[cfg(feature = "workers")]
    pub(crate) fn fresh(&mut self, key: &[u8], query: &Query, now_s: u64) -> Option<Vec<u8>> {
        let at = self.index.get(key).copied()?;
        let slot = self.slots.get_mut(at)?.as_mut()?;
        let age_s = now_s.saturating_sub(slot.stored_at_s);
        let age_s = u32::try_from(age_s).ok();
        let age_s = age_s.filter(|age_s| *age_s < slot.lifetime_s)?;
        slot.used = true;
        let mut answer = query.adopt(&slot.stored, None);
        age(&mut answer, &slot.ttl_at, age_s, 0);
        Some(answer)
    }

    /// Keeps a response, if it may be kept and fits.
    pub fn insert(&mut self, query: &Query, response: &Response, now_s: u64) {
        self.insert_under(query.key(), response, now_s);
    }

    /// Likewise, under another key that the question has.
    pub(crate) fn insert_under(&mut self, key: Box<[u8]>, response: &Response, now_s: u64) {
        let Some(lifetime_s) = response
            .lifetime_s
            .filter(|lifetime| *lifetime > 0 && !response.truncated)
        else {
            return;
        };
        let most = if response.positive {
            MAX_TTL_S
        } else {
            MAX_NEGATIVE_TTL_S
        };
        if let Some(at) = self.index.get(&key).copied() {
            self.remove(at);
        }
        let slot = Slot {
            key,
            stored: response.stored.clone().into_boxed_slice(),
            ttl_at: response.ttl_at.clone().into_boxed_slice(),
            stored_at_s: now_s,
            lifetime_s: lifetime_s.min(most),
            used: false,
        };
        if slot.cost() > self.max_bytes / 4 {
            return;
        }
        while self.used_bytes + slot.cost() > self.max_bytes {
            self.evict(now_s);
        }
        self.used_bytes += slot.cost();
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.index.insert(slot.key.clone(), at);
        if let Some(place) = self.slots.get_mut(at) {
            *place = Some(slot);
        }
    }

    /// How many answers are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// How many bytes they take.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.used_bytes
    }

    /// Moves the hand to the next entry that was not used since it last came by, or is past all use.
    fn evict(&mut self, now_s: u64) {
        loop {
            self.hand = if self.hand + 1 < self.slots.len() {
                self.hand + 1
            } else {
                0
            };
            let Some(slot) = self.slots.get_mut(self.hand) else {
                return;
            };
            let Some(slot) = slot else { continue };
            let over = now_s.saturating_sub(slot.stored_at_s) >= u64::from(slot.lifetime_s);
            if !slot.used || over {
                self.remove(self.hand);
                return;
            }
            slot.used = false;
        }
    }

    fn remove(&mut self, at: usize) {
        if let Some(slot) = self.slots.get_mut(at).and_then(Option::take) {
            self.used_bytes = self.used_bytes.saturating_sub(slot.cost());
            self.index.remove(&slot.key);
            self.free.push(at);
        }
    }
}

#[cfg(test)]
mod tests;
