//! The log's set-up: where lines go and how they look. Programs choose once, at start.

use std::io::IsTerminal;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry, fmt};

pub use tracing::Level;

/// How a log line is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Time, level, text: for a person at a terminal or a plain file.
    Plain,
    /// Level and text: the journal or syslog adds the time.
    Journal,
}

impl Format {
    /// Chooses by where stderr goes: systemd and procd stamp lines themselves.
    pub fn detect() -> Self {
        if std::io::stderr().is_terminal() || std::env::var_os("JOURNAL_STREAM").is_none() {
            Self::Plain
        } else {
            Self::Journal
        }
    }
}

/// Libraries that stay silent at every level: hickory's lines carry names that subscribers look up, those of HTTP a path
/// with a lookup in it, those of QUIC addresses, and boringtun's tell an operator nothing that the tunnel's own events and
/// drop reasons do not.
const SILENT: [&str; 11] = [
    "boringtun",
    "h2",
    "h3",
    "h3_quinn",
    "hickory_net",
    "hickory_proto",
    "hickory_resolver",
    "hyper",
    "quinn",
    "quinn_proto",
    "quinn_udp",
];

/// Sends log lines of `level` and graver to stderr. A second call changes nothing.
pub fn init(format: Format, level: Level) {
    let filter = filter(level);
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false);
    // Setting it fails because a subscriber stands already, which is what the doc promises.
    let _already_set = match format {
        Format::Plain => tracing::subscriber::set_global_default(
            Registry::default().with(lines.with_filter(filter)),
        ),
        Format::Journal => tracing::subscriber::set_global_default(
            Registry::default().with(lines.without_time().with_filter(filter)),
        ),
    };
}

fn filter(level: Level) -> Targets {
    SILENT
        .iter()
        .fold(Targets::new().with_default(level), |filter, library| {
            filter.with_target(*library, LevelFilter::OFF)
        })
}

/// The level's name was none of the five.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownLevel;

impl std::fmt::Display for UnknownLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("unknown log level; accepted: error, warn, info, debug, trace")
    }
}

impl std::error::Error for UnknownLevel {}

/// Reads a level as a configuration or a flag spells it.
pub fn parse_level(text: &str) -> Result<Level, UnknownLevel> {
    match text {
        "error" => Ok(Level::ERROR),
        "warn" => Ok(Level::WARN),
        "info" => Ok(Level::INFO),
        "debug" => Ok(Level::DEBUG),
        "trace" => Ok(Level::TRACE),
        _ => Err(UnknownLevel),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_read_only_in_its_documented_spelling() {
        for wrong in ["", "INFO", "warning", "3", "info "] {
            assert_eq!(parse_level(wrong), Err(UnknownLevel), "{wrong:?}");
        }
        assert_eq!(parse_level("warn"), Ok(Level::WARN));
    }

    #[test]
    fn a_library_that_names_lookups_or_addresses_is_silent_at_every_level() {
        let filter = filter(Level::TRACE);

        for library in [
            "hickory_resolver::recursor",
            "hickory_net",
            "h2::server",
            "h3::connection",
            "h3_quinn",
            "hyper::proto::h1",
            "quinn::endpoint",
            "quinn_proto::connection",
            "quinn_udp",
        ] {
            assert!(!filter.would_enable(library, &Level::ERROR), "{library}");
        }
        assert!(filter.would_enable("edge_gateway::peers", &Level::TRACE));
    }
}
