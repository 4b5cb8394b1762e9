//! How the program ends when it fails: a code that scripts can tell apart, and one sentence.

use std::io;

use crate::upstream::ResolveError;

/// The operation failed.
pub(super) const FAILED: u8 = 1;
/// The command line is wrong.
pub(super) const USAGE: u8 = 64;
/// A resolver is unavailable or refused.
pub(super) const UNAVAILABLE: u8 = 69;
/// A bug of ours.
pub(super) const BUG: u8 = 70;
/// State cannot be written.
pub(super) const CANNOT_WRITE: u8 = 73;
/// Input or output failed.
pub(super) const IO: u8 = 74;
/// The system did not permit it.
pub(super) const PERMISSION: u8 = 77;
/// The configuration is wrong.
pub(super) const CONFIG: u8 = 78;

/// The end of a command that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) code: u8,
    pub(super) message: String,
    /// What goes to stdout all the same.
    pub(super) output: String,
}

impl Failure {
    pub(super) fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            output: String::new(),
        }
    }

    /// An error of the operating system while doing something to a named thing.
    pub(super) fn io(what: &str, error: &io::Error) -> Self {
        let full = [
            io::ErrorKind::StorageFull,
            io::ErrorKind::ReadOnlyFilesystem,
        ];
        let code = if error.kind() == io::ErrorKind::PermissionDenied {
            PERMISSION
        } else if full.contains(&error.kind()) {
            CANNOT_WRITE
        } else {
            IO
        };
        Self::new(code, format!("{what}: {error}"))
    }

    pub(super) fn resolve(resolver: std::net::SocketAddr, error: &ResolveError) -> Self {
        Self::new(UNAVAILABLE, format!("{resolver}: {error}"))
    }
}
