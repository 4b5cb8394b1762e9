use poly1305::Poly1305;
use poly1305::universal_hash::KeyInit as _;

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

/// The example of NaCl's own documentation of crypto_box.
#[cfg(feature = "xsalsa")]
#[test]
fn the_box_of_es_1_is_nacls() {
    let hex32 = |text| <[u8; 32]>::try_from(hex::decode(text).unwrap()).unwrap();
    let secret = StaticSecret::from(hex32(
        "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
    ));
    let public = hex32("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
    let whole = hex::decode("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37").unwrap();
    let nonce = whole.try_into().unwrap();
    let mut message = hex::decode("be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c61296cdc3c01233561f41db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde048977eb48f59ffd4924ca1c60902e52f0a089bc76897040e082f937763848645e0705").unwrap();

    let shared = SharedKey::agree_xsalsa(&secret, &public).unwrap();
    let tag = shared.seal(&nonce, &mut message);

    assert_eq!(
        hex::encode(shared.bytes()),
        "1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389"
    );
    assert_eq!(hex::encode(tag), "f3ffc7703f9400e52a7dfb4b3d3305d9");
    assert!(hex::encode(&message).starts_with("8e993b9f48681273c29650ba32fc76ce48332ea7164d96a4"));
    assert_eq!(
        SharedKey::agree_xsalsa(&secret, &[0; 32]).err(),
        Some(WeakKey)
    );
    assert_eq!(
        SharedKey::agree(&secret, &public)
            .unwrap()
            .open(&nonce, &tag, &mut message),
        Err(BadTag)
    );
    assert_eq!(shared.open(&nonce, &tag, &mut message), Ok(()));
}

/// What the cipher gives when it is asked byte after byte.
#[test]
fn messages_of_every_length_are_sealed_with_the_same_key_stream() {
    let nonce = nonce(&counter(0xa0), &counter(0xc0));
    let shared = key();
    let mut stream = vec![0; MAC_KEY + 900];
    let mut cipher = XChaCha20::new(shared.bytes().into(), (&nonce).into());
    for byte in &mut stream {
        cipher.apply_keystream(std::slice::from_mut(byte));
    }

    for len in 0..900 {
        let message: Vec<u8> = (0..len).map(|n| n as u8).collect();
        let mut sealed = message.clone();
        let tag = shared.seal(&nonce, &mut sealed);

        let key = poly1305::Key::from_slice(&stream[..MAC_KEY]);
        let expected = Poly1305::new(key).compute_unpadded(&sealed);
        assert_eq!(tag, <[u8; TAG]>::from(expected), "{len} bytes");
        let undone: Vec<u8> = sealed
            .iter()
            .zip(&stream[MAC_KEY..])
            .map(|(a, b)| a ^ b)
            .collect();
        assert_eq!(undone, message, "{len} bytes");
        assert_eq!(shared.open(&nonce, &tag, &mut sealed), Ok(()));
        assert_eq!(sealed, message);
    }
}
