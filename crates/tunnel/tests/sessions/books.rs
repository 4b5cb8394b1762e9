//! The gateway's books: what its TUN device counts and what its leases count differ by what is written down, to the byte.

use std::num::NonZeroU64;
use std::time::Duration;

use proptest::prelude::*;

use crate::rig::{INNER, INNER6, Pair, WEB, WEB6, key, lease, packet, public};
use tunnel::Psk;
use tunnel::edge::PeerConfig;
use tunnel::rate::Rates;

/// A frame that stands for TCP segments of `segment` bytes of payload, `len` bytes of IP packet long.
fn super_packet(to: &str, len: usize, segment: u16) -> Vec<u8> {
    let is_v4 = to.parse::<std::net::Ipv4Addr>().is_ok();
    let from = if is_v4 { WEB } else { WEB6 };
    let (start, gso) = if is_v4 { (20_u16, 1) } else { (40, 4) };
    let mut packet = packet(from, to, len, 1);
    packet[if is_v4 { 9 } else { 6 }] = 6;
    packet[usize::from(start) + 12] = 0x50;
    let mut frame = vec![1, gso];
    for number in [start + 20, segment, start, 16] {
        frame.extend(number.to_ne_bytes());
    }
    frame.extend(packet);
    frame
}

fn plain(packet: &[u8]) -> Vec<u8> {
    [&[0; 10], packet].concat()
}

/// The pair with what its gateway's device would have counted as sent.
struct Site {
    pair: Pair,
    device_tx: u64,
    /// What leases carried that are gone.
    ended: u64,
}

impl Site {
    fn new(pair: Pair) -> Self {
        Self {
            pair,
            device_tx: 0,
            ended: 0,
        }
    }

    fn reads(&mut self, frame: &[u8]) {
        let now = self.pair.now;
        self.device_tx += (frame.len() - 10) as u64;
        // What is dropped is the subject here.
        let _taken = self.pair.edge().handle_tun_frame(frame, now);
        self.pair.advance(Duration::from_millis(1));
    }

    #[track_caller]
    fn assert_adds_up(&mut self) {
        let edge = self.pair.edge();
        while let Some((_, traffic)) = edge.poll_displaced() {
            self.ended += traffic.tx_bytes;
        }
        let present = edge.traffic_at(0..edge.places());
        let present: u64 = present.map(|(_, traffic)| traffic.tx_bytes).sum();
        let (ledger, headers) = (edge.ledger(), edge.header_bytes());
        assert_eq!(edge.traffic().tx_bytes, present + self.ended);
        let explained = present + self.ended + ledger.lost + ledger.waiting;
        assert_eq!(self.device_tx + headers.added, explained, "{ledger:?}");
    }
}

fn limited(bits_per_s: u64) -> Rates {
    Rates {
        to_router: NonZeroU64::new(bits_per_s),
        from_router: None,
    }
}

#[test]
fn what_waits_for_a_session_and_what_waited_in_vain_is_written_down() {
    let mut site = Site::new(Pair::connected());
    let now = site.pair.now;
    let asleep = |psk: u8| PeerConfig {
        psk: Some(Psk::from([psk; 32])),
        ..lease(now)
    };
    // Another pre-shared key ends the session; the endpoint stays.
    site.pair.admit(asleep(1)).unwrap();
    for n in 0..12 {
        site.reads(&plain(&packet(WEB, INNER, 500, n)));
    }
    let waiting = site.pair.edge().ledger().waiting;
    site.assert_adds_up();

    site.pair.admit(asleep(2)).unwrap();

    assert_eq!(waiting, 8 * 500);
    assert_eq!(site.pair.edge().ledger().waiting, 0);
    assert_eq!(site.pair.edge().ledger().lost, 12 * 500);
    site.assert_adds_up();
}

#[test]
fn what_the_gateway_answers_itself_is_no_leases_and_not_the_devices() {
    let mut pair = Pair::connected();
    pair.edge().set_inner(vec!["10.64.0.1".parse().unwrap()]);
    pair.advance(Duration::from_secs(60));
    let answered = pair.edge().ledger().answered;

    assert!(answered.rx_packets > 1, "{answered:?}");
    assert_eq!(answered.rx_packets, answered.tx_packets);
    assert_eq!(pair.peer().traffic.rx_bytes, 0);
    assert_eq!(pair.edge().traffic(), pair.peer().traffic);
}

#[test]
fn leases_that_made_room_for_others_are_still_in_the_sum() {
    let mut site = Site::new(Pair::connected());
    site.reads(&plain(&packet(WEB, INNER, 900, 1)));
    let rekeyed = PeerConfig {
        public: public(&key(9)),
        ..lease(site.pair.now)
    };

    site.pair.admit(rekeyed).unwrap();

    site.assert_adds_up();
    assert_eq!(site.ended, 900);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_byte_of_every_frame_is_carried_lost_or_waits(
        rate in prop_oneof![Just(0), 64_000..100_000_000_u64],
        frames in prop::collection::vec((0..7_u8, 100..60_000_usize, 50..2_000_u16), 1..60),
    ) {
        let mut site = Site::new(Pair::connected());
        let terms = PeerConfig { rates: limited(rate), ..lease(site.pair.start) };
        site.pair.admit(terms).unwrap();
        for (kind, len, segment) in frames {
            let frame = match kind {
                0 | 1 => super_packet(INNER, len, segment),
                2 | 3 => super_packet(INNER6, len, segment),
                4 => super_packet("10.64.99.99", len, segment),
                5 => plain(&packet(WEB, INNER, len.min(1_600), 1)),
                _ => plain(&vec![0x15; len]),
            };
            site.reads(&frame);
            site.assert_adds_up();
        }
    }
}
