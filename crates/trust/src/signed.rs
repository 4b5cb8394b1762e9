//! Bytes under one Ed25519 signature: statements that live for days and stand in no log.
//!
//! The signature covers the body as it was received, after a domain; what the body is, is read afterwards.

use std::fmt;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use crate::cbor::{self, DecodeError, Object, Reader, VERSION, Writer};

const MAX_BODY: usize = 1536;
const MAX_ITEMS: usize = 8;

/// A body and a signature that says nothing until somebody checks it.
#[derive(Clone, PartialEq, Eq)]
pub struct Signed {
    body: Vec<u8>,
    sig: [u8; 64],
}

impl Signed {
    pub(crate) fn sign<T: Object>(key: &SigningKey, domain: &[u8], object: &T) -> Self {
        let body = cbor::encode(object);
        let sig = key.sign(&[domain, &body].concat()).to_bytes();
        Self { body, sig }
    }

    /// Reads the body, which names its signer, and then checks that this one signed it.
    pub(crate) fn open<T: Object>(
        &self,
        domain: &[u8],
        signer: impl FnOnce(&T) -> [u8; 32],
    ) -> Result<Option<T>, DecodeError> {
        let object: T = cbor::decode(&self.body)?;
        let message = [domain, &self.body].concat();
        let is_signed = VerifyingKey::from_bytes(&signer(&object)).is_ok_and(|key| {
            key.verify_strict(&message, &Signature::from_bytes(&self.sig))
                .is_ok()
        });
        Ok(is_signed.then_some(object))
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        cbor::decode(bytes)
    }
}

impl Object for Signed {
    const MAX_BYTES: usize = MAX_BODY + 128;

    fn write(&self, w: &mut Writer) {
        w.open(3, VERSION);
        w.bytes(1, &self.body);
        w.bytes(2, &self.sig);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.open(3)?;
        Ok(Self {
            body: r.bytes(1, MAX_BODY)?,
            sig: r.array(2)?,
        })
    }
}

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signed({} bytes)", self.body.len())
    }
}

/// A few of them, as they travel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignedList {
    pub items: Vec<Signed>,
}

impl SignedList {
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        cbor::decode(bytes)
    }
}

impl Object for SignedList {
    const MAX_BYTES: usize = MAX_ITEMS * Signed::MAX_BYTES + 16;

    fn write(&self, w: &mut Writer) {
        w.open(2, VERSION);
        w.list(1, &self.items, |w, item| item.write(w));
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.open(2)?;
        Ok(Self {
            items: r.list(1, MAX_ITEMS, Signed::read)?,
        })
    }
}
