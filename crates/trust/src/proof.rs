//! Proofs of logging that need no connection (<https://c2sp.org/tlog-proof>).

use std::fmt;

use crate::checkpoint::{CheckpointError, SignedCheckpoint};
use crate::lines::{base64, base64_hash, decimal, to_base64};
use crate::merkle::{MAX_PATH, MerkleError, leaf_hash, verify_inclusion};

/// A proof with 16 cosignatures of today's sort has about 5 KB.
pub const MAX_PROOF_BYTES: usize = 32 * 1024;
const MAX_EXTRA_BYTES: usize = 4 * 1024;
const HEADER: &str = "c2sp.org/tlog-proof@v1\n";

/// Why a proof does not show what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    #[error("the proof is longer than {MAX_PROOF_BYTES} bytes")]
    TooBig,
    #[error("the proof does not begin with its version, an index and hashes")]
    Shape,
    #[error("the proof's checkpoint cannot be read: {0}")]
    Checkpoint(#[from] CheckpointError),
    #[error("the checkpoint is of a log that the policy does not name")]
    UnknownLog,
    #[error("the checkpoint has no signature of its log")]
    NotSignedByLog,
    #[error("a signature of {name} does not verify")]
    BadSignature { name: String },
    #[error("too few of the policy's witnesses have cosigned the checkpoint")]
    NoQuorum,
    #[error("the entry is not in the checkpoint's tree: {0}")]
    NotIncluded(#[from] MerkleError),
}

/// Where a verified entry stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoggedAt {
    pub index: u64,
    /// Size and root of the tree under which it was shown.
    pub size: u64,
    pub root: [u8; 32],
    pub sworn: Sworn,
}

/// When a checkpoint was seen, as its cosigners swear; 0 where nobody has to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sworn {
    /// By then a whole quorum had seen it: fewer cannot put that back.
    pub since: u64,
    /// The latest time that a whole quorum has reached: fewer cannot put that ahead.
    pub reached: u64,
}

/// A claim that an entry stands in a log; a `Policy` judges it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Opaque and not authenticated.
    pub extra: Option<Vec<u8>>,
    pub index: u64,
    /// From the leaf's sibling up to the root's child.
    pub path: Vec<[u8; 32]>,
    pub checkpoint: SignedCheckpoint,
}

impl Proof {
    /// Where the entry stands in the tree of the checkpoint, whose signatures were checked.
    pub(crate) fn verify_inclusion(
        &self,
        entry: &[u8],
        sworn: Sworn,
    ) -> Result<LoggedAt, MerkleError> {
        let head = self.checkpoint.checkpoint();
        let leaf = leaf_hash(entry);
        verify_inclusion(&leaf, self.index, head.size, &self.path, &head.root)?;
        Ok(LoggedAt {
            index: self.index,
            size: head.size,
            root: head.root,
            sworn,
        })
    }

    pub fn parse(text: &str) -> Result<Self, ProofError> {
        if text.len() > MAX_PROOF_BYTES {
            return Err(ProofError::TooBig);
        }
        let body = text.strip_prefix(HEADER).ok_or(ProofError::Shape)?;
        let (lines, checkpoint) = body.split_once("\n\n").ok_or(ProofError::Shape)?;
        let mut lines = lines.split('\n').peekable();
        let extra = match lines.next_if(|line| line.starts_with("extra ")) {
            Some(line) => Some(parse_extra(line)?),
            None => None,
        };
        let index = lines
            .next()
            .and_then(|line| decimal(line.strip_prefix("index ")?));
        let path: Option<Vec<_>> = lines.map(base64_hash).collect();
        Ok(Self {
            extra,
            index: index.ok_or(ProofError::Shape)?,
            path: path
                .filter(|path| path.len() <= MAX_PATH)
                .ok_or(ProofError::Shape)?,
            checkpoint: SignedCheckpoint::parse(checkpoint)?,
        })
    }

    pub fn format(&self) -> String {
        self.to_string()
    }
}

fn parse_extra(line: &str) -> Result<Vec<u8>, ProofError> {
    line.strip_prefix("extra ")
        .and_then(base64)
        .filter(|extra| extra.len() <= MAX_EXTRA_BYTES)
        .ok_or(ProofError::Shape)
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HEADER)?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", to_base64(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        self.path
            .iter()
            .try_for_each(|hash| writeln!(f, "{}", to_base64(hash)))?;
        write!(f, "\n{}", self.checkpoint)
    }
}
