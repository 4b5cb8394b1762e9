//! A way on which long packets vanish and nobody says so: the tunnel finds out by itself, and downloads go on.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::ffi::OsStr;
use std::time::{Duration, Instant};

use lab::{PAGE_NAME, Running, World, wait_until};

/// What a way with such a hole costs at most.
const SECONDS: Duration = Duration::from_secs(8);
/// 1,400 bytes less IPv4's, UDP's and WireGuard's 60.
const INSIDE: u16 = 1_340;

/// Everything longer than 1,400 bytes vanishes between router and gateway. Both send their datagrams one by one, since
/// inside one machine a run of them would cross the filter as one long packet.
fn open_hole(world: &World) {
    for (netns, link) in [(&world.lab.router, "wan0"), (&world.lab.pop, "acc0")] {
        netns
            .run(&["ip", "link", "set", link, "gso_max_segs", "1"])
            .unwrap();
    }
    let rules = "table inet hole { chain c { type filter hook forward priority 0; meta length > 1400 drop; }; }";
    world.lab.access.run(&["nft", rules]).unwrap();
}

#[track_caller]
fn wait_mtu(world: &World, wanted: u16, within: Duration) {
    wait_until(&format!("the tunnel's MTU is {wanted}"), within, || {
        let mtu = world.router.status()?["tunnel"]["mtu"].clone();
        anyhow::ensure!(mtu == wanted, "it is {mtu}");
        Ok(Some(()))
    })
    .unwrap();
}

/// A download at a rate that leaves time for something to happen to it.
fn start_download(world: &World) -> Running {
    let file = world.lab.work().join("slow.bin");
    let url = format!("http://{PAGE_NAME}/hundred.bin");
    let file_text = file.to_string_lossy().into_owned();
    let args = ["-sSf", "--limit-rate", "12M", "--max-time", "60", "-o"];
    let args = args.into_iter().chain([file_text.as_str(), url.as_str()]);
    let args: Vec<&OsStr> = args.map(OsStr::new).collect();
    let curl = world.lab.home.spawn("curl", "curl", &args).unwrap();
    wait_until("the download is under way", SECONDS, || {
        let size = std::fs::metadata(&file).map_or(0, |file| file.len());
        Ok((size > 5_000_000).then_some(()))
    })
    .unwrap();
    curl
}

#[test]
fn a_download_through_a_hole_for_long_packets_goes_through_within_seconds() {
    let world = World::protected().unwrap();
    open_hole(&world);
    let start = Instant::now();

    world.download(&["--max-time", "20"]).unwrap();

    assert!(start.elapsed() < SECONDS * 2, "{:?}", start.elapsed());
    wait_mtu(&world, INSIDE, SECONDS);
    let log = world.agent.as_ref().unwrap().log();
    assert!(log.contains("mtu=1340"), "{log}");
}

#[test]
fn a_download_under_which_such_a_hole_opens_goes_on() {
    let world = World::protected().unwrap();
    let mut curl = start_download(&world);

    open_hole(&world);
    wait_mtu(&world, INSIDE, SECONDS);

    let end = curl.finish(SECONDS * 4).unwrap();
    assert!(end.success(), "{end}: {}", curl.log_tail());
}
