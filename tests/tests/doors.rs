//! Devices of a home that ask the gateway's resolver over TLS, HTTPS and QUIC, with the programs that people have for it.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::net::TcpStream;
use std::time::Duration;

use lab::{
    DOORS_NAME, DoorsSite, GATEWAY_INNER, GATEWAY_INNER_V6, HTTPS_PORT, PAGE_NAME, WEB, World,
};
use serde_json::Value;

const CONNECTIONS: usize = 2_000;

fn open(more: &str) -> (World, DoorsSite) {
    let mut world = World::new().unwrap();
    let site = DoorsSite::open(&mut world, more).unwrap();
    world.enrol().unwrap();
    (world, site)
}

fn kdig(world: &World, args: &[&str]) -> String {
    let program = ["kdig", "+timeout=4", "+retry=0"];
    world.lab.home.run(&[&program, args].concat()).unwrap()
}

fn doors(world: &World) -> Value {
    world.pop.status().unwrap()["doors"].clone()
}

#[test]
fn kdig_and_curl_ask_by_every_door_and_check_the_certificate() {
    let (world, site) = open("");
    let certificate = site.certificate().unwrap();
    let trust = format!("+tls-ca={certificate}");
    let host = format!("+tls-hostname={DOORS_NAME}");
    let port = HTTPS_PORT.to_string();

    for server in [GATEWAY_INNER, GATEWAY_INNER_V6] {
        let at = format!("@{server}");
        for door in [
            &["+tls"][..],
            &["+https", "-p", &port],
            &["+https-get", "-p", &port],
            &["+quic"],
        ] {
            let args = [
                &[&*at, &*trust, &*host, "+padding"],
                door,
                &[PAGE_NAME, "A"],
            ]
            .concat();
            let answer = kdig(&world, &args);
            assert!(
                answer.contains("status: NOERROR") && answer.contains(WEB),
                "{answer}"
            );
            assert!(answer.contains("PADDING"), "{door:?}: {answer}");
        }
    }
    let at = format!("@{GATEWAY_INNER}");
    let other = [
        "kdig",
        &at,
        &trust,
        "+tls",
        "+tls-hostname=dns.pop2.example",
        PAGE_NAME,
    ];
    let refused = lab::said(&world.lab.home.output(&other).unwrap());
    assert!(
        !refused.contains(WEB),
        "a certificate for another name: {refused}"
    );

    let url = format!("https://{DOORS_NAME}:{HTTPS_PORT}/dns-query");
    let place = format!("{DOORS_NAME}:{HTTPS_PORT}:{GATEWAY_INNER}");
    let page = world.lab.home.run(&[
        "curl",
        "-sSf",
        "--max-time",
        "6",
        "--doh-url",
        &url,
        "--resolve",
        &place,
        "--cacert",
        &certificate,
        &format!("http://{PAGE_NAME}/"),
    ]);
    assert!(page.unwrap().contains("It works"));
    let queries = doors(&world)["queries"].clone();
    for door in ["tls", "http2", "quic"] {
        assert!(queries[door].as_u64() >= Some(2), "{queries}");
    }
    assert!(doors(&world)["shared"].as_u64() > Some(2));
}

#[test]
fn a_home_is_told_of_the_doors_by_its_router_and_special_names_go_nowhere() {
    let (world, site) = open("");
    let trust = format!("+tls-ca={}", site.certificate().unwrap());

    let told = kdig(&world, &["@192.168.1.1", "_dns.resolver.arpa", "SVCB"]);
    for part in [
        DOORS_NAME,
        "alpn=h2,h3",
        "alpn=doq",
        "alpn=dot",
        "port=853",
        "port=8443",
        GATEWAY_INNER,
        GATEWAY_INNER_V6,
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let by_name = kdig(&world, &["@192.168.1.1", "+short", DOORS_NAME, "A"]);
    assert_eq!(by_name.trim(), GATEWAY_INNER);
    let asked = kdig(&world, &["@192.168.1.1", "resolver.arpa", "NS"]);
    assert!(
        asked.contains("status: NOERROR") && asked.contains("ANSWER: 0"),
        "{asked}"
    );
    let nowhere = kdig(&world, &["@192.168.1.1", "printer.local", "A"]);
    assert!(
        nowhere.contains("status: NXDOMAIN") && nowhere.contains("nobody.invalid."),
        "{nowhere}"
    );
    let host = format!("+tls-hostname={DOORS_NAME}");
    let at = format!("@{}", by_name.trim());
    assert!(kdig(&world, &[&at, "+tls", &trust, &host, PAGE_NAME, "A"]).contains(WEB));
}

#[test]
fn thousands_of_silent_connections_shut_out_their_own_home_alone_and_only_as_long_as_they_last() {
    let (world, _site) = open("");
    let target = format!("{GATEWAY_INNER}:853").parse().unwrap();
    let limit = Duration::from_secs(2);

    let held = world
        .lab
        .home
        .enter(|| {
            let connect = |_| TcpStream::connect_timeout(&target, limit).ok();
            Ok((0..CONNECTIONS).filter_map(connect).collect::<Vec<_>>())
        })
        .unwrap();

    assert!(held.len() > CONNECTIONS / 2, "{} were let in", held.len());
    let refused = doors(&world)["refused"]["connections"].as_u64();
    assert!(refused > Some(CONNECTIONS as u64 / 2), "{refused:?}");
    let answer = world.dig(&[PAGE_NAME, "A"]).unwrap();
    assert!(answer.contains(WEB), "DNSCrypt goes on: {answer}");
    drop(held);
    let at = format!("@{GATEWAY_INNER}");
    lab::wait_until("the door is free", Duration::from_secs(15), || {
        let answer =
            world
                .lab
                .home
                .run(&["kdig", "+timeout=2", "+retry=0", &at, "+tls", PAGE_NAME])?;
        Ok(answer.contains(WEB).then_some(()))
    })
    .unwrap();
}

#[test]
fn a_home_that_asks_beyond_its_rate_is_answered_again_when_it_has_paused() {
    let (world, _site) = open("rate = 2\nburst = 40");
    let unanswered = (0..100)
        .filter(|n| {
            let name = format!("n{n}.many.first-light.lab");
            let asked = [
                "kdig",
                "+timeout=1",
                "+retry=0",
                "@10.64.0.1",
                "+tls",
                &name,
                "A",
            ];
            world.lab.home.run(&asked).is_err()
        })
        .count();

    assert!(unanswered > 10, "{unanswered} of 100");
    assert!(doors(&world)["refused"]["over_rate"].as_u64() > Some(10));
    lab::wait_until("it may ask again", Duration::from_secs(20), || {
        let answer = world.lab.home.run(&[
            "kdig",
            "+timeout=1",
            "+retry=0",
            "@10.64.0.1",
            "+tls",
            PAGE_NAME,
        ])?;
        Ok(answer.contains(WEB).then_some(()))
    })
    .unwrap();
}
