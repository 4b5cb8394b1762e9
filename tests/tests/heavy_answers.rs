//! A home that owns zones and makes its gateway ask them as fast as it can: answers of 60 KB, and such as are just light
//! enough to be kept. What the gateway holds has a bound, and a neighbour's names are looked up meanwhile.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use lab::{CROWDED_NAMES, HEAVY_NAMES, MANY_NAMES, Programs, WEB, World};

/// Its caches, full of the heaviest, and as many answers on their way as it lets in.
const BOUND_MB: f64 = 384.0;
/// Without bounds such a gateway grows by 60 MB a second.
const SECONDS: &str = "20";

/// New names of a neighbour meanwhile, from the same name server.
const OTHERS: usize = 20;

fn attack(zone: &str, rtype: &str) {
    let world = World::protected().unwrap();
    let program = Programs::of_this_build().unwrap();
    let program = program.dns().to_string_lossy().into_owned();
    let gateway = world.gateway.as_ref().unwrap();
    let before = gateway.peak_memory_mb().unwrap();

    let bench = ["bench", &world.pop.stamp, "--own-server", "--saturate"];
    let load = ["--in-flight=2048", "--duration-s", SECONDS];
    let about = ["--random-under", zone, "--type", rtype];
    let said = std::thread::scope(|scope| {
        let attack = [&[program.as_str()], &bench[..], &load, &about].concat();
        let attacker = &world.lab.home;
        let attack = scope.spawn(move || attacker.run(&attack));
        for n in 0..OTHERS {
            // By an address of its own, as a neighbour.
            let name = format!("n{n}.{MANY_NAMES}");
            let ask = ["query", &name, "A", "--tcp", "--stamp", &world.pop.stamp];
            let answer = world.lab.pop.run(&[&[program.as_str()], &ask[..]].concat());
            assert!(answer.unwrap().contains(WEB), "{name}");
        }
        attack.join().unwrap()
    });

    let peak = gateway.peak_memory_mb().unwrap();
    println!(
        "{}\n{before:.0} MB before, {peak:.0} MB at most",
        said.unwrap()
    );
    assert!(peak < BOUND_MB, "{peak:.0} MB");
    world.page().unwrap();
}

#[test]
fn answers_of_60_kilobytes_fill_no_gateway() {
    attack(HEAVY_NAMES, "TXT");
}

#[test]
fn answers_of_as_many_records_as_are_kept_fill_no_gateway() {
    attack(CROWDED_NAMES, "A");
}
