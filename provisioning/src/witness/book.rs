//! What a witness has cosigned last of each log, on disk before anybody hears of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use sha2::{Digest, Sha256};
use trust::{AddCheckpoint, Cosigner, NotCosigned, SignedCheckpoint, Vkey};

use crate::failure::{Blame, Failure};
use crate::files;

const KEY: &str = "witness.key";
const NAME: &str = "name";
const LOGS: &str = "logs";
const HEADS: &str = "heads";
const FORKS: &str = "forks";
const LOCK: &str = "lock";
const LOGS_BEGIN: &str = "\
# The logs whose heads this witness cosigns: a verifier key in each line, as their servers print them (`provisioning log keys`).
# Restart the witness after a change.
";

/// A log, and the head of it that was cosigned last.
pub type Last = (Vkey, Option<SignedCheckpoint>);

/// The folder of a witness, which one process writes to.
#[derive(Debug)]
pub struct Book {
    dir: PathBuf,
    cosigner: Cosigner,
    logs: Vec<Vkey>,
    _lock: Option<fs::File>,
}

/// Why a head was not cosigned.
#[derive(Debug)]
pub enum Refused {
    /// The log is told.
    Judged(NotCosigned),
    /// The disk is full, or worse.
    NotKept(anyhow::Error),
}

impl Book {
    /// Makes the folder and the key; gives what others verify its cosignatures with.
    pub fn create(dir: &Path, name: &str) -> anyhow::Result<Vkey> {
        let seed = files::new_seed();
        let cosigner = Cosigner::from_seed(name, &seed).map_err(|error| {
            Failure::new(Blame::Usage, format!("{name} cannot be a witness: {error}"))
        })?;
        files::make_private(dir)?;
        let key = dir.join(KEY);
        if key.exists() {
            let sentence = format!(
                "{} is a witness already; choose another --dir",
                dir.display()
            );
            return Err(Failure::new(Blame::Failed, sentence).into());
        }
        files::make_private(&dir.join(HEADS))?;
        files::make_private(&dir.join(FORKS))?;
        files::replace(&dir.join(NAME), format!("{name}\n").as_bytes())?;
        files::replace(&dir.join(LOGS), LOGS_BEGIN.as_bytes())?;
        // Last: with the key it is a witness.
        files::write_seed(&key, &seed)?;
        files::sync_dir(dir)?;
        Ok(cosigner.vkey().clone())
    }

    /// Opens what `create` made, for the one process that cosigns.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        let lock = lock(dir)?;
        let mut book = Self::load(dir)?;
        // What cannot be read now could not be told from what was never there.
        book.heads()?;
        book._lock = Some(lock);
        Ok(book)
    }

    /// Looks at it while another process may cosign.
    pub fn read(dir: &Path) -> anyhow::Result<(Vkey, Vec<Last>)> {
        let book = Self::load(dir)?;
        Ok((book.vkey().clone(), book.heads()?))
    }

    fn load(dir: &Path) -> anyhow::Result<Self> {
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path).map_err(|error| unreadable(&path, error))
        };
        let name = read(NAME)?;
        let seed = files::read_seed(&dir.join(KEY))?;
        Ok(Self {
            cosigner: Cosigner::from_seed(name.trim_end(), &seed)
                .with_context(|| format!("{}", dir.join(NAME).display()))?,
            logs: parse_logs(&dir.join(LOGS), &read(LOGS)?)?,
            _lock: None,
            dir: dir.to_owned(),
        })
    }

    fn heads(&self) -> anyhow::Result<Vec<Last>> {
        let last = |log: &Vkey| Ok((log.clone(), self.last(&log.name)?));
        self.logs.iter().map(last).collect()
    }

    /// What others verify its cosignatures with.
    pub fn vkey(&self) -> &Vkey {
        self.cosigner.vkey()
    }

    /// The logs that it knows.
    pub fn logs(&self) -> &[Vkey] {
        &self.logs
    }

    /// The head that it cosigned last of the log with this origin.
    fn last(&self, origin: &str) -> anyhow::Result<Option<SignedCheckpoint>> {
        let path = self.file(HEADS, origin);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let head = SignedCheckpoint::parse(&text);
        let head = head.ok().filter(|head| head.checkpoint().origin == origin);
        head.map(Some).ok_or_else(|| {
            let sentence = format!(
                "{} is no head of {origin:?}; this witness cannot know any more what it cosigned: make a new one, with a new key",
                path.display()
            );
            Failure::new(Blame::Config, sentence).into()
        })
    }

    /// Cosigns a head that continues the last one, which is on disk before this returns.
    pub fn cosign(&mut self, request: &AddCheckpoint, now: u64) -> Result<String, Refused> {
        let head = request.checkpoint.checkpoint();
        let last = self.last(&head.origin).map_err(Refused::NotKept)?;
        let last = last.as_ref().map(SignedCheckpoint::checkpoint);
        if let Err(refused) = request.judge(&self.logs, last) {
            if refused == NotCosigned::Fork {
                self.keep_fork(request);
            }
            return Err(Refused::Judged(refused));
        }
        if last != Some(head) {
            let file = self.file(HEADS, &head.origin);
            let text = request.checkpoint.text();
            files::replace(&file, text.as_bytes()).map_err(Refused::NotKept)?;
        }
        Ok(request.cosignature(&self.cosigner, now))
    }

    /// Beside the head that was cosigned, this shows that the log has signed two histories. The first one is kept.
    fn keep_fork(&self, request: &AddCheckpoint) {
        let file = self.file(FORKS, &request.checkpoint.checkpoint().origin);
        let text = request.checkpoint.text();
        if !file.exists() && files::replace(&file, text.as_bytes()).is_ok() {
            tracing::error!("the other head is kept in {}", file.display());
        }
    }

    fn file(&self, folder: &str, origin: &str) -> PathBuf {
        let name = hex::encode(Sha256::digest(origin));
        self.dir.join(folder).join(name)
    }
}

fn parse_logs(path: &Path, text: &str) -> anyhow::Result<Vec<Vkey>> {
    let mut logs = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let log: Result<Vkey, _> = line.parse();
        let log = log.map_err(|error| {
            let sentence = format!("{}: line {number}: {error}", path.display());
            Failure::new(Blame::Config, sentence)
        })?;
        if log.alg != trust::vkey::ALG_ED25519 {
            let sentence = format!(
                "{}: line {number}: this is the key of a witness, not of a log",
                path.display()
            );
            return Err(Failure::new(Blame::Config, sentence).into());
        }
        logs.push(log);
    }
    Ok(logs)
}

fn lock(dir: &Path) -> anyhow::Result<fs::File> {
    let path = dir.join(LOCK);
    if !dir.join(KEY).exists() {
        return Err(unreadable(&dir.join(KEY), io::ErrorKind::NotFound.into()));
    }
    let file =
        fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            let sentence = format!("another process is the witness of {}", dir.display());
            Err(Failure::new(Blame::Unavailable, sentence).into())
        }
        Err(fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

fn unreadable(path: &Path, error: io::Error) -> anyhow::Error {
    if error.kind() == io::ErrorKind::NotFound {
        let sentence = format!(
            "there is no {}; `provisioning witness init` makes a witness",
            path.display()
        );
        return Failure::new(Blame::Config, sentence).into();
    }
    anyhow::Error::new(error).context(format!("cannot read {}", path.display()))
}
