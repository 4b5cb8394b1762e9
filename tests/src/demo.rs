//! The main job, shown on real programs.

use anyhow::Result;

/// What the person at the keyboard chose.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Leave the lab up at the end.
    pub keep: bool,
    /// End with one JSON object; progress goes to stderr.
    pub json: bool,
}

/// Whether all that the demo shows held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Everything held.
    Held,
    /// Something did not, and the page said what.
    Failed,
}

/// Runs the demo; expects the packages of `tools::DEMO` and the release binaries beside the running program.
pub fn run(_options: Options) -> Result<Verdict> {
    Ok(Verdict::Failed)
}
