//! WireGuard with Linux's own, of Debian 12's kernel in a virtual machine, in both roles and with offloads on both sides.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lab::{
    Bulk, ForeignServer, Frames, GATEWAY, GATEWAY_INNER, GATEWAY_INNER_V6, Image, Internet,
    KernelWireGuard, Lab, Office, Peers, Programs, Router, StreamReader, WEB, WgKey, WgPeer, World,
    foreign_site, wait_until,
};

/// Enough for thousands of segments, and some seconds for an emulated processor.
const BULK_BYTES: usize = 4_000_000;
/// What no single packet of a tunnel is longer than.
const MTU: u64 = 1420;
/// What no single datagram on the wire is longer than, with its Ethernet header.
const WIRE_FRAME: u64 = 1514;

#[test]
fn linux_works_as_a_client_of_our_gateway_with_offloads_on_both_sides() {
    let peers = Peers::of_this_build().unwrap();
    let lab = Lab::for_test().unwrap();
    let mut linux = KernelWireGuard::switch_on(&lab.router, &peers.kernel().unwrap()).unwrap();
    linux.behind("wan0").unwrap();
    let world = World::in_lab(lab, &Image::default()).unwrap();
    let (device, addresses) = world.leased_device().unwrap();
    let key = WgKey::of_private(device.wireguard_private()).unwrap();
    let gateway = WgPeer {
        public: world.pop.wireguard.clone(),
        endpoint: Some(format!("{GATEWAY}:51820")),
        allowed: vec![
            "10.64.0.1/32".into(),
            "fd64::1/128".into(),
            "203.0.113.0/24".into(),
        ],
    };

    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    linux.configure(&key, 0, &addresses, &[gateway]).unwrap();
    let ping = format!("ping -c 1 -W 1 {GATEWAY_INNER}");
    wait_until("Linux reaches our gateway", Duration::from_secs(20), || {
        linux.run(&ping).map(Some)
    })
    .unwrap();

    assert!(linux.latest_handshake(&world.pop.wireguard).unwrap() > 0);
    // As long as the tunnel's MTU, and longer, in fragments.
    for (to, bytes) in [
        (GATEWAY_INNER, 1392),
        (GATEWAY_INNER_V6, 1372),
        (GATEWAY_INNER, 5000),
    ] {
        linux
            .run(&format!("ping -c 2 -W 5 -s {bytes} {to}"))
            .unwrap();
    }
    downloads(&world, &linux);
    uploads(&world, &linux);
}

fn downloads(world: &World, linux: &KernelWireGuard) {
    let bulk = Bulk::listen(&world.lab.internet, WEB, BULK_BYTES).unwrap();
    let pop = &world.lab.pop;
    let earlier = (
        Frames::of(pop, "culvert0").unwrap(),
        Frames::of(pop, "acc0").unwrap(),
    );

    let nc = format!("nc {WEB} {} < /dev/null > /tmp/bulk", bulk.port);
    bulk.give(|| linux.run(&nc)).unwrap();

    let tun = Frames::of(pop, "culvert0").unwrap().since(earlier.0);
    let wire = Frames::of(pop, "acc0").unwrap().since(earlier.1);
    assert!(tun.mean_sent() > MTU, "no packet to cut: {tun:?}");
    assert!(wire.mean_sent() > WIRE_FRAME, "no runs: {wire:?}");
    // What the guest joins of it depends on when it looks, so it is not held to that; what it cuts is below.
}

fn uploads(world: &World, linux: &KernelWireGuard) {
    let bulk = Bulk::listen(&world.lab.internet, WEB, BULK_BYTES).unwrap();
    let pop = &world.lab.pop;
    let earlier = (
        Frames::of(pop, "culvert0").unwrap(),
        linux.counters().unwrap(),
    );

    let nc = format!("nc {WEB} {} < /tmp/bulk", bulk.port);
    bulk.take(|| linux.run(&nc)).unwrap();

    let tun = Frames::of(pop, "culvert0").unwrap().since(earlier.0);
    let kernel = linux.counters().unwrap().since(earlier.1);
    assert!(tun.mean_received() > MTU, "nothing was joined: {tun:?}");
    let uncut = kernel.ip_sent - kernel.sealed;
    assert!(uncut < kernel.sealed * 2 / 3, "not offloaded: {kernel:?}");
}

#[test]
fn our_agent_works_with_linux_as_its_gateway_with_offloads_on_both_sides() {
    let peers = Peers::of_this_build().unwrap();
    let lab = Lab::for_test().unwrap();
    let mut linux = KernelWireGuard::switch_on(&lab.pop, &peers.kernel().unwrap()).unwrap();
    linux.serving("acc0", 51820).unwrap();
    linux.route("10.64.0.0/16").unwrap();
    let programs = Programs::of_this_build().unwrap();
    let _internet = Internet::start(&lab).unwrap();
    let office = Office::init(&lab, &programs).unwrap();
    let _provisioning = office.start().unwrap();
    foreign_site(&lab).unwrap();
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
    let enrolled = router.try_enrol(&office.claim().unwrap()).unwrap();
    let server = "198.18.2.2:8443".parse().unwrap();
    let leases = lab.office.enter(|| reader.leases(server, 1)).unwrap();
    let device = WgPeer {
        public: STANDARD.encode(leases[0].wg_pub),
        endpoint: None,
        allowed: leases[0]
            .addresses
            .iter()
            .map(ToString::to_string)
            .collect(),
    };

    linux
        .configure(&key, 51820, &[], std::slice::from_ref(&device))
        .unwrap();
    router.wait_protected(Duration::from_secs(60)).unwrap();

    assert!(enrolled.status.success(), "{}", lab::said(&enrolled));
    assert!(linux.latest_handshake(&device.public).unwrap() > 0);
    // As long as the tunnel's MTU, and longer, in fragments.
    for bytes in ["1392", "5000"] {
        lab.home
            .run(&["ping", "-c", "2", "-W", "5", "-s", bytes, GATEWAY_INNER])
            .unwrap();
    }
    carries_bulk(&lab, &linux);
}

fn carries_bulk(lab: &Lab, linux: &KernelWireGuard) {
    let bulk = Bulk::listen(&lab.internet, WEB, BULK_BYTES).unwrap();
    let frames = |interface: &str| Frames::of(&lab.router, interface).unwrap();
    let before = (frames("culvert0"), linux.counters().unwrap());
    bulk.fetch(&lab.home, WEB).unwrap();
    let between = (
        frames("culvert0"),
        frames("wan0"),
        linux.counters().unwrap(),
    );
    bulk.send(&lab.home, WEB).unwrap();
    let after = (
        frames("culvert0"),
        frames("wan0"),
        linux.counters().unwrap(),
    );

    let down = between.0.since(before.0);
    let (up, wire) = (after.0.since(between.0), after.1.since(between.1));
    assert!(down.mean_received() > MTU, "nothing was joined: {down:?}");
    assert!(up.mean_sent() > MTU, "no packet to cut: {up:?}");
    assert!(wire.mean_sent() > WIRE_FRAME, "no runs: {wire:?}");
    // Downwards it cuts what it forwards whole; upwards it joins only what happens to wait when the machine looks.
    let kernel = between.2.since(before.1);
    let single = kernel.opened + kernel.sealed;
    assert!(
        kernel.ip_forwarded < single * 9 / 10,
        "not offloaded: {kernel:?}"
    );
}
