//! As much of HTTP/3 (RFC 9114) as a client needs that makes one request on a connection of its own: its settings, the
//! request with QPACK's static table alone (RFC 9204), and the frames and the status of the answer.
//!
//! By hand for the router's sake; the gateway's side is the `h3` crate.

use crate::varint;

/// The first bytes of our control stream: its type, and settings that allow datagrams (RFC 9297 section 2.1.1). QPACK's
/// dynamic table is not offered, so that nothing refers to one.
pub const CONTROL_STREAM: [u8; 5] = [STREAM_CONTROL, FRAME_SETTINGS as u8, 2, SETTING_DATAGRAM, 1];

const STREAM_CONTROL: u8 = 0x00;
const FRAME_DATA: u64 = 0x00;
const FRAME_HEADERS: u64 = 0x01;
const FRAME_SETTINGS: u64 = 0x04;
const SETTING_DATAGRAM: u8 = 0x33;
/// Headers of an answer are a few hundred bytes.
const MAX_HEADERS_BYTES: u64 = 8 * 1024;

/// The answer is not what HTTP/3 allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Headers beyond any measure.
    #[error("the answer's headers are {0} bytes long")]
    TooLong(u64),
    /// Not the encoding that was agreed.
    #[error("the answer's headers cannot be read")]
    Malformed,
}

/// The frame that asks `authority` for UDP to the target of `path` (RFC 9298 section 3.4).
#[must_use]
pub fn connect_udp(authority: &str, path: &str) -> Vec<u8> {
    // No dynamic table: the required insert count and the base are zero (RFC 9204 section 4.5.1).
    let mut fields = vec![0, 0];
    indexed(&mut fields, 15); // :method CONNECT
    indexed(&mut fields, 23); // :scheme https
    named(&mut fields, 0, authority); // :authority
    named(&mut fields, 1, path); // :path
    literal(&mut fields, ":protocol", "connect-udp");
    literal(&mut fields, "capsule-protocol", "?1");
    let mut frame = Vec::new();
    varint::write(&mut frame, FRAME_HEADERS);
    varint::write(&mut frame, fields.len() as u64);
    frame.extend(fields);
    frame
}

/// Appends the header of a DATA frame.
pub fn write_data_header(out: &mut Vec<u8>, length: usize) {
    varint::write(out, FRAME_DATA);
    varint::write(out, length as u64);
}

/// An entry of the static table.
fn indexed(out: &mut Vec<u8>, index: u8) {
    integer(out, 0xc0, 6, index.into());
}

/// A value for a name of the static table.
fn named(out: &mut Vec<u8>, index: u8, value: &str) {
    integer(out, 0x50, 4, index.into());
    string(out, 0x00, 7, value);
}

fn literal(out: &mut Vec<u8>, name: &str, value: &str) {
    string(out, 0x20, 3, name);
    string(out, 0x00, 7, value);
}

fn string(out: &mut Vec<u8>, pattern: u8, prefix: u32, text: &str) {
    integer(out, pattern, prefix, text.len() as u64);
    out.extend(text.as_bytes());
}

/// An integer of `prefix` bits behind `pattern` (RFC 7541 section 5.1).
fn integer(out: &mut Vec<u8>, pattern: u8, prefix: u32, value: u64) {
    let most = (1_u64 << prefix) - 1;
    if value < most {
        out.push(pattern | value.to_le_bytes()[0]);
        return;
    }
    out.push(pattern | most.to_le_bytes()[0]);
    let mut rest = value - most;
    while rest >= 0x80 {
        out.push((rest & 0x7f).to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    out.push(rest.to_le_bytes()[0]);
}

/// The request stream's frames, as they arrive.
#[derive(Debug, Default)]
pub struct Answer {
    buffer: Vec<u8>,
    data_left: u64,
    skip: u64,
}

/// What has arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// Headers with this status; below 200 the answer is still to come.
    Status(u16),
    /// Some of the body.
    Body(Vec<u8>),
}

impl Answer {
    /// Adds what has arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend(bytes);
    }

    /// The next part that is there.
    ///
    /// # Errors
    /// When this is no answer.
    pub fn next_part(&mut self) -> Result<Option<Part>, AnswerError> {
        loop {
            self.drop_skipped();
            if self.data_left > 0 {
                let length = usize::try_from(self.data_left)
                    .unwrap_or(usize::MAX)
                    .min(self.buffer.len());
                if length == 0 {
                    return Ok(None);
                }
                self.data_left -= length as u64;
                return Ok(Some(Part::Body(self.buffer.drain(..length).collect())));
            }
            let Some((kind, length, header)) = read_header(&self.buffer) else {
                return Ok(None);
            };
            match kind {
                FRAME_DATA => {
                    self.buffer.drain(..header);
                    self.data_left = length;
                }
                FRAME_HEADERS => {
                    if length > MAX_HEADERS_BYTES {
                        return Err(AnswerError::TooLong(length));
                    }
                    let end = header + usize::try_from(length).unwrap_or(usize::MAX);
                    let Some(section) = self.buffer.get(header..end) else {
                        return Ok(None);
                    };
                    let status = read_status(section).ok_or(AnswerError::Malformed)?;
                    self.buffer.drain(..end);
                    return Ok(Some(Part::Status(status)));
                }
                _ => {
                    self.buffer.drain(..header);
                    self.skip = length;
                }
            }
            if self.skip > 0 && self.buffer.is_empty() {
                return Ok(None);
            }
        }
    }

    fn drop_skipped(&mut self) {
        let length = usize::try_from(self.skip)
            .unwrap_or(usize::MAX)
            .min(self.buffer.len());
        self.buffer.drain(..length);
        self.skip -= length as u64;
    }
}

fn read_header(bytes: &[u8]) -> Option<(u64, u64, usize)> {
    let (kind, rest) = varint::read(bytes)?;
    let (length, rest) = varint::read(rest)?;
    Some((kind, length, bytes.len() - rest.len()))
}

/// The status is the first field of every answer; it must be in the static table or spelt with plain digits.
fn read_status(section: &[u8]) -> Option<u16> {
    let (_insert_count, rest) = read_integer(section, 8)?;
    let (_base, rest) = read_integer(rest, 7)?;
    let first = *rest.first()?;
    if first & 0xc0 == 0xc0 {
        let (index, _) = read_integer(rest, 6)?;
        return static_status(index);
    }
    if first & 0xd0 == 0x50 {
        let (index, rest) = read_integer(rest, 4)?;
        static_status(index)?;
        let is_plain = rest.first()? & 0x80 == 0;
        let (length, rest) = read_integer(rest, 7)?;
        let digits = rest.get(..usize::try_from(length).ok()?)?;
        let text = std::str::from_utf8(digits).ok().filter(|_| is_plain)?;
        return text.parse().ok().filter(|_| text.len() == 3);
    }
    None
}

/// `:status` in QPACK's static table (RFC 9204 appendix A).
fn static_status(index: u64) -> Option<u16> {
    const FIRST: [u16; 5] = [103, 200, 304, 404, 503];
    const SECOND: [u16; 9] = [100, 204, 206, 302, 400, 403, 421, 425, 500];
    let at = |base: u64| usize::try_from(index.checked_sub(base)?).ok();
    at(63)
        .and_then(|index| SECOND.get(index))
        .or_else(|| at(24).and_then(|index| FIRST.get(index)))
        .copied()
}

fn read_integer(bytes: &[u8], prefix: u32) -> Option<(u64, &[u8])> {
    let (first, mut rest) = bytes.split_first()?;
    let most = (1_u64 << prefix) - 1;
    let mut value = u64::from(*first) & most;
    if value < most {
        return Some((value, rest));
    }
    for shift in [0, 7, 14, 21] {
        let (byte, after) = rest.split_first()?;
        rest = after;
        value += u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value, rest));
        }
    }
    None
}

#[cfg(test)]
mod tests;
