//! What lists of names weigh: alone in its process, so that the process can be weighed.

#![expect(clippy::unwrap_used, reason = "a test that fails should say where")]

use std::io::{BufWriter, Write as _};

use dnscrypt_proxy::policy::{Policy, Rules};

const NAMES: usize = 200_000;
const BOUND: usize = 4 << 20;
const PAGE: usize = 4096;

/// What the process has in memory, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * PAGE
}

#[test]
fn two_hundred_thousand_names_take_less_than_four_megabytes() {
    let list = tempfile::NamedTempFile::new().unwrap();
    let mut writer = BufWriter::new(&list);
    for n in 0..NAMES {
        writeln!(writer, "0.0.0.0 host-{n}.some-tracker-{}.example", n / 7).unwrap();
    }
    writer.flush().unwrap();
    drop(writer);
    let rules = |blocklists| Rules {
        blocklists,
        ..Rules::default()
    };
    Policy::new(rules(Vec::new())).settle();
    let before = resident();

    let policy = Policy::new(rules(vec![list.path().to_owned()]));
    policy.settle();

    let grown = resident().saturating_sub(before);
    println!("{NAMES} names: {} KiB", grown >> 10);
    assert!(grown > NAMES * 8, "{grown} bytes: the list was not read");
    assert!(grown < BOUND, "{grown} bytes");
    drop(policy);
}
