//! One process at a time in a state folder.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// The folder's lock; the kernel takes it back when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Why the folder could not be taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    /// Another process has it.
    #[error("another cpe-agent is using this state folder: stop it first")]
    Taken,
    /// No rights on the folder.
    #[error("no right to use the state folder: run as root")]
    Permission(#[source] io::Error),
    /// The disk is full or read-only.
    #[error("the state folder cannot be written")]
    Write(#[source] super::WriteError),
}

impl Lock {
    pub(super) fn take(dir: &Path) -> Result<Self, LockError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(LockError::from)?;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(dir.join("lock"))
            .map_err(LockError::from)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(LockError::Taken),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }
}

impl From<io::Error> for LockError {
    fn from(error: io::Error) -> Self {
        if error.kind() == ErrorKind::PermissionDenied {
            Self::Permission(error)
        } else {
            Self::Write(error.into())
        }
    }
}
