//! ChaCha20's key stream (RFC 8439, section 2.3): a group is four blocks side by side, a row of the state in each vector.

use std::arch::x86_64::__m512i;

use super::Simd;

/// "expand 32-byte k".
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];
/// The block counters of a group's blocks.
const COUNTERS: [u32; 16] = [0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0];
const DOUBLE_ROUNDS: usize = 10;

/// The state that every block begins with, but for its counter.
#[derive(Clone, Copy)]
pub(super) struct Start {
    rows: [[u32; 4]; 4],
}

/// The blocks of `N` groups in order.
pub(super) struct Blocks<const N: usize>([[__m512i; 4]; N]);

impl Start {
    /// The nonce is WireGuard's: 32 zero bits and the counter (whitepaper, section 5.4.6).
    pub(super) fn new(key: &[u32; 8], counter: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = *key;
        let nonce = [0, 0, counter as u32, (counter >> 32) as u32];
        Self {
            rows: [CONSTANTS, [a, b, c, d], [e, f, g, h], nonce],
        }
    }

    /// Makes the blocks from number `first` on.
    #[inline(always)]
    pub(super) fn blocks<const N: usize>(&self, simd: Simd, first: u32) -> Blocks<N> {
        let f = simd.avx512f;
        let mut rows = [f._mm512_setzero_si512(); 4];
        for (row, words) in rows.iter_mut().zip(self.rows) {
            *row = f._mm512_broadcast_i32x4(pulp::cast(words));
        }
        let mut starts = [rows; N];
        for (group, start) in starts.iter_mut().enumerate() {
            let mut counters = COUNTERS;
            for counter in counters.iter_mut().step_by(4) {
                *counter = counter.wrapping_add(first.wrapping_add(4 * group as u32));
            }
            start[3] = f._mm512_add_epi32(start[3], pulp::cast(counters));
        }
        let mut groups = starts;
        for _ in 0..DOUBLE_ROUNDS {
            quarter_rounds(simd, &mut groups);
            for [_, b, c, d] in &mut groups {
                *b = f._mm512_shuffle_epi32::<0b00_11_10_01>(*b);
                *c = f._mm512_shuffle_epi32::<0b01_00_11_10>(*c);
                *d = f._mm512_shuffle_epi32::<0b10_01_00_11>(*d);
            }
            quarter_rounds(simd, &mut groups);
            for [_, b, c, d] in &mut groups {
                *b = f._mm512_shuffle_epi32::<0b10_01_00_11>(*b);
                *c = f._mm512_shuffle_epi32::<0b01_00_11_10>(*c);
                *d = f._mm512_shuffle_epi32::<0b00_11_10_01>(*d);
            }
        }
        for (group, start) in groups.iter_mut().zip(starts) {
            for (row, start) in group.iter_mut().zip(start) {
                *row = f._mm512_add_epi32(*row, start);
            }
            *group = in_order(simd, *group);
        }
        Blocks(groups)
    }
}

/// One quarter round in every column. Step by step through all groups, so that the processor has several to do at a time.
#[inline(always)]
fn quarter_rounds<const N: usize>(simd: Simd, groups: &mut [[__m512i; 4]; N]) {
    let f = simd.avx512f;
    for [a, b, _, d] in groups.iter_mut() {
        *a = f._mm512_add_epi32(*a, *b);
        *d = f._mm512_rol_epi32::<16>(f._mm512_xor_si512(*d, *a));
    }
    for [_, b, c, d] in groups.iter_mut() {
        *c = f._mm512_add_epi32(*c, *d);
        *b = f._mm512_rol_epi32::<12>(f._mm512_xor_si512(*b, *c));
    }
    for [a, b, _, d] in groups.iter_mut() {
        *a = f._mm512_add_epi32(*a, *b);
        *d = f._mm512_rol_epi32::<8>(f._mm512_xor_si512(*d, *a));
    }
    for [_, b, c, d] in groups.iter_mut() {
        *c = f._mm512_add_epi32(*c, *d);
        *b = f._mm512_rol_epi32::<7>(f._mm512_xor_si512(*b, *c));
    }
}

/// Four rows of four blocks become four blocks of four rows.
#[inline(always)]
fn in_order(simd: Simd, [a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let f = simd.avx512f;
    let low_ab = f._mm512_shuffle_i32x4::<0b01_00_01_00>(a, b);
    let high_ab = f._mm512_shuffle_i32x4::<0b11_10_11_10>(a, b);
    let low_cd = f._mm512_shuffle_i32x4::<0b01_00_01_00>(c, d);
    let high_cd = f._mm512_shuffle_i32x4::<0b11_10_11_10>(c, d);
    [
        f._mm512_shuffle_i32x4::<0b10_00_10_00>(low_ab, low_cd),
        f._mm512_shuffle_i32x4::<0b11_01_11_01>(low_ab, low_cd),
        f._mm512_shuffle_i32x4::<0b10_00_10_00>(high_ab, high_cd),
        f._mm512_shuffle_i32x4::<0b11_01_11_01>(high_ab, high_cd),
    ]
}

impl<const N: usize> Blocks<N> {
    /// All of them.
    #[inline(always)]
    pub(super) fn all(&self) -> &[__m512i] {
        self.0.as_flattened()
    }

    /// The first block, of which the tag's key is a part, and the others.
    #[inline(always)]
    pub(super) fn split(&self) -> ([u8; 64], &[__m512i]) {
        match self.all() {
            [first, others @ ..] => (pulp::cast(*first), others),
            [] => ([0; 64], &[]),
        }
    }
}

/// Adds key stream to `data`.
#[inline(always)]
pub(super) fn xor(simd: Simd, stream: &[__m512i], data: &mut [u8]) {
    let f = simd.avx512f;
    let (blocks, rest) = data.as_chunks_mut::<64>();
    let mut stream = stream.iter();
    for (block, key) in blocks.iter_mut().zip(&mut stream) {
        *block = pulp::cast(f._mm512_xor_si512(pulp::cast(*block), *key));
    }
    if let Some(key) = stream.next() {
        let key: [u8; 64] = pulp::cast(*key);
        for (byte, key) in rest.iter_mut().zip(key) {
            *byte ^= key;
        }
    }
}
