//! The gateway's metrics: names stand in `telemetry`, numbers come from the workers, the streams and the
//! resolver once a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dnscrypt_proxy::Counters;
use dnscrypt_proxy::proto::dropped::Counted;
use telemetry::metrics::names;
use telemetry::{Counter, Gauge, Histogram, LabelledCounter, LabelledGauge, Registry};
use tunnel::sample::Direction;
use tunnel::share::MAX_WORKERS;
use tunnel::stats::HANDSHAKE_MS;

use crate::device::DeviceBytes;
use crate::dns;
use crate::doors;
use crate::engine::{Books, Totals};
use crate::peers::Figures;
use crate::relay;
use crate::sampling::Volume;

/// Labels of workers.
const WORKERS: [&str; MAX_WORKERS as usize] = [
    "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16",
    "17", "18", "19", "20", "21", "22", "23", "24", "25", "26", "27", "28", "29", "30", "31", "32",
    "33", "34", "35", "36", "37", "38", "39", "40", "41", "42", "43", "44", "45", "46", "47", "48",
    "49", "50", "51", "52", "53", "54", "55", "56", "57", "58", "59", "60", "61", "62", "63",
];

/// All metrics of the gateway.
pub(crate) struct Metrics {
    registry: Arc<Registry>,
    peers: Gauge,
    carried: Gauge,
    draining: Gauge,
    lag: Gauge,
    handshakes: Counter,
    handshake_seconds: Histogram,
    write_failures: Counter,
    bytes: LabelledCounter,
    header_bytes: LabelledCounter,
    device_bytes: LabelledCounter,
    apart_bytes: LabelledCounter,
    sampled_from: LabelledCounter,
    sampled_to: LabelledCounter,
    dropped: LabelledCounter,
    lease_changes: LabelledCounter,
    lookups: LabelledCounter,
    lookup_seals: LabelledCounter,
    lookup_memory: LabelledCounter,
    lookups_dropped: LabelledCounter,
    door_queries: LabelledCounter,
    door_connections: LabelledGauge,
    doors_shared: Counter,
    doors_refused: LabelledCounter,
    forwarded: LabelledCounter,
    forwarded_dropped: LabelledCounter,
    upstream: LabelledCounter,
    worker_packets: LabelledCounter,
    worker_bytes: LabelledCounter,
    worker_handshakes: LabelledCounter,
    worker_dropped: LabelledCounter,
    handed_over: LabelledCounter,
    relay_sessions: LabelledGauge,
    relay_accepted: LabelledCounter,
    relay_bytes: LabelledCounter,
    relay_refused: LabelledCounter,
}

impl Metrics {
    /// Registers them.
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        registry
            .labelled_counter(names::GATEWAY_BUILD, "version")
            .with(env!("CARGO_PKG_VERSION"))
            .inc();
        Self {
            peers: registry.gauge(names::GATEWAY_PEERS),
            carried: registry.gauge(names::GATEWAY_CARRIED),
            draining: registry.gauge(names::GATEWAY_DRAINING),
            lag: registry.gauge(names::GATEWAY_STREAM_LAG),
            handshakes: registry.counter(names::GATEWAY_HANDSHAKES),
            handshake_seconds: registry.histogram(names::GATEWAY_HANDSHAKE_SECONDS),
            write_failures: registry.counter(names::GATEWAY_STATE_WRITE_FAILURES),
            bytes: registry.labelled_counter(names::GATEWAY_TUNNEL_BYTES, "direction"),
            header_bytes: registry.labelled_counter(names::GATEWAY_OFFLOAD_HEADER_BYTES, "offload"),
            device_bytes: registry.labelled_counter(names::GATEWAY_DEVICE_BYTES, "direction"),
            apart_bytes: registry.labelled_counter(names::GATEWAY_APART_BYTES, "what"),
            sampled_from: registry.labelled_counter(names::GATEWAY_SAMPLED_FROM, "network"),
            sampled_to: registry.labelled_counter(names::GATEWAY_SAMPLED_TO, "network"),
            dropped: registry.labelled_counter(names::GATEWAY_DROPPED_PACKETS, "reason"),
            lease_changes: registry.labelled_counter(names::GATEWAY_LEASE_CHANGES, "outcome"),
            lookups: registry.labelled_counter(names::GATEWAY_DNS_QUERIES, "outcome"),
            lookup_seals: registry.labelled_counter(names::GATEWAY_DNS_SEALS, "seal"),
            lookup_memory: registry.labelled_counter(names::GATEWAY_DNS_MEMORY, "what"),
            lookups_dropped: registry.labelled_counter(names::GATEWAY_DNS_DROPPED, "reason"),
            door_queries: registry.labelled_counter(names::GATEWAY_DOOR_QUERIES, "door"),
            door_connections: registry.labelled_gauge(names::GATEWAY_DOOR_CONNECTIONS, "door"),
            doors_shared: registry.counter(names::GATEWAY_DOORS_SHARED),
            doors_refused: registry.labelled_counter(names::GATEWAY_DOORS_REFUSED, "reason"),
            forwarded: registry.labelled_counter(names::GATEWAY_DNS_RELAYED, "what"),
            forwarded_dropped: registry
                .labelled_counter(names::GATEWAY_DNS_RELAY_DROPPED, "reason"),
            upstream: registry.labelled_counter(names::GATEWAY_DNS_UPSTREAM, "event"),
            worker_packets: registry.labelled_counter(names::GATEWAY_WORKER_PACKETS, "worker"),
            worker_bytes: registry.labelled_counter(names::GATEWAY_WORKER_BYTES, "worker"),
            worker_handshakes: registry
                .labelled_counter(names::GATEWAY_WORKER_HANDSHAKES, "worker"),
            worker_dropped: registry.labelled_counter(names::GATEWAY_WORKER_DROPPED, "worker"),
            handed_over: registry.labelled_counter(names::GATEWAY_HANDED_OVER, "worker"),
            relay_sessions: registry.labelled_gauge(names::GATEWAY_RELAY_SESSIONS, "carrier"),
            relay_accepted: registry.labelled_counter(names::GATEWAY_RELAY_ACCEPTED, "carrier"),
            relay_bytes: registry.labelled_counter(names::GATEWAY_RELAY_BYTES, "direction"),
            relay_refused: registry.labelled_counter(names::GATEWAY_RELAY_REFUSED, "reason"),
            registry: Arc::new(registry),
        }
    }

    /// What a scrape reads.
    pub(crate) fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.registry)
    }

    /// Says that the gateway drains.
    pub(crate) fn draining(&self) {
        self.draining.set(1);
    }

    /// Brings every metric up to date.
    pub(crate) fn update(
        &self,
        totals: &Totals,
        figures: &Figures,
        stalest_s: u64,
        dns: Option<&dns::Figures>,
    ) {
        self.peers
            .set(i64::try_from(figures.leased).unwrap_or(i64::MAX));
        self.carried
            .set(i64::try_from(totals.carried.active).unwrap_or(i64::MAX));
        self.lag.set(i64::try_from(stalest_s).unwrap_or(i64::MAX));
        follow(&self.handshakes, totals.handshakes.total());
        self.handshake_seconds.tell(
            HANDSHAKE_MS.map(|ms| ms as f64 / 1e3).as_slice(),
            &totals.handshakes.classes,
            totals.handshakes.took.as_secs_f64(),
        );
        follow(&self.write_failures, figures.write_failures);
        follow(&self.bytes.with("from_routers"), totals.rx_bytes);
        follow(&self.bytes.with("to_routers"), totals.tx_bytes);
        let headers = totals.books.headers;
        follow(&self.header_bytes.with("spared"), headers.spared);
        follow(&self.header_bytes.with("added"), headers.added);
        for (reason, count) in &totals.dropped {
            follow(&self.dropped.with(reason), *count);
        }
        for (outcome, count) in &figures.outcomes {
            follow(&self.lease_changes.with(outcome.as_label()), *count);
        }
        for (outcome, count) in dns.into_iter().flat_map(dns::Figures::outcomes) {
            follow(&self.lookups.with(outcome.as_label()), count);
        }
        for (seal, count) in dns.into_iter().flat_map(dns::Figures::seals) {
            follow(&self.lookup_seals.with(seal), count);
        }
        for (what, count) in dns.into_iter().flat_map(dns::Figures::memory) {
            follow(&self.lookup_memory.with(what), count);
        }
        for (event, count) in dns.into_iter().flat_map(|dns| dns.upstream.all()) {
            follow(&self.upstream.with(event.as_label()), count as u64);
        }
        for (reason, count) in dns.into_iter().flat_map(|dns| dns.server.all_dropped()) {
            if count > 0 {
                follow(&self.lookups_dropped.with(reason.as_label()), count as u64);
            }
        }
        if let Some(dns) = dns {
            self.update_dns_relay(&dns.relay);
        }
    }
}

impl Metrics {
    fn update_dns_relay(&self, relay: &Counters) {
        for (what, counted) in [
            ("queries_udp", Counted::UdpQuery),
            ("queries_tcp", Counted::TcpQuery),
            ("answers", Counted::Answer),
        ] {
            follow(&self.forwarded.with(what), relay.get(counted) as u64);
        }
        for (reason, count) in relay.all_dropped() {
            follow(
                &self.forwarded_dropped.with(reason.as_label()),
                count as u64,
            );
        }
    }

    /// Brings the TUN device's up to date, and what explains how they differ from the leases'.
    pub(crate) fn update_device(&self, device: DeviceBytes, books: &Books) {
        for (counter, label, figure) in [
            (&self.device_bytes, "from_routers", device.rx),
            (&self.device_bytes, "to_routers", device.tx),
            (&self.apart_bytes, "lost", books.ledger.lost),
            (&self.apart_bytes, "not_handed_over", books.not_handed_over),
            (&self.apart_bytes, "not_written", books.not_written),
            (&self.apart_bytes, "overflowed", books.ledger.overflowed),
            (&self.apart_bytes, "told", books.ledger.told),
            (&self.apart_bytes, "asked", books.ledger.answered.rx_bytes),
            (
                &self.apart_bytes,
                "answered",
                books.ledger.answered.tx_bytes,
            ),
        ] {
            follow(&counter.with(label), figure);
        }
    }

    /// Brings the estimates of volume by network up to date.
    pub(crate) fn update_volume(&self, volume: &Volume) {
        for row in volume.estimates() {
            let counter = match row.direction {
                Direction::FromRouter => &self.sampled_from,
                Direction::ToRouter => &self.sampled_to,
            };
            follow(&counter.with(row.network), row.bytes);
        }
    }

    /// Brings each worker's up to date.
    pub(crate) fn update_workers(&self, workers: &[Totals]) {
        for (worker, label) in workers.iter().zip(WORKERS) {
            for (counter, figure) in [
                (&self.worker_packets, worker.rx_packets + worker.tx_packets),
                (&self.worker_bytes, worker.rx_bytes + worker.tx_bytes),
                (&self.worker_handshakes, worker.handshakes.total()),
                (&self.worker_dropped, worker.dropped.values().sum()),
                (&self.handed_over, worker.handed_over),
            ] {
                follow(&counter.with(label), figure);
            }
        }
    }

    /// Brings the resolver's doors up to date.
    pub(crate) fn update_doors(&self, doors: &doors::Figures) {
        let of = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        for (door, queries) in doors.queries() {
            follow(&self.door_queries.with(door.as_label()), of(queries));
        }
        for (door, open) in doors.open() {
            let open = i64::try_from(of(open)).unwrap_or(i64::MAX);
            self.door_connections.with(door.as_label()).set(open);
        }
        follow(&self.doors_shared, of(&doors.shared));
        for (reason, times) in doors.turned_away() {
            follow(&self.doors_refused.with(reason), of(times));
        }
    }

    /// Brings the relay's up to date.
    pub(crate) fn update_relay(&self, relay: &relay::Figures) {
        let of = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        for (carrier, open) in [("quic", &relay.quic_open), ("tls", &relay.tls_open)] {
            let open = i64::try_from(of(open)).unwrap_or(i64::MAX);
            self.relay_sessions.with(carrier).set(open);
        }
        for (counter, label, figure) in [
            (&self.relay_accepted, "quic", &relay.quic_sessions),
            (&self.relay_accepted, "tls", &relay.tls_sessions),
            (&self.relay_bytes, "from_routers", &relay.from_routers_bytes),
            (&self.relay_bytes, "to_routers", &relay.to_routers_bytes),
            (&self.relay_refused, "target", &relay.refused_target),
            (&self.relay_refused, "full", &*relay.refused_full),
            (
                &self.relay_refused,
                "connections",
                &*relay.refused_connections,
            ),
            (&self.relay_refused, "page", &relay.pages),
        ] {
            follow(&counter.with(label), of(figure));
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Raises a counter to a total that only grows.
fn follow(counter: &Counter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_followed_and_never_counted_twice() {
        let metrics = Metrics::new();
        let mut totals = Totals {
            rx_bytes: 10,
            ..Totals::default()
        };
        totals.dropped.insert("tun_full", 3);
        metrics.update(&totals, &Figures::default(), 7, None);
        totals.rx_bytes = 15;
        metrics.update(
            &totals,
            &Figures {
                leased: 2,
                ..Figures::default()
            },
            8,
            None,
        );

        let second = Totals {
            handed_over: 4,
            ..Totals::default()
        };
        metrics.update_workers(&[totals, second]);

        let text = metrics.registry().render();

        for line in [
            "culvert_gateway_handed_over_total{worker=\"1\"} 4\n",
            "culvert_gateway_worker_dropped_packets_total{worker=\"0\"} 3\n",
            "culvert_gateway_tunnel_bytes_total{direction=\"from_routers\"} 15\n",
            "culvert_gateway_dropped_packets_total{reason=\"tun_full\"} 3\n",
            "culvert_gateway_peers 2\n",
            "culvert_gateway_stream_lag_seconds 8\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
