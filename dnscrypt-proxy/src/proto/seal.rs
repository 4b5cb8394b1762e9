//! Box-XChaChaPoly: X25519, HChaCha20, and XChaCha20-Poly1305 in the layout of NaCl's secretbox
//! (the first 32 bytes of the key stream are the Poly1305 key, the tag covers the ciphertext alone).
//! This is not the AEAD of RFC 8439.

use chacha20::cipher::{KeyIvInit as _, StreamCipher as _, consts::U10};
use chacha20::{XChaCha20, hchacha};
use poly1305::Poly1305;
use poly1305::universal_hash::KeyInit as _;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// Bytes of authentication before a ciphertext.
pub const TAG: usize = 16;
/// Bytes of the whole nonce.
pub const NONCE: usize = 24;
/// Bytes of each side's half of the nonce.
pub const HALF_NONCE: usize = 12;

/// What client and resolver share under one certificate and one client key. Erased when dropped.
#[derive(Clone)]
pub struct SharedKey(Zeroizing<[u8; 32]>);

/// The other side's key is of low order: anyone could know the shared secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the public key is of low order")]
pub struct WeakKey;

/// The tag does not fit the ciphertext, the nonce and the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the authentication tag does not match")]
pub struct BadTag;

impl SharedKey {
    /// Agrees on the key; a public key that contributes nothing is refused before it is hashed.
    pub fn agree(secret: &StaticSecret, public: &[u8; 32]) -> Result<Self, WeakKey> {
        let point = secret.diffie_hellman(&PublicKey::from(*public));
        if !point.was_contributory() {
            return Err(WeakKey);
        }
        Ok(Self(Zeroizing::new(hchacha20(point.as_bytes(), &[0; 16]))))
    }

    pub(super) fn from_bytes(key: Zeroizing<[u8; 32]>) -> Self {
        Self(key)
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Encrypts in place and returns the tag.
    #[must_use]
    pub fn seal(&self, nonce: &[u8; NONCE], message: &mut [u8]) -> [u8; TAG] {
        let (mut stream, mac) = self.start(nonce);
        stream.apply_keystream(message);
        mac.compute_unpadded(message).into()
    }

    /// Checks the tag, then decrypts in place. The ciphertext is untouched when the tag is wrong.
    pub fn open(
        &self,
        nonce: &[u8; NONCE],
        tag: &[u8; TAG],
        ciphertext: &mut [u8],
    ) -> Result<(), BadTag> {
        let (mut stream, mac) = self.start(nonce);
        let expected: [u8; TAG] = mac.compute_unpadded(ciphertext).into();
        if !bool::from(expected.ct_eq(tag)) {
            return Err(BadTag);
        }
        stream.apply_keystream(ciphertext);
        Ok(())
    }

    /// One byte that depends on this key and the client's nonce alone: the same query always meets the
    /// same padding, so that repeating it teaches an observer nothing.
    #[must_use]
    pub fn padding_choice(&self, client_nonce: &[u8; HALF_NONCE]) -> u8 {
        let digest = Sha256::new()
            .chain_update(b"padding")
            .chain_update(self.0.as_slice())
            .chain_update(client_nonce)
            .finalize();
        digest[0]
    }

    fn start(&self, nonce: &[u8; NONCE]) -> (XChaCha20, Poly1305) {
        let mut stream = XChaCha20::new(self.0.as_slice().into(), nonce.into());
        let mut mac_key = Zeroizing::new([0_u8; 32]);
        stream.apply_keystream(mac_key.as_mut_slice());
        let mac = Poly1305::new(mac_key.as_slice().into());
        (stream, mac)
    }
}

impl std::fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SharedKey(…)")
    }
}

/// The nonce of a query (the second half zero) or of a response.
#[must_use]
pub fn nonce(client: &[u8; HALF_NONCE], resolver: &[u8; HALF_NONCE]) -> [u8; NONCE] {
    let mut whole = [0; NONCE];
    let (first, second) = whole.split_at_mut(HALF_NONCE);
    first.copy_from_slice(client);
    second.copy_from_slice(resolver);
    whole
}

fn hchacha20(key: &[u8; 32], input: &[u8; 16]) -> [u8; 32] {
    hchacha::<U10>(key.into(), input.into()).into()
}

#[cfg(test)]
mod tests;
