//! X-Wing (draft-connolly-cfrg-xwing-kem): ML-KEM-768 and X25519, either of which keeps the secret.
//!
//! ```text
//! public key  ML-KEM(1184) X25519(32)    ciphertext  ML-KEM(1088) X25519(32)
//! secret      SHA3-256(ML-KEM secret, X25519 secret, X25519 ciphertext, X25519 public key, label)
//! ```
//! The routers' build has the portable arithmetic alone. With the feature `aws-lc` a server decapsulates
//! four times as fast (decision 0019); both give the same bytes.

#[cfg(feature = "aws-lc")]
mod aws_lc;
#[cfg(any(test, not(feature = "aws-lc")))]
mod portable;

use fips203::ml_kem_768::{self, EncapsKey};
use fips203::traits::{Encaps as _, KeyGen as _, SerDes as _};
use rand_core::{CryptoRng, RngCore};
use sha3::digest::{ExtendableOutput as _, Update as _, XofReader as _};
use sha3::{Digest as _, Sha3_256, Shake256};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

#[cfg(feature = "aws-lc")]
use aws_lc::Halves;
#[cfg(not(feature = "aws-lc"))]
use portable::Halves;

/// Bytes of a public key.
pub const PUBLIC: usize = LATTICE_PUBLIC + POINT;
/// Bytes of a ciphertext.
pub const CIPHERTEXT: usize = LATTICE_CIPHERTEXT + POINT;
/// Bytes of the seed that is all there is to keep of a secret key.
pub const SEED: usize = 32;
/// Bytes of randomness in one encapsulation.
const ENCAPSULATION_SEED: usize = 64;
const LATTICE_PUBLIC: usize = ml_kem_768::EK_LEN;
const LATTICE_CIPHERTEXT: usize = ml_kem_768::CT_LEN;
const POINT: usize = 32;
const LABEL: [u8; 6] = *br"\.//^\";

/// A secret that both sides have.
pub type KemSecret = Zeroizing<[u8; 32]>;

/// The bytes are not an X-Wing public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are not an X-Wing public key")]
pub struct BadPublicKey;

/// A resolver's secret key. Erased when dropped.
pub struct XWingSecret {
    seed: Zeroizing<[u8; SEED]>,
    public: Box<[u8; PUBLIC]>,
    halves: Halves,
}

impl XWingSecret {
    /// Makes a key that owes nothing to any other one.
    pub fn generate(mut rng: impl RngCore + CryptoRng) -> Self {
        let mut seed = Zeroizing::new([0; SEED]);
        rng.fill_bytes(seed.as_mut());
        Self::from_seed(seed)
    }

    /// The key of a seed.
    #[must_use]
    pub fn from_seed(seed: Zeroizing<[u8; SEED]>) -> Self {
        let mut stream = Shake256::default().chain(seed.as_slice()).finalize_xof();
        let mut part = || {
            let mut part = Zeroizing::new([0; 32]);
            stream.read(part.as_mut());
            part
        };
        let (d, z) = (part(), part());
        let curve = StaticSecret::from(*part());
        let (lattice_public, lattice) = ml_kem_768::KG::keygen_from_seed(*d, *z);
        let point = PublicKey::from(&curve);
        Self {
            seed,
            public: Box::new(join(&lattice_public.into_bytes(), point.as_bytes())),
            halves: Halves::new(lattice, curve),
        }
    }

    /// What clients encapsulate to.
    #[must_use]
    pub fn public(&self) -> &[u8; PUBLIC] {
        &self.public
    }

    /// The seed, for a file that only the resolver may read.
    #[must_use]
    pub fn seed(&self) -> &[u8; SEED] {
        &self.seed
    }

    /// The secret of a ciphertext; of a foreign or garbled one a secret that nobody else has. `None` is a
    /// failure of this machine.
    #[must_use]
    pub fn decapsulate(&self, ciphertext: &[u8; CIPHERTEXT]) -> Option<KemSecret> {
        let (lattice_ct, point_ct) = split::<LATTICE_CIPHERTEXT>(ciphertext)?;
        let (_, point) = split::<LATTICE_PUBLIC>(self.public.as_slice())?;
        let (lattice, curve) = self.halves.secrets(lattice_ct, point_ct)?;
        Some(combine(&lattice, &curve, point_ct, point))
    }
}

impl std::fmt::Debug for XWingSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("XWingSecret(…)")
    }
}

/// A fresh secret and the ciphertext that carries it to the key's owner.
pub fn encapsulate(
    public: &[u8],
    mut rng: impl RngCore + CryptoRng,
) -> Result<(KemSecret, [u8; CIPHERTEXT]), BadPublicKey> {
    let mut seed = Zeroizing::new([0; ENCAPSULATION_SEED]);
    rng.fill_bytes(seed.as_mut());
    encapsulate_from(public, &seed)
}

/// What [`encapsulate`] does with given randomness.
pub(super) fn encapsulate_from(
    public: &[u8],
    seed: &[u8; ENCAPSULATION_SEED],
) -> Result<(KemSecret, [u8; CIPHERTEXT]), BadPublicKey> {
    let (lattice_public, point) = split::<LATTICE_PUBLIC>(public).ok_or(BadPublicKey)?;
    // The check of the ML-KEM key that encapsulation demands (draft, "Key Encapsulation") is in here.
    let lattice_public = EncapsKey::try_from_bytes(*lattice_public).map_err(|_| BadPublicKey)?;
    let (lattice_seed, curve_seed) = seed.split_at(POINT);
    let lattice_seed = lattice_seed.try_into().map_err(|_| BadPublicKey)?;
    let mut curve_secret = Zeroizing::new([0; POINT]);
    curve_secret.copy_from_slice(curve_seed);
    let curve_secret = StaticSecret::from(*curve_secret);
    let (lattice, lattice_ct) = lattice_public.encaps_from_seed(lattice_seed);
    let lattice = Zeroizing::new(lattice.into_bytes());
    let point_ct = PublicKey::from(&curve_secret).to_bytes();
    // No refusal of an all-zero point: the draft wants X-Wing as it is, and the hash covers it.
    let curve = curve_secret.diffie_hellman(&PublicKey::from(*point));
    let secret = combine(&lattice, curve.as_bytes(), &point_ct, point);
    Ok((secret, join(&lattice_ct.into_bytes(), &point_ct)))
}

fn combine(
    lattice: &[u8; 32],
    curve: &[u8; POINT],
    point_ct: &[u8; POINT],
    point: &[u8; POINT],
) -> KemSecret {
    let hash = Sha3_256::new()
        .chain_update(lattice)
        .chain_update(curve)
        .chain_update(point_ct)
        .chain_update(point)
        .chain_update(LABEL);
    Zeroizing::new(hash.finalize().into())
}

fn join<const N: usize>(lattice: &[u8], point: &[u8; POINT]) -> [u8; N] {
    let mut whole = [0; N];
    let (first, second) = whole.split_at_mut(N - POINT);
    first.copy_from_slice(lattice);
    second.copy_from_slice(point);
    whole
}

fn split<const LATTICE: usize>(whole: &[u8]) -> Option<(&[u8; LATTICE], &[u8; POINT])> {
    let (lattice, point) = whole.split_first_chunk()?;
    Some((lattice, point.try_into().ok()?))
}

#[cfg(test)]
mod tests;
