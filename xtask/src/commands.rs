//! Starting other programs: their failure is ours, in one sentence.

use std::process::{Command, Output};

use anyhow::{Context, Result, bail, ensure};

use crate::workspace::Workspace;

/// Cargo of the toolchain that runs this xtask, in the repository's root.
pub(crate) fn cargo(workspace: &Workspace) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(workspace.root());
    // Set by `cargo run` for us alone; a crate's build script that watches them would run again for nothing.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PKG_") {
            command.env_remove(name);
        }
    }
    command
        .env_remove("CARGO_MANIFEST_DIR")
        .env_remove("CARGO_MANIFEST_PATH");
    command
}

/// Runs a program whose output is for the person watching.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("starting {}", shown(command)))?;
    ensure!(status.success(), "{} ended with {status}", shown(command));
    Ok(())
}

/// Runs a program for its standard output.
pub(crate) fn text_of(command: &mut Command) -> Result<String> {
    let output = output_of(command)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{} ended with {}: {}",
            shown(command),
            output.status,
            said.trim()
        );
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("reading what {} wrote", shown(command)))
}

/// Runs a program for everything that it says, whether it succeeds or not.
pub(crate) fn output_of(command: &mut Command) -> Result<Output> {
    command
        .output()
        .with_context(|| format!("starting {}", shown(command)))
}

/// Whether a program of this name can be started.
pub(crate) fn on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}

fn shown(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let mut words = vec![
        program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
    ];
    words.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
    let mut line = words.join(" ");
    if line.len() > 160 {
        let end = line.floor_char_boundary(160);
        line.truncate(end);
        line.push('…');
    }
    format!("`{line}`")
}
