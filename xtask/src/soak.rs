//! `cargo xtask soak`: set-up and build here, the running in `lab::soak`.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::workspace::Workspace;
use crate::{build, setup};

pub(crate) fn run(workspace: &Workspace, options: lab::soak::Options) -> Result<ExitCode> {
    setup::test()?;
    build::binaries(workspace)?;
    let folder = workspace.path("target/soak");
    let report = lab::soak::run(options, &folder)?;
    if options.json {
        println!(
            "{}",
            serde_json::to_string(&report).context("writing the report")?
        );
    } else {
        println!(
            "{}samples and drawing: {}",
            report.text()?,
            folder.display()
        );
    }
    Ok(if report.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
