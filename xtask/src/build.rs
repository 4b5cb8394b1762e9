//! The one release build that the tests, the demo, the benches and the documents' checks share.

use anyhow::{Context, Result};

use crate::commands::{cargo, run};
use crate::workspace::Workspace;

/// Builds the product binaries beside the running xtask.
pub(crate) fn binaries(workspace: &Workspace) -> Result<()> {
    eprintln!("build: the four programs (release profile)");
    run(cargo(workspace).args(["build", "--release", "--workspace", "--bins"]))
        .context("building the programs")
}
