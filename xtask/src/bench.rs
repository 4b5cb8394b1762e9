//! `cargo xtask bench`: set-up and build here, the measuring itself in `lab::bench`.

use anyhow::{Result, bail};

use crate::workspace::Workspace;
use crate::{build, cross, setup};

pub(crate) fn run(workspace: &Workspace, name: &str, options: lab::bench::Options) -> Result<()> {
    if !lab::bench::NAMES.contains(&name) {
        bail!(
            "no bench `{name}`; there are: {}",
            lab::bench::NAMES.join(", ")
        );
    }
    setup::test()?;
    build::binaries(workspace)?;
    if name == "dns" {
        cross::stub_for_here(workspace)?;
    }
    lab::bench::run(name, options)
}
