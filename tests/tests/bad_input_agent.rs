//! What the agent says to wrong input and a poor machine: one sentence, a documented exit code, nothing lost.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::process::Output;
use std::time::Duration;

use lab::{
    Device, Image, Lab, Office, Programs, Router, Running, StreamReader, exit, mistakes_told,
    refused, said, wait_until, wrong_clock,
};

struct Scene {
    office: Office,
    router: Router,
    _provisioning: Running,
    lab: Lab,
}

/// An office that would lease, and a flashed router; no gateway runs.
fn scene() -> Scene {
    let lab = Lab::for_test().unwrap();
    let programs = Programs::of_this_build().unwrap();
    let office = Office::init(&lab, &programs).unwrap();
    let provisioning = office.start().unwrap();
    office
        .add_silent_gateway(&StreamReader::default().public())
        .unwrap();
    let router = Router::flash(&lab, &programs, &office).unwrap();
    Scene {
        office,
        router,
        _provisioning: provisioning,
        lab,
    }
}

#[track_caller]
fn assert_sentence(output: &Output, code: i32, words: &[&str]) {
    refused(output, code, words).unwrap();
}

/// `run` in a shell that prepares something first; backtraces are asked for, so that one would show.
fn run_after(scene: &Scene, preparation: &str) -> Output {
    let script = format!(
        "export RUST_BACKTRACE=1; {preparation}\nexec timeout 10 {}",
        scene.router.run_line()
    );
    scene.lab.router.output(&["sh", "-c", &script]).unwrap()
}

#[test]
fn every_mistake_of_a_configuration_is_told_at_once() {
    let scene = scene();
    scene
        .router
        .edit_config(|text| {
            text.replace("mtu = 1420", "mtu = 9")
                .replace("keepalive-s = 25", "keepalive-s = \"soon\"")
                .replace("kill-switch = true", "kill-swich = true")
                .replace(
                    "interface = \"wan0\"",
                    "interface = \"a name too long for one\"",
                )
                .replace("https://", "http://")
        })
        .unwrap();

    for verb in [
        &["run"][..],
        &["status"],
        &["enrol", "--claim-file", "/dev/null"],
    ] {
        let output = scene.router.agent(verb).unwrap();
        let keys = [
            "tunnel.mtu",
            "tunnel.keepalive-s",
            "kill-swich",
            "wan.interface",
            "provisioning.url",
        ];
        mistakes_told(&output, &keys).unwrap();
    }
}

#[test]
fn without_root_the_agent_says_so() {
    let scene = scene();

    let line = scene.router.run_line();
    let words: Vec<&str> = [
        "setpriv",
        "--reuid",
        "nobody",
        "--regid",
        "nogroup",
        "--clear-groups",
    ]
    .into_iter()
    .chain(line.split(' '))
    .collect();
    let output = scene.lab.router.output(&words).unwrap();

    assert_sentence(&output, exit::PERMISSION, &["root"]);
}

#[test]
fn without_a_tun_device_the_agent_names_it_and_status_tells_the_same() {
    let scene = scene();

    let output = run_after(&scene, "mount -t tmpfs none /dev/net");

    assert_sentence(&output, exit::IO, &["/dev/net/tun"]);
    let status = scene.router.status().unwrap();
    assert_eq!(status["state"], "error", "{status}");
    assert!(
        status["reason"].as_str().unwrap().contains("/dev/net/tun"),
        "{status}"
    );
}

#[test]
fn a_busy_dns_port_is_named() {
    let scene = scene();
    let socket = scene
        .lab
        .router
        .enter(|| Ok(std::net::UdpSocket::bind("192.168.1.1:53")?))
        .unwrap();

    let output = run_after(&scene, "");

    assert_sentence(&output, exit::IO, &["192.168.1.1:53"]);
    drop(socket);
    assert!(
        scene.router.status().unwrap()["reason"]
            .as_str()
            .unwrap()
            .contains("192.168.1.1:53")
    );
}

#[test]
fn a_full_disk_is_said_and_burns_no_code() {
    let scene = scene();
    let state = scene.router.state_dir();
    let full = format!(
        "mkdir -p {0}; mount -t tmpfs -o size=4k,nr_inodes=4 none {0}; dd if=/dev/zero of={0}/x bs=1k count=8 2>/dev/null",
        state.display()
    );

    let output = run_after(&scene, &full);
    let code = scene.office.claim().unwrap();
    let enrol = scene.router.run_line().replace(" run ", " enrol ");
    let file = scene.router.dir().join("code");
    fs::write(&file, &code).unwrap();
    let script = format!("{full}\n{enrol} --claim-file {}", file.display());
    let tried = scene.lab.router.output(&["sh", "-c", &script]).unwrap();

    assert_sentence(&output, exit::CANNOT_WRITE, &["full"]);
    assert_sentence(&tried, exit::CANNOT_WRITE, &["full"]);
    let enrolled = scene.router.try_enrol(&code).unwrap();
    assert!(enrolled.status.success(), "{}", said(&enrolled));
}

#[test]
fn a_mistyped_an_unknown_and_a_spent_code_are_told_apart() {
    let scene = scene();
    let code = scene.office.claim().unwrap();
    let mut mistyped = code.clone();
    mistyped.replace_range(4..5, if &code[4..5] == "7" { "8" } else { "7" });
    let other_provider =
        Office::init_in(&scene.lab, &Programs::of_this_build().unwrap(), "other").unwrap();
    let unknown = other_provider.claim().unwrap();
    let spent = scene.office.claim().unwrap();
    let address = "198.18.2.2:8443".parse().unwrap();
    scene
        .lab
        .office
        .enter(|| Device::default().enrol(address, Some(&spent)))
        .unwrap();

    assert_sentence(
        &scene.router.try_enrol(&mistyped).unwrap(),
        exit::USAGE,
        &["code"],
    );
    assert_sentence(
        &scene.router.try_enrol(&unknown).unwrap(),
        exit::UNAVAILABLE,
        &["not known"],
    );
    assert_sentence(
        &scene.router.try_enrol(&spent).unwrap(),
        exit::UNAVAILABLE,
        &["used by another device"],
    );
    let _agent = scene.router.start().unwrap();
    assert_sentence(
        &scene.router.try_enrol(&spent).unwrap(),
        exit::UNAVAILABLE,
        &["used by another device"],
    );
    let status = scene.router.status().unwrap();
    assert!(
        status["reason"]
            .as_str()
            .unwrap()
            .contains("used by another device"),
        "{status}"
    );
    assert!(scene.router.try_enrol(&code).unwrap().status.success());
}

#[test]
fn another_server_than_the_images_gets_nothing() {
    let scene = scene();
    let programs = Programs::of_this_build().unwrap();
    let pin = scene.office.spki().unwrap();
    scene
        .router
        .edit_config(|text| text.replace(&pin, &"ab".repeat(32)))
        .unwrap();
    let code = scene.office.claim().unwrap();

    let output = scene.router.try_enrol(&code).unwrap();

    assert_sentence(
        &output,
        exit::UNAVAILABLE,
        &["198.18.2.2:8443", "is not the provisioning server"],
    );
    assert!(scene.office.devices().unwrap().is_empty());
    let right = Router::flash_as(
        &scene.lab,
        &programs,
        &scene.office,
        "router2",
        &Image::default(),
    )
    .unwrap();
    assert!(
        right.try_enrol(&code).unwrap().status.success(),
        "the code is still good"
    );
}

#[test]
fn a_server_that_is_away_is_named_and_the_code_is_kept_for_later() {
    let scene = scene();
    let Scene {
        office,
        router,
        _provisioning,
        lab,
    } = scene;
    let code = office.claim().unwrap();
    drop(_provisioning);

    assert_sentence(
        &router.try_enrol(&code).unwrap(),
        exit::UNAVAILABLE,
        &["198.18.2.2:8443", "cannot be reached"],
    );
    let _agent = router.start().unwrap();
    let _provisioning = office.start().unwrap();

    wait_until(
        "the agent enrols with the code it kept",
        Duration::from_secs(60),
        || Ok((office.devices()?.len() == 1).then_some(())),
    )
    .unwrap();
    drop(lab);
}

#[test]
fn a_clock_in_1970_does_not_stop_an_enrolment() {
    let scene = scene();
    let code = scene.office.claim().unwrap();
    let file = scene.router.dir().join("code");
    fs::write(&file, &code).unwrap();
    let enrol = scene.router.run_line().replace(" run ", " enrol ");
    let script = format!(
        "{}\n{enrol} --claim-file {}",
        wrong_clock("@1970-01-02 00:00:00"),
        file.display()
    );

    let output = scene.lab.router.output(&["sh", "-c", &script]).unwrap();

    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(scene.office.devices().unwrap().len(), 1);
}

#[test]
fn an_expired_lease_is_said_and_opens_nothing() {
    let scene = scene();
    let code = scene.office.claim().unwrap();
    assert!(scene.router.try_enrol(&code).unwrap().status.success());
    let Scene {
        office: _office,
        router,
        _provisioning,
        lab,
    } = scene;
    drop(_provisioning);
    let script = format!("{}\nexec {}", wrong_clock("+30d"), router.run_line());
    let mut command = lab.router.command("sh");
    command.args(["-c", &script]);
    let _agent = lab
        .router
        .spawn_command("agent-in-a-month", command)
        .unwrap();

    let status = wait_until("the agent says why", Duration::from_secs(20), || {
        let status = router.status()?;
        let reason = status["reason"].as_str().unwrap_or_default();
        anyhow::ensure!(reason.contains("lease"), "it says {status}");
        Ok(Some(status))
    })
    .unwrap();

    assert_ne!(status["state"], "protected");
    assert_eq!(status["kill_switch"], true);
}
