//! A lease's life: revocation, factory reset, renewal by the same device.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::time::{Duration, Instant};

use lab::{GATEWAY_INNER, World, said, wait_until};

/// The limit for a revocation to reach the gateway.
const REVOKED_WITHIN: Duration = Duration::from_secs(5);

#[test]
fn a_revocation_reaches_the_gateway_within_five_seconds_and_the_peer_is_gone() {
    let world = World::protected().unwrap();
    let devices = world.office.devices().unwrap();
    let id = devices[0]["device"].as_str().unwrap();
    world.page().unwrap();

    let start = Instant::now();
    world
        .office
        .cli(&["device", "revoke", id, "--reason", "lost"])
        .unwrap();
    wait_until("the peer is gone", REVOKED_WITHIN, || {
        Ok((world.pop.status()?["peers"]["leased"] == 0).then_some(()))
    })
    .unwrap();
    println!(
        "the peer was gone after {:.2} s",
        start.elapsed().as_secs_f32()
    );

    let ping = world
        .lab
        .home
        .output(&["ping", "-c", "2", "-W", "1", GATEWAY_INNER])
        .unwrap();
    assert!(!ping.status.success(), "packets still pass");
    world.try_in_clear().unwrap();
}

#[test]
fn the_old_code_of_a_revoked_router_does_not_bring_it_back_and_the_reason_is_said() {
    let mut world = World::new().unwrap();
    let code = world.office.claim().unwrap();
    world.power_on().unwrap();
    world.router.enrol(&code).unwrap();
    world.wait_protected().unwrap();
    let devices = world.office.devices().unwrap();
    world
        .office
        .cli(&[
            "device",
            "revoke",
            devices[0]["device"].as_str().unwrap(),
            "--reason",
            "lost",
        ])
        .unwrap();

    let again = world.router.try_enrol(&code).unwrap();

    assert_eq!(again.status.code(), Some(69), "{}", said(&again));
    assert!(said(&again).contains("revoked"), "{}", said(&again));
}

#[test]
fn after_a_factory_reset_the_same_device_needs_no_new_code_and_gets_the_next_epoch() {
    let mut world = World::protected().unwrap();
    world.agent.take().unwrap().terminate().unwrap();
    let device = world.office.devices().unwrap()[0]["device"].clone();

    let reset = world.router.agent(&["reset"]).unwrap();
    world.power_on().unwrap();
    world.wait_protected().unwrap();
    world.page_within(Duration::from_secs(10)).unwrap();

    assert!(reset.status.success(), "{}", said(&reset));
    let devices = world.office.devices().unwrap();
    assert_eq!(
        (devices.len(), &devices[0]["device"], &devices[0]["epoch"]),
        (1, &device, &2.into())
    );
    assert_eq!(world.pop.status().unwrap()["peers"]["leased"], 1);
}

#[test]
fn a_router_that_forgot_its_identity_is_a_new_device_and_needs_a_new_code() {
    let mut world = World::protected().unwrap();
    world.agent.take().unwrap().terminate().unwrap();

    let reset = world.router.agent(&["reset", "--forget-identity"]).unwrap();
    world.power_on().unwrap();
    let status = world
        .router
        .wait_state("unenrolled", Duration::from_secs(20))
        .unwrap();
    let code = world.office.claim().unwrap();
    world.router.enrol(&code).unwrap();
    world.wait_protected().unwrap();

    assert!(reset.status.success(), "{}", said(&reset));
    assert_ne!(status["state"], "protected");
    assert_eq!(world.office.devices().unwrap().len(), 2);
}

#[test]
fn a_damaged_state_file_is_named_and_the_router_finds_back_by_itself() {
    for file in ["lease", "keys", "stored"] {
        let mut world = World::protected().unwrap();
        world.agent.take().unwrap().kill().unwrap();
        let path = world.router.state_dir().join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x40;
        bytes.truncate(bytes.len() - 1);
        std::fs::write(&path, bytes).unwrap();

        world.power_on().unwrap();
        world.wait_protected().unwrap();
        world.page_within(Duration::from_secs(15)).unwrap();

        let log = world.agent.as_ref().unwrap().log();
        assert!(
            log.contains(&format!("file=\"{file}\"")),
            "{file} is not named: {log}"
        );
        assert_eq!(world.office.devices().unwrap().len(), 1, "{file}");
    }
}
