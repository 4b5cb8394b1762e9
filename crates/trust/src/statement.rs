//! Statements of people: a proposal, the approvals of others, and both together with a log proof.
//!
//! The entry of the authority log is the proposal's bytes; its id is their SHA-256. Whether the
//! approvals suffice is for `Authority::judge`, which every machine asks that acts on them.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::cbor::{self, DecodeError, Object, Reader, Writer};
use crate::lease::MAX_NAME;
use crate::proof::MAX_PROOF_BYTES;

const MAX_APPROVALS: usize = 32;
const MAX_SSHSIG: usize = 1024;
const MAX_BODY: usize = 15 * 1024;

/// What a proposal is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Policy,
    Operator,
    Authority,
    TrustRoot,
    Server,
    Gateway,
    Release,
    ManifestImport,
    Order,
    Revoke,
    Retention,
    BreakGlass,
    Unsuspend,
}

impl Kind {
    /// Every kind, in the order of the numbers on the wire, which begin with 1.
    pub const ALL: [Self; 13] = [
        Self::Policy,
        Self::Operator,
        Self::Authority,
        Self::TrustRoot,
        Self::Server,
        Self::Gateway,
        Self::Release,
        Self::ManifestImport,
        Self::Order,
        Self::Revoke,
        Self::Retention,
        Self::BreakGlass,
        Self::Unsuspend,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Operator => "operator",
            Self::Authority => "authority",
            Self::TrustRoot => "trust-root",
            Self::Server => "server",
            Self::Gateway => "gateway",
            Self::Release => "release",
            Self::ManifestImport => "manifest-import",
            Self::Order => "order",
            Self::Revoke => "revoke",
            Self::Retention => "retention",
            Self::BreakGlass => "break-glass",
            Self::Unsuspend => "unsuspend",
        }
    }

    fn number(self) -> u64 {
        (1..)
            .zip(Self::ALL)
            .find(|(_, kind)| *kind == self)
            .map_or(0, |(number, _)| number)
    }

    fn from_number(number: u64) -> Option<Self> {
        (1..)
            .zip(Self::ALL)
            .find(|(known, _)| *known == number)
            .map(|(_, kind)| kind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A change that somebody proposes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    pub v: u8,
    pub kind: Kind,
    /// The canonical bytes of what the kind names, such as a `GatewayRecord`.
    pub body: Vec<u8>,
    pub authority_epoch: u64,
    pub nonce: [u8; 32],
    pub created: u64,
    /// The effect begins here.
    pub not_before: u64,
    /// The effect ends here; 0 means that it has no end.
    pub expires: u64,
    pub proposer: String,
}

impl Proposal {
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        cbor::decode(bytes)
    }

    /// The id of a proposal, from the bytes as received.
    pub fn id(bytes: &[u8]) -> [u8; 32] {
        Sha256::digest(bytes).into()
    }
}

impl Object for Proposal {
    // An entry of a tiled log has at most 65,535 bytes.
    const MAX_BYTES: usize = 16 * 1024;

    fn write(&self, w: &mut Writer) {
        w.open(9, self.v);
        w.uint(1, self.kind.number());
        w.bytes(2, &self.body);
        w.uint(3, self.authority_epoch);
        w.bytes(4, &self.nonce);
        w.uint(5, self.created);
        w.uint(6, self.not_before);
        w.uint(7, self.expires);
        w.text(8, &self.proposer);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            v: r.open(9)?,
            kind: {
                let kind = Kind::from_number(r.uint(1)?);
                kind.ok_or_else(|| r.refused())?
            },
            body: r.bytes(2, MAX_BODY)?,
            authority_epoch: r.uint(3)?,
            nonce: r.array(4)?,
            created: r.uint(5)?,
            not_before: r.uint(6)?,
            expires: r.uint(7)?,
            proposer: r.text(8, MAX_NAME)?,
        })
    }
}

/// What a person says of a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Approve,
    Reject,
    /// That it is theirs: the proposer's own word.
    Propose,
}

/// One person's signed verdict on one proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    pub proposal_id: [u8; 32],
    pub verdict: Verdict,
    pub person: String,
    /// SSHSIG over the proposal's bytes.
    pub sshsig: Vec<u8>,
}

impl Object for Approval {
    const MAX_BYTES: usize = 2 * 1024;

    fn write(&self, w: &mut Writer) {
        w.open(5, cbor::VERSION);
        w.bytes(1, &self.proposal_id);
        w.uint(
            2,
            match self.verdict {
                Verdict::Approve => 1,
                Verdict::Reject => 2,
                Verdict::Propose => 3,
            },
        );
        w.text(3, &self.person);
        w.bytes(4, &self.sshsig);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.open(5)?;
        Ok(Self {
            proposal_id: r.array(1)?,
            verdict: match r.uint(2)? {
                1 => Verdict::Approve,
                2 => Verdict::Reject,
                3 => Verdict::Propose,
                _ => return Err(r.refused()),
            },
            person: r.text(3, MAX_NAME)?,
            sshsig: r.bytes(4, MAX_SSHSIG)?,
        })
    }
}

impl Approval {
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        cbor::decode(bytes)
    }
}

/// A proposal that stands in the authority log, with what shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activation {
    /// The proposal's bytes, as they were signed and logged.
    pub proposal: Vec<u8>,
    pub approvals: Vec<Approval>,
    /// tlog-proof of the proposal's bytes in the authority log.
    pub proof: String,
}

impl Activation {
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        cbor::decode(bytes)
    }
}

impl Object for Activation {
    const MAX_BYTES: usize = 96 * 1024;

    fn write(&self, w: &mut Writer) {
        w.open(4, cbor::VERSION);
        w.bytes(1, &self.proposal);
        w.list(2, &self.approvals, |w, approval| approval.write(w));
        w.text(3, &self.proof);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.open(4)?;
        Ok(Self {
            proposal: r.bytes(1, Proposal::MAX_BYTES)?,
            approvals: r.list(2, MAX_APPROVALS, Approval::read)?,
            proof: r.text(3, MAX_PROOF_BYTES)?,
        })
    }
}
