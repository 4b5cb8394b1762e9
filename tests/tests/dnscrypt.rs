//! DNSCrypt with other people's clients and servers, with real packets.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::ffi::OsStr;
use std::time::Duration;

use lab::{
    BIG_NAME, BOGUS_NAME, DnscryptStub, ForeignServer, HOME, INSIDE, INSIDE_NAMES, Internet, Lab,
    Netns, Observer, PAGE_NAME, Peers, Programs, Running, UNSIGNED_NAME, WEB, World, exit,
    is_whole, resolves, wait_until,
};

#[test]
fn our_stub_resolves_through_encrypted_dns_and_through_dnsdist() {
    let lab = Lab::for_test().unwrap();
    let programs = Programs::of_this_build().unwrap();
    let _internet = Internet::start(&lab).unwrap();
    let peers = Peers::of_this_build().unwrap();
    let servers = [
        ForeignServer::encrypted_dns(&lab, &peers, "203.0.113.10:443".parse().unwrap()).unwrap(),
        ForeignServer::dnsdist(&lab, "203.0.113.10:8443".parse().unwrap()).unwrap(),
    ];

    let with = ["required", "preferred", "off"];
    // dnsdist has no post-quantum certificate.
    let ways = [(&servers[0], &with[..]), (&servers[1], &with[1..])];
    let all = ways
        .iter()
        .flat_map(|(server, with)| with.iter().map(move |with| (server, *with)));
    for (server, post_quantum) in all {
        let more = ["--post-quantum", post_quantum];
        let stub =
            DnscryptStub::start_with(&lab, &lab.pop, &programs, &server.stamp, &more).unwrap();
        resolves(&stub.dig(&[PAGE_NAME, "A"]).unwrap()).unwrap();
        resolves(&stub.dig(&["+tcp", PAGE_NAME, "A"]).unwrap()).unwrap();
        let big = stub.dig(&[BIG_NAME, "TXT"]).unwrap();
        assert!(is_whole(&big), "{big}");
    }
}

#[test]
fn culvert_dns_check_and_query_judge_foreign_servers_and_our_edge() {
    let world = World::protected().unwrap();
    let programs = Programs::of_this_build().unwrap();
    let peers = Peers::of_this_build().unwrap();
    let foreign =
        ForeignServer::encrypted_dns(&world.lab, &peers, "203.0.113.10:443".parse().unwrap())
            .unwrap();
    let program = programs.dns().to_string_lossy().into_owned();

    for stamp in [&foreign.stamp, &world.pop.stamp] {
        world.lab.home.run(&[&program, "check", stamp]).unwrap();
        let answer = world
            .lab
            .home
            .run(&[&program, "query", PAGE_NAME, "A", "--stamp", stamp])
            .unwrap();
        assert!(answer.contains(WEB), "{answer}");
        assert!(answer.contains("DNSCrypt, post-quantum"), "{answer}");
    }
}

#[test]
fn a_resolver_without_a_post_quantum_certificate_is_not_asked_where_one_is_required() {
    let lab = Lab::for_test().unwrap();
    let programs = Programs::of_this_build().unwrap();
    let _internet = Internet::start(&lab).unwrap();
    let dnsdist = ForeignServer::dnsdist(&lab, "203.0.113.10:8443".parse().unwrap()).unwrap();
    let program = programs.dns().to_string_lossy().into_owned();

    let required = ["--post-quantum", "required"];
    let query = [&program, "query", PAGE_NAME, "--stamp", &dnsdist.stamp];
    let refused = lab.pop.output(&[&query[..], &required].concat()).unwrap();

    assert_eq!(refused.status.code(), Some(exit::UNAVAILABLE));
    let said = lab::said(&refused);
    assert!(
        said.contains("encryption system 2 is not accepted here"),
        "{said}"
    );
    lab.pop.run(&query).unwrap();
}

#[test]
fn kdig_and_curl_work_through_the_whole() {
    let world = World::protected().unwrap();
    let kdig = |args: &[&str]| {
        world
            .lab
            .home
            .run(&[&["kdig", "+timeout=3", "+retry=0"], args].concat())
            .unwrap()
    };

    for server in ["@192.168.1.1", "@fd01::1"] {
        for transport in ["+notcp", "+tcp"] {
            let answer = kdig(&[server, transport, PAGE_NAME, "A"]);
            assert!(
                answer.contains("status: NOERROR") && answer.contains(WEB),
                "{server} {transport}: {answer}"
            );
        }
    }
    let six = kdig(&["@192.168.1.1", PAGE_NAME, "AAAA"]);
    assert!(six.contains("2001:db8:f::10"), "{six}");
    let dns = world.router.status().unwrap()["dns"].clone();
    assert_eq!(dns["post_quantum"], true, "{dns}");
    let big = kdig(&["@192.168.1.1", BIG_NAME, "TXT"]);
    assert!(is_whole(&big), "{big}");
    let unsigned = kdig(&["@192.168.1.1", UNSIGNED_NAME, "A"]);
    assert!(unsigned.contains(WEB), "{unsigned}");
    let bogus = kdig(&["@192.168.1.1", BOGUS_NAME, "A"]);
    assert!(bogus.contains("status: SERVFAIL"), "{bogus}");
    let alias = kdig(&["@192.168.1.1", "alias.first-light.lab", "A"]);
    assert!(alias.contains("CNAME") && alias.contains(WEB), "{alias}");
    let nothing = kdig(&["@192.168.1.1", "nothing.first-light.lab", "A"]);
    assert!(nothing.contains("status: NXDOMAIN"), "{nothing}");
    for family in ["-4", "-6"] {
        let page = world.lab.home.run(&[
            "curl",
            family,
            "-sSf",
            "--max-time",
            "5",
            &format!("http://{PAGE_NAME}/"),
        ]);
        assert!(page.unwrap().contains("It works"));
    }
}

#[test]
fn a_name_under_a_signed_wildcard_is_answered() {
    let world = World::protected().unwrap();

    let answer = world.dig(&["anything.wild.first-light.lab", "A"]).unwrap();

    assert!(
        answer.contains("status: NOERROR") && answer.contains(WEB),
        "{answer}"
    );
}

#[test]
fn the_homes_names_are_answered_by_the_router_and_no_answer_from_outside_leads_into_the_home() {
    let [inside, allowed] = INSIDE_NAMES;
    let mut world = World::new().unwrap();
    let leases = world.router.dir().join("dhcp.leases");
    std::fs::write(&leases, "0 02:00:00:00:00:09 192.168.1.9 phone *\n").unwrap();
    let section = format!(
        "\n[dns]\nleases-files = [\"{}\"]\nrebind-allow = [\"{allowed}\"]\n",
        leases.display()
    );
    world.router.edit_config(|text| text + &section).unwrap();
    world.enrol().unwrap();
    let dig = |args: &[&str]| world.dig(args).unwrap();

    let refused = dig(&[inside, "A"]);
    assert!(
        refused.contains("ANSWER: 0") && refused.contains("EDE: 15"),
        "{refused}"
    );
    assert_eq!(dig(&["+short", allowed]).trim(), INSIDE);
    let local = dig(&["printer.local", "A"]);
    assert!(
        local.contains("status: NXDOMAIN") && local.contains("SOA"),
        "{local}"
    );
    assert_eq!(dig(&["+short", "phone.lan"]).trim(), "192.168.1.9");
    assert_eq!(dig(&["+short", "-x", "192.168.1.9"]).trim(), "phone.lan.");
    std::fs::write(&leases, "0 02:00:00:00:00:09 192.168.1.10 phone *\n").unwrap();
    wait_until("the new lease", Duration::from_secs(10), || {
        let new = world.dig(&["+short", "phone.lan"])?;
        Ok((new.trim() == "192.168.1.10").then_some(()))
    })
    .unwrap();
    let dns = world.router.status().unwrap()["dns"].clone();
    assert_eq!(dns["rebinding"], 1, "{dns}");
    assert!(dns["own"].as_u64() >= Some(4), "{dns}");
}

/// dnsmasq with one zone, in which every name has one address.
fn dnsmasq(netns: &Netns, label: &str, at: &str, zone: &str) -> Running {
    let program = Peers::of_this_build().unwrap().dnsmasq().unwrap();
    let (listen, answer) = (
        format!("--listen-address={at}"),
        format!("--address=/{zone}/{INSIDE}"),
    );
    let args = [
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--pid-file=",
        "--user=root",
        "--no-hosts",
        "--no-resolv",
        "--bind-interfaces",
        &listen,
        &answer,
    ];
    let running = netns.spawn(label, program, &args.map(OsStr::new)).unwrap();
    wait_until("dnsmasq", Duration::from_secs(10), || {
        let found = netns.output(&[
            "dig",
            "+short",
            "+time=1",
            "+tries=1",
            &format!("@{at}"),
            zone,
        ])?;
        Ok((!found.stdout.is_empty()).then_some(()))
    })
    .unwrap();
    running
}

#[test]
fn a_zone_of_the_homes_own_server_is_asked_in_the_home_and_one_that_only_the_wan_leads_to_nowhere()
{
    const MODEM: &str = "10.99.0.1";
    let mut world = World::new().unwrap();
    let section =
        format!("\n[dns]\nforward = [\"corp.lab {HOME}\", \"first-light-modem.lab {MODEM}\"]\n");
    world.router.edit_config(|text| text + &section).unwrap();
    let ip = |netns: &Netns, words: &[&str]| netns.run(&[&["ip"], words].concat()).unwrap();
    ip(
        &world.lab.access,
        &["address", "add", "10.99.0.1/24", "dev", "rtr0"],
    );
    ip(
        &world.lab.router,
        &["address", "add", "10.99.0.2/24", "dev", "wan0"],
    );
    let _in_the_home = dnsmasq(&world.lab.home, "dnsmasq", HOME, "corp.lab");
    let _on_the_wan = dnsmasq(&world.lab.access, "modem", MODEM, "first-light-modem.lab");
    world.enrol().unwrap();
    let observer = Observer::start(&world.lab).unwrap();
    let dig = |args: &[&str]| world.dig(args).unwrap();

    let beyond = dig(&["www.first-light-modem.lab", "A"]);
    assert!(beyond.contains("status: SERVFAIL"), "{beyond}");
    assert_eq!(dig(&["+short", "nas.corp.lab"]).trim(), INSIDE);
    assert_eq!(dig(&["+tcp", "+short", "printer.corp.lab"]).trim(), INSIDE);
    assert_eq!(dig(&["+short", PAGE_NAME]).trim(), WEB);

    let markers = ["first-light-modem", "corp"];
    observer.saw_nothing_in_clear(&world.lab, &markers).unwrap();
    let dns = world.router.status().unwrap()["dns"].clone();
    assert_eq!(
        (&dns["forwarded"], &dns["rebinding"]),
        (&3.into(), &0.into()),
        "{dns}"
    );
}
