//! Against ring and against RustCrypto's Poly1305, which share no code with it.

use poly1305::universal_hash::KeyInit;
use poly1305::{Block, Poly1305, universal_hash::UniversalHash};
use proptest::prelude::*;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::*;

/// This processor has AVX-512 with IFMA, or there is nothing to test: the sessions' tests say which cipher they ran with.
fn ours(key: &[u8; 32]) -> Option<Key> {
    Key::new(key)
}

fn sealed_by_ring(key: &[u8; 32], counter: u64, data: &[u8]) -> (Vec<u8>, [u8; 16]) {
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).unwrap());
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    let mut data = data.to_vec();
    let nonce = Nonce::assume_unique_for_key(nonce);
    let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut data);
    (data, tag.unwrap().as_ref().try_into().unwrap())
}

fn agrees(key: [u8; 32], counter: u64, data: &[u8]) {
    let Some(ours) = ours(&key) else { return };
    let expected = sealed_by_ring(&key, counter, data);
    let mut sealed = data.to_vec();
    let tag = ours.seal(counter, &mut sealed);
    assert_eq!(
        (&sealed, tag),
        (&expected.0, expected.1),
        "{} bytes",
        data.len()
    );

    let mut wrong = tag;
    wrong[data.len() % 16] ^= 1 << (data.len() % 8);
    assert!(!ours.open(counter, &mut sealed, &wrong));
    assert_eq!(sealed, expected.0, "what is forged is left as it is");
    assert!(ours.open(counter, &mut sealed, &tag));
    assert_eq!(sealed, data);
}

#[test]
fn every_length_up_to_three_passes_is_sealed_as_by_ring() {
    for len in 0..=FIRST_BYTES + 2 * PASS_BYTES + 1 {
        let data: Vec<u8> = (0..len).map(|at| (at * 31 + len) as u8).collect();
        agrees([len as u8; 32], len as u64 * 0x1_0000_0001, &data);
    }
}

#[test]
fn any_bit_of_a_short_message_that_is_turned_is_noticed() {
    let Some(ours) = ours(&[5; 32]) else { return };
    for len in [0, 1, 16, 40, 192, 193, 300] {
        let mut sealed = vec![9; len];
        let tag = ours.seal(1, &mut sealed);
        for bit in 0..8 * len {
            sealed[bit / 8] ^= 1 << (bit % 8);
            assert!(!ours.open(1, &mut sealed, &tag), "bit {bit} of {len} bytes");
            sealed[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(!ours.open(2, &mut sealed, &tag), "another counter");
    }
}

/// The tag by RustCrypto, of a message framed as RFC 8439 says (section 2.8).
fn expected_tag(key: &[u8; 64], data: &[u8]) -> [u8; 16] {
    let key: &[u8; 32] = key.first_chunk().unwrap();
    let mut poly = Poly1305::new(key.into());
    poly.update_padded(data);
    let mut lengths = Block::default();
    lengths[8..].copy_from_slice(&(data.len() as u64).to_le_bytes());
    poly.update(&[lengths]);
    poly.finalize().into()
}

struct Tag<'a>(Simd, &'a [u8; 64], &'a [u8]);

impl NullaryFnOnce for Tag<'_> {
    type Output = [u8; 16];

    #[inline(always)]
    fn call(self) -> [u8; 16] {
        tag(self.0, self.1, self.2)
    }
}

fn tag_agrees(key: &[u8; 64], data: &[u8]) {
    if let Some(simd) = Simd::try_new() {
        let tag = simd.vectorize(Tag(simd, key, data));
        assert_eq!(tag, expected_tag(key, data), "{} bytes", data.len());
    }
}

#[test]
fn the_tags_carries_hold_for_the_largest_and_smallest_numbers() {
    for fill in [0, 1, 0x7f, 0x80, 0xfb, 0xfc, 0xfe, 0xff] {
        for byte in [0, 1, 0x80, 0xfa, 0xfb, 0xfc, 0xfe, 0xff] {
            for len in [
                0, 15, 16, 17, 64, 192, 193, 208, 256, 319, 320, 336, 1_420, 4_096,
            ] {
                tag_agrees(&[fill; 64], &vec![byte; len]);
            }
        }
    }
}

/// Numbers at the modulus: r is 1 or 2, so that the sum is what the blocks say.
#[test]
fn a_sum_at_the_modulus_is_reduced() {
    for r in [1, 2, 4] {
        let mut key = [0; 64];
        key[0] = r;
        for first in [0xfa, 0xfb, 0xfc, 0xff] {
            for blocks in [1, 2, 12, 13, 20, 21] {
                let mut data = vec![0xff; 16 * blocks];
                data[0] = first;
                tag_agrees(&key, &data);
            }
        }
    }
}

proptest! {
    #[test]
    fn random_messages_are_sealed_as_by_ring(
        key: [u8; 32],
        counter: u64,
        data in prop::collection::vec(any::<u8>(), 0..4_000),
    ) {
        agrees(key, counter, &data);
    }

    #[test]
    fn random_tags_are_those_of_another_hand(
        key in prop::collection::vec(any::<u8>(), 64),
        data in prop::collection::vec(prop::sample::select(vec![0_u8, 1, 0x7f, 0xfe, 0xff]), 0..700),
    ) {
        tag_agrees(&key.try_into().unwrap(), &data);
    }
}
