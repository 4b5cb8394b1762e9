//! The edge gateway: ends the routers' WireGuard tunnels, admits who holds a verified lease, resolves
//! their lookups over DNSCrypt and forwards their packets.
//!
//! The packet path is `engine` over the `tunnel` crate. Beside it: `peers` brings leases from
//! provisioning, `dns` answers lookups, `control` holds it all together. No part stores or logs a flow, a
//! looked-up name or a remote address. Where UDP is blocked, `relay` takes the routers' datagrams inside HTTP.

pub mod cli;
pub mod config;
pub mod exit;

pub mod control;
mod drain;
mod setup;

mod announce;
pub mod engine;

pub mod leases;
mod peers;
mod pin;
pub mod shard_cache;
mod stream;

mod answers;
mod dns;
mod dns64;
mod doors;
mod own_names;
pub mod resolver;

mod certificate;
mod places;
mod relay;

mod accounting;
mod device;
pub mod keyring;
pub mod keys;
mod metrics;
mod nat;
pub mod sampling;
mod status;
