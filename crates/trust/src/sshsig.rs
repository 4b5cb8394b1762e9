//! Signatures by people: SSHSIG, as `ssh-keygen -Y sign` makes them, of Ed25519 keys in a file and on a token.
//!
//! Formats: OpenSSH's PROTOCOL.sshsig, PROTOCOL.u2f and RFC 8709. A token's signature counts only if somebody touched the token for it:
//! OpenSSH's own verifier takes one without.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest, Sha256, Sha512};

use crate::lines::{base64, to_base64};

const MAGIC: &[u8; 6] = b"SSHSIG";
const VERSION: u32 = 1;
const ED25519: &str = "ssh-ed25519";
const SK_ED25519: &str = "sk-ssh-ed25519@openssh.com";
const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";
const END: &str = "-----END SSH SIGNATURE-----";
/// PROTOCOL.u2f, SSH_SK_USER_PRESENCE_REQD: a person was there and touched the token.
/// Letters in a line of an armour.
const LINE: usize = 70;
const USER_PRESENT: u8 = 1;
/// More is no signature by one of these keys.
const MAX_BYTES: usize = 1024;
const MAX_ARMOR_BYTES: usize = 2 * MAX_BYTES;
const MAX_APPLICATION: usize = 128;

/// Why a signature does not count, or is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SshSigError {
    #[error("not an SSH signature between its BEGIN and END lines")]
    Armor,
    #[error("not the bytes of an SSH signature")]
    Malformed,
    #[error("the key is none of ssh-ed25519 and sk-ssh-ed25519@openssh.com")]
    KeyType,
    #[error("not a public key as ssh-keygen writes it: TYPE BASE64 COMMENT")]
    Key,
    #[error("the hash {0:?} is none of sha256 and sha512")]
    Hash(String),
    #[error("the signature is for {found:?}, not for {wanted:?}")]
    Namespace { found: String, wanted: String },
    #[error("the token was not touched for this signature")]
    NotTouched,
    #[error("the key did not sign these bytes")]
    NotSigned,
}

/// A person's public key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SshKey {
    /// In a file.
    Ed25519([u8; 32]),
    /// On a token, under the name of an application, mostly `ssh:`.
    Token { key: [u8; 32], application: String },
}

impl SshKey {
    /// The key itself: one under two names, or in a file and on a token, is one key.
    #[must_use]
    pub fn point(&self) -> &[u8; 32] {
        match self {
            Self::Ed25519(key) | Self::Token { key, .. } => key,
        }
    }

    fn read(blob: &mut Blob<'_>) -> Result<Self, SshSigError> {
        let kind = blob.text()?;
        let key = blob.array()?;
        let key = match kind {
            ED25519 => Self::Ed25519(key),
            SK_ED25519 => {
                let application = blob.text()?;
                if application.len() > MAX_APPLICATION {
                    return Err(SshSigError::Malformed);
                }
                let application = application.to_owned();
                Self::Token { key, application }
            }
            _ => return Err(SshSigError::KeyType),
        };
        let point = VerifyingKey::from_bytes(key.point()).map_err(|_| SshSigError::Malformed)?;
        match point.is_weak() {
            true => Err(SshSigError::Malformed),
            false => Ok(key),
        }
    }

    /// As `ssh-keygen -l` shows it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let digest = to_base64(&Sha256::digest(self.to_blob()));
        format!("SHA256:{}", digest.trim_end_matches('='))
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Ed25519(_) => ED25519,
            Self::Token { .. } => SK_ED25519,
        }
    }

    fn to_blob(&self) -> Vec<u8> {
        let mut blob = [string(self.kind().as_bytes()), string(self.point())].concat();
        if let Self::Token { application, .. } = self {
            blob.extend(string(application.as_bytes()));
        }
        blob
    }
}

impl FromStr for SshKey {
    type Err = SshSigError;

    /// Reads a line as in a `.pub` file; the comment says nothing.
    fn from_str(line: &str) -> Result<Self, SshSigError> {
        let mut words = line.split_ascii_whitespace();
        let (kind, blob) = (words.next(), words.next());
        let (Some(kind), Some(blob)) = (kind, blob.and_then(base64)) else {
            return Err(SshSigError::Key);
        };
        let key = Blob::whole(&blob, Self::read)?;
        match key.kind() == kind {
            true => Ok(key),
            false => Err(SshSigError::Key),
        }
    }
}

impl fmt::Display for SshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), to_base64(&self.to_blob()))
    }
}

/// A signature that nobody has verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshSig {
    key: SshKey,
    namespace: String,
    reserved: Vec<u8>,
    hash: Hash,
    signature: [u8; 64],
    /// Flags and counter of a token's.
    token: Option<(u8, [u8; 4])>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hash {
    Sha256,
    Sha512,
}

impl SshSig {
    /// Reads the text that `ssh-keygen -Y sign` writes.
    pub fn from_armor(text: &str) -> Result<Self, SshSigError> {
        Self::from_bytes(&Self::dearmor(text)?)
    }

    /// The bytes that the text armours, whatever they are.
    pub fn dearmor(text: &str) -> Result<Vec<u8>, SshSigError> {
        if text.len() > MAX_ARMOR_BYTES {
            return Err(SshSigError::Armor);
        }
        let inside = text.trim().strip_prefix(BEGIN);
        let inside = inside.and_then(|rest| rest.strip_suffix(END));
        let lines = inside.ok_or(SshSigError::Armor)?.split_ascii_whitespace();
        base64(&lines.collect::<String>()).ok_or(SshSigError::Armor)
    }

    /// The text that armours these bytes, in lines as OpenSSH writes them.
    #[must_use]
    pub fn armor(bytes: &[u8]) -> String {
        let mut text = format!("{BEGIN}\n");
        for (at, letter) in to_base64(bytes).chars().enumerate() {
            if at > 0 && at % LINE == 0 {
                text.push('\n');
            }
            text.push(letter);
        }
        text + "\n" + END + "\n"
    }

    /// Reads the bytes that the text armours, all of them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SshSigError> {
        if bytes.len() > MAX_BYTES {
            return Err(SshSigError::Malformed);
        }
        Blob::whole(bytes, Self::read)
    }

    fn read(blob: &mut Blob<'_>) -> Result<Self, SshSigError> {
        if blob.take(MAGIC.len())? != MAGIC || blob.number()? != VERSION {
            return Err(SshSigError::Malformed);
        }
        let key = Blob::whole(blob.string()?, SshKey::read)?;
        let namespace = blob.text()?.to_owned();
        let reserved = blob.string()?.to_vec();
        let hash = match blob.text()? {
            "sha256" => Hash::Sha256,
            "sha512" => Hash::Sha512,
            other => return Err(SshSigError::Hash(other.chars().take(16).collect())),
        };
        let (signature, token) = Blob::whole(blob.string()?, |blob| {
            if blob.text()? != key.kind() {
                return Err(SshSigError::Malformed);
            }
            let signature = blob.array()?;
            let token = match key {
                SshKey::Ed25519(_) => None,
                SshKey::Token { .. } => Some((blob.byte()?, blob.number()?.to_be_bytes())),
            };
            Ok((signature, token))
        })?;
        Ok(Self {
            key,
            namespace,
            reserved,
            hash,
            signature,
            token,
        })
    }

    /// Who claims to have signed.
    #[must_use]
    pub fn key(&self) -> &SshKey {
        &self.key
    }

    /// What it claims to be for.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Checks that its key signed these bytes, for this purpose, and that a token was touched for it.
    pub fn verify(&self, namespace: &str, message: &[u8]) -> Result<&SshKey, SshSigError> {
        if self.namespace != namespace {
            return Err(SshSigError::Namespace {
                found: self.namespace.clone(),
                wanted: namespace.to_owned(),
            });
        }
        let signed = self.signed_bytes(message);
        let signed = match (&self.key, self.token) {
            (SshKey::Token { application, .. }, Some((flags, counter))) => {
                if flags & USER_PRESENT == 0 {
                    return Err(SshSigError::NotTouched);
                }
                let (application, signed) = (Sha256::digest(application), Sha256::digest(signed));
                [&application[..], &[flags], &counter, &signed].concat()
            }
            _ => signed,
        };
        let key = VerifyingKey::from_bytes(self.key.point()).map_err(|_| SshSigError::NotSigned)?;
        key.verify_strict(&signed, &Signature::from_bytes(&self.signature))
            .map_err(|_| SshSigError::NotSigned)?;
        Ok(&self.key)
    }

    /// What the key signs in the place of the message.
    fn signed_bytes(&self, message: &[u8]) -> Vec<u8> {
        let (name, digest) = match self.hash {
            Hash::Sha256 => ("sha256", Sha256::digest(message).to_vec()),
            Hash::Sha512 => ("sha512", Sha512::digest(message).to_vec()),
        };
        let strings = [
            self.namespace.as_bytes(),
            &self.reserved,
            name.as_bytes(),
            &digest,
        ];
        let strings = strings.map(string).concat();
        [&MAGIC[..], &strings].concat()
    }
}

/// A string of RFC 4251, section 5.
fn string(bytes: &[u8]) -> Vec<u8> {
    // What is put into one here is short.
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    [&len.to_be_bytes()[..], bytes].concat()
}

/// Bytes that are read from their beginning.
struct Blob<'b>(&'b [u8]);

impl<'b> Blob<'b> {
    /// Reads all of the bytes; what is left over makes them none.
    fn whole<T>(
        bytes: &'b [u8],
        read: impl FnOnce(&mut Self) -> Result<T, SshSigError>,
    ) -> Result<T, SshSigError> {
        let mut blob = Self(bytes);
        let made = read(&mut blob)?;
        match blob.0 {
            [] => Ok(made),
            _ => Err(SshSigError::Malformed),
        }
    }

    fn take(&mut self, len: usize) -> Result<&'b [u8], SshSigError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(SshSigError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, SshSigError> {
        let byte = self.take(1)?.first();
        byte.copied().ok_or(SshSigError::Malformed)
    }

    fn number(&mut self) -> Result<u32, SshSigError> {
        let bytes = self.take(4)?.try_into();
        bytes
            .map(u32::from_be_bytes)
            .map_err(|_| SshSigError::Malformed)
    }

    fn string(&mut self) -> Result<&'b [u8], SshSigError> {
        let len = usize::try_from(self.number()?).map_err(|_| SshSigError::Malformed)?;
        self.take(len)
    }

    fn text(&mut self) -> Result<&'b str, SshSigError> {
        std::str::from_utf8(self.string()?).map_err(|_| SshSigError::Malformed)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SshSigError> {
        let bytes = self.string()?.try_into();
        bytes.map_err(|_| SshSigError::Malformed)
    }
}
