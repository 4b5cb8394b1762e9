use std::num::NonZeroU32;

use super::*;

const TABLE: &str = "\
# prefix         whose
192.0.2.0/24     64500
192.0.2.128/25   cdn-1   # within the other
2001:db8::/32    AS64500
";

fn networks() -> Networks {
    Networks::parse(TABLE).unwrap()
}

fn drawn(remote: &str, direction: Direction, bytes: usize) -> Drawn {
    Drawn {
        direction,
        remote: remote.parse().unwrap(),
        bytes,
    }
}

fn one_in(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

fn count(volume: &mut Volume, networks: &Networks, remote: &str, times: usize) {
    let mut tally = Tally::default();
    for _ in 0..times {
        tally.count(networks, drawn(remote, Direction::ToRouter, 1_000));
    }
    volume.add(tally);
}

fn shown(volume: &Volume) -> Vec<(&'static str, u64)> {
    volume
        .estimates()
        .map(|row| (row.network, row.bytes))
        .collect()
}

#[test]
fn a_line_that_is_no_prefix_and_name_is_refused_with_its_number() {
    for (line, error) in [
        ("192.0.2.0/24", LineError::Form),
        ("192.0.2.0 AS1", LineError::Form),
        ("192.0.2.0/33 AS1", LineError::Form),
        ("192.0.2.0/24 AS1 AS2", LineError::Form),
        ("192.0.2.1/24 AS1", LineError::HostBits),
        ("192.0.2.0/24 other", LineError::Name),
        ("192.0.2.0/24 a\"b", LineError::Name),
        ("192.0.2.0/24 example.org", LineError::Name),
        (
            "192.0.2.0/24 a23456789012345678901234567890123",
            LineError::Name,
        ),
    ] {
        let refused = Networks::parse(&format!("{TABLE}\n{line}\n")).err();

        assert_eq!(refused, Some((6, error)), "{line}");
    }
}

#[test]
fn no_file_makes_more_rows_than_there_is_room_for() {
    let line = |n: usize| format!("10.{}.{}.0/24 n{n}\n", n / 256, n % 256);
    let fits: String = (0..MAX_NETWORKS).map(line).collect();
    let one_more: String = (0..=MAX_NETWORKS).map(line).collect();

    assert_eq!(
        Networks::parse(&one_more).err(),
        Some((MAX_NETWORKS + 1, LineError::TooManyNetworks))
    );
    assert_eq!(
        Networks::parse(&fits).unwrap().names.len(),
        MAX_NETWORKS + 1
    );
}

#[test]
fn the_longest_prefix_says_whose_an_address_is() {
    let networks = networks();
    let name = |address: &str| networks.names[usize::from(networks.row(address.parse().unwrap()))];

    assert_eq!(name("192.0.2.127"), "AS64500");
    assert_eq!(name("192.0.2.128"), "cdn-1");
    assert_eq!(name("2001:db8:ffff::1"), "AS64500");
    assert_eq!(name("198.51.100.1"), "other");
    assert_eq!(name("::1"), "other");
}

#[test]
fn no_row_and_no_difference_between_two_looks_reveals_fewer_samples_than_k() {
    let networks = networks();
    let mut volume = Volume::new(one_in(100), &networks);
    let per_sample = 1_000 * 100;

    for n in 1..=100 {
        let before: u64 = shown(&volume).iter().map(|(_, bytes)| bytes).sum();
        count(&mut volume, &networks, "192.0.2.1", 1);
        let after: u64 = shown(&volume).iter().map(|(_, bytes)| bytes).sum();

        assert!(
            after == before || after - before >= MIN_SAMPLES * per_sample,
            "sample {n}: {before} to {after}"
        );
        assert_eq!(after / per_sample, n / MIN_SAMPLES * MIN_SAMPLES);
    }
    // Nine of another network stay unseen beside it, however often one looks.
    count(&mut volume, &networks, "192.0.2.200", 9);
    assert_eq!(shown(&volume), [("AS64500", 100 * per_sample)]);
}

#[test]
fn directions_are_suppressed_each_by_itself() {
    let networks = networks();
    let mut volume = Volume::new(one_in(100), &networks);
    let mut tally = Tally::default();
    for n in 0..19 {
        let direction = if n < 10 {
            Direction::FromRouter
        } else {
            Direction::ToRouter
        };
        tally.count(&networks, drawn("192.0.2.1", direction, 50));
    }
    volume.add(tally);

    let expected = Estimate {
        network: "AS64500",
        direction: Direction::FromRouter,
        bytes: 10 * 50 * 100,
    };
    assert_eq!(volume.estimates().collect::<Vec<_>>(), [expected]);
}

#[test]
fn workers_reach_the_threshold_together() {
    let networks = networks();
    let mut volume = Volume::new(one_in(1_000), &networks);
    let mut both = Tally::default();
    for _ in 0..2 {
        let mut tally = Tally::default();
        for _ in 0..5 {
            tally.count(&networks, drawn("8.8.8.8", Direction::ToRouter, 10));
        }
        both.add(tally);
    }
    volume.add(both);

    assert_eq!(shown(&volume), [("other", 10 * 10 * 1_000)]);
}
