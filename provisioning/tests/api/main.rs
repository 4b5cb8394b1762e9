//! The server from outside: real TLS, real HTTP, a client of a few lines, and the judge of `trust`.

#![expect(clippy::unwrap_used, reason = "a test's helper fails by panicking")]

mod rig;

mod crash;
mod cuts;
mod enrolment;
mod limits;
mod logs;
mod process;
mod psk;
mod rates;
mod shards;
