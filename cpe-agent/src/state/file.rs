//! One file of the state folder: a head, the content, a checksum; replaced whole.
//!
//! Layout: `CVS1`, the record's mark (1 byte), length (4 bytes, little-endian), content, first 8 bytes of the SHA-256
//! of all before. Writing: `NAME.tmp`, fsync, rename over `NAME`, fsync of the folder. A cut before the rename leaves
//! the old file and perhaps a piece of `NAME.tmp`, which nothing reads and the next write replaces.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

const MAGIC: &[u8; 4] = b"CVS1";
const HEAD_BYTES: usize = 9;
const SUM_BYTES: usize = 8;
/// The largest content: a lease bundle, with room.
const MAX_CONTENT_BYTES: usize = 300 * 1024;

/// What a file held.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// There is none.
    Absent,
    /// All of it, as it was written.
    Whole(Zeroizing<Vec<u8>>),
    /// Something else; it has been set aside as `NAME.damaged`.
    Damaged,
}

/// Reading failed for a reason other than the content.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct ReadError(#[from] io::Error);

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// The file system is full.
    #[error("the file system is full: free some space")]
    Full(#[source] io::Error),
    /// The file system is mounted for reading only.
    #[error("the file system is read-only")]
    ReadOnly(#[source] io::Error),
    /// Another reason.
    #[error(transparent)]
    Io(io::Error),
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        let kind = error.kind();
        if matches!(
            kind,
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
        ) {
            Self::Full(error)
        } else if kind == ErrorKind::ReadOnlyFilesystem {
            Self::ReadOnly(error)
        } else {
            Self::Io(error)
        }
    }
}

/// Reads a file; one that is damaged is set aside.
pub(crate) fn read(dir: &Path, name: &str, mark: u8) -> Result<Content, ReadError> {
    let path = dir.join(name);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Content::Absent),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = Zeroizing::new(Vec::new());
    file.take((HEAD_BYTES + MAX_CONTENT_BYTES + SUM_BYTES + 1) as u64)
        .read_to_end(&mut bytes)?;
    match decode(&bytes, mark) {
        Some(content) => Ok(Content::Whole(Zeroizing::new(content.to_vec()))),
        None => {
            std::fs::rename(&path, set_aside(&path))?;
            Ok(Content::Damaged)
        }
    }
}

/// Replaces a file. When this fails, the old content stands.
pub(crate) fn write(dir: &Path, name: &str, mark: u8, content: &[u8]) -> Result<(), WriteError> {
    let path = dir.join(name);
    let temporary = path.with_extension("tmp");
    let result = write_synced(&temporary, &encode(mark, content))
        .and_then(|()| std::fs::rename(&temporary, &path));
    if result.is_err() {
        // Frees what was written of it on a full disk; if even that fails the next write replaces it.
        let _ = std::fs::remove_file(&temporary);
    }
    result?;
    Ok(File::open(dir)?.sync_all()?)
}

/// Removes a file and what was set aside or left half-written of it; none being there is fine.
pub(crate) fn remove(dir: &Path, name: &str) -> Result<(), WriteError> {
    let path = dir.join(name);
    for path in [path.with_extension("tmp"), set_aside(&path), path] {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(File::open(dir)?.sync_all()?)
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn set_aside(path: &Path) -> PathBuf {
    path.with_extension("damaged")
}

pub(super) fn encode(mark: u8, content: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(HEAD_BYTES + content.len() + SUM_BYTES));
    bytes.extend(MAGIC);
    bytes.push(mark);
    bytes.extend((content.len() as u32).to_le_bytes());
    bytes.extend(content);
    let sum = checksum(&bytes);
    bytes.extend(sum);
    bytes
}

pub(super) fn decode(bytes: &[u8], mark: u8) -> Option<&[u8]> {
    let (checked, sum) = bytes.split_last_chunk::<SUM_BYTES>()?;
    let (head, content) = checked.split_first_chunk::<HEAD_BYTES>()?;
    let length = u32::from_le_bytes([head[5], head[6], head[7], head[8]]);
    let is_whole = head.starts_with(MAGIC)
        && head[4] == mark
        && usize::try_from(length) == Ok(content.len())
        && content.len() <= MAX_CONTENT_BYTES
        && checksum(checked) == *sum;
    is_whole.then_some(content)
}

fn checksum(bytes: &[u8]) -> [u8; SUM_BYTES] {
    let digest = Sha256::digest(bytes);
    std::array::from_fn(|index| digest[index])
}
