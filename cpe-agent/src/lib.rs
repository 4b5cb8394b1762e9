//! The router's agent: enrols by itself, carries the home's packets and lookups to the provider's edge, and lets
//! nothing out in clear.
//!
//! Read in this order: `cli`, `config`, `run` (start and end of the process), `control` (its one loop), `enrol` (the
//! exchange with provisioning), `engine` (packets), `dns` (lookups), `relay` (where UDP is blocked), `net` (the router's network), `state` (flash),
//! `people` (whose word counts), `status`.
#![forbid(unsafe_code)]

pub mod cli;
mod clock;
mod commands;
mod config;
mod control;
mod dns;
mod engine;
mod enrol;
mod exit;
mod net;
mod people;
mod psk;
mod relay;
mod run;
mod state;
mod status;
