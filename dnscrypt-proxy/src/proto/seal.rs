//! Box-XChaChaPoly: X25519, HChaCha20, and XChaCha20-Poly1305 in the layout of NaCl's secretbox
//! (the first 32 bytes of the key stream are the Poly1305 key, the tag covers the ciphertext alone).
//! This is not the AEAD of RFC 8439. Appendix "The Box-XChaChaPoly Algorithm" of the draft. With the
//! feature `xsalsa` the same box over Salsa20, which is NaCl's own, for the clients of es 1.

use chacha20::cipher::{Iv, KeyIvInit, StreamCipher, consts::U10, consts::U24, consts::U32};
use chacha20::{XChaCha20, hchacha};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use x25519_dalek::{PublicKey, SharedSecret, StaticSecret};
use zeroize::Zeroizing;

#[cfg(target_pointer_width = "64")]
mod tag;

/// Bytes of authentication before a ciphertext.
pub const TAG: usize = 16;
/// Bytes of the whole nonce.
pub const NONCE: usize = 24;
/// Bytes at the start of the key stream that are the authenticator's key.
const MAC_KEY: usize = 32;
/// Bytes of each side's half of the nonce.
pub const HALF_NONCE: usize = 12;

/// What client and resolver share under one certificate and one client key. Erased when dropped.
#[derive(Clone)]
pub struct SharedKey {
    key: Zeroizing<[u8; 32]>,
    cipher: Cipher,
}

/// The key stream of a box.
#[derive(Clone, Copy)]
enum Cipher {
    XChaCha20,
    #[cfg(feature = "xsalsa")]
    XSalsa20,
}

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
    // MUST, "The Box-XChaChaPoly Algorithm".
    pub fn agree(secret: &StaticSecret, public: &[u8; 32]) -> Result<Self, WeakKey> {
        Self::of_point(contributed(secret, public)?.as_bytes())
    }

    /// The key that follows from a shared point.
    pub(super) fn of_point(point: &[u8; 32]) -> Result<Self, WeakKey> {
        if bool::from(point.ct_eq(&[0; 32])) {
            return Err(WeakKey);
        }
        Ok(Self::from_bytes(Zeroizing::new(hchacha20(point, &[0; 16]))))
    }

    /// The same for es 1.
    #[cfg(feature = "xsalsa")]
    pub(super) fn agree_xsalsa(secret: &StaticSecret, public: &[u8; 32]) -> Result<Self, WeakKey> {
        let point = contributed(secret, public)?;
        let key = salsa20::hsalsa::<U10>(point.as_bytes().into(), &Default::default());
        Ok(Self {
            key: Zeroizing::new(key.into()),
            cipher: Cipher::XSalsa20,
        })
    }

    pub(super) fn from_bytes(key: Zeroizing<[u8; 32]>) -> Self {
        Self {
            key,
            cipher: Cipher::XChaCha20,
        }
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.key
    }

    /// Encrypts in place and returns the tag.
    #[must_use]
    pub fn seal(&self, nonce: &[u8; NONCE], message: &mut [u8]) -> [u8; TAG] {
        match self.cipher {
            Cipher::XChaCha20 => seal::<XChaCha20>(&self.key, nonce, message),
            #[cfg(feature = "xsalsa")]
            Cipher::XSalsa20 => seal::<salsa20::XSalsa20>(&self.key, nonce, message),
        }
    }

    /// Checks the tag, then decrypts in place. The ciphertext is untouched when the tag is wrong.
    pub fn open(
        &self,
        nonce: &[u8; NONCE],
        tag: &[u8; TAG],
        ciphertext: &mut [u8],
    ) -> Result<(), BadTag> {
        match self.cipher {
            Cipher::XChaCha20 => open::<XChaCha20>(&self.key, nonce, tag, ciphertext),
            #[cfg(feature = "xsalsa")]
            Cipher::XSalsa20 => open::<salsa20::XSalsa20>(&self.key, nonce, tag, ciphertext),
        }
    }

    /// One byte that depends on this key and the client's nonce alone: the same query always meets the
    /// same padding, so that repeating it teaches an observer nothing.
    #[must_use]
    pub fn padding_choice(&self, client_nonce: &[u8; HALF_NONCE]) -> u8 {
        let digest = Sha256::new()
            .chain_update(b"padding")
            .chain_update(self.key.as_slice())
            .chain_update(client_nonce)
            .finalize();
        digest[0]
    }
}

fn seal<C: Stream>(key: &[u8; 32], nonce: &[u8; NONCE], message: &mut [u8]) -> [u8; TAG] {
    let (mut stream, mac_key) = Keystream::<C>::start(key, nonce);
    stream.apply(message);
    tag_of(&mac_key, message)
}

// MUST NOT, "Cryptographic Implementation": plaintext before its tag; MUST there: compared in constant time.
fn open<C: Stream>(
    key: &[u8; 32],
    nonce: &[u8; NONCE],
    tag: &[u8; TAG],
    ciphertext: &mut [u8],
) -> Result<(), BadTag> {
    let (mut stream, mac_key) = Keystream::<C>::start(key, nonce);
    let expected = tag_of(&mac_key, ciphertext);
    if !bool::from(expected.ct_eq(tag)) {
        return Err(BadTag);
    }
    stream.apply(ciphertext);
    Ok(())
}

/// A key stream with the sizes of NaCl's box.
trait Stream: KeyIvInit<KeySize = U32, IvSize = U24> + StreamCipher {}
impl<C: KeyIvInit<KeySize = U32, IvSize = U24> + StreamCipher> Stream for C {}

/// Bytes of key stream made at a time. Wide vectors make four blocks in the time of one, and most packets
/// are no longer than that.
const RUN: usize = if cfg!(target_arch = "x86_64") {
    256
} else {
    64
};

/// The key stream of one box, behind the authenticator's key.
struct Keystream<C> {
    cipher: C,
    run: [u8; RUN],
}

impl<C: Stream> Keystream<C> {
    fn start(key: &[u8; 32], nonce: &[u8; NONCE]) -> (Self, Zeroizing<[u8; MAC_KEY]>) {
        let nonce: &Iv<C> = nonce.into();
        let mut cipher = C::new(key.into(), nonce);
        let mut run = [0_u8; RUN];
        cipher.apply_keystream(&mut run);
        let mut mac_key = Zeroizing::new([0; MAC_KEY]);
        for (to, byte) in mac_key.iter_mut().zip(&mut run) {
            *to = std::mem::take(byte);
        }
        (Self { cipher, run }, mac_key)
    }

    fn apply(&mut self, message: &mut [u8]) {
        let (_, rest_of_run) = self.run.split_at(MAC_KEY);
        let (first, rest) = message.split_at_mut(message.len().min(rest_of_run.len()));
        xor(first, rest_of_run);
        for part in rest.chunks_mut(RUN) {
            self.run.fill(0);
            self.cipher.apply_keystream(&mut self.run);
            xor(part, &self.run);
        }
    }
}

#[cfg(target_pointer_width = "64")]
use tag::tag as tag_of;

/// Routers' processors have no products of 64-bit numbers.
#[cfg(not(target_pointer_width = "64"))]
fn tag_of(key: &[u8; MAC_KEY], message: &[u8]) -> [u8; TAG] {
    use poly1305::universal_hash::KeyInit as _;
    poly1305::Poly1305::new(key.into())
        .compute_unpadded(message)
        .into()
}

fn xor(message: &mut [u8], stream: &[u8]) {
    for (byte, key) in message.iter_mut().zip(stream) {
        *byte ^= key;
    }
}

fn contributed(secret: &StaticSecret, public: &[u8; 32]) -> Result<SharedSecret, WeakKey> {
    let point = secret.diffie_hellman(&PublicKey::from(*public));
    point.was_contributory().then_some(point).ok_or(WeakKey)
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
