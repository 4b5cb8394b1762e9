//! Very many names in little memory: of each a keyed hash of 64 bits.
//!
//! A name that is not in the set is taken for one that is with a probability of its size divided by 2⁶⁴: with 200,000
//! names, one look in 9 × 10¹³. The key is drawn anew in each process, so nobody can make a list that hits a name by
//! design.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

use super::name::labels;

/// The set: a table with open addressing, three quarters full at most. Room for 200,000 names is 2.1 MB.
#[derive(Debug)]
pub(super) struct HashedNames {
    key: RandomState,
    slots: Box<[u64]>,
    len: usize,
}

impl HashedNames {
    /// Room for so many names; what is more is not taken.
    pub(super) fn with_room_for(names: usize) -> Self {
        let slots = if names == 0 { 0 } else { names + names / 3 + 1 };
        Self {
            key: RandomState::new(),
            slots: vec![0; slots].into_boxed_slice(),
            len: 0,
        }
    }

    pub(super) fn insert(&mut self, name: &[u8]) {
        // An empty slot always remains, where a search ends.
        if self.len + 1 >= self.slots.len() {
            return;
        }
        let hash = self.hash(name);
        let at = self.find(hash);
        if let Some(slot) = self.slots.get_mut(at).filter(|slot| **slot == 0) {
            *slot = hash;
            self.len += 1;
        }
    }

    /// Whether the name is in it, or one that it is below.
    pub(super) fn has_name_or_above(&self, name: &[u8]) -> bool {
        self.len > 0
            && labels(name).any(|at| {
                let hash = self.hash(name.get(at..).unwrap_or_default());
                self.slots.get(self.find(hash)) == Some(&hash)
            })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The slot that holds a hash, or the empty one where it would be.
    fn find(&self, hash: u64) -> usize {
        let high = hash >> 32;
        let at = (high * self.slots.len() as u64) >> 32;
        let mut at = usize::try_from(at).unwrap_or_default();
        while let Some(slot) = self.slots.get(at) {
            if *slot == 0 || *slot == hash {
                return at;
            }
            at = if at + 1 < self.slots.len() { at + 1 } else { 0 };
        }
        at
    }

    /// Zero is the empty slot.
    fn hash(&self, name: &[u8]) -> u64 {
        self.key.hash_one(name).max(1)
    }
}
