//! The access network changes under a running tunnel: address, length of packets, the whole WAN.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::time::Duration;

use lab::{HOME, Netns, Relay, WEB, World, wait_until};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(5);

fn ip(netns: &Netns, lines: &[&str]) {
    for line in lines {
        let words: Vec<&str> = std::iter::once("ip").chain(line.split(' ')).collect();
        netns.run(&words).unwrap();
    }
}

#[track_caller]
fn wait_tunnel(world: &World, key: &str, wanted: Value, within: Duration) {
    let what = format!("{key} is {wanted}");
    wait_until(&what, within, || {
        let tunnel = world.router.status()?["tunnel"].clone();
        anyhow::ensure!(tunnel[key] == wanted, "it is {}", tunnel[key]);
        Ok(Some(()))
    })
    .unwrap();
}

/// Pings from the home with a packet of `bytes` that must not be cut, until the answer says `wanted`.
#[track_caller]
fn ping_whole(world: &World, bytes: usize, wanted: &str) {
    let payload = (bytes - 28).to_string();
    let argv = [
        "ping", "-M", "do", "-c", "1", "-W", "1", "-s", &payload, WEB,
    ];
    wait_until(wanted, SOON, || {
        let output = world.lab.home.output(&argv)?;
        let said = lab::said(&output);
        anyhow::ensure!(said.contains(wanted), "{said}");
        Ok(Some(()))
    })
    .unwrap();
}

#[test]
fn a_wan_that_gets_another_address_keeps_the_home_online() {
    let world = World::protected().unwrap();
    let before = world.agent.as_ref().unwrap().log();

    ip(
        &world.lab.router,
        &[
            "addr del 198.18.0.2/24 dev wan0",
            "addr add 198.18.0.77/24 dev wan0",
            "route add default via 198.18.0.1",
        ],
    );
    world.page_within(SOON).unwrap();

    let log = world.agent.as_ref().unwrap().log();
    assert!(!before.contains("has changed"), "{before}");
    assert!(log.contains("the way to the gateway has changed"), "{log}");
}

#[test]
fn the_tunnel_follows_the_mtu_of_the_wan_while_it_runs_and_the_home_is_told() {
    let world = World::protected().unwrap();
    wait_tunnel(&world, "mtu", 1420.into(), SOON);

    ip(&world.lab.access, &["link set rtr0 mtu 1450"]);
    ip(&world.lab.router, &["link set wan0 mtu 1450"]);
    wait_tunnel(&world, "mtu", 1390.into(), SOON);
    ping_whole(&world, 1420, "mtu = 1390");
    ping_whole(&world, 1390, "1 received");
    world.download(&[]).unwrap();
    ip(&world.lab.router, &["link set wan0 mtu 1500"]);

    wait_tunnel(&world, "mtu", 1420.into(), SOON);
}

#[test]
fn a_shorter_path_behind_the_access_is_learnt_from_icmp() {
    let world = World::protected().unwrap();

    ip(&world.lab.access, &["link set pop0 mtu 1400"]);
    ip(&world.lab.pop, &["link set acc0 mtu 1400"]);
    ping_whole(&world, 1420, "mtu = 1340");

    wait_tunnel(&world, "mtu", 1340.into(), SOON);
    ping_whole(&world, 1340, "1 received");
    world.download(&[]).unwrap();
}

/// A world whose router has a second WAN with a way to the gateway.
fn with_two_wans() -> World {
    let world = World::with_two_wans(Relay::Without).unwrap();
    wait_tunnel(&world, "wan", "wan0".into(), SOON);
    world
}

#[test]
fn a_second_wan_takes_over_from_a_lost_link_and_hands_back_after_a_while() {
    let world = with_two_wans();

    ip(&world.lab.router, &["link set wan0 down"]);
    wait_tunnel(&world, "wan", "wan1".into(), SOON);
    world.page_within(SOON).unwrap();
    ip(
        &world.lab.router,
        &["link set wan0 up", "route add default via 198.18.0.1"],
    );
    world.page_within(SOON).unwrap();
    assert_eq!(world.router.status().unwrap()["tunnel"]["wan"], "wan1");

    wait_tunnel(&world, "wan", "wan0".into(), Duration::from_secs(20));
    world.page_within(SOON).unwrap();
}

#[test]
fn a_second_wan_takes_over_from_a_silent_one() {
    let world = with_two_wans();
    world
        .lab
        .home
        .run(&["ping", "-c", "1", "-W", "2", WEB])
        .unwrap();

    let rules =
        "table inet dead { chain c { type filter hook forward priority 0; iifname rtr0 drop; }; }";
    world.lab.access.run(&["nft", rules]).unwrap();
    let mut pings = world.pings().unwrap();
    wait_tunnel(&world, "wan", "wan1".into(), Duration::from_secs(40));

    world.page_within(SOON).unwrap();
    assert!(pings.ended().is_none(), "{HOME} stopped pinging");
}
