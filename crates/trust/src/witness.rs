//! What a witness is asked, and what it says to it (<https://c2sp.org/tlog-witness>): it cosigns a head of a log that continues the one it
//! cosigned before, and nothing else.
//!
//! Pure: who keeps the last head, and sees to it that nobody else is answered between reading and writing it, is the caller.

use std::fmt;

use crate::checkpoint::{
    Checkpoint, CheckpointError, Cosigner, SignedCheckpoint, log_signature_holds,
};
use crate::lines::{base64_hash, decimal, to_base64};
use crate::merkle::{MerkleError, verify_consistency};
use crate::vkey::Vkey;

/// Far more than 63 hashes and a checkpoint take.
pub const MAX_REQUEST_BYTES: usize = 16 * 1024;
const MAX_PROOF_LINES: usize = 63;

/// A head to cosign, and what shows that it continues an earlier one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// Size of the head that the log believes the witness cosigned last; 0 for none.
    pub old: u64,
    pub proof: Vec<[u8; 32]>,
    pub checkpoint: SignedCheckpoint,
}

/// Why bytes are no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddCheckpointError {
    #[error("the request is longer than {MAX_REQUEST_BYTES} bytes, or no UTF-8")]
    NoText,
    #[error("the first line is `old` and a tree size")]
    Old,
    #[error("at most {MAX_PROOF_LINES} lines of a base64 hash each come before the empty line")]
    Proof,
    #[error("no checkpoint comes after the empty line: {0}")]
    Checkpoint(#[from] CheckpointError),
}

/// Why a witness does not cosign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotCosigned {
    #[error("this witness knows no log with the origin {0:?}")]
    UnknownLog(String),
    #[error("no signature is by a key of the log")]
    NotSigned,
    #[error("the old size is larger than the new one")]
    Backwards,
    #[error("the head that was cosigned last has size {0}")]
    OtherSize(u64),
    #[error("a head of this size and another root was cosigned")]
    Fork,
    #[error("the head does not continue the one that was cosigned last: {0}")]
    Inconsistent(MerkleError),
}

impl AddCheckpoint {
    pub fn parse(bytes: &[u8]) -> Result<Self, AddCheckpointError> {
        if bytes.len() > MAX_REQUEST_BYTES {
            return Err(AddCheckpointError::NoText);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| AddCheckpointError::NoText)?;
        let (head, checkpoint) = text.split_once("\n\n").ok_or(AddCheckpointError::Old)?;
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| line.strip_prefix("old "));
        let old = old.and_then(decimal).ok_or(AddCheckpointError::Old)?;
        let proof: Option<Vec<_>> = lines.map(base64_hash).collect();
        let proof = proof.filter(|proof| proof.len() <= MAX_PROOF_LINES);
        Ok(Self {
            old,
            proof: proof.ok_or(AddCheckpointError::Proof)?,
            checkpoint: SignedCheckpoint::parse(checkpoint)?,
        })
    }

    /// Whether to cosign it, for one who trusts these logs and cosigned a head of the same origin last, if any.
    //= https://c2sp.org/tlog-witness#add-checkpoint
    // The order of the checks is that of the specification; whoever is a stranger hears nothing of sizes.
    pub fn judge(&self, logs: &[Vkey], last: Option<&Checkpoint>) -> Result<(), NotCosigned> {
        let new = self.checkpoint.checkpoint();
        let mut keys = logs.iter().filter(|log| log.name == new.origin).peekable();
        if keys.peek().is_none() {
            return Err(NotCosigned::UnknownLog(new.origin.clone()));
        }
        let note = self.checkpoint.note();
        let is_signed = keys.any(|key| {
            let mut lines = note.signatures().iter();
            lines.any(|line| {
                let is_by = line.name == key.name && line.key_id == key.key_id;
                is_by && log_signature_holds(key, note.text(), &line.bytes)
            })
        });
        if !is_signed {
            return Err(NotCosigned::NotSigned);
        }
        if self.old > new.size {
            return Err(NotCosigned::Backwards);
        }
        let (size, root) = last.map_or((0, [0; 32]), |last| (last.size, last.root));
        if self.old != size {
            return Err(NotCosigned::OtherSize(size));
        }
        if last.is_some() && size == new.size && root != new.root {
            return Err(NotCosigned::Fork);
        }
        verify_consistency((size, &root), (new.size, &new.root), &self.proof)
            .map_err(NotCosigned::Inconsistent)
    }

    /// The lines that a witness answers with.
    #[must_use]
    pub fn cosignature(&self, cosigner: &Cosigner, now: u64) -> String {
        let cosigned = cosigner.cosign(&self.checkpoint, now);
        let lines = cosigned.note().signatures().last();
        lines.map_or_else(String::new, |line| format!("{line}\n"))
    }
}

impl fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old)?;
        let mut hashes = self.proof.iter();
        hashes.try_for_each(|hash| writeln!(f, "{}", to_base64(hash)))?;
        write!(f, "\n{}", self.checkpoint)
    }
}
