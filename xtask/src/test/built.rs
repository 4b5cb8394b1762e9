//! What cargo built: one program per crate's unit tests and per file of integration tests.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::commands::cargo;
use crate::workspace::Workspace;

/// One program full of tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Suite {
    pub(super) package: String,
    pub(super) target: String,
    pub(super) folder: PathBuf,
    pub(super) program: PathBuf,
}

#[derive(Deserialize)]
struct Artifact {
    reason: String,
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    profile: Option<Profile>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
    name: String,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// Builds the programs and their tests; progress is cargo's own, on stderr.
pub(super) fn suites(workspace: &Workspace) -> Result<Vec<Suite>> {
    let output = cargo(workspace)
        .args(["build", "--release", "--workspace", "--bins", "--tests"])
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .context("starting cargo")?;
    ensure!(output.status.success(), "the build failed");
    let text = String::from_utf8(output.stdout).context("reading what cargo built")?;
    let mut suites: Vec<Suite> = text.lines().filter_map(suite_of).collect();
    // The crates first, the lab (its own package) last: what is cheap and exact fails first.
    suites.sort_by_key(|s| (s.is_lab(), s.folder.clone(), s.target.clone()));
    Ok(suites)
}

fn suite_of(line: &str) -> Option<Suite> {
    let artifact: Artifact = serde_json::from_str(line).ok()?;
    if artifact.reason != "compiler-artifact" || !artifact.profile?.test {
        return None;
    }
    let folder = artifact.manifest_path?.parent()?.to_owned();
    let target = artifact.target?;
    let kind = target.kind.first().map_or("", String::as_str);
    let name = if kind == "test" {
        format!("tests/{}", target.name)
    } else {
        format!("{kind} {}", target.name)
    };
    Some(Suite {
        package: folder.file_name()?.to_string_lossy().into_owned(),
        target: name,
        program: artifact.executable?,
        folder,
    })
}

impl Suite {
    /// Whether these tests own namespaces, ports and processors, so that only one may run at a time.
    pub(super) fn is_lab(&self) -> bool {
        self.package == "tests"
    }

    /// Which tests of this suite the filters ask for: none at all, or these parts of names (empty: every one).
    pub(super) fn names_to_run(&self, filters: &[String]) -> Option<Vec<String>> {
        let whole = |filter: &String| {
            *filter == self.package
                || self.target.split(['/', ' ']).next_back() == Some(filter.as_str())
        };
        if filters.is_empty() || filters.iter().any(whole) {
            return Some(Vec::new());
        }
        Some(filters.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"reason":"compiler-artifact","manifest_path":"/c/crates/trust/Cargo.toml",
        "target":{"kind":["test"],"name":"vectors"},"profile":{"test":true},"executable":"/c/target/vectors-1"}"#;

    #[test]
    fn what_is_no_test_program_is_left_out() {
        assert_eq!(suite_of("no json"), None);
        assert_eq!(suite_of(r#"{"reason":"build-finished"}"#), None);
        assert_eq!(
            suite_of(&LINE.replace("\"test\":true", "\"test\":false")),
            None
        );
        assert_eq!(
            suite_of(&LINE.replace("\"/c/target/vectors-1\"", "null")),
            None
        );
    }

    #[test]
    fn filters_choose_a_package_a_file_or_parts_of_names() {
        let suite = suite_of(LINE).unwrap();
        let chosen = |filter: &str| suite.names_to_run(&[filter.to_owned()]);

        assert_eq!(suite.names_to_run(&[]), Some(vec![]));
        assert_eq!(chosen("trust"), Some(vec![]));
        assert_eq!(chosen("vectors"), Some(vec![]));
        assert_eq!(chosen("replayed"), Some(vec!["replayed".to_owned()]));
    }
}
