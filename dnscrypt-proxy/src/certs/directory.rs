//! A directory of certificates signed elsewhere.
//!
//! `provider.pub` holds the provider's public key as 64 hexadecimal digits; while the provider changes its key, both
//! of them, a line each, the new one last. Each `<start>-<serial>.cert` holds a certificate and the 32 bytes of its secret;
//! those of `…-pq.cert` are post-quantum; a provider's second key has its first digits in the name. Each
//! `<start>-<id>.tickets` holds a ticket key, the same for all gateways that get a copy of the directory. A file whose time
//! is over is overwritten with zeros and removed.

use std::fs;
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ed25519_dalek::{SigningKey, VerifyingKey};
use rand_core::OsRng;
use thiserror::Error;
use zeroize::Zeroizing;

use super::provider::{hex, unhex};
use super::{MAX_KEY_LIFE_S, ResolverKey, Validity, make_keys_signed_by, signs_at_once};
use crate::proto::cert::{SignedCert, Skipped, System};
use crate::proto::server::Keyring;
use crate::proto::tickets::{KEY_ISSUES_S, KNOWN_AHEAD_S, TicketKeys};

const PROVIDER_FILE: &str = "provider.pub";
/// Of a provider: the one in use, and the one that takes over.
const MAX_PROVIDERS: usize = 2;
const EXTENSION: &str = "cert";
const TICKETS: &str = "tickets";
const SECRET: usize = 32;
/// A file of this directory is never longer.
const MAX_FILE: u64 = 4096;
/// A series has at most this many times: a year of halves of days with room.
const MAX_SERIES: usize = 1000;
/// A directory holds at most this many files of a kind: a classical and a post-quantum certificate of each time and
/// provider key; ticket keys are fewer.
const MAX_FILES: usize = 2 * MAX_PROVIDERS * MAX_SERIES;

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
    #[error(
        "{path} must hold the provider's public key: 64 hexadecimal digits; or two, a line each"
    )]
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
    /// The newest last; at least one.
    providers: Vec<[u8; 32]>,
}

/// What a directory has for a moment.
pub(super) struct Loaded {
    pub(super) keys: Vec<Arc<ResolverKey>>,
    pub(super) tickets: TicketKeys,
    /// When that changes by itself.
    pub(super) next: u64,
}

impl Directory {
    pub(super) fn open(path: PathBuf) -> Result<Self, DirectoryError> {
        let providers = read_providers(&path)?;
        Ok(Self { path, providers })
    }

    pub(super) fn provider_public(&self) -> &[u8; 32] {
        self.providers.last().unwrap_or(&[0; 32])
    }

    /// Loads what is valid, and erases what is over. Files may have come since it was looked at last.
    pub(super) fn refresh(
        &mut self,
        current: &Keyring,
        now: u64,
    ) -> Result<Loaded, DirectoryError> {
        self.providers = read_providers(&self.path)?;
        let mut keys: Vec<Arc<ResolverKey>> = Vec::new();
        let mut next = u64::MAX;
        let mut skipped = Vec::new();
        for file in files(&self.path, EXTENSION)? {
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
                        erase_if_possible(&file);
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
        let tickets = self.tickets(now, &mut next)?;
        Ok(Loaded {
            keys,
            tickets,
            next,
        })
    }

    /// Ticket keys of this moment. A file that cannot be read is passed over: without it there are certificates still.
    fn tickets(&self, now: u64, next: &mut u64) -> Result<TicketKeys, DirectoryError> {
        let mut tickets = TicketKeys::default();
        // The newest first: they issue.
        for file in files(&self.path, TICKETS)?.into_iter().rev() {
            let read = read_tickets(&file).inspect_err(|error| {
                tracing::warn!(file = %file.display(), %error, "ticket keys cannot be read");
            });
            let Some(key) = read.ok().flatten() else {
                continue;
            };
            let (Some(issues_until), Some(until)) = (key.issues_until(), key.accepted_until())
            else {
                continue;
            };
            if now > u64::from(until) {
                erase_if_possible(&file);
                continue;
            }
            let known_from = issues_until.saturating_sub(KEY_ISSUES_S + KNOWN_AHEAD_S);
            if now < u64::from(known_from) {
                *next = (*next).min(u64::from(known_from));
            }
            tickets = tickets.and(&key.of_use(now));
        }
        Ok(tickets)
    }

    fn load(&self, file: &Path, now: u64) -> Result<ResolverKey, Unusable> {
        if fs::metadata(file)?.len() > MAX_FILE {
            return Err(Skipped::Malformed.into());
        }
        let bytes = Zeroizing::new(fs::read(file)?);
        let split = bytes.len().checked_sub(SECRET).ok_or(Skipped::Malformed)?;
        let (wire, secret) = bytes.split_at(split);
        let signed = SignedCert::parse(wire)?;
        let signer = self.signer(&signed, now)?;
        let cert = signed.claims().clone();
        if cert.system == System::XSalsa20Poly1305 {
            return Err(Skipped::NotSpoken(cert.system).into());
        }
        let secret = <[u8; SECRET]>::try_from(secret).map_err(|_| Skipped::Malformed)?;
        ResolverKey::from_secret(cert, wire.to_vec(), Zeroizing::new(secret))
            .map(|key| key.signed_by(signer))
            .map_err(|_| Skipped::Malformed.into())
    }

    /// Which of the provider's keys signed a certificate that is valid.
    fn signer(&self, signed: &SignedCert, now: u64) -> Result<[u8; 32], Skipped> {
        let mut refusal = Skipped::BadSignature;
        for provider in &self.providers {
            match signed.verify(provider, now) {
                Ok(_) => return Ok(*provider),
                Err(Skipped::BadSignature) => {}
                Err(reason) => refusal = reason,
            }
        }
        Err(refusal)
    }
}

fn read_providers(directory: &Path) -> Result<Vec<[u8; 32]>, DirectoryError> {
    let file = directory.join(PROVIDER_FILE);
    let text = fs::read(&file).map_err(|error| io_error(&file, error))?;
    let key = |line: &[u8]| {
        let key = unhex::<32>(line.trim_ascii());
        key.filter(|key| VerifyingKey::from_bytes(key).is_ok())
    };
    let lines = text.trim_ascii().split(|byte| *byte == b'\n');
    let keys: Option<Vec<_>> = lines.map(key).collect();
    keys.filter(|keys| keys.len() <= MAX_PROVIDERS)
        .ok_or_else(|| DirectoryError::BadProvider {
            path: file.display().to_string(),
        })
}

/// The files of one kind, by name: by the time that they are for.
fn files(directory: &Path, kind: &str) -> Result<Vec<PathBuf>, DirectoryError> {
    let entries = fs::read_dir(directory).map_err(|error| io_error(directory, error))?;
    let mut files: Vec<_> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == kind))
        .take(MAX_FILES)
        .collect();
    files.sort();
    Ok(files)
}

fn read_tickets(file: &Path) -> io::Result<Option<TicketKeys>> {
    if fs::metadata(file)?.len() > MAX_FILE {
        return Ok(None);
    }
    let bytes = Zeroizing::new(fs::read(file)?);
    Ok(TicketKeys::from_secret_bytes(&bytes).ok())
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
    /// How many signatures it takes: a classical and a post-quantum certificate each time.
    #[must_use]
    pub fn signatures(self) -> usize {
        self.count.saturating_mul(2)
    }

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

/// Makes and signs a series into a directory, which may exist and have certificates under another key of the
/// provider. Ticket keys are made for as long as the series lasts. Returns the certificates' files.
pub fn write_series(
    provider: &SigningKey,
    directory: &Path,
    series: Series,
) -> Result<Vec<PathBuf>, DirectoryError> {
    let public = provider.verifying_key().to_bytes();
    match write_series_signed_by(&mut signs_at_once(provider), &public, directory, series) {
        Ok(files) => Ok(files),
        Err(SeriesError::Directory(error)) => Err(error),
    }
}

/// Why there is no series.
#[derive(Debug, Error)]
pub(crate) enum SeriesError<E> {
    /// The directory, or what was asked for.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Whoever has the provider's key did not sign.
    #[error("{0}")]
    Signer(E),
}

/// As [`write_series`], signed by whoever has the secret of the provider's public key. No certificate is written before
/// all are signed: a token that is taken away half-way leaves no half of a series.
pub(crate) fn write_series_signed_by<E>(
    sign: &mut impl FnMut(&[u8]) -> Result<[u8; 64], E>,
    provider: &[u8; 32],
    directory: &Path,
    series: Series,
) -> Result<Vec<PathBuf>, SeriesError<E>> {
    let validities = series.validities()?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| io_error(directory, error))?;
    let mut keys = Vec::with_capacity(series.signatures());
    for validity in &validities {
        keys.extend(make_keys_signed_by(sign, *validity).map_err(SeriesError::Signer)?);
    }
    let files = write_keys(directory, provider, &keys)?;
    if let Some(last) = validities.last() {
        write_tickets(directory, series.start, last.end)?;
    }
    Ok(files)
}

fn write_keys(
    directory: &Path,
    provider: &[u8; 32],
    keys: &[ResolverKey],
) -> Result<Vec<PathBuf>, DirectoryError> {
    let of_provider = match add_provider(directory, *provider)? {
        0 => String::new(),
        _ => format!("-{}", hex(provider.first_chunk::<4>().unwrap_or(&[0; 4]))),
    };
    let mut files = Vec::with_capacity(keys.len());
    for key in keys {
        let suffix = match key.cert().system {
            System::XWing => "-pq",
            System::XChaCha20Poly1305 | System::XSalsa20Poly1305 => "",
        };
        let (start, serial) = (key.cert().start, key.cert().serial);
        let name = format!("{start}-{serial}{of_provider}{suffix}.{EXTENSION}");
        let file = directory.join(name);
        write_secret(&file, &key.to_secret_bytes()).map_err(|error| io_error(&file, error))?;
        files.push(file);
    }
    Ok(files)
}

/// Adds a provider's key behind those that are there, and gives its place. There is room for the one before it.
fn add_provider(directory: &Path, public: [u8; 32]) -> Result<usize, DirectoryError> {
    let file = directory.join(PROVIDER_FILE);
    let mut keys = if file.exists() {
        read_providers(directory)?
    } else {
        Vec::new()
    };
    if let Some(place) = keys.iter().position(|key| *key == public) {
        return Ok(place);
    }
    if keys.len() == MAX_PROVIDERS {
        keys.remove(0);
    }
    keys.push(public);
    let text: String = keys.iter().map(|key| format!("{}\n", hex(key))).collect();
    let beside = directory.join("provider.new");
    fs::write(&beside, text).map_err(|error| io_error(&beside, error))?;
    fs::rename(&beside, &file).map_err(|error| io_error(&file, error))?;
    Ok(keys.len() - 1)
}

/// Ticket keys one after the other, from where those that are there cease to issue.
fn write_tickets(directory: &Path, start: u32, end: u32) -> Result<(), DirectoryError> {
    let mut from = start;
    for file in files(directory, TICKETS)? {
        let keys = read_tickets(&file).map_err(|error| io_error(&file, error))?;
        let until = keys.and_then(|keys| keys.issues_until());
        from = from.max(until.unwrap_or_default());
    }
    while from < end {
        let keys = TicketKeys::made_ahead(OsRng, from);
        let bytes = keys.to_secret_bytes();
        let id = hex(bytes.first_chunk::<4>().unwrap_or(&[0; 4]));
        let file = directory.join(format!("{from}-{id}.{TICKETS}"));
        write_secret(&file, &bytes).map_err(|error| io_error(&file, error))?;
        from = from.saturating_add(KEY_ISSUES_S);
    }
    Ok(())
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

/// What stays though its time is over is used no more, and holds up nothing.
fn erase_if_possible(path: &Path) {
    if let Err(error) = erase(path) {
        tracing::warn!(file = %path.display(), %error, "a secret whose time is over cannot be erased");
    }
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
