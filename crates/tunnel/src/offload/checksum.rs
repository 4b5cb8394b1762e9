//! The internet checksum (RFC 1071), summed in the machine's byte order: the sum of swapped words is the swapped sum.

#[cfg(target_arch = "x86_64")]
use pulp::{NullaryFnOnce, x86::V4};

/// From here on it is worth to ask whether there are vectors of 512 bits.
#[cfg(target_arch = "x86_64")]
const LONG: usize = 256;

/// Adds `bytes`, which start at an even place of what is summed.
pub(crate) fn add(sum: u64, bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() >= LONG
        && let Some(simd) = V4::try_new()
    {
        return simd.vectorize(Long { sum, bytes });
    }
    let (sum, rest) = strides::<32, 8>(sum, bytes);
    words(sum, rest)
}

#[cfg(target_arch = "x86_64")]
struct Long<'b> {
    sum: u64,
    bytes: &'b [u8],
}

#[cfg(target_arch = "x86_64")]
impl NullaryFnOnce for Long<'_> {
    type Output = u64;

    #[inline(always)]
    fn call(self) -> u64 {
        let (sum, rest) = strides::<128, 32>(self.sum, self.bytes);
        let (sum, rest) = strides::<32, 8>(sum, rest);
        words(sum, rest)
    }
}

/// Sums as many whole strides as there are, four bytes of each in each of the lanes, and gives the rest; the compiler makes
/// vector instructions of it.
#[inline(always)]
fn strides<const STRIDE: usize, const LANES: usize>(sum: u64, bytes: &[u8]) -> (u64, &[u8]) {
    const { assert!(STRIDE == 4 * LANES) };
    let mut lanes = [0_u64; LANES];
    let mut chunks = bytes.chunks_exact(STRIDE);
    for chunk in &mut chunks {
        for (lane, word) in lanes.iter_mut().zip(chunk.chunks_exact(4)) {
            let word = u32::from_ne_bytes([word[0], word[1], word[2], word[3]]);
            // 2^32 strides before it could wrap.
            *lane = lane.wrapping_add(u64::from(word));
        }
    }
    let sum = lanes.iter().fold(sum, |sum, lane| sum + lane);
    (sum, chunks.remainder())
}

#[inline(always)]
fn words(mut sum: u64, bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(2);
    for word in &mut words {
        sum += u64::from(u16::from_ne_bytes([word[0], word[1]]));
    }
    if let [last] = words.remainder() {
        sum += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    sum
}

/// Adds a number that stands in the packet in network byte order.
pub(crate) fn add_u16(sum: u64, number: u16) -> u64 {
    sum + u64::from(number.to_be())
}

/// The sum in 16 bits, as it is stored with `to_ne_bytes`.
pub(crate) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The checksum of an IPv4 header whose checksum field is zero.
pub(crate) fn of_header(header: &[u8]) -> [u8; 2] {
    (!fold(add(0, header))).to_ne_bytes()
}
