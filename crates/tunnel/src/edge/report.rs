//! What a gateway's tunnel tells of itself and of its peers.

use std::ops::Range;
use std::time::Instant;

use ipnet::IpNet;

use super::EdgeTunnel;
use crate::dropped::DropCounts;
use crate::stats::{Handshakes, HeaderBytes, Ledger, PeerStats, Traffic};

/// What an operator may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EdgeEvent {
    /// The peer has a session.
    Connected {
        /// The device.
        id: [u8; 32],
    },
    /// The peer has none any more.
    Asleep {
        /// The device.
        id: [u8; 32],
    },
    /// The peer speaks from another address.
    Roamed {
        /// The device.
        id: [u8; 32],
    },
    /// The peer's lease has ended; nothing passes until it is renewed.
    Expired {
        /// The device.
        id: [u8; 32],
        /// Its WireGuard key.
        public: [u8; 32],
    },
    /// A peer's packets come and go by this gateway, and no longer by another.
    Carried {
        /// Its inner addresses.
        addresses: Vec<IpNet>,
    },
    /// They do not any more.
    Left {
        /// Its inner addresses.
        addresses: Vec<IpNet>,
    },
}

impl EdgeTunnel {
    /// A peer's counters.
    #[must_use]
    pub fn peer_stats(&self, public: &[u8; 32], now: Instant) -> Option<PeerStats> {
        let slot = self.peers.slot_of(public)?;
        self.peers.get(slot).map(|peer| peer.stats(now))
    }

    /// What passed for all peers together, present and past.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.received.plus(self.outbox.carried())
    }

    /// The handshakes that came to a session.
    #[must_use]
    pub fn handshakes(&self) -> Handshakes {
        self.handshakes
    }

    /// What makes [`EdgeTunnel::traffic`] and the device's counters equal, beside [`EdgeTunnel::header_bytes`].
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        let abandoned = self.peers.abandoned;
        Ledger {
            lost: self.ledger.lost + self.outbox.given_up() + abandoned,
            waiting: self.outbox.waiting().saturating_sub(abandoned),
            overflowed: self.inbox.overflowed(),
            ..self.ledger
        }
    }

    /// What joining packets spared the device: its counter of received bytes shows so many less than
    /// [`EdgeTunnel::traffic`], and of sent bytes what cutting added.
    #[must_use]
    pub fn header_bytes(&self) -> HeaderBytes {
        HeaderBytes {
            spared: self.inbox.spared(),
            added: self.header_bytes_added,
        }
    }

    /// The devices at these places of the table for which anything has passed, with their counters; see
    /// [`EdgeTunnel::places`].
    pub fn traffic_at(&self, places: Range<u32>) -> impl Iterator<Item = ([u8; 32], Traffic)> + '_ {
        let peers = self.peers.in_places(places);
        peers
            .map(|(_, peer)| (peer.id, peer.traffic()))
            .filter(|(_, traffic)| *traffic != Traffic::default())
    }

    /// How many places the table has: a hundred thousand are not gone through at once while packets wait.
    #[must_use]
    pub fn places(&self) -> u32 {
        self.peers.places().end
    }

    /// How many leases the table has.
    #[must_use]
    pub fn peer_count(&self) -> usize {
        self.peers.len()
    }

    /// How many of them have a session or a handshake.
    #[must_use]
    pub fn awake_count(&self) -> usize {
        self.peers.awake()
    }

    /// Our own key.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        self.gate.public()
    }

    /// How packets died.
    #[must_use]
    pub fn dropped(&self) -> &DropCounts {
        &self.dropped
    }
}
