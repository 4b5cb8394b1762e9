//! `cargo xtask hostile`: set-up and build here, the running in `lab::hostile`.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::workspace::Workspace;
use crate::{build, setup};

pub(crate) fn run(workspace: &Workspace, options: lab::hostile::Options) -> Result<ExitCode> {
    setup::test()?;
    build::binaries(workspace)?;
    let report = lab::hostile::run(options)?;
    if options.json {
        println!(
            "{}",
            serde_json::to_string(&report).context("writing the report")?
        );
    } else {
        println!("{}", report.text()?);
    }
    Ok(if report.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
