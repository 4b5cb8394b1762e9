//! Names of keys: the SHA-256 of an Ed25519 public key is the id of a device or a gateway.

use std::fmt;

use sha2::{Digest, Sha256};

/// The id of an Ed25519 key, shown as hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 32]);

impl KeyId {
    /// Names an Ed25519 public key.
    pub fn of(ed25519_pub: &[u8; 32]) -> Self {
        Self(key_id(ed25519_pub))
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for KeyId {
    fn from(id: [u8; 32]) -> Self {
        Self(id)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// SHA-256 of an Ed25519 public key: `devid_hash` of a device, id of a gateway.
pub fn key_id(ed25519_pub: &[u8; 32]) -> [u8; 32] {
    Sha256::digest(ed25519_pub).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_named_by_its_sha256_in_hexadecimal() {
        let id = KeyId::of(&[0; 32]);

        assert_eq!(
            id.to_string(),
            "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925"
        );
    }
}
