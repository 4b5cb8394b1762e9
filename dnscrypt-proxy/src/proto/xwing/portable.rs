//! Both halves in Rust alone.

use fips203::ml_kem_768::{CipherText, DecapsKey};
use fips203::traits::{Decaps as _, SerDes as _};
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use super::{KemSecret, LATTICE_CIPHERTEXT, POINT};
use crate::proto::curve::CurveSecret;

pub(super) struct Halves {
    lattice: DecapsKey,
    curve: CurveSecret,
}

impl Halves {
    pub(super) fn new(lattice: DecapsKey, curve: StaticSecret) -> Self {
        let curve = CurveSecret::new(curve);
        Self { lattice, curve }
    }

    pub(super) fn secrets(
        &self,
        lattice_ct: &[u8; LATTICE_CIPHERTEXT],
        point_ct: &[u8; POINT],
    ) -> Option<(KemSecret, KemSecret)> {
        let lattice_ct = CipherText::try_from_bytes(*lattice_ct).ok()?;
        let lattice = self.lattice.try_decaps(&lattice_ct).ok()?;
        let lattice = Zeroizing::new(lattice.into_bytes());
        Some((lattice, self.curve.agree(point_ct)))
    }
}
