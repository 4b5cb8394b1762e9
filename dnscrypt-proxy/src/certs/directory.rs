//! A directory of certificates signed elsewhere.
//!
//! `provider.pub` holds the provider's public key as 64 hexadecimal digits. Each `<start>-<serial>.cert`
//! holds a certificate and the 32 bytes of its secret; those of `…-pq.cert` are post-quantum. A file whose time is over is overwritten with
//! zeros and removed.

use std::fs;
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ed25519_dalek::{SigningKey, VerifyingKey};
use thiserror::Error;
use zeroize::Zeroizing;

use super::provider::{hex, unhex};
use super::{MAX_KEY_LIFE_S, ResolverKey, Validity, make_keys};
use crate::proto::cert::{SignedCert, Skipped, System};
use crate::proto::server::Keyring;

const PROVIDER_FILE: &str = "provider.pub";
const EXTENSION: &str = "cert";
const SECRET: usize = 32;
/// A file of this directory is never longer.
const MAX_FILE: u64 = 4096;
/// A series has at most this many times: a year of halves of days with room.
const MAX_SERIES: usize = 1000;
/// A directory holds at most this many certificates: a classical and a post-quantum one of each time.
const MAX_FILES: usize = 2 * MAX_SERIES;

/// Why a directory cannot be used.
#[derive(Debug, Error)]
pub enum DirectoryError {
    /// Reading or writing failed.
    #[error("{path}: {error}")]
    Io {
        /// The file or directory.
        path: String,
        /// What the system said.
        error: io::Error,
    },
    /// `provider.pub` is not a key.
    #[error("{path} must hold the provider's public key: 64 hexadecimal digits")]
    BadProvider {
        /// The file.
        path: String,
    },
    /// Nothing in it is valid at this moment.
    #[error(
        "no certificate in {path} is valid now ({skipped}): make new ones with `culvert-dns cert sign`"
    )]
    NothingValid {
        /// The directory.
        path: String,
        /// What stood in the way, in words.
        skipped: String,
    },
    /// The series asked for does not fit the protocol.
    #[error("certificates live 1 to 24 hours, and a series has 1 to {MAX_SERIES} of them")]
    BadSeries,
}

/// A directory that was opened; its contents are read whenever they are needed.
pub(super) struct Directory {
    path: PathBuf,
    provider: [u8; 32],
}

impl Directory {
    pub(super) fn open(path: PathBuf) -> Result<Self, DirectoryError> {
        let file = path.join(PROVIDER_FILE);
        let text = fs::read(&file).map_err(|error| io_error(&file, error))?;
        let provider = unhex::<32>(text.trim_ascii())
            .filter(|key| VerifyingKey::from_bytes(key).is_ok())
            .ok_or_else(|| DirectoryError::BadProvider {
                path: file.display().to_string(),
            })?;
        Ok(Self { path, provider })
    }

    pub(super) fn provider_public(&self) -> &[u8; 32] {
        &self.provider
    }

    /// Loads what is valid, erases what is over, and says when the next change is due.
    pub(super) fn refresh(
        &self,
        current: &Keyring,
        now: u64,
    ) -> Result<(Vec<Arc<ResolverKey>>, u64), DirectoryError> {
        let mut keys: Vec<Arc<ResolverKey>> = Vec::new();
        let mut next = u64::MAX;
        let mut skipped = Vec::new();
        for file in self.files()? {
            match self.load(&file, now) {
                Ok(key) => {
                    next = next.min(u64::from(key.cert().end) + 1);
                    keys.push(known(current, key));
                }
                Err(Unusable::Not(Skipped::NotYet(start))) => {
                    next = next.min(u64::from(start));
                    skipped.push(Skipped::NotYet(start).to_string());
                }
                Err(Unusable::Not(reason)) => {
                    if matches!(reason, Skipped::Expired(_)) {
                        erase(&file).map_err(|error| io_error(&file, error))?;
                    }
                    skipped.push(reason.to_string());
                }
                Err(Unusable::Io(error)) => return Err(io_error(&file, error)),
            }
        }
        if keys.is_empty() {
            skipped.dedup();
            return Err(DirectoryError::NothingValid {
                path: self.path.display().to_string(),
                skipped: skipped
                    .first()
                    .cloned()
                    .unwrap_or_else(|| "there is none".to_owned()),
            });
        }
        Ok((keys, next))
    }

    fn files(&self) -> Result<Vec<PathBuf>, DirectoryError> {
        let entries = fs::read_dir(&self.path).map_err(|error| io_error(&self.path, error))?;
        let mut files: Vec<_> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == EXTENSION)
            })
            .take(MAX_FILES)
            .collect();
        files.sort();
        Ok(files)
    }

    fn load(&self, file: &Path, now: u64) -> Result<ResolverKey, Unusable> {
        if fs::metadata(file)?.len() > MAX_FILE {
            return Err(Skipped::Malformed.into());
        }
        let bytes = Zeroizing::new(fs::read(file)?);
        let split = bytes.len().checked_sub(SECRET).ok_or(Skipped::Malformed)?;
        let (wire, secret) = bytes.split_at(split);
        let cert = SignedCert::parse(wire)?
            .verify(&self.provider, now)?
            .clone();
        if cert.system == System::XSalsa20Poly1305 {
            return Err(Skipped::NotSpoken(cert.system).into());
        }
        let secret = <[u8; SECRET]>::try_from(secret).map_err(|_| Skipped::Malformed)?;
        ResolverKey::from_secret(cert, wire.to_vec(), Zeroizing::new(secret))
            .map_err(|_| Skipped::Malformed.into())
    }
}

enum Unusable {
    Not(Skipped),
    Io(io::Error),
}

impl From<Skipped> for Unusable {
    fn from(reason: Skipped) -> Self {
        Self::Not(reason)
    }
}

impl From<io::Error> for Unusable {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A series of certificates, each taking over before the one before it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Series {
    /// First valid unix second of the first one.
    pub start: u32,
    /// How many.
    pub count: usize,
    /// How long each is valid.
    pub lifetime_s: u32,
}

impl Series {
    /// Each begins when half of the one before it is over.
    fn validities(self) -> Result<Vec<Validity>, DirectoryError> {
        let sensible = (3600..=MAX_KEY_LIFE_S).contains(&self.lifetime_s)
            && (1..=MAX_SERIES).contains(&self.count);
        if !sensible {
            return Err(DirectoryError::BadSeries);
        }
        let mut start = self.start;
        let mut validities = Vec::with_capacity(self.count);
        for _ in 0..self.count {
            let end = start
                .checked_add(self.lifetime_s)
                .ok_or(DirectoryError::BadSeries)?;
            validities.push(Validity {
                start,
                end,
                serial: start,
            });
            start += self.lifetime_s / 2;
        }
        Ok(validities)
    }
}

/// Makes and signs a series into a directory, which may exist. Returns the files.
pub fn write_series(
    provider: &SigningKey,
    directory: &Path,
    series: Series,
) -> Result<Vec<PathBuf>, DirectoryError> {
    let validities = series.validities()?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| io_error(directory, error))?;
    let public = format!("{}\n", hex(provider.verifying_key().as_bytes()));
    let file = directory.join(PROVIDER_FILE);
    fs::write(&file, public).map_err(|error| io_error(&file, error))?;
    let mut files = Vec::with_capacity(2 * validities.len());
    for validity in validities {
        for key in make_keys(provider, validity) {
            let suffix = match key.cert().system {
                System::XWing => "-pq",
                System::XChaCha20Poly1305 | System::XSalsa20Poly1305 => "",
            };
            let name = format!("{}-{}{suffix}.{EXTENSION}", validity.start, validity.serial);
            let file = directory.join(name);
            write_secret(&file, &key.to_secret_bytes()).map_err(|error| io_error(&file, error))?;
            files.push(file);
        }
    }
    Ok(files)
}

fn write_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Overwrites, then removes.
fn erase(path: &Path) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    let len = usize::try_from(file.metadata()?.len().min(MAX_FILE)).unwrap_or_default();
    file.rewind()?;
    file.write_all(&vec![0; len])?;
    file.sync_all()?;
    fs::remove_file(path)
}

/// The same key as before where there is one, so that its shared keys stay cached.
fn known(current: &Keyring, loaded: ResolverKey) -> Arc<ResolverKey> {
    let same = current
        .keys()
        .iter()
        .find(|key| key.cert() == loaded.cert());
    same.cloned().unwrap_or_else(|| Arc::new(loaded))
}

fn io_error(path: &Path, error: io::Error) -> DirectoryError {
    DirectoryError::Io {
        path: path.display().to_string(),
        error,
    }
}
