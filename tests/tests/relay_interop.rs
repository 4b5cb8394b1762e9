//! UDP inside HTTP with programs of other hands (aioquic, curl, openssl), and what those see who are no routers.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::time::Duration;

use lab::{
    Answer, Blocked, Device, GATEWAY, GATEWAY_INNER, NOBODY, Netns, Peers, RELAY_NAME, Relay, WEB,
    WgKey, WgPeer, WireGuardGo, World, aioquic, block, read_lease, wait_until,
};

/// Where aioquic offers the way to the gateway's WireGuard port.
const LOCAL: &str = "127.0.0.1:4000";

fn wireguard_go_through(world: &World, endpoint: &str) -> WireGuardGo {
    let device = Device::default();
    let server = "198.18.2.2:8443".parse().unwrap();
    let code = world.office.claim().unwrap();
    let enrol = || device.enrol(server, Some(&code));
    let Answer::Leased(lease) = world.lab.router.enter(enrol).unwrap() else {
        panic!("not leased")
    };
    let addresses = read_lease(&lease).unwrap().addresses;
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let key = WgKey::of_private(device.wireguard_private()).unwrap();
    let gateway = WgPeer {
        public: world.pop.wireguard.clone(),
        endpoint: Some(endpoint.to_owned()),
        allowed: vec!["10.64.0.1/32".into(), "203.0.113.0/24".into()],
    };
    WireGuardGo::start(
        &world.lab,
        &world.lab.router,
        &key,
        0,
        &addresses,
        &[gateway],
    )
    .unwrap()
}

#[track_caller]
fn wait_transport(world: &World, wanted: &str, within: Duration) {
    wait_until(&format!("the transport is {wanted}"), within, || {
        let status = world.router.status()?;
        Ok((status["tunnel"]["transport"] == wanted).then_some(()))
    })
    .unwrap();
}

#[test]
fn a_relay_that_was_full_is_used_once_there_is_room() {
    let mut world = World::with_relay(Relay::On443).unwrap();
    world.gateway.take().unwrap().terminate().unwrap();
    let one_place = |text: String| text.replace("[relay]", "[relay]\nmax-sessions = 1");
    world.pop.edit_config(one_place).unwrap();
    world.gateway = Some(world.pop.start().unwrap());
    world.enrol().unwrap();
    let mut pings = world.pings().unwrap();
    let peers = Peers::of_this_build().unwrap();
    let args = [
        "client", GATEWAY, "443", RELAY_NAME, GATEWAY, "51820", "4000",
    ];
    let first = aioquic(&world.lab.access, &peers, &args, "status 200").unwrap();
    block(&world.lab.access, Blocked::WireGuard).unwrap();
    wait_until(
        "the relay sends the home away",
        Duration::from_secs(20),
        || {
            let relay = world.pop.status()?["relay"].clone();
            Ok((relay["refused"].as_u64() > Some(1)).then_some(()))
        },
    )
    .unwrap();

    first.kill().unwrap();

    wait_transport(&world, "quic", Duration::from_secs(90));
    assert!(pings.ended().is_none(), "the home stopped pinging");
}

#[test]
fn a_relay_whose_first_address_is_silent_is_reached_at_its_second() {
    let mut world = World::with_relay(Relay::SecondOfTwo).unwrap();
    world.enrol().unwrap();
    let mut pings = world.pings().unwrap();
    let hole = format!(
        "table inet hole {{ chain c {{ type filter hook forward priority 0; ip daddr {NOBODY} drop; }}; }}"
    );
    world.lab.access.run(&["nft", &hole]).unwrap();

    block(&world.lab.access, Blocked::WireGuard).unwrap();

    wait_transport(&world, "quic", Duration::from_secs(5));
    assert!(pings.ended().is_none(), "the home stopped pinging");
}

#[test]
fn wireguard_go_reaches_our_gateway_through_aioquics_http3_and_our_relay() {
    let world = World::with_relay(Relay::On443).unwrap();
    let peers = Peers::of_this_build().unwrap();
    block(&world.lab.access, Blocked::WireGuard).unwrap();
    let router = &world.lab.router;
    let args = [
        "client", GATEWAY, "443", RELAY_NAME, GATEWAY, "51820", "4000",
    ];
    let _client = aioquic(router, &peers, &args, "status 200").unwrap();

    let _go = wireguard_go_through(&world, LOCAL);
    wait_until("the gateway answers", Duration::from_secs(15), || {
        router
            .run(&["ping", "-c", "1", "-W", "1", GATEWAY_INNER])
            .map(Some)
    })
    .unwrap();

    // Full-sized packets do not fit QUIC's datagrams; they come as capsules.
    let url = format!("http://{WEB}/hundred.bin");
    let range = [
        "curl",
        "-sSf",
        "--max-time",
        "60",
        "-r",
        "0-2999999",
        "-o",
        "/dev/null",
    ];
    let shown = ["-w", "%{size_download}", &url];
    let got = router.run(&[&range[..], &shown].concat()).unwrap();
    assert_eq!(got, "3000000");
    let relay = &world.pop.status().unwrap()["relay"];
    assert_eq!((&relay["open"], &relay["quic"]), (&1.into(), &1.into()));
}

#[test]
fn our_agent_reaches_its_gateway_through_aioquics_proxy() {
    let mut world = World::with_relay(Relay::Foreign).unwrap();
    let peers = Peers::of_this_build().unwrap();
    let dir = world.lab.work().join("relay");
    let (certificate, key) = (dir.join("relay.crt"), dir.join("relay.key"));
    let args = [
        "proxy",
        GATEWAY,
        "443",
        &certificate.to_string_lossy(),
        &key.to_string_lossy(),
        GATEWAY,
        "51820",
    ];
    let proxy = aioquic(&world.lab.pop, &peers, &args, "listening").unwrap();
    block(&world.lab.access, Blocked::WireGuard).unwrap();

    world.enrol().unwrap();

    world.page_within(Duration::from_secs(10)).unwrap();
    assert!(proxy.log().contains("accepted"), "{}", proxy.log());
    let status = world.router.status().unwrap();
    assert_eq!(status["tunnel"]["transport"], "quic");
}

/// What curl prints of an answer's status.
fn curl(netns: &Netns, more: &[&str]) -> String {
    let curl = [
        "curl",
        "-sk",
        "--max-time",
        "5",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
    ];
    let resolve = format!("{RELAY_NAME}:443:{GATEWAY}");
    let resolve = ["--resolve", &resolve];
    let output = netns.output(&[&curl[..], &resolve, more].concat()).unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn who_is_no_router_meets_an_ordinary_web_server() {
    let world = World::with_relay(Relay::On443).unwrap();
    let peers = Peers::of_this_build().unwrap();
    let from = &world.lab.access;
    let root = format!("https://{RELAY_NAME}/");
    let elsewhere = format!("https://{RELAY_NAME}/.well-known/masque/udp/{WEB}/53/");
    let upgrade = [
        "-H",
        "connection: upgrade",
        "-H",
        "upgrade: connect-udp",
        "-H",
        "capsule-protocol: ?1",
    ];
    let http3 = |path: &str, status: &str| {
        let args = ["get", GATEWAY, "443", RELAY_NAME, path];
        aioquic(from, &peers, &args, status).map(drop)
    };

    assert_eq!(curl(from, &[&root]), "200");
    assert_eq!(curl(from, &["-X", "POST", &root]), "405");
    assert_eq!(curl(from, &[&format!("{root}wp-login.php")]), "404");
    let other_target = [&upgrade[..], &["--http1.1", &elsewhere]].concat();
    assert_eq!(curl(from, &other_target), "404");
    http3("/", "status 200").unwrap();
    http3("/.well-known/masque/udp/", "status 404").unwrap();
    // A target that is not the gateway's: no more is told than of any other path.
    let args = ["client", GATEWAY, "443", RELAY_NAME, WEB, "53", "4001"];
    aioquic(from, &peers, &args, "status 404").unwrap();
    let garbage = format!(
        "head -c 4000 /dev/urandom > /dev/udp/{GATEWAY}/443; head -c 4000 /dev/urandom > /dev/tcp/{GATEWAY}/443"
    );
    from.run(&["bash", "-c", &garbage]).unwrap();
    assert_eq!(curl(from, &[&root]), "200");
    assert_eq!(world.pop.status().unwrap()["relay"]["refused"], 2);
}
