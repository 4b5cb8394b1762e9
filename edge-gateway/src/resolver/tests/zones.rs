//! Zones with resolvers of their own: another nsd, which says other things about `plain.` than the internet does, or a
//! socket, which says nothing.

use super::*;

const INSIDE: &str = "10.1.2.80";

/// nsd with `plain.` as it is inside.
fn inside() -> Internet {
    let dir = tempfile::tempdir().unwrap();
    let zone = format!(
        "$TTL 300\nplain. IN SOA ns.plain. host.plain. 1 3600 600 86400 60\nplain. IN NS ns.plain.\n\
         ns.plain. IN A 127.0.0.1\nwww.plain. IN A {INSIDE}\nhost.plain. IN A {INSIDE}\n\
         near.plain. IN CNAME host.plain.\nout.plain. IN CNAME www.lab.\n"
    );
    fs::write(dir.path().join("plain.zone"), zone).unwrap();
    let address = UdpSocket::bind("127.0.0.78:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let nsd = start_nsd(dir.path(), address, &["plain."]);
    let inside = Internet { dir, address, nsd };
    inside.wait();
    inside
}

/// Takes whatever comes, and answers nothing.
fn silent() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.79:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn was_asked(socket: &UdpSocket) -> bool {
    socket.recv(&mut [0; 512]).is_ok()
}

fn rule(name: &str, resolver: SocketAddr, dnssec: bool) -> DnsZone {
    DnsZone {
        name: Name::from_ascii(name).unwrap(),
        forward: vec![resolver],
        dnssec,
    }
}

#[tokio::test(start_paused = true)]
async fn silence_of_a_zones_resolvers_sends_nobody_to_others() {
    let (others, others_at) = silent();
    let (own, own_at) = silent();
    for upstream in [
        Upstream::Forward(vec![others_at]),
        Upstream::Recurse(vec![others_at.ip()]),
    ] {
        let resolver = Resolver::new(&config::Dns {
            upstream,
            zones: vec![rule("plain.", own_at, false)],
            ..config::Dns::forwarding_to(others_at)
        })
        .unwrap();

        for name in ["plain.", "www.plain.", "a.b.PLAIN."] {
            let (answer, outcome) = ask(&resolver, &query(name, RecordType::A)).await;
            assert_eq!(outcome, Outcome::Failed, "{name}");
            assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
            assert!(was_asked(&own), "{name}");
        }
        assert!(!was_asked(&others));
    }
}

#[tokio::test]
async fn what_a_zones_resolvers_deny_is_asked_of_nobody_else() {
    let inside = inside();
    let (others, others_at) = silent();
    let resolver = Resolver::new(&config::Dns {
        zones: vec![rule("plain.", inside.address, false)],
        ..config::Dns::forwarding_to(others_at)
    })
    .unwrap();

    let (absent, outcome) = ask(&resolver, &query("nothing.plain.", RecordType::A)).await;

    assert_eq!(outcome, Outcome::Answered);
    assert_eq!(absent.metadata.response_code, ResponseCode::NXDomain);
    assert!(!was_asked(&others));
}

#[tokio::test]
async fn names_of_a_zone_are_as_its_resolvers_say_in_both_modes() {
    let inside = inside();
    let (others, others_at) = silent();
    for upstream in [
        Upstream::Forward(vec![others_at]),
        Upstream::Recurse(vec![others_at.ip()]),
    ] {
        let resolver = Resolver::new(&config::Dns {
            upstream,
            dnssec: true,
            zones: vec![rule("plain.", inside.address, false)],
            ..config::Dns::forwarding_to(others_at)
        })
        .unwrap();

        for name in ["www.plain.", "near.plain."] {
            let (answer, _) = ask(&resolver, &query(name, RecordType::A)).await;
            assert_eq!(addresses(&answer), [INSIDE], "{name}");
            assert!(!answer.metadata.authentic_data, "nothing was proven");
        }
        assert!(!was_asked(&others));
    }
}

#[tokio::test]
async fn a_zone_that_is_to_be_validated_is_and_one_that_is_not_is_not() {
    let internet = Internet::start();
    for gateways in [true, false] {
        let validated = internet.resolver_with(
            gateways,
            &[
                rule("bogus.", internet.address, true),
                rule("lab.", internet.address, true),
            ],
        );
        let (bogus, outcome) = ask(&validated, &query("www.bogus.", RecordType::A)).await;
        assert_eq!(outcome, Outcome::Bogus);
        assert_eq!(bogus.answers.len(), 0);
        let (signed, _) = ask(&validated, &query("www.lab.", RecordType::A)).await;
        assert_eq!(addresses(&signed), [WEB]);
        assert!(signed.metadata.authentic_data);

        let trusted = internet.resolver_with(gateways, &[rule("bogus.", internet.address, false)]);
        let (answer, outcome) = ask(&trusted, &query("www.bogus.", RecordType::A)).await;
        assert_eq!(outcome, Outcome::Answered);
        assert_eq!(addresses(&answer), [WEB]);
        assert!(!answer.metadata.authentic_data);
    }
}

#[tokio::test]
async fn an_alias_into_a_zone_is_followed_by_the_zones_resolvers_alone() {
    let (internet, inside) = (Internet::start(), inside());
    for dnssec in [true, false] {
        let resolver = internet.resolver_with(dnssec, &[rule("plain.", inside.address, false)]);

        let (answer, outcome) = ask(&resolver, &query("alias.lab.", RecordType::A)).await;

        assert_eq!(outcome, Outcome::Answered);
        assert_eq!(
            addresses(&answer),
            [INSIDE],
            "not {WEB}, as the internet says"
        );
        assert!(
            answer
                .answers
                .iter()
                .any(|it| it.record_type() == RecordType::CNAME)
        );
        assert!(!answer.metadata.authentic_data);
    }
}

#[tokio::test]
async fn an_alias_out_of_a_zone_is_followed_by_the_resolvers_of_the_rest() {
    let (internet, inside) = (Internet::start(), inside());
    let resolver = internet.resolver_with(true, &[rule("plain.", inside.address, false)]);

    let (answer, _) = ask(&resolver, &query("out.plain.", RecordType::A)).await;

    assert_eq!(addresses(&answer), [WEB]);
    assert!(!answer.metadata.authentic_data, "the alias was not proven");
}
