//! BLAKE2s as the handshake uses it: hash, keyed mac, and the key derivation made of HMAC (whitepaper, section 5.4).

use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, Mac, Update};
use blake2::{Blake2s256, Blake2sMac, Digest};
use hmac::SimpleHmac;
use zeroize::Zeroizing;

/// The hash of all parts, one after the other.
pub(super) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Blake2s256::new();
    for part in parts {
        Digest::update(&mut hasher, part);
    }
    hasher.finalize().into()
}

/// The keyed hash of 16 bytes. The key is at most 32 bytes long, as all of ours are.
pub(super) fn mac(key: &[u8], data: &[&[u8]]) -> [u8; 16] {
    let Ok(mut mac) = <Blake2sMac<U16> as Mac>::new_from_slice(key) else {
        return [0; 16];
    };
    for part in data {
        Update::update(&mut mac, part);
    }
    FixedOutput::finalize_fixed(mac).into()
}

/// `N` keys, at most 255, from a chaining key and an input (HKDF, RFC 5869, without info).
pub(super) fn derive<const N: usize>(chain: &[u8; 32], input: &[u8]) -> Zeroizing<[[u8; 32]; N]> {
    let extracted = Zeroizing::new(hmac(chain, &[input]));
    let mut keys = Zeroizing::new([[0; 32]; N]);
    let mut before: &[u8] = &[];
    for (key, number) in keys.iter_mut().zip(1_u8..) {
        *key = hmac(&extracted, &[before, &[number]]);
        before = key;
    }
    keys
}

fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let Ok(mut mac) = <SimpleHmac<Blake2s256> as Mac>::new_from_slice(key) else {
        return [0; 32];
    };
    for part in parts {
        Mac::update(&mut mac, part);
    }
    Mac::finalize(mac).into_bytes().into()
}
