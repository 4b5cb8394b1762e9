//! What the agent says about itself: over its socket while it runs, from a file beside the socket when it does not.

pub(crate) mod ask;
pub(crate) mod render;
pub(crate) mod socket;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use crate::config::{Config, KillSwitch};

/// Whether the home is protected, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Condition {
    /// The tunnel is up.
    Protected,
    /// There is a lease; the gateway does not answer yet.
    Connecting,
    /// A lease is being asked for.
    Enrolling,
    /// There is no lease, and a claim code is missing or was refused.
    Unenrolled,
    /// The provider has shut the router out.
    Revoked,
    /// The agent cannot do its work.
    Error,
    /// The agent was stopped.
    Stopped,
}

/// Everything `status --json` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Status {
    /// In one word.
    pub state: Condition,
    /// Since when, in unix seconds.
    pub since: u64,
    /// Why it is not better, as a sentence.
    pub reason: Option<String>,
    /// The gateway in use.
    pub gateway: Option<String>,
    /// All gateways of the lease, the preferred first.
    pub gateways: Vec<GatewayLine>,
    /// The lease in use.
    pub lease: Option<LeaseStatus>,
    /// The tunnel.
    pub tunnel: TunnelStatus,
    /// The lookups of the LAN.
    pub dns: DnsStatus,
    /// Whether packets that cannot go through the tunnel are dropped.
    pub kill_switch: bool,
    /// How long the captive-portal window stays open, in seconds; null when it is shut.
    pub portal_s: Option<u64>,
    /// The device's id, as the provider lists it.
    pub device: Option<String>,
    /// How often the people by whose word gateways are believed have changed: the epoch of their state.
    pub authority: u64,
    /// The program's version.
    pub version: &'static str,
}

/// One gateway of the lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct GatewayLine {
    /// Its name.
    pub name: String,
    /// Whether it carries the home's packets.
    pub active: bool,
    /// Whether sessions with it have a pre-shared key in them that was agreed by ML-KEM-768.
    pub post_quantum: bool,
    /// How it is.
    pub state: GatewayWord,
    /// The round trip to it; gateways of another hand do not tell.
    pub rtt_ms: Option<u64>,
}

/// How a gateway is, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum GatewayWord {
    /// There is no session with it, and none is needed.
    Idle,
    /// It answers.
    Well,
    /// It does not.
    Silent,
    /// It is about to end.
    Draining,
}

/// The lease in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct LeaseStatus {
    /// Its epoch.
    pub epoch: u64,
    /// Until when it holds.
    pub not_after: u64,
    /// The addresses inside the tunnel.
    pub addresses: Vec<String>,
}

/// The tunnel's counters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct TunnelStatus {
    /// How long ago the session was made.
    pub last_handshake_s: Option<u64>,
    /// Whether it has a pre-shared key in it that was agreed by ML-KEM-768.
    pub post_quantum: bool,
    /// The interface over which the gateway is reached; null when there is no way to it.
    pub wan: Option<String>,
    /// How the tunnel's datagrams travel: `direct`, or where UDP is blocked `quic`, or `tls`, which is slower.
    pub transport: &'static str,
    /// The longest packet inside.
    pub mtu: u16,
    /// Inner bytes received.
    pub rx_bytes: u64,
    /// Inner bytes sent.
    pub tx_bytes: u64,
    /// Inner bits received per second, over the last second.
    pub rx_bits_per_s: u64,
    /// Inner bits sent per second.
    pub tx_bits_per_s: u64,
    /// Packets that went no further, by reason; reasons that never occurred are left out.
    pub dropped: BTreeMap<&'static str, u64>,
}

/// The stub's counters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct DnsStatus {
    /// Lookups asked by the LAN.
    pub queries: u64,
    /// Those answered from the cache.
    pub cache_hits: u64,
    /// Those that servers of the home's own were asked for.
    pub forwarded: u64,
    /// Those that failed.
    pub failed: u64,
    /// Those that the router answered by itself: the home's own names and special ones.
    pub own: u64,
    /// Those that a blocklist forbade.
    pub blocked: u64,
    /// Those whose answer would have led into the home.
    pub rebinding: u64,
    /// What the configuration wants of post-quantum certificates: `required`, `preferred` or `off`.
    pub post_quantum_policy: &'static str,
    /// Whether lookups are sealed under post-quantum certificates, at every resolver that was asked; null before the first.
    pub post_quantum: Option<bool>,
    /// Packets from the LAN or a resolver that were dropped, by reason; reasons that never occurred are left out.
    pub dropped: BTreeMap<&'static str, u64>,
}

impl Status {
    /// That of an agent that has just started.
    pub(crate) fn new(config: &Config, state: Condition, now: u64) -> Self {
        Self {
            state,
            since: now,
            reason: None,
            gateway: None,
            gateways: Vec::new(),
            lease: None,
            tunnel: TunnelStatus::default(),
            dns: DnsStatus {
                post_quantum_policy: config.dns.post_quantum.as_str(),
                ..DnsStatus::default()
            },
            kill_switch: config.kill_switch == KillSwitch::On,
            portal_s: None,
            device: None,
            authority: 0,
            version: crate::cli::VERSION,
        }
    }

    /// Changes state and reason, and tells whether that was news.
    pub(crate) fn turn(&mut self, state: Condition, reason: Option<String>, now: u64) -> bool {
        let is_news = (self.state, &self.reason) != (state, &reason);
        if self.state != state {
            self.since = now;
        }
        self.state = state;
        self.reason = reason;
        is_news
    }
}

/// The file that tells how it was when the agent is not there to say. In memory, beside the socket.
pub(crate) fn last_words_path(config: &Config) -> PathBuf {
    config.status_socket.with_extension("json")
}

/// Where the last words go: an open file, since its folder may be closed to the user that the agent becomes.
#[derive(Debug, Clone)]
pub(crate) struct LastWords(Arc<File>);

impl LastWords {
    /// Writes to this file from now on.
    pub(crate) fn new(file: File) -> Self {
        Self(Arc::new(file))
    }

    /// Replaces what was said before; failing costs nothing but the words.
    pub(crate) fn say(&self, status: &Status) {
        if let Ok(text) = serde_json::to_vec(status) {
            let length = text.len() as u64;
            // A full memory file system: `status` then says that nothing is known.
            let _ = self
                .0
                .write_all_at(&text, 0)
                .and_then(|()| self.0.set_len(length));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_when_the_state_began_whatever_happens_to_the_reason() {
        let config =
            crate::config::parse(include_str!("../../docs/config/cpe-agent.toml")).unwrap();
        let mut status = Status::new(&config, Condition::Connecting, 10);

        let first = status.turn(Condition::Connecting, Some("no answer".into()), 20);
        let again = status.turn(Condition::Connecting, Some("no answer".into()), 30);
        let better = status.turn(Condition::Protected, None, 40);

        assert_eq!((first, again, better), (true, false, true));
        assert_eq!((status.since, status.reason), (40, None));
    }
}
