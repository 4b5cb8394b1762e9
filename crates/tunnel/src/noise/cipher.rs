//! ChaCha20-Poly1305: one key for a session's direction, by the fastest that the processor has; and the handshake's, by ring.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use crate::dropped::Dropped;

#[cfg(target_arch = "x86_64")]
use super::wide;

/// Bytes of a tag.
pub(super) const TAG_BYTES: usize = 16;

/// The key of one direction of a session: ChaCha20-Poly1305 (RFC 8439) without additional data, by the fastest that this
/// processor has.
pub struct SessionKey(Kind);

enum Kind {
    #[cfg(target_arch = "x86_64")]
    Wide(wide::Key),
    /// Its size is that of a key of AES, which is none of ours.
    Ring(Box<LessSafeKey>),
}

impl SessionKey {
    /// # Errors
    /// None that a key of 32 bytes can bring about.
    pub fn new(bytes: &[u8; 32]) -> Result<Self, Dropped> {
        #[cfg(target_arch = "x86_64")]
        if let Some(key) = wide::Key::new(bytes) {
            return Ok(Self(Kind::Wide(key)));
        }
        let key = ring_key(bytes).ok_or(Dropped::Unexpected)?;
        Ok(Self(Kind::Ring(Box::new(key))))
    }

    /// Encrypts `data` where it is and returns its tag. The counter is the nonce: never the same twice.
    ///
    /// # Errors
    /// [`Dropped::TooBig`] from 256 GB on.
    pub fn seal(&self, counter: u64, data: &mut [u8]) -> Result<[u8; TAG_BYTES], Dropped> {
        match &self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Wide(key) => Ok(key.seal(counter, data)),
            Kind::Ring(key) => seal_with(key, nonce(counter), &[], data),
        }
    }

    /// Decrypts `data`, which ends with its tag, where it is, and returns it without.
    ///
    /// # Errors
    /// [`Dropped::Forged`], [`Dropped::Malformed`] when it is shorter than a tag.
    pub fn open<'d>(&self, counter: u64, data: &'d mut [u8]) -> Result<&'d mut [u8], Dropped> {
        match &self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Wide(key) => {
                let (data, tag) = data.split_last_chunk_mut().ok_or(Dropped::Malformed)?;
                let is_right = key.open(counter, data, tag);
                is_right.then_some(data).ok_or(Dropped::Forged)
            }
            Kind::Ring(key) => key
                .open_in_place(nonce(counter), Aad::empty(), data)
                .map_err(|_| Dropped::Forged),
        }
    }
}

/// Encrypts `data` where it is with a key that is used once, and returns its tag.
pub(super) fn seal_once(
    key: &[u8; 32],
    aad: &[u8],
    data: &mut [u8],
) -> Result<[u8; TAG_BYTES], Dropped> {
    let key = ring_key(key).ok_or(Dropped::Unexpected)?;
    seal_with(&key, nonce(0), aad, data)
}

/// Decrypts `data`, which ends with its tag, where it is, with a key that is used once.
pub(super) fn open_once(key: &[u8; 32], aad: &[u8], data: &mut [u8]) -> Result<(), Dropped> {
    open_with_nonce(key, [0; 12], aad, data)
}

/// The same with a nonce.
pub(super) fn open_with_nonce(
    key: &[u8; 32],
    nonce: [u8; 12],
    aad: &[u8],
    data: &mut [u8],
) -> Result<(), Dropped> {
    let key = ring_key(key).ok_or(Dropped::Unexpected)?;
    let nonce = Nonce::assume_unique_for_key(nonce);
    let opened = key.open_in_place(nonce, Aad::from(aad), data);
    opened.map(|_| ()).map_err(|_| Dropped::Forged)
}

/// The same, encrypting.
pub(super) fn seal_with_nonce(
    key: &[u8; 32],
    nonce: [u8; 12],
    aad: &[u8],
    data: &mut [u8],
) -> Result<[u8; TAG_BYTES], Dropped> {
    let key = ring_key(key).ok_or(Dropped::Unexpected)?;
    seal_with(&key, Nonce::assume_unique_for_key(nonce), aad, data)
}

fn seal_with(
    key: &LessSafeKey,
    nonce: Nonce,
    aad: &[u8],
    data: &mut [u8],
) -> Result<[u8; TAG_BYTES], Dropped> {
    let tag = key.seal_in_place_separate_tag(nonce, Aad::from(aad), data);
    // Only a packet of 256 GB is refused.
    let tag = tag.map_err(|_| Dropped::TooBig)?;
    tag.as_ref().try_into().map_err(|_| Dropped::TooBig)
}

fn ring_key(bytes: &[u8; 32]) -> Option<LessSafeKey> {
    let key = UnboundKey::new(&CHACHA20_POLY1305, bytes);
    key.ok().map(LessSafeKey::new)
}

/// WireGuard's nonce: 32 zero bits and the counter.
fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}
