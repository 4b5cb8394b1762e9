//! How a command ends: the documented exit codes, and errors that carry one.

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
    pub exit: Exit,
    /// Why, with its chain of causes.
    pub error: anyhow::Error,
}

impl Failure {
    /// A failure with one sentence.
    pub(crate) fn new(exit: Exit, sentence: impl Into<String>) -> Self {
        Self {
            exit,
            error: anyhow::Error::msg(sentence.into()),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#}", self.error)
    }
}

/// Gives an error the code that it ends the command with.
pub(crate) trait OrExit<T> {
    /// Ends the command with `exit`, saying what was being done.
    fn or_exit(self, exit: Exit, doing: impl std::fmt::Display) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for Result<T, E> {
    fn or_exit(self, exit: Exit, doing: impl std::fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| Failure {
            exit,
            error: error.into().context(doing.to_string()),
        })
    }
}
