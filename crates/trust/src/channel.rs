//! Proof that the holder of an Ed25519 key sits at the other end of a TLS connection.
//!
//! Both ends export 32 bytes from the connection (RFC 9266's idea, label `EXPORTER_LABEL`, empty
//! context); a signature over them with the signer's role is worth nothing on any other connection.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use crate::keys::key_id;
use crate::lines::{base64, to_base64};

/// The label under which both ends export their 32 bytes.
pub const EXPORTER_LABEL: &str = "EXPORTER-Culvert-v1";
const DOMAIN: &[u8] = b"Culvert channel v1\0";
const SCHEME: &str = "Culvert-Key ";

/// Why a channel proof is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    #[error("not of the form Culvert-Key and base64 of a key and a signature")]
    Shape,
    #[error("the public key is not a key of Ed25519")]
    Key,
    #[error("the signature is not of this key, this role and this connection")]
    Signature,
}

/// Signs a connection in a role, such as `gateway`.
pub fn sign_channel(key: &SigningKey, role: &str, exporter: &[u8; 32]) -> [u8; 64] {
    key.sign(&channel_message(role, exporter)).to_bytes()
}

/// Checks that the key signed this connection in this role.
pub fn verify_channel(
    public: &[u8; 32],
    role: &str,
    exporter: &[u8; 32],
    signature: &[u8; 64],
) -> Result<(), ChannelError> {
    let key = VerifyingKey::from_bytes(public).map_err(|_| ChannelError::Key)?;
    key.verify_strict(
        &channel_message(role, exporter),
        &Signature::from_bytes(signature),
    )
    .map_err(|_| ChannelError::Signature)
}

/// The value of the `Authorization` header that carries a signed channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelProof {
    pub public: [u8; 32],
    pub signature: [u8; 64],
}

impl ChannelProof {
    pub fn sign(key: &SigningKey, role: &str, exporter: &[u8; 32]) -> Self {
        Self {
            public: key.verifying_key().to_bytes(),
            signature: sign_channel(key, role, exporter),
        }
    }

    /// Checks the signature and returns the id of the key that made it.
    pub fn verify(&self, role: &str, exporter: &[u8; 32]) -> Result<[u8; 32], ChannelError> {
        verify_channel(&self.public, role, exporter, &self.signature)?;
        Ok(key_id(&self.public))
    }
}

impl fmt::Display for ChannelProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [self.public.as_slice(), &self.signature].concat();
        write!(f, "{SCHEME}{}", to_base64(&bytes))
    }
}

impl FromStr for ChannelProof {
    type Err = ChannelError;

    fn from_str(header: &str) -> Result<Self, ChannelError> {
        let bytes = header
            .strip_prefix(SCHEME)
            .and_then(base64)
            .ok_or(ChannelError::Shape)?;
        let (public, signature) = bytes.split_first_chunk::<32>().ok_or(ChannelError::Shape)?;
        let signature = signature.try_into().map_err(|_| ChannelError::Shape)?;
        Ok(Self {
            public: *public,
            signature,
        })
    }
}

/// The exporter has a fixed length and stands last, so that no two roles share a message.
fn channel_message(role: &str, exporter: &[u8; 32]) -> Vec<u8> {
    [DOMAIN, role.as_bytes(), &[0], exporter].concat()
}
