//! The edge gateway.

pub mod config;
pub mod exit;
pub mod resolver;
