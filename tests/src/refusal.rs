//! How a program of ours has to end when it refuses: one sentence, a documented code, no stack trace.

use std::process::Output;

use anyhow::{Context, Result, ensure};

use crate::netns::said;

/// The exit codes of every binary of ours.
pub mod exit {
    /// The operation failed.
    pub const FAILED: i32 = 1;
    /// The command line is wrong.
    pub const USAGE: i32 = 64;
    /// The other side is away or refused.
    pub const UNAVAILABLE: i32 = 69;
    /// State cannot be written.
    pub const CANNOT_WRITE: i32 = 73;
    /// The system refused an operation.
    pub const IO: i32 = 74;
    /// A right is missing.
    pub const PERMISSION: i32 = 77;
    /// The configuration is wrong.
    pub const CONFIG: i32 = 78;
}

/// Holds if there is one `error:` line with all of `words`, the exit code is `code`, and no stack trace shows.
pub fn refused(output: &Output, code: i32, words: &[&str]) -> Result<()> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(code),
        "{code} was expected: {}: {}",
        output.status,
        said(output)
    );
    let errors: Vec<_> = stderr
        .lines()
        .filter(|line| line.starts_with("error: "))
        .collect();
    ensure!(errors.len() == 1, "one sentence was expected: {stderr}");
    let sentence = errors.first().context("no sentence")?;
    for word in words {
        ensure!(sentence.contains(word), "`{word}` is not in: {sentence}");
    }
    for trace in ["panicked", "stack backtrace", "RUST_BACKTRACE"] {
        ensure!(!stderr.contains(trace), "{stderr}");
    }
    Ok(())
}

/// Holds if every key is named on a line of its own with what is accepted, and the exit code is that of a wrong
/// configuration.
pub fn mistakes_told(output: &Output, keys: &[&str]) -> Result<()> {
    ensure!(
        output.status.code() == Some(exit::CONFIG),
        "{}: {}",
        output.status,
        said(output)
    );
    let stderr = String::from_utf8_lossy(&output.stderr);
    for key in keys {
        let line = stderr
            .lines()
            .find(|line| line.contains(key))
            .with_context(|| format!("{key} is not in: {stderr}"))?;
        ensure!(
            line.contains("accepted:"),
            "what is accepted is not in: {line}"
        );
    }
    Ok(())
}
