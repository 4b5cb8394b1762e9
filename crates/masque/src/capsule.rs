//! Capsules: typed, length-prefixed pieces of a stream (RFC 9297 section 3), of which the one for datagrams is used.
//! Others are skipped, as the RFC asks.

use crate::{payload, varint};

/// A capsule that holds an HTTP Datagram.
const DATAGRAM: u64 = 0x00;
/// The longest UDP payload, and its context; a longer capsule of datagrams is an attack or a mistake.
const MAX_DATAGRAM_BYTES: u64 = 65_535 + 8;

/// A capsule claims to be longer than any datagram; the stream is to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a capsule of {0} bytes is longer than any UDP datagram")]
pub struct TooLong(pub u64);

/// Appends a UDP payload as a capsule.
pub fn write_udp(out: &mut Vec<u8>, udp: &[u8]) {
    varint::write(out, DATAGRAM);
    // The context is one byte; no slice is as long as 2^62.
    varint::write(out, udp.len() as u64 + 1);
    payload::write_context(out);
    out.extend(udp);
}

/// Takes a stream's bytes as they come and gives its UDP payloads.
#[derive(Debug, Default)]
pub struct Capsules {
    buffer: Vec<u8>,
    /// Where in `buffer` the next capsule begins.
    start: usize,
    /// What is still to come of a capsule that nobody reads.
    skip: u64,
}

impl Capsules {
    /// Adds what has arrived.
    pub fn push(&mut self, mut bytes: &[u8]) {
        let skipped = usize::try_from(self.skip)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        bytes = bytes.get(skipped..).unwrap_or_default();
        self.skip -= skipped as u64;
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend(bytes);
    }

    /// The next UDP payload that is there as a whole.
    ///
    /// # Errors
    /// When the stream cannot be capsules of datagrams.
    pub fn next_udp(&mut self) -> Result<Option<&[u8]>, TooLong> {
        loop {
            let pending = self.buffer.get(self.start..).unwrap_or_default();
            let Some((kind, length, header)) = read_header(pending) else {
                return Ok(None);
            };
            if kind != DATAGRAM {
                self.skip_capsule(header, length);
                continue;
            }
            if length > MAX_DATAGRAM_BYTES {
                return Err(TooLong(length));
            }
            let length = usize::try_from(length).map_err(|_| TooLong(length))?;
            let (from, to) = (self.start + header, self.start + header + length);
            if self.buffer.len() < to {
                return Ok(None);
            }
            self.start = to;
            let is_udp = self
                .buffer
                .get(from..to)
                .is_some_and(|datagram| payload::read_context(datagram).is_some());
            if is_udp {
                return Ok(self.buffer.get(from..to).and_then(payload::read_context));
            }
        }
    }

    fn skip_capsule(&mut self, header: usize, length: u64) {
        let there = self.buffer.len() - self.start - header;
        let now = usize::try_from(length).unwrap_or(usize::MAX).min(there);
        self.start += header + now;
        self.skip = length - now as u64;
    }
}

/// Type, length, and how long both are.
fn read_header(bytes: &[u8]) -> Option<(u64, u64, usize)> {
    let (kind, rest) = varint::read(bytes)?;
    let (length, rest) = varint::read(rest)?;
    Some((kind, length, bytes.len() - rest.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn payloads(capsules: &mut Capsules) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        while let Some(udp) = capsules.next_udp().unwrap() {
            found.push(udp.to_vec());
        }
        found
    }

    #[test]
    fn a_capsule_longer_than_any_datagram_ends_the_stream() {
        let mut capsules = Capsules::default();
        capsules.push(&[0, 0x80, 0x02, 0, 0]);

        assert_eq!(capsules.next_udp(), Err(TooLong(0x2_0000)));
    }

    #[test]
    fn capsules_of_other_types_are_skipped_however_long_and_however_cut() {
        let mut stream = Vec::new();
        varint::write(&mut stream, 0x1234);
        varint::write(&mut stream, 300_000);
        stream.extend(vec![0; 300_000]);
        write_udp(&mut stream, b"after");

        for piece in [1, 7, 1000, 400_000] {
            let mut capsules = Capsules::default();
            let mut found = Vec::new();
            for bytes in stream.chunks(piece) {
                capsules.push(bytes);
                found.extend(payloads(&mut capsules));
                assert!(capsules.buffer.len() <= piece + 16);
            }
            assert_eq!(found, [b"after"]);
        }
    }

    #[test]
    fn datagrams_of_other_contexts_are_dropped_and_empty_ones_kept() {
        let mut capsules = Capsules::default();
        capsules.push(&[0, 2, 4, b'x', 0, 1, 0, 0, 0]);

        assert_eq!(payloads(&mut capsules), [b""]);
    }

    proptest! {
        #[test]
        fn payloads_come_out_as_they_went_in_wherever_the_stream_is_cut(
            sent in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..8),
            piece in 1_usize..64,
        ) {
            let mut stream = Vec::new();
            for udp in &sent {
                write_udp(&mut stream, udp);
            }
            let mut capsules = Capsules::default();
            let mut found = Vec::new();
            for bytes in stream.chunks(piece) {
                capsules.push(bytes);
                found.extend(payloads(&mut capsules));
            }

            prop_assert_eq!(found, sent);
        }

        #[test]
        fn no_bytes_make_it_panic(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 0..8)) {
            let mut capsules = Capsules::default();
            let mut total = 0;
            for piece in &pieces {
                capsules.push(piece);
                while let Ok(Some(udp)) = capsules.next_udp() {
                    total += udp.len();
                }
            }

            prop_assert!(total <= pieces.concat().len());
        }
    }
}
