//! Trees and their proofs against a direct transcription of RFC 6962's recursive definitions.

use trust::{
    MerkleError, Tile, TileError, TileKind, Tree, append_nodes, consistency_path, inclusion_path,
    leaf_hash, node_hash, root_of, verify_consistency, verify_inclusion,
};

const SIZES: u64 = 40;

#[test]
fn an_inclusion_proof_fails_with_any_part_changed() {
    let tree = tree(13);
    let (root, leaf) = (tree.root(), leaf_hash(&[5]));
    let path = tree.inclusion_proof(5, 13).unwrap();

    for place in 0..path.len() {
        let mut wrong = path.clone();
        wrong[place][0] ^= 1;
        assert_eq!(
            verify_inclusion(&leaf, 5, 13, &wrong, &root),
            Err(MerkleError::Root)
        );
    }
    assert_eq!(
        verify_inclusion(&leaf_hash(&[6]), 5, 13, &path, &root),
        Err(MerkleError::Root)
    );
    assert_eq!(
        verify_inclusion(&leaf, 4, 13, &path, &root),
        Err(MerkleError::Root)
    );
    assert_eq!(
        verify_inclusion(&leaf, 5, 13, &path, &[0; 32]),
        Err(MerkleError::Root)
    );
    assert_eq!(
        verify_inclusion(&leaf, 13, 13, &path, &root),
        Err(MerkleError::OutOfRange)
    );
    assert_eq!(
        verify_inclusion(&leaf, 0, 0, &[], &root),
        Err(MerkleError::OutOfRange)
    );
    let short = &path[..path.len() - 1];
    assert_eq!(
        verify_inclusion(&leaf, 5, 13, short, &root),
        Err(MerkleError::Length)
    );
    let long = [path.as_slice(), &[[0; 32]]].concat();
    assert_eq!(
        verify_inclusion(&leaf, 5, 13, &long, &root),
        Err(MerkleError::Length)
    );
}

#[test]
fn an_inner_node_is_no_leaf() {
    let tree = tree(4);
    let entry = [[0].as_slice(), &leaf_hash(&[0]), &leaf_hash(&[1])].concat();
    let path = [node_hash(&leaf_hash(&[2]), &leaf_hash(&[3]))];

    let refused = verify_inclusion(&leaf_hash(&entry[1..]), 0, 2, &path, &tree.root());

    assert_eq!(refused, Err(MerkleError::Root));
}

#[test]
fn a_consistency_proof_fails_with_any_part_changed() {
    let tree = tree(13);
    let (old, new) = (tree.root_at(6).unwrap(), tree.root());
    let path = tree.consistency_proof(6, 13).unwrap();

    for place in 0..path.len() {
        let mut wrong = path.clone();
        wrong[place][0] ^= 1;
        assert_eq!(
            verify_consistency((6, &old), (13, &new), &wrong),
            Err(MerkleError::Root)
        );
    }
    assert_eq!(
        verify_consistency((6, &[0; 32]), (13, &new), &path),
        Err(MerkleError::Root)
    );
    assert_eq!(
        verify_consistency((6, &old), (13, &[0; 32]), &path),
        Err(MerkleError::Root)
    );
    assert_eq!(
        verify_consistency((13, &new), (6, &old), &path),
        Err(MerkleError::OutOfRange)
    );
    assert_eq!(
        verify_consistency((6, &old), (13, &new), &[]),
        Err(MerkleError::Length)
    );
    assert_eq!(
        verify_consistency((6, &old), (13, &new), &path[1..]),
        Err(MerkleError::Length)
    );
    let long = [path.as_slice(), &[[0; 32]]].concat();
    assert_eq!(
        verify_consistency((6, &old), (13, &new), &long),
        Err(MerkleError::Length)
    );
    assert_eq!(
        verify_consistency((13, &new), (13, &old), &[]),
        Err(MerkleError::Root)
    );
    assert_eq!(
        verify_consistency((13, &new), (13, &new), &path),
        Err(MerkleError::Length)
    );
}

#[test]
fn a_proof_beyond_the_tree_is_not_made() {
    let tree = tree(5);

    assert_eq!(tree.inclusion_proof(5, 5), Err(MerkleError::OutOfRange));
    assert_eq!(tree.inclusion_proof(0, 6), Err(MerkleError::OutOfRange));
    assert_eq!(tree.consistency_proof(2, 6), Err(MerkleError::OutOfRange));
    assert_eq!(tree.consistency_proof(6, 6), Err(MerkleError::OutOfRange));
    assert_eq!(tree.consistency_proof(3, 2), Err(MerkleError::OutOfRange));
    assert_eq!(tree.root_at(6), Err(MerkleError::OutOfRange));
}

#[test]
fn roots_and_proofs_of_every_small_tree_are_those_of_the_definition() {
    let leaves: Vec<[u8; 32]> = entries(SIZES).map(|entry| leaf_hash(&entry)).collect();
    let tree = tree(SIZES);

    for size in 1..=SIZES {
        let head = &leaves[..usize::try_from(size).unwrap()];
        let root = tree.root_at(size).unwrap();
        assert_eq!(root, defined_root(head));
        for index in 0..size {
            let place = usize::try_from(index).unwrap();
            let path = tree.inclusion_proof(index, size).unwrap();
            assert_eq!(path, defined_path(place, head), "{index} of {size}");
            verify_inclusion(&leaves[place], index, size, &path, &root).unwrap();
        }
        for old in 0..=size {
            let path = tree.consistency_proof(old, size).unwrap();
            let old_root = tree.root_at(old).unwrap();
            verify_consistency((old, &old_root), (size, &root), &path).unwrap();
        }
    }
}

#[test]
fn a_huge_tree_is_walked_in_few_steps() {
    // Every node is the same hash: only the walk matters here.
    let size = (1 << 62) + 12345;
    let mut asked = 0;
    let mut node = |_, _| {
        asked += 1;
        Some([1; 32])
    };

    let path = inclusion_path(1 << 40, size, &mut node).unwrap();
    let between = consistency_path(size - 7, size, &mut node).unwrap();
    let root = root_of(size, &mut node);

    assert!(root.is_some());
    assert!(
        path.len() <= 63 && between.len() <= 64,
        "{} {}",
        path.len(),
        between.len()
    );
    assert!(asked < 1000, "{asked}");
}

#[test]
fn nodes_kept_elsewhere_make_the_same_tree() {
    let mut kept = std::collections::BTreeMap::new();
    for (index, entry) in (0..).zip(entries(SIZES)) {
        let lookup = |height, position| kept.get(&(height, position)).copied();
        for node in append_nodes(index, leaf_hash(&entry), lookup).unwrap() {
            kept.insert((node.height, node.position), node.hash);
        }
    }
    let tree = tree(SIZES);

    let lookup = |height, position| kept.get(&(height, position)).copied();

    assert_eq!(root_of(SIZES, lookup), Some(tree.root()));
    assert_eq!(
        inclusion_path(7, SIZES, lookup).unwrap(),
        tree.inclusion_proof(7, SIZES).unwrap()
    );
    assert_eq!(consistency_path(7, SIZES, |_, _| None), None);
    assert_eq!(append_nodes(1, [0; 32], |_, _| None), None);
}

#[test]
fn a_path_that_is_not_of_a_tile_is_refused() {
    for path in [
        "",
        "tile",
        "tile/",
        "tile/0",
        "tile/0/",
        "tile/0/1",
        "tile/0/0001",
        "tile/0/x000/001",
        "tile/0/x1/001",
        "tile/0/001/002",
        "tile/0/x001/x002",
        "tile/64/001",
        "tile/01/001",
        "tile/-1/001",
        "tile/+1/001",
        "tile/0/+01",
        "tile/0/001.p/0",
        "tile/0/001.p/256",
        "tile/0/001.p/01",
        "tile/0/001.p/",
        "tile/0/001.p/+1",
        "tile/data/001",
        "tile/0/001/",
        "/tile/0/001",
        "tile/0/../001",
        "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
    ] {
        assert_eq!(path.parse::<Tile>(), Err(TileError), "{path}");
    }
}

#[test]
fn the_paths_of_the_tile_specification_are_read_and_written() {
    let tile = |kind, index, width| Tile { kind, index, width };
    for (path, expected) in [
        (
            "tile/0/x001/x234/067",
            tile(TileKind::Hashes { level: 0 }, 1_234_067, 256),
        ),
        ("tile/63/000", tile(TileKind::Hashes { level: 63 }, 0, 256)),
        (
            "tile/0/x001/234",
            tile(TileKind::Hashes { level: 0 }, 1234, 256),
        ),
        (
            "tile/1/001.p/17",
            tile(TileKind::Hashes { level: 1 }, 1, 17),
        ),
        (
            "tile/entries/x001/000.p/255",
            tile(TileKind::Entries, 1000, 255),
        ),
    ] {
        assert_eq!(path.parse::<Tile>(), Ok(expected));
        assert_eq!(expected.to_string(), path);
    }
}

#[test]
fn a_tree_of_70000_has_the_tiles_that_the_specification_counts() {
    let tiles = Tile::hashes_between(0, 70_000);
    let count = |level, full: bool| {
        let kind = TileKind::Hashes { level };
        tiles
            .iter()
            .filter(|t| t.kind == kind && (t.width == 256) == full)
            .count()
    };

    assert_eq!((count(0, true), count(0, false)), (273, 1));
    assert_eq!((count(1, true), count(1, false)), (1, 1));
    assert_eq!((count(2, true), count(2, false)), (0, 1));
    assert_eq!(tiles.len(), 277);
    let partial: Vec<u16> = tiles
        .iter()
        .map(|t| t.width)
        .filter(|width| *width < 256)
        .collect();
    assert_eq!(partial, [112, 17, 1]);
    let grown = Tile::hashes_between(70_000, 70_001);
    assert_eq!(
        grown.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["tile/0/273.p/113"]
    );
    assert_eq!(Tile::entries_between(256, 256), []);
}

#[test]
fn the_hashes_of_tiles_are_those_of_the_tree() {
    let tree = tree(300);
    let tile = |path: &str| path.parse::<Tile>().unwrap().hashes(&tree);

    let (first, rest) = (
        tile("tile/0/000").unwrap(),
        tile("tile/0/001.p/44").unwrap(),
    );

    let leaves = [first.as_slice(), &rest].concat();
    let hashes: Vec<[u8; 32]> = leaves
        .chunks(32)
        .map(|hash| hash.try_into().unwrap())
        .collect();
    assert_eq!(defined_root(&hashes), tree.root());
    assert_eq!(
        tile("tile/1/000.p/1").unwrap(),
        defined_root(&hashes[..256])
    );
    assert_eq!(tile("tile/0/001.p/45"), None);
    assert_eq!(tile("tile/0/001"), None);
    assert_eq!(tile("tile/63/000"), None);
    assert_eq!(tile("tile/entries/000"), None);
}

#[test]
fn a_bundle_of_entries_that_is_cut_is_refused() {
    let entries: [&[u8]; 3] = [b"one", b"", &[7; 300]];
    let bundle = trust::tiles::entry_bundle(entries).unwrap();

    assert_eq!(trust::tiles::parse_entry_bundle(&bundle).unwrap(), entries);
    assert_eq!(
        trust::tiles::parse_entry_bundle(&bundle[..bundle.len() - 1]),
        None
    );
    assert_eq!(trust::tiles::parse_entry_bundle(&[0; 2 * 257]), None);
    assert_eq!(trust::tiles::entry_bundle([[0; 65_536].as_slice()]), None);
}

fn entries(count: u64) -> impl Iterator<Item = Vec<u8>> {
    // One byte for the first 256, then two: all of them differ.
    (0..count).map(|n| match u8::try_from(n) {
        Ok(small) => vec![small],
        Err(_) => n.to_be_bytes().to_vec(),
    })
}

fn tree(size: u64) -> Tree {
    Tree::from_leaf_hashes(entries(size).map(|entry| leaf_hash(&entry)))
}

fn split(count: usize) -> usize {
    let mut k = 1;
    while k * 2 < count {
        k *= 2;
    }
    k
}

fn defined_root(leaves: &[[u8; 32]]) -> [u8; 32] {
    match leaves {
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            node_hash(&defined_root(left), &defined_root(right))
        }
    }
}

fn defined_path(index: usize, leaves: &[[u8; 32]]) -> Vec<[u8; 32]> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let k = split(leaves.len());
    let (left, right) = leaves.split_at(k);
    let (mut path, sister) = if index < k {
        (defined_path(index, left), defined_root(right))
    } else {
        (defined_path(index - k, right), defined_root(left))
    };
    path.push(sister);
    path
}
