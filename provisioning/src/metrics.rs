//! What the server counts. Labels are outcomes of ours, never anything that a peer sent.

use std::sync::Arc;

use telemetry::metrics::names;
use telemetry::{Gauge, LabelledCounter, Registry};

/// The server's counters, kept where they are hot.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) registry: Arc<Registry>,
    pub(crate) enrolments: LabelledCounter,
    pub(crate) requests: LabelledCounter,
    pub(crate) streams: Gauge,
    pub(crate) alerts: LabelledCounter,
    pub(crate) connections_refused: LabelledCounter,
    pub(crate) devices: Gauge,
    pub(crate) log_entries: Gauge,
    pub(crate) witnesses: LabelledCounter,
}

impl Metrics {
    /// Registers all of them.
    pub fn new() -> Self {
        let registry = Arc::new(Registry::new());
        Self {
            enrolments: registry.labelled_counter(names::PROVISIONING_ENROLMENTS, "outcome"),
            requests: registry.labelled_counter(names::PROVISIONING_REQUESTS, "outcome"),
            streams: registry.gauge(names::PROVISIONING_STREAMS),
            alerts: registry.labelled_counter(names::PROVISIONING_ALERTS, "kind"),
            connections_refused: registry
                .labelled_counter(names::PROVISIONING_CONNECTIONS_REFUSED, "reason"),
            devices: registry.gauge(names::PROVISIONING_DEVICES),
            log_entries: registry.gauge(names::PROVISIONING_LOG_ENTRIES),
            witnesses: registry.labelled_counter(names::PROVISIONING_WITNESSES, "outcome"),
            registry,
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
