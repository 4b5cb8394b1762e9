use super::*;
use crate::proto::vectors::counter;

/// Points of small order, little-endian: 0, 1, the two of order 8, p-1, p, p+1.
const LOW_ORDER: [&str; 7] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];

fn key() -> SharedKey {
    let secret = StaticSecret::from(counter::<32>(0x40));
    let public = PublicKey::from(&StaticSecret::from(counter::<32>(0x20)));
    SharedKey::agree(&secret, public.as_bytes()).unwrap()
}

#[test]
fn keys_of_low_order_are_refused() {
    let secret = StaticSecret::from(counter::<32>(0x40));

    for point in LOW_ORDER {
        let public: [u8; 32] = hex::decode(point).unwrap().try_into().unwrap();
        assert_eq!(
            SharedKey::agree(&secret, &public).err(),
            Some(WeakKey),
            "{point}"
        );
    }
}

#[test]
fn any_flipped_bit_of_tag_ciphertext_or_nonce_is_refused() {
    let nonce = nonce(&counter(0xa0), &[0; 12]);
    let mut sealed = *b"what is sealed";
    let tag = key().seal(&nonce, &mut sealed);

    for bit in 0..TAG * 8 {
        let mut forged = tag;
        forged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(
            key().open(&nonce, &forged, &mut sealed.clone()),
            Err(BadTag)
        );
    }
    for bit in 0..sealed.len() * 8 {
        let mut forged = sealed;
        forged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(key().open(&nonce, &tag, &mut forged), Err(BadTag));
    }
    for bit in 0..NONCE * 8 {
        let mut forged = nonce;
        forged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(key().open(&forged, &tag, &mut sealed.clone()), Err(BadTag));
    }
}

#[test]
fn a_refused_ciphertext_stays_as_it_was() {
    let nonce = nonce(&counter(0xa0), &[0; 12]);
    let mut ciphertext = [7; 40];

    let outcome = key().open(&nonce, &[0; TAG], &mut ciphertext);

    assert_eq!(outcome, Err(BadTag));
    assert_eq!(ciphertext, [7; 40]);
}

#[test]
fn hchacha20_gives_the_drafts_block() {
    let block = hchacha20(&counter(0), &counter(0));

    assert_eq!(
        hex::encode(block),
        "51e3ff45a895675c4b33b46c64f4a9ace110d34df6a2ceab486372bacbd3eff6"
    );
}

#[test]
fn a_shared_key_does_not_show_itself() {
    assert_eq!(format!("{:?}", key()), "SharedKey(…)");
}
