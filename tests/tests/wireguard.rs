//! WireGuard with wireguard-go of Debian 12, in both roles.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lab::{
    ForeignServer, GATEWAY, GATEWAY_INNER, Internet, Lab, Office, PAGE_NAME, Peers, Programs,
    Router, StreamReader, WEB, WgKey, WgPeer, WireGuardGo,
};

#[test]
fn our_agent_works_with_wireguard_go_as_its_gateway() {
    let lab = Lab::for_test().unwrap();
    let programs = Programs::of_this_build().unwrap();
    let _internet = Internet::start(&lab).unwrap();
    let office = Office::init(&lab, &programs).unwrap();
    let _provisioning = office.start().unwrap();
    // The gateway's site is other people's programs alone: wireguard-go, encrypted-dns, the kernel's NAT.
    lab.pop
        .run(&["ip", "addr", "add", "10.64.0.1/32", "dev", "lo"])
        .unwrap();
    lab.pop.run(&["nft", "add", "table", "ip", "nat"]).unwrap();
    lab.pop
        .run(&["nft", "add chain ip nat post { type nat hook postrouting priority 100; oifname inet0 masquerade; }"])
        .unwrap();
    let peers = Peers::of_this_build().unwrap();
    let dns =
        ForeignServer::encrypted_dns_in(&lab, &lab.pop, &peers, "10.64.0.1:443".parse().unwrap())
            .unwrap();
    let key = WgKey::generate().unwrap();
    let reader = StreamReader::default();
    office
        .cli(&[
            "gateway",
            "add",
            "--name",
            "gw1",
            "--ed25519",
            &reader.public(),
            "--wg",
            &key.public,
            "--endpoint",
            &format!("{GATEWAY}:51820"),
            "--pop",
            "pop1",
            "--shard",
            "1",
            "--inner",
            "10.64.0.1,fd64::1",
            "--dns",
            &dns.stamp,
        ])
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
    let page = lab
        .home
        .run(&[
            "curl",
            "-sSf",
            "--max-time",
            "10",
            &format!("http://{PAGE_NAME}/"),
        ])
        .unwrap();
    assert!(page.contains("It works"));
    let big = lab
        .home
        .run(&[
            "curl",
            "-sSf",
            "--max-time",
            "60",
            &format!("http://{WEB}/hundred.bin"),
            "-o",
            "/dev/null",
            "-w",
            "%{size_download}",
        ])
        .unwrap();
    assert_eq!(big, "100000000");
}
