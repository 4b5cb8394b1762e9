//! WireGuard pre-shared keys: a device offers one to a gateway of its lease by an ML-KEM-768 ciphertext.
//!
//! The key belongs to one tunnel key and one gateway for as long as that tunnel key lives; another one
//! comes with another tunnel key. The offer may be read by anybody who carries it: it is signed by the
//! device, and a confirmation in it shows the gateway whether both ends have derived the same key.

use std::fmt;

use ed25519_dalek::SigningKey;
use hkdf::Hkdf;
use rand_core::CryptoRngCore;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::cbor::{DecodeError, Object, Reader, VERSION, Writer};
use crate::kem::{self, CIPHERTEXT_BYTES, KemError, KemKey, KemStatement};
use crate::keys::key_id;
use crate::signed::Signed;
use crate::verified::Verified;

const OFFER_DOMAIN: &[u8] = b"Culvert psk v1 offer\0";
const PAIR_DOMAIN: &[u8] = b"Culvert psk v1 pair\0";
const SALT: &[u8] = b"Culvert psk v1";

/// Why an offer of a pre-shared key is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PskError {
    #[error("the offer cannot be read: {0}")]
    Malformed(#[from] DecodeError),
    #[error("the signature of the device does not verify")]
    DeviceSignature,
    #[error("the offer is of another device, for another tunnel key or another gateway")]
    OtherPair,
    #[error("the offer is for another ML-KEM key")]
    OtherKey,
    #[error("the ciphertext does not lead to the key that the device has")]
    Confirmation,
}

/// A pre-shared key of WireGuard. `Debug` does not show it.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Psk([u8; 32]);

impl Psk {
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for Psk {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Psk {}

impl fmt::Debug for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Psk(secret)")
    }
}

/// The two ends of a tunnel: ids by which trust knows them, and their WireGuard keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    pub devid_hash: [u8; 32],
    pub wg_pub: [u8; 32],
    pub gateway: [u8; 32],
    pub gateway_wg_pub: [u8; 32],
}

/// What an offering device keeps and sends.
#[derive(Debug, Clone)]
pub struct Agreed {
    pub psk: Psk,
    pub offer: Signed,
}

/// What a device sends to one gateway.
#[derive(Clone, PartialEq, Eq)]
pub struct PskOffer {
    pub v: u8,
    pub devid_pub: [u8; 32],
    pub wg_pub: [u8; 32],
    /// The gateway's id.
    pub gateway: [u8; 32],
    /// SHA-256 of the encapsulation key.
    pub kem: [u8; 32],
    pub ciphertext: [u8; CIPHERTEXT_BYTES],
    pub confirmation: [u8; 32],
}

impl PskOffer {
    /// Makes a pre-shared key for `pair`, whose device's key is `device`.
    pub fn make(
        device: &SigningKey,
        pair: &Pair,
        statement: &Verified<KemStatement>,
        rng: &mut impl CryptoRngCore,
    ) -> Result<Agreed, KemError> {
        let statement = statement.get();
        let (shared, ciphertext) = kem::encapsulate(&statement.kem_pub, rng)?;
        let kem = statement.kem_id();
        let (psk, confirmation) = derive(&shared, pair, &kem, &ciphertext);
        let offer = Self {
            v: VERSION,
            devid_pub: device.verifying_key().to_bytes(),
            wg_pub: pair.wg_pub,
            gateway: pair.gateway,
            kem,
            ciphertext,
            confirmation,
        };
        let offer = Signed::sign(device, OFFER_DOMAIN, &offer);
        Ok(Agreed { psk, offer })
    }

    /// Checks that the device which the offer names has signed it.
    pub fn verify(signed: &Signed) -> Result<Verified<Self>, PskError> {
        let offer = signed.open(OFFER_DOMAIN, |offer: &Self| offer.devid_pub)?;
        offer.map(Verified::vouch).ok_or(PskError::DeviceSignature)
    }

    /// The key that the gateway shares with the device from now on.
    pub fn accept(&self, pair: &Pair, key: &KemKey) -> Result<Psk, PskError> {
        let is_ours = self.devid_hash() == pair.devid_hash
            && self.wg_pub == pair.wg_pub
            && self.gateway == pair.gateway;
        if !is_ours {
            return Err(PskError::OtherPair);
        }
        if self.kem != key.id() {
            return Err(PskError::OtherKey);
        }
        let shared = key.decapsulate(&self.ciphertext);
        let shared = shared.map_err(|_| PskError::Confirmation)?;
        let (psk, confirmation) = derive(&shared, pair, &self.kem, &self.ciphertext);
        if bool::from(confirmation.ct_eq(&self.confirmation)) {
            Ok(psk)
        } else {
            Err(PskError::Confirmation)
        }
    }

    /// The id of the device that signed.
    pub fn devid_hash(&self) -> [u8; 32] {
        key_id(&self.devid_pub)
    }
}

impl Object for PskOffer {
    const MAX_BYTES: usize = 1400;

    fn write(&self, w: &mut Writer) {
        w.open(7, self.v);
        w.bytes(1, &self.devid_pub);
        w.bytes(2, &self.wg_pub);
        w.bytes(3, &self.gateway);
        w.bytes(4, &self.kem);
        w.bytes(5, &self.ciphertext);
        w.bytes(6, &self.confirmation);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            v: r.open(7)?,
            devid_pub: r.array(1)?,
            wg_pub: r.array(2)?,
            gateway: r.array(3)?,
            kem: r.array(4)?,
            ciphertext: r.array(5)?,
            confirmation: r.array(6)?,
        })
    }
}

impl fmt::Debug for PskOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PskOffer({})", crate::keys::KeyId::of(&self.devid_pub))
    }
}

/// Key and confirmation. Every input but the secret has a fixed length, and none can be exchanged for another.
fn derive(
    shared: &[u8; 32],
    pair: &Pair,
    kem: &[u8; 32],
    ciphertext: &[u8; CIPHERTEXT_BYTES],
) -> (Psk, [u8; 32]) {
    let context = Sha256::new()
        .chain_update(PAIR_DOMAIN)
        .chain_update(pair.devid_hash)
        .chain_update(pair.wg_pub)
        .chain_update(pair.gateway)
        .chain_update(pair.gateway_wg_pub)
        .chain_update(kem)
        .chain_update(ciphertext)
        .finalize();
    let mut out = Zeroizing::new([0; 64]);
    Hkdf::<Sha256>::new(Some(SALT), shared)
        .expand(&context, out.as_mut())
        .expect("64 bytes are within what HKDF-SHA256 can give");
    let (mut psk, mut confirmation) = ([0; 32], [0; 32]);
    let (first, second) = out.split_at(32);
    psk.copy_from_slice(first);
    confirmation.copy_from_slice(second);
    (Psk(psk), confirmation)
}
