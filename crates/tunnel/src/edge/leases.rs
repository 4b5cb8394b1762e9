//! Leases come and go.

use std::time::Instant;

use super::{EdgeEvent, EdgeTunnel, PeerConfig, UpsertError, Upserted};
use crate::policy::Slot;
use crate::stats::{PeerStats, Traffic};

impl EdgeTunnel {
    /// Admits a lease, or changes the one that its device has.
    ///
    /// # Errors
    /// When there is no room, or its key or an address is another device's.
    pub fn upsert_peer(
        &mut self,
        config: PeerConfig,
        now: Instant,
    ) -> Result<Upserted, UpsertError> {
        let held = self.peers.slot_of(&config.public);
        let has_moved = |slot: &Slot| {
            self.peers
                .get(*slot)
                .is_some_and(|peer| *peer.allowed != *config.allowed)
        };
        if let Some(slot) = held.filter(has_moved) {
            self.stand_down(slot);
        }
        let result = self.peers.upsert(config, now);
        self.tell_of_removed();
        result
    }

    /// Forgets a peer and its session at once, and returns its last counters.
    pub fn remove_peer(&mut self, public: &[u8; 32], now: Instant) -> Option<PeerStats> {
        let slot = self.peers.slot_of(public)?;
        let peer = self.peers.remove(slot);
        self.tell_of_removed();
        peer.map(|peer| peer.stats(now))
    }

    /// The counters of a peer that had to make room for another, since it was last asked.
    pub fn poll_displaced(&mut self) -> Option<([u8; 32], Traffic)> {
        self.peers.displaced.pop()
    }

    fn tell_of_removed(&mut self) {
        while let Some(addresses) = self.peers.removed.pop() {
            self.tell(EdgeEvent::Left { addresses });
        }
    }
}
