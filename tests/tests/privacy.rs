//! Who could know what: everything that the operators' machines hold is searched (memory of the processes, files, logs, all
//! packets), for the names that a home looked up and for the home. Each search is also shown to find what is there.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::net::IpAddr;
use std::path::Path;

use dnscrypt_proxy::proto::message;
use lab::{
    Abroad, Capture, HOME, Lab, Marker, Netns, Pop, Programs, ROUTER_WAN, ROUTER_WAN_V6, Running,
    Searched, WEB, World, ZONE_SERVER, read_lease,
};
use rand_core::{OsRng, RngCore as _};

const LOOKUPS: usize = 12;
/// The option of a query that tells a client's network (RFC 7871), and of which record it is (RFC 6891).
const CLIENT_SUBNET: u16 = 8;
const OPT: u16 = 41;

/// Labels that nobody has ever written.
fn labels(what: &str) -> Vec<String> {
    let label = |_| format!("{what}{:016x}", OsRng.next_u64());
    (0..LOOKUPS).map(label).collect()
}

fn texts(labels: &[String]) -> Vec<Marker> {
    labels.iter().map(|label| Marker::text(label)).collect()
}

fn look_up(world: &World, labels: &[String]) {
    for (n, label) in labels.iter().enumerate() {
        let name = format!("{label}.wild.first-light.lab");
        let over = ["+notcp", "+tcp"][n % 2];
        let answer = world.dig(&[over, &name, "A"]).unwrap();
        assert!(answer.contains(WEB), "{answer}");
    }
}

/// The home in every form: its keys, its addresses in the tunnel and outside.
fn who(world: &World) -> Vec<Marker> {
    let db = world.office.data().join("culvert.db");
    let lease = "SELECT hex(statement) FROM lease";
    let db = db.to_string_lossy();
    let sqlite = ["sqlite3", "-cmd", ".timeout 5000", db.as_ref(), lease];
    let said = world.lab.office.run(&sqlite).unwrap();
    let digits = said.trim().as_bytes();
    let digit = |at: usize| char::from(digits[at]).to_digit(16).unwrap();
    let statement: Vec<u8> = (0..digits.len() / 2)
        .map(|n| u8::try_from(digit(2 * n) * 16 + digit(2 * n + 1)).unwrap())
        .collect();
    let lease = read_lease(&statement).unwrap();
    let mut markers = vec![
        Marker::key("the router's WireGuard key", &lease.wg_pub),
        Marker::key("the device", &lease.devid_hash),
    ];
    let inner = lease.addresses.iter().map(|network| network.to_string());
    let inner = inner.map(|text| text.split('/').next().unwrap().to_owned());
    let outer = [HOME, "fd01::10", ROUTER_WAN, ROUTER_WAN_V6].map(str::to_owned);
    for text in inner.chain(outer) {
        match text.parse().unwrap() {
            IpAddr::V4(v4) => {
                markers.push(Marker::bytes(&format!("{v4}"), &v4.octets()));
                markers.push(Marker::bytes(&format!("{v4} in words"), text.as_bytes()));
            }
            IpAddr::V6(v6) => {
                markers.push(Marker::bytes(&format!("{v6}"), &v6.octets()));
                markers.push(Marker::bytes(&format!("{v6} in words"), text.as_bytes()));
            }
        }
    }
    markers
}

/// Everything that a gateway's operator has: the process, its folder, its log, what was captured.
fn search(pop: &Pop, gateway: &Running, capture: &Path, markers: &[Marker]) -> Searched {
    let mut searched = Searched::default();
    searched.memory(gateway.pid(), markers).unwrap();
    searched.files(&pop.state_dir(), markers).unwrap();
    searched.files(gateway.log_path(), markers).unwrap();
    searched.files(capture, markers).unwrap();
    assert!(
        searched.bytes > 1 << 20,
        "too little to have searched anything"
    );
    searched
}

fn capture(lab: &Lab, netns: &Netns) -> Capture {
    Capture::start(lab, netns, "any", "").unwrap()
}

#[test]
fn the_relays_operator_holds_no_name_and_the_resolvers_no_subscriber() {
    let (abroad, mut world) = Abroad::before_home().unwrap();
    let at_relay = capture(&world.lab, &world.lab.pop);
    let at_resolver = capture(&world.lab, &world.lab.pop2);
    world.enrol().unwrap();
    let names = labels("sealed");

    look_up(&world, &names);

    // Something to be found, so that the search is shown to find: looked up at the relay's own resolver, as one could without
    // an anonymized route.
    let planted = labels("planted");
    let program = Programs::of_this_build().unwrap().dns();
    let program = program.to_string_lossy().into_owned();
    for label in &planted {
        let name = format!("{label}.wild.first-light.lab");
        let query = [&program, "query", &name, "--stamp", &world.pop.stamp];
        assert!(world.lab.home.run(&query).unwrap().contains(WEB));
    }
    let relay = world.gateway.as_ref().unwrap();
    let who = who(&world);
    let [at_relay, at_resolver] =
        [at_relay, at_resolver].map(|capture| capture.finish("127.0.0.1").unwrap());

    let names_at_relay = search(&world.pop, relay, &at_relay, &texts(&names));
    assert_eq!(
        names_at_relay.findings,
        [],
        "the relay's operator knows a name"
    );
    let who_at_resolver = search(&abroad.pop, &abroad.gateway, &at_resolver, &who);
    assert_eq!(
        who_at_resolver.findings,
        [],
        "the resolver's operator knows the subscriber"
    );

    // And what either may know is found by the same search.
    let planted_at_relay = search(&world.pop, relay, &at_relay, &texts(&planted));
    let is_in = |searched: &Searched, place: &str| {
        searched
            .findings
            .iter()
            .any(|finding| finding.place.contains(place))
    };
    assert!(is_in(&planted_at_relay, "process"), "{planted_at_relay:?}");
    assert!(is_in(&planted_at_relay, ".pcap"), "{planted_at_relay:?}");
    // Its leases are in its folder, and its log has its own words.
    let state = format!("{}/", world.pop.state_dir().display());
    let who_at_relay = search(&world.pop, relay, &at_relay, &who);
    for place in ["process", ".pcap", &state] {
        assert!(is_in(&who_at_relay, place), "{place}: {who_at_relay:?}");
    }
    let log = relay.log_path().display().to_string();
    let words = [Marker::text("gateway running")];
    let words_at_relay = search(&world.pop, relay, &at_relay, &words);
    assert!(is_in(&words_at_relay, &log), "{words_at_relay:?}");
    let names_at_resolver = search(&abroad.pop, &abroad.gateway, &at_resolver, &texts(&names));
    for place in ["process", ".pcap"] {
        assert!(is_in(&names_at_resolver, place), "{names_at_resolver:?}");
    }
}

#[test]
fn upstream_of_the_edge_nothing_tells_the_subscriber_and_before_it_nothing_tells_a_name() {
    let mut world = World::new().unwrap();
    let lab = &world.lab;
    let only_dns = "port 53 or udp port 9";
    let upstream = Capture::start(lab, &lab.pop, "inet0", only_dns).unwrap();
    let before = Capture::start(lab, &lab.access, "any", "").unwrap();
    world.enrol().unwrap();
    let names = labels("upstream");

    look_up(&world, &names);

    // What would tell: a query with a client's network in it, from the gateway's machine itself.
    let upstream = upstream.finish(WEB).unwrap();
    let tells = Capture::start(&world.lab, &world.lab.pop, "inet0", only_dns).unwrap();
    let server = format!("@{ZONE_SERVER}");
    let dig = [
        "dig",
        &server,
        "+subnet=198.18.0.2/32",
        "www.first-light.lab",
        "A",
    ];
    world.lab.pop.run(&dig).unwrap();
    let tells = tells.finish(WEB).unwrap();
    let before = before.finish("127.0.0.1").unwrap();
    let who = who(&world);
    let searched = |file: &Path, markers: &[Marker]| {
        let mut searched = Searched::default();
        searched.files(file, markers).unwrap();
        searched.findings
    };

    assert_eq!(
        searched(&upstream, &who),
        [],
        "the subscriber shows upstream"
    );
    assert_eq!(client_subnets(&upstream), 0);
    assert_eq!(
        searched(&before, &texts(&names)),
        [],
        "a name shows before the edge"
    );
    // The same search finds the names where they are in clear, the home where it is, and the network where it is told.
    assert_eq!(searched(&upstream, &texts(&names)).len(), LOOKUPS);
    assert!(!searched(&before, &who).is_empty());
    assert_eq!(client_subnets(&tells), 1);
    assert!(!searched(&tells, &who).is_empty());
}

/// Queries over UDP in a capture of Ethernet that tell a client's network.
fn client_subnets(capture: &Path) -> usize {
    let file = std::fs::read(capture).unwrap();
    let frames = lab::frames(&file).unwrap();
    let mut queries = 0;
    let mut told = 0;
    for frame in frames {
        let Some(payload) = dns_over_udp(&frame) else {
            continue;
        };
        queries += 1;
        told += usize::from(tells_client_subnet(payload));
    }
    assert!(queries > 0, "no lookup at all");
    told
}

/// What a datagram to port 53 carries; neither IPv4 options nor extension headers occur here.
fn dns_over_udp(frame: &[u8]) -> Option<&[u8]> {
    let packet = frame.get(14..)?;
    let (protocol, datagram) = match packet.first()? >> 4 {
        4 => (packet.get(9)?, packet.get(20..)?),
        _ => (packet.get(6)?, packet.get(40..)?),
    };
    let port = datagram.get(2..4)?;
    (*protocol == 17 && port == [0, 53])
        .then(|| datagram.get(8..))
        .flatten()
}

fn tells_client_subnet(query: &[u8]) -> bool {
    let Ok(read) = message::Query::read(query) else {
        return false;
    };
    let mut rest = &query[message::HEADER + read.question().len()..];
    // Queries of resolvers have no other record: name of one byte, type, size, flags, length.
    while let [0, high, low, _, _, _, _, _, _, long, len, more @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*long, *len]));
        let (mut options, after) = more.split_at_checked(len).unwrap_or((more, &[]));
        while let [high_code, low_code, high_len, low_len, value @ ..] = options {
            if u16::from_be_bytes([*high, *low]) == OPT
                && u16::from_be_bytes([*high_code, *low_code]) == CLIENT_SUBNET
            {
                return true;
            }
            let len = usize::from(u16::from_be_bytes([*high_len, *low_len]));
            options = value.get(len..).unwrap_or_default();
        }
        rest = after;
    }
    false
}
