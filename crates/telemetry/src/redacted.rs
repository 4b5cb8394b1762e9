//! A wrapper for what names a customer: it prints as `[redacted]` until an operator turns
//! revealing on, and then only what DEBUG and TRACE lines carry.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

static REVEALED: AtomicBool = AtomicBool::new(false);

/// Whether [`Redacted`] values show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reveal {
    /// Every value prints as `[redacted]`.
    Never,
    /// Values print where the log level lets DEBUG lines through.
    AtDebug,
}

/// Sets, for the whole process, whether redacted values show.
pub fn set_reveal(reveal: Reveal) {
    REVEALED.store(reveal == Reveal::AtDebug, Ordering::Relaxed);
}

/// Holds a customer's name or address on its way into a log line.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Redacted<T>(pub T);

fn shows() -> bool {
    REVEALED.load(Ordering::Relaxed) && tracing::enabled!(tracing::Level::DEBUG)
}

impl<T: fmt::Display> fmt::Display for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if shows() {
            self.0.fmt(f)
        } else {
            f.write_str("[redacted]")
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if shows() {
            self.0.fmt(f)
        } else {
            f.write_str("[redacted]")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_does_not_print_unless_an_operator_asked_and_the_level_allows() {
        let address = Redacted("192.0.2.7");
        assert_eq!(format!("{address} {address:?}"), "[redacted] [redacted]");

        set_reveal(Reveal::AtDebug);
        let below_debug = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::INFO)
            .finish();
        tracing::subscriber::with_default(below_debug, || {
            assert_eq!(address.to_string(), "[redacted]");
        });
        let debug = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .finish();
        tracing::subscriber::with_default(debug, || assert_eq!(address.to_string(), "192.0.2.7"));

        set_reveal(Reveal::Never);
        assert_eq!(address.to_string(), "[redacted]");
    }
}
