//! Some seconds of hostile input; `cargo xtask hostile` is the whole of it.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use lab::hostile::{Options, run};

#[test]
fn spoiled_packets_and_lying_servers_crash_nobody_and_make_nobody_say_what_is_not_so() {
    let options = Options {
        packets: 150_000,
        lies: 8_000,
        seed: 1,
        forwarding: false,
        json: false,
    };

    let report = run(options).unwrap();

    println!("{}", report.text().unwrap());
    assert!(report.ok, "{:#?}", report.failures);
}
