use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use hickory_proto::rr::Name;

use super::*;
use crate::config::DnsZone;

mod ahead;
mod dns64;
mod ranges;
mod zones;

const WEB: &str = "203.0.113.10";

/// nsd on a loopback port with a signed root, a signed zone, an unsigned one and a wrongly signed one.
struct Internet {
    dir: tempfile::TempDir,
    address: SocketAddr,
    nsd: Child,
}

impl Drop for Internet {
    fn drop(&mut self) {
        let _already_gone = self.nsd.kill();
        let _status = self.nsd.wait();
    }
}

impl Internet {
    fn start() -> Self {
        Self::start_behind(Ipv4Addr::LOCALHOST.into())
    }

    /// The same with an address that all servers have, as the zones say.
    fn start_behind(servers: IpAddr) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        let behind = |text: &str| text.replace("127.0.0.1", &servers.to_string());
        let lab_ds = sign(path, "lab.", &behind(&zone("lab.", &long_text())));
        let wrong_ds = sign(path, "bogus.", &behind(&zone("bogus.", "")));
        sign(path, "bogus.", &behind(&zone("bogus.", "")));
        fs::write(path.join("plain.zone"), behind(&zone("plain.", ""))).unwrap();
        let children: String = ["lab.", "plain.", "bogus."]
            .map(|child| format!("{child} IN NS ns.{child}\nns.{child} IN A 127.0.0.1\n"))
            .concat();
        let root = format!(
            "$TTL 300\n. IN SOA ns. host. 1 3600 600 86400 60\n. IN NS ns.\nns. IN A 127.0.0.1\n\
             10.113.0.203.in-addr.arpa. IN PTR www.lab.\n{children}{lab_ds}{wrong_ds}"
        );
        sign(path, ".", &behind(&root));
        let address = UdpSocket::bind("127.0.0.77:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let nsd = start_nsd(path, address, &[".", "lab.", "plain.", "bogus."]);
        let internet = Self { dir, address, nsd };
        internet.wait();
        internet
    }

    fn resolver(&self, dnssec: bool) -> Resolver {
        self.resolver_with(dnssec, &[])
    }

    fn resolver_with(&self, dnssec: bool, zones: &[DnsZone]) -> Resolver {
        Resolver::new(&config::Dns {
            dnssec,
            zones: zones.to_vec(),
            trust_anchor_file: Some(self.dir.path().join("root.key")),
            ..config::Dns::forwarding_to(self.address)
        })
        .unwrap()
    }

    /// Asks for the root's SOA until nsd answers; the socket's own timeout paces it.
    fn wait(&self) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let query = query(".", RecordType::SOA).to_vec().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            // A refused port shows as an error of the next call and means: not yet.
            let _sent = socket.send_to(&query, self.address);
            if socket.recv(&mut [0; 512]).is_ok() {
                return;
            }
        }
        panic!("nsd did not answer on {}", self.address);
    }
}

fn start_nsd(dir: &Path, address: SocketAddr, zones: &[&str]) -> Child {
    let zone = |name: &&str| {
        let stem = if *name == "." { "root." } else { name };
        let file = dir.join(format!("{stem}zone"));
        let file = file.display();
        format!("zone:\n  name: \"{name}\"\n  zonefile: \"{file}\"\n")
    };
    let zones: String = zones.iter().map(zone).collect();
    let dir = dir.display();
    let config = format!(
        "server:\n  ip-address: {}@{}\n  server-count: 1\n  username: \"\"\n  chroot: \"\"\n\
         \x20 zonesdir: \"\"\n  database: \"\"\n  pidfile: \"{dir}/pid\"\n  xfrdfile: \"{dir}/xfrd\"\n\
         \x20 zonelistfile: \"{dir}/list\"\n  xfrdir: \"{dir}\"\nremote-control:\n  control-enable: no\n{zones}",
        address.ip(),
        address.port()
    );
    let file = format!("{dir}/nsd.conf");
    fs::write(&file, config).unwrap();
    Command::new("nsd")
        .args(["-d", "-c", &file])
        .stderr(Stdio::null())
        .spawn()
        .expect("nsd starts (Debian package nsd)")
}

fn zone(name: &str, records: &str) -> String {
    format!(
        "$TTL 300\n{name} IN SOA ns.{name} host.{name} 1 3600 600 86400 60\n{name} IN NS ns.{name}\n\
         ns.{name} IN A 127.0.0.1\nwww.{name} IN A {WEB}\n{records}"
    )
}

fn long_text() -> String {
    let text = "x".repeat(200);
    let texts: String = (0..12).map(|n| format!(" \"{n}{text}\"")).collect();
    format!(
        "big.lab. IN TXT{texts}\nalias.lab. IN CNAME www.plain.\n*.wild.lab. IN A {WEB}\n\
             six.lab. IN AAAA 2001:db8::6\nmapped.lab. IN AAAA ::ffff:192.0.2.1\nmapped.lab. IN A {WEB}\n"
    )
}

/// Signs a zone with a new key and gives the DS record for its parent.
fn sign(dir: &Path, name: &str, text: &str) -> String {
    let stem = if name == "." { "root." } else { name };
    let unsigned = dir.join(format!("{stem}unsigned"));
    fs::write(&unsigned, text).unwrap();
    let key = tool(dir, "ldns-keygen", &["-a", "ECDSAP256SHA256", "-k", name]);
    let key = key.trim();
    let out = format!("{stem}zone");
    tool(
        dir,
        "ldns-signzone",
        &["-f", &out, unsigned.to_str().unwrap(), key],
    );
    fs::copy(
        dir.join(format!("{key}.key")),
        dir.join(format!("{stem}key")),
    )
    .unwrap();
    let ds = fs::read_to_string(dir.join(format!("{key}.ds"))).unwrap();
    format!("{}\n", ds.split(';').next().unwrap().trim())
}

fn tool(dir: &Path, program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).current_dir(dir).output();
    let output = output.expect("ldns's tools start (Debian package ldnsutils)");
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn query(name: &str, record_type: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), record_type));
    let mut edns = Edns::new();
    edns.set_dnssec_ok(true);
    message.set_edns(edns);
    message
}

async fn ask(resolver: &Resolver, query: &Message) -> (Message, Outcome) {
    let (answer, outcome) = resolver
        .answer(&query.to_vec().unwrap(), Asking::Anyhow)
        .await;
    (
        Message::from_vec(&answer.expect("a query has an answer")).unwrap(),
        outcome,
    )
}

fn addresses(message: &Message) -> Vec<String> {
    message
        .answers
        .iter()
        .filter(|record| record.record_type() == RecordType::A)
        .map(|record| record.data.to_string())
        .collect()
}

#[tokio::test]
async fn wrong_signatures_are_refused_and_right_ones_marked() {
    let internet = Internet::start();
    let resolver = internet.resolver(true);

    let (bogus, outcome) = ask(&resolver, &query("www.bogus.", RecordType::A)).await;
    assert_eq!(outcome, Outcome::Bogus);
    assert_eq!(bogus.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(bogus.answers.len(), 0);

    let (signed, _) = ask(&resolver, &query("www.lab.", RecordType::A)).await;
    assert_eq!(addresses(&signed), [WEB]);
    assert!(signed.metadata.authentic_data);

    let (plain, _) = ask(&resolver, &query("www.plain.", RecordType::A)).await;
    assert_eq!(addresses(&plain), [WEB]);
    assert!(
        !plain.metadata.authentic_data,
        "an unsigned zone proves nothing"
    );
}

#[tokio::test]
async fn with_validation_off_nothing_is_marked_as_proven() {
    let internet = Internet::start();
    let resolver = internet.resolver(false);

    let (answer, outcome) = ask(&resolver, &query("www.bogus.", RecordType::A)).await;

    assert_eq!(outcome, Outcome::Answered);
    assert!(!answer.metadata.authentic_data);
}

#[tokio::test]
async fn absence_aliases_and_answers_too_big_for_a_datagram_come_through() {
    let internet = Internet::start();
    let resolver = internet.resolver(true);

    let (absent, outcome) = ask(&resolver, &query("nothing.lab.", RecordType::A)).await;
    assert_eq!(
        (absent.metadata.response_code, outcome),
        (ResponseCode::NXDomain, Outcome::Answered)
    );
    let (no_data, _) = ask(&resolver, &query("www.lab.", RecordType::MX)).await;
    assert_eq!(no_data.metadata.response_code, ResponseCode::NoError);
    assert!(
        no_data
            .authorities
            .iter()
            .any(|record| record.record_type() == RecordType::SOA)
    );

    let (alias, _) = ask(&resolver, &query("alias.lab.", RecordType::A)).await;
    assert_eq!(addresses(&alias), [WEB]);
    let (big, _) = ask(&resolver, &query("big.lab.", RecordType::TXT)).await;
    assert_eq!(
        big.answers
            .iter()
            .filter(|r| r.record_type() == RecordType::TXT)
            .count(),
        1
    );
    assert!(big.to_vec().unwrap().len() > 2_000);
}

#[tokio::test]
async fn a_name_made_from_a_signed_wildcard_is_answered_and_marked() {
    let internet = Internet::start();
    let resolver = internet.resolver(true);

    for made in ["any.wild.lab.", "a.b.wild.lab."] {
        let (answer, outcome) = ask(&resolver, &query(made, RecordType::A)).await;
        assert_eq!(outcome, Outcome::Answered, "{made}");
        assert_eq!(addresses(&answer), [WEB], "{made}");
        assert!(answer.metadata.authentic_data, "{made}");
    }
}

#[tokio::test]
async fn a_client_that_did_not_ask_for_dnssec_records_gets_none() {
    let internet = Internet::start();
    let resolver = internet.resolver(true);
    let mut plain = query("www.lab.", RecordType::A);
    plain.edns = None;

    let (answer, _) = ask(&resolver, &plain).await;

    assert_eq!(answer.answers.len(), 1);
    assert!(!answer.metadata.authentic_data);
}

#[tokio::test]
async fn a_name_comes_back_as_it_was_asked_and_not_as_it_went_upstream() {
    let internet = Internet::start();
    let resolver = internet.resolver(true);

    for spelled in ["www.lab.", "WWW.lab.", "wWw.LaB."] {
        let (answer, _) = ask(&resolver, &query(spelled, RecordType::A)).await;
        let owners = answer.answers.iter().map(|record| record.name.to_ascii());
        assert!(owners.into_iter().all(|owner| owner == spelled), "{answer}");
    }
}

#[tokio::test]
async fn questions_that_are_not_served_never_go_upstream() {
    let unreachable = config::Dns::forwarding_to("127.0.0.77:1".parse().unwrap());
    let resolver = Resolver::new(&unreachable).unwrap();

    for kind in [RecordType::ANY, RecordType::AXFR] {
        let (answer, outcome) = ask(&resolver, &query("www.lab.", kind)).await;
        assert_eq!(outcome, Outcome::Refused);
        assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
    }
    let mut update = query("www.lab.", RecordType::A);
    update.metadata.op_code = OpCode::Update;
    assert_eq!(
        ask(&resolver, &update).await.0.metadata.response_code,
        ResponseCode::NotImp
    );

    let response = Message::response(7, OpCode::Query).to_vec().unwrap();
    for not_a_query in [&response[..], b"", b"\0\x01", &[0xff; 64]] {
        assert_eq!(
            resolver.answer(not_a_query, Asking::Anyhow).await,
            (None, Outcome::Malformed)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_forwarder_is_a_servfail_in_bounded_time() {
    let silent = UdpSocket::bind("127.0.0.77:0").unwrap();
    let resolver =
        Resolver::new(&config::Dns::forwarding_to(silent.local_addr().unwrap())).unwrap();
    let start = tokio::time::Instant::now();

    let (answer, outcome) = ask(&resolver, &query("www.lab.", RecordType::A)).await;

    assert_eq!(
        (answer.metadata.response_code, outcome),
        (ResponseCode::ServFail, Outcome::Failed)
    );
    assert!(start.elapsed() <= LOOKUP_TIMEOUT + Duration::from_secs(1));
}

#[tokio::test]
async fn a_failure_that_a_forwarder_states_is_told_apart_from_silence() {
    let (forwarder, by_tcp) = udp_and_tcp();
    let resolver = Resolver::new(&config::Dns {
        dnssec: true,
        ..config::Dns::forwarding_to(forwarder.local_addr().unwrap())
    })
    .unwrap();
    // It ends with the test's process.
    let _answering = std::thread::spawn(move || {
        let _refusing = by_tcp;
        let mut packet = [0; 1500];
        while let Ok((len, from)) = forwarder.recv_from(&mut packet) {
            packet[2..4].copy_from_slice(&[0x81, 0x82]);
            let _sent = forwarder.send_to(&packet[..len], from);
        }
    });

    let (answer, outcome) = ask(&resolver, &query("www.lab.", RecordType::A)).await;

    assert_eq!(
        (answer.metadata.response_code, outcome),
        (ResponseCode::ServFail, Outcome::Declined)
    );
}

/// Nobody takes what comes to the second one.
fn udp_and_tcp() -> (UdpSocket, std::net::TcpListener) {
    let udp = UdpSocket::bind("127.0.0.77:0").unwrap();
    let tcp = std::net::TcpListener::bind(udp.local_addr().unwrap()).unwrap();
    (udp, tcp)
}
