//! `cargo xtask demo`: set-up and build here, the show itself in `lab::demo`.

use std::process::ExitCode;

use anyhow::Result;
use lab::demo::{Options, Verdict};

use crate::workspace::Workspace;
use crate::{build, setup};

pub(crate) fn run(workspace: &Workspace, options: Options) -> Result<ExitCode> {
    setup::demo()?;
    build::binaries(workspace)?;
    Ok(match lab::demo::run(options)? {
        Verdict::Held => ExitCode::SUCCESS,
        Verdict::Failed => ExitCode::FAILURE,
    })
}
