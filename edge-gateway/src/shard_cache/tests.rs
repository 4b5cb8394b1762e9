use std::fs;

use super::*;

fn entry(n: u8) -> ShardEntry {
    ShardEntry::Lease {
        lease: vec![n; 40],
        salt: [n; 32],
        proof: format!("proof {n}\n"),
    }
}

/// Opens the cache and collects what it hands out.
fn open(directory: &Path) -> (ShardCache, Vec<ShardEntry>, Recovered) {
    let mut entries = Vec::new();
    let (cache, recovered) = ShardCache::open(directory, 1, |entry| entries.push(entry)).unwrap();
    (cache, entries, recovered)
}

#[test]
fn a_file_cut_at_any_byte_gives_whole_pages_and_a_position_that_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shard-1.log");
    let (mut cache, ..) = open(dir.path());
    cache.append(&[entry(0), entry(1)], 2).unwrap();
    cache.append(&[entry(2)], 7).unwrap();
    let whole = fs::read(&path).unwrap();

    for cut in 0..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let (mut cache, entries, recovered) = open(dir.path());

        let expected: Vec<_> = (0..3).map(entry).take(entries.len()).collect();
        assert_eq!(entries, expected, "cut at {cut}");
        assert!(
            cache.next() <= entries.len() as u64,
            "cut at {cut} claims more than it has"
        );
        assert_eq!(recovered.entries, entries.len());

        cache.append(&[entry(9)], 20).unwrap();
        let (cache, after, recovered) = open(dir.path());
        assert_eq!(
            after.last(),
            Some(&entry(9)),
            "cut at {cut}: the file takes entries again"
        );
        assert_eq!((cache.next(), recovered.torn_bytes), (20, 0));
    }
}

#[test]
fn a_garbled_byte_anywhere_ends_the_file_before_its_record() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shard-1.log");
    let (mut cache, ..) = open(dir.path());
    cache.append(&[entry(0)], 1).unwrap();
    cache.append(&[entry(1)], 2).unwrap();
    let whole = fs::read(&path).unwrap();

    for place in 0..whole.len() {
        let mut garbled = whole.clone();
        garbled[place] ^= 0x40;
        fs::write(&path, &garbled).unwrap();
        let (cache, entries, recovered) = open(dir.path());

        let expected: Vec<_> = (0..2).map(entry).take(entries.len()).collect();
        assert_eq!(entries, expected, "garbled at {place}");
        assert!(
            cache.next() < 2 && recovered.torn_bytes > 0,
            "garbled at {place}"
        );
    }
}

#[test]
fn what_was_appended_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (mut cache, none, _) = open(dir.path());
    assert_eq!((none.len(), cache.next()), (0, 0));
    cache.append(&[entry(0), entry(1)], 5).unwrap();
    cache.append(&[], 6).unwrap();
    drop(cache);

    let (cache, entries, recovered) = open(dir.path());

    assert_eq!(entries, [entry(0), entry(1)]);
    assert_eq!(cache.next(), 6);
    assert_eq!(
        recovered,
        Recovered {
            entries: 2,
            torn_bytes: 0
        }
    );
}

#[test]
fn compaction_keeps_what_is_wanted_and_the_position() {
    let dir = tempfile::tempdir().unwrap();
    let (mut cache, ..) = open(dir.path());
    cache.append(&[entry(0), entry(1), entry(2)], 3).unwrap();

    cache.compact(|kept| *kept == entry(1)).unwrap();
    cache.append(&[entry(3)], 4).unwrap();
    let (cache, entries, _) = open(dir.path());

    assert_eq!(entries, [entry(1), entry(3)]);
    assert_eq!(cache.next(), 4);
    assert!(!dir.path().join("shard-1.log.new").exists());
}

#[test]
fn a_full_disk_leaves_the_file_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (mut cache, ..) = open(dir.path());
    cache.append(&[entry(0)], 1).unwrap();
    // /dev/full takes no byte; it stands in for the file on a full disk.
    let real = std::mem::replace(
        &mut cache.file,
        File::options().write(true).open("/dev/full").unwrap(),
    );

    assert!(cache.append(&[entry(1)], 2).is_err());

    assert_eq!(cache.next(), 1);
    cache.file = real;
    cache.append(&[entry(1)], 2).unwrap();
    assert_eq!(open(dir.path()).1, [entry(0), entry(1)]);
}

#[test]
fn a_stream_that_begins_anew_takes_leases_away_and_no_revocation() {
    let revocation = ShardEntry::Revocation {
        revocation: vec![1; 40],
        salt: [1; 32],
        proof: "proof 1\n".to_owned(),
    };
    let dir = tempfile::tempdir().unwrap();
    let (mut cache, ..) = open(dir.path());
    cache.append(&[entry(0), revocation.clone()], 2).unwrap();

    cache.begin_anew().unwrap();
    cache.append(&[entry(0)], 1).unwrap();

    let (cache, entries, recovered) = open(dir.path());
    assert_eq!(entries, [revocation, entry(0)]);
    assert_eq!((cache.next(), recovered.torn_bytes), (1, 0));
}
