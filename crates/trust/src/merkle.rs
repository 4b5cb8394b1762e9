//! Merkle trees of RFC 6962: hashes, and the checks of inclusion and consistency.

use sha2::{Digest, Sha256};

/// A proof over a tree of 63-bit size has no more hashes than this.
pub const MAX_PATH: usize = 64;

/// Why a proof over a tree does not hold, or cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MerkleError {
    #[error("the entry or the tree size lies outside of the tree")]
    OutOfRange,
    #[error("the proof has not the length that the tree sizes demand")]
    Length,
    #[error("the proof leads to another root")]
    Root,
}

pub fn leaf_hash(entry: &[u8]) -> [u8; 32] {
    Sha256::new()
        .chain_update([0])
        .chain_update(entry)
        .finalize()
        .into()
}

pub fn node_hash(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    Sha256::new()
        .chain_update([1])
        .chain_update(left)
        .chain_update(right)
        .finalize()
        .into()
}

/// The root of a tree without entries.
pub fn empty_root() -> [u8; 32] {
    Sha256::digest([]).into()
}

/// Checks that the leaf stands at `index` of the tree of `size` entries with this root.
//= https://www.rfc-editor.org/rfc/rfc9162.html#section-2.1.3.2
// The walk from the leaf to the root; RFC 6962 has the same trees and leaves the walk to the reader.
pub fn verify_inclusion(
    leaf: &[u8; 32],
    index: u64,
    size: u64,
    path: &[[u8; 32]],
    root: &[u8; 32],
) -> Result<(), MerkleError> {
    if index >= size {
        return Err(MerkleError::OutOfRange);
    }
    let (mut node, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in path {
        if last == 0 {
            return Err(MerkleError::Length);
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(MerkleError::Length);
    }
    if hash == *root {
        Ok(())
    } else {
        Err(MerkleError::Root)
    }
}

/// Checks that the tree of `new` entries begins with all entries of the tree of `old`.
//= https://www.rfc-editor.org/rfc/rfc9162.html#section-2.1.4.2
// Both roots are rebuilt from one path; an equal tree needs none.
pub fn verify_consistency(
    old: (u64, &[u8; 32]),
    new: (u64, &[u8; 32]),
    path: &[[u8; 32]],
) -> Result<(), MerkleError> {
    let ((old_size, old_root), (new_size, new_root)) = (old, new);
    if old_size > new_size {
        return Err(MerkleError::OutOfRange);
    }
    if old_size == new_size || old_size == 0 {
        let same = old_size == 0 || old_root == new_root;
        return match (path.is_empty(), same) {
            (false, _) => Err(MerkleError::Length),
            (true, false) => Err(MerkleError::Root),
            (true, true) => Ok(()),
        };
    }
    let (mut node, mut last) = (old_size - 1, new_size - 1);
    let shift = node.trailing_ones();
    node >>= shift;
    last >>= shift;
    // A complete old tree is its own first hash and is not repeated in the proof.
    let (first, rest) = if old_size.is_power_of_two() {
        (old_root, path)
    } else {
        path.split_first().ok_or(MerkleError::Length)?
    };
    let (mut old_hash, mut new_hash) = (*first, *first);
    for sibling in rest {
        if last == 0 {
            return Err(MerkleError::Length);
        }
        if node & 1 == 1 || node == last {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(MerkleError::Length);
    }
    if old_hash == *old_root && new_hash == *new_root {
        Ok(())
    } else {
        Err(MerkleError::Root)
    }
}
