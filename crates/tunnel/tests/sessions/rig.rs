//! Agents and gateways on a seeded, lossy cable under one clock that only the test moves.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tunnel::agent::{AgentConfig, AgentEvent, AgentTunnel, GatewayConfig, Link};
use tunnel::edge::{EdgeEvent, EdgeLimits, EdgeTunnel, PeerConfig, UpsertError, Upserted};
use tunnel::{Dropped, PeerStats, Transmit};
use x25519_dalek::{PublicKey, StaticSecret};

/// How many of the last events a failure prints.
const LOGGED: usize = 50;

pub(crate) const AGENT: &str = "198.51.100.2:40000";
pub(crate) const GATEWAYS: [&str; 3] = ["192.0.2.1:51820", "192.0.2.2:51820", "192.0.2.3:51820"];
pub(crate) const INNER: &str = "10.64.0.7";
pub(crate) const INNER6: &str = "fd64::7";
pub(crate) const WEB: &str = "203.0.113.10";
pub(crate) const WEB6: &str = "2001:db8:f::10";

/// IPv4's header and UDP's.
const OUTSIDE: usize = 28;

/// What the cable does to a datagram.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cable {
    pub(crate) loss_percent: u64,
    pub(crate) delay_ms: u64,
    pub(crate) jitter_ms: u64,
    pub(crate) duplicate_percent: u64,
}

impl Cable {
    pub(crate) const GOOD: Self = Self {
        loss_percent: 0,
        delay_ms: 10,
        jitter_ms: 0,
        duplicate_percent: 0,
    };
}

/// A datagram under way.
#[derive(Clone, Debug)]
pub(crate) struct Flying {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) edge: EdgeTunnel,
    pub(crate) is_up: bool,
    pub(crate) events: Vec<EdgeEvent>,
    private: StaticSecret,
}

/// One agent and some gateways.
pub(crate) struct Pair {
    pub(crate) now: Instant,
    pub(crate) start: Instant,
    pub(crate) agent: AgentTunnel,
    pub(crate) agent_address: SocketAddr,
    pub(crate) agent_events: Vec<AgentEvent>,
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) cable: Cable,
    /// IPv4 packets longer than this vanish on the cable, and nobody says so.
    pub(crate) hole: Option<usize>,
    /// Initiations vanish on the cable, as in a crowd before the gateways' doors.
    pub(crate) is_door_shut: bool,
    /// Everything ever sent, as an observer on the wire has it.
    pub(crate) seen: Vec<Flying>,
    pub(crate) at_internet: Vec<Vec<u8>>,
    pub(crate) at_home: Vec<Vec<u8>>,
    seed: u64,
    random: u64,
    flying: BTreeMap<(Instant, u64), Flying>,
    log: VecDeque<String>,
}

pub(crate) fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(crate) fn is_connected(pair: &Pair) -> bool {
    matches!(pair.agent.link(), tunnel::agent::Link::Connected { .. })
}

pub(crate) fn key(n: u8) -> StaticSecret {
    StaticSecret::from([n; 32])
}

pub(crate) fn public(private: &StaticSecret) -> [u8; 32] {
    PublicKey::from(private).to_bytes()
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The lease of the rig's agent.
pub(crate) fn lease(now: Instant) -> PeerConfig {
    PeerConfig {
        id: [7; 32],
        public: public(&key(7)),
        psk: None,
        allowed: vec![ip(INNER).into(), ip(INNER6).into()],
        not_after: now + Duration::from_secs(7 * 86_400),
        rates: tunnel::rate::Rates::default(),
    }
}

/// The calendar's time when a rig is made, since 1970.
pub(crate) const TODAY: Duration = Duration::from_secs(1_800_000_000);

pub(crate) fn agent_config(gateways: &[(u8, &[&str])], addresses: &[&str]) -> AgentConfig {
    AgentConfig {
        private: key(7),
        gateways: gateways
            .iter()
            .map(|(n, endpoints)| GatewayConfig {
                public: public(&key(*n)),
                psk: None,
                endpoints: endpoints.iter().map(|e| socket(e)).collect(),
                inner: inner_of(*n),
            })
            .collect(),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        keepalive: Duration::from_secs(25),
        seed: 1,
        calendar: TODAY,
    }
}

/// The inner addresses of the gateway with this key; those beyond the rig's have none.
pub(crate) fn inner_of(n: u8) -> Vec<IpAddr> {
    match n {
        100..103 => vec![
            ip(&format!("10.64.0.{}", n - 99)),
            ip(&format!("fd64::{}", n - 99)),
        ],
        _ => Vec::new(),
    }
}

/// An IP packet with `number` in its payload.
pub(crate) fn packet(source: &str, destination: &str, len: usize, number: u32) -> Vec<u8> {
    let mut packet = vec![0; len];
    let total = u16::try_from(len).unwrap();
    let header = match (ip(source), ip(destination)) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            packet[0] = 0x45;
            packet[2..4].copy_from_slice(&total.to_be_bytes());
            packet[12..16].copy_from_slice(&source.octets());
            packet[16..20].copy_from_slice(&destination.octets());
            20
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            packet[0] = 0x60;
            packet[4..6].copy_from_slice(&(total - 40).to_be_bytes());
            packet[8..24].copy_from_slice(&source.octets());
            packet[24..40].copy_from_slice(&destination.octets());
            40
        }
        _ => panic!("mixed families"),
    };
    packet[header..header + 4].copy_from_slice(&number.to_be_bytes());
    packet
}

impl Pair {
    /// One gateway, which knows the agent's lease.
    pub(crate) fn new() -> Self {
        Self::with(1, Cable::GOOD, 1, EdgeLimits::default())
    }

    /// `count` gateways, which all know the agent's lease.
    pub(crate) fn with(count: u8, cable: Cable, seed: u64, limits: EdgeLimits) -> Self {
        let now = Instant::now();
        let gateways: Vec<_> = (0..count)
            .map(|n| {
                let private = key(100 + n);
                let mut edge = EdgeTunnel::with_limits(private.clone(), limits, TODAY, now);
                edge.upsert_peer(lease(now), now).unwrap();
                edge.set_inner(inner_of(100 + n));
                let address = socket(GATEWAYS[usize::from(n)]);
                Gateway {
                    address,
                    edge,
                    is_up: true,
                    events: Vec::new(),
                    private,
                }
            })
            .collect();
        let known: Vec<(u8, &[&str])> = (0..count)
            .map(|n| (100 + n, &GATEWAYS[usize::from(n)..=usize::from(n)]))
            .collect();
        let agent = AgentTunnel::new(agent_config(&known, &[INNER_NET, INNER6_NET]), now).unwrap();
        Self {
            now,
            start: now,
            agent,
            agent_address: socket(AGENT),
            agent_events: Vec::new(),
            gateways,
            cable,
            hole: None,
            is_door_shut: false,
            seen: Vec::new(),
            at_internet: Vec::new(),
            at_home: Vec::new(),
            seed,
            random: seed,
            flying: BTreeMap::new(),
            log: VecDeque::new(),
        }
    }

    /// A pair whose tunnel stands.
    pub(crate) fn connected() -> Self {
        let mut pair = Self::new();
        pair.connect();
        pair
    }

    pub(crate) fn connect(&mut self) {
        self.run_until(Duration::from_secs(120), |pair| {
            matches!(pair.agent.link(), Link::Connected { .. })
        });
        self.advance(Duration::from_millis(100));
    }

    pub(crate) fn edge(&mut self) -> &mut EdgeTunnel {
        &mut self.gateways[0].edge
    }

    /// Gives the first gateway this lease.
    pub(crate) fn admit(&mut self, lease: PeerConfig) -> Result<Upserted, UpsertError> {
        let now = self.now;
        self.edge().upsert_peer(lease, now)
    }

    /// What the first gateway has of the agent.
    pub(crate) fn peer(&mut self) -> PeerStats {
        let now = self.now;
        self.edge().peer_stats(&public(&key(7)), now).unwrap()
    }

    /// The gateway process is gone and back: it knows the lease and nothing else.
    pub(crate) fn restart_gateway(&mut self, n: usize) {
        let gateway = &mut self.gateways[n];
        let today = TODAY + (self.now - self.start);
        gateway.edge = EdgeTunnel::new(gateway.private.clone(), today, self.now);
        gateway.edge.upsert_peer(lease(self.now), self.now).unwrap();
        gateway.edge.set_inner(inner_of(100 + n as u8));
        gateway.is_up = true;
    }

    pub(crate) fn home_sends(&mut self, packet: &[u8]) -> Result<(), Dropped> {
        let result = self.agent.handle_tun_input(packet, self.now);
        self.note(format!("home sends {} bytes: {result:?}", packet.len()));
        self.drain();
        result
    }

    pub(crate) fn internet_sends(&mut self, n: usize, packet: &[u8]) -> Result<(), Dropped> {
        let result = self.gateways[n].edge.handle_tun_input(packet, self.now);
        self.note(format!(
            "internet sends {} bytes by {n}: {result:?}",
            packet.len()
        ));
        self.drain();
        result
    }

    /// Gives a datagram to the gateway as if it had come from `from`, outside of the cable.
    pub(crate) fn inject(&mut self, from: &str, bytes: &[u8]) -> Result<Option<Vec<u8>>, Dropped> {
        let mut buf = vec![0; 2_048];
        let now = self.now;
        let result = self
            .edge()
            .handle_network_input(bytes, socket(from), &mut buf, now);
        let result = result.map(|packet| packet.map(|p| p.as_bytes().to_vec()));
        self.drain();
        result
    }

    /// The datagrams of one kind (1 initiation, 2 response, 3 cookie, 4 data) that were on the wire, the oldest first.
    pub(crate) fn seen_of_kind(&self, kind: u8) -> Vec<Flying> {
        self.seen
            .iter()
            .filter(|flying| flying.bytes[0] == kind)
            .cloned()
            .collect()
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        while self.step(end) {}
    }

    pub(crate) fn run_until(&mut self, within: Duration, mut done: impl FnMut(&Self) -> bool) {
        let end = self.now + within;
        while !done(self) {
            let is_more = self.step(end);
            assert!(
                is_more,
                "not within {within:?}; seed {}\n{}",
                self.seed,
                self.history()
            );
        }
    }

    pub(crate) fn history(&self) -> String {
        self.log.iter().map(|line| format!("  {line}\n")).collect()
    }

    /// Moves to the next thing that happens, or to `end` if that is sooner; whether anything did.
    fn step(&mut self, end: Instant) -> bool {
        self.drain();
        let arrival = self.flying.first_key_value().map(|((at, _), _)| *at);
        let agent = self.agent.poll_timeout().map(|(at, _)| at);
        let edges = self.gateways.iter().filter(|g| g.is_up);
        let edge = edges
            .filter_map(|g| g.edge.poll_timeout())
            .map(|(at, _)| at)
            .min();
        let next = [arrival, agent, edge].into_iter().flatten().min();
        let Some(next) = next.filter(|at| *at <= end) else {
            self.now = end;
            return false;
        };
        self.now = self.now.max(next);
        if arrival.is_some_and(|at| at <= self.now)
            && let Some((_, flying)) = self.flying.pop_first()
        {
            self.arrive(&flying);
        }
        if agent.is_some_and(|at| at <= self.now) {
            self.agent.handle_timeout(self.now);
        }
        for gateway in self.gateways.iter_mut().filter(|g| g.is_up) {
            gateway.edge.handle_timeout(self.now);
        }
        self.drain();
        true
    }

    fn arrive(&mut self, flying: &Flying) {
        let mut buf = vec![0; 2_048];
        let Flying { from, to, bytes } = flying;
        let what = format!("{from} -> {to} kind {} {} bytes", bytes[0], bytes.len());
        let result = if *to == self.agent_address {
            let result = self
                .agent
                .handle_network_input(bytes, *from, &mut buf, self.now);
            result.map(|packet| self.at_home.extend(packet.map(|p| p.as_bytes().to_vec())))
        } else if let Some(gateway) = self
            .gateways
            .iter_mut()
            .find(|g| g.address == *to && g.is_up)
        {
            let result = gateway
                .edge
                .handle_network_input(bytes, *from, &mut buf, self.now);
            result.map(|packet| {
                self.at_internet
                    .extend(packet.map(|p| p.as_bytes().to_vec()))
            })
        } else {
            Ok(())
        };
        self.note(format!("{what}: {result:?}"));
    }

    fn drain(&mut self) {
        let mut sent = Vec::new();
        let from = self.agent_address;
        while let Some(run) = self.agent.poll_transmit() {
            sent.extend(flying_of(from, run));
        }
        for gateway in &mut self.gateways {
            while let Some(run) = gateway.edge.poll_transmit() {
                if gateway.is_up {
                    sent.extend(flying_of(gateway.address, run));
                }
            }
            gateway
                .events
                .extend(std::iter::from_fn(|| gateway.edge.poll_event()));
        }
        while let Some(event) = self.agent.poll_event() {
            self.note(format!("agent: {event:?}"));
            self.agent_events.push(event);
        }
        for flying in sent {
            self.seen.push(flying.clone());
            if self
                .hole
                .is_some_and(|hole| flying.bytes.len() + OUTSIDE > hole)
            {
                continue;
            }
            if self.is_door_shut && flying.bytes.first() == Some(&1) {
                continue;
            }
            let copies = 1 + usize::from(self.draw(100) < self.cable.duplicate_percent);
            for _ in 0..copies {
                if self.draw(100) >= self.cable.loss_percent {
                    let ms = self.cable.delay_ms + self.draw(self.cable.jitter_ms + 1);
                    let at = self.now + Duration::from_millis(ms);
                    let tie = u64::try_from(self.seen.len()).unwrap() << 8 | self.draw(256);
                    self.flying.insert((at, tie), flying.clone());
                }
            }
        }
    }

    fn note(&mut self, line: String) {
        if self.log.len() == LOGGED {
            self.log.pop_front();
        }
        self.log.push_back(format!(
            "{:>9.3} {line}",
            (self.now - self.start).as_secs_f64()
        ));
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }
}

pub(crate) const INNER_NET: &str = "10.64.0.7/32";
const INNER6_NET: &str = "fd64::7/128";

fn flying_of(from: SocketAddr, run: Transmit<'_>) -> Vec<Flying> {
    let flying = |bytes: &[u8]| Flying {
        from,
        to: run.to,
        bytes: bytes.to_vec(),
    };
    run.datagrams().map(flying).collect()
}
