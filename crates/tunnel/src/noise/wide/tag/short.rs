//! Poly1305 of a short message, block by block: three limbs of 44, 44 and 42 bits.

use super::{LIMB, LIMB_BITS, TOP, TOP_BITS, blocks_of, reduce};

/// The sum modulo 2^130 - 5, of which the lower 128 bits.
#[inline(always)]
pub(super) fn sum(r: [u64; 2], data: &[u8]) -> u128 {
    let r = split(r, 0);
    // 2^132 is 4 * 5 modulo 2^130 - 5.
    let twenties = [0, r[1] * 20, r[2] * 20];
    let mut sum = [0; 3];
    let (blocks, end) = blocks_of(data);
    for block in blocks.iter().chain(end.as_slice()) {
        let (words, _) = block.as_chunks();
        let [low, high] =
            [0, 1].map(|at| words.get(at).map_or(0, |word| u64::from_le_bytes(*word)));
        let block = split([low, high], 1 << 40);
        for (limb, more) in sum.iter_mut().zip(block) {
            *limb += more;
        }
        sum = multiply(sum, r, twenties);
    }
    finish(sum)
}

fn split([low, high]: [u64; 2], above: u64) -> [u64; 3] {
    [
        low & LIMB,
        (low >> 44 | high << 20) & LIMB,
        high >> 24 | above,
    ]
}

#[inline(always)]
fn multiply(sum: [u64; 3], r: [u64; 3], twenties: [u64; 3]) -> [u64; 3] {
    let by = |a: u64, b: u64| u128::from(a) * u128::from(b);
    let [a, b, c] = sum;
    let low = by(a, r[0]) + by(b, twenties[2]) + by(c, twenties[1]);
    let middle = by(a, r[1]) + by(b, r[0]) + by(c, twenties[2]) + (low >> LIMB_BITS);
    let top = by(a, r[2]) + by(b, r[1]) + by(c, r[0]) + (middle >> LIMB_BITS);
    let low = (low as u64 & LIMB) + (top >> TOP_BITS) as u64 * 5;
    let middle = (middle as u64 & LIMB) + (low >> LIMB_BITS);
    [low & LIMB, middle, top as u64 & TOP]
}

/// The number modulo 2^130 - 5, of which the lower 128 bits; its limbs may have 60 bits.
pub(super) fn finish([mut a, mut b, mut c]: [u64; 3]) -> u128 {
    for _ in 0..2 {
        b += a >> LIMB_BITS;
        a &= LIMB;
        c += b >> LIMB_BITS;
        b &= LIMB;
        a += (c >> TOP_BITS) * 5;
        c &= TOP;
    }
    let low = u128::from(a) + (u128::from(b) << 44);
    let (low, is_over) = low.overflowing_add(u128::from(c) << 88);
    reduce(low, u128::from(c >> 40) + u128::from(is_over))
}
