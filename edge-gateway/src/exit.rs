//! How the program ends when it cannot go on: one sentence and an exit code (`sysexits.h` numbers).

use std::fmt;
use std::io;

/// An exit code with its documented meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The operation was refused or did not succeed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 64,
    /// A server or the running gateway cannot be reached or refuses.
    Unavailable = 69,
    /// A fault of ours.
    Bug = 70,
    /// State cannot be written.
    CannotWrite = 73,
    /// Reading, binding or another system call failed.
    Io = 74,
    /// Root or a capability is missing.
    Permission = 77,
    /// The configuration, or the machine it describes, is wrong.
    Config = 78,
}

/// Why the program stops: a sentence that names the thing and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The code the process ends with.
    pub exit: Exit,
    /// What is said on stderr after `error: `.
    pub sentence: String,
}

impl Fault {
    /// A fault with its sentence.
    pub fn new(exit: Exit, sentence: impl Into<String>) -> Self {
        Self {
            exit,
            sentence: sentence.into(),
        }
    }

    /// A failed system call on `thing`; the code follows from the kind of error.
    pub fn io(doing: impl fmt::Display, error: &io::Error) -> Self {
        use io::ErrorKind as Kind;
        let kind = error.kind();
        let known = [
            (Kind::PermissionDenied, Exit::Permission, "; run it as root"),
            (
                Kind::StorageFull,
                Exit::CannotWrite,
                "; free some space and start again",
            ),
            (
                Kind::QuotaExceeded,
                Exit::CannotWrite,
                "; raise the quota and start again",
            ),
            (
                Kind::ReadOnlyFilesystem,
                Exit::CannotWrite,
                "; make the file system writable and start again",
            ),
            (
                Kind::AddrInUse,
                Exit::Io,
                "; stop the program that holds it or choose another in the configuration",
            ),
            (
                Kind::AddrNotAvailable,
                Exit::Config,
                "; it is not an address of this machine",
            ),
        ];
        let matching = known.iter().find(|(known, ..)| *known == kind);
        let (exit, what_to_do) = matching.map_or((Exit::Io, ""), |(_, exit, what)| (*exit, *what));
        Self {
            exit,
            sentence: format!("cannot {doing}: {}{what_to_do}", reason(error)),
        }
    }
}

/// The system's words without Rust's `(os error N)`.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_lowercase(),
        None => text,
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_follows_from_what_went_wrong() {
        let cases = [
            (libc_error(13), Exit::Permission),
            (libc_error(28), Exit::CannotWrite),
            (libc_error(30), Exit::CannotWrite),
            (libc_error(98), Exit::Io),
            (libc_error(99), Exit::Config),
            (libc_error(5), Exit::Io),
        ];
        for (error, exit) in cases {
            let fault = Fault::io("open a thing", &error);
            assert_eq!(fault.exit, exit, "{error}");
            assert!(!fault.sentence.contains("os error"), "{fault}");
        }
    }

    fn libc_error(number: i32) -> io::Error {
        io::Error::from_raw_os_error(number)
    }
}
