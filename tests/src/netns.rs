//! One network namespace: commands in it, guarded children in it, and closures on a thread in it.

use std::ffi::OsStr;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::process::Running;

/// A command of the lab that has not ended by then hangs.
const COMMAND_LIMIT: &str = "120";

/// A named network namespace of a lab.
#[derive(Debug, Clone)]
pub struct Netns {
    name: String,
    logs: PathBuf,
}

impl Netns {
    pub(crate) fn new(name: String, logs: PathBuf) -> Self {
        Self { name, logs }
    }

    /// The namespace's name as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run inside.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.name])
            .arg(program)
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end, whatever that is.
    pub fn output<S: AsRef<OsStr>>(&self, argv: &[S]) -> Result<Output> {
        self.command("timeout")
            .args(["-k", "2", COMMAND_LIMIT])
            .args(argv)
            .output()
            .with_context(|| format!("starting {} in {}", words(argv), self.name))
    }

    /// Runs a command that must succeed and gives what it printed.
    pub fn run<S: AsRef<OsStr>>(&self, argv: &[S]) -> Result<String> {
        let output = self.output(argv)?;
        if !output.status.success() {
            bail!(
                "{} in {}: {}: {}",
                words(argv),
                self.name,
                output.status,
                said(&output)
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts a program that goes on by itself; its output goes to a log named after the label.
    pub fn spawn(
        &self,
        label: &str,
        program: impl AsRef<OsStr>,
        args: &[&OsStr],
    ) -> Result<Running> {
        let mut command = self.command(program);
        command.args(args);
        self.spawn_command(label, command)
    }

    /// Starts a command made by [`Netns::command`] as a guarded child.
    pub fn spawn_command(&self, label: &str, command: Command) -> Result<Running> {
        Running::start(label, command, &self.logs)
    }

    /// Runs a closure on a thread that lives inside the namespace; sockets it makes belong there.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = format!("/run/netns/{}", self.name);
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let file = File::open(&path).with_context(|| format!("opening {path}"))?;
                setns(&file, CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("entering {path}"))?;
                inside()
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

/// Everything that a command said, for an error's text.
pub fn said(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stdout = String::from_utf8_lossy(&output.stdout);
    format!("{} {}", stderr.trim(), stdout.trim())
        .trim()
        .to_owned()
}

fn words<S: AsRef<OsStr>>(argv: &[S]) -> String {
    let words: Vec<_> = argv
        .iter()
        .map(|a| a.as_ref().to_string_lossy().into_owned())
        .collect();
    words.join(" ")
}
