//! How long a packet may be: what the router tells its gateway of its path, and what the gateway tells the internet.

use std::time::Duration;

use crate::rig::{INNER, INNER6, Pair, WEB, WEB6, packet};
use tunnel::Dropped;
use tunnel::agent::AgentEvent;
use tunnel::offload::VNET_BYTES;

const ICMP: u8 = 1;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A packet of the internet that may not be cut.
fn whole(len: usize) -> Vec<u8> {
    let mut packet = packet(WEB, INNER, len, 1);
    packet[6] = 0x40;
    packet
}

/// The next packet that the gateway writes to its TUN device.
fn told(pair: &mut Pair) -> Option<Vec<u8>> {
    let frame = pair.edge().poll_tun()?;
    Some(frame[VNET_BYTES..].to_vec())
}

/// A pair whose router has said that its path takes this much.
fn narrow(mtu: u16) -> Pair {
    let mut pair = Pair::connected();
    pair.agent.set_mtu(mtu, pair.now);
    pair.advance(ms(500));
    pair
}

#[test]
fn nobody_is_told_of_an_icmp_error_or_of_what_a_router_may_cut() {
    let mut pair = narrow(1_340);
    let mut error = whole(1_400);
    (error[9], error[20]) = (ICMP, 3);
    let may_be_cut = packet(WEB, INNER, 1_400, 1);

    for packet in [error, may_be_cut] {
        assert_eq!(pair.internet_sends(0, &packet), Err(Dropped::TooBig));
        assert_eq!(told(&mut pair), None);
    }
}

#[test]
fn a_flood_of_packets_that_are_too_long_gets_a_burst_of_answers() {
    let mut pair = narrow(1_340);

    let answered = (0..1_000)
        .filter(|_| {
            assert_eq!(pair.internet_sends(0, &whole(1_400)), Err(Dropped::TooBig));
            told(&mut pair).is_some()
        })
        .count();

    assert!((1..100).contains(&answered), "{answered}");
}

#[test]
fn a_gateway_tells_the_internet_what_the_routers_path_takes() {
    let mut pair = narrow(1_340);
    pair.internet_sends(0, &whole(1_340)).unwrap();
    assert_eq!(told(&mut pair), None);

    assert_eq!(pair.internet_sends(0, &whole(1_341)), Err(Dropped::TooBig));

    let icmp = told(&mut pair).unwrap();
    assert_eq!((icmp[9], icmp[20], icmp[21]), (ICMP, 3, 4));
    assert_eq!(icmp[26..28], 1_340_u16.to_be_bytes());
    let (web, home) = ([203, 0, 113, 10], [10, 64, 0, 7]);
    assert_eq!((&icmp[12..16], &icmp[16..20]), (&home[..], &web[..]));
    assert_eq!(icmp[28..48], whole(1_341)[..20]);
}

#[test]
fn a_gateway_tells_ipv6_too_and_a_path_that_widens_is_used_again() {
    let mut pair = narrow(1_340);
    let mut long = packet(WEB6, INNER6, 1_400, 1);
    long[6] = UDP;

    assert_eq!(pair.internet_sends(0, &long), Err(Dropped::TooBig));

    let icmp = told(&mut pair).unwrap();
    assert_eq!((icmp[6], icmp[40]), (ICMPV6, 2));
    assert_eq!(icmp[44..48], 1_340_u32.to_be_bytes());
    assert_eq!((&icmp[8..24], &icmp[24..40]), (&long[24..40], &long[8..24]));

    pair.agent.set_mtu(1_420, pair.now);
    pair.advance(ms(500));
    assert_eq!(pair.internet_sends(0, &long), Ok(()));
}

#[test]
fn a_router_that_claims_less_than_ipv6_needs_gets_ipv6s_least() {
    let mut pair = narrow(600);

    assert_eq!(pair.internet_sends(0, &whole(1_280)), Ok(()));
    assert_eq!(pair.internet_sends(0, &whole(1_281)), Err(Dropped::TooBig));
}

/// The home sends something small ten times a second.
fn work(pair: &mut Pair, seconds: u32) {
    for n in 0..seconds * 10 {
        _ = pair.home_sends(&packet(INNER, WEB, 100, n));
        pair.advance(ms(100));
    }
}

fn told_mtus(pair: &Pair) -> Vec<u16> {
    let mtu = |event: &AgentEvent| {
        let AgentEvent::PathMtu { mtu } = event else {
            return None;
        };
        Some(*mtu)
    };
    pair.agent_events.iter().filter_map(mtu).collect()
}

#[test]
fn a_path_on_which_long_packets_vanish_is_measured_and_both_sides_keep_to_it() {
    let mut pair = Pair::new();
    pair.hole = Some(1_400);
    pair.connect();

    work(&mut pair, 3);

    assert_eq!(told_mtus(&pair).last(), Some(&1_340));
    assert_eq!(
        pair.home_sends(&packet(INNER, WEB, 1_341, 1)),
        Err(Dropped::TooBig)
    );
    assert_eq!(pair.internet_sends(0, &whole(1_341)), Err(Dropped::TooBig));
    pair.at_home.clear();
    pair.internet_sends(0, &whole(1_340)).unwrap();
    pair.advance(ms(100));
    assert_eq!(pair.at_home.len(), 1);
}

#[test]
fn a_hole_that_opens_under_work_is_found_and_one_that_closes_is_forgotten() {
    let mut pair = Pair::connected();
    work(&mut pair, 10);
    assert_eq!(told_mtus(&pair), []);

    pair.hole = Some(1_400);
    work(&mut pair, 8);
    assert_eq!(told_mtus(&pair).last(), Some(&1_340));

    pair.hole = None;
    work(&mut pair, 130);
    assert_eq!(told_mtus(&pair).last(), Some(&1_420));
}

#[test]
fn an_outage_of_everything_shortens_no_packets() {
    let mut pair = Pair::connected();
    work(&mut pair, 3);

    pair.gateways[0].is_up = false;
    work(&mut pair, 30);
    pair.gateways[0].is_up = true;
    work(&mut pair, 10);

    assert_eq!(told_mtus(&pair), []);
}
