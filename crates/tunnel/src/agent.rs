//! The router's side: a session with each gateway that the lease names, one of which carries the home's packets; it is
//! found again when it moves, left for the next when it does not answer or drains. What the subscriber sees follows
//! from [`AgentTunnel::poll_event`].
//!
//! ```text
//!   Connecting ── handshake answered ──▶ Connected ◀─┐
//!       ▲  ▲──── session over, nobody answers ─┘ └───┘ moved to another gateway
//!       └─ endpoint silent: the gateway's next endpoint
//! ```

mod choice;
mod lease;
mod path;
mod path_mtu;
mod probe;
mod report;
mod watch;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use x25519_dalek::StaticSecret;

use crate::dropped::{DropCounts, Dropped};
use crate::offload::ecn::OuterTos;
use crate::offload::segment::Segments;
use crate::offload::vnet::Vnet;
use crate::offload::{Accepts, Inbox};
use crate::packet;
use crate::policy::{self, SourceChecked};
use crate::psk::Psk;
use crate::stats::{PeerStats, Traffic};
use crate::timers::{Jitter, Pace};
use crate::too_big::TooBig;
use crate::transmit::{Outbox, Transmit};
use crate::wg::{Gate, Heard, Message, Sealed, Shape};
use crate::{DEFAULT_MTU, health};
use choice::Hold;
use lease::reachable;
use path::Path;
use probe::Probe;
pub use report::{AgentEvent, GatewayState, GatewayStatus, Link, MoveReason};

/// More gateways of a lease are not looked at: each costs a session.
pub const MAX_GATEWAYS: usize = 3;
/// Packets that wait for the first session.
const MAX_WAITING: usize = 64;
/// Events that the shell has not taken yet; it takes them after every call.
const MAX_EVENTS: usize = 64;
/// Handshake messages that anybody may make us look at; more only slows a router down.
const HANDSHAKES_PER_S: u32 = 50;

/// A gateway that the lease allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayConfig {
    /// Its WireGuard key.
    pub public: [u8; 32],
    /// The pre-shared key with it; another one ends the session.
    pub psk: Option<Psk>,
    /// Where it listens, the best first.
    pub endpoints: Vec<SocketAddr>,
    /// Its own addresses inside the tunnel, where it is asked how it is; none are needed.
    pub inner: Vec<IpAddr>,
}

impl GatewayConfig {
    /// Whether a session with one is a session with the other.
    fn is_same_peer(&self, other: &Self) -> bool {
        self.public == other.public && self.psk == other.psk
    }
}

/// What an agent's tunnel is made of.
pub struct AgentConfig {
    /// The router's WireGuard key.
    pub private: StaticSecret,
    /// The gateways of the lease, the preferred first.
    pub gateways: Vec<GatewayConfig>,
    /// The inner addresses of the lease; nothing else is sent from or received for.
    pub addresses: Vec<IpNet>,
    /// How often NAT's mapping is refreshed when nothing else does; zero for never.
    pub keepalive: Duration,
    /// The calendar's time when the tunnel is made, since 1970: a gateway takes no initiation that claims to be older than the
    /// last, a restart notwithstanding.
    pub calendar: Duration,
    /// What the jitter of retries is drawn from.
    pub seed: u64,
}

/// Why a tunnel cannot be made of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgentConfigError {
    /// No gateway has an endpoint.
    #[error("the lease names no gateway with an endpoint; ask provisioning for another")]
    NoEndpoint,
    /// No inner address.
    #[error("the lease has no inner address; ask provisioning for another")]
    NoAddress,
}

/// The tunnel of one agent.
pub struct AgentTunnel {
    gate: Gate,
    /// One for each gateway, the preferred first; never empty.
    paths: Vec<Path>,
    /// The place of the one that carries the home's packets, or will.
    active: usize,
    /// How often that has changed.
    moves: u32,
    proofs: u32,
    hold: Hold,
    addresses: Vec<IpNet>,
    keepalive: Duration,
    shape: Shape,
    next_number: u32,
    link: Link,
    /// When the home last sent something.
    used: Option<Instant>,
    /// What the sessions before the present ones counted.
    traffic: Traffic,
    /// Until when all that was due has been done.
    handled: Option<Instant>,
    planned: Option<Instant>,
    jitter: Jitter,
    outbox: Outbox,
    inbox: Inbox,
    /// Where datagrams are opened.
    opened: Vec<u8>,
    too_big: TooBig,
    probe: Probe,
    events: VecDeque<AgentEvent>,
    dropped: DropCounts,
}

impl AgentTunnel {
    /// A tunnel that connects as soon as its first timeout, which is now, is handled.
    ///
    /// # Errors
    /// When the lease names nowhere to go or nobody to be.
    pub fn new(config: AgentConfig, now: Instant) -> Result<Self, AgentConfigError> {
        let gateways = reachable(config.gateways)?;
        if config.addresses.is_empty() {
            return Err(AgentConfigError::NoAddress);
        }
        let shape = Shape {
            pace: Pace::agent(config.keepalive),
            mtu: DEFAULT_MTU.into(),
            max_waiting: MAX_WAITING,
            tos: OuterTos::default(),
        };
        let too_big = TooBig::of_path(gateways.iter().flat_map(|gateway| &gateway.inner), now);
        let mut tunnel = Self {
            gate: Gate::new(
                config.private,
                HANDSHAKES_PER_S,
                Arc::default(),
                config.calendar,
                now,
            ),
            paths: Vec::new(),
            active: 0,
            // Differs from the last run's, or the gateways would not see that this one has moved.
            moves: Jitter(config.seed).number(),
            proofs: 0,
            hold: Hold::FIRST,
            addresses: config.addresses,
            keepalive: config.keepalive,
            shape,
            next_number: 0,
            link: Link::Connecting { since: now },
            used: None,
            traffic: Traffic::default(),
            handled: None,
            planned: None,
            jitter: Jitter(config.seed),
            outbox: Outbox::default(),
            inbox: Inbox::default(),
            opened: Vec::new(),
            too_big,
            probe: Probe::new(DEFAULT_MTU),
            events: VecDeque::new(),
            dropped: DropCounts::default(),
        };
        tunnel.set_paths(gateways, now);
        Ok(tunnel)
    }

    /// The same with another MTU than [`DEFAULT_MTU`] for inner packets.
    #[must_use]
    pub fn with_mtu(mut self, mtu: u16, now: Instant) -> Self {
        self.shape.mtu = mtu.into();
        self.probe.set_ceiling(mtu);
        for index in 0..self.paths.len() {
            self.renew(index, now);
        }
        self
    }

    /// The same with other differentiated services in the outer headers than none; before [`AgentTunnel::with_mtu`].
    #[must_use]
    pub fn with_outer_tos(mut self, tos: OuterTos) -> Self {
        self.shape.tos = tos;
        self
    }

    /// Tells what the TUN device takes.
    pub fn set_accepts(&mut self, accepts: Accepts) {
        self.inbox.set_accepts(accepts);
    }

    /// Takes a whole packet that the home sends.
    ///
    /// # Errors
    /// When it is dropped, and then counted.
    pub fn handle_tun_input(&mut self, packet: &[u8], now: Instant) -> Result<(), Dropped> {
        let result = self.send(packet, Vnet::default(), now);
        self.count(result)
    }

    /// Takes a frame of the TUN device, which may stand for many packets.
    ///
    /// # Errors
    /// When it or a part of it is dropped, and then counted once.
    pub fn handle_tun_frame(&mut self, frame: &[u8], now: Instant) -> Result<(), Dropped> {
        let result = Vnet::split(frame).and_then(|(vnet, packet)| self.send(packet, vnet, now));
        self.count(result)
    }

    fn send(&mut self, packet: &[u8], vnet: Vnet, now: Instant) -> Result<(), Dropped> {
        let header = packet::parse(packet)?;
        if !policy::contains(&self.addresses, header.source) {
            return Err(Dropped::SourceMismatch);
        }
        let packet = packet.get(..header.len).ok_or(Dropped::Malformed)?;
        let packets = Segments::of(vnet, packet)?;
        let mut paths = self.paths.iter();
        if health::is_for_its_port(packet) && paths.any(|path| path.is_inner(header.destination)) {
            // Asks are ours alone to send: a device at home could end the home's service by one. What waits on one path may leave
            // by another.
            return Err(Dropped::SourceMismatch);
        }
        let path = self.paths.get_mut(self.active).ok_or(Dropped::NoSession)?;
        let sealed = path
            .wg
            .seal(&packets, path.endpoint, &mut self.outbox, now)
            .inspect_err(|reason| {
                if *reason == Dropped::TooBig {
                    let mtu = u16::try_from(self.shape.mtu).unwrap_or(u16::MAX);
                    self.inbox
                        .push_answer(self.too_big.answer(packet, mtu, now));
                }
            })?;
        if sealed == Sealed::Sent {
            path.watch.on_sent(now);
        }
        let was_at_work = self.is_at_work(now);
        self.used = Some(now);
        // The first packet for a while makes the other gateways ready.
        if sealed == Sealed::Waiting || !was_at_work {
            self.work(now);
        }
        Ok(())
    }

    /// Takes a datagram that came from `from`; the inner packet, if it brought one, is in `buf`, which must be at
    /// least as long as the datagram.
    ///
    /// # Errors
    /// When it is dropped, and then counted.
    pub fn handle_network_input<'b>(
        &mut self,
        datagram: &[u8],
        from: SocketAddr,
        buf: &'b mut [u8],
        now: Instant,
    ) -> Result<Option<SourceChecked<'b>>, Dropped> {
        let result = self.receive(datagram, from, buf, now);
        self.count(result)
    }

    /// Takes a datagram whose outer header has the TOS byte `tos`; what it brings for the TUN device waits for
    /// [`AgentTunnel::poll_tun`], joined with others of its flow until [`AgentTunnel::flush_tun`].
    ///
    /// # Errors
    /// When it is dropped, and then counted.
    pub fn handle_datagram(
        &mut self,
        datagram: &[u8],
        from: SocketAddr,
        tos: u8,
        now: Instant,
    ) -> Result<(), Dropped> {
        let mut opened = std::mem::take(&mut self.opened);
        let needed = datagram.len();
        if opened.len() < needed {
            opened.resize(needed, 0);
        }
        let result = match self.receive(datagram, from, &mut opened, now) {
            Ok(Some(packet)) => self.inbox.push(packet, tos),
            Ok(None) => Ok(()),
            Err(reason) => Err(reason),
        };
        self.opened = opened;
        self.count(result)
    }

    /// The next frame to write to the TUN device.
    pub fn poll_tun(&mut self) -> Option<&[u8]> {
        self.inbox.poll()
    }

    /// The end of a batch: nothing waits to be joined any longer.
    pub fn flush_tun(&mut self) {
        self.inbox.flush();
    }

    fn receive<'b>(
        &mut self,
        datagram: &[u8],
        from: SocketAddr,
        buf: &'b mut [u8],
        now: Instant,
    ) -> Result<Option<SourceChecked<'b>>, Dropped> {
        let message = self.gate.admit(datagram, from, &mut self.outbox, now)?;
        let index = match message {
            Message::Initiation => return self.answer(datagram, from, now).map(|()| None),
            Message::Response { index } | Message::Cookie { index } | Message::Data { index } => {
                index
            }
        };
        let index = self.paths.iter().position(|p| p.number == index >> 8);
        let index = index.ok_or(Dropped::NoSession)?;
        let path = self.paths.get_mut(index).ok_or(Dropped::NoSession)?;
        let heard = path
            .wg
            .open(message, datagram, from, buf, &mut self.outbox, now)?;
        match heard {
            Heard::Cookie => return Ok(None),
            Heard::Response | Heard::Keepalive | Heard::Packet(_) => {
                self.on_heard(index, message, from, now);
            }
        }
        let Heard::Packet(packet) = heard else {
            return Ok(None);
        };
        let header = packet::parse(packet)?;
        let packet = SourceChecked::from_gateway(packet, &header, &self.addresses)?;
        let path = self.paths.get_mut(index).ok_or(Dropped::NoSession)?;
        if path.is_inner(header.source)
            && let Some(answer) = health::decode_answer(packet.as_bytes())
        {
            if !self.probe.handle_answer(answer.sequence, now) {
                path.watch.on_answer(answer, now);
            }
            self.work(now);
            return Ok(None);
        }
        path.wg.traffic.count_received(header.len);
        Ok(Some(packet))
    }

    /// Answers a gateway's initiation. It moves no endpoint: it may be a replay, from anywhere.
    fn answer(&mut self, datagram: &[u8], from: SocketAddr, now: Instant) -> Result<(), Dropped> {
        let initiator = self.gate.initiator(datagram)?;
        let public = initiator.public();
        let path = self.paths.iter_mut().find(|p| p.gateway.public == public);
        let path = path.ok_or(Dropped::UnknownPeer)?;
        path.wg.accept(&initiator, from, &mut self.outbox, now)
    }

    fn on_heard(&mut self, index: usize, message: Message, from: SocketAddr, now: Instant) {
        let Some(path) = self.paths.get_mut(index) else {
            return;
        };
        self.proofs = self.proofs.wrapping_add(1);
        let was_up = path.is_up();
        path.on_heard(message, now);
        let (is_up, has_moved) = (path.is_up(), path.endpoint != from);
        path.endpoint = from;
        if has_moved && index == self.active {
            self.probe.restart();
            self.tell(AgentEvent::Roamed { endpoint: from });
        }
        let connects = matches!(self.link, Link::Connecting { .. }) && is_up;
        if connects || was_up != is_up || matches!(message, Message::Response { .. }) {
            self.work(now);
        }
    }

    /// Does what is due: retries, keepalives, renewal, asks, the next gateway.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.work(now);
    }

    /// When [`AgentTunnel::handle_timeout`] is to be called, and why.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let sessions = self.paths.iter().filter_map(|path| path.wg.next_deadline());
        let planned = self.planned.map(|at| (at, "gateways"));
        let doubts = self.active().and_then(Path::doubts).into_iter().flatten();
        let doubts = doubts.filter(|at| self.handled.is_none_or(|handled| handled < *at));
        sessions
            .chain(planned)
            .chain(doubts.map(|at| (at, "silence")))
            .min()
    }

    /// The next run of datagrams to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit<'_>> {
        self.outbox.poll()
    }

    /// The same as long as nothing can be added to it; for whoever has more packets at hand.
    pub fn poll_full_transmit(&mut self) -> Option<Transmit<'_>> {
        self.outbox.poll_full()
    }

    /// What happened since it was last asked.
    pub fn poll_event(&mut self) -> Option<AgentEvent> {
        self.events.pop_front()
    }

    /// Shakes hands at once, with the gateway in use, when the way to it may have changed: a new address, a link that came up.
    pub fn handle_network_change(&mut self, now: Instant) {
        for (index, path) in self.paths.iter_mut().enumerate() {
            if index == self.active {
                path.wake(now);
            } else {
                path.watch.tell(now);
            }
        }
        self.work(now);
    }

    /// Whether there is a session.
    #[must_use]
    pub fn link(&self) -> Link {
        self.link
    }

    /// The key of the gateway in use or tried.
    #[must_use]
    pub fn gateway(&self) -> [u8; 32] {
        self.active().map_or([0; 32], |path| path.gateway.public)
    }

    /// Every gateway of the lease, the preferred first.
    pub fn gateways(&self, now: Instant) -> impl Iterator<Item = GatewayStatus> + '_ {
        let status = move |(index, path): (usize, &Path)| GatewayStatus {
            public: path.gateway.public,
            active: index == self.active && matches!(self.link, Link::Connected { .. }),
            state: path.state(now),
            rtt: path.watch.rtt(),
        };
        self.paths.iter().enumerate().map(status)
    }

    /// Our own key.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        self.gate.public()
    }

    /// Counters, and the age of the session.
    #[must_use]
    pub fn stats(&self, now: Instant) -> PeerStats {
        let active = self.active();
        let since = active.and_then(|path| path.wg.timers.session_since(now));
        let traffic = self.paths.iter().map(|path| path.wg.traffic);
        PeerStats {
            traffic: traffic.fold(self.traffic, Traffic::plus),
            endpoint: active.map(|path| path.endpoint),
            session_age: since.map(|since| now.saturating_duration_since(since)),
        }
    }

    /// How many datagrams came that only a gateway with a session, or with its private key, can have made; wraps. Cookies and
    /// initiations are none: the one anybody can make, the other may be a replay.
    #[must_use]
    pub fn proofs(&self) -> u32 {
        self.proofs
    }

    /// How packets died.
    #[must_use]
    pub fn dropped(&self) -> &DropCounts {
        &self.dropped
    }

    fn disconnect(&mut self, now: Instant) {
        self.disconnect_from(self.gateway(), now);
        if let Some(path) = self.paths.get_mut(self.active) {
            path.wg.timers.want_handshake(now);
        }
    }

    fn disconnect_from(&mut self, gateway: [u8; 32], now: Instant) {
        if let Link::Connected { .. } = self.link {
            self.link = Link::Connecting { since: now };
            self.tell(AgentEvent::Disconnected { gateway });
        }
    }

    fn tell(&mut self, event: AgentEvent) {
        if self.events.len() < MAX_EVENTS {
            self.events.push_back(event);
        }
    }

    fn count<T>(&mut self, result: Result<T, Dropped>) -> Result<T, Dropped> {
        if let Err(reason) = &result {
            self.dropped.add(*reason);
        }
        result
    }
}
