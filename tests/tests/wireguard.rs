//! WireGuard with wireguard-go in both roles: Debian 12's, and later ones that have offloads of their own.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lab::{
    Bulk, ForeignServer, Frames, GATEWAY, GATEWAY_INNER, GATEWAY_INNER_V6, Internet, Lab, Office,
    PAGE_NAME, Peers, Programs, Router, StreamReader, Suite, Userspace, WEB, WEB_V6, WgKey, WgPeer,
    WireGuardGo, World, foreign_site, wait_until,
};

/// Enough for tens of thousands of segments.
const BULK_BYTES: usize = 40_000_000;
/// What no single packet of a tunnel is longer than.
const MTU: u64 = 1420;
/// What no single datagram on the wire is longer than, with its Ethernet header.
const WIRE_FRAME: u64 = 1514;

/// wireguard-go of a later Debian, whose offloads are on wherever the kernel has them.
fn with_offloads(suite: Suite) -> Userspace {
    let peers = Peers::of_this_build().unwrap();
    Userspace::wireguard_go(peers.wireguard_go(suite).unwrap())
}

#[test]
fn our_agent_works_with_wireguard_go_as_its_gateway() {
    agent_and_gateway(&Userspace::wireguard_go("wireguard-go"), |_, _| {});
}

#[test]
fn our_agent_and_a_wireguard_go_with_offloads_as_its_gateway_both_use_them() {
    agent_and_gateway(&with_offloads(Suite::Forky), |lab, go| {
        let bulk = Bulk::listen(&lab.internet, WEB, BULK_BYTES).unwrap();
        let frames = || {
            (
                Frames::of(&lab.router, "culvert0").unwrap(),
                Frames::of(&lab.router, "wan0").unwrap(),
                Frames::of(&lab.pop, &go.interface).unwrap(),
                Frames::of(&lab.pop, "acc0").unwrap(),
            )
        };
        let before = frames();
        bulk.fetch(&lab.home, WEB).unwrap();
        let between = frames();
        bulk.send(&lab.home, WEB).unwrap();
        let after = frames();

        let (ours, theirs) = (between.0.since(before.0), between.2.since(before.2));
        let wire = between.3.since(before.3);
        assert!(ours.mean_received() > MTU, "we joined nothing: {ours:?}");
        assert!(theirs.mean_sent() > MTU, "they had none to cut: {theirs:?}");
        assert!(wire.mean_sent() > WIRE_FRAME, "no runs of theirs: {wire:?}");
        let (ours, theirs) = (after.0.since(between.0), after.2.since(between.2));
        let wire = after.1.since(between.1);
        assert!(ours.mean_sent() > MTU, "we had none to cut: {ours:?}");
        assert!(theirs.mean_received() > MTU, "they joined none: {theirs:?}");
        assert!(wire.mean_sent() > WIRE_FRAME, "no runs of ours: {wire:?}");
    });
}

fn agent_and_gateway(program: &Userspace, also: impl FnOnce(&Lab, &WireGuardGo)) {
    let lab = Lab::for_test().unwrap();
    let programs = Programs::of_this_build().unwrap();
    let _internet = Internet::start(&lab).unwrap();
    let office = Office::init(&lab, &programs).unwrap();
    let _provisioning = office.start().unwrap();
    foreign_site(&lab).unwrap();
    let peers = Peers::of_this_build().unwrap();
    let dns =
        ForeignServer::encrypted_dns_in(&lab, &lab.pop, &peers, "10.64.0.1:443".parse().unwrap())
            .unwrap();
    let key = WgKey::generate().unwrap();
    let reader = StreamReader::default();
    office
        .add_gateway(&reader.public(), &key.public, &dns.stamp)
        .unwrap();
    let router = Router::flash(&lab, &programs, &office).unwrap();
    let _agent = router.start().unwrap();

    // The peer appears once its lease is on the stream, as a gateway would do it.
    let enrolled = router.try_enrol(&office.claim().unwrap()).unwrap();
    let server = "198.18.2.2:8443".parse().unwrap();
    let leases = lab.office.enter(|| reader.leases(server, 1)).unwrap();
    let [lease] = leases.as_slice() else {
        panic!("one lease was expected: {leases:?}")
    };
    let device = WgPeer {
        public: STANDARD.encode(lease.wg_pub),
        endpoint: None,
        allowed: lease.addresses.iter().map(ToString::to_string).collect(),
    };
    let go = WireGuardGo::start_of(
        program,
        &lab,
        &lab.pop,
        &key,
        51820,
        &[],
        std::slice::from_ref(&device),
    )
    .unwrap();
    router.wait_protected(Duration::from_secs(30)).unwrap();

    assert!(enrolled.status.success(), "{}", lab::said(&enrolled));
    assert!(go.latest_handshake(&device.public).unwrap() > 0);
    lab.home
        .run(&["ping", "-c", "2", "-W", "2", GATEWAY_INNER])
        .unwrap();
    let curl = ["curl", "-sSf", "--max-time", "60"];
    let page = format!("http://{PAGE_NAME}/");
    let page = lab.home.run(&[&curl[..], &[&page]].concat()).unwrap();
    let big = format!("http://{WEB}/hundred.bin");
    let size = ["-o", "/dev/null", "-w", "%{size_download}", &big];
    let got = lab.home.run(&[&curl[..], &size].concat()).unwrap();
    assert!(page.contains("It works"));
    assert_eq!(got, "100000000");
    also(&lab, &go);
}

#[test]
fn wireguard_go_works_as_a_client_of_our_gateway() {
    let world = World::new().unwrap();
    let (device, addresses) = world.leased_device().unwrap();
    let key = WgKey::of_private(device.wireguard_private()).unwrap();
    let gateway = WgPeer {
        public: world.pop.wireguard.clone(),
        endpoint: Some(format!("{GATEWAY}:51820")),
        allowed: vec![
            "10.64.0.1/32".into(),
            "fd64::1/128".into(),
            "203.0.113.0/24".into(),
            "2001:db8:f::/64".into(),
        ],
    };

    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let go = WireGuardGo::start(
        &world.lab,
        &world.lab.router,
        &key,
        0,
        &addresses,
        &[gateway],
    )
    .unwrap();
    let router = &world.lab.router;
    wait_until(
        "wireguard-go reaches our gateway",
        Duration::from_secs(15),
        || {
            router
                .run(&["ping", "-c", "1", "-W", "1", GATEWAY_INNER])
                .map(Some)
        },
    )
    .unwrap();

    assert!(go.latest_handshake(&world.pop.wireguard).unwrap() > 0);
    router
        .run(&["ping", "-c", "2", "-W", "2", GATEWAY_INNER_V6])
        .unwrap();
    for web in [WEB.to_owned(), format!("[{WEB_V6}]")] {
        let got = router
            .run(&[
                "curl",
                "-sSf",
                "--max-time",
                "60",
                "-o",
                "/dev/null",
                "-w",
                "%{size_download}",
                &format!("http://{web}/hundred.bin"),
            ])
            .unwrap();
        assert_eq!(got, "100000000", "{web}");
    }
}

#[test]
fn a_wireguard_go_with_offloads_and_our_gateway_both_use_them() {
    let world = World::new().unwrap();
    let (device, addresses) = world.leased_device().unwrap();
    let key = WgKey::of_private(device.wireguard_private()).unwrap();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let gateway = WgPeer {
        public: world.pop.wireguard.clone(),
        endpoint: Some(format!("{GATEWAY}:51820")),
        allowed: vec!["10.64.0.1/32".into(), "203.0.113.0/24".into()],
    };
    let bulk = Bulk::listen(&world.lab.internet, WEB, BULK_BYTES).unwrap();
    for suite in [Suite::Trixie, Suite::Forky] {
        let (program, peers) = (with_offloads(suite), [gateway.clone()]);
        let (router, pop) = (&world.lab.router, &world.lab.pop);

        let go = WireGuardGo::start_of(&program, &world.lab, router, &key, 0, &addresses, &peers)
            .unwrap();
        let frames = || {
            (
                Frames::of(pop, "culvert0").unwrap(),
                Frames::of(pop, "acc0").unwrap(),
                Frames::of(router, &go.interface).unwrap(),
                Frames::of(router, "wan0").unwrap(),
            )
        };
        let before = frames();
        bulk.fetch(router, WEB).unwrap();
        let between = frames();
        bulk.send(router, WEB).unwrap();
        let after = frames();

        let (ours, theirs) = (between.0.since(before.0), between.2.since(before.2));
        let wire = between.1.since(before.1);
        assert!(ours.mean_sent() > MTU, "we had none to cut: {ours:?}");
        assert!(theirs.mean_received() > MTU, "they joined none: {theirs:?}");
        assert!(wire.mean_sent() > WIRE_FRAME, "no runs of ours: {wire:?}");
        let (ours, theirs) = (after.0.since(between.0), after.2.since(between.2));
        let wire = after.3.since(between.3);
        assert!(ours.mean_received() > MTU, "we joined nothing: {ours:?}");
        assert!(theirs.mean_sent() > MTU, "they had none to cut: {theirs:?}");
        assert!(wire.mean_sent() > WIRE_FRAME, "no runs of theirs: {wire:?}");
    }
}

#[test]
fn a_source_address_that_is_not_the_leases_is_dropped_and_counted() {
    let world = World::new().unwrap();
    let (device, _) = world.leased_device().unwrap();
    let key = WgKey::of_private(device.wireguard_private()).unwrap();
    let gateway = WgPeer {
        public: world.pop.wireguard.clone(),
        endpoint: Some(format!("{GATEWAY}:51820")),
        allowed: vec!["10.64.0.1/32".into()],
    };

    let _go = WireGuardGo::start(
        &world.lab,
        &world.lab.router,
        &key,
        0,
        &["10.64.77.77/32"],
        &[gateway],
    )
    .unwrap();
    let ping = world
        .lab
        .router
        .output(&["ping", "-c", "3", "-W", "1", GATEWAY_INNER])
        .unwrap();

    assert!(
        !ping.status.success(),
        "a foreign source address was served"
    );
    let status = world.pop.status().unwrap();
    assert!(
        status["tunnel"]["dropped"]["source_mismatch"]
            .as_u64()
            .unwrap_or(0)
            >= 3,
        "{status}"
    );
}

#[test]
fn a_key_without_a_lease_gets_no_handshake() {
    let world = World::new().unwrap();
    let gateway = WgPeer {
        public: world.pop.wireguard.clone(),
        endpoint: Some(format!("{GATEWAY}:51820")),
        allowed: vec!["10.64.0.1/32".into()],
    };

    let key = WgKey::generate().unwrap();
    let go = WireGuardGo::start(
        &world.lab,
        &world.lab.router,
        &key,
        0,
        &["10.64.0.99/32"],
        &[gateway],
    )
    .unwrap();
    let ping = world
        .lab
        .router
        .output(&["ping", "-c", "3", "-W", "1", GATEWAY_INNER])
        .unwrap();

    assert!(!ping.status.success());
    assert_eq!(go.latest_handshake(&world.pop.wireguard).unwrap(), 0);
    let status = world.pop.status().unwrap();
    assert!(
        status["tunnel"]["dropped"]["unknown_peer"]
            .as_u64()
            .unwrap_or(0)
            >= 1,
        "{status}"
    );
}
