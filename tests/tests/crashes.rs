//! `kill -9` of each daemon under a running download, and provisioning away.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lab::{
    DOWNLOAD_BYTES, NAME_MARKER, Observer, PAGE_MARKER, PAGE_NAME, Running, World, wait_until,
};

/// The limit for a download to go on after a restart.
const GOES_ON_WITHIN: Duration = Duration::from_secs(10);

struct Download {
    curl: Running,
    got: PathBuf,
}

/// A curl that resumes where it was whenever it is stuck or cut, slow enough to be killed under.
fn start_download(world: &World) -> Download {
    let got = world.lab.work().join("resumed.bin");
    let script = format!(
        "until curl -sS -C - --limit-rate 12M --connect-timeout 2 --speed-limit 1000 --speed-time 3 -o {} \
         http://{PAGE_NAME}/hundred.bin; do sleep 0.2; done",
        got.display()
    );
    let mut command = world.lab.home.command("sh");
    command.args(["-c", &script]);
    Download {
        curl: world.lab.home.spawn_command("curl", command).unwrap(),
        got,
    }
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).map(|m| m.len()).unwrap_or(0)
}

impl Download {
    fn wait_past(&self, bytes: u64, within: Duration) {
        wait_until(
            &format!("the download passes {bytes} bytes"),
            within,
            || Ok((size(&self.got) > bytes).then_some(())),
        )
        .unwrap();
    }

    fn assert_goes_on(&self, restarted: Instant, who: &str) {
        let before = size(&self.got);
        self.wait_past(before + 1_000_000, GOES_ON_WITHIN);
        println!(
            "after a kill of {who} the download went on within {:.2} s",
            restarted.elapsed().as_secs_f32()
        );
    }

    fn finish(mut self, world: &World) {
        let status = self.curl.finish(Duration::from_secs(60)).unwrap();
        assert!(status.success());
        assert_eq!(size(&self.got), DOWNLOAD_BYTES);
        let original = world.internet.download.to_string_lossy().into_owned();
        world
            .lab
            .home
            .run(&["cmp", &self.got.to_string_lossy(), &original])
            .unwrap();
    }
}

#[test]
fn a_download_survives_a_kill_of_each_daemon_in_turn_and_nothing_is_lost_from_the_store() {
    let mut world = World::protected().unwrap();
    let observer = Observer::start(&world.lab).unwrap();
    let before = world.office.cli_json(&["log", "verify"]).unwrap();
    let download = start_download(&world);

    download.wait_past(10_000_000, Duration::from_secs(20));
    world.agent.take().unwrap().kill().unwrap();
    world.agent = Some(world.router.start().unwrap());
    download.assert_goes_on(Instant::now(), "the agent");

    world.gateway.take().unwrap().kill().unwrap();
    world.gateway = Some(world.pop.start().unwrap());
    download.assert_goes_on(Instant::now(), "the gateway");

    world.provisioning.take().unwrap().kill().unwrap();
    world.provisioning = Some(world.office.start().unwrap());
    download.assert_goes_on(Instant::now(), "provisioning");

    download.finish(&world);
    observer
        .saw_nothing_in_clear(&world.lab, &[NAME_MARKER, PAGE_MARKER])
        .unwrap();
    assert_eq!(world.office.cli_json(&["log", "verify"]).unwrap(), before);
    assert_eq!(world.office.devices().unwrap().len(), 1);
    assert_eq!(world.router.status().unwrap()["lease"]["epoch"], 1);
}

#[test]
fn gateway_and_router_start_from_what_they_keep_while_provisioning_is_away() {
    let mut world = World::protected().unwrap();
    world.provisioning.take().unwrap().kill().unwrap();

    world.gateway.take().unwrap().terminate().unwrap();
    world.agent.take().unwrap().terminate().unwrap();
    world.gateway = Some(world.pop.start().unwrap());
    world.power_on().unwrap();
    world.wait_protected().unwrap();

    world.page_within(Duration::from_secs(10)).unwrap();
    assert_eq!(world.pop.status().unwrap()["peers"]["leased"], 1);
}

#[test]
fn a_gateway_takes_up_a_lease_that_was_made_while_it_was_away() {
    let mut world = World::new().unwrap();
    world.gateway.take().unwrap().terminate().unwrap();
    let code = world.office.claim().unwrap();
    world.power_on().unwrap();
    world.router.enrol(&code).unwrap();

    world.gateway = Some(world.pop.start().unwrap());

    world.wait_protected().unwrap();
    world.page_within(Duration::from_secs(10)).unwrap();
}
