//! Claim codes: what is printed in a subscriber's letter and entitles one device to enrol.
//!
//! `CV-` and 25 symbols of Crockford's base32: 105 random bits, then 20 bits of checksum, so that a
//! slip of the finger is told from a code that nobody issued. The code seeds an Ed25519 key; the
//! server keeps its public half, and the code itself never travels.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::SigningKey;
use hkdf::Hkdf;
use rand_core::{CryptoRng, RngCore};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const PREFIX: &str = "CV";
const SYMBOLS: usize = 25;
const GROUP: usize = 5;
const SECRET_BITS: u32 = 105;
const CHECK_BITS: u32 = 20;
const CHECK_LABEL: &[u8] = b"Culvert claim code v1 checksum";
const KEY_SALT: &[u8] = b"Culvert claim code v1";
const KEY_INFO: &[u8] = b"Ed25519 seed";

/// Why what somebody typed is not a claim code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClaimCodeError {
    #[error("a claim code has {SYMBOLS} letters and digits after CV-, this one has {got}")]
    Length { got: usize },
    #[error("`{symbol}` at place {place} is not used in claim codes")]
    Symbol { symbol: char, place: usize },
    #[error("the claim code has a typing error: compare it with the letter")]
    Typing,
}

/// A secret code; `Display` shows it, `Debug` does not.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct ClaimCode {
    secret: u128,
}

impl ClaimCode {
    pub fn generate<R: RngCore + CryptoRng>(rng: &mut R) -> Self {
        let mut bytes = Zeroizing::new([0; 16]);
        rng.fill_bytes(bytes.as_mut());
        Self {
            secret: u128::from_be_bytes(*bytes) >> (u128::BITS - SECRET_BITS),
        }
    }

    /// The key that stands for the code: the server knows its public half.
    pub fn signing_key(&self) -> SigningKey {
        let secret = Zeroizing::new(self.secret.to_be_bytes());
        let mut seed = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(Some(KEY_SALT), secret.as_ref())
            .expand(KEY_INFO, seed.as_mut())
            .expect("32 bytes are within what HKDF-SHA256 can give");
        SigningKey::from_bytes(&seed)
    }

    fn checksum(&self) -> u128 {
        let secret = Zeroizing::new(self.secret.to_be_bytes());
        let digest: [u8; 32] = Sha256::new()
            .chain_update(CHECK_LABEL)
            .chain_update(*secret)
            .finalize()
            .into();
        let [a, b, c, ..] = digest;
        u128::from(u32::from_be_bytes([0, a, b, c]) >> (24 - CHECK_BITS))
    }
}

impl PartialEq for ClaimCode {
    /// Takes the same time wherever two codes differ.
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.secret.to_be_bytes(), other.secret.to_be_bytes());
        a.ct_eq(&b).into()
    }
}

impl Eq for ClaimCode {}

impl FromStr for ClaimCode {
    type Err = ClaimCodeError;

    /// Accepts either case, spaces and hyphens anywhere, a missing `CV-`, and O, I and L as digits.
    fn from_str(typed: &str) -> Result<Self, ClaimCodeError> {
        let is_separator = |c: char| c == '-' || c.is_whitespace();
        let symbols = || {
            typed
                .chars()
                .filter(|c| !is_separator(*c))
                .map(|c| c.to_ascii_uppercase())
        };
        let prefixed = symbols().count() > SYMBOLS && symbols().take(2).eq(PREFIX.chars());
        let skip = if prefixed { PREFIX.len() } else { 0 };
        let got = symbols().count() - skip;
        if got != SYMBOLS {
            return Err(ClaimCodeError::Length { got });
        }
        let mut all = Zeroizing::new(0_u128);
        for (place, symbol) in (1..).zip(symbols().skip(skip)) {
            let value = symbol_value(symbol).ok_or(ClaimCodeError::Symbol { symbol, place })?;
            *all = (*all << 5) | value;
        }
        let code = Self {
            secret: *all >> CHECK_BITS,
        };
        if code.checksum() != *all & ((1 << CHECK_BITS) - 1) {
            return Err(ClaimCodeError::Typing);
        }
        Ok(code)
    }
}

impl fmt::Display for ClaimCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = Zeroizing::new((self.secret << CHECK_BITS) | self.checksum());
        f.write_str(PREFIX)?;
        for place in 0..SYMBOLS {
            if place % GROUP == 0 {
                f.write_str("-")?;
            }
            let value = (*all >> (5 * (SYMBOLS - 1 - place))) & 31;
            let symbol = (0_u128..).zip(ALPHABET).find(|(known, _)| *known == value);
            write!(
                f,
                "{}",
                symbol.map_or('0', |(_, symbol)| char::from(*symbol))
            )?;
        }
        Ok(())
    }
}

impl fmt::Debug for ClaimCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClaimCode(secret)")
    }
}

fn symbol_value(symbol: char) -> Option<u128> {
    let symbol = match symbol {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    };
    (0..)
        .zip(ALPHABET)
        .find(|(_, known)| char::from(**known) == symbol)
        .map(|(value, _)| value)
}
