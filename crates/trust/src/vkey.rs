//! Verifier keys of signed notes: `name+hex(id)+base64(type || key)`.
//!
//! <https://c2sp.org/signed-note>. Types known here: Ed25519 notes (1, logs) and timestamped Ed25519
//! cosignatures (4, witnesses). ML-DSA-44 has number 6 and is refused by its number until it comes.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest, Sha256};

use crate::lines::{base64, is_key_name, to_base64};

/// Plain Ed25519 over the note's text: what a log signs with.
pub const ALG_ED25519: u8 = 1;
/// cosignature/v1: Ed25519 over a time and the note's text.
pub const ALG_COSIGNATURE: u8 = 4;

/// Why text is not a verifier key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VkeyError {
    #[error("a verifier key has the form name+id+key")]
    Shape,
    #[error("a key's name is not empty and has neither spaces nor a plus sign")]
    Name,
    #[error("the key id is not 8 lowercase hexadecimal digits")]
    IdFormat,
    #[error("the key id does not belong to this name and key")]
    IdMismatch,
    #[error("the key is not in base64, or not of 32 bytes")]
    KeyFormat,
    #[error("the key is not a point of Ed25519")]
    KeyPoint,
    #[error("signature type {0} is not known to this program (known: 1 and 4)")]
    Algorithm(u8),
}

/// A key that verifies signatures of notes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vkey {
    pub name: String,
    pub key_id: u32,
    pub alg: u8,
    pub key: [u8; 32],
}

impl Vkey {
    /// Names a public key for one use; the id follows from both.
    pub fn new(name: &str, alg: u8, key: [u8; 32]) -> Result<Self, VkeyError> {
        if !is_key_name(name) {
            return Err(VkeyError::Name);
        }
        if !matches!(alg, ALG_ED25519 | ALG_COSIGNATURE) {
            return Err(VkeyError::Algorithm(alg));
        }
        let point = VerifyingKey::from_bytes(&key).map_err(|_| VkeyError::KeyPoint)?;
        if point.is_weak() {
            return Err(VkeyError::KeyPoint);
        }
        Ok(Self {
            name: name.to_owned(),
            key_id: note_key_id(name, alg, &key),
            alg,
            key,
        })
    }

    /// Whether the key made this Ed25519 signature.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(&self.key).is_ok_and(|key| {
            key.verify_strict(message, &Signature::from_bytes(signature))
                .is_ok()
        })
    }
}

impl FromStr for Vkey {
    type Err = VkeyError;

    fn from_str(text: &str) -> Result<Self, VkeyError> {
        // Base64 may hold a plus sign; the name and the id may not.
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(VkeyError::Shape);
        };
        let hex = id.len() == 8 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !hex {
            return Err(VkeyError::IdFormat);
        }
        let id = u32::from_str_radix(id, 16).map_err(|_| VkeyError::IdFormat)?;
        let typed = base64(key).ok_or(VkeyError::KeyFormat)?;
        let (alg, key) = typed.split_first().ok_or(VkeyError::KeyFormat)?;
        if !matches!(*alg, ALG_ED25519 | ALG_COSIGNATURE) {
            return Err(VkeyError::Algorithm(*alg));
        }
        let key = key.try_into().map_err(|_| VkeyError::KeyFormat)?;
        let vkey = Self::new(name, *alg, key)?;
        if vkey.key_id != id {
            return Err(VkeyError::IdMismatch);
        }
        Ok(vkey)
    }
}

impl fmt::Display for Vkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut typed = vec![self.alg];
        typed.extend_from_slice(&self.key);
        write!(f, "{}+{:08x}+{}", self.name, self.key_id, to_base64(&typed))
    }
}

//= https://c2sp.org/signed-note#signatures
// The id is the first four bytes, big-endian, of SHA-256(name || newline || type || key).
fn note_key_id(name: &str, alg: u8, key: &[u8; 32]) -> u32 {
    let digest: [u8; 32] = Sha256::new()
        .chain_update(name)
        .chain_update([b'\n', alg])
        .chain_update(key)
        .finalize()
        .into();
    let [a, b, c, d, ..] = digest;
    u32::from_be_bytes([a, b, c, d])
}
