//! What every program of the workspace says about itself: log lines on stderr, and, on servers,
//! Prometheus metrics and a health answer. Customers' names and addresses pass through [`Redacted`];
//! keys and codes pass through nothing here.

#[cfg(feature = "metrics")]
pub mod endpoint;
mod logging;
#[cfg(feature = "metrics")]
pub mod metrics;
mod redacted;
pub mod watch;

#[cfg(feature = "metrics")]
pub use endpoint::{Endpoint, Health, serve};
pub use logging::{Format, Level, UnknownLevel, init, parse_level};
#[cfg(feature = "metrics")]
pub use metrics::{Counter, Gauge, Histogram, LabelledCounter, LabelledGauge, Registry};
pub use redacted::{Redacted, Reveal, set_reveal};
