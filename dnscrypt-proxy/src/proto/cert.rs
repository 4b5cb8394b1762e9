//! Certificates: the resolver's short-term keys, signed by its provider.
//!
//! ```text
//! 0 "DNSC"  4 es  6 minor  8 signature(64)  72 resolver-pk(n)  magic(8) serial(4) start(4) end(4) extensions
//! ```
//! The signature covers everything from byte 72 on. All numbers are big-endian. Sections of the draft:
//! "Certificates", "PQ Certificates", "Downgrade Protection".

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use thiserror::Error;

use super::xwing;

/// First bytes of every certificate.
pub const CERT_MAGIC: [u8; 4] = *b"DNSC";
/// The prefix of an anonymized query; no certificate may claim it.
pub const ANONYMOUS_MAGIC: [u8; 8] = [0xff; 8];
/// The prefix of a resumed post-quantum query; no certificate may claim it.
pub const RESUME_MAGIC: [u8; 8] = *b"PQResume";
/// No known certificate is longer than this.
pub const MAX_CERT: usize = 2048;

const SIGNATURE_AT: usize = 8;
pub(super) const SIGNED_AT: usize = 72;
const MINOR_AT: usize = 6;
const FIXED_TAIL: usize = 20;
/// The whole of a post-quantum certificate's extensions: "PQD", its version, es, HKDF-SHA256,
/// XChaCha20-Poly1305, and the bytes of key and ciphertext.
pub(super) const PQ_PROFILE: [u8; 12] = *b"PQD\x01\x00\x03\x01\x01\x04\xc0\x04\x60";

/// Selects a certificate: the first eight bytes of a query.
pub type ClientMagic = [u8; 8];

/// The construction that a certificate's keys are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum System {
    /// es 1, X25519 with XSalsa20-Poly1305: spoken by clients that were told to, where it is built in.
    XSalsa20Poly1305,
    /// es 2, X25519 with XChaCha20-Poly1305.
    XChaCha20Poly1305,
    /// es 3, the post-quantum hybrid X-Wing.
    XWing,
}

impl System {
    /// The number on the wire.
    #[must_use]
    pub fn number(self) -> u16 {
        match self {
            Self::XSalsa20Poly1305 => 1,
            Self::XChaCha20Poly1305 => 2,
            Self::XWing => 3,
        }
    }

    /// Bytes of the resolver's public key.
    #[must_use]
    pub fn resolver_key_len(self) -> usize {
        match self {
            Self::XSalsa20Poly1305 | Self::XChaCha20Poly1305 => 32,
            Self::XWing => xwing::PUBLIC,
        }
    }

    /// The extensions that its certificates must have, and may have alone.
    fn profile(self) -> &'static [u8] {
        match self {
            Self::XSalsa20Poly1305 | Self::XChaCha20Poly1305 => &[],
            Self::XWing => &PQ_PROFILE,
        }
    }

    fn from_number(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::XSalsa20Poly1305),
            2 => Some(Self::XChaCha20Poly1305),
            3 => Some(Self::XWing),
            _ => None,
        }
    }
}

/// Why one certificate is not used. One bad certificate does not spoil the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Skipped {
    /// Too short, too long, or without the magic.
    #[error("it is not a certificate")]
    Malformed,
    /// A construction that nobody here has heard of.
    #[error("its encryption system {0} is unknown")]
    UnknownSystem(u16),
    /// A construction that is recognised but not wanted here.
    #[error("its encryption system {} is not accepted here", .0.number())]
    NotSpoken(System),
    /// A post-quantum certificate whose profile is missing, or another one than its system's.
    #[error("its post-quantum profile is missing or unknown")]
    BadProfile,
    /// Signed by somebody else than the provider, or altered.
    #[error("it is not signed by the provider's key")]
    BadSignature,
    /// It ends before it starts, or claims a reserved magic.
    #[error("its validity or its magic is not acceptable")]
    Unacceptable,
    /// Its time has not come.
    #[error("it is valid only from {0} (unix time): is this machine's clock right?")]
    NotYet(u32),
    /// Its time is over.
    #[error("it expired at {0} (unix time): is this machine's clock right?")]
    Expired(u32),
}

/// What a certificate says. [`SignedCert::verify`] is the only way to one that may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The construction.
    pub system: System,
    /// The resolver's short-term public key, as long as the construction has it.
    pub resolver_key: Vec<u8>,
    /// What queries under this certificate begin with.
    pub magic: ClientMagic,
    /// Higher is newer, within one construction.
    pub serial: u32,
    /// First valid unix second.
    pub start: u32,
    /// Last valid unix second.
    pub end: u32,
    /// The protocol's minor version: shown, and part of what a post-quantum key is bound to.
    pub minor: u16,
}

impl Certificate {
    /// The resolver's key where it is an X25519 key.
    #[must_use]
    pub fn x25519_key(&self) -> Option<[u8; 32]> {
        <[u8; 32]>::try_from(self.resolver_key.as_slice()).ok()
    }

    /// Whether a moment lies in the validity; both ends belong to it.
    pub fn check_time(&self, now: u64) -> Result<(), Skipped> {
        if now < u64::from(self.start) {
            return Err(Skipped::NotYet(self.start));
        }
        if now > u64::from(self.end) {
            return Err(Skipped::Expired(self.end));
        }
        Ok(())
    }

    /// Signs, giving the bytes for a TXT record.
    #[must_use]
    pub fn sign(&self, provider: &SigningKey) -> Vec<u8> {
        self.with_signature(&provider.sign(&self.signed_part()).to_bytes())
    }

    /// The bytes for a TXT record, of a signature that the provider's key made over [`signed_part`](Self::signed_part).
    pub(crate) fn with_signature(&self, signature: &[u8; 64]) -> Vec<u8> {
        let signed = self.signed_part();
        let mut wire = Vec::with_capacity(SIGNED_AT + signed.len());
        wire.extend_from_slice(&CERT_MAGIC);
        wire.extend_from_slice(&self.system.number().to_be_bytes());
        wire.extend_from_slice(&self.minor.to_be_bytes());
        wire.extend_from_slice(signature);
        wire.extend_from_slice(&signed);
        wire
    }

    /// Everything that the signature covers, as it stands on the wire. Extensions that are ignored are not in it.
    pub(crate) fn signed_part(&self) -> Vec<u8> {
        let mut signed = self.resolver_key.clone();
        signed.extend_from_slice(&self.magic);
        for field in [self.serial, self.start, self.end] {
            signed.extend_from_slice(&field.to_be_bytes());
        }
        signed.extend_from_slice(self.system.profile());
        signed
    }
}

/// A certificate whose shape is right and whose signature nobody has looked at yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCert {
    claims: Certificate,
    signature: [u8; 64],
    signed: Vec<u8>,
    profiled: bool,
}

impl SignedCert {
    /// Takes the bytes apart. A minor version that is not known changes nothing; so do extensions of es 1 and 2.
    pub fn parse(wire: &[u8]) -> Result<Self, Skipped> {
        if wire.len() > MAX_CERT || !wire.starts_with(&CERT_MAGIC) {
            return Err(Skipped::Malformed);
        }
        let number: [u8; 2] = field(wire, CERT_MAGIC.len())?;
        let number = u16::from_be_bytes(number);
        let system = System::from_number(number).ok_or(Skipped::UnknownSystem(number))?;
        let signature = field(wire, SIGNATURE_AT)?;
        let signed = wire.get(SIGNED_AT..).ok_or(Skipped::Malformed)?;
        let key_len = system.resolver_key_len();
        let (resolver_key, tail) = signed.split_at_checked(key_len).ok_or(Skipped::Malformed)?;
        let (_, extensions) = tail
            .split_at_checked(FIXED_TAIL)
            .ok_or(Skipped::Malformed)?;
        let claims = Certificate {
            system,
            resolver_key: resolver_key.to_vec(),
            magic: field(tail, 0)?,
            serial: u32::from_be_bytes(field(tail, 8)?),
            start: u32::from_be_bytes(field(tail, 12)?),
            end: u32::from_be_bytes(field(tail, 16)?),
            minor: u16::from_be_bytes(field(wire, MINOR_AT)?),
        };
        Ok(Self {
            // MUST, "PQ Certificates": this profile and no other; nothing is mandatory elsewhere.
            profiled: system != System::XWing || extensions == PQ_PROFILE,
            claims,
            signature,
            signed: signed.to_vec(),
        })
    }

    /// What it claims, for showing only.
    #[must_use]
    pub fn claims(&self) -> &Certificate {
        &self.claims
    }

    /// Checks signature, validity, magic and profile.
    // MUST, "Validation and Selection": signature over extensions too, a window that is not empty and has now in it.
    pub fn verify(&self, provider_key: &[u8; 32], now: u64) -> Result<&Certificate, Skipped> {
        VerifyingKey::from_bytes(provider_key)
            .and_then(|key| {
                key.verify_strict(&self.signed, &Signature::from_bytes(&self.signature))
            })
            .map_err(|_| Skipped::BadSignature)?;
        if self.claims.start >= self.claims.end || !magic_is_acceptable(&self.claims.magic) {
            return Err(Skipped::Unacceptable);
        }
        self.claims.check_time(now)?;
        if !self.profiled {
            return Err(Skipped::BadProfile);
        }
        Ok(&self.claims)
    }
}

/// What a client wants of post-quantum certificates. Only provisioning that is itself authentic can
/// require them: who strips them from an answer cannot be told from a resolver that has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PostQuantum {
    /// No other certificate is used, whatever becomes of the lookups.
    Required,
    /// They come first; without one the classical certificate is used.
    #[default]
    Preferred,
    /// They are passed over.
    Off,
}

impl PostQuantum {
    /// The word for it in configurations.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Preferred => "preferred",
            Self::Off => "off",
        }
    }
}

impl std::str::FromStr for PostQuantum {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "required" => Ok(Self::Required),
            "preferred" => Ok(Self::Preferred),
            "off" => Ok(Self::Off),
            _ => Err(format!("{text:?} is not one of required, preferred, off")),
        }
    }
}

/// Whether a client takes the first system, which the draft no longer has, from a resolver without another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Legacy {
    /// Never.
    #[default]
    Refused,
    /// When nothing else is there, and it is built in.
    LastResort,
}

/// Which certificates a client takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The post-quantum ones.
    pub post_quantum: PostQuantum,
    /// Those of es 1.
    pub legacy: Legacy,
}

impl Policy {
    /// Those of es 2 alone.
    pub const CLASSICAL: Self = Self {
        post_quantum: PostQuantum::Off,
        legacy: Legacy::Refused,
    };

    /// Whether certificates of a system may be used.
    #[must_use]
    pub fn accepts(self, system: System) -> bool {
        self.rank(system).is_some()
    }

    /// How much a system is wanted; `None` if it must not be used.
    fn rank(self, system: System) -> Option<u8> {
        let classical_too = self.post_quantum != PostQuantum::Required;
        let legacy = cfg!(feature = "xsalsa") && self.legacy == Legacy::LastResort;
        let (rank, accepted) = match system {
            System::XWing => (2, self.post_quantum != PostQuantum::Off),
            System::XChaCha20Poly1305 => (1, classical_too),
            System::XSalsa20Poly1305 => (0, classical_too && legacy),
        };
        accepted.then_some(rank)
    }
}

/// The certificate to use out of an answer, and what became of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Of the most wanted system the one with the highest serial.
    pub best: Option<Certificate>,
    /// Why each of the others was not even a candidate.
    pub skipped: Vec<Skipped>,
}

/// Chooses among the TXT records of an answer. One bad certificate does not spoil the others.
pub fn select<'a>(
    records: impl IntoIterator<Item = &'a [u8]>,
    provider_key: &[u8; 32],
    wanted: Policy,
    now: u64,
) -> Selection {
    let mut best: Option<((u8, u32), Certificate)> = None;
    let mut skipped = Vec::new();
    for record in records {
        match usable(record, provider_key, wanted, now) {
            // Serials compare within one system alone, unsigned and without wrapping.
            Ok((rank, cert)) => {
                let place = (rank, cert.serial);
                if best.as_ref().is_none_or(|(highest, _)| place > *highest) {
                    best = Some((place, cert));
                }
            }
            Err(reason) => skipped.push(reason),
        }
    }
    Selection {
        best: best.map(|(_, cert)| cert),
        skipped,
    }
}

/// Whether a certificate may claim this magic: not what QUIC begins with, nor what other packets of
/// this protocol begin with.
// MUST NOT, "Certificate Format".
#[must_use]
pub fn magic_is_acceptable(magic: &ClientMagic) -> bool {
    !magic.starts_with(&[0; 7]) && *magic != ANONYMOUS_MAGIC && *magic != RESUME_MAGIC
}

fn usable(
    record: &[u8],
    provider_key: &[u8; 32],
    wanted: Policy,
    now: u64,
) -> Result<(u8, Certificate), Skipped> {
    let signed = SignedCert::parse(record)?;
    let cert = signed.verify(provider_key, now)?;
    // MUST NOT, "Downgrade Protection": no system but the required one.
    let rank = wanted
        .rank(cert.system)
        .ok_or(Skipped::NotSpoken(cert.system))?;
    Ok((rank, cert.clone()))
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Skipped> {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk::<N>())
        .copied()
        .ok_or(Skipped::Malformed)
}

#[cfg(test)]
mod tests;
