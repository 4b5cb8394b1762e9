//! X25519 with a key that many agree with: by AWS-LC on servers, whose TLS has it anyway and which is more than twice as
//! fast there, and by dalek elsewhere.

#[cfg(feature = "aws-lc")]
use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// What both sides compute.
pub(super) type Point = Zeroizing<[u8; 32]>;

/// A secret key. Erased when dropped.
pub(super) struct CurveSecret {
    secret: StaticSecret,
    #[cfg(feature = "aws-lc")]
    fast: Option<PrivateKey>,
}

impl CurveSecret {
    pub(super) fn new(secret: StaticSecret) -> Self {
        Self {
            #[cfg(feature = "aws-lc")]
            fast: PrivateKey::from_private_key(&X25519, secret.as_bytes()).ok(),
            secret,
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8; 32] {
        self.secret.as_bytes()
    }

    /// The point shared with the holder of `public`; all zero if that is of low order, which is for the caller to judge.
    pub(super) fn agree(&self, public: &[u8; 32]) -> Point {
        #[cfg(feature = "aws-lc")]
        if let Some(point) = self.agree_fast(public) {
            return point;
        }
        let shared = self.secret.diffie_hellman(&PublicKey::from(*public));
        Zeroizing::new(shared.to_bytes())
    }

    /// AWS-LC has no result where it would be all zero: then the other arithmetic says it.
    #[cfg(feature = "aws-lc")]
    fn agree_fast(&self, public: &[u8; 32]) -> Option<Point> {
        let theirs = UnparsedPublicKey::new(&X25519, public);
        let point = agreement::agree(self.fast.as_ref()?, theirs, (), |shared| {
            let mut point = Point::default();
            point.copy_from_slice(shared.get(..32).ok_or(())?);
            Ok(point)
        });
        point.ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_public_key_of_low_order_gives_zero() {
        let secret = CurveSecret::new(StaticSecret::from([7; 32]));
        let mut one = [0; 32];
        one[0] = 1;

        for public in [[0; 32], one] {
            assert_eq!(*secret.agree(&public), [0; 32]);
        }
    }

    proptest! {
        #[test]
        fn every_key_agrees_as_dalek_has_it(secret in any::<[u8; 32]>(), public in any::<[u8; 32]>()) {
            let plain = StaticSecret::from(secret);
            let expected = plain.diffie_hellman(&PublicKey::from(public)).to_bytes();

            prop_assert_eq!(*CurveSecret::new(plain).agree(&public), expected);
        }
    }
}
