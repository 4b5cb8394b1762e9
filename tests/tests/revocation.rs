//! Ends that somebody asked for: a device's by revocation, the gateway's and the agent's by SIGTERM.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lab::{Netns, PAGE_NAME, Running, World, refused, said, wait_for, wait_until};
use nix::sys::signal::Signal;

/// The limit for a revocation to reach the gateway.
const REVOKED_WITHIN: Duration = Duration::from_secs(5);
/// What was on its way when the peer went is in the file after this.
const SETTLED: Duration = Duration::from_millis(500);
const PAGE_WITHIN: Duration = Duration::from_secs(10);

struct Download {
    got: PathBuf,
    _curl: Running,
}

/// A download that would run for longer than its test.
fn start_download(world: &World) -> Download {
    let got = world.lab.work().join("endless.bin");
    let url = format!("http://{PAGE_NAME}/hundred.bin");
    let mut curl = world.lab.home.command("curl");
    curl.args(["-sS", "--limit-rate", "4M", "-o"])
        .args([got.as_os_str(), url.as_ref()]);
    let download = Download {
        got,
        _curl: world.lab.home.spawn_command("curl", curl).unwrap(),
    };
    download.assert_goes_on();
    download
}

impl Download {
    fn size(&self) -> u64 {
        size(&self.got)
    }

    #[track_caller]
    fn assert_goes_on(&self) {
        let from = self.size();
        wait_for("the download goes on", Duration::from_secs(5), || {
            self.size() > from + 500_000
        })
        .unwrap();
    }

    /// Waits for a while without a byte.
    fn wait_stopped(&self, within: Duration) {
        let mut last = (Instant::now(), self.size());
        wait_for("the download stands still", within, || {
            let size = self.size();
            if size != last.1 {
                last = (Instant::now(), size);
            }
            last.0.elapsed() >= SETTLED
        })
        .unwrap();
    }
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).map(|m| m.len()).unwrap_or(0)
}

fn revoke(world: &World) -> String {
    let devices = world.office.devices().unwrap();
    let id = devices[0]["device"].as_str().unwrap().to_owned();
    let verb = ["device", "revoke", &id, "--reason", "lost"];
    world.office.cli(&verb).unwrap();
    id
}

fn leased(world: &World) -> anyhow::Result<bool> {
    Ok(world.pop.status()?["peers"]["leased"] != 0)
}

#[test]
fn a_revocation_under_a_download_stops_it_and_no_code_or_reset_brings_the_device_back() {
    let mut world = World::protected().unwrap();
    let download = start_download(&world);

    let start = Instant::now();
    let id = revoke(&world);
    wait_until("the peer is gone", REVOKED_WITHIN, || {
        Ok((!leased(&world)?).then_some(()))
    })
    .unwrap();
    println!(
        "the peer was gone after {:.2} s",
        start.elapsed().as_secs_f32()
    );
    download.wait_stopped(REVOKED_WITHIN.saturating_sub(start.elapsed()) + SETTLED);
    wait_until("the metrics tell the same", Duration::from_secs(3), || {
        let metrics = ["curl", "-sf", "http://127.0.0.1:9101/metrics"];
        let text = world.lab.pop.run(&metrics)?;
        Ok(text.contains("culvert_gateway_peers 0\n").then_some(()))
    })
    .unwrap();

    let new_code = world.office.claim().unwrap();
    let again = world.router.try_enrol(&new_code).unwrap();
    refused(&again, lab::exit::UNAVAILABLE, &["revoked"]).unwrap();
    world.agent.take().unwrap().terminate().unwrap();
    let reset = world.router.agent(&["reset"]).unwrap();
    assert!(reset.status.success(), "{}", said(&reset));
    world.power_on().unwrap();
    let within = Duration::from_secs(10);
    let status = world.router.wait_state("revoked", within).unwrap();
    assert!(
        status["reason"].as_str().unwrap().contains("revoked"),
        "{status}"
    );
    world.try_in_clear().unwrap();
    let devices = world.office.devices().unwrap();
    assert_eq!((devices.len(), &devices[0]["device"]), (1, &id.into()));
    assert!(!leased(&world).unwrap());
    let unspent = world.office.claims().unwrap();
    assert!(
        unspent.iter().any(|claim| claim["device"].is_null()),
        "a refused device has burnt a code: {unspent:?}"
    );
}

#[test]
fn a_gateway_that_was_away_obeys_a_revocation_and_remembers_it_without_provisioning() {
    let mut world = World::protected().unwrap();
    world.page().unwrap();
    world.gateway.take().unwrap().kill().unwrap();
    revoke(&world);

    world.gateway = Some(world.pop.start().unwrap());
    wait_until("the peer is gone", REVOKED_WITHIN, || {
        let status = world.pop.status()?;
        let heard = status["shards"][0]["last_contact_s"].is_u64();
        Ok((heard && !leased(&world)?).then_some(()))
    })
    .unwrap();
    world.provisioning.take().unwrap().kill().unwrap();
    world.gateway.take().unwrap().kill().unwrap();
    world.gateway = Some(world.pop.start().unwrap());

    assert!(!leased(&world).unwrap());
    world.try_in_clear().unwrap();
    assert!(world.page().is_err(), "a revoked home was served");
    wait_until("its handshakes are dropped", PAGE_WITHIN, || {
        let status = world.pop.status()?;
        let dropped = &status["tunnel"]["dropped"]["unknown_peer"];
        Ok(dropped.as_u64().filter(|handshakes| *handshakes > 0))
    })
    .unwrap();
    assert!(!leased(&world).unwrap());
}

/// What a daemon could leave in a namespace's kernel.
fn kernel_state(netns: &Netns) -> Vec<String> {
    let shown = |argv: &[&str]| netns.run(argv).unwrap();
    vec![
        shown(&["ip", "rule"]),
        shown(&["ip", "-6", "rule"]),
        shown(&["ip", "route", "show", "table", "all"]),
        shown(&["ip", "-6", "route", "show", "table", "all"]),
        shown(&["ip", "-o", "link"]),
        shown(&["ip", "-o", "address"]),
        shown(&[
            "sysctl",
            "net.ipv4.ip_forward",
            "net.ipv4.conf.all.rp_filter",
            "net.ipv6.conf.all.forwarding",
        ]),
    ]
}

#[track_caller]
fn assert_same(netns: &Netns, before: &[String]) {
    for (before, after) in before.iter().zip(kernel_state(netns)) {
        assert_eq!(*before, after);
    }
}

#[test]
fn a_gateway_asked_to_stop_drains_and_leaves_the_machine_as_it_was_even_after_a_crash() {
    let mut world = World::protected().unwrap();
    let pop = world.lab.pop.clone();
    let stopped = world.gateway.take().unwrap().terminate().unwrap();
    assert!(stopped.success(), "{stopped}");
    // A machine that does not forward by itself; the lab's does.
    pop.run(&["sysctl", "-qw", "net.ipv4.ip_forward=0"])
        .unwrap();
    pop.run(&["sysctl", "-qw", "net.ipv6.conf.all.forwarding=0"])
        .unwrap();
    let before = kernel_state(&pop);
    let filter = pop.run(&["nft", "list", "ruleset"]).unwrap();
    for shown in before.iter().chain([&filter]) {
        assert!(!shown.contains("culvert"), "{shown}");
    }

    world.gateway = Some(world.pop.start().unwrap());
    world.gateway.take().unwrap().kill().unwrap();
    world.gateway = Some(world.pop.start().unwrap());
    world.page_within(PAGE_WITHIN).unwrap();
    let download = start_download(&world);
    let mut gateway = world.gateway.take().unwrap();
    gateway.signal(Signal::SIGTERM).unwrap();
    let start = Instant::now();
    wait_until("it says that it drains", Duration::from_secs(2), || {
        Ok((world.pop.status()?["state"] == "draining").then_some(()))
    })
    .unwrap();
    download.assert_goes_on();
    let status = gateway.finish(Duration::from_secs(10)).unwrap();

    println!("drained within {:.2} s", start.elapsed().as_secs_f32());
    assert!(status.success(), "{status}: {}", gateway.log_tail());
    assert_same(&pop, &before);
    assert_eq!(pop.run(&["nft", "list", "ruleset"]).unwrap(), filter);
}

#[test]
fn an_agent_asked_to_stop_takes_back_all_but_the_kill_switch_and_a_reset_takes_that() {
    let mut world = World::new().unwrap();
    let router = world.lab.router.clone();
    // The first packets in clear put neighbours and IPv6 routes in place that are the kernel's own.
    assert!(
        world.try_in_clear().is_err(),
        "without an agent the way in clear is open in this lab"
    );
    // A killed agent leaves this one on, which it documents.
    let valid_mark = || {
        router
            .run(&["sysctl", "net.ipv4.conf.all.src_valid_mark"])
            .unwrap()
    };
    let before = kernel_state(&router);
    let valid_mark_before = valid_mark();

    world.enrol().unwrap();
    let stopped = world.agent.take().unwrap().terminate().unwrap();
    assert!(stopped.success(), "{stopped}");
    assert_same(&router, &before);
    assert_eq!(valid_mark(), valid_mark_before);
    world.power_on().unwrap();
    world.page_within(PAGE_WITHIN).unwrap();
    world.agent.take().unwrap().kill().unwrap();
    world.power_on().unwrap();
    world.page_within(PAGE_WITHIN).unwrap();
    let stopped = world.agent.take().unwrap().terminate().unwrap();

    assert!(stopped.success(), "{stopped}");
    assert_same(&router, &before);
    assert_eq!(
        router.run(&["nft", "list", "tables"]).unwrap().trim(),
        "table inet culvert"
    );
    let left = router.run(&["nft", "list", "ruleset"]).unwrap();
    assert_eq!(left.matches("policy drop").count(), 2, "{left}");
    assert!(!left.contains("snat"), "{left}");
    world.try_in_clear().unwrap();

    let reset = world.router.agent(&["reset"]).unwrap();

    assert!(reset.status.success(), "{}", said(&reset));
    assert_eq!(router.run(&["nft", "list", "ruleset"]).unwrap(), "");
    assert_same(&router, &before);
    assert!(
        world.try_in_clear().is_err(),
        "the way in clear stays shut after a reset"
    );
}
