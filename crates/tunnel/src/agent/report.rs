//! What an agent's tunnel tells of itself and of its gateways.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What the subscriber would notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentEvent {
    /// There is a session with this gateway.
    Connected {
        /// Its WireGuard key.
        gateway: [u8; 32],
        /// Where it answered.
        endpoint: SocketAddr,
    },
    /// The session with this gateway is over.
    Disconnected {
        /// Its WireGuard key.
        gateway: [u8; 32],
    },
    /// The home's packets go by this gateway from now on; nothing was cut.
    Moved {
        /// Its WireGuard key.
        gateway: [u8; 32],
        /// Where it answers.
        endpoint: SocketAddr,
        /// What was wrong with the one before.
        why: MoveReason,
    },
    /// Nobody answered; this one is tried next.
    Trying {
        /// Its WireGuard key.
        gateway: [u8; 32],
        /// Where it is looked for.
        endpoint: SocketAddr,
    },
    /// The gateway speaks from another address.
    Roamed {
        /// Where it is heard.
        endpoint: SocketAddr,
    },
    /// The path takes packets of another length.
    PathMtu {
        /// The longest.
        mtu: u16,
    },
}

/// Why the home's packets take another gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoveReason {
    /// The one before did not answer.
    Silent,
    /// The one before is about to end.
    Draining,
    /// A better one has been well for a while.
    Preferred,
}

/// What is known of a gateway of the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatewayStatus {
    /// Its WireGuard key.
    pub public: [u8; 32],
    /// Whether it carries the home's packets.
    pub active: bool,
    /// How it is.
    pub state: GatewayState,
    /// The round trip of its answers.
    pub rtt: Option<Duration>,
}

/// How a gateway is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatewayState {
    /// There is no session with it.
    Idle,
    /// There is a session, and what was sent was answered.
    Well,
    /// There is a session, and it does not answer.
    Silent,
    /// It is about to end.
    Draining,
}

/// Whether there is a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// None: what the home sends waits, and then is dropped.
    Connecting {
        /// Since when.
        since: Instant,
    },
    /// Packets pass.
    Connected {
        /// Since when.
        since: Instant,
    },
}
