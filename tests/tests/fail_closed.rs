//! What leaves the router when nothing protects the home: nothing.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::time::Duration;

use lab::{Image, Lab, NAME_MARKER, Observer, PAGE_MARKER, World};

#[test]
fn nothing_leaves_in_clear_before_enrolment_after_a_crash_and_after_a_stop() {
    let mut world = World::new().unwrap();
    let observer = Observer::start(&world.lab).unwrap();

    world.power_on().unwrap();
    world.try_in_clear().unwrap();
    let code = world.office.claim().unwrap();
    world.router.enrol(&code).unwrap();
    world.wait_protected().unwrap();
    world.page_within(Duration::from_secs(10)).unwrap();
    world.agent.take().unwrap().kill().unwrap();
    world.try_in_clear().unwrap();
    world.power_on().unwrap();
    world.wait_protected().unwrap();
    let stopped = world.agent.take().unwrap().terminate().unwrap();
    world.try_in_clear().unwrap();

    assert!(stopped.success(), "{stopped}");
    observer
        .saw_nothing_in_clear(&world.lab, &[NAME_MARKER, PAGE_MARKER])
        .unwrap();
    assert_eq!(world.router.status().unwrap()["kill_switch"], true);
}

#[test]
fn nothing_leaves_in_clear_while_the_gateway_is_gone() {
    let mut world = World::protected().unwrap();
    let observer = Observer::start(&world.lab).unwrap();

    world.gateway.take().unwrap().kill().unwrap();
    world.try_in_clear().unwrap();

    observer
        .saw_nothing_in_clear(&world.lab, &[NAME_MARKER, PAGE_MARKER])
        .unwrap();
}

#[test]
fn with_the_kill_switch_off_a_stopped_agent_leaves_the_router_as_it_found_it() {
    let lab = Lab::for_test().unwrap();
    let mut world = World::in_lab(
        lab,
        &Image {
            open: true,
            ..Image::default()
        },
    )
    .unwrap();
    let state = |world: &World| {
        let shown = |argv: &[&str]| world.lab.router.run(argv).unwrap();
        [
            shown(&["nft", "list", "ruleset"]),
            shown(&["ip", "rule"]),
            shown(&["ip", "-6", "rule"]),
            shown(&["ip", "route", "show", "table", "all"]),
            shown(&["ip", "-6", "route", "show", "table", "all"]),
            shown(&["ip", "-o", "link"]),
        ]
    };
    // The first packets in clear put neighbours and IPv6 routes in place that are the kernel's own.
    assert!(
        world.try_in_clear().is_err(),
        "without an agent the way in clear is open in this lab"
    );
    let before = state(&world);

    world.enrol().unwrap();
    world.page_within(Duration::from_secs(10)).unwrap();
    let stopped = world.agent.take().unwrap().terminate().unwrap();

    assert!(stopped.success());
    for (before, after) in before.iter().zip(state(&world)) {
        assert_eq!(*before, after);
    }
    assert!(
        world.try_in_clear().is_err(),
        "the way in clear is open again"
    );
}
