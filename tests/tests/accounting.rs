//! The bytes of all leases, present and past, against what the kernel counted at the gateway's TUN device.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::time::Duration;

use lab::{
    Device, Frames, GATEWAY_INNER, IperfServer, WEB, WEB_V6, Way, WireGuardGo, World, ZONE_SERVER,
    stream, wait_until,
};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);
/// No lease of anybody's.
const STRANGE: &str = "10.64.99.9";

fn figure(status: &Value, path: &str) -> i64 {
    let found = status.pointer(path);
    found.and_then(Value::as_i64).unwrap_or_default()
}

/// TCP both ways, UDP beyond the rate, fragments, IPv6.
fn mixed_traffic(world: &World) {
    let home = &world.lab.home;
    for way in [Way::Down, Way::Up] {
        stream(home, WEB, way, 2).unwrap();
    }
    let flood = [
        "iperf3", "-c", WEB, "-u", "-b", "300M", "-l", "1200", "-t", "1",
    ];
    home.run(&flood).unwrap();
    home.run(&[&flood[..], &["-R"]].concat()).unwrap();
    for web in [WEB, WEB_V6] {
        let fragments = [
            "ping", "-c", "20", "-i", "0.02", "-s", "4000", "-W", "2", web,
        ];
        home.run(&fragments).unwrap();
    }
    let page = format!("http://[{WEB_V6}]/hundred.bin");
    let curl = ["curl", "-sSf", "--max-time", "60", "-r", "0-20000000"];
    home.run(&[&curl[..], &["-o", "/dev/null", &page]].concat())
        .unwrap();
}

/// What nobody may send, and what is for nobody.
fn stray_traffic(world: &World, go: &WireGuardGo) {
    let office = &world.lab.office;
    let address = format!("{STRANGE}/32");
    office
        .run(&["ip", "addr", "add", &address, "dev", &go.interface])
        .unwrap();
    let pings = ["ping", "-c", "5", "-i", "0.05", "-W", "1"];
    let strange = [&pings[..], &["-I", STRANGE, GATEWAY_INNER]].concat();
    let nobody = [&pings[..], &["fd64::dead"]].concat();
    // Neither is answered, which ping reports as a failure.
    assert!(!office.output(&strange).unwrap().status.success());
    let internet = &world.lab.internet;
    assert!(!internet.output(&nobody).unwrap().status.success());
}

/// Revokes the neighbour in the middle of its download.
fn revoked_under_load(world: &World, device: &Device) {
    let office = &world.lab.office;
    let mut iperf = office.command("iperf3");
    iperf.args(["-c", ZONE_SERVER, "-R", "-t", "60", "-b", "100M"]);
    let _running = office.spawn_command("iperf3-revoked", iperf).unwrap();
    let carried = || world.pop.status().unwrap()["tunnel"]["tx_bytes"].as_i64();
    let before = carried();
    wait_until("the neighbour downloads", PATIENCE, || {
        Ok((carried() > before.map(|bytes| bytes + 5_000_000)).then_some(()))
    })
    .unwrap();
    let id = device.id();
    let revoke = ["device", "revoke", &id, "--reason", "lost"];
    world.office.cli(&revoke).unwrap();
    wait_until("the neighbour is gone", PATIENCE, || {
        Ok((world.pop.status()?["peers"]["leased"] == 1).then_some(()))
    })
    .unwrap();
}

/// The status once two looks at it are the same.
fn at_rest(world: &World) -> Value {
    let mut last = Value::Null;
    wait_until("nothing is under way", PATIENCE, || {
        let status = world.pop.status_and_leases()?;
        let seen = status["tunnel"].clone();
        // Questions that the gateway answers itself never end.
        let same = [
            "/rx_bytes",
            "/tx_bytes",
            "/device/rx_bytes",
            "/device/tx_bytes",
        ]
        .iter()
        .all(|path| seen.pointer(path) == last.pointer(path));
        last = seen;
        Ok(same.then_some(status))
    })
    .unwrap()
}

#[test]
fn the_leases_add_up_to_the_tun_devices_counters_to_the_byte() {
    let mut world = World::new().unwrap();
    let (go, device) = world.neighbour(&[ZONE_SERVER]).unwrap();
    let claim = ["claim", "new", "--down", "100M", "--up", "100M"];
    let made = world.office.cli_json(&claim).unwrap();
    world.power_on().unwrap();
    world.router.enrol(made["code"].as_str().unwrap()).unwrap();
    world.wait_protected().unwrap();
    let _second = IperfServer::start(&world.lab.internet, ZONE_SERVER).unwrap();

    mixed_traffic(&world);
    stray_traffic(&world, &go);
    revoked_under_load(&world, &device);
    mixed_traffic(&world);

    let status = at_rest(&world);
    let tunnel = &status["tunnel"];
    println!("{tunnel:#}");
    let leases = status["leases"].as_object().unwrap();
    let sum = |name| {
        leases
            .values()
            .map(|lease| figure(lease, name))
            .sum::<i64>()
    };
    assert_eq!(leases.len(), 2, "the revoked one is not forgotten");
    assert_eq!(sum("/rx_bytes"), figure(tunnel, "/rx_bytes"));
    assert_eq!(sum("/tx_bytes"), figure(tunnel, "/tx_bytes"));
    let kernel = Frames::of(&world.lab.pop, "culvert0").unwrap();
    let device = [kernel.received_bytes, kernel.sent_bytes].map(|bytes| bytes as i64);
    let from_routers = sum("/rx_bytes") + figure(tunnel, "/device/told_bytes")
        - figure(tunnel, "/device/joined_header_bytes")
        - figure(tunnel, "/device/refused_bytes");
    let to_routers = sum("/tx_bytes")
        + figure(tunnel, "/device/lost_bytes")
        + figure(tunnel, "/device/waiting_bytes")
        - figure(tunnel, "/device/cut_header_bytes");
    assert_eq!(device, [from_routers, to_routers]);
    for difference in ["/device/rx_difference", "/device/tx_difference"] {
        assert_eq!(figure(tunnel, difference), 0, "{difference}");
    }
    // All of it was there.
    for happened in [
        "/device/joined_header_bytes",
        "/device/cut_header_bytes",
        "/device/lost_bytes",
        "/device/answered_bytes",
        "/dropped/over_limit",
        "/dropped/source_mismatch",
        "/dropped/not_routed",
    ] {
        assert!(figure(tunnel, happened) > 0, "{happened}: {tunnel:#}");
    }
}
