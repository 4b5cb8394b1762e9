//! Documents may not promise what is not there: anchors name symbols that exist, links lead somewhere, samples
//! are accepted by the programs that read them.

mod anchors;
mod links;
mod samples;

use anyhow::{Result, bail};

use crate::build;
use crate::workspace::Workspace;

const ARCHITECTURE_LINES: usize = 200;
const WALKS: &[&str] = &[
    "ARCHITECTURE.md",
    "docs/paths/packet.md",
    "docs/paths/lookup.md",
    "docs/paths/enrolment.md",
];

/// Checks the documents, and builds the programs to check the samples with.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    build::binaries(workspace)?;
    with_programs(workspace)
}

/// The same with the programs that a build has just left.
pub(crate) fn with_programs(workspace: &Workspace) -> Result<()> {
    let mut problems = Vec::new();
    for walk in WALKS {
        match workspace.read(walk) {
            Ok(text) => problems.extend(check_walk(workspace, walk, &text)),
            Err(error) => problems.push(format!("{error:#}")),
        }
    }
    let files = workspace.files()?;
    for file in files.iter().filter(|file| file.ends_with(".md")) {
        problems.extend(links::check(workspace.root(), file, &workspace.read(file)?));
    }
    problems.extend(samples::check(workspace, &files)?);
    for problem in &problems {
        eprintln!("{problem}");
    }
    if !problems.is_empty() {
        bail!("docs-check: {} problems", problems.len());
    }
    eprintln!("docs-check: anchors, links and samples hold");
    Ok(())
}

fn check_walk(workspace: &Workspace, file: &str, text: &str) -> Vec<String> {
    let mut problems = anchors::check(file, text, |path| workspace.read(path).ok());
    let lines = text.lines().count();
    if file == "ARCHITECTURE.md" && lines > ARCHITECTURE_LINES {
        problems.push(format!(
            "{file}: {lines} lines; {ARCHITECTURE_LINES} is the most"
        ));
    }
    problems
}
