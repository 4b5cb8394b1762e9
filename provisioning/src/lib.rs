//! Culvert's provisioning server: it enrols routers, leases them addresses and gateways, keeps the two logs
//! that every lease and gateway stands in, and tells gateways whom to admit.

// How it is started, by people and for the network.
pub mod cli;
pub mod serve;

// From a connection to a request that was proved.
mod listen;

mod sources;

mod connection;

pub mod api;

// What becomes of it.
pub mod sequencer;

pub mod enrol;

pub mod assign;

pub mod proposals;

pub mod authority;

pub mod gateways;

pub mod psk;

pub mod limit;
pub mod revoke;

// Where it stands, and who hears of it.
pub mod log;
pub mod store;

pub mod changes;

pub mod publish;

// Who sees to it that there is one history, and that it is the people's: processes of their own, in other hands.
pub mod monitor;
pub mod witness;

// What people sign, with no server near.
pub mod people;

// What all of it rests on.
pub mod clock;
pub mod config;
pub mod datadir;
pub mod failure;
mod files;
pub mod metrics;
pub mod tls;

pub use cli::run;
