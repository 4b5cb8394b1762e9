use proptest::prelude::*;

use super::*;
use crate::proto::vectors::{dns_query, response_packet};

const TARGET: &str = "9.9.9.9:443";

fn policy() -> RelayPolicy {
    RelayPolicy {
        ports: vec![443, 8443],
        own: vec!["1.2.3.4:443".parse().unwrap()],
        behind: vec![
            ("5.5.0.0".parse().unwrap(), 16),
            ("2a00:1234::".parse().unwrap(), 48),
        ],
        reach: Reach::Global,
    }
}

fn target() -> SocketAddr {
    TARGET.parse().unwrap()
}

fn sealed_query() -> Vec<u8> {
    [&b"magic123"[..], &[7; 312]].concat()
}

fn cert_query(name: &str, qtype: RecordType) -> Vec<u8> {
    message::padded_query(7, name, qtype, 4096, 512).unwrap()
}

fn reason(target: &str, inner: &[u8]) -> Option<Dropped> {
    let packet = wrap(target.parse().unwrap(), inner);
    judge(&packet, &policy()).err()
}

#[test]
fn targets_that_are_not_hosts_of_the_internet_are_refused() {
    for ip in [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "169.254.1.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.9",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.7",
        "203.0.113.7",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "[::]",
        "[::1]",
        "[::7f00:1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:192.168.1.1]",
        "[64:ff9b::c0a8:101]",
        "[100::1]",
        "[2001::1]",
        "[2001:2::1]",
        "[2001:1ff:ffff::1]",
        "[2001:db8::1]",
        "[2002:c0a8:101::1]",
        "[3fff::1]",
        "[5f00::1]",
        "[fc00::1]",
        "[fd12::1]",
        "[fe80::1]",
        "[fec0::1]",
        "[ff02::1]",
    ] {
        let reason = reason(&format!("{ip}:443"), &sealed_query());
        assert_eq!(reason, Some(Dropped::RelayTarget), "{ip}");
    }
}

#[test]
fn hosts_of_the_internet_are_targets() {
    for ip in [
        "1.1.1.1",
        "9.9.9.9",
        "100.63.255.255",
        "100.128.0.1",
        "172.15.0.1",
        "172.32.0.1",
        "192.0.1.1",
        "198.17.0.1",
        "198.20.0.1",
        "223.255.255.1",
        "[2620:fe::fe]",
        "[2001:200::1]",
        "[2003::1]",
        "[3ffe::1]",
    ] {
        assert_eq!(reason(&format!("{ip}:443"), &sealed_query()), None, "{ip}");
    }
}

#[test]
fn hosts_behind_the_relay_are_no_targets_whatever_its_reach() {
    let any = RelayPolicy {
        reach: Reach::AnyForTests,
        ..policy()
    };
    for ip in [
        "5.5.0.0",
        "5.5.255.255",
        "[::ffff:5.5.1.1]",
        "[2a00:1234:0:ffff::1]",
    ] {
        let packet = wrap(format!("{ip}:443").parse().unwrap(), &sealed_query());
        for policy in [&policy(), &any] {
            assert_eq!(
                judge(&packet, policy).err(),
                Some(Dropped::RelayTarget),
                "{ip}"
            );
        }
    }
    for ip in ["5.4.255.255", "5.6.0.0", "[2a00:1234:1::1]"] {
        assert_eq!(reason(&format!("{ip}:443"), &sealed_query()), None, "{ip}");
    }
}

#[test]
fn ports_outside_the_policy_and_the_relay_itself_are_refused() {
    for port in [0, 53, 80, 444] {
        let reason = reason(&format!("9.9.9.9:{port}"), &sealed_query());
        assert_eq!(reason, Some(Dropped::RelayPort), "{port}");
    }
    assert_eq!(
        reason("1.2.3.4:443", &sealed_query()),
        Some(Dropped::RelayLoop)
    );
    assert_eq!(reason("1.2.3.4:8443", &sealed_query()), None);
}

#[test]
fn inner_queries_that_are_anonymized_or_look_like_quic_are_refused() {
    let twice = wrap(target(), &sealed_query());
    let eight = [&[0xff; 8][..], &[1; 100]].concat();
    let quic = [&[0; 7][..], &[1; 100]].concat();

    assert_eq!(reason(TARGET, &twice), Some(Dropped::RelayLoop));
    assert_eq!(reason(TARGET, &eight), Some(Dropped::RelayLoop));
    assert_eq!(reason(TARGET, &quic), Some(Dropped::RelayQuic));
    assert_eq!(reason(TARGET, &[7; 11]), Some(Dropped::TooShort));
    assert_eq!(reason(TARGET, &[7; 4097]), Some(Dropped::TooLong));
}

#[test]
fn queries_in_clear_for_anything_but_certificates_are_refused() {
    for query in [
        dns_query(),
        cert_query("2.dnscrypt-cert.example.com", RecordType::A),
        cert_query("dnscrypt-cert.example.com", RecordType::TXT),
        cert_query("12.dnscrypt-cert.example.com", RecordType::TXT),
    ] {
        assert_eq!(reason(TARGET, &query), Some(Dropped::RelayPlainQuery));
    }
    let mut chaos = cert_query("2.dnscrypt-cert.example.com", RecordType::TXT);
    let class_at = message::HEADER + message::Query::read(&chaos).unwrap().question().len() - 1;
    chaos[class_at] = 3;
    assert_eq!(reason(TARGET, &chaos), Some(Dropped::RelayPlainQuery));
}

#[test]
fn packets_cut_within_the_prefix_or_without_it_are_refused() {
    let packet = wrap(target(), &sealed_query());

    for len in 0..PREFIX {
        let outcome = judge(&packet[..len], &policy()).err();
        assert_eq!(outcome, Some(Dropped::TooShort));
    }
    for at in 0..10 {
        let mut other = packet.clone();
        other[at] ^= 1;
        assert!(!is_anonymized(&other));
        let outcome = judge(&other, &policy()).err();
        assert_eq!(outcome, Some(Dropped::UnknownMagic));
    }
}

#[test]
fn answers_from_elsewhere_too_large_or_of_another_kind_go_no_further() {
    let packet = wrap(target(), &sealed_query());
    let awaited = judge(&packet, &policy()).unwrap().awaited;
    let answer = response_packet(&[0; 12], 64);
    let long = [&answer[..], &[0; 300]].concat();
    let elsewhere = "9.9.9.9:444".parse().unwrap();

    let check = |from, answer: &[u8]| awaited.accepts(from, answer).err();

    assert_eq!(check(elsewhere, &answer), Some(Dropped::RelaySource));
    assert_eq!(check(target(), &long), Some(Dropped::TooLong));
    assert_eq!(check(target(), &answer[..60]), Some(Dropped::TooShort));
    assert_eq!(check(target(), &answer[1..]), Some(Dropped::UnknownMagic));
    assert_eq!(check(target(), &answer[..61]), None);
    assert_eq!(check(target(), &answer), None);
}

#[test]
fn a_certificate_answer_must_be_to_its_question_and_no_larger() {
    let query = cert_query("2.dnscrypt-cert.example.com", RecordType::TXT);
    let packet = wrap(target(), &query);
    let awaited = judge(&packet, &policy()).unwrap().awaited;
    let asked = message::Query::read(&query).unwrap();
    let answer = asked.answer_txt(&[&[7; 124]], 600);
    let long = asked.answer_txt(&[&[7; 500]], 600);
    let mut other_id = answer.clone();
    other_id[1] ^= 1;
    let mut other_name = answer.clone();
    other_name[40] ^= 1;

    let check = |answer: &[u8]| awaited.accepts(target(), answer).err();

    assert_eq!(check(&long), Some(Dropped::TooLong));
    assert_eq!(check(&other_id), Some(Dropped::WrongQuestion));
    assert_eq!(check(&other_name), Some(Dropped::WrongQuestion));
    assert_eq!(check(&query), Some(Dropped::NotAResponse));
    assert!(check(&response_packet(&[0; 12], 64)).is_some());
    assert_eq!(check(&answer), None);
}

#[test]
fn the_prefix_of_ipv4_is_its_mapped_address() {
    let packet = wrap("192.0.2.1:443".parse().unwrap(), b"inner");

    assert_eq!(
        hex::encode(packet),
        "ffffffffffffffff000000000000000000000000ffffc000020101bb696e6e6572"
    );
}

#[test]
fn what_is_forwarded_is_the_inner_query_unchanged() {
    for target in ["9.9.9.9:8443", "[2620:fe::fe]:443"] {
        let packet = wrap(target.parse().unwrap(), &sealed_query());
        let forward = judge(&packet, &policy()).unwrap();

        assert_eq!(forward.target, target.parse().unwrap());
        assert_eq!(forward.inner, sealed_query());
    }
}

#[test]
fn the_switch_for_tests_opens_addresses_and_nothing_else() {
    let open = RelayPolicy {
        reach: Reach::AnyForTests,
        own: vec!["127.0.0.1:443".parse().unwrap()],
        ..policy()
    };
    let judged =
        |target: &str, inner: &[u8]| judge(&wrap(target.parse().unwrap(), inner), &open).err();

    assert_eq!(Reach::default(), Reach::Global);
    assert_eq!(judged("127.0.0.2:443", &sealed_query()), None);
    assert_eq!(
        judged("127.0.0.2:53", &sealed_query()),
        Some(Dropped::RelayPort)
    );
    assert_eq!(
        judged("127.0.0.1:443", &sealed_query()),
        Some(Dropped::RelayLoop)
    );
    assert_eq!(
        judged("127.0.0.2:443", &dns_query()),
        Some(Dropped::RelayPlainQuery)
    );
}

proptest! {
    #[test]
    fn no_bytes_make_the_judge_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), inner in any::<bool>()) {
        let packet = if inner { wrap(target(), &bytes) } else { bytes.clone() };
        if let Ok(forward) = judge(&packet, &policy()) {
            let _ = forward.awaited.accepts(target(), &bytes);
        }
    }
}
