//! Any bytes into every door: nothing panics, nothing passes, and what was found once is replayed from `corpora/`.

use std::path::PathBuf;

use proptest::prelude::*;
use tunnel::packet::parse;

use crate::rig::{AGENT, INNER, Pair, WEB, packet};

/// Every file of `corpora/<door>`, of which there must be some.
fn corpus(door: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("corpora")
        .join(door);
    let files = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let corpus: Vec<_> = files
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect();
    assert!(corpus.len() >= 5, "{} holds too little", folder.display());
    corpus
}

/// Gives `bytes` to every door of both roles; nothing of it may come out as an inner packet.
fn give_everywhere(pair: &mut Pair, bytes: &[u8]) {
    let (mut buf, now) = (vec![0; 65_536], pair.now);
    let from = crate::rig::socket(AGENT);
    let at_edge = pair.edge().handle_network_input(bytes, from, &mut buf, now);
    assert!(!matches!(at_edge, Ok(Some(_))), "{bytes:02x?}");
    let at_agent = pair.agent.handle_network_input(bytes, from, &mut buf, now);
    assert!(!matches!(at_agent, Ok(Some(_))), "{bytes:02x?}");
    // Only whether it panics is of interest: some of these bytes are packets that may pass.
    let _sent = (pair.home_sends(bytes), pair.internet_sends(0, bytes));
}

#[test]
fn the_corpus_of_datagrams_is_replayed() {
    let mut pair = Pair::connected();
    for (path, bytes) in corpus("network_input") {
        give_everywhere(&mut pair, &bytes);
        eprintln!("{}", path.display());
    }
    assert!(pair.edge().dropped().total() > 0);
}

#[test]
fn the_corpus_of_packets_is_replayed() {
    for (path, bytes) in corpus("packet") {
        let header = parse(&bytes);

        let is_good = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("good-"));
        assert_eq!(header.is_ok(), is_good, "{}", path.display());
    }
}

/// The head of a WireGuard message of one of the four types, with the length it wants or another.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let kinds = prop_oneof![
        Just((1_u8, 148_usize)),
        Just((2, 92)),
        Just((3, 64)),
        Just((4, 96)),
        Just((4, 32))
    ];
    let index = prop_oneof![0_u32..16, 256_u32..264, any::<u32>()];
    let counter = prop_oneof![0_u64..8, (u64::MAX - 9_000)..=u64::MAX, any::<u64>()];
    (
        kinds,
        index,
        counter,
        proptest::collection::vec(any::<u8>(), 148),
        -1_isize..=1,
    )
        .prop_map(|((kind, len), index, counter, body, off)| {
            let mut bytes = body;
            bytes[..4].copy_from_slice(&[kind, 0, 0, 0]);
            bytes[4..8].copy_from_slice(&index.to_le_bytes());
            bytes[8..16].copy_from_slice(&counter.to_le_bytes());
            bytes.truncate(len.saturating_add_signed(off / 2));
            bytes
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_dropped_without_a_panic(many in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..40)) {
        let mut pair = Pair::connected();
        for bytes in many {
            give_everywhere(&mut pair, &bytes);
        }
    }

    #[test]
    fn messages_with_any_fields_are_dropped_without_a_panic(many in proptest::collection::vec(message(), 1..40)) {
        let mut pair = Pair::connected();
        for bytes in many {
            give_everywhere(&mut pair, &bytes);
        }
    }

    /// One changed byte anywhere in a true message of any kind: it is not what it was.
    #[test]
    fn a_changed_byte_makes_no_packet(at in any::<prop::sample::Index>(), with in 1_u8..=255, kind in 1_u8..=4) {
        let mut pair = Pair::connected();
        pair.home_sends(&packet(INNER, WEB, 100, 1)).unwrap();
        let Some(sent) = pair.seen_of_kind(kind).pop() else { return Ok(()) };
        let mut bytes = sent.bytes;
        let at = at.index(bytes.len());
        bytes[at] ^= with;
        give_everywhere(&mut pair, &bytes);
    }
}
