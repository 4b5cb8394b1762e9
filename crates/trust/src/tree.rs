//! The sequencer's tree: every hash of a complete subtree is kept, so that an entry costs one leaf
//! hash and on average one node hash, and a root or a proof costs O(log n) of them.
//!
//! The walks ask for hashes by height and position, wherever these are kept: `Tree` keeps them in
//! memory, a store may keep them in a table. A walk is `None` when a hash it needs is not there.

use crate::merkle::{MerkleError, empty_root, leaf_hash, node_hash};

/// A hash over the entries `position << height` up to `(position + 1) << height`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    pub height: u8,
    pub position: u64,
    pub hash: [u8; 32],
}

/// An append-only Merkle tree in memory: 64 bytes for each entry.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// `levels[h][i]` is the node at height `h` and position `i`.
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
        let nodes = append_nodes(index, leaf, |height, position| self.node(height, position));
        for node in nodes.expect("a tree in memory has every node of its size") {
            let level = usize::from(node.height);
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            if let Some(level) = self.levels.get_mut(level) {
                level.push(node.hash);
            }
        }
        index
    }

    pub fn size(&self) -> u64 {
        // No machine has more memory than 64 bits can count.
        self.levels
            .first()
            .map_or(0, |leaves| u64::try_from(leaves.len()).unwrap_or(u64::MAX))
    }

    /// The hash over the complete subtree of this height at this position, if it is complete.
    pub fn node(&self, height: u8, position: u64) -> Option<[u8; 32]> {
        let level = self.levels.get(usize::from(height))?;
        level.get(usize::try_from(position).ok()?).copied()
    }

    pub fn root(&self) -> [u8; 32] {
        root_of(self.size(), |height, position| self.node(height, position))
            .expect("a tree in memory has every node of its size")
    }

    /// The root as it was when the tree had `size` entries.
    pub fn root_at(&self, size: u64) -> Result<[u8; 32], MerkleError> {
        root_of(size, |height, position| self.node(height, position)).ok_or(MerkleError::OutOfRange)
    }

    /// The path from an entry to the root of the tree of `size` entries.
    pub fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<[u8; 32]>, MerkleError> {
        inclusion_path(index, size, |height, position| self.node(height, position))
            .ok_or(MerkleError::OutOfRange)
    }

    /// What shows that the tree of `old` entries is a prefix of the tree of `new`.
    pub fn consistency_proof(&self, old: u64, new: u64) -> Result<Vec<[u8; 32]>, MerkleError> {
        if new > self.size() {
            return Err(MerkleError::OutOfRange);
        }
        consistency_path(old, new, |height, position| self.node(height, position))
            .ok_or(MerkleError::OutOfRange)
    }
}

/// The nodes that the entry at `index` completes, from its leaf upwards; asks for their left sisters.
pub fn append_nodes(
    index: u64,
    leaf: [u8; 32],
    mut node: impl FnMut(u8, u64) -> Option<[u8; 32]>,
) -> Option<Vec<Node>> {
    let mut nodes = Vec::new();
    let (mut position, mut hash) = (index, leaf);
    for height in 0..u8::MAX {
        nodes.push(Node {
            height,
            position,
            hash,
        });
        if position & 1 == 0 {
            break;
        }
        hash = node_hash(&node(height, position - 1)?, &hash);
        position >>= 1;
    }
    Some(nodes)
}

/// The root over the first `size` entries.
pub fn root_of(size: u64, mut node: impl FnMut(u8, u64) -> Option<[u8; 32]>) -> Option<[u8; 32]> {
    match size {
        0 => Some(empty_root()),
        _ => range(0, size, &mut node),
    }
}

/// The path from the entry at `index` to the root over the first `size` entries.
//= https://www.rfc-editor.org/rfc/rfc6962.html#section-2.1.1
pub fn inclusion_path(
    index: u64,
    size: u64,
    mut node: impl FnMut(u8, u64) -> Option<[u8; 32]>,
) -> Option<Vec<[u8; 32]>> {
    if index >= size {
        return None;
    }
    let (mut begin, mut end) = (0, size);
    let mut path = Vec::new();
    while end - begin > 1 {
        let middle = begin + split(end - begin);
        if index < middle {
            path.push(range(middle, end, &mut node)?);
            end = middle;
        } else {
            path.push(range(begin, middle, &mut node)?);
            begin = middle;
        }
    }
    path.reverse();
    Some(path)
}

/// What shows that the tree of `old` entries is a prefix of the tree of `new`.
//= https://www.rfc-editor.org/rfc/rfc6962.html#section-2.1.2
pub fn consistency_path(
    old: u64,
    new: u64,
    mut node: impl FnMut(u8, u64) -> Option<[u8; 32]>,
) -> Option<Vec<[u8; 32]>> {
    if old > new {
        return None;
    }
    if old == 0 {
        return Some(Vec::new());
    }
    let (mut begin, mut end) = (0, new);
    let mut path = Vec::new();
    while end != old {
        let middle = begin + split(end - begin);
        if old <= middle {
            path.push(range(middle, end, &mut node)?);
            end = middle;
        } else {
            path.push(range(begin, middle, &mut node)?);
            begin = middle;
        }
    }
    // The verifier holds the old root itself, but no other inner hash.
    if begin != 0 {
        path.push(range(begin, end, &mut node)?);
    }
    path.reverse();
    Some(path)
}

/// The hash over entries `begin..end`, where `begin` is where a subtree of that size begins.
fn range(
    begin: u64,
    end: u64,
    node: &mut impl FnMut(u8, u64) -> Option<[u8; 32]>,
) -> Option<[u8; 32]> {
    let mut peaks = Vec::new();
    let mut position = begin;
    while position < end {
        let height = (end - position).ilog2();
        peaks.push(node(u8::try_from(height).ok()?, position >> height)?);
        position += 1 << height;
    }
    peaks
        .into_iter()
        .rev()
        .reduce(|right, left| node_hash(&left, &right))
}

/// The largest power of two below `count`, which is at least 2.
fn split(count: u64) -> u64 {
    1 << (count - 1).ilog2()
}
