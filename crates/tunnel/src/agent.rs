//! The router's side: one gateway at a time out of those that the lease names, found again when it moves, left for
//! the next when it does not answer. What the subscriber sees follows from [`AgentTunnel::poll_event`].
//!
//! ```text
//!   Connecting ── handshake answered ──▶ Connected
//!       ▲  ▲──── session over, nobody answers ─┘
//!       └─ endpoint silent: the next endpoint, then the next gateway
//! ```

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use x25519_dalek::StaticSecret;

use crate::DEFAULT_MTU;
use crate::dropped::{DropCounts, Dropped};
use crate::offload::ecn::OuterTos;
use crate::offload::segment::Segments;
use crate::offload::vnet::Vnet;
use crate::offload::{Accepts, Inbox};
use crate::packet;
use crate::policy::{self, SourceChecked};
use crate::stats::{PeerStats, Traffic};
use crate::timers::{Jitter, Pace};
use crate::transmit::{Outbox, Transmit};
use crate::wg::{Gate, Heard, MIN_OPENED, Message, Sealed, Shape, Tick, Wg};

/// How long an endpoint that was never heard may stay silent before the next is tried: three initiations.
const PATIENCE: Duration = Duration::from_secs(7);
/// The same for the gateway in use: leaving it breaks the home's connections, a restart takes less.
const PATIENCE_IN_USE: Duration = Duration::from_secs(15);
/// Packets that wait for the first session.
const MAX_WAITING: usize = 64;
/// Events that the shell has not taken yet; it takes them after every call.
const MAX_EVENTS: usize = 64;
/// Handshake messages that anybody may make us look at; more only slows a router down.
const HANDSHAKES_PER_S: u32 = 50;

/// A gateway that the lease allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayConfig {
    /// Its WireGuard key.
    pub public: [u8; 32],
    /// Where it listens, the best first.
    pub endpoints: Vec<SocketAddr>,
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

/// What the subscriber would notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentEvent {
    /// There is a session with this gateway.
    Connected {
        /// Its WireGuard key.
        gateway: [u8; 32],
        /// Where it answered.
        endpoint: SocketAddr,
    },
    /// The session with this gateway is over.
    Disconnected {
        /// Its WireGuard key.
        gateway: [u8; 32],
    },
    /// Nobody answered; this one is tried next.
    Trying {
        /// Its WireGuard key.
        gateway: [u8; 32],
        /// Where it is looked for.
        endpoint: SocketAddr,
    },
    /// The gateway speaks from another address.
    Roamed {
        /// Where it is heard.
        endpoint: SocketAddr,
    },
}

/// Whether there is a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// None: what the home sends waits, and then is dropped.
    Connecting {
        /// Since when.
        since: Instant,
    },
    /// Packets pass.
    Connected {
        /// Since when.
        since: Instant,
    },
}

/// The tunnel of one agent.
pub struct AgentTunnel {
    gate: Gate,
    gateways: Vec<GatewayConfig>,
    addresses: Vec<IpNet>,
    shape: Shape,
    at: Place,
    endpoint: SocketAddr,
    wg: Wg,
    peer_number: u32,
    link: Link,
    heard: Option<Instant>,
    traffic: Traffic,
    jitter: Jitter,
    outbox: Outbox,
    inbox: Inbox,
    /// Where datagrams are opened.
    opened: Vec<u8>,
    events: VecDeque<AgentEvent>,
    dropped: DropCounts,
}

/// A gateway of the list, and an endpoint of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    gateway: usize,
    endpoint: usize,
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
        let gate = Gate::new(config.private, HANDSHAKES_PER_S, now);
        let at = Place::default();
        let (public, endpoint) = target(&gateways, at).ok_or(AgentConfigError::NoEndpoint)?;
        let mut wg = gate.peer(public, 0, shape, now);
        wg.timers.want_handshake(now);
        Ok(Self {
            gate,
            gateways,
            addresses: config.addresses,
            shape,
            at,
            endpoint,
            wg,
            peer_number: 0,
            link: Link::Connecting { since: now },
            heard: None,
            traffic: Traffic::default(),
            jitter: Jitter(config.seed),
            outbox: Outbox::default(),
            inbox: Inbox::default(),
            opened: Vec::new(),
            events: VecDeque::new(),
            dropped: DropCounts::default(),
        })
    }

    /// The same with another MTU than [`DEFAULT_MTU`] for inner packets.
    #[must_use]
    pub fn with_mtu(mut self, mtu: u16, now: Instant) -> Self {
        self.shape.mtu = mtu.into();
        self.restart(now);
        self
    }

    /// Takes packets up to another length from now on, since the path to the gateway has changed.
    pub fn set_mtu(&mut self, mtu: u16) {
        self.shape.mtu = mtu.into();
        self.wg.set_mtu(mtu.into());
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
        match self
            .wg
            .seal(&packets, self.endpoint, &mut self.outbox, now)?
        {
            Sealed::Sent => Ok(()),
            Sealed::Waiting => {
                self.handle_timeout(now);
                Ok(())
            }
        }
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
        let needed = datagram.len().max(MIN_OPENED);
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
        let heard = self
            .wg
            .open(message, datagram, from, buf, &mut self.outbox, now)?;
        match heard {
            // Only who has the keys of a session moves the endpoint: an initiation may be replayed from anywhere.
            Heard::Initiation | Heard::Cookie => return Ok(None),
            Heard::Response | Heard::Keepalive | Heard::Packet(_) => {
                self.on_heard(message, from, now)
            }
        }
        let Heard::Packet(packet) = heard else {
            return Ok(None);
        };
        let header = packet::parse(packet)?;
        let packet = SourceChecked::from_gateway(packet, &header, &self.addresses)?;
        self.wg.traffic.count_received(header.len);
        Ok(Some(packet))
    }

    fn on_heard(&mut self, message: Message, from: SocketAddr, now: Instant) {
        self.heard = Some(now);
        if from != self.endpoint {
            self.endpoint = from;
            self.tell(AgentEvent::Roamed { endpoint: from });
        }
        let is_new = matches!(message, Message::Response { .. } | Message::Data { .. })
            && matches!(self.link, Link::Connecting { .. });
        if is_new && self.wg.timers.session_since(now).is_some() {
            self.link = Link::Connected { since: now };
            self.tell(AgentEvent::Connected {
                gateway: self.gateway(),
                endpoint: from,
            });
        }
    }

    /// Does what is due: retries, keepalives, renewal, the next gateway.
    pub fn handle_timeout(&mut self, now: Instant) {
        loop {
            match self
                .wg
                .tick(Some(self.endpoint), &mut self.outbox, &mut self.jitter, now)
            {
                Tick::Quiet => break,
                Tick::Expired => self.disconnect(now),
                Tick::WantsHandshake => self.try_handshake(now),
            }
        }
        self.wg.forget_unconfirmed(now);
    }

    fn try_handshake(&mut self, now: Instant) {
        let patience = match self.link {
            Link::Connecting { .. } => PATIENCE,
            Link::Connected { .. } => PATIENCE_IN_USE,
        };
        let attempt = self.wg.timers.attempt();
        let since = attempt.map_or(now, |attempt| attempt.since);
        let silent_since = self.heard.map_or(since, |heard| heard.max(since));
        if now.saturating_duration_since(silent_since) >= patience {
            self.at = next_place(&self.gateways, self.at);
            self.restart(now);
            let (gateway, endpoint) = (self.gateway(), self.endpoint);
            self.tell(AgentEvent::Trying { gateway, endpoint });
        }
        // A full outbox costs one try; the next is due in seconds.
        let _sent = self
            .wg
            .initiate(self.endpoint, &mut self.outbox, &mut self.jitter, now);
    }

    /// When [`AgentTunnel::handle_timeout`] is to be called, and why.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.wg.next_deadline()
    }

    /// The next run of datagrams to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit<'_>> {
        self.outbox.poll()
    }

    /// What happened since it was last asked.
    pub fn poll_event(&mut self) -> Option<AgentEvent> {
        self.events.pop_front()
    }

    /// Takes over the gateways and addresses of a renewed lease; the session stays if its gateway does.
    ///
    /// # Errors
    /// When the lease names nowhere to go or nobody to be; the old one stays in use.
    pub fn replace_lease(
        &mut self,
        gateways: Vec<GatewayConfig>,
        addresses: Vec<IpNet>,
        now: Instant,
    ) -> Result<(), AgentConfigError> {
        let gateways = reachable(gateways)?;
        if addresses.is_empty() {
            return Err(AgentConfigError::NoAddress);
        }
        let current = self.gateway();
        let kept = gateways
            .iter()
            .position(|gateway| gateway.public == current);
        (self.gateways, self.addresses) = (gateways, addresses);
        self.at = Place {
            gateway: kept.unwrap_or(0),
            endpoint: 0,
        };
        if kept.is_none() {
            self.restart(now);
        }
        Ok(())
    }

    /// Shakes hands at once, with the gateway in use, when the way to it may have changed: a new address, a link that came up.
    pub fn handle_network_change(&mut self, now: Instant) {
        self.wg.timers.give_up_attempt();
        self.wg.timers.want_handshake(now);
        self.handle_timeout(now);
    }

    /// Whether there is a session.
    #[must_use]
    pub fn link(&self) -> Link {
        self.link
    }

    /// The key of the gateway in use or tried.
    #[must_use]
    pub fn gateway(&self) -> [u8; 32] {
        target(&self.gateways, self.at).map_or([0; 32], |(public, _)| public)
    }

    /// Our own key.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        self.gate.public()
    }

    /// Counters, and the age of the session.
    #[must_use]
    pub fn stats(&self, now: Instant) -> PeerStats {
        let since = self.wg.timers.session_since(now);
        PeerStats {
            traffic: self.traffic.plus(self.wg.traffic),
            endpoint: Some(self.endpoint),
            session_age: since.map(|since| now.saturating_duration_since(since)),
        }
    }

    /// How packets died.
    #[must_use]
    pub fn dropped(&self) -> &DropCounts {
        &self.dropped
    }

    /// Begins anew with the gateway and endpoint of `self.at`; what waits for a session goes along.
    fn restart(&mut self, now: Instant) {
        self.disconnect(now);
        self.traffic = self.traffic.plus(self.wg.traffic);
        let waiting = self.wg.take_waiting();
        let Some((public, endpoint)) = target(&self.gateways, self.at) else {
            return;
        };
        self.endpoint = endpoint;
        // 24 bits; a late answer to an earlier peer must not meet the index of this one.
        self.peer_number = (self.peer_number + 1) & 0x00ff_ffff;
        self.wg = self.gate.peer(public, self.peer_number, self.shape, now);
        self.wg.set_waiting(waiting);
        self.wg.timers.want_handshake(now);
    }

    fn disconnect(&mut self, now: Instant) {
        if let Link::Connected { .. } = self.link {
            self.link = Link::Connecting { since: now };
            self.tell(AgentEvent::Disconnected {
                gateway: self.gateway(),
            });
        }
        self.wg.timers.want_handshake(now);
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

/// Gateways without an endpoint are of no use.
fn reachable(mut gateways: Vec<GatewayConfig>) -> Result<Vec<GatewayConfig>, AgentConfigError> {
    gateways.retain(|gateway| !gateway.endpoints.is_empty());
    if gateways.is_empty() {
        Err(AgentConfigError::NoEndpoint)
    } else {
        Ok(gateways)
    }
}

fn target(gateways: &[GatewayConfig], at: Place) -> Option<([u8; 32], SocketAddr)> {
    let gateway = gateways.get(at.gateway)?;
    Some((gateway.public, *gateway.endpoints.get(at.endpoint)?))
}

/// The next endpoint of the gateway, else the first of the next gateway, round and round.
fn next_place(gateways: &[GatewayConfig], at: Place) -> Place {
    let further = Place {
        endpoint: at.endpoint + 1,
        ..at
    };
    if target(gateways, further).is_some() {
        return further;
    }
    Place {
        gateway: (at.gateway + 1) % gateways.len().max(1),
        endpoint: 0,
    }
}
