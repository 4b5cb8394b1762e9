//! Children that never outlive the lab: each is ended by its own pid when its guard goes.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::wait_until;

/// A gateway drains for five seconds; what does not end long after that is killed.
const GRACE: Duration = Duration::from_secs(15);
const LOG_TAIL_LINES: usize = 25;

/// A program that runs until told otherwise.
#[derive(Debug)]
pub struct Running {
    label: String,
    child: Child,
    log: PathBuf,
}

impl Running {
    pub(crate) fn start(label: &str, mut command: Command, logs: &Path) -> Result<Self> {
        let (log, file) = new_log(logs, label)?;
        let errors = file
            .try_clone()
            .context("sharing a log between two streams")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {label}"))?;
        Ok(Self {
            label: label.to_owned(),
            child,
            log,
        })
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Where its output is.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// All of its output so far.
    pub fn log(&self) -> String {
        std::fs::read(&self.log)
            .map(|b| String::from_utf8_lossy(&b).into_owned())
            .unwrap_or_default()
    }

    /// The end of its output, for an error's text.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }

    /// Waits until `ready` holds; a program that ends before that is an error with its last words.
    pub fn wait_ready<T>(
        &mut self,
        what: &str,
        within: Duration,
        mut ready: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let label = self.label.clone();
        let mut early: Option<ExitStatus> = None;
        let result = wait_until(&format!("{label}: {what}"), within, || {
            if let Some(value) = ready()? {
                return Ok(Some(Some(value)));
            }
            early = self.ended();
            Ok(early.map(|_| None))
        });
        match result {
            Ok(Some(value)) => Ok(value),
            Ok(None) => bail!(
                "{label} ended too early ({}); it said:\n{}",
                early.map(|s| s.to_string()).unwrap_or_default(),
                self.log_tail()
            ),
            Err(error) => Err(error.context(format!("{label} said:\n{}", self.log_tail()))),
        }
    }

    /// Sends one signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).context("a pid is an i32")?;
        kill(Pid::from_raw(pid), signal)
            .with_context(|| format!("sending {signal} to {}", self.label))
    }

    /// Asks the program to end and gives its status; it is killed when it does not listen.
    pub fn terminate(mut self) -> Result<ExitStatus> {
        self.end(Signal::SIGTERM)
    }

    /// Interrupts the program, as Ctrl-C does (tcpdump prints its counters on it).
    pub fn interrupt(mut self) -> Result<ExitStatus> {
        self.end(Signal::SIGINT)
    }

    /// `kill -9`.
    pub fn kill(mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.child
            .wait()
            .with_context(|| format!("waiting for {}", self.label))?;
        Ok(())
    }

    /// Lets the program run on; only the lab's removal ends it.
    pub fn let_go(self) {
        std::mem::forget(self);
    }

    /// The most memory that it ever held.
    pub fn peak_memory_mb(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .context("reading its status")?;
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .context("no VmHWM in its status")?;
        let kib: f64 = peak
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .context("reading VmHWM")?;
        Ok(kib / 1024.0)
    }

    /// Waits for an end that comes by itself.
    pub fn finish(&mut self, within: Duration) -> Result<ExitStatus> {
        let label = self.label.clone();
        wait_until(&format!("{label} ends"), within, || Ok(self.ended()))
    }

    fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        if let Some(status) = self.ended() {
            return Ok(status);
        }
        self.signal(signal)?;
        if let Ok(status) = self.finish(GRACE) {
            return Ok(status);
        }
        self.signal(Signal::SIGKILL)?;
        self.child
            .wait()
            .with_context(|| format!("waiting for {}", self.label))?;
        bail!(
            "{} did not end within {} s of {signal} and was killed",
            self.label,
            GRACE.as_secs()
        )
    }
}

/// Each start has a log of its own, so that nobody takes an earlier one's words for this one's.
fn new_log(logs: &Path, label: &str) -> Result<(PathBuf, File)> {
    let mut n = 1;
    loop {
        let log = logs.join(format!("{label}.{n}.log"));
        match File::options().append(true).create_new(true).open(&log) {
            Ok(file) => return Ok((log, file)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => n += 1,
            Err(error) => return Err(error).with_context(|| format!("opening {}", log.display())),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Failing to end it is for the undertaker, which kills whatever is left in the lab's namespaces.
        let _ = self.end(Signal::SIGTERM);
    }
}
