//! The public verbs of both roles, against each other: refusals first, then what passes, then any bytes at all.

mod any_bytes;
mod pair;
mod refusals;
mod rig;
