//! Sample configurations: `docs/config/PROGRAM[.WHAT].toml`, each accepted by its program's `check-config`.

use std::process::Command;

use anyhow::Result;

use crate::commands::output_of;
use crate::workspace::Workspace;

const FOLDER: &str = "docs/config/";
const PROGRAMS: &[&str] = &["cpe-agent", "edge-gateway", "provisioning", "culvert-dns"];

/// What the programs say of the samples; a daemon without a sample is a problem too.
pub(super) fn check(workspace: &Workspace, files: &[String]) -> Result<Vec<String>> {
    let samples: Vec<_> = files
        .iter()
        .filter(|f| f.starts_with(FOLDER) && f.ends_with(".toml"))
        .collect();
    let mut problems = Vec::new();
    for program in PROGRAMS {
        if !samples.iter().any(|sample| program_of(sample) == *program) {
            problems.push(format!("{FOLDER}{program}.toml: no sample for {program}"));
        }
    }
    for sample in samples {
        let program = program_of(sample);
        if !PROGRAMS.contains(&program) {
            problems.push(format!("{sample}: is named after no program of ours"));
            continue;
        }
        let binary = workspace.target().join("release").join(program);
        let output = output_of(
            Command::new(binary)
                .arg("check-config")
                .arg(sample)
                .current_dir(workspace.root()),
        )?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            problems.push(format!(
                "{sample}: {program} refuses it:\n{}",
                said.trim_end()
            ));
        }
    }
    Ok(problems)
}

fn program_of(sample: &str) -> &str {
    let name = sample.strip_prefix(FOLDER).unwrap_or(sample);
    name.split('.').next().unwrap_or(name)
}
