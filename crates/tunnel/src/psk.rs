//! The pre-shared key of a peer: mixed into every handshake with it (whitepaper, section 5.4), on both sides or on none.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

/// A pre-shared key. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Psk([u8; 32]);

impl Psk {
    pub(crate) fn bytes(&self) -> [u8; 32] {
        self.0
    }
}

impl From<[u8; 32]> for Psk {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Psk")
    }
}
