//! The sequencer's tree: every hash of a complete subtree is kept, so that an entry costs one leaf
//! hash and on average one node hash, and a root or a proof costs O(log n) of them.

use crate::merkle::{MerkleError, empty_root, leaf_hash, node_hash};

/// An append-only Merkle tree in memory: 64 bytes for each entry.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// `levels[h][i]` is the hash over entries `i << h` up to `(i + 1) << h`.
    levels: Vec<Vec<[u8; 32]>>,
}

impl Tree {
    pub fn new() -> Self {
        Self::default()
    }

    /// Rebuilds a tree from stored leaf hashes; the entries themselves may be gone.
    pub fn from_leaf_hashes(leaves: impl IntoIterator<Item = [u8; 32]>) -> Self {
        let mut tree = Self::new();
        for leaf in leaves {
            tree.append_leaf_hash(leaf);
        }
        tree
    }

    /// Adds an entry and returns its index.
    pub fn append(&mut self, entry: &[u8]) -> u64 {
        self.append_leaf_hash(leaf_hash(entry))
    }

    /// Adds an entry whose leaf hash is known and returns its index.
    pub fn append_leaf_hash(&mut self, leaf: [u8; 32]) -> u64 {
        let index = self.size();
        let mut hash = leaf;
        for height in 0.. {
            if self.levels.len() == height {
                self.levels.push(Vec::new());
            }
            let Some(level) = self.levels.get_mut(height) else {
                break;
            };
            let left = level.last().copied();
            level.push(hash);
            match left {
                Some(left) if level.len() % 2 == 0 => hash = node_hash(&left, &hash),
                _ => break,
            }
        }
        index
    }

    pub fn size(&self) -> u64 {
        self.levels.first().map_or(0, |leaves| wide(leaves.len()))
    }

    /// The hash over the complete subtree of this height at this position, if it is complete.
    pub fn node(&self, height: u8, index: u64) -> Option<[u8; 32]> {
        let level = self.levels.get(usize::from(height))?;
        level.get(usize::try_from(index).ok()?).copied()
    }

    pub fn root(&self) -> [u8; 32] {
        self.range(0, self.size()).unwrap_or_else(empty_root)
    }

    /// The root as it was when the tree had `size` entries.
    pub fn root_at(&self, size: u64) -> Result<[u8; 32], MerkleError> {
        match size {
            0 => Ok(empty_root()),
            _ => self.range(0, size).ok_or(MerkleError::OutOfRange),
        }
    }

    /// The path from an entry to the root of the tree of `size` entries.
    //= https://www.rfc-editor.org/rfc/rfc6962.html#section-2.1.1
    pub fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<[u8; 32]>, MerkleError> {
        if index >= size || size > self.size() {
            return Err(MerkleError::OutOfRange);
        }
        let (mut begin, mut end) = (0, size);
        let mut path = Vec::new();
        while end - begin > 1 {
            let middle = begin + split(end - begin);
            let sibling = if index < middle {
                let right = self.range(middle, end);
                end = middle;
                right
            } else {
                let left = self.range(begin, middle);
                begin = middle;
                left
            };
            path.push(sibling.ok_or(MerkleError::OutOfRange)?);
        }
        path.reverse();
        Ok(path)
    }

    /// What shows that the tree of `old` entries is a prefix of the tree of `new`.
    //= https://www.rfc-editor.org/rfc/rfc6962.html#section-2.1.2
    pub fn consistency_proof(&self, old: u64, new: u64) -> Result<Vec<[u8; 32]>, MerkleError> {
        if old > new || new > self.size() {
            return Err(MerkleError::OutOfRange);
        }
        if old == 0 || old == new {
            return Ok(Vec::new());
        }
        let (mut begin, mut end) = (0, new);
        let mut path = Vec::new();
        while end != old {
            let middle = begin + split(end - begin);
            let sibling = if old <= middle {
                let right = self.range(middle, end);
                end = middle;
                right
            } else {
                let left = self.range(begin, middle);
                begin = middle;
                left
            };
            path.push(sibling.ok_or(MerkleError::OutOfRange)?);
        }
        if begin != 0 {
            path.push(self.range(begin, end).ok_or(MerkleError::OutOfRange)?);
        }
        path.reverse();
        Ok(path)
    }

    /// The hash over entries `begin..end`, where `begin` is where a subtree of that size begins.
    fn range(&self, begin: u64, end: u64) -> Option<[u8; 32]> {
        let mut peaks = Vec::new();
        let mut position = begin;
        while position < end {
            let height = (end - position).ilog2();
            peaks.push(self.node(u8::try_from(height).ok()?, position >> height)?);
            position += 1 << height;
        }
        peaks
            .into_iter()
            .rev()
            .reduce(|right, left| node_hash(&left, &right))
    }
}

/// The largest power of two below `count`, which is at least 2.
fn split(count: u64) -> u64 {
    1 << (count - 1).ilog2()
}

fn wide(count: usize) -> u64 {
    // No machine has more memory than 64 bits can count.
    u64::try_from(count).unwrap_or(u64::MAX)
}
