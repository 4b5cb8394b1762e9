//! Tiles of a log (<https://c2sp.org/tlog-tiles>): the static files in which a tree is published.

use std::fmt;
use std::str::FromStr;

use crate::tree::Tree;

/// How many hashes or entries a full tile has.
pub const TILE_WIDTH: u16 = 256;
const TILE_HEIGHT: u8 = 8;
const MAX_LEVEL: u8 = 63;

/// Why a path is not that of a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the path of a tile, such as tile/0/x001/234 or tile/entries/005.p/17")]
pub struct TileError;

/// What a tile holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TileKind {
    /// Hashes; at level 0 they are leaf hashes, above each stands for a full tile below.
    Hashes { level: u8 },
    /// Entries, each behind two bytes of length.
    Entries,
}

/// The name of one tile, full or partial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tile {
    pub kind: TileKind,
    pub index: u64,
    /// 1 to 256; less than 256 is a partial tile.
    pub width: u16,
}

impl Tile {
    /// The tiles of hashes in which a tree that grew from `old` to `new` entries is new.
    pub fn hashes_between(old: u64, new: u64) -> Vec<Self> {
        let mut tiles = Vec::new();
        for level in 0..TILE_HEIGHT {
            let shift = u32::from(level) * u32::from(TILE_HEIGHT);
            tiles.extend(Self::grown(
                TileKind::Hashes { level },
                old >> shift,
                new >> shift,
            ));
        }
        tiles
    }

    /// The bundles of entries that are new in a log that grew from `old` to `new` entries.
    pub fn entries_between(old: u64, new: u64) -> Vec<Self> {
        Self::grown(TileKind::Entries, old, new).collect()
    }

    fn grown(kind: TileKind, old: u64, new: u64) -> impl Iterator<Item = Self> {
        let full = u64::from(TILE_WIDTH);
        let indices = if old < new {
            old / full..new.div_ceil(full)
        } else {
            0..0
        };
        indices.map(move |index| {
            let rest = (new - index * full).min(full);
            // At most 256 by the line above.
            Self {
                kind,
                index,
                width: u16::try_from(rest).unwrap_or(TILE_WIDTH),
            }
        })
    }

    /// The indices of the entries or hashes within their level.
    pub fn range(&self) -> std::ops::Range<u64> {
        let begin = self.index.saturating_mul(u64::from(TILE_WIDTH));
        begin..begin.saturating_add(u64::from(self.width))
    }

    /// How many entries a log has that has grown as far as this tile; none where no log can.
    pub fn entries(&self) -> Option<u64> {
        let level = match self.kind {
            TileKind::Hashes { level } => level,
            TileKind::Entries => 0,
        };
        let below = u64::from(TILE_WIDTH).checked_pow(level.into())?;
        self.range().end.checked_mul(below)
    }

    /// The bytes of a tile of hashes; none where the tree has not grown that far, or for entries.
    pub fn hashes(&self, tree: &Tree) -> Option<Vec<u8>> {
        let TileKind::Hashes { level } = self.kind else {
            return None;
        };
        let height = level.checked_mul(TILE_HEIGHT)?;
        let mut bytes = Vec::new();
        for index in self.range() {
            bytes.extend_from_slice(&tree.node(height, index)?);
        }
        Some(bytes)
    }
}

/// The bytes of a bundle of entries; none when an entry is longer than the format allows.
pub fn entry_bundle<'e>(entries: impl IntoIterator<Item = &'e [u8]>) -> Option<Vec<u8>> {
    let mut bundle = Vec::new();
    for entry in entries {
        bundle.extend_from_slice(&u16::try_from(entry.len()).ok()?.to_be_bytes());
        bundle.extend_from_slice(entry);
    }
    Some(bundle)
}

/// The entries of a bundle; none when it is cut or longer than a tile.
pub fn parse_entry_bundle(bundle: &[u8]) -> Option<Vec<&[u8]>> {
    let mut entries = Vec::new();
    let mut rest = bundle;
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (entry, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        entries.push(entry);
        rest = after;
    }
    (entries.len() <= usize::from(TILE_WIDTH)).then_some(entries)
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Hashes { level } => write!(f, "tile/{level}/")?,
            TileKind::Entries => write!(f, "tile/entries/")?,
        }
        let mut groups = vec![self.index % 1000];
        let mut rest = self.index / 1000;
        while rest > 0 {
            groups.push(rest % 1000);
            rest /= 1000;
        }
        for group in groups.iter().skip(1).rev() {
            write!(f, "x{group:03}/")?;
        }
        write!(f, "{:03}", self.index % 1000)?;
        if self.width < TILE_WIDTH {
            write!(f, ".p/{}", self.width)?;
        }
        Ok(())
    }
}

impl FromStr for Tile {
    type Err = TileError;

    fn from_str(path: &str) -> Result<Self, TileError> {
        let (kind, rest) = path
            .strip_prefix("tile/")
            .and_then(|rest| rest.split_once('/'))
            .ok_or(TileError)?;
        let kind = match kind {
            "entries" => TileKind::Entries,
            level => TileKind::Hashes {
                level: level
                    .parse()
                    .ok()
                    .filter(|level| *level <= MAX_LEVEL)
                    .ok_or(TileError)?,
            },
        };
        let (number, width) = match rest.split_once(".p/") {
            Some((number, width)) => (number, width.parse().map_err(|_| TileError)?),
            None => (rest, TILE_WIDTH),
        };
        let index = parse_index(number).ok_or(TileError)?;
        let tile = Self { kind, index, width };
        // Leading zeroes, signs and a partial width of 0 or 256 do not survive the comparison.
        let canonical = width > 0 && tile.to_string() == path;
        canonical.then_some(tile).ok_or(TileError)
    }
}

fn parse_index(number: &str) -> Option<u64> {
    let mut index: u64 = 0;
    for group in number.split('/') {
        let digits = group.strip_prefix('x').unwrap_or(group);
        index = index.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
    }
    Some(index)
}
