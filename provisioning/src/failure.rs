//! What a failed command tells its caller: one sentence and an exit code that says whose turn it is.

use std::fmt;
use std::io;
use std::process::ExitCode;

/// Why a command failed, as its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The operation did not succeed.
    Failed = 1,
    /// Somebody has yet to sign.
    Short = 2,
    /// It is too early.
    NotYet = 3,
    /// The command line is wrong.
    Usage = 64,
    /// Another process has what is needed.
    Unavailable = 69,
    /// State cannot be written, usually a full disk.
    CannotWrite = 73,
    /// The operating system refused an operation.
    Io = 74,
    /// The user may not do this.
    Permission = 77,
    /// The configuration or the data directory is not what it must be.
    Config = 78,
}

impl From<Blame> for ExitCode {
    fn from(blame: Blame) -> Self {
        ExitCode::from(blame as u8)
    }
}

/// A failure whose sentence and exit code were chosen where it happened.
#[derive(Debug)]
pub struct Failure {
    blame: Blame,
    sentence: String,
}

impl Failure {
    pub(crate) fn new(blame: Blame, sentence: impl Into<String>) -> Self {
        Self {
            blame,
            sentence: sentence.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for Failure {}

/// An error with its causes; a cause whose words stand in what it caused is not said twice.
pub fn sentence(error: &anyhow::Error) -> String {
    let mut sentence = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if sentence.is_empty() {
            sentence = cause;
        } else if !sentence.contains(&cause) {
            sentence.push_str(": ");
            sentence.push_str(&cause);
        }
    }
    sentence
}

/// Finds the exit code in an error's chain; the outermost cause that says anything decides.
pub fn blame(error: &anyhow::Error) -> Blame {
    error
        .chain()
        .find_map(blame_of_one)
        .unwrap_or(Blame::Failed)
}

fn blame_of_one(cause: &(dyn std::error::Error + 'static)) -> Option<Blame> {
    if let Some(failure) = cause.downcast_ref::<Failure>() {
        return Some(failure.blame);
    }
    if let Some(error) = cause.downcast_ref::<io::Error>() {
        return Some(blame_of_io(error));
    }
    cause.downcast_ref::<sqlx::Error>().and_then(blame_of_sqlx)
}

fn blame_of_io(error: &io::Error) -> Blame {
    const CANNOT_WRITE: [io::ErrorKind; 3] = [
        io::ErrorKind::StorageFull,
        io::ErrorKind::QuotaExceeded,
        io::ErrorKind::ReadOnlyFilesystem,
    ];
    if CANNOT_WRITE.contains(&error.kind()) {
        Blame::CannotWrite
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        Blame::Permission
    } else {
        Blame::Io
    }
}

// Result codes: <https://www.sqlite.org/rescode.html>; the low byte is the primary one.
const SQLITE_PERM: i32 = 3;
const SQLITE_BUSY: i32 = 5;
const SQLITE_READONLY: i32 = 8;
const SQLITE_IOERR: i32 = 10;
const SQLITE_CORRUPT: i32 = 11;
const SQLITE_FULL: i32 = 13;
const SQLITE_CANTOPEN: i32 = 14;
const SQLITE_NOTADB: i32 = 26;

fn blame_of_sqlx(error: &sqlx::Error) -> Option<Blame> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    match code & 0xff {
        SQLITE_PERM => Some(Blame::Permission),
        SQLITE_BUSY => Some(Blame::Unavailable),
        SQLITE_FULL | SQLITE_READONLY => Some(Blame::CannotWrite),
        SQLITE_IOERR | SQLITE_CANTOPEN | SQLITE_CORRUPT | SQLITE_NOTADB => Some(Blame::Io),
        _ => None,
    }
}

/// Whether the disk would not take a write, which the operator has to mend.
pub(crate) fn is_full(error: &anyhow::Error) -> bool {
    blame(error) == Blame::CannotWrite
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn the_exit_code_is_found_below_the_context_that_was_added() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let chosen = Failure::new(Blame::Config, "there is no data directory");

        assert_eq!(
            blame(&anyhow::Error::from(full).context("writing a key")),
            Blame::CannotWrite
        );
        assert_eq!(
            blame(&anyhow::Error::from(denied).context("reading a key")),
            Blame::Permission
        );
        assert_eq!(
            blame(&Err::<(), _>(chosen).context("starting").unwrap_err()),
            Blame::Config
        );
        assert_eq!(blame(&anyhow::anyhow!("nothing known")), Blame::Failed);
    }
}
