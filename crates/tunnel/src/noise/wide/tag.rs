//! Poly1305 (RFC 8439, section 2.5) over eight blocks at a time: lane `i` of a vector sums every eighth block times r^8, and
//! at the end each lane is multiplied by the power that it lacks. Numbers modulo 2^130 - 5 are three limbs of 44, 44 and 42 bits, each in
//! a 64-bit lane, multiplied by the instructions that give the lower and the upper 52 bits of a product (AVX-512 IFMA).

mod short;

use std::arch::x86_64::__m512i;

use super::Simd;

const BLOCK: usize = 16;
/// Up to here the powers of r would cost more than they save.
const SHORT_BYTES: usize = 192;
/// Blocks in a step.
const LANES: usize = 8;
const LIMB_BITS: u32 = 44;
const LIMB: u64 = (1 << LIMB_BITS) - 1;
const TOP_BITS: u32 = 42;
const TOP: u64 = (1 << TOP_BITS) - 1;
/// The bit above a block's 128, in its last limb.
const ABOVE: u64 = 1 << 40;
/// Bits of r that are always zero.
const CLAMP: [u64; 2] = [0x0fff_fffc_0fff_ffff, 0x0fff_fffc_0fff_fffc];

/// Eight numbers.
type Wide = [__m512i; 3];

/// What is needed to multiply by a number: its limbs, and twenty times its limbs, since 2^132 is 4 * 5 modulo 2^130 - 5.
#[derive(Clone, Copy)]
struct Factor {
    limbs: Wide,
    twenties: Wide,
}

/// The tag of `data` as ciphertext without additional data, by the first 32 bytes of `key`.
#[inline(always)]
pub(super) fn tag(simd: Simd, key: &[u8; 64], data: &[u8]) -> [u8; 16] {
    let word = |at: usize| {
        let bytes = key.get(at..).and_then(<[u8]>::first_chunk);
        bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
    };
    let r = [word(0) & CLAMP[0], word(8) & CLAMP[1]];
    let pad = u128::from(word(16)) | u128::from(word(24)) << 64;
    if data.len() <= SHORT_BYTES {
        return short::sum(r, data).wrapping_add(pad).to_le_bytes();
    }
    let r = splat(simd, limbs(r[0], r[1]));
    let powers = Powers::of(simd, r);
    let sum = absorb(simd, &powers, data);
    let sum = multiply(simd, sum, &powers.last);
    let mut limbs = [0; 3];
    for (limb, lanes) in limbs.iter_mut().zip(sum) {
        *limb = simd.avx512f._mm512_reduce_add_epi64(lanes) as u64;
    }
    short::finish(limbs).wrapping_add(pad).to_le_bytes()
}

struct Powers {
    /// r^8 in every lane.
    step: Factor,
    /// r^16.
    two_steps: Factor,
    /// r^8 to r^1 in the lanes, for the order that [`spread`] brings blocks into.
    last: Factor,
}

impl Powers {
    /// A lane's exponent less one is a number of three bits: each bit is a multiplication that some lanes skip.
    #[inline(always)]
    fn of(simd: Simd, r: Wide) -> Self {
        let r1 = Factor::of(simd, r);
        let r2 = multiply(simd, r, &r1);
        let factor2 = Factor::of(simd, r2);
        let r4 = multiply(simd, r2, &factor2);
        let factor4 = Factor::of(simd, r4);
        let r8 = multiply(simd, r4, &factor4);
        let step = Factor::of(simd, r8);
        // Blocks 0, 4, 1, 5, 2, 6, 3, 7 are in the lanes, and lack 8, 4, 7, 3, 6, 2, 5, 1.
        let one = splat(simd, [1, 0, 0]);
        let twos = pick(simd, 0b0000_1111, r2, one);
        let fours = pick(simd, 0b0101_0101, r4, one);
        let mut last = pick(simd, 0b0011_0011, r2, r);
        last = multiply(simd, last, &Factor::of(simd, twos));
        last = multiply(simd, last, &Factor::of(simd, fours));
        Self {
            step,
            two_steps: Factor::of(simd, multiply(simd, r8, &step)),
            last: Factor::of(simd, last),
        }
    }
}

/// The numbers of `yes` in `lanes`, those of `no` elsewhere.
#[inline(always)]
fn pick(simd: Simd, lanes: u8, yes: Wide, no: Wide) -> Wide {
    let mut picked = no;
    for (limb, yes) in picked.iter_mut().zip(yes) {
        *limb = simd.avx512f._mm512_mask_blend_epi64(lanes, *limb, yes);
    }
    picked
}

impl Factor {
    #[inline(always)]
    fn of(simd: Simd, limbs: Wide) -> Self {
        let f = simd.avx512f;
        let mut twenties = limbs;
        for limb in &mut twenties {
            let four = f._mm512_slli_epi64::<2>(*limb);
            *limb = f._mm512_add_epi64(f._mm512_slli_epi64::<4>(*limb), four);
        }
        Self { limbs, twenties }
    }
}

/// The blocks that are in `data`, and those that end it: what is left over, and its length. The first of these is missing if
/// nothing is left over.
#[inline(always)]
fn blocks_of(data: &[u8]) -> (&[[u8; BLOCK]], End) {
    let (blocks, rest) = data.as_chunks();
    let mut end = [[0; BLOCK]; 2];
    let [last, length] = &mut end;
    last.get_mut(..rest.len())
        .unwrap_or_default()
        .copy_from_slice(rest);
    length[8..].copy_from_slice(&(data.len() as u64).to_le_bytes());
    let from = usize::from(rest.is_empty());
    (blocks, End { blocks: end, from })
}

struct End {
    blocks: [[u8; BLOCK]; 2],
    from: usize,
}

impl End {
    fn as_slice(&self) -> &[[u8; BLOCK]] {
        self.blocks.get(self.from..).unwrap_or_default()
    }
}

/// Sums blocks, of which the first few go where zeros before them make up a full step.
#[inline(always)]
fn absorb(simd: Simd, powers: &Powers, data: &[u8]) -> Wide {
    let f = simd.avx512f;
    let (blocks, end) = blocks_of(data);
    let end = end.as_slice();
    let count = blocks.len() + end.len();
    let zeros = count.next_multiple_of(LANES) - count;
    let none = [f._mm512_setzero_si512(); 3];
    // The first step may begin with zeros, and end with the message's end.
    let first = (LANES - zeros).min(blocks.len());
    let (first, blocks) = blocks.split_at(first);
    let mut step = [[0; BLOCK]; LANES];
    fill(&mut step, zeros, first);
    let is_all = blocks.is_empty();
    if is_all {
        fill(&mut step, zeros + first.len(), end);
    }
    let start = spread(simd, &step, above(simd, zeros));
    if is_all && zeros + first.len() + end.len() == LANES {
        return start;
    }
    let all = f._mm512_set1_epi64(ABOVE as i64);
    let (steps, blocks) = blocks.as_chunks::<LANES>();
    // What is left is a full step less the end's blocks, or nothing.
    let mut step = [[0; BLOCK]; LANES];
    fill(&mut step, 0, blocks);
    fill(&mut step, blocks.len(), end);
    // Two sums, each of every other step, so that the processor has two to do at a time; the last step is of the second one.
    let mut rest = steps.iter().chain([&step]);
    let (mut one, mut other) = if steps.len().is_multiple_of(2) {
        let next = rest.next().map(|step| spread(simd, step, all));
        (start, next.unwrap_or(none))
    } else {
        (none, start)
    };
    while let (Some(step), Some(next)) = (rest.next(), rest.next()) {
        one = multiply(simd, one, &powers.two_steps);
        other = multiply(simd, other, &powers.two_steps);
        add(simd, &mut one, spread(simd, step, all));
        add(simd, &mut other, spread(simd, next, all));
    }
    let mut sum = multiply(simd, one, &powers.step);
    add(simd, &mut sum, other);
    sum
}

fn fill(step: &mut [[u8; BLOCK]; LANES], at: usize, blocks: &[[u8; BLOCK]]) {
    let places = step.get_mut(at..).unwrap_or_default();
    for (place, block) in places.iter_mut().zip(blocks) {
        *place = *block;
    }
}

/// The bit above each block, but for the zeros before the first.
#[inline(always)]
fn above(simd: Simd, zeros: usize) -> __m512i {
    let lanes = [0_usize, 4, 1, 5, 2, 6, 3, 7].map(|block| if block < zeros { 0 } else { ABOVE });
    let _ = simd;
    pulp::cast(lanes)
}

/// Eight blocks as limbs, in the order 0, 4, 1, 5, 2, 6, 3, 7.
#[inline(always)]
fn spread(simd: Simd, step: &[[u8; BLOCK]; LANES], above: __m512i) -> Wide {
    let f = simd.avx512f;
    let [a, b]: [__m512i; 2] = pulp::cast(*step);
    let low = f._mm512_unpacklo_epi64(a, b);
    let high = f._mm512_unpackhi_epi64(a, b);
    let limb = |bits| f._mm512_and_si512(bits, f._mm512_set1_epi64(LIMB as i64));
    let middle = f._mm512_or_si512(
        f._mm512_srli_epi64::<44>(low),
        f._mm512_slli_epi64::<20>(high),
    );
    [
        limb(low),
        limb(middle),
        f._mm512_or_si512(f._mm512_srli_epi64::<24>(high), above),
    ]
}

#[inline(always)]
fn add(simd: Simd, sum: &mut Wide, other: Wide) {
    for (limb, other) in sum.iter_mut().zip(other) {
        *limb = simd.avx512f._mm512_add_epi64(*limb, other);
    }
}

/// The product, its limbs little over 44, 44 and 42 bits. Those of `sum` may have 47 bits, those of `factor` 45.
#[inline(always)]
fn multiply(simd: Simd, [a, b, c]: Wide, factor: &Factor) -> Wide {
    let (f, zero) = (simd.avx512f, simd.avx512f._mm512_setzero_si512());
    let [r, s, t] = factor.limbs;
    let [_, twenty_s, twenty_t] = factor.twenties;
    // Lower and upper halves of what stands at each limb; the upper ones weigh 2^52.
    let sums = |[x, y, z]: Wide| {
        let i = simd.avx512ifma;
        let low = i._mm512_madd52lo_epu64(zero, a, x);
        let low = i._mm512_madd52lo_epu64(low, b, y);
        let low = i._mm512_madd52lo_epu64(low, c, z);
        let high = i._mm512_madd52hi_epu64(zero, a, x);
        let high = i._mm512_madd52hi_epu64(high, b, y);
        [low, i._mm512_madd52hi_epu64(high, c, z)]
    };
    let [low0, high0] = sums([r, twenty_t, twenty_s]);
    let [low1, high1] = sums([s, r, twenty_t]);
    let [low2, high2] = sums([t, s, r]);
    let limb = |bits| f._mm512_and_si512(bits, f._mm512_set1_epi64(LIMB as i64));
    let plus = |x, y| f._mm512_add_epi64(x, y);
    let over = |bits| f._mm512_srli_epi64::<LIMB_BITS>(bits);
    // 2^52 is 2^8 of the next limb, whose weight is 2^44 of this one's.
    let middle = plus(plus(low1, f._mm512_slli_epi64::<8>(high0)), over(low0));
    let top = plus(plus(low2, f._mm512_slli_epi64::<8>(high1)), over(middle));
    // And beyond the top limb's 42 bits, 2^10 of what comes back five times.
    let beyond = plus(
        f._mm512_slli_epi64::<10>(high2),
        f._mm512_srli_epi64::<TOP_BITS>(top),
    );
    let five = plus(beyond, f._mm512_slli_epi64::<2>(beyond));
    let bottom = plus(limb(low0), five);
    [
        limb(bottom),
        plus(limb(middle), over(bottom)),
        f._mm512_and_si512(top, f._mm512_set1_epi64(TOP as i64)),
    ]
}

/// A number of 128 bits and none above.
fn limbs(low: u64, high: u64) -> [u64; 3] {
    [low & LIMB, (low >> 44 | high << 20) & LIMB, high >> 24]
}

#[inline(always)]
fn splat(simd: Simd, limbs: [u64; 3]) -> Wide {
    let mut lanes = [simd.avx512f._mm512_setzero_si512(); 3];
    for (lanes, limb) in lanes.iter_mut().zip(limbs) {
        *lanes = simd.avx512f._mm512_set1_epi64(limb as i64);
    }
    lanes
}

/// The lower 128 bits of `top * 2^128 + low` modulo 2^130 - 5, of which it is less than twice.
fn reduce(low: u128, top: u128) -> u128 {
    // Five more than what is not less than the modulus goes beyond 2^130.
    let (_, is_over) = low.overflowing_add(5);
    low.wrapping_add(5 * ((top + u128::from(is_over)) >> 2))
}
