//! Lists of names that are not to be answered, and of names that always are. Three formats are read, in one file
//! if need be: `hosts` lines (`0.0.0.0 name name`), plain names, and the part of the adblock format that speaks of whole
//! domains (`||name^`, `@@||name^`). Any other line is passed over, so that a rule that is finer than a name blocks
//! nothing.

use std::net::IpAddr;
use std::path::PathBuf;

use super::hashed::HashedNames;
use super::lines;
use super::name::{MAX_NAME, to_wire};

/// More are not taken: 5.3 MB.
const MAX_NAMES: usize = 500_000;
/// What is read of one file.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// The lists, as they were read.
#[derive(Debug)]
pub(super) struct Lists {
    blocked: HashedNames,
    allowed: HashedNames,
}

/// What a line says of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// It is not to be answered.
    Block,
    /// It always is.
    Allow,
}

impl Lists {
    pub(super) fn none() -> Self {
        Self {
            blocked: HashedNames::with_room_for(0),
            allowed: HashedNames::with_room_for(0),
        }
    }

    /// Reads the files, twice: what is counted first takes no more memory than it needs.
    pub(super) fn read(block: &[PathBuf], allow: &[PathBuf]) -> Self {
        let (mut blocks, mut allows) = (0, 0);
        each_name(block, allow, &mut |says, _| match says {
            Says::Block => blocks += 1,
            Says::Allow => allows += 1,
        });
        if blocks > MAX_NAMES || allows > MAX_NAMES {
            tracing::warn!(most = MAX_NAMES, "the lists have more names than are taken");
        }
        let mut lists = Self {
            blocked: HashedNames::with_room_for(blocks.min(MAX_NAMES)),
            allowed: HashedNames::with_room_for(allows.min(MAX_NAMES)),
        };
        each_name(block, allow, &mut |says, name| match says {
            Says::Block => lists.blocked.insert(name),
            Says::Allow => lists.allowed.insert(name),
        });
        let (blocked, allowed) = (lists.blocked.len(), lists.allowed.len());
        tracing::info!(blocked, allowed, "lists of names read");
        lists
    }

    pub(super) fn is_empty(&self) -> bool {
        self.blocked.len() == 0
    }

    pub(super) fn allows(&self, name: &[u8]) -> bool {
        self.allowed.has_name_or_above(name)
    }

    /// Whether a name is not to be answered, being below one that is not, unless it is allowed.
    pub(super) fn blocks(&self, name: &[u8]) -> bool {
        self.blocked.has_name_or_above(name) && !self.allows(name)
    }
}

fn each_name(block: &[PathBuf], allow: &[PathBuf], see: &mut dyn FnMut(Says, &[u8])) {
    for path in block {
        lines::of_file(path, MAX_FILE_BYTES, &mut |line| names_in(line, see));
    }
    for path in allow {
        lines::of_file(path, MAX_FILE_BYTES, &mut |line| {
            names_in(line, &mut |_, name| see(Says::Allow, name));
        });
    }
}

/// Gives what one line says, names in wire format.
pub(super) fn names_in(line: &[u8], see: &mut dyn FnMut(Says, &[u8])) {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    if matches!(line.first(), None | Some(b'#' | b'!' | b'[')) {
        return;
    }
    let mut give = |says, text: &[u8]| {
        let mut room = [0; MAX_NAME];
        if let Some(name) = to_wire(text, &mut room) {
            see(says, name);
        }
    };
    for (start, says) in [(&b"||"[..], Says::Block), (b"@@||", Says::Allow)] {
        if let Some(rule) = line.strip_prefix(start) {
            let rule = rule.strip_suffix(b"$important").unwrap_or(rule);
            if let Some(name) = rule.strip_suffix(b"^") {
                give(says, name.strip_prefix(b"*.").unwrap_or(name));
            }
            return;
        }
    }
    let mut words = words(line);
    let Some(first) = words.next() else { return };
    // A bare word, such as `localhost`, is not meant to be everything below a top-level name.
    let is_dotted = |name: &&[u8]| name.strip_suffix(b".").unwrap_or(name).contains(&b'.');
    if is_address(first) {
        words
            .filter(is_dotted)
            .for_each(|name| give(Says::Block, name));
    } else if words.next().is_none() {
        let name = first.strip_prefix(b"*.").unwrap_or(first);
        let name = name.strip_prefix(b".").unwrap_or(name);
        Some(name)
            .filter(is_dotted)
            .into_iter()
            .for_each(|name| give(Says::Block, name));
    }
}

/// The words of a line up to its comment.
pub(super) fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
        .take_while(|word| !word.starts_with(b"#"))
}

fn is_address(word: &[u8]) -> bool {
    address(word).is_some()
}

/// An address as it stands in a file.
pub(super) fn address(word: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(word).ok()?.parse().ok()
}
