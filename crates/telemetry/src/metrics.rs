//! Counters and gauges, and the registry that prints them. A label's value is always a
//! `&'static str`, so that nothing a peer sends can become one. Names stand once, in [`names`].

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::family::Family;

pub mod names;
use names::Name;

/// A number that only grows.
pub type Counter = prometheus_client::metrics::counter::Counter<u64, AtomicU64>;
/// A number that goes both ways.
pub type Gauge = prometheus_client::metrics::gauge::Gauge;

/// One counter per value of one label.
#[derive(Clone, Debug)]
pub struct LabelledCounter {
    label: &'static str,
    family: Family<[(&'static str, &'static str); 1], Counter>,
}

impl LabelledCounter {
    /// The counter of one label value; keep it where the value is hot.
    pub fn with(&self, value: &'static str) -> Counter {
        self.family.get_or_create_owned(&[(self.label, value)])
    }
}

/// One gauge per value of one label.
#[derive(Clone, Debug)]
pub struct LabelledGauge {
    label: &'static str,
    family: Family<[(&'static str, &'static str); 1], Gauge>,
}

impl LabelledGauge {
    /// The gauge of one label value.
    pub fn with(&self, value: &'static str) -> Gauge {
        self.family.get_or_create_owned(&[(self.label, value)])
    }
}

/// Classes that somebody else counts.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    // Written once a second, read by a scrape.
    told: Arc<Mutex<Told>>,
}

#[derive(Debug)]
struct Told {
    buckets: Vec<(f64, u64)>,
    sum: f64,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            buckets: vec![(f64::INFINITY, 0)],
            sum: 0.0,
        }
    }
}

impl Histogram {
    /// Takes over how many there are by now in each class, the last of which has no upper end, and their sum.
    pub fn tell(&self, upper_ends: &[f64], counts: &[u64], sum: f64) {
        let ends = upper_ends.iter().copied().chain([f64::INFINITY]);
        let buckets = ends.zip(counts.iter().copied()).collect();
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Told { buckets, sum };
    }
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> std::fmt::Result {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let count = told.buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(told.sum, count, &told.buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// All metrics of one process.
#[derive(Debug, Default)]
pub struct Registry {
    // Contended only between registration at start and a scrape.
    inner: Mutex<prometheus_client::registry::Registry>,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a counter; `_total` is added to its name when printed.
    pub fn counter(&self, name: Name) -> Counter {
        let counter = Counter::default();
        self.locked()
            .register(name.name, name.help, counter.clone());
        counter
    }

    /// Registers a gauge.
    pub fn gauge(&self, name: Name) -> Gauge {
        let gauge = Gauge::default();
        self.locked().register(name.name, name.help, gauge.clone());
        gauge
    }

    /// Registers a histogram.
    pub fn histogram(&self, name: Name) -> Histogram {
        let histogram = Histogram::default();
        self.locked()
            .register(name.name, name.help, histogram.clone());
        histogram
    }

    /// Registers a gauge with one label.
    pub fn labelled_gauge(&self, name: Name, label: &'static str) -> LabelledGauge {
        let family = Family::default();
        self.locked().register(name.name, name.help, family.clone());
        LabelledGauge { label, family }
    }

    /// Registers a counter with one label.
    pub fn labelled_counter(&self, name: Name, label: &'static str) -> LabelledCounter {
        let family = Family::default();
        self.locked().register(name.name, name.help, family.clone());
        LabelledCounter { label, family }
    }

    /// The metrics in the OpenMetrics text format.
    pub fn render(&self) -> String {
        let mut text = String::new();
        match encode(&mut text, &self.locked()) {
            Ok(()) => text,
            Err(std::fmt::Error) => String::from("# EOF\n"),
        }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, prometheus_client::registry::Registry> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_prints_its_classes_one_upon_the_other() {
        let registry = Registry::new();
        let seconds = registry.histogram(names::GATEWAY_HANDSHAKE_SECONDS);
        seconds.tell(&[0.005, 0.01], &[2, 3, 1], 0.5);

        let text = registry.render();

        for line in [
            "culvert_gateway_handshake_seconds_sum 0.5\n",
            "culvert_gateway_handshake_seconds_count 6\n",
            "culvert_gateway_handshake_seconds_bucket{le=\"0.005\"} 2\n",
            "culvert_gateway_handshake_seconds_bucket{le=\"0.01\"} 5\n",
            "culvert_gateway_handshake_seconds_bucket{le=\"+Inf\"} 6\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_scrape_prints_each_metric_under_its_name_with_its_label() {
        let registry = Registry::new();
        registry.gauge(names::GATEWAY_PEERS).set(3);
        let dropped = registry.labelled_counter(names::GATEWAY_DROPPED_PACKETS, "reason");
        dropped.with("no_session").inc_by(2);

        let text = registry.render();

        assert!(text.contains("culvert_gateway_peers 3\n"), "{text}");
        assert!(
            text.contains("culvert_gateway_dropped_packets_total{reason=\"no_session\"} 2\n"),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"));
    }
}
