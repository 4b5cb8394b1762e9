//! What the gateway's kernel remembers of connections: those that it translates, and nobody's tunnel or lookups.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::net::{Ipv6Addr, UdpSocket};
use std::time::Duration;

use anyhow::Context as _;
use lab::{GATEWAY_INNER, WEB, WEB_V6, World};

const SOON: Duration = Duration::from_secs(5);
const ECHO: u16 = 9_000;
const TUNNEL: u16 = 51_820;

/// The kernel's table, a connection a line.
fn tracked(world: &World) -> Vec<String> {
    let table = world
        .lab
        .pop
        .run(&["cat", "/proc/net/nf_conntrack"])
        .unwrap();
    table.lines().map(str::to_owned).collect()
}

#[test]
fn tunnels_lookups_and_ipv6_are_not_tracked_and_a_home_may_send_from_the_tunnels_port() {
    let world = World::protected().unwrap();
    let lab = &world.lab;
    let at = |address, port| UdpSocket::bind((address, port)).context("binding UDP");
    let echo = lab.internet.enter(|| at(WEB, ECHO)).unwrap();
    let home = lab.home.enter(|| at("0.0.0.0", TUNNEL)).unwrap();
    for socket in [&echo, &home] {
        socket.set_read_timeout(Some(SOON)).unwrap();
    }
    world.page_within(SOON).unwrap();
    let ping = ["ping", "-6", "-c", "1", "-W", "2", WEB_V6];
    lab.home.run(&ping).unwrap();

    let mut buffer = [0; 16];
    home.send_to(b"question", (WEB, ECHO)).unwrap();
    let (len, from) = echo.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"question");
    assert_ne!(from.port(), TUNNEL);
    echo.send_to(b"answer", from).unwrap();
    let len = home.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"answer");

    let tracked = tracked(&world);
    let of = |what: String| tracked.iter().filter(|line| line.contains(&what)).count();
    assert_eq!(of(format!("dst={WEB} sport={TUNNEL} dport={ECHO}")), 1);
    assert_eq!(of(format!("dport={TUNNEL} ")), 0, "{tracked:?}");
    assert_eq!(of(format!("={GATEWAY_INNER} ")), 0, "{tracked:?}");
    let web_v6: Ipv6Addr = WEB_V6.parse().unwrap();
    let words = web_v6.segments().map(|word| format!("{word:04x}"));
    assert_eq!(of(words.join(":")), 0, "{tracked:?}");
}
