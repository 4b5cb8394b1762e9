//! ML-KEM-768 (FIPS 203) keys of gateways, and the short-lived statement by which a gateway names one.
//!
//! The gateway's Ed25519 key, which the authority log vouches for, signs the statement; provisioning
//! only carries it. A key that changes daily needs no approval by people this way.

use std::fmt;

use ed25519_dalek::SigningKey;
use fips203::ml_kem_768::{self, CipherText, DecapsKey, EncapsKey};
use fips203::traits::{Decaps, Encaps, KeyGen, SerDes};
use rand_core::{CryptoRng, CryptoRngCore, RngCore};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::cbor::{DecodeError, Object, Reader, VERSION, Writer};
use crate::keys::{KeyId, key_id};
use crate::signed::Signed;
use crate::verified::Verified;
use crate::verify::{Lifetime, lifetime};

/// An encapsulation key.
pub const KEM_PUB_BYTES: usize = ml_kem_768::EK_LEN;
/// A ciphertext.
pub const CIPHERTEXT_BYTES: usize = ml_kem_768::CT_LEN;
/// The seed of a key pair: `d` and `z` of FIPS 203.
pub const KEM_SEED_BYTES: usize = 64;
const STATEMENT_DOMAIN: &[u8] = b"Culvert kem v1 statement\0";
/// A key that lives longer seals too many recordings at once.
const MAX_LIFE_S: u64 = 31 * 86_400;

/// Why a statement about a gateway's ML-KEM key is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KemError {
    #[error("the statement cannot be read: {0}")]
    Malformed(#[from] DecodeError),
    #[error("the statement is of gateway {0}, not of the one that was asked for")]
    OtherGateway(KeyId),
    #[error("the gateway's signature does not verify")]
    Signature,
    #[error("the statement ended at {not_after}, it is {now} at the earliest")]
    Expired { not_after: u64, now: u64 },
    #[error("the statement begins at {not_before}, it is {now}")]
    NotYet { not_before: u64, now: u64 },
    #[error("the statement claims to hold for longer than {MAX_LIFE_S} seconds")]
    TooLong,
    #[error("the bytes are not an ML-KEM-768 encapsulation key")]
    Key,
}

/// A gateway's key pair. The seed is all there is to keep.
pub struct KemKey {
    seed: Zeroizing<[u8; KEM_SEED_BYTES]>,
    public: [u8; KEM_PUB_BYTES],
    secret: DecapsKey,
}

impl KemKey {
    pub fn generate<R: RngCore + CryptoRng>(rng: &mut R) -> Self {
        let mut seed = Zeroizing::new([0; KEM_SEED_BYTES]);
        rng.fill_bytes(seed.as_mut());
        Self::from_seed(seed)
    }

    pub fn from_seed(seed: Zeroizing<[u8; KEM_SEED_BYTES]>) -> Self {
        let (mut d, mut z) = (Zeroizing::new([0; 32]), Zeroizing::new([0; 32]));
        let (first, second) = seed.split_at(32);
        d.copy_from_slice(first);
        z.copy_from_slice(second);
        let (public, secret) = ml_kem_768::KG::keygen_from_seed(*d, *z);
        Self {
            seed,
            public: public.into_bytes(),
            secret,
        }
    }

    pub fn seed(&self) -> &[u8; KEM_SEED_BYTES] {
        &self.seed
    }

    pub fn public(&self) -> &[u8; KEM_PUB_BYTES] {
        &self.public
    }

    /// The name by which offers point at this key.
    pub fn id(&self) -> [u8; 32] {
        kem_id(&self.public)
    }

    /// The secret of a ciphertext; of a foreign or garbled one a secret that nobody else has (implicit rejection).
    pub fn decapsulate(
        &self,
        ciphertext: &[u8; CIPHERTEXT_BYTES],
    ) -> Result<Zeroizing<[u8; 32]>, KemError> {
        let ciphertext = CipherText::try_from_bytes(*ciphertext).map_err(|_| KemError::Key)?;
        let shared = self.secret.try_decaps(&ciphertext);
        let shared = shared.map_err(|_| KemError::Key)?;
        Ok(Zeroizing::new(shared.into_bytes()))
    }
}

impl fmt::Debug for KemKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KemKey({})", KeyId::from(self.id()))
    }
}

/// SHA-256 of an encapsulation key.
pub(crate) fn kem_id(public: &[u8; KEM_PUB_BYTES]) -> [u8; 32] {
    Sha256::digest(public).into()
}

/// A fresh secret and its ciphertext.
pub fn encapsulate(
    public: &[u8; KEM_PUB_BYTES],
    rng: &mut impl CryptoRngCore,
) -> Result<(Zeroizing<[u8; 32]>, [u8; CIPHERTEXT_BYTES]), KemError> {
    let key = EncapsKey::try_from_bytes(*public).map_err(|_| KemError::Key)?;
    let (shared, ciphertext) = key.try_encaps_with_rng(rng).map_err(|_| KemError::Key)?;
    Ok((Zeroizing::new(shared.into_bytes()), ciphertext.into_bytes()))
}

/// With which key a gateway takes offers of pre-shared keys, for a few days.
#[derive(Clone, PartialEq, Eq)]
pub struct KemStatement {
    pub v: u8,
    /// The gateway's Ed25519 key, which signs this.
    pub gateway_pub: [u8; 32],
    pub kem_pub: [u8; KEM_PUB_BYTES],
    pub not_before: u64,
    pub not_after: u64,
}

impl KemStatement {
    /// States a gateway's key.
    pub fn sign(identity: &SigningKey, key: &KemKey, not_before: u64, not_after: u64) -> Signed {
        let statement = Self {
            v: VERSION,
            gateway_pub: identity.verifying_key().to_bytes(),
            kem_pub: key.public,
            not_before,
            not_after,
        };
        Signed::sign(identity, STATEMENT_DOMAIN, &statement)
    }

    /// Judges a statement that is said to be of the gateway with this id.
    pub fn verify(
        signed: &Signed,
        gateway: &[u8; 32],
        now: u64,
    ) -> Result<Verified<Self>, KemError> {
        let statement = signed.open(STATEMENT_DOMAIN, |statement: &Self| statement.gateway_pub)?;
        let statement = statement.ok_or(KemError::Signature)?;
        if statement.gateway() != *gateway {
            return Err(KemError::OtherGateway(KeyId::from(statement.gateway())));
        }
        let (not_before, not_after) = (statement.not_before, statement.not_after);
        if not_after.saturating_sub(not_before) > MAX_LIFE_S {
            return Err(KemError::TooLong);
        }
        match lifetime(not_before, not_after, now) {
            Lifetime::Current => Ok(Verified::vouch(statement)),
            Lifetime::Ended => Err(KemError::Expired { not_after, now }),
            Lifetime::Ahead => Err(KemError::NotYet { not_before, now }),
        }
    }

    /// The id of the gateway that signed.
    pub fn gateway(&self) -> [u8; 32] {
        key_id(&self.gateway_pub)
    }

    pub fn kem_id(&self) -> [u8; 32] {
        kem_id(&self.kem_pub)
    }
}

impl Object for KemStatement {
    const MAX_BYTES: usize = 1300;

    fn write(&self, w: &mut Writer) {
        w.open(5, self.v);
        w.bytes(1, &self.gateway_pub);
        w.bytes(2, &self.kem_pub);
        w.uint(3, self.not_before);
        w.uint(4, self.not_after);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            v: r.open(5)?,
            gateway_pub: r.array(1)?,
            kem_pub: r.array(2)?,
            not_before: r.uint(3)?,
            not_after: r.uint(4)?,
        })
    }
}

impl fmt::Debug for KemStatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = KeyId::from(self.kem_id());
        write!(f, "KemStatement({id} until {})", self.not_after)
    }
}
