//! `cargo xtask dns-outage`: set-up and build here, the running in `lab::outage`.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::workspace::Workspace;
use crate::{build, setup};

pub(crate) fn run(
    workspace: &Workspace,
    options: lab::outage::Options,
    json: bool,
) -> Result<ExitCode> {
    setup::test()?;
    build::binaries(workspace)?;
    let report = lab::outage::run(options)?;
    if json {
        let line = serde_json::to_string(&report).context("writing the report")?;
        println!("{line}");
    } else {
        print!("{}", report.text());
    }
    Ok(if report.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
