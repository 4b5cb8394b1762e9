//! The router stays shut at boot, over a crash and over an upgrade; only the subscriber opens a window, and it shuts.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::ffi::OsStr;
use std::time::Duration;

use lab::{
    HOME, NAME_MARKER, Netns, Observer, PAGE_MARKER, PAGE_NAME, ROUTER_LAN, Running, WEB, World,
    ZONE_SERVER, said, wait_for,
};

const SOON: Duration = Duration::from_secs(10);

fn ip(netns: &Netns, lines: &[&str]) {
    for line in lines {
        let words: Vec<&str> = std::iter::once("ip").chain(line.split(' ')).collect();
        netns.run(&words).unwrap();
    }
}

#[test]
fn rules_set_at_boot_hold_for_a_wan_that_comes_up_later_while_no_agent_runs() {
    let world = World::new().unwrap();
    let router = &world.lab.router;
    ip(router, &["link set wan0 down", "link set wan0 name later0"]);

    let locked = world.router.agent(&["lock"]).unwrap();
    assert!(locked.status.success(), "{}", said(&locked));
    let observer = Observer::start(&world.lab).unwrap();
    ip(
        router,
        &[
            "link set later0 name wan0",
            "link set wan0 up",
            "-6 addr replace 2001:db8:a::2/64 dev wan0 nodad",
            "route replace default via 198.18.0.1",
            "-6 route replace default via 2001:db8:a::1",
        ],
    );
    world.try_in_clear().unwrap();
    let own = router.output(&["ping", "-c", "1", "-W", "1", WEB]).unwrap();

    assert!(!own.status.success(), "the router itself got out");
    observer
        .saw_nothing_in_clear(&world.lab, &[NAME_MARKER, PAGE_MARKER])
        .unwrap();
}

#[test]
fn the_printed_rules_are_those_that_lock_sets() {
    let world = World::new().unwrap();
    let table = || {
        let list = ["nft", "list", "table", "inet", "culvert"];
        world.lab.router.run(&list).unwrap()
    };
    let printed = world.router.agent(&["ruleset"]).unwrap();
    let file = world.lab.work().join("boot.nft");
    std::fs::write(&file, &printed.stdout).unwrap();

    let path = file.to_string_lossy();
    world.lab.router.run(&["nft", "-f", path.as_ref()]).unwrap();
    let by_file = table();
    world.router.agent(&["lock"]).unwrap();

    assert!(by_file.contains("policy drop"), "{by_file}");
    assert_eq!(by_file, table());
}

/// A home that keeps trying, in every way that would be seen.
fn restless(world: &World) -> Vec<Running> {
    let start = |label: &str, script: &str| {
        let args = ["-c", script].map(OsStr::new);
        world.lab.home.spawn(label, "sh", &args).unwrap()
    };
    vec![
        start("pings", &format!("exec ping -i 0.02 {WEB} > /dev/null")),
        start(
            "lookups",
            &format!(
                "while :; do dig +time=1 +tries=1 @{ZONE_SERVER} {PAGE_NAME} A > /dev/null; done"
            ),
        ),
        start(
            "pages",
            &format!("while :; do curl -s --max-time 1 -o /dev/null http://{WEB}/; done"),
        ),
    ]
}

#[test]
fn nothing_leaves_in_clear_over_a_crash_and_an_upgrade_under_traffic() {
    let mut world = World::new().unwrap();
    world.router.install_program().unwrap();
    world.enrol().unwrap();
    let observer = Observer::start(&world.lab).unwrap();
    let home = restless(&world);

    for _ in 0..3 {
        world.agent.take().unwrap().kill().unwrap();
        world.power_on().unwrap();
        world.wait_protected().unwrap();
    }
    for _ in 0..3 {
        world.router.install_program().unwrap();
        let stopped = world.agent.take().unwrap().terminate().unwrap();
        assert!(stopped.success(), "{stopped}");
        world.power_on().unwrap();
        world.wait_protected().unwrap();
    }
    world.page_within(SOON).unwrap();
    drop(home);

    observer
        .saw_nothing_in_clear(&world.lab, &[NAME_MARKER, PAGE_MARKER])
        .unwrap();
}

/// An unenrolled router that is on, whose access network names a resolver.
fn behind_a_portal(window_s: u16) -> World {
    let mut world = World::new().unwrap();
    let resolvers = world.router.dir().join("resolv.conf.auto");
    std::fs::write(&resolvers, format!("nameserver {ZONE_SERVER}\n")).unwrap();
    let section = format!(
        "\n[portal]\nwindow-s = {window_s}\nresolvers = \"{}\"\n",
        resolvers.display()
    );
    world.router.edit_config(|text| text + &section).unwrap();
    world.power_on().unwrap();
    world
}

fn open(world: &World, more: &[&str]) -> std::process::Output {
    let words = [&["portal", "open", "--device", HOME], more].concat();
    world.router.agent(&words).unwrap()
}

/// The login page, in this lab the page of the web server by its address.
fn reaches_the_portal(world: &World) -> bool {
    let url = format!("http://{WEB}/");
    let curl = ["curl", "-sf", "--max-time", "1", "-o", "/dev/null", &url];
    world.lab.home.output(&curl).unwrap().status.success()
}

fn looks_up(world: &World, server: &str) -> bool {
    let at = format!("@{server}");
    let dig = ["dig", "+short", "+time=1", "+tries=1", &at, PAGE_NAME, "A"];
    world
        .lab
        .home
        .run(&dig)
        .is_ok_and(|said| said.trim() == WEB)
}

#[test]
fn a_window_lets_web_and_lookups_of_one_device_out_and_nothing_else() {
    let world = behind_a_portal(300);
    assert!(!reaches_the_portal(&world));

    let opened = open(&world, &["--minutes", "1"]);

    assert!(opened.status.success(), "{}", said(&opened));
    assert!(reaches_the_portal(&world));
    assert!(
        looks_up(&world, ROUTER_LAN),
        "through the router's resolver"
    );
    let left = world.router.status().unwrap()["portal_s"].as_u64().unwrap();
    assert!((1..=60).contains(&left), "{left}");
    let ping = ["ping", "-c", "1", "-W", "1", WEB];
    assert!(!world.lab.home.output(&ping).unwrap().status.success());
    ip(&world.lab.home, &["addr add 192.168.1.11/24 dev eth0"]);
    let other = [
        "curl",
        "-sf",
        "--max-time",
        "1",
        "--interface",
        "192.168.1.11",
        "-o",
        "/dev/null",
        &format!("http://{WEB}/"),
    ];
    assert!(
        !world.lab.home.output(&other).unwrap().status.success(),
        "another device got out"
    );

    let closed = world.router.agent(&["portal", "close"]).unwrap();

    assert!(closed.status.success(), "{}", said(&closed));
    assert!(!reaches_the_portal(&world));
    world.try_in_clear().unwrap();
}

#[test]
fn a_window_shuts_by_itself_even_when_the_agent_was_killed_meanwhile() {
    for is_killed in [false, true] {
        let mut world = behind_a_portal(2);

        let opened = open(&world, &[]);
        assert!(opened.status.success(), "{}", said(&opened));
        assert!(reaches_the_portal(&world));
        if is_killed {
            world.agent.take().unwrap().kill().unwrap();
        }

        wait_for("the window is shut", SOON, || !reaches_the_portal(&world)).unwrap();
        world.try_in_clear().unwrap();
        if !is_killed {
            assert!(world.router.status().unwrap()["portal_s"].is_null());
        }
    }
}

#[test]
fn only_root_opens_a_window_and_never_beside_a_tunnel_that_is_up() {
    let mut world = behind_a_portal(300);
    let program = world.router.install_program().unwrap();
    let config = world.router.config();
    let (program, config) = (program.to_string_lossy(), config.to_string_lossy());
    let as_nobody = [
        "setpriv",
        "--reuid",
        "65534",
        "--clear-groups",
        "--bounding-set",
        "-all",
        &program,
        "portal",
        "open",
        "--device",
        HOME,
        "--config",
        &config,
    ];

    let by_nobody = world.lab.router.output(&as_nobody).unwrap();
    assert_eq!(by_nobody.status.code(), Some(77), "{}", said(&by_nobody));
    assert!(!reaches_the_portal(&world));
    assert!(open(&world, &[]).status.success());
    let code = world.office.claim().unwrap();
    world.router.enrol(&code).unwrap();
    world.wait_protected().unwrap();

    assert!(world.router.status().unwrap()["portal_s"].is_null());
    let refused = open(&world, &[]);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(
        said(&refused).contains("the tunnel is up"),
        "{}",
        said(&refused)
    );
    let log = world.agent.as_ref().unwrap().log();
    assert!(
        log.contains("window is open") && log.contains("window is shut"),
        "{log}"
    );
}
