//! How a command ends: the documented exit codes, and errors that carry one.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

/// The exit codes of every program of Culvert (after `sysexits.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// The operation failed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 64,
    /// The other side is away or refused.
    Unavailable = 69,
    /// A bug of ours.
    Bug = 70,
    /// State cannot be written.
    CannotWrite = 73,
    /// Input or output failed.
    Io = 74,
    /// A right is missing.
    Permission = 77,
    /// The configuration is wrong.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error that ends a command.
#[derive(Debug)]
pub(crate) struct Failure {
    /// With which code.
    pub(crate) exit: Exit,
    /// Why, with its causes, as a sentence.
    pub(crate) message: String,
}

impl Failure {
    /// A failure with one sentence.
    pub(crate) fn new(exit: Exit, sentence: impl Into<String>) -> Self {
        Self {
            exit,
            message: sentence.into(),
        }
    }

    /// A failure with an error and its causes.
    pub(crate) fn of(exit: Exit, error: &(dyn Error + 'static)) -> Self {
        Self::new(exit, chain(error))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Gives an error the code that it ends the command with.
pub(crate) trait OrExit<T> {
    /// Ends the command with `exit`, saying what was being done.
    fn or_exit(self, exit: Exit, doing: impl fmt::Display) -> Result<T, Failure>;
}

impl<T, E: Error + 'static> OrExit<T> for Result<T, E> {
    fn or_exit(self, exit: Exit, doing: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(exit, format!("{doing}: {}", chain(&error))))
    }
}

/// An error with its causes in one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
