//! A gateway and a peer that asks nothing of it, as WireGuard of another hand: no asks and no keepalives keep its timers going.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use boringtun::noise::TunnResult;
use boringtun::noise::rate_limiter::RateLimiter;
use tunnel::agent::AgentTunnel;
use tunnel::edge::{EdgeLimits, Taken};
use tunnel::health::{self, Ask, Intent};
use tunnel::{Dropped, EdgeTunnel, KEEPALIVE_BYTES};

use crate::rig::{
    AGENT, Cable, GATEWAYS, INNER, INNER6, Pair, TODAY, WEB, agent_config, inner_of, key, lease,
    packet, public, seconds, socket,
};

const INITIATION: u8 = 1;
const DATA: u8 = 4;

struct Line {
    edge: EdgeTunnel,
    home: AgentTunnel,
    /// What the home names the session by to the gateway.
    index: [u8; 4],
    now: Instant,
}

impl Line {
    /// With a session that the home began and proved.
    fn connected() -> Self {
        let now = Instant::now();
        let mut config = agent_config(&[(100, &GATEWAYS[..1])], &["10.64.0.7/32"]);
        config.keepalive = Duration::ZERO;
        for gateway in &mut config.gateways {
            gateway.inner.clear();
        }
        let mut home = AgentTunnel::new(config, now).unwrap();
        let mut edge = EdgeTunnel::new(key(100), TODAY, now);
        edge.upsert_peer(lease(now), now).unwrap();
        home.handle_timeout(now);
        let mut line = Self {
            edge,
            home,
            index: [0; 4],
            now,
        };
        line.up();
        let response = line.sent();
        line.index.copy_from_slice(&response[0][4..8]);
        line.down(&response);
        line.up();
        line
    }

    /// Half a minute later, with nothing sent or heard since.
    fn idle() -> Self {
        let mut line = Self::connected();
        line.now += seconds(30);
        line.edge.handle_timeout(line.now);
        line
    }

    /// The internet sends a packet, and the home is not there to take it.
    fn lost_on_the_way_down() -> Self {
        let mut line = Self::idle();
        let packet = packet(WEB, INNER, 100, 1);
        line.edge.handle_tun_input(&packet, line.now).unwrap();
        line.sent();
        line
    }

    fn up(&mut self) {
        while let Some(run) = self.home.poll_transmit() {
            for datagram in run.datagrams() {
                let taken = self
                    .edge
                    .handle_datagram(datagram, socket(AGENT), 0, self.now);
                assert_eq!(taken, Ok(Taken::Here));
            }
        }
    }

    fn down(&mut self, datagrams: &[Vec<u8>]) {
        for datagram in datagrams {
            self.home
                .handle_datagram(datagram, socket(GATEWAYS[0]), 0, self.now)
                .unwrap();
        }
    }

    fn sent(&mut self) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        while let Some(run) = self.edge.poll_transmit() {
            sent.extend(run.datagrams().map(<[u8]>::to_vec));
        }
        sent
    }

    /// Lets the gateway's time pass, with `each` before every step of a second, until it sends something like `wanted`.
    fn first(
        &mut self,
        within: Duration,
        wanted: impl Fn(&[u8]) -> bool,
        mut each: impl FnMut(&mut Self),
    ) -> Option<Duration> {
        let start = self.now;
        while self.now - start < within {
            each(self);
            let step = self.now + seconds(1);
            let due = self.edge.poll_timeout().map(|(at, _why)| at);
            self.now = due.map_or(step, |due| due.clamp(self.now, step));
            if due.is_some_and(|due| due <= self.now) {
                self.edge.handle_timeout(self.now);
            }
            if self.sent().iter().any(|datagram| wanted(datagram)) {
                return Some(self.now - start);
            }
        }
        None
    }
}

fn is_initiation(datagram: &[u8]) -> bool {
    datagram.first() == Some(&INITIATION)
}

#[test]
fn a_packet_for_a_peer_that_has_gone_starts_a_handshake_after_the_whitepapers_silence() {
    let mut line = Line::lost_on_the_way_down();

    let after = line.first(seconds(60), is_initiation, |_| {}).unwrap();

    assert!((seconds(15)..seconds(16)).contains(&after), "{after:?}");
}

#[test]
fn who_only_listens_says_that_it_does_after_ten_seconds() {
    let mut line = Line::idle();
    let packet = packet(INNER, WEB, 100, 1);
    line.home.handle_tun_input(&packet, line.now).unwrap();
    line.up();

    let is_keepalive =
        |datagram: &[u8]| datagram.first() == Some(&DATA) && datagram.len() == KEEPALIVE_BYTES;
    let after = line.first(seconds(60), is_keepalive, |_| {}).unwrap();

    assert!((seconds(10)..seconds(11)).contains(&after), "{after:?}");
}

#[test]
fn forged_cookies_and_answers_put_nothing_off() {
    let mut line = Line::lost_on_the_way_down();
    let mut cookie = [0; 64];
    cookie[0] = 3;
    cookie[4..8].copy_from_slice(&line.index);

    let after = line.first(seconds(60), is_initiation, |line| {
        let (from, now) = (socket(AGENT), line.now);
        let refused = line.edge.handle_datagram(&cookie, from, 0, now);
        assert_eq!(refused, Err(Dropped::Unexpected));
    });

    assert!(after.is_some_and(|after| after < seconds(16)), "{after:?}");
}

#[test]
fn who_tries_another_way_is_answered_there_at_once_and_not_for_every_packet() {
    let mut line = Line::idle();
    let elsewhere = socket("203.0.113.99:1234");
    let mut come = |from, later| {
        line.now += Duration::from_millis(later);
        let packet = packet(INNER, WEB, 100, 1);
        line.home.handle_tun_input(&packet, line.now).unwrap();
        while let Some(run) = line.home.poll_transmit() {
            let taken = line.edge.handle_datagram(run.payload, from, 0, line.now);
            assert_eq!(taken, Ok(Taken::Here));
        }
        let mut answers = Vec::new();
        while let Some(run) = line.edge.poll_transmit() {
            answers.push((run.to, run.payload.len()));
        }
        answers
    };

    assert_eq!(come(socket(AGENT), 0), []);
    assert_eq!(come(elsewhere, 1), [(elsewhere, KEEPALIVE_BYTES)]);
    assert_eq!(come(elsewhere, 1), []);
    assert_eq!(come(socket(AGENT), 1), []);
    assert_eq!(come(elsewhere, 1), []);
    assert_eq!(come(socket(AGENT), 250), [(socket(AGENT), KEEPALIVE_BYTES)]);
}

#[test]
fn a_cookie_which_anybody_can_make_proves_no_gateway_and_a_packet_does() {
    let mut line = Line::connected();
    let before = line.home.proofs();
    line.home.handle_network_change(line.now);
    let mut cookies = Vec::new();
    let limiter = RateLimiter::new(&public(&key(100)).into(), 0);
    while let Some(run) = line.home.poll_transmit() {
        for datagram in run.datagrams().filter(|datagram| is_initiation(datagram)) {
            let mut cookie = [0; 64];
            let asked = limiter.verify_packet(Some(socket(AGENT).ip()), datagram, &mut cookie);
            assert!(matches!(asked, Err(TunnResult::WriteToNetwork(_))));
            cookies.push(cookie.to_vec());
        }
    }

    assert!(!cookies.is_empty());
    line.down(&cookies);
    assert_eq!(line.home.proofs(), before);
    let packet = packet(WEB, INNER, 100, 1);
    line.edge.handle_tun_input(&packet, line.now).unwrap();
    let sent = line.sent();
    line.down(&sent);
    assert_eq!(line.home.proofs(), before + 1);
}

#[test]
fn a_router_that_comes_and_goes_all_the_time_changes_routes_twenty_times_a_second() {
    let mut line = Line::connected();
    line.edge.set_inner(inner_of(100));
    while line.edge.poll_event().is_some() {}
    let start = line.now;
    let (mut answers, mut changes) = (0, 0);

    for n in 1..=1_000 {
        line.now = start + Duration::from_millis(n);
        let intent = if n % 2 == 0 {
            Intent::Active
        } else {
            Intent::Standby
        };
        let ask = Ask {
            intent,
            sequence: n as u32,
            moves: 1,
            mtu: 0,
        };
        let ask = health::encode_ask(INNER.parse().unwrap(), inner_of(100)[0], ask);
        let sent = line
            .home
            .handle_tun_input(ask.unwrap().as_bytes(), line.now);
        sent.unwrap();
        line.up();
        answers += line.sent().len();
        changes += std::iter::from_fn(|| line.edge.poll_event()).count();
    }

    assert!((10..=21).contains(&changes), "{changes}");
    assert!(answers < 1_000, "what was not done is not answered");
}

/// A device at home that would have the gateway `who` believe that its router has left.
fn device_asks_for_leave(pair: &mut Pair, who: u8) -> [Result<(), Dropped>; 2] {
    [INNER, INNER6].map(|from| {
        let from: IpAddr = from.parse().unwrap();
        let to = inner_of(who).into_iter();
        let mut to = to.filter(|to| to.is_ipv4() == from.is_ipv4());
        let leave = Ask {
            intent: Intent::Standby,
            sequence: 7,
            moves: 1,
            mtu: 0,
        };
        let ask = health::encode_ask(from, to.next().unwrap(), leave).unwrap();
        pair.home_sends(ask.as_bytes())
    })
}

#[test]
fn nothing_at_home_waits_to_speak_to_a_gateway_as_the_agent_does() {
    let mut pair = Pair::with(2, Cable::GOOD, 1, EdgeLimits::default());
    for gateway in [100, 101] {
        let refused = device_asks_for_leave(&mut pair, gateway);
        assert_eq!(refused, [Err(Dropped::SourceMismatch); 2], "{gateway}");
    }
}

#[test]
fn nothing_at_home_speaks_to_the_gateway_as_the_agent_does() {
    let mut pair = Pair::connected();

    let refused = device_asks_for_leave(&mut pair, 100);

    assert_eq!(refused, [Err(Dropped::SourceMismatch); 2]);
    pair.home_sends(&packet(INNER, WEB, 100, 1)).unwrap();
    pair.advance(seconds(5));
    assert_eq!(pair.edge().carried().active, 1);
}
