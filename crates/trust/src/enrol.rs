//! Enrolment, as both ends compute it: a challenge, then a request that proves possession of every
//! key it names and belongs to one TLS connection alone.
//!
//! The transcript binds exporter, challenge and all public keys. The DevID signs it, the claim key
//! signs it, and the X25519 key proves itself by an HMAC under the shared secret with the server's
//! ephemeral key.

use std::fmt;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use x25519_dalek::{PublicKey, SharedSecret, StaticSecret};

use crate::cbor::{self, DecodeError, Object, Reader, VERSION, Writer};
use crate::claim::ClaimCode;
use crate::verified::Verified;

const TRANSCRIPT_DOMAIN: &[u8] = b"Culvert enrolment v1 transcript\0";
const DEVID_DOMAIN: &[u8] = b"Culvert enrolment v1 device\0";
const CLAIM_DOMAIN: &[u8] = b"Culvert enrolment v1 claim\0";
const TUNNEL_DOMAIN: &[u8] = b"Culvert enrolment v1 tunnel\0";
const AUTH_KNOWN: u64 = 0;
const AUTH_CLAIM: u64 = 1;

/// Why an enrolment request proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnrolError {
    #[error("the request does not answer this challenge")]
    Nonce,
    #[error("the signature of the device does not verify")]
    DeviceSignature,
    #[error("the signature of the claim code's key does not verify")]
    ClaimSignature,
    #[error("an X25519 key of low order: the shared secret would be known to all")]
    LowOrderKey,
    #[error("possession of the tunnel key is not proven")]
    TunnelKey,
}

/// What the server asks, once for each connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerChallenge {
    pub v: u8,
    pub eph_pub: [u8; 32],
    pub nonce: [u8; 32],
}

impl ServerChallenge {
    /// Makes the challenge for an ephemeral key and a random nonce.
    pub fn new(eph: &StaticSecret, nonce: [u8; 32]) -> Self {
        Self {
            v: VERSION,
            eph_pub: PublicKey::from(eph).to_bytes(),
            nonce,
        }
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        cbor::decode(bytes)
    }
}

impl Object for ServerChallenge {
    const MAX_BYTES: usize = 128;

    fn write(&self, w: &mut Writer) {
        w.open(3, self.v);
        w.bytes(1, &self.eph_pub);
        w.bytes(2, &self.nonce);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            v: r.open(3)?,
            eph_pub: r.array(1)?,
            nonce: r.array(2)?,
        })
    }
}

/// By what right a device asks. The number of a factory manifest is reserved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// The server knows the device already: renewal, or a factory reset.
    Known,
    /// The device holds a claim code.
    Claim { claim_pub: [u8; 32], sig: [u8; 64] },
}

/// A device's request for a lease.
#[derive(Clone, PartialEq, Eq)]
pub struct EnrolReq {
    pub v: u8,
    pub devid_pub: [u8; 32],
    pub wg_pub: [u8; 32],
    /// The server's nonce, echoed.
    pub nonce: [u8; 32],
    /// Size of the fleet checkpoint that the device remembers; 0 for none.
    pub fleet_size: u64,
    pub auth: Auth,
    pub devid_sig: [u8; 64],
    pub wg_mac: [u8; 32],
}

/// What a request that passed `EnrolReq::check` has proven, and what it asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolFacts {
    pub devid_pub: [u8; 32],
    pub wg_pub: [u8; 32],
    /// The claim key whose possession is proven; none for a device that calls itself known.
    pub claim_pub: Option<[u8; 32]>,
    /// From which tree size the device wants consistency shown; 0 for none.
    pub fleet_size: u64,
}

impl EnrolReq {
    /// Answers a challenge on the connection that gave these exporter bytes.
    pub fn build(
        device: &SigningKey,
        wg: &StaticSecret,
        claim: Option<&ClaimCode>,
        challenge: &ServerChallenge,
        exporter: &[u8; 32],
        fleet_size: u64,
    ) -> Result<Self, EnrolError> {
        let shared = contributory(wg.diffie_hellman(&PublicKey::from(challenge.eph_pub)))?;
        let claim_key = claim.map(ClaimCode::signing_key);
        let facts = EnrolFacts {
            devid_pub: device.verifying_key().to_bytes(),
            wg_pub: PublicKey::from(wg).to_bytes(),
            claim_pub: claim_key.as_ref().map(|key| key.verifying_key().to_bytes()),
            fleet_size,
        };
        let transcript = facts.transcript(challenge, exporter);
        let auth = match claim_key {
            Some(key) => Auth::Claim {
                claim_pub: key.verifying_key().to_bytes(),
                sig: key.sign(&in_domain(CLAIM_DOMAIN, &transcript)).to_bytes(),
            },
            None => Auth::Known,
        };
        Ok(Self {
            v: VERSION,
            devid_pub: facts.devid_pub,
            wg_pub: facts.wg_pub,
            nonce: challenge.nonce,
            fleet_size,
            auth,
            devid_sig: device
                .sign(&in_domain(DEVID_DOMAIN, &transcript))
                .to_bytes(),
            wg_mac: tunnel_mac(&shared, &transcript)
                .finalize()
                .into_bytes()
                .into(),
        })
    }

    /// Checks every proof of the request against the challenge of this very connection.
    pub fn check(
        &self,
        challenge: &ServerChallenge,
        eph: &StaticSecret,
        exporter: &[u8; 32],
    ) -> Result<Verified<EnrolFacts>, EnrolError> {
        if !bool::from(self.nonce.ct_eq(&challenge.nonce)) {
            return Err(EnrolError::Nonce);
        }
        let facts = EnrolFacts {
            devid_pub: self.devid_pub,
            wg_pub: self.wg_pub,
            claim_pub: match &self.auth {
                Auth::Known => None,
                Auth::Claim { claim_pub, .. } => Some(*claim_pub),
            },
            fleet_size: self.fleet_size,
        };
        let transcript = facts.transcript(challenge, exporter);
        if !signed(&self.devid_pub, DEVID_DOMAIN, &transcript, &self.devid_sig) {
            return Err(EnrolError::DeviceSignature);
        }
        if let Auth::Claim { claim_pub, sig } = &self.auth
            && !signed(claim_pub, CLAIM_DOMAIN, &transcript, sig)
        {
            return Err(EnrolError::ClaimSignature);
        }
        let shared = contributory(eph.diffie_hellman(&PublicKey::from(self.wg_pub)))?;
        tunnel_mac(&shared, &transcript)
            .verify_slice(&self.wg_mac)
            .map_err(|_| EnrolError::TunnelKey)?;
        Ok(Verified::vouch(facts))
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        cbor::decode(bytes)
    }
}

impl EnrolFacts {
    /// A digest over fields of fixed length, and so over nothing but these fields.
    fn transcript(&self, challenge: &ServerChallenge, exporter: &[u8; 32]) -> [u8; 32] {
        let (auth, claim_pub) = match &self.claim_pub {
            None => (AUTH_KNOWN, [0; 32]),
            Some(claim_pub) => (AUTH_CLAIM, *claim_pub),
        };
        Sha256::new()
            .chain_update(TRANSCRIPT_DOMAIN)
            .chain_update(exporter)
            .chain_update(challenge.eph_pub)
            .chain_update(challenge.nonce)
            .chain_update(self.devid_pub)
            .chain_update(self.wg_pub)
            .chain_update(self.fleet_size.to_be_bytes())
            .chain_update(auth.to_be_bytes())
            .chain_update(claim_pub)
            .finalize()
            .into()
    }
}

impl Object for EnrolReq {
    const MAX_BYTES: usize = 1024;

    fn write(&self, w: &mut Writer) {
        w.open(8, self.v);
        w.bytes(1, &self.devid_pub);
        w.bytes(2, &self.wg_pub);
        w.bytes(3, &self.nonce);
        w.uint(4, self.fleet_size);
        w.nested(5, |w| match &self.auth {
            Auth::Known => {
                w.map(1);
                w.uint(0, AUTH_KNOWN);
            }
            Auth::Claim { claim_pub, sig } => {
                w.map(3);
                w.uint(0, AUTH_CLAIM);
                w.bytes(1, claim_pub);
                w.bytes(2, sig);
            }
        });
        w.bytes(6, &self.devid_sig);
        w.bytes(7, &self.wg_mac);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            v: r.open(8)?,
            devid_pub: r.array(1)?,
            wg_pub: r.array(2)?,
            nonce: r.array(3)?,
            fleet_size: r.uint(4)?,
            auth: {
                r.key(5)?;
                match r.open_map()? {
                    1 if r.uint(0)? == AUTH_KNOWN => Auth::Known,
                    3 if r.uint(0)? == AUTH_CLAIM => Auth::Claim {
                        claim_pub: r.array(1)?,
                        sig: r.array(2)?,
                    },
                    _ => return Err(r.refused()),
                }
            },
            devid_sig: r.array(6)?,
            wg_mac: r.array(7)?,
        })
    }
}

impl fmt::Debug for EnrolReq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnrolReq({})", crate::keys::KeyId::of(&self.devid_pub))
    }
}

/// Refuses the all-zero secret, which any key of low order leads to.
fn contributory(shared: SharedSecret) -> Result<SharedSecret, EnrolError> {
    if shared.was_contributory() {
        Ok(shared)
    } else {
        Err(EnrolError::LowOrderKey)
    }
}

fn tunnel_mac(shared: &SharedSecret, transcript: &[u8; 32]) -> Hmac<Sha256> {
    let mac = <Hmac<Sha256> as Mac>::new_from_slice(shared.as_bytes());
    mac.expect("HMAC takes a key of any length")
        .chain_update(in_domain(TUNNEL_DOMAIN, transcript))
}

fn in_domain(domain: &[u8], transcript: &[u8; 32]) -> Vec<u8> {
    [domain, transcript].concat()
}

fn signed(public: &[u8; 32], domain: &[u8], transcript: &[u8; 32], signature: &[u8; 64]) -> bool {
    let message = in_domain(domain, transcript);
    VerifyingKey::from_bytes(public).is_ok_and(|key| {
        key.verify_strict(&message, &Signature::from_bytes(signature))
            .is_ok()
    })
}
