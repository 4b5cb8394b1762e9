//! Culvert's provisioning server: it enrols routers, leases them addresses and gateways, keeps the two logs
//! that every lease and gateway stands in, and tells gateways whom to admit.

pub mod api;
pub mod assign;
pub mod changes;
pub mod cli;
pub mod clock;
pub mod config;
mod connection;
pub mod datadir;
pub mod enrol;
pub mod failure;
pub mod gateways;
mod listen;
pub mod log;
pub mod metrics;
pub mod revoke;
pub mod sequencer;
pub mod serve;
pub mod store;
pub mod tls;

pub use cli::run;
