//! Shared keys that are kept, so that a client's next query needs no key agreement.

use std::collections::HashMap;

use super::Keyring;
use crate::proto::cert::ClientMagic;
use crate::proto::seal::SharedKey;

pub(super) type KeyId = (ClientMagic, [u8; 32]);

/// How much of the bound is for keys that came once.
const ONCE: usize = 4;

/// Shared keys of clients whose packets were authentic. A key that came once is kept apart from those that
/// came again: clients with a new key for each query push out one another and nobody else.
#[derive(Debug)]
pub struct KeyCache {
    once: Generations,
    again: Generations,
}

/// At most `2 * half` keys: the younger generation fills, then replaces the older.
#[derive(Debug)]
struct Generations {
    young: HashMap<KeyId, SharedKey>,
    old: HashMap<KeyId, SharedKey>,
    half: usize,
}

impl KeyCache {
    /// Keeps at most `bound` keys; 0 keeps none.
    #[must_use]
    pub fn new(bound: usize) -> Self {
        let once = (bound / ONCE).max(2).min(bound);
        Self {
            once: Generations::new(once),
            again: Generations::new(bound - once),
        }
    }

    // MUST, "Key Management": with a key goes what was agreed under it.
    /// Forgets what was agreed under keys that are no longer in the ring.
    pub fn retain_only(&mut self, keyring: &Keyring) {
        for generations in [&mut self.once, &mut self.again] {
            for generation in [&mut generations.young, &mut generations.old] {
                generation.retain(|(magic, _), _| keyring.find(magic).is_some());
            }
        }
    }

    /// How many keys are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.once.len() + self.again.len()
    }

    /// Whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes over another one's keys.
    pub fn absorb(&mut self, other: Self) {
        for generation in [
            other.once.young,
            other.once.old,
            other.again.young,
            other.again.old,
        ] {
            for (id, shared) in generation {
                self.insert(id, shared);
            }
        }
    }

    pub(super) fn holds(&self, id: &KeyId) -> bool {
        self.again.holds(id) || self.once.holds(id)
    }

    pub(super) fn get(&mut self, id: &KeyId) -> Option<SharedKey> {
        if let Some(shared) = self.again.young.get(id) {
            return Some(shared.clone());
        }
        let shared = match self.again.old.remove(id) {
            Some(shared) => shared,
            None if self.again.half == 0 => return self.once.peek(id),
            None => self.once.remove(id)?,
        };
        self.again.insert(*id, shared.clone());
        Some(shared)
    }

    pub(super) fn insert(&mut self, id: KeyId, shared: SharedKey) {
        if !self.again.holds(&id) {
            self.once.insert(id, shared);
        }
    }
}

impl Generations {
    fn new(bound: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            half: bound / 2,
        }
    }

    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    fn holds(&self, id: &KeyId) -> bool {
        self.young.contains_key(id) || self.old.contains_key(id)
    }

    fn peek(&self, id: &KeyId) -> Option<SharedKey> {
        self.young.get(id).or_else(|| self.old.get(id)).cloned()
    }

    fn remove(&mut self, id: &KeyId) -> Option<SharedKey> {
        self.young.remove(id).or_else(|| self.old.remove(id))
    }

    fn insert(&mut self, id: KeyId, shared: SharedKey) {
        if self.half == 0 {
            return;
        }
        if self.young.len() >= self.half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id, shared);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zeroize::Zeroizing;

    fn id(n: u32) -> KeyId {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&n.to_be_bytes());
        (*b"es2magic", key)
    }

    fn key() -> SharedKey {
        SharedKey::from_bytes(Zeroizing::new([7; 32]))
    }

    #[test]
    fn any_number_of_keys_that_came_once_push_out_none_that_came_again() {
        let mut cache = KeyCache::new(64);
        for n in 0..8 {
            cache.insert(id(n), key());
            assert!(cache.get(&id(n)).is_some());
        }

        for n in 100..10_000 {
            cache.insert(id(n), key());
            assert!(cache.len() <= 64);
        }

        assert!((0..8).all(|n| cache.holds(&id(n))));
        assert!(!cache.holds(&id(100)));
        assert!(cache.holds(&id(9_999)));
    }

    #[test]
    fn keys_that_come_again_and_again_stay_within_the_bound_and_the_latest_are_kept() {
        let mut cache = KeyCache::new(64);

        for n in 0..1_000 {
            cache.insert(id(n), key());
            assert!(cache.get(&id(n)).is_some());
            assert!(cache.get(&id(0)).is_some(), "key 0 is in use all the time");
            assert!(cache.len() <= 64);
        }

        assert!(cache.holds(&id(999)));
        assert!(!cache.holds(&id(1)));
    }

    #[test]
    fn a_cache_without_room_keeps_nothing() {
        let mut cache = KeyCache::new(0);

        cache.insert(id(1), key());

        assert!(cache.is_empty() && cache.get(&id(1)).is_none());
    }

    #[test]
    fn what_was_agreed_elsewhere_is_taken_over() {
        let (mut cache, mut other) = (KeyCache::new(8), KeyCache::new(8));
        other.insert(id(1), key());

        cache.absorb(other);

        assert!(cache.holds(&id(1)));
    }
}
