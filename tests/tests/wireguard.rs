//! WireGuard with wireguard-go of Debian 12, in both roles.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lab::{
    ForeignServer, GATEWAY, GATEWAY_INNER, GATEWAY_INNER_V6, Internet, Lab, Office, PAGE_NAME,
    Peers, Programs, Router, StreamReader, WEB, WEB_V6, WgKey, WgPeer, WireGuardGo, World,
    foreign_site, wait_until,
};

#[test]
fn our_agent_works_with_wireguard_go_as_its_gateway() {
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
    let go = WireGuardGo::start(
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
