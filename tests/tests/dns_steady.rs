//! The edge is away for a while: the home's lookups are answered from what is known, and nobody is asked in clear.
//! `cargo xtask dns-outage` does the same for ten minutes.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use lab::outage::{Away, Options, run};

const SECONDS: u64 = 20;

fn bridged(away: Away) {
    let report = run(Options {
        away,
        seconds: SECONDS,
    })
    .unwrap();

    println!("{}", report.text());
    assert!(report.ok, "{:?}", report.failures);
    assert!(report.wireguard_frames > 0);
    for given in &report.given {
        assert!(given.asked >= 40, "{given:?}");
    }
}

#[test]
fn a_resolver_that_is_away_is_bridged_with_stale_answers_and_found_again_within_two_seconds() {
    bridged(Away::Resolver);
}

#[test]
fn a_gateway_that_is_away_is_bridged_with_stale_answers_and_found_again_within_two_seconds() {
    bridged(Away::Gateway);
}
