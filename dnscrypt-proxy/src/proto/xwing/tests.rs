use rand_core::OsRng;
use sha3::Shake128;

use super::*;
use crate::proto::vectors::counter;

fn key() -> XWingSecret {
    XWingSecret::from_seed(Zeroizing::new(counter(0x20)))
}

#[test]
fn what_is_no_public_key_is_refused() {
    let whole = *key().public();
    // A coefficient of 0xfff is above ML-KEM's modulus.
    let mut above_modulus = whole;
    above_modulus[..3].fill(0xff);

    for len in [0, 31, 32, PUBLIC - 1] {
        assert_eq!(encapsulate(&whole[..len], OsRng).err(), Some(BadPublicKey));
    }
    let longer = [&whole[..], &[0]].concat();
    assert_eq!(encapsulate(&longer, OsRng).err(), Some(BadPublicKey));
    assert_eq!(encapsulate(&above_modulus, OsRng).err(), Some(BadPublicKey));
}

#[test]
fn a_changed_byte_in_either_half_of_the_ciphertext_gives_another_secret() {
    let (secret, ciphertext) = encapsulate(key().public(), OsRng).unwrap();

    for at in [
        0,
        500,
        LATTICE_CIPHERTEXT - 1,
        LATTICE_CIPHERTEXT,
        CIPHERTEXT - 2,
    ] {
        let mut forged = ciphertext;
        forged[at] ^= 1;
        let other = key().decapsulate(&forged).unwrap();
        assert_ne!(*other, *secret, "byte {at}");
    }
    assert_eq!(*key().decapsulate(&ciphertext).unwrap(), *secret);
}

#[test]
fn another_seed_gives_another_key_which_opens_nothing() {
    let other = XWingSecret::generate(OsRng);
    let (secret, ciphertext) = encapsulate(key().public(), OsRng).unwrap();

    assert_ne!(other.public(), key().public());
    assert_ne!(*other.decapsulate(&ciphertext).unwrap(), *secret);
}

#[test]
fn an_all_zero_point_is_no_reason_to_refuse_either_way() {
    let mut zero_point = *key().public();
    zero_point[LATTICE_PUBLIC..].fill(0);
    let (_, mut ciphertext) = encapsulate(&zero_point, OsRng).unwrap();
    ciphertext[LATTICE_CIPHERTEXT..].fill(0);

    let (lattice_ct, point_ct) = split::<LATTICE_CIPHERTEXT>(&ciphertext).unwrap();
    let (_, curve) = key().halves.secrets(lattice_ct, point_ct).unwrap();

    assert_eq!(*curve, [0; 32]);
    assert!(key().decapsulate(&ciphertext).is_some());
}

/// The draft's vectors take their seeds from SHAKE128 of nothing, one after the other.
#[test]
fn the_vectors_of_x_wing_follow_from_their_inputs() {
    let mut stream = Shake128::default().finalize_xof();
    let secrets = [
        "d2df0522128f09dd8e2c92b1e905c793d8f57a54c3da25861f10bf4ca613e384",
        "f2e86241c64d60f6649fbc6c5b7d17180b780a3f34355e64a85749949c45f150",
        "953f7f4e8c5b5049bdc771d1dffada0dd961477d1a2ae0988baa7ea6898d893f",
    ];
    for stated in secrets {
        let mut seed = Zeroizing::new([0; SEED]);
        stream.read(seed.as_mut());
        let mut encapsulation = [0; ENCAPSULATION_SEED];
        stream.read(&mut encapsulation);
        let key = XWingSecret::from_seed(seed);

        let (secret, ciphertext) = encapsulate_from(key.public(), &encapsulation).unwrap();

        assert_eq!(hex::encode(*secret), stated);
        assert_eq!(*key.decapsulate(&ciphertext).unwrap(), *secret);
    }
}

#[cfg(feature = "aws-lc")]
#[test]
fn both_arithmetics_agree_on_honest_and_on_garbled_ciphertexts() {
    let (_, lattice) = ml_kem_768::KG::keygen_from_seed([1; 32], [2; 32]);
    let curve = StaticSecret::from(counter::<32>(3));
    let portable = portable::Halves::new(lattice.clone(), curve.clone());
    let fast = Halves::new(lattice, curve);
    let (_, mut ciphertext) = encapsulate(key().public(), OsRng).unwrap();

    for round in 0..100 {
        ciphertext[round * 11] ^= 1;
        let (lattice_ct, point_ct) = split::<LATTICE_CIPHERTEXT>(&ciphertext).unwrap();
        assert_eq!(
            portable
                .secrets(lattice_ct, point_ct)
                .map(|(a, b)| (*a, *b)),
            fast.secrets(lattice_ct, point_ct).map(|(a, b)| (*a, *b)),
        );
    }
}
