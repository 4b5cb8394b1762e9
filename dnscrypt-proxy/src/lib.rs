//! DNSCrypt version 2, both sides.
//!
//! [`proto`] holds the formats and decisions: pure, the time an argument (unix seconds), no sockets.
//! The rest moves bytes on tokio: a LAN stub that asks encrypted resolvers, and a server that answers
//! DNSCrypt in front of any resolver, with threads for UDP where the feature `workers` is on. Read in this
//! order: the client's side (`listen`, `stub`, `policy`, `cache`, `upstream`), then the server's (`certs`, `serve`).
//!
//! Formats: `draft-denis-dprive-dnscrypt` (the revision after -11), encryption system 2.

pub mod proto;

pub mod cache;
pub mod listen;
pub mod policy;
pub mod stub;
pub mod upstream;

pub mod certs;
pub mod serve;

pub mod clock;

#[cfg(feature = "cli")]
pub mod cli;

pub use proto::dropped::{Counters, Dropped};
pub use proto::stamp::{DnsCryptStamp, Stamp};
