//! The server from outside: real TLS, real HTTP, a client of a few lines, and the judge of `trust`.

mod rig;

mod crash;
mod cuts;
mod enrolment;
mod limits;
mod logs;
mod process;
mod shards;
