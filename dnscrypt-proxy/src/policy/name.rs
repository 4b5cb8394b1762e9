//! Names in wire format and lower case: bytes that compare as the names do, whatever is inside a label.

use std::fmt;
use std::str::FromStr;

/// RFC 1035, section 3.1: the longest name, its end included.
pub(super) const MAX_NAME: usize = 255;
const MAX_LABEL: usize = 63;

/// A name of a configuration.
#[derive(Clone, PartialEq, Eq)]
pub struct WireName(Box<[u8]>);

/// What is no host name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a host name")]
pub struct NotAName;

impl FromStr for WireName {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let mut room = [0; MAX_NAME];
        let wire = to_wire(text.as_bytes(), &mut room).ok_or(NotAName)?;
        Ok(Self(wire.into()))
    }
}

impl WireName {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// For whoever wrote it down.
impl fmt::Display for WireName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = |at| {
            let len = usize::from(*self.0.get(at)?);
            self.0.get(at + 1..=at + len)
        };
        let all: Vec<_> = labels(&self.0).filter_map(label).collect();
        f.write_str(&String::from_utf8_lossy(&all.join(&b'.')))
    }
}

impl fmt::Debug for WireName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }
}

/// A host name as it stands in a message. Labels have letters, digits, `-` and `_`.
pub(super) fn to_wire<'r>(text: &[u8], room: &'r mut [u8; MAX_NAME]) -> Option<&'r [u8]> {
    let text = text.strip_suffix(b".").unwrap_or(text);
    let mut end = 0;
    for label in text.split(|byte| *byte == b'.') {
        if !(1..=MAX_LABEL).contains(&label.len()) {
            return None;
        }
        let (head, place) = room.get_mut(end..=end + label.len())?.split_first_mut()?;
        *head = u8::try_from(label.len()).ok()?;
        for (to, from) in place.iter_mut().zip(label) {
            if !(from.is_ascii_alphanumeric() || matches!(from, b'-' | b'_')) {
                return None;
            }
            *to = from.to_ascii_lowercase();
        }
        end += 1 + label.len();
    }
    *room.get_mut(end)? = 0;
    room.get(..=end)
}

/// Where each label of a name begins, the root's left out.
pub(super) fn labels(name: &[u8]) -> impl Iterator<Item = usize> {
    let mut next = 0;
    std::iter::from_fn(move || {
        let at = next;
        let len = usize::from(*name.get(at)?);
        next = at + 1 + len;
        (len > 0).then_some(at)
    })
}

/// How far into `name` the zone's name begins, if it is the zone's or below it.
pub(super) fn zone_at(name: &[u8], zone: &[u8]) -> Option<usize> {
    let at = name.len().checked_sub(zone.len())?;
    let is_same = name.get(at..) == Some(zone);
    (is_same && labels(name).any(|label| label == at)).then_some(at)
}

/// How far into `name` the name begins that it is directly below.
pub(super) fn parent_at(name: &[u8]) -> usize {
    name.first().map_or(0, |len| usize::from(*len) + 1)
}

/// Whether a name has one label.
pub(super) fn is_dotless(name: &[u8]) -> bool {
    name.len() > 1 && name.get(parent_at(name)) == Some(&0)
}
