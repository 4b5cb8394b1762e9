//! The provider key file: the Ed25519 seed as 64 hexadecimal digits and a newline, readable by its owner.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use ed25519_dalek::SigningKey;
use rand_core::{OsRng, RngCore as _};
use thiserror::Error;
use zeroize::Zeroizing;

/// Larger files are no key files.
const MAX_FILE: u64 = 4096;

const READABLE_BY_ALL: u32 = 0o004;

/// Why there is no provider key.
#[derive(Debug, Error)]
pub enum ProviderKeyError {
    /// It cannot be read.
    #[error("cannot read the provider key {path}: {error}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        error: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write the provider key {path}: {error}")]
    Write {
        /// The file.
        path: String,
        /// What the system said.
        error: io::Error,
    },
    /// Everybody may read it, as a file of public keys.
    #[error(
        "{path} is no provider key to sign with: everybody may read it, as `provider.pub`, the public keys. Name the file that \
         `culvert-dns provider-key new` made; if it is that one, make a new key, or `chmod 600` it if nobody else was ever here"
    )]
    NotSecret {
        /// The file.
        path: String,
    },
    /// It is not a key.
    #[error(
        "{path} is not a provider key: it must hold 64 hexadecimal digits (make one with `culvert-dns provider-key new`)"
    )]
    NotAKey {
        /// The file.
        path: String,
    },
}

/// Makes a key file. An existing file is never touched.
pub fn create_provider_key(path: &Path) -> Result<SigningKey, ProviderKeyError> {
    let mut seed = Zeroizing::new([0; 32]);
    OsRng.fill_bytes(seed.as_mut_slice());
    let text = Zeroizing::new(format!("{}\n", hex(seed.as_slice())));
    let write = || -> io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error| ProviderKeyError::Write {
        path: path.display().to_string(),
        error,
    })?;
    Ok(SigningKey::from_bytes(&seed))
}

/// Reads a key file.
pub fn read_provider_key(path: &Path) -> Result<SigningKey, ProviderKeyError> {
    let name = || path.display().to_string();
    let unreadable = |error| ProviderKeyError::Read {
        path: name(),
        error,
    };
    let file = fs::metadata(path).map_err(unreadable)?;
    if file.len() > MAX_FILE {
        return Err(ProviderKeyError::NotAKey { path: name() });
    }
    let text = Zeroizing::new(fs::read(path).map_err(unreadable)?);
    let seed =
        unhex::<32>(text.trim_ascii()).ok_or_else(|| ProviderKeyError::NotAKey { path: name() })?;
    let seed = Zeroizing::new(seed);
    // A public key has as many digits: taken for the secret, it would make one that everybody knows.
    let is_public = path.extension().is_some_and(|end| end == "pub");
    if is_public || file.mode() & READABLE_BY_ALL != 0 {
        return Err(ProviderKeyError::NotSecret { path: name() });
    }
    Ok(SigningKey::from_bytes(&seed))
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
            }
            text
        })
}

/// The bytes of exactly `2 N` hexadecimal digits.
pub(crate) fn unhex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair)
            .ok()
            .filter(|pair| !pair.starts_with('+'))?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(bytes)
}
