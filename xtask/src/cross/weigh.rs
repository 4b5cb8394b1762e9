//! What a binary costs in flash.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::commands::output_of;

#[derive(Debug, Clone, Copy)]
pub(super) struct Weight {
    pub(super) size_bytes: u64,
    pub(super) compressed_bytes: u64,
}

/// The size of a stripped file, and its size as a compressed image would hold it.
pub(super) fn weigh(binary: &Path) -> Result<Weight> {
    let shown = binary.display();
    let size_bytes = std::fs::metadata(binary)
        .with_context(|| format!("looking at {shown}"))?
        .len();
    let xz = output_of(
        Command::new("xz")
            .args(["-9e", "--stdout", "--threads=1"])
            .arg(binary),
    )?;
    ensure!(
        xz.status.success(),
        "xz ended with {} on {shown}",
        xz.status
    );
    let compressed_bytes =
        u64::try_from(xz.stdout.len()).context("a compressed size that is none")?;
    Ok(Weight {
        size_bytes,
        compressed_bytes,
    })
}
