//! Devices of a home that ask the gateway's resolver over TLS, HTTPS and QUIC, with the programs that people have for it.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::net::TcpStream;
use std::time::Duration;

use lab::{
    DOORS_NAME, GATEWAY_INNER, GATEWAY_INNER_V6, HTTPS_PORT, INSIDE, INSIDE_NAMES, PAGE_NAME, WEB,
    World, open_doors, said, wait_until,
};
use serde_json::Value;

const CONNECTIONS: usize = 2_000;

/// A protected home whose gateway has doors, and the certificate that its devices trust.
fn world() -> (World, String) {
    let mut world = World::new().unwrap();
    let certificate = open_doors(&mut world).unwrap();
    world.enrol().unwrap();
    (world, certificate)
}

fn kdig(world: &World, args: &[&str]) -> String {
    let program = ["kdig", "+timeout=4", "+retry=0"];
    let output = world.lab.home.output(&[&program, args].concat());
    said(&output.unwrap())
}

fn doors(world: &World) -> Value {
    world.pop.status().unwrap()["doors"].clone()
}

#[test]
fn kdig_and_curl_ask_by_every_door_and_check_the_certificate() {
    let (world, certificate) = world();
    let trust = format!("+tls-ca={certificate}");
    let host = |name: &str| format!("+tls-hostname={name}");
    let port = HTTPS_PORT.to_string();
    // kdig 3.2.6 tries longer datagrams, and gives up when it is told that one is too long for the tunnel.
    let narrow = ["ip", "link", "set", "eth0", "mtu", "1420"];
    world.lab.home.run(&narrow).unwrap();
    let by = [
        &["+tls"][..],
        &["+https"],
        &["+https", "-p", &port],
        &["+https-get", "-p", &port],
        &["+quic"],
    ];
    let ask = |server: &str, door: &[&str], name: &str| {
        let to = [&*format!("@{server}"), &*trust, &*host(name), "+padding"].map(str::to_owned);
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        kdig(&world, &[&to, door, &[PAGE_NAME, "A"]].concat())
    };

    for door in by {
        let refused = ask(GATEWAY_INNER, door, "dns.pop2.example");
        assert!(!refused.contains("status: NOERROR"), "{door:?}: {refused}");
        for server in [GATEWAY_INNER, GATEWAY_INNER_V6] {
            let answer = ask(server, door, DOORS_NAME);
            let is_answer = answer.contains("status: NOERROR") && answer.contains(WEB);
            assert!(
                is_answer && answer.contains("PADDING"),
                "{door:?}: {answer}"
            );
        }
    }
    // The doors' own name is looked up as the home looks up everything: through the router.
    let url = format!("https://{DOORS_NAME}/dns-query");
    let page = format!("http://{PAGE_NAME}/");
    let limits = ["--max-time", "6", "--cacert", &certificate];
    let curl = [&["curl", "-sSf", "--doh-url", &url][..], &limits, &[&page]].concat();
    assert!(world.lab.home.run(&curl).unwrap().contains("It works"));

    let figures = doors(&world);
    for door in ["tls", "http2", "quic"] {
        assert!(figures["queries"][door].as_u64() >= Some(2), "{figures}");
    }
    assert!(figures["shared"].as_u64() >= Some(2), "{figures}");
}

#[test]
fn a_device_that_knows_the_name_is_told_of_the_doors_by_its_router_and_of_nothing_else_inside() {
    let (world, certificate) = world();
    let through_router = |args: &[&str]| kdig(&world, &[&["@192.168.1.1"], args].concat());

    for name in INSIDE_NAMES {
        let answer = through_router(&[name, "A"]);
        assert!(!answer.contains(INSIDE), "{answer}");
    }
    let router = through_router(&["_dns.resolver.arpa", "SVCB"]);
    assert!(router.contains("ANSWER: 0"), "that is the router: {router}");
    let told = through_router(&[&format!("_dns.{DOORS_NAME}"), "SVCB"]);
    for (kind, address) in [("A", GATEWAY_INNER), ("AAAA", GATEWAY_INNER_V6)] {
        let found = through_router(&["+short", DOORS_NAME, kind]);
        assert_eq!(found.trim(), address);
    }
    let (at, trust) = (
        format!("@{GATEWAY_INNER}"),
        format!("+tls-ca={certificate}"),
    );
    let host = format!("+tls-hostname={DOORS_NAME}");
    let door = |args: &[&str]| kdig(&world, &[&[&*at, "+tls", &*trust, &*host], args].concat());
    let by_resolver = door(&["_dns.resolver.arpa", "SVCB"]);
    for part in [
        DOORS_NAME,
        "alpn=h2,h3",
        "alpn=doq",
        "alpn=dot",
        "port=853",
        "port=8443",
        "port=443",
        GATEWAY_INNER,
        GATEWAY_INNER_V6,
    ] {
        assert!(told.contains(part), "{part}: {told}");
        assert!(by_resolver.contains(part), "{part}: {by_resolver}");
    }
    let nowhere = door(&["printer.local", "A"]);
    let is_ours = nowhere.contains("status: NXDOMAIN") && nowhere.contains("nobody.invalid.");
    assert!(is_ours, "{nowhere}");
}

#[test]
fn thousands_of_silent_connections_shut_out_their_own_home_alone_and_only_as_long_as_they_last() {
    let (world, _) = world();
    let target = format!("{GATEWAY_INNER}:853").parse().unwrap();
    let limit = Duration::from_secs(2);

    let connect = |_| TcpStream::connect_timeout(&target, limit).ok();
    let all = || Ok((0..CONNECTIONS).filter_map(connect).collect::<Vec<_>>());
    let held = world.lab.home.enter(all).unwrap();

    assert!(held.len() > CONNECTIONS / 2, "{} were let in", held.len());
    let refused = doors(&world)["refused"]["connections"].as_u64();
    assert!(refused > Some(CONNECTIONS as u64 / 2), "{refused:?}");
    let answer = world.dig(&[PAGE_NAME, "A"]).unwrap();
    assert!(answer.contains(WEB), "DNSCrypt goes on: {answer}");
    drop(held);
    let at = format!("@{GATEWAY_INNER}");
    wait_until("the door is free", Duration::from_secs(15), || {
        let answer = kdig(&world, &[&at, "+tls", PAGE_NAME]);
        Ok(answer.contains(WEB).then_some(()))
    })
    .unwrap();
}
