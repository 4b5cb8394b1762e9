//! Poly1305 (RFC 8439, section 2.5) of a message alone, as NaCl's box has it, in the products of 64-bit numbers that
//! servers' processors have. Messages here are short: what prepares vectors for long ones costs more than it saves, and
//! the crate's vector code, whose intrinsics are not inlined, took a quarter of a lookup. No branch and no address
//! depends on a secret.

/// Bits of the multiplier that are always zero.
const CLAMP: u128 = 0x0fff_fffc_0fff_fffc_0fff_fffc_0fff_ffff;
const BLOCK: usize = 16;

/// The sum so far: 128 bits, and a few above them.
#[derive(Clone, Copy)]
struct Sum {
    low: u128,
    above: u64,
}

/// The tag of `message` under a key for one message.
pub(super) fn tag(key: &[u8; 32], message: &[u8]) -> [u8; 16] {
    let (multiplier, pad) = key.split_at(BLOCK);
    let multiplier = number(multiplier) & CLAMP;
    let mut sum = Sum { low: 0, above: 0 };
    let (blocks, rest) = message.as_chunks::<BLOCK>();
    for block in blocks {
        sum = sum.plus(u128::from_le_bytes(*block), 1).times(multiplier);
    }
    if !rest.is_empty() {
        let end = number(rest) | 1 << (8 * rest.len());
        sum = sum.plus(end, 0).times(multiplier);
    }
    sum.reduced().wrapping_add(number(pad)).to_le_bytes()
}

/// Up to 16 bytes, the least significant first.
fn number(bytes: &[u8]) -> u128 {
    let mut whole = [0; BLOCK];
    for (to, byte) in whole.iter_mut().zip(bytes) {
        *to = *byte;
    }
    u128::from_le_bytes(whole)
}

impl Sum {
    #[inline(always)]
    fn plus(self, block: u128, above: u64) -> Self {
        let (low, is_over) = self.low.overflowing_add(block);
        Self {
            low,
            above: self.above + above + u64::from(is_over),
        }
    }

    /// Modulo 2^130 - 5, but for a little. The halves of `by` are below 2^60, and `above` is at most 7, so that no sum of
    /// products overflows.
    #[inline(always)]
    fn times(self, by: u128) -> Self {
        let product = |a: u64, b: u64| u128::from(a) * u128::from(b);
        let (a, b, c) = (self.low as u64, (self.low >> 64) as u64, self.above);
        let (r, s) = (by as u64, (by >> 64) as u64);
        let first = product(a, r);
        let second = product(a, s) + product(b, r) + (first >> 64);
        let third = product(b, s) + product(c, r) + (second >> 64);
        let fourth = product(c, s) + (third >> 64);
        let low = second << 64 | u128::from(first as u64);
        // What is above 2^130 counts five times: four times as it stands, and once moved down.
        let high = fourth << 64 | u128::from(third as u64);
        let (low, one) = low.overflowing_add(high & !3);
        let (low, two) = low.overflowing_add(high >> 2);
        Self {
            low,
            above: (high as u64 & 3) + u64::from(one) + u64::from(two),
        }
    }

    /// The lower 128 bits of the number modulo 2^130 - 5.
    fn reduced(self) -> u128 {
        let (less, is_over) = self.low.overflowing_add(5);
        let is_more = (self.above + u64::from(is_over)) >> 2 & 1;
        let mask = 0_u128.wrapping_sub(u128::from(is_more));
        (less & mask) | (self.low & !mask)
    }
}

#[cfg(test)]
mod tests {
    use poly1305::Poly1305;
    use poly1305::universal_hash::KeyInit as _;
    use proptest::prelude::*;

    use super::*;

    fn of_the_crate(key: &[u8; 32], message: &[u8]) -> [u8; 16] {
        Poly1305::new(key.into()).compute_unpadded(message).into()
    }

    #[test]
    fn numbers_at_the_edge_of_the_field_are_reduced_as_the_crate_does() {
        // With the multiplier 1 the blocks are summed up: to p - 1, p, p + 1 and beyond.
        for pad in [0, 0xff] {
            let mut key = [pad; 32];
            key[..16].fill(0);
            key[0] = 1;
            for low in [0, 1, 0xfa, 0xfb, 0xfc, 0xfe, 0xff] {
                let mut block = [0xff; 16];
                block[0] = low;
                for blocks in 1..6 {
                    let message = block.repeat(blocks);
                    assert_eq!(tag(&key, &message), of_the_crate(&key, &message));
                }
            }
        }
        let key = [0xff; 32];
        for len in 0..300 {
            let message = vec![0xff; len];
            assert_eq!(tag(&key, &message), of_the_crate(&key, &message), "{len}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn any_key_and_message_have_the_tag_that_the_crate_gives(
            key in any::<[u8; 32]>(),
            message in proptest::collection::vec(any::<u8>(), 0..600),
        ) {
            prop_assert_eq!(tag(&key, &message), of_the_crate(&key, &message));
        }
    }
}
