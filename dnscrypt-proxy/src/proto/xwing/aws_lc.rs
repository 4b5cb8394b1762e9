//! Both halves by AWS-LC: assembly for servers, already in their TLS.

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
use aws_lc_rs::kem::{AlgorithmId, DecapsulationKey, ML_KEM_768};
use fips203::ml_kem_768::DecapsKey;
use fips203::traits::SerDes as _;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::{KemSecret, LATTICE_CIPHERTEXT, POINT};

pub(super) struct Halves {
    lattice: Option<DecapsulationKey<AlgorithmId>>,
    curve: Option<PrivateKey>,
    plain_curve: StaticSecret,
}

impl Halves {
    pub(super) fn new(lattice: DecapsKey, curve: StaticSecret) -> Self {
        let lattice = Zeroizing::new(lattice.into_bytes());
        Self {
            lattice: DecapsulationKey::new(&ML_KEM_768, lattice.as_slice()).ok(),
            curve: PrivateKey::from_private_key(&X25519, curve.as_bytes()).ok(),
            plain_curve: curve,
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
        Some((lattice, self.curve(point_ct)))
    }

    /// AWS-LC refuses an all-zero result, which is a result to X-Wing: then the other arithmetic says it.
    fn curve(&self, point_ct: &[u8; POINT]) -> KemSecret {
        let theirs = UnparsedPublicKey::new(&X25519, point_ct);
        let agreed = self.curve.as_ref().and_then(|curve| {
            agreement::agree(curve, theirs, (), |shared| {
                let mut secret = Zeroizing::new([0; POINT]);
                secret.copy_from_slice(shared.get(..POINT).ok_or(())?);
                Ok(secret)
            })
            .ok()
        });
        agreed.unwrap_or_else(|| {
            let shared = self.plain_curve.diffie_hellman(&PublicKey::from(*point_ct));
            Zeroizing::new(shared.to_bytes())
        })
    }
}
