//! Poly1305 (RFC 8439, section 2.5) over eight blocks at a time: lane `i` of a vector sums every eighth block times r^8, and
//! at the end each lane is multiplied by the power that it lacks. Numbers modulo 2^130 - 5 are five limbs of 26 bits, of which each
//! has a 64-bit lane to grow in.

mod short;

use std::arch::x86_64::__m512i;

use pulp::x86::V4;

const BLOCK: usize = 16;
/// Up to here the powers of r would cost more than they save.
const SHORT_BYTES: usize = 192;
/// Blocks in a step.
const LANES: usize = 8;
const LIMB_BITS: u32 = 26;
const LIMB: u64 = (1 << LIMB_BITS) - 1;
/// The bit above a block's 128, in its last limb.
const ABOVE: u64 = 1 << 24;
/// Bits of r that are always zero.
const CLAMP: [u64; 2] = [0x0fff_fffc_0fff_ffff, 0x0fff_fffc_0fff_fffc];

/// Eight numbers.
type Wide = [__m512i; 5];

/// What is needed to multiply by a number: its limbs, and five times its limbs.
#[derive(Clone, Copy)]
struct Factor {
    limbs: Wide,
    fives: Wide,
}

/// The tag of `data` as ciphertext without additional data, by the first 32 bytes of `key`.
#[inline(always)]
pub(super) fn tag(simd: V4, key: &[u8; 64], data: &[u8]) -> [u8; 16] {
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
    let mut limbs = [0; 5];
    for (limb, lanes) in limbs.iter_mut().zip(sum) {
        *limb = simd.avx512f._mm512_reduce_add_epi64(lanes) as u64;
    }
    finish(limbs).wrapping_add(pad).to_le_bytes()
}

struct Powers {
    /// r^8 in every lane.
    step: Factor,
    /// r^8 to r^1 in the lanes, for the order that [`spread`] brings blocks into.
    last: Factor,
}

impl Powers {
    /// A lane's exponent less one is a number of three bits: each bit is a multiplication that some lanes skip.
    #[inline(always)]
    fn of(simd: V4, r: Wide) -> Self {
        let r1 = Factor::of(simd, r);
        let r2 = multiply(simd, r, &r1);
        let factor2 = Factor::of(simd, r2);
        let r4 = multiply(simd, r2, &factor2);
        let factor4 = Factor::of(simd, r4);
        let r8 = multiply(simd, r4, &factor4);
        // Blocks 0, 4, 1, 5, 2, 6, 3, 7 are in the lanes, and lack 8, 4, 7, 3, 6, 2, 5, 1.
        let one = splat(simd, [1, 0, 0, 0, 0]);
        let twos = pick(simd, 0b0000_1111, r2, one);
        let fours = pick(simd, 0b0101_0101, r4, one);
        let mut last = pick(simd, 0b0011_0011, r2, r);
        last = multiply(simd, last, &Factor::of(simd, twos));
        last = multiply(simd, last, &Factor::of(simd, fours));
        Self {
            step: Factor::of(simd, r8),
            last: Factor::of(simd, last),
        }
    }
}

/// The numbers of `yes` in `lanes`, those of `no` elsewhere.
#[inline(always)]
fn pick(simd: V4, lanes: u8, yes: Wide, no: Wide) -> Wide {
    let mut picked = no;
    for (limb, yes) in picked.iter_mut().zip(yes) {
        *limb = simd.avx512f._mm512_mask_blend_epi64(lanes, *limb, yes);
    }
    picked
}

impl Factor {
    #[inline(always)]
    fn of(simd: V4, limbs: Wide) -> Self {
        let f = simd.avx512f;
        let mut fives = limbs;
        for limb in &mut fives {
            *limb = f._mm512_add_epi64(*limb, f._mm512_slli_epi64::<2>(*limb));
        }
        Self { limbs, fives }
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
fn absorb(simd: V4, powers: &Powers, data: &[u8]) -> Wide {
    let f = simd.avx512f;
    let (blocks, end) = blocks_of(data);
    let end = end.as_slice();
    let count = blocks.len() + end.len();
    let zeros = count.next_multiple_of(LANES) - count;
    let mut sum = [f._mm512_setzero_si512(); 5];
    // The first step may begin with zeros, and end with the message's end.
    let first = (LANES - zeros).min(blocks.len());
    let (first, blocks) = blocks.split_at(first);
    let mut step = [[0; BLOCK]; LANES];
    fill(&mut step, zeros, first);
    let is_all = blocks.is_empty();
    if is_all {
        fill(&mut step, zeros + first.len(), end);
    }
    add(simd, &mut sum, spread(simd, &step, above(simd, zeros)));
    if is_all && zeros + first.len() + end.len() == LANES {
        return sum;
    }
    let all = f._mm512_set1_epi64(ABOVE as i64);
    let (steps, blocks) = blocks.as_chunks::<LANES>();
    for step in steps {
        sum = multiply(simd, sum, &powers.step);
        add(simd, &mut sum, spread(simd, step, all));
    }
    // What is left is a full step less the end's blocks, or nothing.
    let mut step = [[0; BLOCK]; LANES];
    fill(&mut step, 0, blocks);
    fill(&mut step, blocks.len(), end);
    sum = multiply(simd, sum, &powers.step);
    add(simd, &mut sum, spread(simd, &step, all));
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
fn above(simd: V4, zeros: usize) -> __m512i {
    let lanes = [0_usize, 4, 1, 5, 2, 6, 3, 7].map(|block| if block < zeros { 0 } else { ABOVE });
    let _ = simd;
    pulp::cast(lanes)
}

/// Eight blocks as limbs, in the order 0, 4, 1, 5, 2, 6, 3, 7.
#[inline(always)]
fn spread(simd: V4, step: &[[u8; BLOCK]; LANES], above: __m512i) -> Wide {
    let f = simd.avx512f;
    let [a, b]: [__m512i; 2] = pulp::cast(*step);
    let low = f._mm512_unpacklo_epi64(a, b);
    let high = f._mm512_unpackhi_epi64(a, b);
    let mask = f._mm512_set1_epi64(LIMB as i64);
    let limb = |bits| f._mm512_and_si512(bits, mask);
    let middle = f._mm512_or_si512(
        f._mm512_srli_epi64::<52>(low),
        f._mm512_slli_epi64::<12>(high),
    );
    [
        limb(low),
        limb(f._mm512_srli_epi64::<26>(low)),
        limb(middle),
        limb(f._mm512_srli_epi64::<14>(high)),
        f._mm512_or_si512(f._mm512_srli_epi64::<40>(high), above),
    ]
}

#[inline(always)]
fn add(simd: V4, sum: &mut Wide, other: Wide) {
    for (limb, other) in sum.iter_mut().zip(other) {
        *limb = simd.avx512f._mm512_add_epi64(*limb, other);
    }
}

/// The product, its limbs a little over 26 bits at most. Those of `sum` may have 28 bits, those of `factor` 27.
#[inline(always)]
fn multiply(simd: V4, sum: Wide, factor: &Factor) -> Wide {
    let f = simd.avx512f;
    let mut product = [f._mm512_setzero_si512(); 5];
    for (i, limb) in sum.iter().enumerate() {
        for (j, sum) in product.iter_mut().enumerate() {
            // What goes beyond 2^130 comes back five times.
            let by = if j >= i {
                factor.limbs[j - i]
            } else {
                factor.fives[5 + j - i]
            };
            *sum = f._mm512_add_epi64(*sum, f._mm512_mul_epu32(*limb, by));
        }
    }
    carry(simd, product)
}

#[inline(always)]
fn carry(simd: V4, [mut a, mut b, mut c, mut d, mut e]: Wide) -> Wide {
    let f = simd.avx512f;
    let mask = f._mm512_set1_epi64(LIMB as i64);
    let pass = |from: &mut __m512i, to: &mut __m512i| {
        *to = f._mm512_add_epi64(*to, f._mm512_srli_epi64::<LIMB_BITS>(*from));
        *from = f._mm512_and_si512(*from, mask);
    };
    // Two chains at a time.
    pass(&mut a, &mut b);
    pass(&mut d, &mut e);
    pass(&mut b, &mut c);
    let over = f._mm512_srli_epi64::<LIMB_BITS>(e);
    e = f._mm512_and_si512(e, mask);
    a = f._mm512_add_epi64(a, f._mm512_add_epi64(over, f._mm512_slli_epi64::<2>(over)));
    pass(&mut c, &mut d);
    pass(&mut a, &mut b);
    pass(&mut d, &mut e);
    [a, b, c, d, e]
}

/// A number of 128 bits and none above.
fn limbs(low: u64, high: u64) -> [u64; 5] {
    [
        low & LIMB,
        low >> 26 & LIMB,
        (low >> 52 | high << 12) & LIMB,
        high >> 14 & LIMB,
        high >> 40,
    ]
}

#[inline(always)]
fn splat(simd: V4, limbs: [u64; 5]) -> Wide {
    let mut lanes = [simd.avx512f._mm512_setzero_si512(); 5];
    for (lanes, limb) in lanes.iter_mut().zip(limbs) {
        *lanes = simd.avx512f._mm512_set1_epi64(limb as i64);
    }
    lanes
}

/// The number modulo 2^130 - 5, of which the lower 128 bits.
fn finish(mut limbs: [u64; 5]) -> u128 {
    let mut over = 0;
    for _ in 0..2 {
        limbs[0] += over * 5;
        over = 0;
        for limb in &mut limbs {
            *limb += over;
            over = *limb >> LIMB_BITS;
            *limb &= LIMB;
        }
    }
    limbs[0] += over * 5;
    let [a, b, c, d, e] = limbs.map(u128::from);
    let low = a + (b << 26) + (c << 52) + (d << 78);
    // The last limb reaches over 128 bits.
    let (low, is_over) = low.overflowing_add(e << 104);
    reduce(low, (e >> 24) + u128::from(is_over))
}

/// The lower 128 bits of `top * 2^128 + low` modulo 2^130 - 5, of which it is less than twice.
fn reduce(low: u128, top: u128) -> u128 {
    // Five more than what is not less than the modulus goes beyond 2^130.
    let (_, is_over) = low.overflowing_add(5);
    low.wrapping_add(5 * ((top + u128::from(is_over)) >> 2))
}
