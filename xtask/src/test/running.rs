//! Runs one program full of tests: its lines are passed on as they come, its last line is counted.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::built::Suite;

/// No suite takes a fifth of this; past it something hangs.
const PATIENCE: Duration = Duration::from_mins(20);

/// How many tests went how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) passed: u32,
    pub(super) failed: u32,
}

/// Runs the tests of a suite whose names hold one of `names`, or all of them.
pub(super) fn run(suite: &Suite, names: &[String]) -> Result<Counts> {
    let mut command = Command::new(&suite.program);
    command
        .args(names)
        .current_dir(&suite.folder)
        .env("CARGO_MANIFEST_DIR", &suite.folder);
    if suite.is_lab() {
        command.arg("--test-threads=1");
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting the tests")?;
    let output = child.stdout.take().context("the tests have no output")?;
    let (finished, watch) = mpsc::sync_channel::<()>(1);
    let pid = Pid::from_raw(i32::try_from(child.id()).context("a process id that is none")?);
    let watchdog = std::thread::spawn(move || match watch.recv_timeout(PATIENCE) {
        Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => Ok(()),
        Err(mpsc::RecvTimeoutError::Timeout) => {
            eprintln!(
                "error: no end after {} minutes; killed",
                PATIENCE.as_secs() / 60
            );
            kill(pid, Signal::SIGKILL)
        }
    });
    let mut counts = None;
    for line in BufReader::new(output).lines() {
        let line = line.context("reading the tests' output")?;
        counts = counts_of(&line).or(counts);
        eprintln!("{line}");
    }
    let status = child.wait().context("waiting for the tests")?;
    drop(finished);
    if let Ok(Err(errno)) = watchdog.join() {
        bail!("the tests hang and cannot be killed: {errno}");
    }
    match counts {
        Some(counts) if status.success() || counts.failed > 0 => Ok(counts),
        Some(_) | None => bail!(
            "{} ended with {status} before its last line",
            suite.program.display()
        ),
    }
}

/// `test result: ok. 3 passed; 0 failed; …`
fn counts_of(line: &str) -> Option<Counts> {
    let rest = line.strip_prefix("test result: ")?;
    let number = |what: &str| {
        let part = rest
            .split([';', '.'])
            .find(|part| part.trim().ends_with(what))?;
        part.split_whitespace().next()?.parse().ok()
    };
    Some(Counts {
        passed: number(" passed")?,
        failed: number(" failed")?,
    })
}

impl Counts {
    pub(super) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_line_of_a_suite_counts() {
        let line = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 1 filtered out; finished in 0.01s";

        assert_eq!(
            counts_of(line),
            Some(Counts {
                passed: 12,
                failed: 3
            })
        );
        assert_eq!(counts_of("test a_lease_expires ... ok"), None);
        assert_eq!(counts_of("test result: strange"), None);
    }

    fn shell(script: &str) -> Suite {
        Suite {
            package: "x".to_owned(),
            target: "lib x".to_owned(),
            folder: std::env::temp_dir(),
            program: script.into(),
        }
    }

    #[test]
    fn a_program_that_says_nothing_of_its_tests_has_failed() {
        assert!(run(&shell("/bin/true"), &[]).is_err());
    }

    #[test]
    fn a_program_that_is_not_there_has_failed() {
        assert!(run(&shell("/nonexistent"), &[]).is_err());
    }
}
