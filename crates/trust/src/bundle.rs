//! How statements travel: to one device (`LeaseBundle`), and to the gateways of a shard (`ShardPage`).
//!
//! These envelopes are not signed; each part is judged on its own by `verify`.

use crate::cbor::{self, DecodeError, Object, Reader, Writer};
use crate::lease::{Lease, Revocation};
use crate::merkle::MAX_PATH;
use crate::proof::MAX_PROOF_BYTES;
use crate::signed::Signed;
use crate::statement::Activation;

const MAX_ACTIVATIONS: usize = 8;
/// How many entries a page of a shard's stream has at most.
pub const MAX_PAGE_ENTRIES: usize = 1000;

/// What an enrolled device receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseBundle {
    pub lease: Vec<u8>,
    pub salt: [u8; 32],
    /// tlog-proof of `fleet_entry(salt, lease)` in the fleet log.
    pub proof: String,
    /// Activated `gateway` statements of the gateways that the lease names.
    pub gateways: Vec<Activation>,
    /// RFC 6962 consistency proof from the tree size that the device said it remembers.
    pub consistency: Vec<[u8; 32]>,
}

impl LeaseBundle {
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        cbor::decode(bytes)
    }
}

impl Object for LeaseBundle {
    const MAX_BYTES: usize = 256 * 1024;

    fn write(&self, w: &mut Writer) {
        w.open(6, cbor::VERSION);
        w.bytes(1, &self.lease);
        w.bytes(2, &self.salt);
        w.text(3, &self.proof);
        w.list(4, &self.gateways, |w, activation| activation.write(w));
        w.list(5, &self.consistency, |w, hash| w.item_bytes(hash));
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.open(6)?;
        Ok(Self {
            lease: r.bytes(1, Lease::MAX_BYTES)?,
            salt: r.array(2)?,
            proof: r.text(3, MAX_PROOF_BYTES)?,
            gateways: r.list(4, MAX_ACTIVATIONS, Activation::read)?,
            consistency: r.list(5, MAX_PATH, |r| r.item_array())?,
        })
    }
}

/// One line of a shard's append-only stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardEntry {
    Lease {
        lease: Vec<u8>,
        salt: [u8; 32],
        proof: String,
    },
    Revocation {
        revocation: Vec<u8>,
        salt: [u8; 32],
        proof: String,
    },
    /// A `Signed` offer of a pre-shared key, for the gateway that it names.
    Psk { offer: Vec<u8> },
}

impl ShardEntry {
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        cbor::decode(bytes)
    }
}

impl Object for ShardEntry {
    const MAX_BYTES: usize = 48 * 1024;

    fn write(&self, w: &mut Writer) {
        let (kind, bytes, salt, proof) = match self {
            Self::Lease { lease, salt, proof } => (1, lease, salt, proof),
            Self::Revocation {
                revocation,
                salt,
                proof,
            } => (2, revocation, salt, proof),
            Self::Psk { offer } => {
                w.map(2);
                w.uint(0, 3);
                return w.bytes(1, offer);
            }
        };
        w.map(4);
        w.uint(0, kind);
        w.bytes(1, bytes);
        w.bytes(2, salt);
        w.text(3, proof);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match (r.open_map()?, r.uint(0)?) {
            (4, 1) => Ok(Self::Lease {
                lease: r.bytes(1, Lease::MAX_BYTES)?,
                salt: r.array(2)?,
                proof: r.text(3, MAX_PROOF_BYTES)?,
            }),
            (4, 2) => Ok(Self::Revocation {
                revocation: r.bytes(1, Revocation::MAX_BYTES)?,
                salt: r.array(2)?,
                proof: r.text(3, MAX_PROOF_BYTES)?,
            }),
            (2, 3) => Ok(Self::Psk {
                offer: r.bytes(1, Signed::MAX_BYTES)?,
            }),
            _ => Err(r.refused()),
        }
    }
}

/// A piece of a shard's stream: the entries from `from` up to, not including, `next`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardPage {
    pub shard: u32,
    pub from: u64,
    pub next: u64,
    pub entries: Vec<ShardEntry>,
}

impl ShardPage {
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        cbor::decode(bytes)
    }
}

impl Object for ShardPage {
    const MAX_BYTES: usize = 8 * 1024 * 1024;

    fn write(&self, w: &mut Writer) {
        w.open(5, cbor::VERSION);
        w.uint(1, u64::from(self.shard));
        w.uint(2, self.from);
        w.uint(3, self.next);
        w.list(4, &self.entries, |w, entry| entry.write(w));
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.open(5)?;
        let page = Self {
            shard: r.uint32(1)?,
            from: r.uint(2)?,
            next: r.uint(3)?,
            entries: r.list(4, MAX_PAGE_ENTRIES, ShardEntry::read)?,
        };
        let span = page.next.checked_sub(page.from);
        // Numbers may be skipped by the server, but never shared by two entries.
        let enough =
            span.is_some_and(|span| u64::try_from(page.entries.len()).is_ok_and(|n| n <= span));
        if !enough {
            return Err(DecodeError::Field { field: 3 });
        }
        Ok(page)
    }
}
