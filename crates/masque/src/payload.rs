//! One UDP datagram inside an HTTP Datagram: a context, which is zero, and the bytes (RFC 9298 section 5); over HTTP/3
//! a quarter of the request's stream id stands before both (RFC 9297 section 2.1).

use crate::varint;

/// The context of UDP's own payloads; others are for extensions that were agreed before.
const UDP: u64 = 0;

/// The bytes before the payload of the first request's datagrams: its stream id is zero, and so is the context.
pub const FIRST_REQUEST_OVERHEAD: usize = 2;

/// Appends what comes before a UDP payload within an HTTP Datagram.
pub fn write_context(out: &mut Vec<u8>) {
    varint::write(out, UDP);
}

/// The UDP payload of an HTTP Datagram; `None` for another context, which is to be dropped.
#[must_use]
pub fn read_context(datagram: &[u8]) -> Option<&[u8]> {
    match varint::read(datagram)? {
        (UDP, payload) => Some(payload),
        _ => None,
    }
}

/// Writes a QUIC datagram of the request on `stream`.
#[must_use]
pub fn quic_datagram(stream: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 9);
    varint::write(&mut out, stream / 4);
    write_context(&mut out);
    out.extend(payload);
    out
}

/// The request's stream and the UDP payload of a QUIC datagram.
#[must_use]
pub fn read_quic_datagram(datagram: &[u8]) -> Option<(u64, &[u8])> {
    let (quarter, rest) = varint::read(datagram)?;
    let stream = quarter.checked_mul(4)?;
    Some((stream, read_context(rest)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_of_another_context_or_none_is_no_payload() {
        assert_eq!(read_quic_datagram(&[]), None);
        assert_eq!(read_quic_datagram(&[0]), None);
        assert_eq!(read_quic_datagram(&[0, 2, b'x']), None);
        assert_eq!(read_quic_datagram(&[0, 0]), Some((0, &[][..])));
    }

    #[test]
    fn the_stream_of_a_datagram_is_four_times_its_number() {
        let datagram = quic_datagram(260, b"wg");

        assert_eq!(datagram, [0x40, 65, 0, b'w', b'g']);
        assert_eq!(read_quic_datagram(&datagram), Some((260, &b"wg"[..])));
    }
}
