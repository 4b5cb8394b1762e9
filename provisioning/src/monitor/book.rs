//! What a monitor has seen, in a folder that no server reaches: of each log the last head and the hashes of all entries, of the authority log the
//! entries themselves, and every state of the people that followed.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use sha2::{Digest, Sha256};
use trust::{Authority, SignedCheckpoint, Tree};

use crate::failure::{Blame, Failure};
use crate::files;
use crate::log::Log;

const LOCK: &str = "lock";
const ENTRIES: &str = "entries";
const PEOPLE: &str = "people";
const EVIDENCE: &str = "evidence";
const HASH_BYTES: usize = 32;

/// The folder, which one process writes to.
#[derive(Debug)]
pub struct Book {
    dir: PathBuf,
    _lock: fs::File,
}

/// What was seen of a log.
#[derive(Debug, Default)]
pub struct Seen {
    /// The last head, over the entries of `tree`.
    pub head: Option<SignedCheckpoint>,
    /// All of them.
    pub tree: Tree,
}

/// An entry of the authority log.
#[derive(Debug)]
pub struct Entry {
    /// Its place.
    pub index: u64,
    /// The proposal's bytes.
    pub bytes: Vec<u8>,
    /// When a quorum had sworn to the first head over it that was seen here, in unix seconds.
    pub since: u64,
    /// It has its effect, which was judged.
    pub is_decided: bool,
}

impl Book {
    /// Opens a folder, or makes it.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        for folder in [
            dir,
            &dir.join(ENTRIES),
            &dir.join(PEOPLE),
            &dir.join(EVIDENCE),
        ] {
            files::make_private(folder)?;
        }
        let path = dir.join(LOCK);
        let lock = fs::File::create(&path);
        let lock = lock.with_context(|| format!("cannot write {}", path.display()))?;
        if lock.try_lock().is_err() {
            let sentence = format!(
                "another monitor works in {}; choose another --dir",
                dir.display()
            );
            return Err(Failure::new(Blame::Unavailable, sentence).into());
        }
        Ok(Self {
            dir: dir.to_owned(),
            _lock: lock,
        })
    }

    /// What was seen of a log.
    pub fn seen(&self, log: Log) -> anyhow::Result<Seen> {
        let path = self.head_path(log);
        let Some(head) = read_if_there(&path)? else {
            return Ok(Seen::default());
        };
        let head = String::from_utf8(head).ok();
        let head = head.and_then(|head| SignedCheckpoint::parse(&head).ok());
        let head = head.with_context(|| format!("{} is no checkpoint", path.display()))?;
        let path = self.leaves_path(log);
        let leaves = read_if_there(&path)?.unwrap_or_default();
        let size = usize::try_from(head.checkpoint().size)?;
        let leaves = leaves.as_chunks::<HASH_BYTES>().0.get(..size);
        let leaves = leaves.with_context(|| format!("{} lacks entries", path.display()))?;
        let tree = Tree::from_leaf_hashes(leaves.iter().copied());
        let is_whole = tree.root() == head.checkpoint().root;
        ensure!(is_whole, "{} is not what the head is over", path.display());
        let head = Some(head);
        Ok(Seen { head, tree })
    }

    /// Keeps what a log has grown by, then its head.
    pub fn grow(
        &self,
        log: Log,
        from: u64,
        leaves: &[[u8; 32]],
        head: &SignedCheckpoint,
    ) -> anyhow::Result<()> {
        let path = self.leaves_path(log);
        let written = || -> std::io::Result<()> {
            let mut file = fs::OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)?;
            // After a crash there may be more than the head is over.
            file.seek(SeekFrom::Start(from * HASH_BYTES as u64))?;
            file.write_all(leaves.as_flattened())?;
            file.sync_all()
        };
        written().with_context(|| format!("cannot write {}", path.display()))?;
        files::replace(&self.head_path(log), head.text().as_bytes())
    }

    /// Keeps an entry of the authority log.
    pub fn keep_entry(&self, index: u64, bytes: &[u8], since: u64) -> anyhow::Result<()> {
        let file = self.entry_path(index);
        files::replace(&file.with_extension("since"), since.to_string().as_bytes())?;
        files::replace(&file, bytes)
    }

    /// Keeps that an entry has its effect, with the signatures that gave it.
    pub fn keep_decided(&self, index: u64, signatures: &[u8]) -> anyhow::Result<()> {
        files::replace(&self.entry_path(index).with_extension("sig"), signatures)
    }

    /// An entry that was kept.
    pub fn entry(&self, index: u64) -> anyhow::Result<Entry> {
        let path = self.entry_path(index);
        let reading = || format!("cannot read {}", path.display());
        let since = fs::read_to_string(path.with_extension("since")).with_context(reading)?;
        Ok(Entry {
            index,
            bytes: fs::read(&path).with_context(reading)?,
            since: since.parse().with_context(reading)?,
            is_decided: path.with_extension("sig").exists(),
        })
    }

    /// Keeps a state of the people.
    pub fn keep_people(&self, state: &Authority) -> anyhow::Result<()> {
        let path = self.dir.join(PEOPLE).join(state.epoch().to_string());
        files::replace(&path, state.text().as_bytes())
    }

    /// The states after this one, in their order.
    pub fn people_since(&self, first: Authority) -> anyhow::Result<Vec<Authority>> {
        let mut states = vec![first];
        loop {
            let next = states.last().map_or(0, Authority::epoch) + 1;
            let path = self.dir.join(PEOPLE).join(next.to_string());
            let Some(text) = read_if_there(&path)? else {
                return Ok(states);
            };
            let text = String::from_utf8(text).ok();
            let state = text.and_then(|text| Authority::parse(&text).ok());
            states.push(
                state.with_context(|| format!("{} is no state of the people", path.display()))?,
            );
        }
    }

    /// Keeps two heads that cannot both be true, and says where.
    pub fn keep_evidence(
        &self,
        seen: &SignedCheckpoint,
        shown: &SignedCheckpoint,
    ) -> anyhow::Result<PathBuf> {
        let both = format!("{}\n{}", seen.text(), shown.text());
        let name = hex::encode(&Sha256::digest(&both)[..8]);
        let path = self.dir.join(EVIDENCE).join(name);
        if !path.exists() {
            files::replace(&path, both.as_bytes())?;
        }
        Ok(path)
    }

    fn head_path(&self, log: Log) -> PathBuf {
        self.dir.join(format!("{}.checkpoint", log.as_str()))
    }

    fn leaves_path(&self, log: Log) -> PathBuf {
        self.dir.join(format!("{}.leaves", log.as_str()))
    }

    fn entry_path(&self, index: u64) -> PathBuf {
        self.dir.join(ENTRIES).join(index.to_string())
    }
}

fn read_if_there(path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}
