//! Checkpoints of logs (<https://c2sp.org/tlog-checkpoint>), and who signs and cosigns them
//! (<https://c2sp.org/tlog-cosignature>, version 1, Ed25519).

use std::fmt;

use ed25519_dalek::{Signer, SigningKey};

use crate::lines::{MAX_63_BITS, base64_hash, decimal, to_base64};
use crate::note::{Note, NoteError, NoteSignature};
use crate::vkey::{ALG_COSIGNATURE, ALG_ED25519, Vkey, VkeyError};

/// Why text is not a signed checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    #[error("not a signed note: {0}")]
    Note(#[from] NoteError),
    #[error("a checkpoint has an origin, a size and a root, and no empty line")]
    Lines,
    #[error("the tree size is not a decimal of at most 63 bits")]
    Size,
    #[error("the root is not the base64 of 32 bytes")]
    Root,
}

/// The head of a log: how many entries, and the root over them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    pub origin: String,
    pub size: u64,
    pub root: [u8; 32],
}

impl Checkpoint {
    /// Reads the text of a note; extension lines are allowed and not interpreted.
    fn parse(text: &str) -> Result<Self, CheckpointError> {
        let body = text.strip_suffix('\n').ok_or(CheckpointError::Lines)?;
        if body.split('\n').any(str::is_empty) {
            return Err(CheckpointError::Lines);
        }
        let mut lines = body.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next())
        else {
            return Err(CheckpointError::Lines);
        };
        Ok(Self {
            origin: origin.to_owned(),
            size: decimal(size).ok_or(CheckpointError::Size)?,
            root: base64_hash(root).ok_or(CheckpointError::Root)?,
        })
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}\n{}\n{}",
            self.origin,
            self.size,
            to_base64(&self.root)
        )
    }
}

/// A checkpoint as it came, with signatures that a `Policy` has yet to judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    checkpoint: Checkpoint,
    note: Note,
}

impl SignedCheckpoint {
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let note = Note::parse(text)?;
        let checkpoint = Checkpoint::parse(note.text())?;
        Ok(Self { checkpoint, note })
    }

    /// What the log claims.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    pub fn note(&self) -> &Note {
        &self.note
    }

    /// The same with the cosignature of this witness, if it is among these lines and holds; nothing else of them is taken.
    #[must_use]
    pub fn with_line_of(&self, witness: &Vkey, lines: &str) -> Option<Self> {
        let note = Note::parse(&format!("{}{lines}", self.note)).ok()?;
        let mut theirs = note.signatures().iter().skip(self.note.signatures().len());
        let line = theirs.find(|line| {
            let is_by = line.name == witness.name && line.key_id == witness.key_id;
            is_by && cosignature_time(witness, note.text(), &line.bytes).is_some()
        });
        let mut cosigned = self.clone();
        cosigned.note.push(line?.clone());
        Some(cosigned)
    }

    /// The whole signed note, byte for byte as it was parsed.
    pub fn text(&self) -> String {
        self.note.to_string()
    }
}

impl fmt::Display for SignedCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.note.fmt(f)
    }
}

/// The key with which the sequencer signs the heads of one log, whose origin is the key's name.
pub struct LogSigner {
    key: SigningKey,
    vkey: Vkey,
}

impl LogSigner {
    pub fn from_seed(origin: &str, seed: &[u8; 32]) -> Result<Self, VkeyError> {
        let key = SigningKey::from_bytes(seed);
        let vkey = Vkey::new(origin, ALG_ED25519, key.verifying_key().to_bytes())?;
        Ok(Self { key, vkey })
    }

    pub fn vkey(&self) -> &Vkey {
        &self.vkey
    }

    /// Signs the head of the log that this key is for.
    pub fn sign_checkpoint(&self, size: u64, root: [u8; 32]) -> SignedCheckpoint {
        let checkpoint = Checkpoint {
            origin: self.vkey.name.clone(),
            size,
            root,
        };
        let mut note = Note::unsigned(checkpoint.to_string());
        let signature = self.key.sign(note.text().as_bytes());
        note.push(NoteSignature {
            name: self.vkey.name.clone(),
            key_id: self.vkey.key_id,
            bytes: signature.to_bytes().to_vec(),
        });
        SignedCheckpoint { checkpoint, note }
    }
}

impl fmt::Debug for LogSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogSigner({}, secret)", self.vkey)
    }
}

/// The key with which a server or a witness says that it saw a checkpoint, and when.
///
/// It says so of whatever it is handed: the rules that must hold before are the caller's.
pub struct Cosigner {
    key: SigningKey,
    vkey: Vkey,
}

impl Cosigner {
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, VkeyError> {
        let key = SigningKey::from_bytes(seed);
        let vkey = Vkey::new(name, ALG_COSIGNATURE, key.verifying_key().to_bytes())?;
        Ok(Self { key, vkey })
    }

    pub fn vkey(&self) -> &Vkey {
        &self.vkey
    }

    /// Returns the checkpoint with one more line; times beyond 63 bits are cut to that.
    pub fn cosign(&self, checkpoint: &SignedCheckpoint, timestamp: u64) -> SignedCheckpoint {
        let timestamp = timestamp.min(MAX_63_BITS);
        let signature = self
            .key
            .sign(&cosigned_message(checkpoint.note.text(), timestamp));
        let mut bytes = timestamp.to_be_bytes().to_vec();
        bytes.extend_from_slice(&signature.to_bytes());
        let mut cosigned = checkpoint.clone();
        cosigned.note.push(NoteSignature {
            name: self.vkey.name.clone(),
            key_id: self.vkey.key_id,
            bytes,
        });
        cosigned
    }
}

impl fmt::Debug for Cosigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cosigner({}, secret)", self.vkey)
    }
}

//= https://c2sp.org/tlog-cosignature#ed25519-signed-message
// A header line, a time line, then the whole text of the note with its final newline.
fn cosigned_message(text: &str, timestamp: u64) -> Vec<u8> {
    format!("cosignature/v1\ntime {timestamp}\n{text}").into_bytes()
}

/// Checks a log's own signature over the text of a note.
pub(crate) fn log_signature_holds(vkey: &Vkey, text: &str, bytes: &[u8]) -> bool {
    bytes
        .try_into()
        .is_ok_and(|signature| vkey.verifies(text.as_bytes(), signature))
}

/// Checks a cosignature over the text of a note and returns its time.
pub(crate) fn cosignature_time(vkey: &Vkey, text: &str, bytes: &[u8]) -> Option<u64> {
    let (timestamp, signature) = bytes.split_first_chunk::<8>()?;
    let timestamp = u64::from_be_bytes(*timestamp);
    let signature: &[u8; 64] = signature.try_into().ok()?;
    let holds =
        timestamp <= MAX_63_BITS && vkey.verifies(&cosigned_message(text, timestamp), signature);
    holds.then_some(timestamp)
}
