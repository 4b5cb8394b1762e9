//! What the agent keeps on flash: who it is (`identity`), its tunnel keys (`keys`), a claim code until it is used
//! (`claim`), the last verified lease (`lease`) and what must never go back (`stored`).
//!
//! One file each, replaced whole (see [`mod@file`]), so that a power cut leaves the old or the new content. A file that was
//! damaged later is recognised by its checksum, named and set aside; what its loss costs stands at [`Damaged`].
//! Never here: whether a lease may be believed (that is `trust`'s).

pub(crate) mod file;
mod lock;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{chown, lchown};
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use rand_core::{OsRng, RngCore};
use trust::{Authority, ClaimCode, Stored};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

pub(crate) use file::{ReadError, WriteError};
pub(crate) use lock::{Lock, LockError};

use crate::psk::Psks;
use file::Content;

/// The files of the state folder, each with its mark in the file's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Record {
    /// The DevID's seed. Written once.
    Identity,
    /// The tunnel's private key, and the next one while a lease for it is being asked for.
    Keys,
    /// A claim code that is still to be used.
    Claim,
    /// The last lease bundle that verified.
    Lease,
    /// `trust::Stored`.
    Stored,
    /// The pre-shared keys that were agreed with gateways.
    Psks,
    /// The state of the authority, where it is later than the image's.
    People,
}

impl Record {
    /// The file's name in the state folder.
    pub(crate) fn file_name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Keys => "keys",
            Self::Claim => "claim",
            Self::Lease => "lease",
            Self::Stored => "stored",
            Self::Psks => "psks",
            Self::People => "people",
        }
    }

    fn mark(self) -> u8 {
        match self {
            Self::Identity => 1,
            Self::Keys => 2,
            Self::Claim => 3,
            Self::Lease => 4,
            Self::Stored => 5,
            Self::Psks => 6,
            Self::People => 7,
        }
    }
}

/// A file that was found damaged at start, and set aside under `NAME.damaged`.
///
/// * `identity`: the router is a new device and needs a new claim code.
/// * `keys`, `lease`: fetched or made anew with the identity alone.
/// * `claim`: to be typed again.
/// * `psks`: agreed anew with the next tunnel key; until then gateways may be used without one.
/// * `people`: the image's count until provisioning is asked next.
/// * `stored`: older leases than the last could be replayed until the next one is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damaged(pub Record);

/// The device's two kinds of keys.
pub(crate) struct Keys {
    /// DevID.
    pub device: SigningKey,
    /// The tunnel's key, to which the present lease is bound.
    pub tunnel: StaticSecret,
    /// The key that a renewal asks for; kept from before the asking, so that a repeated request is the same request.
    pub next: Option<StaticSecret>,
}

impl Keys {
    /// `devid_hash` of statements.
    pub(crate) fn devid_hash(&self) -> [u8; 32] {
        trust::key_id(self.device.verifying_key().as_bytes())
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", trust::KeyId::from(self.devid_hash()))
    }
}

/// Everything the agent had kept.
#[derive(Debug)]
pub(crate) struct State {
    /// Keys; made at the first start.
    pub keys: Keys,
    /// The last lease bundle, unverified.
    pub lease: Option<Vec<u8>>,
    /// What must never go back.
    pub stored: Stored,
    /// The pre-shared keys that were agreed.
    pub psks: Psks,
    /// The text of the last state of the authority that verified.
    pub people: Option<Vec<u8>>,
    /// What was found damaged.
    pub damaged: Vec<Damaged>,
}

/// The state folder, held by this process alone.
#[derive(Debug)]
pub(crate) struct StateDir {
    /// By descriptor, so that it is still reached when the folders above it are closed to the agent's user.
    path: PathBuf,
    _folder: File,
    _lock: Lock,
}

impl StateDir {
    /// Makes the folder if needed and takes its lock.
    pub(crate) fn open(path: &Path) -> Result<Self, LockError> {
        let lock = Lock::take(path)?;
        let folder = File::open(path).map_err(LockError::from)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
        Ok(Self {
            path,
            _folder: folder,
            _lock: lock,
        })
    }

    /// Gives the folder and its files to the user that the agent becomes.
    pub(crate) fn give_to(&self, uid: u32, gid: u32) -> io::Result<()> {
        chown(&self.path, Some(uid), Some(gid))?;
        for entry in std::fs::read_dir(&self.path)? {
            lchown(entry?.path(), Some(uid), Some(gid))?;
        }
        Ok(())
    }

    /// Reads everything, and makes and writes the keys that are not there yet.
    pub(crate) fn load(&self) -> Result<State, StateError> {
        let mut damaged = Vec::new();
        let device = match self.get(Record::Identity, &mut damaged)?.and_then(seed_of) {
            Some(seed) => SigningKey::from_bytes(&seed),
            None => self.make_identity()?,
        };
        let (tunnel, next) = match self
            .get(Record::Keys, &mut damaged)?
            .as_deref()
            .and_then(|keys| split_keys(keys))
        {
            Some(keys) => keys,
            None => (self.make_tunnel_key()?, None),
        };
        let lease = self
            .get(Record::Lease, &mut damaged)?
            .map(|bytes| bytes.to_vec());
        let stored = self.get(Record::Stored, &mut damaged)?;
        let stored = stored
            .and_then(|bytes| Stored::from_bytes(&bytes).ok())
            .unwrap_or_default();
        let psks = self.get(Record::Psks, &mut damaged)?;
        let psks = psks.and_then(|bytes| Psks::from_bytes(&bytes));
        let people = self.get(Record::People, &mut damaged)?;
        let keys = Keys {
            device,
            tunnel,
            next,
        };
        Ok(State {
            keys,
            lease,
            stored,
            psks: psks.unwrap_or_default(),
            people: people.map(|bytes| bytes.to_vec()),
            damaged,
        })
    }

    /// The claim code that is still to be used.
    pub(crate) fn claim(&self) -> Result<Option<ClaimCode>, StateError> {
        let mut damaged = Vec::new();
        let text = self.get(Record::Claim, &mut damaged)?;
        Ok(text.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok()))
    }

    /// Keeps a claim code until it is used.
    pub(crate) fn keep_claim(&self, code: &ClaimCode) -> Result<(), StateError> {
        let text = Zeroizing::new(code.to_string());
        self.put(Record::Claim, text.as_bytes())
    }

    /// Forgets the claim code.
    pub(crate) fn forget_claim(&self) -> Result<(), StateError> {
        self.remove(Record::Claim)
    }

    /// Makes the key for the next lease, unless there is one from an attempt that was cut, and keeps it before it is used.
    pub(crate) fn prepare_next_key(&self, keys: &mut Keys) -> Result<(), StateError> {
        if keys.next.is_none() {
            let next = new_tunnel_key();
            self.put_keys(&keys.tunnel, Some(&next))?;
            keys.next = Some(next);
        }
        Ok(())
    }

    /// Keeps a verified lease, and makes the key that it is bound to the tunnel's key.
    ///
    /// The lease is written first: [`StateDir::adopt_key_of`] finishes the change if power is cut in between.
    pub(crate) fn keep_lease(
        &self,
        keys: &mut Keys,
        bundle: &[u8],
        wg_pub: &[u8; 32],
        stored: &Stored,
    ) -> Result<(), StateError> {
        self.put(Record::Lease, bundle)?;
        self.put(Record::Stored, &stored.to_bytes())?;
        self.adopt_key_of(keys, wg_pub)
    }

    /// Keeps the pre-shared keys, before a lease is that they are for.
    pub(crate) fn keep_psks(&self, psks: &Psks) -> Result<(), StateError> {
        self.put(Record::Psks, &psks.to_bytes())
    }

    /// Keeps a verified state of the authority, before a lease is judged by it.
    pub(crate) fn keep_people(&self, people: &Authority) -> Result<(), StateError> {
        self.put(Record::People, people.text().as_bytes())
    }

    /// Makes the next key the tunnel's key if a lease is bound to it.
    pub(crate) fn adopt_key_of(
        &self,
        keys: &mut Keys,
        wg_pub: &[u8; 32],
    ) -> Result<(), StateError> {
        let is_next = keys
            .next
            .as_ref()
            .is_some_and(|next| PublicKey::from(next).as_bytes() == wg_pub);
        if is_next && let Some(next) = keys.next.take() {
            keys.tunnel = next;
            self.put_keys(&keys.tunnel, None)?;
        }
        Ok(())
    }

    /// Forgets one record, and what was set aside of it.
    pub(crate) fn remove(&self, record: Record) -> Result<(), StateError> {
        file::remove(&self.path, record.file_name())
            .map_err(|source| StateError::Write { record, source })
    }

    fn make_identity(&self) -> Result<SigningKey, StateError> {
        let mut seed = Zeroizing::new([0; 32]);
        OsRng.fill_bytes(&mut *seed);
        self.put(Record::Identity, &*seed)?;
        Ok(SigningKey::from_bytes(&seed))
    }

    fn make_tunnel_key(&self) -> Result<StaticSecret, StateError> {
        let key = new_tunnel_key();
        self.put_keys(&key, None)?;
        Ok(key)
    }

    fn put_keys(
        &self,
        tunnel: &StaticSecret,
        next: Option<&StaticSecret>,
    ) -> Result<(), StateError> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(2 * KEY_BYTES));
        bytes.extend(tunnel.as_bytes());
        if let Some(next) = next {
            bytes.extend(next.as_bytes());
        }
        self.put(Record::Keys, &bytes)
    }

    fn put(&self, record: Record, content: &[u8]) -> Result<(), StateError> {
        file::write(&self.path, record.file_name(), record.mark(), content)
            .map_err(|source| StateError::Write { record, source })
    }

    fn get(
        &self,
        record: Record,
        damaged: &mut Vec<Damaged>,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, StateError> {
        match file::read(&self.path, record.file_name(), record.mark()) {
            Ok(Content::Whole(content)) => Ok(Some(content)),
            Ok(Content::Absent) => Ok(None),
            Ok(Content::Damaged) => {
                damaged.push(Damaged(record));
                Ok(None)
            }
            Err(source) => Err(StateError::Read { record, source }),
        }
    }
}

/// State could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// Reading.
    #[error("the state file `{}` cannot be read", .record.file_name())]
    Read {
        /// Which file.
        record: Record,
        /// Why.
        #[source]
        source: ReadError,
    },
    /// Writing; what stood there before still stands.
    #[error("the state file `{}` cannot be written, what it held is untouched", .record.file_name())]
    Write {
        /// Which file.
        record: Record,
        /// Why.
        #[source]
        source: WriteError,
    },
}

const KEY_BYTES: usize = 32;

fn new_tunnel_key() -> StaticSecret {
    StaticSecret::random_from_rng(OsRng)
}

fn seed_of(bytes: Zeroizing<Vec<u8>>) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    Some(Zeroizing::new(
        <[u8; KEY_BYTES]>::try_from(bytes.as_slice()).ok()?,
    ))
}

fn split_keys(bytes: &[u8]) -> Option<(StaticSecret, Option<StaticSecret>)> {
    let (tunnel, rest) = bytes.split_first_chunk::<KEY_BYTES>()?;
    let next = match rest {
        [] => None,
        rest => Some(StaticSecret::from(<[u8; KEY_BYTES]>::try_from(rest).ok()?)),
    };
    Some((StaticSecret::from(*tunnel), next))
}
