//! Names below in-addr.arpa and ip6.arpa: which address they are of, and whether nobody outside the home knows it.

use std::net::IpAddr;

use super::name::{labels, zone_at};

const IN_ADDR: &[u8] = b"\x07in-addr\x04arpa\0";
const IP6: &[u8] = b"\x03ip6\x04arpa\0";
const OCTETS: usize = 4;
const NIBBLES: usize = 32;

/// Reads a label as one part of an address.
type Part = fn(&[u8]) -> Option<u8>;

/// A reverse name taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reverse {
    /// The address, if the name is that of a whole one.
    pub(super) address: Option<IpAddr>,
    /// Where the name of the private zone begins that it is in (RFC 6303, RFC 7793).
    pub(super) private_at: Option<usize>,
    /// Whether it is the beginning of an address: there may be names below.
    pub(super) is_part: bool,
}

/// Reads a name. `None`: it is no reverse name.
pub(super) fn read(name: &[u8]) -> Option<Reverse> {
    let (most, read): (usize, Part) = if zone_at(name, IN_ADDR).is_some() {
        (OCTETS, octet)
    } else {
        zone_at(name, IP6)?;
        (NIBBLES, nibble)
    };
    let starts: Vec<usize> = labels(name).collect();
    let own = starts.len().checked_sub(2)?;
    let mut parts = [0; NIBBLES];
    let mut count = 0;
    for (at, place) in starts.iter().rev().skip(2).zip(parts.iter_mut().take(most)) {
        let len = name.get(*at).map_or(0, |len| usize::from(*len));
        let Some(part) = name.get(at + 1..=at + len).and_then(read) else {
            break;
        };
        *place = part;
        count += 1;
    }
    let parts = parts.get(..count)?;
    let depth = if most == OCTETS {
        private_v4(parts)
    } else {
        private_v6(parts)
    };
    Some(Reverse {
        address: (own == most).then(|| address(parts)).flatten(),
        private_at: depth.and_then(|depth| starts.get(own.checked_sub(depth)?).copied()),
        is_part: own == count && own < most,
    })
}

/// How many octets deep the private zone lies.
fn private_v4(octets: &[u8]) -> Option<usize> {
    match octets {
        [0 | 10 | 127, ..] => Some(1),
        [172, 16..=31, ..] | [192, 168, ..] | [169, 254, ..] | [100, 64..=127, ..] => Some(2),
        [192, 0, 2, ..] | [198, 51, 100, ..] | [203, 0, 113, ..] => Some(3),
        [255, 255, 255, 255] => Some(4),
        _ => None,
    }
}

/// How many nibbles deep the private zone lies.
fn private_v6(nibbles: &[u8]) -> Option<usize> {
    match nibbles {
        [0xf, 0xc | 0xd, ..] => Some(2),
        [0xf, 0xe, 0x8..=0xb, ..] => Some(3),
        [2, 0, 0, 1, 0, 0xd, 0xb, 8, ..] => Some(8),
        [high @ .., 0 | 1]
            if nibbles.len() == NIBBLES && high.iter().all(|nibble| *nibble == 0) =>
        {
            Some(NIBBLES)
        }
        _ => None,
    }
}

fn address(parts: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; OCTETS]>::try_from(parts) {
        return Some(octets.into());
    }
    let mut bytes = [0_u8; NIBBLES / 2];
    for (byte, pair) in bytes.iter_mut().zip(parts.chunks_exact(2)) {
        if let [high, low] = pair {
            *byte = high << 4 | low;
        }
    }
    (parts.len() == NIBBLES).then(|| bytes.into())
}

/// A number as an address is written: no sign, no zeros before it.
fn octet(label: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(label).ok()?;
    let number: u8 = text.parse().ok()?;
    let is_plain = label.first().is_some_and(u8::is_ascii_digit);
    let has_zeros = label.len() > 1 && label.first() == Some(&b'0');
    (is_plain && !has_zeros).then_some(number)
}

fn nibble(label: &[u8]) -> Option<u8> {
    match label {
        [digit @ b'0'..=b'9'] => Some(digit - b'0'),
        [digit @ b'a'..=b'f'] => Some(digit - b'a' + 10),
        _ => None,
    }
}
