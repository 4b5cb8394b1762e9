//! A run of named steps: each one's time is told, a failure does not hide the next one's.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// What has been run so far.
#[derive(Debug)]
pub(crate) struct Steps {
    started: Instant,
    done: Vec<(&'static str, Duration, Outcome)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
}

impl Steps {
    pub(crate) fn begin() -> Self {
        Self {
            started: Instant::now(),
            done: Vec::new(),
        }
    }

    /// Runs one step and remembers how it went.
    pub(crate) fn step(&mut self, name: &'static str, work: impl FnOnce() -> Result<()>) {
        eprintln!("\n=== {name}");
        let started = Instant::now();
        let outcome = match work() {
            Ok(()) => Outcome::Passed,
            Err(error) => {
                eprintln!("error: {name}: {error:#}");
                Outcome::Failed
            }
        };
        let took = started.elapsed();
        eprintln!("=== {name}: {} in {}", outcome.word(), in_words(took));
        self.done.push((name, took, outcome));
    }

    /// Prints every step's time, and fails when one of them did.
    pub(crate) fn end(self) -> Result<()> {
        eprintln!();
        for (name, took, outcome) in &self.done {
            eprintln!("{:>7}  {:6}  {name}", in_words(*took), outcome.word());
        }
        eprintln!("{:>7}  whole", in_words(self.started.elapsed()));
        let failed: Vec<_> = self
            .done
            .iter()
            .filter(|(_, _, o)| *o == Outcome::Failed)
            .map(|(name, _, _)| *name)
            .collect();
        if failed.is_empty() {
            return Ok(());
        }
        bail!("failed: {}", failed.join(", "));
    }
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "FAILED",
        }
    }
}

/// Minutes and seconds.
pub(crate) fn in_words(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 60 {
        return format!("{:.1} s", time.as_secs_f32());
    }
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_fails_the_run_and_the_next_one_still_runs() {
        let mut steps = Steps::begin();
        let mut ran = false;

        steps.step("first", || bail!("on purpose"));
        steps.step("second", || {
            ran = true;
            Ok(())
        });

        assert!(ran);
        assert_eq!(steps.end().unwrap_err().to_string(), "failed: first");
    }

    #[test]
    fn steps_that_all_passed_pass() {
        let mut steps = Steps::begin();

        steps.step("only", || Ok(()));

        assert!(steps.end().is_ok());
    }
}
