//! Benches, each against a program of another hand in the same lab.

use anyhow::{Result, bail};

/// The benches that there are.
pub const NAMES: &[&str] = &["smoke"];

/// Runs one bench; with `json` its last line on stdout is the object of the issue.
pub fn run(name: &str, _json: bool) -> Result<()> {
    bail!("no bench `{name}`; there are: {}", NAMES.join(", "))
}
