//! What routers on the way read of a packet: TCP's longest segment, class of service, congestion marks.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::time::Duration;

use lab::{Bulk, Frames, Netns, OBSERVED, WEB, WEB_V6, Wiretap, World, wait_until};

const SOON: Duration = Duration::from_secs(5);
const NOT_ECT: u8 = 0;
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
const CE: u8 = 3;
/// Expedited forwarding, which telephones use (RFC 3246).
const EF: u8 = 46 << 2;
/// Class selector 1, for what may wait (RFC 2474 section 4.2.2).
const CS1: u8 = 8 << 2;

/// Taps on the access wire, in both directions, and where packets arrive at both ends.
struct Taps {
    up: Wiretap,
    down: Wiretap,
    internet: Wiretap,
    home: Wiretap,
}

/// The TOS byte of a ping outside and inside, on its way and back.
#[derive(Debug, PartialEq, Eq)]
struct Crossing {
    up: u8,
    internet: u8,
    down: u8,
    home: u8,
}

impl Taps {
    fn start(world: &World) -> Self {
        let lab = &world.lab;
        let tap = |netns: &Netns, interface: &str, filter: &str| {
            Wiretap::start(lab, netns, interface, filter).unwrap()
        };
        let echo = |v4, v6| format!("icmp[icmptype] == {v4} or (icmp6 and ip6[40] == {v6})");
        Self {
            up: tap(&lab.access, OBSERVED, "udp dst port 51820"),
            down: tap(&lab.access, OBSERVED, "udp src port 51820"),
            internet: tap(&lab.internet, "pop0", &echo(8, 128)),
            home: tap(&lab.home, "eth0", &echo(0, 129)),
        }
    }

    /// Pings under a TOS byte with a packet of this length, by which the taps know it again; the other end answers under
    /// the same byte.
    #[track_caller]
    fn ping(&self, world: &World, to: &str, tos: u8, bytes: usize) -> Crossing {
        let said = ping(world, to, tos, bytes);
        assert!(said.contains("1 received"), "{said}");
        let outside = bytes.next_multiple_of(16) + 60;
        let seen = |tap: &Wiretap, bytes: usize| tap.packet_of(bytes).unwrap().tos;
        Crossing {
            up: seen(&self.up, outside),
            internet: seen(&self.internet, bytes),
            down: seen(&self.down, outside),
            home: seen(&self.home, bytes),
        }
    }
}

fn ping(world: &World, to: &str, tos: u8, bytes: usize) -> String {
    let header = if to.contains(':') { 48 } else { 28 };
    let (tos, payload) = (tos.to_string(), (bytes - header).to_string());
    let ping = ["ping", "-c", "1", "-W", "2", "-Q", &tos, "-s", &payload, to];
    lab::said(&world.lab.home.output(&ping).unwrap())
}

/// A world whose access network sees the class that this setting shows.
fn with_dscp(setting: &str) -> World {
    let mut world = World::new().unwrap();
    let edit =
        |text: String| text.replace("keepalive-s", &format!("dscp = {setting}\nkeepalive-s"));
    world.router.edit_config(edit).unwrap();
    world.enrol().unwrap();
    world
}

/// Each of these pings, IPv4 and IPv6 inside, shows this outside, whatever its congestion mark, which passes both ways.
#[track_caller]
fn classes_show(world: &World, up: impl Fn(u8) -> u8, down: impl Fn(u8) -> u8) {
    let taps = Taps::start(world);
    let mut bytes = 600;
    for class in [0, CS1, EF] {
        for to in [WEB, WEB_V6] {
            bytes += 16;
            let crossing = taps.ping(world, to, class | ECT_0, bytes);

            let tos = class | ECT_0;
            let expected = Crossing {
                up: up(class) | ECT_0,
                internet: tos,
                down: down(class) | ECT_0,
                home: tos,
            };
            assert_eq!(crossing, expected, "{class:#x} to {to}");
        }
    }
}

#[test]
fn by_default_the_access_network_sees_no_class_and_the_internet_sees_the_homes() {
    classes_show(&World::protected().unwrap(), |_| 0, |_| 0);
}

#[test]
fn a_class_that_is_set_is_every_datagrams_and_no_packets() {
    classes_show(&with_dscp("34"), |_| 34 << 2, |_| 0);
}

#[test]
fn classes_that_are_copied_show_packet_by_packet() {
    classes_show(&with_dscp("\"copy\""), |class| class, |_| 0);
}

#[test]
fn a_gateway_shows_the_class_that_it_is_told_whatever_the_routers_do() {
    for (setting, down) in [("\"copy\"", None), ("26", Some(26 << 2))] {
        let mut world = World::new().unwrap();
        assert!(world.gateway.take().unwrap().terminate().unwrap().success());
        let edit =
            |text: String| text.replace("mtu = 1420", &format!("mtu = 1420\ndscp = {setting}"));
        world.pop.edit_config(edit).unwrap();
        world.gateway = Some(world.pop.start().unwrap());
        world.enrol().unwrap();

        classes_show(&world, |_| 0, |class| down.unwrap_or(class));
    }
}

/// The access network marks the tunnel's datagrams that are longer than health datagrams, in one direction.
fn mark(world: &World, direction: &str, which: &str) {
    let rule = format!("udp {direction} 51820 meta length > 500 {which} ip ecn set ce");
    let table = format!(
        "table inet busy {{ chain c {{ type filter hook forward priority 0; {rule}; }}; }}"
    );
    let netns = &world.lab.access;
    netns
        .run(&["nft", "add table inet busy; delete table inet busy"])
        .unwrap();
    netns.run(&["nft", &table]).unwrap();
}

#[test]
fn a_packet_that_no_mark_may_reach_is_dropped_where_a_queue_has_marked_its_datagram() {
    let world = World::protected().unwrap();
    let dropped = |status: &serde_json::Value| status.to_string().matches("congested").count();

    mark(&world, "dport", "");
    let up = ping(&world, WEB, NOT_ECT, 700);
    mark(&world, "sport", "");
    let down = ping(&world, WEB_V6, NOT_ECT, 700);

    for said in [up, down] {
        assert!(said.contains("0 received"), "{said}");
    }
    wait_until("both ends have counted it", SOON, || {
        let counts = [world.pop.status()?, world.router.status()?];
        Ok(counts
            .iter()
            .all(|status| dropped(status) > 0)
            .then_some(()))
    })
    .unwrap();
}

#[test]
fn congestion_marks_of_the_home_show_outside_and_arrive() {
    let world = World::protected().unwrap();
    let taps = Taps::start(&world);
    let mut bytes = 600;
    for ecn in [NOT_ECT, ECT_1, ECT_0, CE] {
        for to in [WEB, WEB_V6] {
            bytes += 16;
            let crossing = taps.ping(&world, to, ecn, bytes);

            let expected = Crossing {
                up: ecn,
                internet: ecn,
                down: ecn,
                home: ecn,
            };
            assert_eq!(crossing, expected, "{ecn} to {to}");
        }
    }
}

#[test]
fn a_mark_that_a_queue_of_the_access_network_sets_reaches_the_packet_inside() {
    let world = World::protected().unwrap();
    let taps = Taps::start(&world);
    let mut bytes = 600;
    for ecn in [ECT_1, ECT_0] {
        for to in [WEB, WEB_V6] {
            bytes += 16;
            mark(&world, "dport", "");
            let up = taps.ping(&world, to, EF | ecn, bytes);
            bytes += 16;
            mark(&world, "sport", "");
            let down = taps.ping(&world, to, EF | ecn, bytes);

            assert_eq!((up.up, up.internet), (ecn, EF | CE), "up to {to}");
            assert_eq!((down.internet, down.home), (EF | ecn, EF | CE), "down");
        }
    }
}

/// What a namespace's kernel received under CE since it began.
fn marked(netns: &Netns) -> u64 {
    let said = netns.run(&["nstat", "-asz", "IpExtInCEPkts"]).unwrap();
    let line = said.lines().find(|line| line.starts_with("IpExtInCEPkts"));
    let figure = line.and_then(|line| line.split_whitespace().nth(1));
    figure.unwrap_or_default().parse().unwrap()
}

#[test]
fn marks_on_joined_datagrams_reach_tcp_in_both_directions_and_change_no_byte() {
    const BYTES: usize = 30_000_000;
    let world = World::protected().unwrap();
    let lab = &world.lab;
    for netns in [&lab.home, &lab.internet] {
        netns.run(&["sysctl", "-qw", "net.ipv4.tcp_ecn=1"]).unwrap();
    }
    let server = Bulk::listen(&lab.internet, WEB, BYTES).unwrap();
    let device = |netns| Frames::of(netns, "culvert0").unwrap();
    let unmarked = [&lab.home, &lab.internet].map(marked);
    let before = [&lab.router, &lab.pop].map(device);

    let some = "ip ecn != not-ect numgen inc mod 16 == 0";
    mark(&world, "sport", some);
    server.fetch(&lab.home, WEB).unwrap();
    mark(&world, "dport", some);
    server.send(&lab.home, WEB).unwrap();

    let joined = [
        device(&lab.router).since(before[0]),
        device(&lab.pop).since(before[1]),
    ];
    for frames in joined {
        assert!(
            frames.mean_received().max(frames.mean_sent()) > 3_000,
            "{frames:?}"
        );
    }
    let arrived = [&lab.home, &lab.internet].map(marked);
    assert!(
        arrived[0] > unmarked[0] && arrived[1] > unmarked[1],
        "{unmarked:?} {arrived:?}"
    );
}

/// The MSS that the internet's server and the home's browser hear of each other.
fn heard(world: &World, host: &str) -> [u16; 2] {
    let lab = &world.lab;
    let syn = |netns, interface, port| {
        let v6 = format!("(ip6 and ip6[6] == 6 and ip6[53] & 2 != 0 and {port} port 80)");
        let v4 = format!("(tcp[tcpflags] & tcp-syn != 0 and {port} port 80)");
        Wiretap::start(lab, netns, interface, &format!("{v4} or {v6}")).unwrap()
    };
    let taps = [
        syn(&lab.internet, "pop0", "dst"),
        syn(&lab.home, "eth0", "src"),
    ];
    let url = format!("http://{host}/");
    lab.home
        .run(&["curl", "-sSf", "-o", "/dev/null", "--max-time", "4", &url])
        .unwrap();
    taps.map(|tap| tap.mss().unwrap())
}

#[test]
fn tcp_hears_of_no_segment_longer_than_the_tunnel_takes_also_after_the_line_became_shorter() {
    let mut world = World::new().unwrap();
    let longer = |text: String| text.replace("mtu = 1420", "mtu = 1440");
    world.router.edit_config(longer).unwrap();
    world.enrol().unwrap();
    let v6 = format!("[{WEB_V6}]");

    for (line, tunnel) in [("1500", 1_440), ("1492", 1_432), ("1400", 1_340)] {
        let set = |netns: &Netns, link| {
            netns
                .run(&["ip", "link", "set", link, "mtu", line])
                .unwrap()
        };
        set(&world.lab.access, OBSERVED);
        set(&world.lab.router, "wan0");
        wait_until(&format!("the tunnel's MTU is {tunnel}"), SOON, || {
            Ok((world.router.status()?["tunnel"]["mtu"] == tunnel).then_some(()))
        })
        .unwrap();

        assert_eq!(heard(&world, WEB), [tunnel - 40; 2], "IPv4 on {line}");
        assert_eq!(heard(&world, &v6), [tunnel - 60; 2], "IPv6 on {line}");
    }
}
