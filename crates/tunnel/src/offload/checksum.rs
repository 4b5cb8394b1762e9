//! The internet checksum (RFC 1071), summed in the machine's byte order: the sum of swapped words is the swapped sum.

/// Bytes summed in one step; the compiler makes vector instructions of it.
const STRIDE: usize = 32;

/// Adds `bytes`, which start at an even place of what is summed.
pub(crate) fn add(sum: u64, bytes: &[u8]) -> u64 {
    let mut lanes = [0_u64; STRIDE / 4];
    let mut chunks = bytes.chunks_exact(STRIDE);
    for chunk in &mut chunks {
        for (lane, word) in lanes.iter_mut().zip(chunk.chunks_exact(4)) {
            let word = u32::from_ne_bytes([word[0], word[1], word[2], word[3]]);
            // 2^32 strides before it could wrap.
            *lane = lane.wrapping_add(u64::from(word));
        }
    }
    let mut sum = lanes.iter().fold(sum, |sum, lane| sum + lane);
    let mut words = chunks.remainder().chunks_exact(2);
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
