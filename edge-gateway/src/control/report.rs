//! What `status` is told.

use std::sync::atomic::{AtomicU64, Ordering};

use dnscrypt_proxy::Counters;
use dnscrypt_proxy::proto::dropped::Counted;
use netio::clock;

use super::{Control, STALE, worker_lost};
use crate::announce::Announcer;
use crate::dns;
use crate::engine::Totals;
use crate::exit::Fault;
use crate::peers;
use crate::relay;
use crate::status::{
    DeviceStatus, DnsStatus, DoorsStatus, PeersStatus, Progress, RelayStatus, RelayedStatus,
    ShardStatus, State, Status, TunnelStatus, WorkerStatus,
};

impl Control {
    /// The status as one line of JSON.
    pub(super) async fn describe(&self, leases: bool) -> Result<String, Fault> {
        let mut status = self.status();
        if leases {
            let mut present = Vec::new();
            for worker in &self.workers {
                present.extend(worker.peer_traffic().await.map_err(worker_lost)?);
            }
            status.leases = Some(self.accounts.totals(&present));
        }
        // Nothing in a status can fail to be written as JSON; an empty line would say so.
        Ok(serde_json::to_string(&status).unwrap_or_default())
    }

    /// How far a drain is.
    pub(super) fn progress(&self) -> Progress {
        let now = tokio::time::Instant::now();
        let left = self.drain.as_ref().map(|drain| drain.left(now));
        Progress {
            state: State::Draining,
            active: self.totals.carried.active,
            movable: self.totals.carried.movable,
            left_s: left.unwrap_or_default().as_secs(),
        }
    }

    fn status(&self) -> Status {
        let figures = self.figures.borrow();
        let dropped = self.totals.dropped.iter().filter(|(_, count)| **count > 0);
        Status {
            state: if self.drain.is_some() {
                State::Draining
            } else {
                State::Running
            },
            since: self.since,
            warnings: self.warnings(&figures),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            id: self.id.clone(),
            peers: PeersStatus {
                leased: figures.leased,
                awake: self.totals.awake,
                active: self.totals.carried.active,
                post_quantum: figures.agreed,
            },
            shards: figures
                .shards
                .iter()
                .map(|(shard, stream)| shard_status(*shard, stream))
                .collect(),
            tunnel: TunnelStatus {
                rx_bytes: self.totals.rx_bytes,
                tx_bytes: self.totals.tx_bytes,
                rx_bits_per_s: None,
                tx_bits_per_s: None,
                handshakes: self.totals.handshakes.total(),
                device: self
                    .device
                    .counted()
                    .map(|counted| DeviceStatus::new(counted, &self.totals)),
                dropped: dropped
                    .map(|(reason, count)| ((*reason).to_owned(), *count))
                    .collect(),
                workers: self.by_worker.iter().map(worker_status).collect(),
            },
            dns: self.dns.as_deref().map(dns_status),
            doors: self.doors.as_deref().map(DoorsStatus::new),
            relay: self.relay.as_deref().map(relay_status),
            leases: None,
        }
    }

    fn warnings(&self, figures: &peers::Figures) -> Vec<String> {
        let mut warnings = Vec::new();
        for (shard, stream) in &figures.shards {
            let problems = [&stream.error, &stream.disk_error].into_iter().flatten();
            warnings.extend(problems.map(|problem| format!("shard {shard}: {problem}")));
            let silent = stream.last_contact.unwrap_or(self.started).elapsed();
            if silent >= STALE {
                let seconds = silent.as_secs();
                warnings.push(format!(
                    "shard {shard}: provisioning silent for {seconds} s; nobody new is admitted"
                ));
            }
        }
        if let Some(error) = &figures.key_error {
            warnings.push(format!(
                "post-quantum keys are not told to routers: {error}"
            ));
        }
        if self.shuts_out {
            warnings.push(
                "tunnel.post-quantum was turned off: routers that agreed a key with this gateway do not come back to it; \
                 turn it on again, or give the gateway another identity (docs/decisions/0011)"
                    .to_owned(),
            );
        }
        if self.totals.not_admitted > 0 {
            warnings.push(format!(
                "{} verified leases could not be used; see the log",
                self.totals.not_admitted
            ));
        }
        let lost = self.announcer.as_ref().map_or(0, Announcer::lost);
        if lost > 0 {
            warnings.push(format!(
                "{lost} announcements of routers found no room at once; each was made good within some seconds"
            ));
        }
        if clock::unix_s() < self.since {
            warnings.push("the clock was set back while the gateway ran".to_owned());
        }
        warnings
    }
}

fn worker_status(totals: &Totals) -> WorkerStatus {
    let dropped = totals.dropped.iter().filter(|(_, count)| **count > 0);
    WorkerStatus {
        leased: totals.peers,
        awake: totals.awake,
        rx_bytes: totals.rx_bytes,
        tx_bytes: totals.tx_bytes,
        rx_packets: totals.rx_packets,
        tx_packets: totals.tx_packets,
        handshakes: totals.handshakes.total(),
        handed_over: totals.handed_over,
        dropped: dropped
            .map(|(reason, count)| ((*reason).to_owned(), *count))
            .collect(),
    }
}

fn shard_status(shard: u32, stream: &peers::StreamFigures) -> ShardStatus {
    ShardStatus {
        shard,
        next: stream.next,
        last_contact_s: stream.last_contact.map(|at| at.elapsed().as_secs()),
        error: stream.error.clone(),
    }
}

fn relay_status(figures: &relay::Figures) -> RelayStatus {
    let of = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
    RelayStatus {
        open: of(&figures.quic_open) + of(&figures.tls_open),
        quic: of(&figures.quic_sessions),
        tls: of(&figures.tls_sessions),
        refused: of(&figures.refused_full)
            + of(&figures.refused_target)
            + of(&figures.refused_connections),
    }
}

fn dns_status(figures: &dns::Figures) -> DnsStatus {
    let outcomes = figures.outcomes().filter(|(_, count)| *count > 0);
    let outcomes: std::collections::BTreeMap<_, _> = outcomes
        .map(|(outcome, count)| (outcome.as_label().to_owned(), count))
        .collect();
    let dropped = |counters: &Counters| {
        let dropped = counters.all_dropped();
        dropped
            .map(|(reason, count)| (reason.as_label().to_owned(), count as u64))
            .collect()
    };
    let relay = &figures.relay;
    let relayed = RelayedStatus {
        queries: (relay.get(Counted::UdpQuery) + relay.get(Counted::TcpQuery)) as u64,
        answers: relay.get(Counted::Answer) as u64,
        dropped: dropped(relay),
    };
    let upstream = figures.upstream.all();
    DnsStatus {
        upstream: upstream
            .map(|(event, count)| (event.as_label().to_owned(), count as u64))
            .collect(),
        queries: outcomes.values().sum(),
        outcomes,
        seals: figures
            .seals()
            .map(|(seal, count)| (seal.to_owned(), count))
            .into(),
        memory: (figures.memory().into_iter())
            .filter(|(_, count)| *count > 0)
            .map(|(what, count)| (what.to_owned(), count))
            .collect(),
        dropped: dropped(&figures.server),
        relayed: (relayed != RelayedStatus::default()).then_some(relayed),
    }
}
