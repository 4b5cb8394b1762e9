//! `cargo xtask test`: every test of the workspace, built once, then run one program after the other.
//!
//! Cargo builds; we run what it built, so that the lab's tests (which own namespaces and ports) go one by one
//! while unit tests use every core, and so that the end is one line over all of them.

mod built;
mod running;

use anyhow::{Context, Result, bail};

use crate::commands::{cargo, run as start};
use crate::setup;
use crate::steps::in_words;
use crate::workspace::Workspace;

pub(crate) fn run(workspace: &Workspace, filters: &[String]) -> Result<()> {
    let started = std::time::Instant::now();
    setup::test()?;
    eprintln!("test: building everything (release profile)");
    let suites = built::suites(workspace)?;
    lab::Peers::of_this_build()?.prepare(&|line| eprintln!("test: {line}"))?;
    let mut total = running::Counts::default();
    let mut failed = Vec::new();
    for suite in &suites {
        let Some(names) = suite.names_to_run(filters) else {
            continue;
        };
        eprintln!("\n--- {} {}", suite.package, suite.target);
        match running::run(suite, &names) {
            Ok(counts) => {
                total.add(counts);
                if counts.failed > 0 {
                    failed.push(format!("{} {}", suite.package, suite.target));
                }
            }
            Err(error) => {
                eprintln!("error: {error:#}");
                failed.push(format!("{} {}", suite.package, suite.target));
            }
        }
    }
    if filters.is_empty() {
        eprintln!("\n--- examples in the documentation");
        let doc =
            start(cargo(workspace).args(["test", "--release", "--workspace", "--doc", "--quiet"]));
        if doc.context("running the documentation's examples").is_err() {
            failed.push("documentation".to_owned());
        }
    }
    eprintln!("\ntest: all of it took {}", in_words(started.elapsed()));
    // Alone on its line: machines read it.
    println!("test: {total}");
    if !failed.is_empty() {
        bail!("tests failed in: {}", failed.join(", "));
    }
    if total.passed == 0 {
        bail!("no test matches {}", filters.join(" "));
    }
    Ok(())
}
