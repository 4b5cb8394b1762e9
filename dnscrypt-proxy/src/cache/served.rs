//! What a server's worker asks of the cache: answers as a query gets them, made in one copy, and what it has learnt of
//! those that ended.

use super::{Cache, OFTEN, STALE_S, STALE_TTL_S, Slot};
use crate::proto::message::{ExtendedError, Query, age, unmark_proven};

/// After a failure a stale answer is given at once for this long (RFC 8767, section 5: the failure recheck timer).
const RECHECK_S: u32 = 30;
/// The unit in which that time is remembered, since the answer's end: a day of them fits the slot.
const UNIT_S: u32 = 2;
/// In the place of that time: after its end it stands in for nothing.
const NEVER: u16 = u16::MAX;

/// What was found for a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// An answer within its lifetime.
    Fresh(Vec<u8>),
    /// The same, of a name that is asked for often, near its end, until it is [asked anew](Cache::asked_anew).
    Ending(Vec<u8>),
    /// One past its lifetime; a better one may be had.
    Stale,
    /// Likewise, and the last try for a better one failed a short time ago: as it is given.
    Vain(Vec<u8>),
    /// Nothing.
    Nothing,
}

impl Cache {
    /// Looks for the answer to a query; `key` is one that the query has.
    pub(crate) fn look(&mut self, key: &[u8], query: &Query, now_s: u64) -> Look {
        let Some((at, slot)) = self.find(key) else {
            return Look::Nothing;
        };
        let age_s = slot.age_s(now_s);
        if age_s < slot.lifetime_s {
            slot.used = true;
            let mut answer = query.adopt(slot.stored(), None);
            age(&mut answer, slot.ttl_at(), age_s, 0);
            return if slot.is_near_end(age_s) {
                Look::Ending(answer)
            } else {
                Look::Fresh(answer)
            };
        }
        let Some(over_s) = slot.over_s(now_s) else {
            self.remove(at);
            return Look::Nothing;
        };
        if over_s / UNIT_S < u32::from(slot.vain_until) {
            return Look::Vain(slot.stale(query));
        }
        Look::Stale
    }

    /// An answer past its lifetime as a query gets it, for want of a better one.
    pub(crate) fn stale(&mut self, key: &[u8], query: &Query, now_s: u64) -> Option<Vec<u8>> {
        let (_, slot) = self.find(key)?;
        slot.over_s(now_s)?;
        Some(slot.stale(query))
    }

    /// Whether there is one.
    pub(crate) fn is_stale(&mut self, key: &[u8], now_s: u64) -> bool {
        let found = self.find(key);
        found.is_some_and(|(_, slot)| slot.over_s(now_s).is_some())
    }

    /// An answer that is near its end is on its way anew.
    pub(crate) fn asked_anew(&mut self, key: &[u8]) {
        if let Some((_, slot)) = self.find(key) {
            slot.given = OFTEN + 1;
        }
    }

    /// There was no better answer than the one that ended.
    pub(crate) fn failed(&mut self, key: &[u8], now_s: u64) {
        if let Some((_, slot)) = self.find(key)
            && let Some(over_s) = slot.over_s(now_s)
        {
            let until = (over_s + RECHECK_S) / UNIT_S;
            slot.vain_until = u16::try_from(until).unwrap_or(NEVER);
        }
    }

    /// Validation refused what came: an answer that has ended is gone, and one that has not is good to its end alone.
    pub(crate) fn refused(&mut self, key: &[u8], now_s: u64) {
        let Some((at, slot)) = self.find(key) else {
            return;
        };
        if slot.age_s(now_s) < slot.lifetime_s {
            slot.vain_until = NEVER;
        } else {
            self.remove(at);
        }
    }
}

impl Slot {
    /// How long it has been over, if it may still stand in.
    fn over_s(&self, now_s: u64) -> Option<u32> {
        let over_s = self.age_s(now_s).checked_sub(self.lifetime_s)?;
        let may_stand_in = u64::from(over_s) < STALE_S && self.vain_until != NEVER;
        may_stand_in.then_some(over_s)
    }

    fn stale(&self, query: &Query) -> Vec<u8> {
        let mut answer = query.adopt(self.stored(), Some(ExtendedError::StaleAnswer));
        age(&mut answer, self.ttl_at(), u32::MAX, STALE_TTL_S);
        // A proof has an end of its own, at which nobody has looked since.
        unmark_proven(&mut answer);
        answer
    }
}
