//! The server from outside: real TLS, real HTTP, a client of a few lines, and the judge of `trust`.

#![expect(clippy::unwrap_used, reason = "a test's helper fails by panicking")]

#[path = "../../../crates/trust/tests/trust/pen.rs"]
mod pen;
mod rig;

mod crash;
mod cuts;
mod data_dir;
mod enrolment;
mod limits;
mod logs;
mod monitor;
mod process;
mod psk;
mod rates;
mod shards;
mod witnesses;
