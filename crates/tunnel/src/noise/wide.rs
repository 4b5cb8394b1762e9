//! ChaCha20-Poly1305 (RFC 8439) without additional data, in vectors of 512 bits, for processors that have AVX-512
//! with IFMA.
//!
//! The key stream of a whole packet is made at once, four blocks in each group of four vectors (`wide/stream.rs`), and
//! its tag from eight blocks at a time (`wide/tag.rs`). No branch and no address depends on a secret. Why it is ours:
//! `docs/decisions/0017-own-transport.md`.

mod stream;
mod tag;

use pulp::NullaryFnOnce;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use stream::{Blocks, Start, xor};
use tag::tag;

/// Bytes that one pass of the key stream covers beside the block that the tag's key comes from: more than any packet of a
/// home line has.
const FIRST_BYTES: usize = 23 * 64;
/// Bytes of a later pass.
const PASS_BYTES: usize = 24 * 64;

pulp::simd_type! {
    /// What the processor has to have: vectors of 512 bits, and multiplication of 52-bit numbers in them. Intel's servers
    /// have both since Ice Lake, AMD's since Zen 4.
    pub(super) struct Simd {
        pub(super) avx512f: "avx512f",
        pub(super) avx512bw: "avx512bw",
        pub(super) avx512dq: "avx512dq",
        pub(super) avx512vl: "avx512vl",
        pub(super) avx512ifma: "avx512ifma",
    }
}

/// A key, of one direction of one session.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct Key {
    words: [u32; 8],
    #[zeroize(skip)]
    simd: Simd,
}

impl Key {
    /// The key, if this processor has what it takes.
    pub(super) fn new(bytes: &[u8; 32]) -> Option<Self> {
        let simd = Simd::try_new()?;
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        Some(Self { words, simd })
    }

    /// Encrypts `data` where it is and returns its tag.
    pub(super) fn seal(&self, counter: u64, data: &mut [u8]) -> [u8; 16] {
        let start = Start::new(&self.words, counter);
        let simd = self.simd;
        simd.vectorize(Seal { simd, start, data })
    }

    /// Decrypts `data` where it is if `expected` is its tag; else leaves it as it is.
    pub(super) fn open(&self, counter: u64, data: &mut [u8], expected: &[u8; 16]) -> bool {
        let start = Start::new(&self.words, counter);
        let simd = self.simd;
        simd.vectorize(Open {
            simd,
            start,
            data,
            expected,
        })
    }
}

struct Seal<'a> {
    simd: Simd,
    start: Start,
    data: &'a mut [u8],
}

struct Open<'a> {
    simd: Simd,
    start: Start,
    data: &'a mut [u8],
    expected: &'a [u8; 16],
}

/// Calls `$of::<N>` with as many groups of blocks as the first pass needs: a short packet costs a short one's time.
macro_rules! with_groups {
    ($bytes:expr, $self:ident.$of:ident) => {
        match ($bytes.min(FIRST_BYTES) + 64).div_ceil(256) {
            0 | 1 => $self.$of::<1>(),
            2 => $self.$of::<2>(),
            3 => $self.$of::<3>(),
            4 => $self.$of::<4>(),
            5 => $self.$of::<5>(),
            _ => $self.$of::<6>(),
        }
    };
}

impl NullaryFnOnce for Seal<'_> {
    type Output = [u8; 16];

    #[inline(always)]
    fn call(self) -> [u8; 16] {
        with_groups!(self.data.len(), self.with)
    }
}

impl Seal<'_> {
    #[inline(always)]
    fn with<const N: usize>(self) -> [u8; 16] {
        let blocks: Blocks<N> = self.start.blocks(self.simd, 0);
        let key = apply(self.simd, &self.start, &blocks, self.data);
        tag(self.simd, &key, self.data)
    }
}

impl NullaryFnOnce for Open<'_> {
    type Output = bool;

    #[inline(always)]
    fn call(self) -> bool {
        with_groups!(self.data.len(), self.with)
    }
}

impl Open<'_> {
    #[inline(always)]
    fn with<const N: usize>(self) -> bool {
        let blocks: Blocks<N> = self.start.blocks(self.simd, 0);
        let (key, _) = blocks.split();
        let is_right = tag(self.simd, &key, self.data).ct_eq(self.expected).into();
        if is_right {
            apply(self.simd, &self.start, &blocks, self.data);
        }
        is_right
    }
}

/// Adds the key stream to `data`, whose first blocks are there already, and returns the tag's key.
#[inline(always)]
fn apply<const N: usize>(
    simd: Simd,
    start: &Start,
    blocks: &Blocks<N>,
    data: &mut [u8],
) -> [u8; 64] {
    let (key, stream) = blocks.split();
    let (first, rest) = data.split_at_mut(data.len().min(FIRST_BYTES));
    xor(simd, stream, first);
    for (pass, data) in rest.chunks_mut(PASS_BYTES).enumerate() {
        let blocks: Blocks<6> = start.blocks(simd, 24 * (pass as u32 + 1));
        xor(simd, blocks.all(), data);
    }
    key
}

#[cfg(test)]
mod tests;
