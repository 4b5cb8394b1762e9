use tempfile::TempDir;

use super::*;

const OLD: &[u8] = b"what stood there";
const NEW: &[u8] = b"what is to stand there";
const NAME: &str = "lease";
const MARK: u8 = 4;

fn content(dir: &TempDir) -> Content {
    file::read(dir.path(), NAME, MARK).unwrap()
}

fn whole(bytes: &[u8]) -> Content {
    Content::Whole(Zeroizing::new(bytes.to_vec()))
}

#[test]
fn power_cut_at_any_byte_of_a_write_leaves_the_old_content_and_the_next_write_works() {
    let bytes = file::encode(MARK, NEW);

    for cut in 0..=bytes.len() {
        let dir = TempDir::new().unwrap();
        file::write(dir.path(), NAME, MARK, OLD).unwrap();
        std::fs::write(dir.path().join("lease.tmp"), &bytes[..cut]).unwrap();

        assert_eq!(content(&dir), whole(OLD), "cut at {cut}");
        file::write(dir.path(), NAME, MARK, NEW).unwrap();
        assert_eq!(content(&dir), whole(NEW), "cut at {cut}");
    }
}

#[test]
fn a_file_cut_at_any_byte_is_recognised_and_set_aside() {
    let bytes = file::encode(MARK, NEW);

    for cut in 0..bytes.len() {
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join(NAME), &bytes[..cut]).unwrap();

        assert_eq!(content(&dir), Content::Damaged, "cut at {cut}");
        assert_eq!(content(&dir), Content::Absent);
        assert_eq!(
            std::fs::read(dir.path().join("lease.damaged")).unwrap(),
            &bytes[..cut]
        );
    }
}

#[test]
fn a_flipped_bit_an_appended_byte_and_another_records_file_are_recognised() {
    let bytes = file::encode(MARK, NEW);
    for position in 0..bytes.len() {
        let mut flipped = bytes.to_vec();
        flipped[position] ^= 1;
        assert_eq!(file::decode(&flipped, MARK), None, "bit at {position}");
    }
    let mut longer = bytes.to_vec();
    longer.push(0);

    assert_eq!(file::decode(&longer, MARK), None);
    assert_eq!(file::decode(&bytes, MARK + 1), None);
    assert_eq!(file::decode(&bytes, MARK), Some(NEW));
}

#[test]
fn the_identity_is_the_same_at_every_start_and_differs_between_routers() {
    let (one, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let first = StateDir::open(one.path()).unwrap().load().unwrap();
    let second = StateDir::open(one.path()).unwrap().load().unwrap();
    let stranger = StateDir::open(other.path()).unwrap().load().unwrap();

    assert_eq!(first.keys.devid_hash(), second.keys.devid_hash());
    assert_eq!(first.keys.tunnel.as_bytes(), second.keys.tunnel.as_bytes());
    assert_ne!(first.keys.devid_hash(), stranger.keys.devid_hash());
}

#[test]
fn a_next_key_that_was_kept_is_asked_for_again_after_a_cut() {
    let dir = TempDir::new().unwrap();
    let state_dir = StateDir::open(dir.path()).unwrap();
    let mut keys = state_dir.load().unwrap().keys;
    state_dir.prepare_next_key(&mut keys).unwrap();
    let asked_for = keys.next.as_ref().map(|key| *key.as_bytes());

    let mut after = state_dir.load().unwrap().keys;
    state_dir.prepare_next_key(&mut after).unwrap();

    assert_eq!(after.next.as_ref().map(|key| *key.as_bytes()), asked_for);
}

#[test]
fn a_cut_between_the_lease_and_the_keys_is_finished_at_the_next_start() {
    let dir = TempDir::new().unwrap();
    let state_dir = StateDir::open(dir.path()).unwrap();
    let mut keys = state_dir.load().unwrap().keys;
    state_dir.prepare_next_key(&mut keys).unwrap();
    let next = PublicKey::from(keys.next.as_ref().unwrap());
    file::write(dir.path(), NAME, MARK, NEW).unwrap();

    let mut state = state_dir.load().unwrap();
    state_dir
        .adopt_key_of(&mut state.keys, next.as_bytes())
        .unwrap();

    assert_eq!(state.lease.as_deref(), Some(NEW));
    let finished = state_dir.load().unwrap().keys;
    assert_eq!(PublicKey::from(&finished.tunnel), next);
    assert!(finished.next.is_none());
}

#[test]
fn a_damaged_identity_is_named_and_replaced_while_other_damage_keeps_it() {
    let dir = TempDir::new().unwrap();
    let state_dir = StateDir::open(dir.path()).unwrap();
    let before = state_dir.load().unwrap().keys.devid_hash();

    std::fs::write(dir.path().join("keys"), b"rubbish").unwrap();
    let without_keys = state_dir.load().unwrap();
    std::fs::write(dir.path().join("identity"), b"rubbish").unwrap();
    let without_identity = state_dir.load().unwrap();

    assert_eq!(without_keys.damaged, [Damaged(Record::Keys)]);
    assert_eq!(without_keys.keys.devid_hash(), before);
    assert_eq!(without_identity.damaged, [Damaged(Record::Identity)]);
    assert_ne!(without_identity.keys.devid_hash(), before);
}

#[test]
fn a_second_process_is_kept_out() {
    let dir = TempDir::new().unwrap();
    let _first = StateDir::open(dir.path()).unwrap();

    let second = StateDir::open(dir.path());

    assert!(matches!(second, Err(LockError::Taken)));
}

#[test]
fn the_debug_form_of_keys_shows_no_secret() {
    let dir = TempDir::new().unwrap();
    let state = StateDir::open(dir.path()).unwrap().load().unwrap();

    let shown = format!("{:?}", state.keys);

    assert_eq!(
        shown,
        format!("Keys({})", trust::KeyId::from(state.keys.devid_hash()))
    );
}
