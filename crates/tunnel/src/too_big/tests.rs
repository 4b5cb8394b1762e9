use proptest::prelude::*;

use super::*;
use crate::packet::tests::ip_packet;

const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 1);
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd64, 0, 0, 0, 0, 0, 0, 1);

fn answers(now: Instant) -> TooBig {
    TooBig::new(GATEWAY_V4, GATEWAY_V6, now)
}

fn v4(source: &str, protocol: u8, kind: u8, flags: [u8; 2]) -> Vec<u8> {
    let mut packet = ip_packet(source.parse().unwrap(), [10, 64, 0, 7].into(), 1_420);
    packet[6..8].copy_from_slice(&flags);
    packet[9] = protocol;
    packet[20] = kind;
    packet
}

fn v6(source: &str, next: u8, body: &[u8]) -> Vec<u8> {
    let to = "fd64::7".parse().unwrap();
    let mut packet = ip_packet(source.parse().unwrap(), to, 1_420);
    packet[6] = next;
    packet[40..40 + body.len()].copy_from_slice(body);
    packet
}

const DO_NOT_CUT: [u8; 2] = [0x40, 0];
const WEB: &str = "203.0.113.10";
const WEB_V6: &str = "2001:db8:f::10";

#[test]
fn nobody_is_told_about_an_error_a_later_fragment_or_a_source_that_is_not_one_machine() {
    let now = Instant::now();
    let silent = [
        v4(WEB, 17, 0, [0, 0]),
        v4(WEB, 17, 0, [0x40, 1]),
        v4(WEB, 17, 0, [0x41, 0]),
        v4(WEB, ICMP, DESTINATION_UNREACHABLE, DO_NOT_CUT),
        v4(WEB, ICMP, 11, DO_NOT_CUT),
        v4(WEB, ICMP, 5, DO_NOT_CUT),
        v4("0.0.0.0", 17, 0, DO_NOT_CUT),
        v4("127.0.0.1", 17, 0, DO_NOT_CUT),
        v4("224.0.0.1", 17, 0, DO_NOT_CUT),
        v4("255.255.255.255", 17, 0, DO_NOT_CUT),
        v6("::", 17, &[]),
        v6("ff02::1", 17, &[]),
        v6(WEB_V6, ICMPV6, &[PACKET_TOO_BIG]),
        v6(WEB_V6, 0, &[ICMPV6, 0, 0, 0, 0, 0, 0, 0, 1]),
        v6(WEB_V6, 44, &[17, 0, 0, 8, 0, 0, 0, 1]),
        v6(WEB_V6, 60, &[60; 200]),
        vec![0x45; 19],
        vec![],
    ];

    for packet in silent {
        assert_eq!(
            answers(now).answer(&packet, 1_340, now),
            None,
            "{:02x?}",
            packet.get(..48)
        );
    }
}

#[test]
fn a_flood_gets_a_burst_of_answers_and_then_a_hundred_a_second() {
    let start = Instant::now();
    let mut too_big = answers(start);
    let packet = v4(WEB, 17, 0, DO_NOT_CUT);
    let mut flood = |from: u64, milliseconds: u64| {
        let times = (from..from + milliseconds).map(|ms| start + Duration::from_millis(ms));
        times
            .flat_map(|now| [now; 10])
            .filter(|now| too_big.answer(&packet, 1_340, *now).is_some())
            .count()
    };

    assert_eq!(flood(0, 10), BURST as usize);
    assert!((95..=101).contains(&flood(10, 1_000)));
}

/// The sum over what a checksum covers, its own field included, is all ones.
fn is_summed_right(parts: &[&[u8]]) -> bool {
    let sum = parts.iter().fold(0, |sum, part| checksum::add(sum, part));
    checksum::fold(sum) == 0xffff
}

#[test]
fn an_ipv4_sender_is_told_the_mtu_with_as_much_of_its_packet_as_fits() {
    let now = Instant::now();
    let packet = v4(WEB, 6, 0, DO_NOT_CUT);

    let mut too_big = answers(now);
    let answer = too_big.answer(&packet, 1_340, now).unwrap();

    let header = packet::parse(answer).unwrap();
    assert_eq!(header.source, GATEWAY_V4);
    assert_eq!(header.destination, WEB.parse::<IpAddr>().unwrap());
    assert_eq!((answer.len(), header.len), (576, 576));
    assert_eq!((answer[9], answer[20], answer[21]), (1, 3, 4));
    assert_eq!(answer[26..28], 1_340_u16.to_be_bytes());
    assert_eq!(answer[28..], packet[..548]);
    assert!(is_summed_right(&[&answer[..20]]) && is_summed_right(&[&answer[20..]]));
}

#[test]
fn an_ipv6_sender_is_told_no_mtu_below_the_least() {
    let now = Instant::now();
    let packet = v6(WEB_V6, 44, &[ICMPV6, 0, 0, 1, 0, 0, 0, 1, 128]);

    for (mtu, told) in [(1_340, 1_340_u16), (1_200, 1_280)] {
        let mut too_big = answers(now);
        let answer = too_big.answer(&packet, mtu, now).unwrap();

        let header = packet::parse(answer).unwrap();
        assert_eq!(header.source, GATEWAY_V6);
        assert_eq!(header.destination, WEB_V6.parse::<IpAddr>().unwrap());
        assert_eq!((answer.len(), header.len), (1_280, 1_280));
        assert_eq!((answer[6], answer[40], answer[41]), (58, 2, 0));
        assert_eq!(answer[44..48], u32::from(told).to_be_bytes());
        assert_eq!(answer[48..], packet[..1_232]);
        let length = 1_240_u32.to_be_bytes();
        assert!(is_summed_right(&[
            &answer[8..40],
            &length,
            &[0, 0, 0, 58],
            &answer[40..]
        ]));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_answer_longer_than_allowed(bytes in proptest::collection::vec(any::<u8>(), 0..200), mtu: u16) {
        let now = Instant::now();
        if let Some(answer) = answers(now).answer(&bytes, mtu, now) {
            prop_assert!(answer.len() <= MAX_BYTES);
            prop_assert!(packet::parse(answer).is_ok());
        }
    }
}
