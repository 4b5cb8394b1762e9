//! Answers kept for as long as their lifetimes say, and a day longer for when no resolver can be reached.
//!
//! Bounded by bytes. Eviction is a clock: a hand goes round, spares what was used since it last came by,
//! and takes the rest. Lifetimes are RFC 2181's, negative answers RFC 2308's, staleness RFC 8767's.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use crate::proto::message::{Query, Response, age};

#[cfg(feature = "workers")]
mod served;

#[cfg(feature = "workers")]
pub(crate) use served::Look;

/// Nothing is kept longer, whatever its records say.
const MAX_TTL_S: u32 = 24 * 3600;
/// Nor any negative answer (RFC 2308, section 5).
const MAX_NEGATIVE_TTL_S: u32 = 3 * 3600;
/// How long after its lifetime an answer may still stand in (RFC 8767, section 5).
const STALE_S: u64 = 24 * 3600;
/// The lifetime that a stale answer is given (likewise).
const STALE_TTL_S: u32 = 30;
/// A name is asked for often when it was so many times since its answer came.
const OFTEN: u8 = 3;
/// One part of the lifetime in so many is its end; answers that live shorter than these are not worth it.
const END_PARTS: u32 = 10;
/// What an entry costs besides its bytes: its slot and its place in the index, both in tables that grow by doubling,
/// and the allocator's own.
const OVERHEAD: usize = 112;

/// What a look into the cache found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// An answer within its lifetime, its records' lifetimes lowered by its age.
    Fresh(Vec<u8>),
    /// The same, of a name that is asked for often, near its end: told once.
    Ending(Vec<u8>),
    /// An answer past its lifetime, for when there is no better one.
    Stale(Vec<u8>),
    /// Nothing.
    Nothing,
}

/// The cache. `now_s` counts seconds from any start, and never goes back.
#[derive(Debug)]
pub struct Cache {
    /// Slots by the hash of their key. Of two keys with one hash the later has it.
    index: HashMap<u64, u32>,
    hashing: RandomState,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    hand: usize,
    used_bytes: usize,
    max_bytes: usize,
}

/// In one allocation: there are thousands.
#[derive(Debug)]
struct Slot {
    /// The key, the answer, and where in it each lifetime stands, in two bytes.
    bytes: Box<[u8]>,
    key_len: u16,
    stored_len: u16,
    stored_at_s: u32,
    lifetime_s: u32,
    used: bool,
    /// How often it was given, up to what counts as often; beyond that, its end was told.
    given: u8,
    /// Until when nobody should wait for a better one than this, after its end, in [`served`]'s units.
    #[cfg(feature = "workers")]
    vain_until: u16,
}

impl Slot {
    /// `None`: longer than any message.
    fn new(key: &[u8], response: &Response, now_s: u64, most_s: u32) -> Option<Self> {
        let ttl_at = response.ttl_at.iter().flat_map(|at| at.to_ne_bytes());
        let message = key.iter().chain(&response.stored).copied();
        Some(Self {
            bytes: message.chain(ttl_at).collect(),
            key_len: u16::try_from(key.len()).ok()?,
            stored_len: u16::try_from(response.stored.len()).ok()?,
            stored_at_s: seconds(now_s),
            lifetime_s: response.lifetime_s?.min(most_s),
            used: false,
            given: 0,
            #[cfg(feature = "workers")]
            vain_until: 0,
        })
    }

    fn cost(&self) -> usize {
        OVERHEAD + self.bytes.len()
    }

    fn key(&self) -> &[u8] {
        self.split().0
    }

    fn stored(&self) -> &[u8] {
        self.split().1
    }

    fn ttl_at(&self) -> impl Iterator<Item = u16> {
        let places = self.split().2.as_chunks().0;
        places.iter().copied().map(u16::from_ne_bytes)
    }

    fn split(&self) -> (&[u8], &[u8], &[u8]) {
        let parts = self.bytes.split_at_checked(self.key_len.into());
        let (key, rest) = parts.unwrap_or_default();
        let parts = rest.split_at_checked(self.stored_len.into());
        let (stored, ttl_at) = parts.unwrap_or_default();
        (key, stored, ttl_at)
    }

    fn age_s(&self, now_s: u64) -> u32 {
        seconds(now_s).saturating_sub(self.stored_at_s)
    }

    /// Counts a use, and says once that it is time to ask anew.
    fn is_ending(&mut self, age_s: u32) -> bool {
        let is_ending = self.is_near_end(age_s);
        self.given += u8::from(is_ending);
        is_ending
    }

    /// Counts a use, and says whether it is time to ask anew and nobody was told.
    fn is_near_end(&mut self, age_s: u32) -> bool {
        if self.given < OFTEN {
            self.given += 1;
            return false;
        }
        let end_s = self.lifetime_s / END_PARTS;
        self.given == OFTEN && end_s > 0 && self.lifetime_s - age_s <= end_s
    }
}

/// Enough for 136 years.
fn seconds(now_s: u64) -> u32 {
    u32::try_from(now_s).unwrap_or(u32::MAX)
}

impl Cache {
    /// Keeps at most that many bytes, overhead included; 0 keeps nothing.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Self {
            index: HashMap::new(),
            hashing: RandomState::new(),
            slots: Vec::new(),
            free: Vec::new(),
            hand: 0,
            used_bytes: 0,
            max_bytes,
        }
    }

    /// Looks for an answer to a key ([`Query::key`]).
    pub fn get(&mut self, key: &[u8], now_s: u64) -> Found {
        let Some((at, slot)) = self.find(key) else {
            return Found::Nothing;
        };
        let age_s = slot.age_s(now_s);
        if u64::from(age_s) >= u64::from(slot.lifetime_s) + STALE_S {
            self.remove(at);
            return Found::Nothing;
        }
        slot.used = true;
        let mut answer = slot.stored().to_vec();
        if age_s < slot.lifetime_s {
            age(&mut answer, slot.ttl_at(), age_s, 0);
            return if slot.is_ending(age_s) {
                Found::Ending(answer)
            } else {
                Found::Fresh(answer)
            };
        }
        age(&mut answer, slot.ttl_at(), u32::MAX, STALE_TTL_S);
        Found::Stale(answer)
    }

    /// Keeps a response, if it may be kept and fits.
    pub fn insert(&mut self, query: &Query, response: &Response, now_s: u64) {
        self.insert_under(&query.key(), response, now_s);
    }

    /// Likewise, under another key that the question has.
    pub(crate) fn insert_under(&mut self, key: &[u8], response: &Response, now_s: u64) {
        if response.truncated || response.lifetime_s.is_none_or(|lifetime_s| lifetime_s == 0) {
            return;
        }
        let most_s = if response.positive {
            MAX_TTL_S
        } else {
            MAX_NEGATIVE_TTL_S
        };
        let hash = self.hash(key);
        if let Some(at) = self.index.get(&hash).copied() {
            self.remove(at);
        }
        let Some(slot) = Slot::new(key, response, now_s, most_s) else {
            return;
        };
        if slot.cost() > self.max_bytes / 4 {
            return;
        }
        while self.used_bytes + slot.cost() > self.max_bytes {
            self.evict(now_s);
        }
        let Some(at) = self.free.pop().or_else(|| self.one_more()) else {
            return;
        };
        if let Some(place) = self.slots.get_mut(at as usize) {
            self.used_bytes += slot.cost();
            self.index.insert(hash, at);
            *place = Some(slot);
        }
    }

    /// Lets go of an answer, be it good for longer or not.
    pub(crate) fn forget(&mut self, key: &[u8]) {
        if let Some((at, _)) = self.find(key) {
            self.remove(at);
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

    fn find(&mut self, key: &[u8]) -> Option<(u32, &mut Slot)> {
        let at = *self.index.get(&self.hash(key))?;
        let slot = self.slots.get_mut(at as usize)?.as_mut()?;
        (slot.key() == key).then_some((at, slot))
    }

    fn hash(&self, key: &[u8]) -> u64 {
        self.hashing.hash_one(key)
    }

    fn one_more(&mut self) -> Option<u32> {
        let at = u32::try_from(self.slots.len()).ok()?;
        self.slots.push(None);
        Some(at)
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
            if !slot.used || slot.age_s(now_s) >= slot.lifetime_s {
                self.remove(u32::try_from(self.hand).unwrap_or(u32::MAX));
                return;
            }
            slot.used = false;
        }
    }

    fn remove(&mut self, at: u32) {
        let place = self.slots.get_mut(at as usize);
        if let Some(slot) = place.and_then(Option::take) {
            self.used_bytes = self.used_bytes.saturating_sub(slot.cost());
            let hash = self.hash(slot.key());
            self.index.remove(&hash);
            self.free.push(at);
        }
    }
}

#[cfg(test)]
mod tests;
