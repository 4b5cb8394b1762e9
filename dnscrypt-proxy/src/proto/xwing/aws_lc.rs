//! Both halves by AWS-LC: assembly for servers, already in their TLS.

use aws_lc_rs::kem::{AlgorithmId, DecapsulationKey, ML_KEM_768};
use fips203::ml_kem_768::DecapsKey;
use fips203::traits::SerDes as _;
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use super::{KemSecret, LATTICE_CIPHERTEXT, POINT};
use crate::proto::curve::CurveSecret;

pub(super) struct Halves {
    lattice: Option<DecapsulationKey<AlgorithmId>>,
    curve: CurveSecret,
}

impl Halves {
    pub(super) fn new(lattice: DecapsKey, curve: StaticSecret) -> Self {
        let lattice = Zeroizing::new(lattice.into_bytes());
        Self {
            lattice: DecapsulationKey::new(&ML_KEM_768, lattice.as_slice()).ok(),
            curve: CurveSecret::new(curve),
        }
    }

    pub(super) fn secrets(
        &self,
        lattice_ct: &[u8; LATTICE_CIPHERTEXT],
        point_ct: &[u8; POINT],
    ) -> Option<(KemSecret, KemSecret)> {
        let lattice = self.lattice.as_ref()?;
        let shared = lattice.decapsulate(lattice_ct.as_slice().into()).ok()?;
        let mut lattice = Zeroizing::new([0; 32]);
        lattice.copy_from_slice(shared.as_ref().get(..32)?);
        Some((lattice, self.curve.agree(point_ct)))
    }
}
