//! Runs the router's binary here, under qemu-user with the router's processor.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::Target;
use crate::commands::output_of;
use crate::workspace::Workspace;

const SAMPLE: &str = "docs/config/cpe-agent.toml";

/// Bundles that are judged, so that the start of the emulator is a small part.
const TIMES: &str = "50";

/// The agent says its version, accepts the sample configuration and refuses a broken one.
pub(super) fn agent(workspace: &Workspace, target: &Target, agent: &Path) -> Result<()> {
    let version = start(workspace, target, agent, &["--version"])?;
    ensure!(
        version.code == Some(0) && version.said.contains("cpe-agent"),
        "--version: {}",
        version.said
    );
    eprintln!(
        "cross: under {}: {}",
        target.run.join(" "),
        version.said.trim()
    );
    let accepted = start(workspace, target, agent, &["check-config", SAMPLE])?;
    ensure!(
        accepted.code == Some(0),
        "check-config {SAMPLE}: {}",
        accepted.said
    );
    let refused = start(workspace, target, agent, &["check-config", "Cargo.toml"])?;
    ensure!(
        refused.code == Some(78),
        "check-config of what is no configuration: {}",
        refused.said
    );
    eprintln!("cross: check-config accepts the sample and refuses what is none");
    Ok(())
}

/// Milliseconds in which one whole bundle is judged.
pub(super) fn judge(workspace: &Workspace, target: &Target, judge: &Path) -> Result<f64> {
    let judged = start(workspace, target, judge, &[TIMES])?;
    ensure!(judged.code == Some(0), "judging: {}", judged.said);
    let ms = judged.said.trim();
    ms.parse().with_context(|| format!("`{ms}` milliseconds"))
}

struct Ended {
    code: Option<i32>,
    said: String,
}

fn start(
    workspace: &Workspace,
    target: &Target,
    agent: &Path,
    arguments: &[&str],
) -> Result<Ended> {
    let Some((emulator, processor)) = target.run.split_first() else {
        bail!("cross/targets.toml names no emulator for {}", target.name);
    };
    let output = output_of(
        Command::new(emulator)
            .args(processor)
            .arg(agent)
            .args(arguments)
            .current_dir(workspace.root()),
    )
    .with_context(|| format!("running the agent for {}", target.name))?;
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok(Ended {
        code: output.status.code(),
        said,
    })
}
