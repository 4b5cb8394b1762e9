//! An access network that blocks UDP: the home goes on inside HTTP/3, or inside TLS, and goes home when it may.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use lab::{
    Blocked, GATEWAY, NAME_MARKER, Observer, PAGE_MARKER, PAGE_NAME, ROUTER_WAN, Relay, Running,
    WEB, Wire, World, block, unblock, wait_until,
};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt,
};

/// The goal of the project.
const BACK_WITHIN: Duration = Duration::from_secs(5);
/// Probes of the direct way come every 2 s at first, and then ever more rarely.
const HOME_WITHIN: Duration = Duration::from_secs(20);

struct Download {
    curl: Running,
    file: PathBuf,
}

impl Download {
    /// Begins at a rate that leaves time for something to happen.
    fn start(world: &World) -> Self {
        let file = world.lab.work().join("slow.bin");
        let url = format!("http://{PAGE_NAME}/hundred.bin");
        let file_text = file.to_string_lossy().into_owned();
        let args = [
            "-sSf",
            "--limit-rate",
            "6M",
            "--max-time",
            "90",
            "-o",
            &file_text,
            &url,
        ];
        let args = args.map(std::ffi::OsStr::new);
        let curl = world.lab.home.spawn("curl", "curl", &args).unwrap();
        let download = Self { curl, file };
        download.moves(Duration::from_secs(10));
        download
    }

    /// Waits until more of it has come than has now, and says how long that took.
    #[track_caller]
    fn moves(&self, within: Duration) -> Duration {
        let size = || std::fs::metadata(&self.file).map_or(0, |file| file.len());
        let (start, before) = (Instant::now(), size());
        // More than what was on its way already.
        let enough = before + 1_000_000;
        wait_until("the download goes on", within, || {
            Ok((size() > enough).then_some(()))
        })
        .unwrap();
        start.elapsed()
    }

    /// It ends by itself, and every byte is right.
    fn complete(self, world: &World) {
        let mut curl = self.curl;
        let status = curl.finish(Duration::from_secs(60)).unwrap();
        assert!(status.success(), "{status}: {}", curl.log_tail());
        let file = self.file.to_string_lossy().into_owned();
        let original = world.internet.download.to_string_lossy().into_owned();
        world.lab.home.run(&["cmp", &file, &original]).unwrap();
    }
}

/// Everything is running, the gateway's relay too, and the home is protected.
fn relayed() -> World {
    let mut world = World::with_relay(Relay::On443).unwrap();
    world.enrol().unwrap();
    world
}

#[track_caller]
fn wait_transport(world: &World, transport: &str, within: Duration) {
    wait_until(&format!("the transport is {transport}"), within, || {
        let status = world.router.status()?;
        Ok((status["tunnel"]["transport"] == transport).then_some(()))
    })
    .unwrap();
}

#[test]
fn a_download_goes_on_inside_http3_when_wireguard_is_blocked_and_home_when_it_is_not() {
    let world = relayed();
    let observer = Observer::start(&world.lab).unwrap();
    let download = Download::start(&world);
    assert_eq!(
        world.router.status().unwrap()["tunnel"]["transport"],
        "direct"
    );

    block(&world.lab.access, Blocked::WireGuard).unwrap();
    let blocked = Instant::now();
    wait_transport(&world, "quic", BACK_WITHIN);
    eprintln!("inside HTTP/3 after {:?}", blocked.elapsed());
    download.moves(BACK_WITHIN);
    let relay = &world.pop.status().unwrap()["relay"];
    assert_eq!((&relay["open"], &relay["quic"]), (&1.into(), &1.into()));
    unblock(&world.lab.access).unwrap();
    let unblocked = Instant::now();
    wait_transport(&world, "direct", HOME_WITHIN);
    eprintln!("home again after {:?}", unblocked.elapsed());
    download.moves(BACK_WITHIN);
    download.complete(&world);

    let markers = [NAME_MARKER, PAGE_MARKER];
    let findings = observer.saw_nothing_in_clear(&world.lab, &markers).unwrap();
    assert!(findings.relay > 100, "{findings:?}");
}

#[test]
fn where_no_udp_passes_at_all_the_home_goes_on_inside_tls() {
    let world = relayed();
    let observer = Observer::start(&world.lab).unwrap();
    let download = Download::start(&world);

    block(&world.lab.access, Blocked::Udp).unwrap();
    let blocked = Instant::now();
    wait_transport(&world, "tls", BACK_WITHIN);
    eprintln!("inside TLS after {:?}", blocked.elapsed());
    download.moves(BACK_WITHIN);
    let shown = world.router.agent(&["status"]).unwrap();
    let said = lab::said(&shown);
    assert!(said.contains("inside TLS"), "{said}");
    unblock(&world.lab.access).unwrap();
    wait_transport(&world, "direct", HOME_WITHIN);
    download.complete(&world);

    observer
        .saw_nothing_in_clear(&world.lab, &[PAGE_MARKER])
        .unwrap();
}

#[test]
fn tls_is_left_for_http3_when_udp_passes_again_but_wireguard_does_not() {
    let world = relayed();
    let mut pings = world.pings().unwrap();
    block(&world.lab.access, Blocked::Udp).unwrap();
    wait_transport(&world, "tls", BACK_WITHIN);

    block(&world.lab.access, Blocked::WireGuard).unwrap();

    // The first try may have come before; the second comes within 45 seconds of TLS.
    wait_transport(&world, "quic", Duration::from_secs(50));
    world.page_within(BACK_WITHIN).unwrap();
    assert!(pings.ended().is_none(), "the home stopped pinging");
}

#[test]
fn a_router_that_is_switched_on_behind_a_block_finds_its_way_too() {
    let mut world = relayed();
    world.agent.take().unwrap().kill().unwrap();

    block(&world.lab.access, Blocked::WireGuard).unwrap();
    world.power_on().unwrap();
    world.wait_protected().unwrap();

    wait_transport(&world, "quic", BACK_WITHIN);
    world.page_within(Duration::from_secs(10)).unwrap();
}

/// A socket that speaks for the gateway's own address.
fn feigned() -> anyhow::Result<UdpSocket> {
    let kind = (AddressFamily::Inet, SockType::Datagram);
    let socket = socket(kind.0, kind.1, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::IpTransparent, &true)?;
    let gateway: SockaddrIn = format!("{GATEWAY}:51820").parse()?;
    bind(socket.as_raw_fd(), &gateway)?;
    Ok(socket.into())
}

/// Sends data that nobody can open, as if from the gateway, to every UDP port of the router, until it is told to end.
fn feign_gateway(world: &World, end: Receiver<()>) -> anyhow::Result<()> {
    let listens = world.lab.router.run(&["ss", "-Hunl"])?;
    let port = |line: &str| {
        let local = line.split_whitespace().nth(3)?;
        local.rsplit_once(':')?.1.parse().ok()
    };
    let ports: Vec<u16> = listens.lines().filter_map(port).collect();
    anyhow::ensure!(!ports.is_empty(), "the router listens nowhere: {listens}");
    world.lab.access.enter(move || {
        let feigned = feigned()?;
        let mut data = [0x55; 96];
        data[..4].copy_from_slice(&[4, 0, 0, 0]);
        while let Err(RecvTimeoutError::Timeout) = end.recv_timeout(Duration::from_millis(50)) {
            for port in &ports {
                feigned.send_to(&data, (ROUTER_WAN, *port))?;
            }
        }
        Ok(())
    })
}

#[test]
fn whoever_blocks_wireguard_cannot_keep_a_home_from_the_relay_by_feigning_the_gateway() {
    let world = relayed();
    let mut pings = world.pings().unwrap();
    let (end, told) = sync_channel(1);

    std::thread::scope(|scope| {
        let feign = scope.spawn(|| feign_gateway(&world, told));
        block(&world.lab.access, Blocked::WireGuard).unwrap();
        wait_transport(&world, "quic", BACK_WITHIN);
        world.page_within(BACK_WITHIN).unwrap();
        drop(end);
        feign.join().unwrap().unwrap();
    });

    assert!(pings.ended().is_none(), "the home stopped pinging");
    // It was there, and it was heard.
    let dropped = world.router.status().unwrap()["tunnel"]["dropped"].clone();
    assert!(dropped.to_string().contains("no_session"), "{dropped}");
}

/// The home goes on over a relay, and then over the second WAN, where there is no other way either.
fn follows_to_the_second_wan(
    blocked: Blocked,
    transport: &str,
    within: Duration,
    lose_first: impl Fn(&World),
) {
    let world = World::with_two_wans(Relay::On443).unwrap();
    let observer = Observer::start_on(&world.lab, Wire::Second, "second").unwrap();
    let mut pings = world.pings().unwrap();
    block(&world.lab.access, blocked).unwrap();
    wait_transport(&world, transport, BACK_WITHIN);

    lose_first(&world);
    let lost = Instant::now();
    wait_until("the second WAN carries the home", within, || {
        let wan = world.router.status()?["tunnel"]["wan"].clone();
        anyhow::ensure!(wan == "wan1", "it is {wan}");
        world.page().map(Some)
    })
    .unwrap();
    eprintln!("over the second WAN after {:?}", lost.elapsed());
    wait_transport(&world, transport, BACK_WITHIN);
    assert!(pings.ended().is_none(), "the home stopped pinging");

    let findings = observer
        .saw_nothing_in_clear(&world.lab, &[PAGE_MARKER])
        .unwrap();
    assert!(findings.relay > 10, "{findings:?}");
}

fn unplug_first(world: &World) {
    let down = ["ip", "link", "set", "wan0", "down"];
    world.lab.router.run(&down).unwrap();
}

/// The link stays, and nothing passes any more.
fn silence_first(world: &World) {
    let rules =
        "table inet dead { chain c { type filter hook forward priority 0; iifname rtr0 drop; }; }";
    world.lab.access.run(&["nft", rules]).unwrap();
}

#[test]
fn http3_follows_to_the_second_wan_when_the_first_is_unplugged() {
    follows_to_the_second_wan(Blocked::WireGuard, "quic", BACK_WITHIN * 2, unplug_first);
}

#[test]
fn tls_follows_to_the_second_wan_when_the_first_is_unplugged() {
    follows_to_the_second_wan(Blocked::Udp, "tls", BACK_WITHIN * 2, unplug_first);
}

#[test]
fn http3_follows_to_the_second_wan_when_the_first_falls_silent() {
    let within = Duration::from_secs(40);
    follows_to_the_second_wan(Blocked::WireGuard, "quic", within, silence_first);
}

#[test]
fn tls_follows_to_the_second_wan_when_the_first_falls_silent() {
    let within = Duration::from_secs(40);
    follows_to_the_second_wan(Blocked::Udp, "tls", within, silence_first);
}

/// What the agent says of the tunnel's MTU.
fn mtu(world: &World) -> anyhow::Result<u64> {
    let status = world.router.status()?;
    status["tunnel"]["mtu"]
        .as_u64()
        .ok_or_else(|| anyhow::anyhow!("no MTU in {status}"))
}

#[test]
fn on_a_pppoe_line_the_tunnel_inside_http3_is_as_long_as_its_datagrams_and_large_packets_pass() {
    let world = relayed();
    let mut pings = world.pings().unwrap();
    let pppoe = |netns: &lab::Netns, link: &str| {
        netns
            .run(&["ip", "link", "set", link, "mtu", "1492"])
            .unwrap();
    };
    pppoe(&world.lab.access, "rtr0");
    pppoe(&world.lab.router, "wan0");
    block(&world.lab.access, Blocked::WireGuard).unwrap();
    wait_transport(&world, "quic", BACK_WITHIN);

    // QUIC's datagram less its own frames and WireGuard's 32: found once QUIC has measured its path.
    let inside = wait_until("the tunnel fits into QUIC's datagrams", BACK_WITHIN, || {
        let mtu = mtu(&world)?;
        anyhow::ensure!((1_360..1_400).contains(&mtu), "it is {mtu}");
        Ok(Some(mtu))
    })
    .unwrap();
    for (bytes, wanted) in [
        (inside, "1 received".to_owned()),
        (inside + 4, format!("mtu = {inside}")),
    ] {
        let payload = (bytes - 28).to_string();
        let ping = [
            "ping", "-M", "do", "-c", "1", "-W", "2", "-s", &payload, WEB,
        ];
        let said = lab::said(&world.lab.home.output(&ping).unwrap());
        assert!(
            said.contains(&wanted),
            "{bytes} bytes, not {wanted}: {said}"
        );
    }
    world.download(&[]).unwrap();
    let transport = world.router.status().unwrap()["tunnel"]["transport"].clone();
    assert_eq!((transport, mtu(&world).unwrap()), ("quic".into(), inside));

    unblock(&world.lab.access).unwrap();
    wait_transport(&world, "direct", HOME_WITHIN);
    wait_until(
        "the tunnel is as long as the line lets it",
        BACK_WITHIN,
        || Ok((mtu(&world)? == 1_420).then_some(())),
    )
    .unwrap();
    assert!(pings.ended().is_none(), "the home stopped pinging");
}
