//! What both roles tell of a peer: counters and the age of its session.

use std::net::SocketAddr;
use std::time::Duration;

/// What passed, counted in inner packets; keepalives and handshakes are not among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes received from the peer and admitted.
    pub rx_bytes: u64,
    /// Bytes sent to the peer.
    pub tx_bytes: u64,
    /// Packets received from the peer and admitted.
    pub rx_packets: u64,
    /// Packets sent to the peer.
    pub tx_packets: u64,
}

impl Traffic {
    pub(crate) fn count_sent(&mut self, bytes: usize) {
        self.tx_packets += 1;
        self.tx_bytes += bytes as u64;
    }

    pub(crate) fn count_received(&mut self, bytes: usize) {
        self.rx_packets += 1;
        self.rx_bytes += bytes as u64;
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            rx_bytes: self.rx_bytes + other.rx_bytes,
            tx_bytes: self.tx_bytes + other.tx_bytes,
            rx_packets: self.rx_packets + other.rx_packets,
            tx_packets: self.tx_packets + other.tx_packets,
        }
    }
}

/// Upper ends, in milliseconds, of the classes of [`Handshakes`]; what took longer is in one more.
pub const HANDSHAKE_MS: [u64; 9] = [5, 10, 20, 50, 100, 200, 500, 1_000, 5_000];

/// Handshakes that came to a session, first ones and renewals, by how long the peer took: from our answer to the packet that
/// proves that it came, or from our first try to the answer. A round trip, and what either side let it wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handshakes {
    /// How many took as long as each class says.
    pub classes: [u64; HANDSHAKE_MS.len() + 1],
    /// How long all of them took together.
    pub took: Duration,
}

impl Handshakes {
    pub(crate) fn count(&mut self, took: Duration) {
        let class = HANDSHAKE_MS.partition_point(|ms| took > Duration::from_millis(*ms));
        if let Some(count) = self.classes.get_mut(class) {
            *count += 1;
        }
        self.took += took;
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.classes.iter().sum()
    }

    /// Adds another worker's.
    pub fn add(&mut self, other: Self) {
        for (class, more) in self.classes.iter_mut().zip(other.classes) {
            *class += more;
        }
        self.took += other.took;
    }
}

/// What makes the leases' counters and the TUN device's own equal, to the byte, beside [`HeaderBytes`]. With nothing under way:
/// the device received what the leases sent, and `told`, less `spared` and `overflowed`; it sent what the leases received, with `lost` and
/// `waiting`, less `added`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Bytes of packets that were read from the device and dropped, headers that cutting adds included.
    pub lost: u64,
    /// Bytes of packets that were read from the device and wait for a session.
    pub waiting: u64,
    /// Bytes of packets of peers that were counted and for which there was no memory in front of the device.
    pub overflowed: u64,
    /// Bytes of packets of our own making for the internet: what is too long for a path.
    pub told: u64,
    /// What was asked and answered here, for no lease and by no device.
    pub answered: Traffic,
}

/// By how much the TUN device's own byte counters differ from the sum over peers, because it counts super-packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeaderBytes {
    /// Headers that were not written to the device, as their packets were joined.
    pub spared: u64,
    /// Headers that were not read from the device, as their packets were cut here.
    pub added: u64,
}

/// A peer as seen from this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStats {
    /// What passed since the peer was added.
    pub traffic: Traffic,
    /// Where it was heard last, or is looked for.
    pub endpoint: Option<SocketAddr>,
    /// How long ago the session in use was made; `None` without one.
    pub session_age: Option<Duration>,
}
