//! The public verbs of both roles, against each other: refusals first, then what passes, then any bytes at all.

#![expect(clippy::unwrap_used, reason = "a crate of nothing but tests")]

mod any_bytes;
mod away;
mod books;
mod failover;
mod limits;
mod pair;
mod path_mtu;
mod psk;
mod refusals;
mod rig;
mod sampling;
mod unasked;
mod workers;
