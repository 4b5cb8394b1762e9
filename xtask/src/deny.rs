//! Licences, sources and bans of the dependencies, by cargo-deny with `deny.toml`.
//!
//! The advisory database is a git repository that a closed network does not reach; `advisories` is therefore not
//! part of this step, and the step says so every time.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::commands::{self, cargo, output_of};
use crate::workspace::Workspace;

/// The version that deny.toml is written for.
const VERSION: &str = "0.20.2";

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let tool = tool(workspace)?;
    commands::run(
        std::process::Command::new(tool)
            .args([
                "--workspace",
                "--all-features",
                "--locked",
                "check",
                "--hide-inclusion-graph",
            ])
            .args(["licenses", "bans", "sources"])
            .current_dir(workspace.root()),
    )?;
    eprintln!(
        "deny: licences, bans and sources hold; NOT checked here: advisories (their database is not in any registry)"
    );
    Ok(())
}

/// cargo-deny of our version: the one on the path, or else one built once into target/tools.
fn tool(workspace: &Workspace) -> Result<PathBuf> {
    if is_our_version("cargo-deny") {
        return Ok("cargo-deny".into());
    }
    let root = workspace.target().join("tools");
    let built = root.join("bin/cargo-deny");
    if is_our_version(&built) {
        return Ok(built);
    }
    eprintln!("deny: building cargo-deny {VERSION} into target/tools (once)");
    // A debug build takes a third of the time and checks our tree in a second; no feature that fetches is needed.
    commands::run(
        cargo(workspace)
            .args([
                "install",
                "--quiet",
                "--locked",
                "--debug",
                "--no-default-features",
                "--version",
                VERSION,
                "cargo-deny",
            ])
            .arg("--root")
            .arg(&root)
            .arg("--target-dir")
            .arg(root.join("build")),
    )
    .context("building cargo-deny")?;
    // Its objects are ten times the tool and of no use to anything else.
    std::fs::remove_dir_all(root.join("build")).context("removing cargo-deny's build folder")?;
    ensure!(
        is_our_version(&built),
        "cargo-deny {VERSION} was installed but does not run"
    );
    Ok(built)
}

fn is_our_version(program: impl AsRef<std::ffi::OsStr>) -> bool {
    let output = output_of(std::process::Command::new(program).arg("--version"));
    output.is_ok_and(|o| String::from_utf8_lossy(&o.stdout).trim().ends_with(VERSION))
}
