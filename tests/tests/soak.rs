//! A minute of the soak: its line, its load, one kill and its verdict.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use lab::soak::{Options, run};

#[test]
fn a_minute_on_a_bad_line_with_a_kill_shows_nothing_in_clear_and_no_changed_byte() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        minutes: 1,
        loss: 2.0,
        delay_ms: 40,
        reorder: 5.0,
        kill: true,
        seed: 1,
        json: false,
    };

    let report = run(options, folder.path()).unwrap();

    println!("{}", report.text().unwrap());
    assert!(report.ok, "{:?}", report.failures);
    assert!(report.strikes.iter().any(|strike| strike.in_use));
    assert!(report.wireguard_frames > 10_000);
    let drawing = std::fs::read_to_string(folder.path().join("soak.svg")).unwrap();
    assert!(drawing.contains("<polyline"));
}
