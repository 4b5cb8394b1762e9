//! Anonymized DNSCrypt with other people's clients, relays and resolvers, with real packets and our own relay as it is shipped:
//! the resolvers have addresses of the internet.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use dnscrypt_proxy::proto::relay::wrap;
use lab::{
    ABROAD, Abroad, Asking, BIG_NAME, Capture, DnscryptProxy, DnscryptStub, ELSEWHERE,
    ForeignServer, GATEWAY_INNER, Internet, Lab, PAGE_NAME, Peers, Programs, WEB, World,
    ZONE_SERVER, exit, is_whole, resolves, wait_until,
};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);
/// A lookup that nothing holds up, by a program that starts for it and fetches certificates.
const AT_ONCE: Duration = Duration::from_secs(1);
/// So many exchanges may be under way (`dns.relay.max-exchanges`), each for as long as its resolver may take.
const EXCHANGES: u64 = 1_024;
const EXCHANGE: Duration = Duration::from_secs(3);
/// Rounds of sixty exchanges that take them all.
const FILLING: u64 = 18;
/// One source has so many connections at a time (`Limits::SERVER`).
const CONNECTIONS: usize = 32;

fn forwarded(world: &World) -> Value {
    world.pop.status().unwrap()["dns"]["relayed"].clone()
}

fn answers(world: &World) -> u64 {
    forwarded(world)["answers"].as_u64().unwrap_or(0)
}

fn socket(address: &str, port: u16) -> SocketAddr {
    (address.parse::<std::net::IpAddr>().unwrap(), port).into()
}

fn relay_stamp(program: &str, lab: &Lab, address: &str) -> String {
    let make = [program, "stamp", "make-relay", "--addr", address];
    lab.pop.run(&make).unwrap().trim().to_owned()
}

/// What has to do with the other operator's resolver, and the capture's last packet.
const STRAIGHT: &str = "host 11.0.0.10 or udp port 9";

/// Frames from the other operator's resolver or to it.
fn frames_abroad(capture: Capture) -> usize {
    let address = ABROAD.parse::<std::net::Ipv4Addr>().unwrap().octets();
    let file = std::fs::read(capture.finish(WEB).unwrap()).unwrap();
    // Behind Ethernet's header and twelve bytes of IPv4's.
    let is_of = |frame: &Vec<u8>| frame[26..34].chunks(4).any(|of| of == address);
    lab::frames(&file)
        .unwrap()
        .into_iter()
        .filter(is_of)
        .count()
}

#[test]
fn dnscrypt_proxy_through_our_relay_reaches_our_edge_encrypted_dns_and_dnsdist() {
    let (abroad, world) = Abroad::with_home().unwrap();
    let (lab, peers) = (&world.lab, Peers::of_this_build().unwrap());
    let encrypted_dns = ForeignServer::encrypted_dns(lab, &peers, socket(ELSEWHERE, 443)).unwrap();
    let dnsdist = ForeignServer::dnsdist(lab, socket(ELSEWHERE, 8443)).unwrap();
    let relay = world.pop.print_stamps(&["--relay"]).unwrap();

    let every = [
        Asking::Udp,
        Asking::Classical,
        Asking::Tcp,
        Asking::EphemeralKeys,
    ];
    let cells = [
        (&abroad.stamp, &every[..]),
        (&encrypted_dns.stamp, &every[..]),
        // It has no post-quantum certificate.
        (&dnsdist.stamp, &[Asking::Classical, Asking::Tcp][..]),
    ];
    for (stamp, ways) in cells {
        for asking in ways {
            let before = answers(&world);
            let client =
                DnscryptProxy::start_through(lab, &lab.home, &peers, (stamp, &relay), *asking)
                    .unwrap();
            resolves(&client.dig(&[PAGE_NAME, "A"]).unwrap()).unwrap();
            let log = client.log();
            assert!(
                log.contains("Anonymizing queries for [edge] via [way]"),
                "{log}"
            );
            let is_post_quantum = log.contains("using the post-quantum X-Wing key exchange");
            let is_wanted = *asking != Asking::Classical && *stamp != dnsdist.stamp;
            assert_eq!(is_post_quantum, is_wanted, "{asking:?}: {log}");
            // Certificate and lookup at the least.
            assert!(answers(&world) >= before + 2, "{}", forwarded(&world));
        }
    }
}

#[test]
fn our_stub_through_our_relay_reaches_our_edge_encrypted_dns_and_dnsdist() {
    let (abroad, world) = Abroad::with_home().unwrap();
    let (lab, peers) = (&world.lab, Peers::of_this_build().unwrap());
    let programs = Programs::of_this_build().unwrap();
    let encrypted_dns = ForeignServer::encrypted_dns(lab, &peers, socket(ELSEWHERE, 443)).unwrap();
    let dnsdist = ForeignServer::dnsdist(lab, socket(ELSEWHERE, 8443)).unwrap();
    let relay = world.pop.print_stamps(&["--relay"]).unwrap();

    let both = ["required", "off"];
    let cells = [
        (&abroad.stamp, &both[..]),
        (&encrypted_dns.stamp, &both[..]),
        (&dnsdist.stamp, &both[1..]),
    ];
    for (stamp, with) in cells {
        for post_quantum in with {
            let before = answers(&world);
            let more = ["--relay", &relay, "--post-quantum", post_quantum];
            let stub = DnscryptStub::start_with(lab, &lab.home, &programs, stamp, &more).unwrap();
            resolves(&stub.dig(&[PAGE_NAME, "A"]).unwrap()).unwrap();
            // The others ask their own resolver over UDP what came over UDP, whatever room there is for the answer.
            if *stamp == abroad.stamp {
                let big = stub.dig(&[BIG_NAME, "TXT"]).unwrap();
                assert!(is_whole(&big), "{big}");
            }
            drop(stub);
            let program = programs.dns().to_string_lossy().into_owned();
            let query = [&program, "query", PAGE_NAME, "--stamp", stamp, "--tcp"];
            let over_tcp = lab.home.run(&[&query[..], &more].concat()).unwrap();
            assert!(over_tcp.contains(WEB), "{over_tcp}");
            let check = [&program, "check", stamp, "--name", PAGE_NAME];
            lab.home.run(&[&check[..], &more].concat()).unwrap();
            assert!(answers(&world) > before + 4, "{}", forwarded(&world));
        }
    }
}

#[test]
fn our_stub_and_dnscrypt_proxy_through_encrypted_dns_as_a_relay_reach_our_edge() {
    let lab = Lab::for_test().unwrap();
    let internet = Internet::start(&lab).unwrap();
    let programs = Programs::of_this_build().unwrap();
    let peers = Peers::of_this_build().unwrap();
    let abroad = Abroad::start(&lab, &programs, &internet.zones).unwrap();
    let address = format!("{ELSEWHERE}:443");
    let _relay =
        ForeignServer::encrypted_dns_relay(&lab, &lab.internet, &peers, socket(ELSEWHERE, 443))
            .unwrap();
    let program = programs.dns().to_string_lossy().into_owned();
    let relay = relay_stamp(&program, &lab, &address);

    for post_quantum in ["required", "off"] {
        for transport in [&[][..], &["--tcp"]] {
            let query = [&program, "query", PAGE_NAME, "--stamp", &abroad.stamp];
            let more = ["--relay", &relay, "--post-quantum", post_quantum];
            let answer = lab
                .pop
                .run(&[&query[..], &more, transport].concat())
                .unwrap();
            assert!(answer.contains(WEB), "{answer}");
        }
    }
    for asking in [Asking::Udp, Asking::Tcp] {
        let client =
            DnscryptProxy::start_through(&lab, &lab.pop, &peers, (&abroad.stamp, &relay), asking)
                .unwrap();
        resolves(&client.dig(&[PAGE_NAME, "A"]).unwrap()).unwrap();
    }
}

#[test]
fn a_home_asks_another_operators_resolver_through_its_own_gateway_and_not_at_all_without_it() {
    let (abroad, mut world) = Abroad::with_home().unwrap();
    let asked = || {
        abroad.pop.status().unwrap()["dns"]["queries"]
            .as_u64()
            .unwrap()
    };

    let seen = Capture::start(&world.lab, &world.lab.pop, "inet0", STRAIGHT).unwrap();
    resolves(&world.dig(&[PAGE_NAME, "A"]).unwrap()).unwrap();
    assert!(frames_abroad(seen) > 0, "by the relay");
    assert!(asked() > 0);
    assert!(answers(&world) > 0);
    assert_eq!(world.router.status().unwrap()["dns"]["post_quantum"], true);

    // The same gateway, and no relay there any more.
    world.gateway.take().unwrap().terminate().unwrap();
    let before = asked();
    world
        .pop
        .edit_config(|text| text.replace("[dns.relay]\nports = [443, 8443]\n", ""))
        .unwrap();
    world.gateway = Some(world.pop.start().unwrap());
    world.wait_protected().unwrap();

    // Certificates are not among what the resolver counts.
    let straight = Capture::start(&world.lab, &world.lab.pop, "inet0", STRAIGHT).unwrap();
    let refused = world.dig(&["n7.many.first-light.lab", "A"]);

    assert_eq!(frames_abroad(straight), 0, "something went straight");
    let said = refused.map_err(|error| error.to_string());
    assert!(
        !said.as_ref().is_ok_and(|said| said.contains("NOERROR")),
        "{said:?}"
    );
    assert_eq!(asked(), before, "nothing went straight");
}

#[test]
fn targets_that_are_no_hosts_of_the_internet_hear_nothing_of_the_relay() {
    let (abroad, world) = Abroad::with_home().unwrap();
    let relay = socket(GATEWAY_INNER, 443);
    let sealed = [0x55; 300];
    let cells = [
        ("relay_target", socket(ZONE_SERVER, 443)),
        ("relay_target", socket("192.168.1.1", 443)),
        ("relay_target", socket("127.0.0.1", 443)),
        ("relay_target", socket("::ffff:127.0.0.1", 443)),
        ("relay_target", relay),
        ("relay_port", socket(ABROAD, 53)),
    ];

    world
        .lab
        .home
        .enter(|| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            for (_, target) in &cells {
                socket.send_to(&wrap(*target, &sealed), relay)?;
            }
            let twice = wrap(
                self::socket(ABROAD, 443),
                &wrap(self::socket(ABROAD, 443), &sealed),
            );
            socket.send_to(&twice, relay)?;
            Ok(())
        })
        .unwrap();

    wait_until("all are counted", PATIENCE, || {
        let dropped = forwarded(&world)["dropped"].clone();
        let count = |reason: &str| dropped[reason].as_u64().unwrap_or(0);
        let told = [
            count("relay_target"),
            count("relay_port"),
            count("relay_loop"),
        ];
        Ok((told == [5, 1, 1]).then_some(()))
    })
    .unwrap();
    let name = "n8.many.first-light.lab";
    assert!(world.dig(&[name, "A"]).unwrap().contains(WEB));
    drop(abroad);
}

#[test]
fn floods_of_exchanges_that_nobody_answers_and_idle_connections_hold_up_no_other_lookup() {
    let (_abroad, world) = Abroad::with_home().unwrap();
    let relay = socket(GATEWAY_INNER, 443);
    let nobody = socket("11.0.0.99", 443);
    // Packets for it vanish, as on a real way.
    let vanish = ["ip", "route", "add", "blackhole", "11.0.0.99/32"];
    world.lab.internet.run(&vanish).unwrap();
    let programs = Programs::of_this_build().unwrap();
    let program = programs.dns().to_string_lossy().into_owned();

    let idle = world
        .lab
        .home
        .enter(|| {
            // The server hears of a connection with its first byte; of a frame's length that is half.
            let idle = (0..CONNECTIONS).map(|_| {
                let mut idle = TcpStream::connect_timeout(&relay, PATIENCE)?;
                idle.write_all(&[1])?;
                Ok(idle)
            });
            let idle = idle.collect::<std::io::Result<Vec<_>>>()?;
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            for _ in 0..2_000 {
                socket.send_to(&wrap(nobody, &[0x55; 300]), relay)?;
            }
            Ok(idle)
        })
        .unwrap();
    // The home's own lookups at its gateway, by the workers that the flood came to.
    let query = [
        &program,
        "query",
        "n9.many.first-light.lab",
        "--stamp",
        &world.pop.stamp,
    ];
    let begun = Instant::now();
    let answer = world.lab.home.run(&query).unwrap();
    let took = begun.elapsed();
    assert!(answer.contains(WEB), "{answer}");
    assert!(took < AT_ONCE, "{took:?}");

    wait_until("the flood is counted", PATIENCE, || {
        let overloaded = forwarded(&world)["dropped"]["overloaded"].as_u64();
        Ok((overloaded > Some(1_000)).then_some(()))
    })
    .unwrap();
    drop(idle);
    wait_until("the relay has room again", PATIENCE, || {
        Ok(world
            .dig(&["n10.many.first-light.lab", "A"])?
            .contains(WEB)
            .then_some(()))
    })
    .unwrap();
}

#[test]
fn sixty_homes_that_fill_the_relay_together_leave_another_its_exchanges() {
    let (_abroad, world) = Abroad::with_home().unwrap();
    let nobody = wrap(socket("11.0.0.99", 443), &[0x55; 300]);
    let vanish = ["ip", "route", "add", "blackhole", "11.0.0.99/32"];
    world.lab.internet.run(&vanish).unwrap();
    // Homes that nobody has to enrol: their packets come from the gateway's own machine.
    let homes = ["ip", "route", "add", "local", "10.64.200.0/24", "dev", "lo"];
    world.lab.pop.run(&homes).unwrap();
    resolves(&world.dig(&[PAGE_NAME, "A"]).unwrap()).unwrap();
    let begun = || forwarded(&world)["queries"].as_u64().unwrap_or(0);
    let refused = || {
        let dropped = &forwarded(&world)["dropped"]["overloaded"];
        dropped.as_u64().unwrap_or(0)
    };

    let (before, took) = (begun(), Instant::now());
    let held = world.lab.pop.enter(|| {
        let bind = |n: u8| UdpSocket::bind(SocketAddr::from(([10, 64, 200, n], 0)));
        let homes = (1..=60).map(bind).collect::<std::io::Result<Vec<_>>>()?;
        // The queue before the relay has room for one round.
        for round in 1..=FILLING {
            for home in &homes {
                home.send_to(&nobody, socket(GATEWAY_INNER, 443))?;
            }
            let sent = round * homes.len() as u64;
            wait_until("a round is taken", PATIENCE, || {
                Ok((begun() - before + refused() >= sent).then_some(()))
            })?;
        }
        Ok(homes)
    });
    let all = begun() - before;
    for n in 20..25 {
        let asked = Instant::now();
        let name = format!("n{n}.many.first-light.lab");
        assert!(world.dig(&[&name, "A"]).unwrap().contains(WEB), "{name}");
        let took = asked.elapsed();
        assert!(took < AT_ONCE, "{name}: {took:?}");
    }

    assert!(took.elapsed() < EXCHANGE, "some places were free again");
    assert!(all >= EXCHANGES && refused() > 0, "{all} begun");
    drop(held);
}

#[test]
fn private_targets_are_for_tests_and_the_gateway_says_so_at_its_start() {
    let (_abroad, mut world) = Abroad::with_home().unwrap();
    let peers = Peers::of_this_build().unwrap();
    let programs = Programs::of_this_build().unwrap();
    let program = programs.dns().to_string_lossy().into_owned();
    let server = ForeignServer::encrypted_dns(&world.lab, &peers, socket(WEB, 443)).unwrap();
    let relay = world.pop.print_stamps(&["--relay"]).unwrap();
    let query = [
        &program,
        "query",
        PAGE_NAME,
        "--stamp",
        &server.stamp,
        "--relay",
        &relay,
    ];

    let refused = world.lab.home.output(&query).unwrap();
    assert_eq!(refused.status.code(), Some(exit::UNAVAILABLE));
    world.gateway.take().unwrap().terminate().unwrap();
    let switch = "[dns.relay]\nallow-private-targets-for-tests = true";
    world
        .pop
        .edit_config(|text| text.replace("[dns.relay]", switch))
        .unwrap();
    let gateway = world.pop.start().unwrap();
    world.wait_protected().unwrap();

    assert!(
        gateway
            .log()
            .contains("allow-private-targets-for-tests is set"),
        "{}",
        gateway.log()
    );
    world.gateway = Some(gateway);
    let answer = world.lab.home.run(&query).unwrap();
    assert!(answer.contains(WEB), "{answer}");
}
