//! A lease with a rate: TCP fills it and does not exceed it, another home does not notice, and a renewed lease changes it in
//! the middle of a session.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::ops::RangeInclusive;
use std::time::Duration;

use lab::{IperfServer, WEB, Way, World, ZONE_SERVER, cubic, stream, wait_until};
use serde_json::Value;

const MBIT: f64 = 0.001;
/// What of a rate TCP's payload reaches and never exceeds.
const FILLED: RangeInclusive<f64> = 0.85..=1.05;
const SECONDS: u32 = 5;
/// Far beyond every limit here, far below what a busy machine does.
const UNLIMITED: f64 = 200.0;

fn tunnel(world: &World) -> Value {
    world.pop.status().unwrap()["tunnel"].clone()
}

fn over_limit(world: &World) -> u64 {
    tunnel(world)["dropped"]["over_limit"].as_u64().unwrap_or(0)
}

/// What one stream of the home reaches, as a part of a rate in Mb/s.
#[track_caller]
fn assert_fills(world: &World, way: Way, mbit: f64) {
    let reached = cubic(&world.lab.home, WEB, way, SECONDS).unwrap() / MBIT;
    println!("{way}: {reached:.1} of {mbit} Mb/s");
    assert!(FILLED.contains(&(reached / mbit)), "{way}: {reached} Mb/s");
}

/// A home with a rate of 50 Mb/s down and 20 up.
fn limit(world: &mut World) {
    let claim = ["claim", "new", "--down", "50M", "--up", "20M"];
    let made = world.office.cli_json(&claim).unwrap();
    world.power_on().unwrap();
    world.router.enrol(made["code"].as_str().unwrap()).unwrap();
    world.wait_protected().unwrap();
}

#[test]
fn tcp_fills_a_limited_lease_in_both_directions_and_its_neighbour_does_not_notice() {
    let mut world = World::new().unwrap();
    let (go, _) = world.neighbour(&[ZONE_SERVER]).unwrap();
    limit(&mut world);
    let _second = IperfServer::start(&world.lab.internet, ZONE_SERVER).unwrap();

    assert_fills(&world, Way::Down, 50.0);
    assert_fills(&world, Way::Up, 20.0);
    let refused = over_limit(&world);
    assert!(refused > 0, "nothing was beyond the rate");

    std::thread::scope(|scope| {
        let beside = scope.spawn(|| {
            let office = &world.lab.office;
            stream(office, ZONE_SERVER, Way::Down, SECONDS).unwrap() / MBIT
        });
        assert_fills(&world, Way::Down, 50.0);
        let beside = beside.join().unwrap();
        println!("beside it: {beside:.0} Mb/s");
        assert!(beside > UNLIMITED, "{beside} Mb/s");
    });
    assert!(go.latest_handshake(&world.pop.wireguard).unwrap() > 0);
}

#[test]
fn a_renewed_lease_changes_the_rate_within_seconds_and_no_session_ends() {
    let mut world = World::new().unwrap();
    limit(&mut world);
    assert_fills(&world, Way::Down, 50.0);
    let before = tunnel(&world)["handshakes"].clone();
    let next = |status: &Value| status["shards"][0]["next"].as_u64().unwrap();
    let read = next(&world.pop.status().unwrap());
    let devices = world.office.devices().unwrap();
    let id = devices[0]["device"].as_str().unwrap();

    let change = ["device", "limit", id, "--down", "20M", "--up", "none"];
    let changed = world.office.cli_json(&change).unwrap();
    assert_eq!(changed["epoch"], 2);
    wait_until("the gateway has the lease", Duration::from_secs(5), || {
        Ok((next(&world.pop.status()?) > read).then_some(()))
    })
    .unwrap();

    assert_fills(&world, Way::Down, 20.0);
    let up = stream(&world.lab.home, WEB, Way::Up, SECONDS).unwrap() / MBIT;
    println!("up without a limit: {up:.0} Mb/s");
    assert!(up > 40.0, "{up} Mb/s");
    assert_eq!(tunnel(&world)["handshakes"], before);
}
