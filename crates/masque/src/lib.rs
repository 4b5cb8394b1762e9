//! UDP inside HTTP (RFC 9298) without I/O: what router and gateway both need of it, and the little HTTP/3 that a client
//! of one request speaks.
//!
//! Read in this order: `varint`, `payload` (one UDP datagram inside an HTTP Datagram), `capsule` (HTTP Datagrams inside
//! a stream), `target` (whom the proxy is to reach), `http3` (frames, settings, one request, its answer).
#![forbid(unsafe_code)]

pub mod capsule;
pub mod http3;
pub mod payload;
pub mod target;
pub mod varint;

pub use capsule::{Capsules, TooLong};
pub use target::Target;
