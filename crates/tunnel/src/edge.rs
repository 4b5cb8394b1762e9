//! The gateway's side: many leased peers behind one key. A datagram finds its peer by receiver index, an initiation
//! by the static key it claims; an inner packet by its destination. A peer is asleep until one of them asks for it.

mod elsewhere;
mod leases;
mod renewal;
mod report;
mod sampling;
mod standing;
mod wakes;

pub use elsewhere::{Elsewhere, Taken};
use elsewhere::{Found, Received};

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use x25519_dalek::StaticSecret;

pub use crate::peers::{PeerConfig, UpsertError, Upserted};
pub use report::EdgeEvent;
pub use standing::Carried;
pub(crate) use standing::Standing;

use crate::DEFAULT_MTU;
use crate::dropped::{DropCounts, Dropped};
use crate::offload::ecn::OuterTos;
use crate::offload::segment::Segments;
use crate::offload::vnet::Vnet;
use crate::offload::{Accepts, Inbox};
use crate::packet;
use crate::peers::{Due, Peer, Peers};
use crate::policy::{Slot, SourceChecked};
use crate::routes::Holder;
use crate::sample::{Direction, Sampler};
use crate::share::Share;
use crate::stats::{Handshakes, Ledger, Traffic};
use crate::timers::{Jitter, Pace};
use crate::too_big::TooBig;
use crate::transmit::{Outbox, Transmit};
use renewal::Renewal;
use standing::Duty;
use wakes::Wakes;

use crate::wg::{Gate, Heard, Message, OVERHEAD_BYTES, Sealed, Shape, Tick, initiation_in};

/// Initiations to a peer that does not answer, before it is left asleep.
const MAX_TRIES: u32 = 4;
/// Packets that wait for a peer's session.
const MAX_WAITING: usize = 8;
/// Peers ticked in one call, so that a crowd does not hold packets up; the rest stays due.
const TICKS_PER_CALL: usize = 256;
/// Events that the shell has not taken yet; it takes them after every call.
const MAX_EVENTS: usize = 4_096;
/// A tick is never due at once again, whatever the timers say.
const MIN_TICK: Duration = Duration::from_millis(1);

/// How much a gateway takes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EdgeLimits {
    /// Leases in the table.
    pub max_peers: usize,
    /// Peers with a session or a handshake, at about 12 KB each.
    pub max_awake: usize,
    /// Handshake messages that come to nothing in a second, beyond which senders must show a cookie.
    pub handshakes_per_s: u32,
    /// The longest inner packet.
    pub mtu: u16,
}

impl Default for EdgeLimits {
    fn default() -> Self {
        Self {
            max_peers: 262_144,
            max_awake: 262_144,
            handshakes_per_s: 1_000,
            mtu: DEFAULT_MTU,
        }
    }
}

/// The tunnel of one gateway, or of one worker of it.
pub struct EdgeTunnel {
    gate: Gate,
    share: Share,
    peers: Peers,
    shape: Shape,
    max_awake: usize,
    wakes: Wakes,
    renewals: VecDeque<Renewal>,
    duty: Duty,
    jitter: Jitter,
    outbox: Outbox,
    inbox: Inbox,
    /// Where datagrams are opened.
    opened: Vec<u8>,
    too_big: TooBig,
    events: VecDeque<EdgeEvent>,
    dropped: DropCounts,
    received: Traffic,
    header_bytes_added: u64,
    ledger: Ledger,
    handshakes: Handshakes,
    /// None where nothing is drawn.
    sampler: Option<Box<Sampler>>,
}

impl EdgeTunnel {
    /// A gateway without peers and with the default limits.
    #[must_use]
    pub fn new(private: StaticSecret, since_1970: Duration, now: Instant) -> Self {
        Self::with_limits(private, EdgeLimits::default(), since_1970, now)
    }

    /// A gateway without peers.
    #[must_use]
    pub fn with_limits(
        private: StaticSecret,
        limits: EdgeLimits,
        since_1970: Duration,
        now: Instant,
    ) -> Self {
        Self::for_worker(private, limits, Share::whole(), since_1970, now)
    }

    /// One worker's part of a gateway, without peers. `since_1970` is the calendar's time at `now`: a peer that remembers an
    /// initiation of this gateway takes only later ones, a restart notwithstanding.
    #[must_use]
    pub fn for_worker(
        private: StaticSecret,
        limits: EdgeLimits,
        share: Share,
        since_1970: Duration,
        now: Instant,
    ) -> Self {
        let wasted = share.wasted();
        let gate = Gate::new(private, limits.handshakes_per_s, wasted, since_1970, now);
        // Retries of gateways need not differ between runs, only between gateways.
        let seed = gate
            .public()
            .iter()
            .fold(0, |seed: u64, byte| seed.rotate_left(8) ^ u64::from(*byte));
        Self {
            gate,
            peers: Peers::new(limits.max_peers, share.worker(), now),
            share,
            shape: Shape {
                pace: Pace::EDGE,
                mtu: limits.mtu.into(),
                max_waiting: MAX_WAITING,
                tos: OuterTos::default(),
            },
            max_awake: limits.max_awake,
            wakes: Wakes::new(now),
            renewals: VecDeque::new(),
            duty: Duty::SERVING,
            jitter: Jitter(seed),
            outbox: Outbox::default(),
            inbox: Inbox::default(),
            opened: Vec::new(),
            too_big: TooBig::of_destinations(now),
            events: VecDeque::new(),
            dropped: DropCounts::default(),
            received: Traffic::default(),
            header_bytes_added: 0,
            ledger: Ledger::default(),
            handshakes: Handshakes::default(),
            sampler: None,
        }
    }

    /// Tells what the TUN device takes.
    pub fn set_accepts(&mut self, accepts: Accepts) {
        self.inbox.set_accepts(accepts);
    }

    /// Chooses what the outer header shows of differentiated services, for peers that wake from now on.
    pub fn set_outer_tos(&mut self, tos: OuterTos) {
        self.shape.tos = tos;
    }

    /// Takes a whole packet for one of the peers.
    ///
    /// # Errors
    /// When it is dropped, and then counted.
    pub fn handle_tun_input(&mut self, packet: &[u8], now: Instant) -> Result<(), Dropped> {
        let result = self.take_out(packet, Vnet::default(), now);
        let result = result.and_then(|taken| taken.here(Dropped::NotRouted));
        self.count(result)
    }

    /// Takes a frame of the TUN device, which may stand for many packets for one of the peers. What is too long for its
    /// peer's path is answered by [`EdgeTunnel::poll_tun`].
    ///
    /// # Errors
    /// When it is dropped, or a part of it for another reason than the lease's rate, and then counted.
    pub fn handle_tun_frame(&mut self, frame: &[u8], now: Instant) -> Result<Taken, Dropped> {
        let result = Vnet::split(frame).and_then(|(vnet, packet)| self.take_out(packet, vnet, now));
        self.count(result)
    }

    /// Does that, and keeps the ledger of what the device counts as sent.
    fn take_out(&mut self, packet: &[u8], vnet: Vnet, now: Instant) -> Result<Taken, Dropped> {
        let (settled, added) = (self.outbox.settled(), self.header_bytes_added);
        let result = self.send(packet, vnet, now);
        if !matches!(result, Ok(Taken::Elsewhere(_))) {
            let taken = packet.len() as u64 + self.header_bytes_added - added;
            self.ledger.lost += taken.saturating_sub(self.outbox.settled() - settled);
        }
        result
    }

    fn send(&mut self, packet: &[u8], vnet: Vnet, now: Instant) -> Result<Taken, Dropped> {
        let header = packet::parse(packet)?;
        let packet = packet.get(..header.len).ok_or(Dropped::Malformed)?;
        let mut packets = Segments::of(vnet, packet)?;
        let slot = match self.peers.routes.lookup(header.destination) {
            Some(Holder::Here(slot)) => slot,
            Some(Holder::Elsewhere { worker, .. }) => return Ok(Taken::elsewhere(worker)),
            None => return Err(Dropped::NotRouted),
        };
        self.header_bytes_added += (packets.total() - packet.len()) as u64;
        let peer = self.peers.get_mut(slot).ok_or(Dropped::NotRouted)?;
        if peer.is_expired(now) {
            return Err(Dropped::LeaseExpired);
        }
        let to = peer.endpoint.ok_or(Dropped::NoSession)?;
        let is_asleep = peer.awake.is_none();
        let over = peer.over_limit(&packets, now);
        if over == packets.count() {
            self.dropped.add_many(Dropped::OverLimit, over - 1);
            return Err(Dropped::OverLimit);
        }
        packets.leave_out(over);
        self.dropped.add_many(Dropped::OverLimit, over);
        if is_asleep {
            self.wakes.take(now)?;
            self.wake(slot, now)?;
        }
        let wg = self
            .peers
            .get_mut(slot)
            .and_then(|peer| peer.awake.as_mut())
            .ok_or(Dropped::NoSession)?;
        let sealed = wg
            .seal(&packets, to, &mut self.outbox, now)
            .inspect_err(|reason| {
                if *reason == Dropped::TooBig {
                    let answer = self.too_big.answer(packet, wg.mtu(), now);
                    self.ledger.told += self.inbox.push_answer(answer) as u64;
                }
            });
        let wants_sooner = wg.wants_sooner();
        if sealed.is_ok() {
            self.sample(Direction::ToRouter, header.source, &packets);
        }
        if sealed == Ok(Sealed::Waiting) {
            self.tick(slot, now);
        } else if wants_sooner {
            self.rearm(slot, now);
        }
        sealed.map(|_| Taken::Here)
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
        let result = self
            .receive(datagram, from, buf, now)
            .and_then(|received| match received {
                Received::Packet(slot, packet) => {
                    self.note_received(slot, packet.as_bytes().len());
                    Ok(Some(packet))
                }
                Received::Nothing => Ok(None),
                Received::Elsewhere(_) => Err(Dropped::NoSession),
            });
        self.count(result)
    }

    /// Takes a datagram whose outer header has the TOS byte `tos`; what it brings for the TUN device waits for
    /// [`EdgeTunnel::poll_tun`], joined with others of its flow until [`EdgeTunnel::flush_tun`].
    ///
    /// # Errors
    /// When it is dropped, and then counted.
    pub fn handle_datagram(
        &mut self,
        datagram: &[u8],
        from: SocketAddr,
        tos: u8,
        now: Instant,
    ) -> Result<Taken, Dropped> {
        let mut opened = std::mem::take(&mut self.opened);
        let needed = datagram.len();
        if opened.len() < needed {
            opened.resize(needed, 0);
        }
        let result = match self.receive(datagram, from, &mut opened, now) {
            Ok(Received::Packet(slot, packet)) => {
                let bytes = packet.as_bytes().len();
                let pushed = self.inbox.push(packet, tos);
                pushed.map(|()| {
                    self.note_received(slot, bytes);
                    Taken::Here
                })
            }
            Ok(Received::Nothing) => Ok(Taken::Here),
            Ok(Received::Elsewhere(elsewhere)) => Ok(Taken::Elsewhere(elsewhere)),
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
    ) -> Result<Received<'b>, Dropped> {
        let message = self.gate.admit(datagram, from, &mut self.outbox, now)?;
        let index = match message {
            Message::Initiation => return self.receive_initiation(datagram, from, now),
            Message::Response { index } | Message::Cookie { index } | Message::Data { index } => {
                index
            }
        };
        let received = match self.find(index)? {
            Found::Here(slot) => self.open(slot, (message, datagram), from, buf, now)?,
            Found::Elsewhere(elsewhere) => return Ok(Received::Elsewhere(elsewhere)),
        };
        if matches!(message, Message::Response { .. }) {
            self.gate.note_useful();
        }
        Ok(received)
    }

    fn open<'b>(
        &mut self,
        slot: Slot,
        (message, datagram): (Message, &[u8]),
        from: SocketAddr,
        buf: &'b mut [u8],
        now: Instant,
    ) -> Result<Received<'b>, Dropped> {
        let peer = self.peers.get_mut(slot).ok_or(Dropped::NoSession)?;
        if peer.is_expired(now) {
            return Err(Dropped::LeaseExpired);
        }
        let wg = peer.awake.as_mut().ok_or(Dropped::NoSession)?;
        let before = wg.timers.session_since(now);
        let asked = wg.timers.attempt().map(|attempt| attempt.since);
        // What is refused changes nothing, and may not put off what is due.
        let heard = wg.open(message, datagram, from, buf, &mut self.outbox, now)?;
        let since = wg.timers.session_since(now);
        if let Some(since) = since.filter(|_| since != before) {
            let is_ours = matches!(message, Message::Response { .. });
            let began = asked.filter(|_| is_ours).unwrap_or(since);
            self.handshakes.count(now.saturating_duration_since(began));
        }
        let is_new = before.is_none() && since.is_some();
        if wg.wants_sooner() || !matches!(message, Message::Data { .. }) || is_new {
            self.rearm(slot, now);
        }
        match heard {
            Heard::Cookie => return Ok(Received::Nothing),
            Heard::Response | Heard::Keepalive | Heard::Packet(_) => {
                self.on_heard(slot, from, is_new, now)
            }
        }
        let Heard::Packet(packet) = heard else {
            return Ok(Received::Nothing);
        };
        let peer = self.peers.get_mut(slot).ok_or(Dropped::NoSession)?;
        if let Some(initiation) = initiation_in(packet) {
            let taken = self.take_renewal(slot, initiation, from, now);
            return taken.map(|()| Received::Nothing);
        }
        let header = packet::parse(packet)?;
        let packet = SourceChecked::from_peer(packet, &header, &peer.allowed)?;
        let room = datagram.len().saturating_sub(OVERHEAD_BYTES);
        if self.take_ask(slot, (packet.as_bytes(), room), &header, now) {
            return Ok(Received::Nothing);
        }
        let peer = self.peers.get_mut(slot).ok_or(Dropped::NoSession)?;
        if let Some(meter) = &mut peer.meter
            && !meter.take_from_router(header.len, now)
        {
            return Err(Dropped::OverLimit);
        }
        let packets = Segments::plain(packet.as_bytes());
        self.sample(Direction::FromRouter, header.destination, &packets);
        Ok(Received::Packet(slot, packet))
    }

    /// Counts a packet of a peer that goes to the device.
    fn note_received(&mut self, slot: Slot, bytes: usize) {
        if let Some(wg) = self
            .peers
            .get_mut(slot)
            .and_then(|peer| peer.awake.as_mut())
        {
            wg.traffic.count_received(bytes);
            self.received.count_received(bytes);
        }
    }

    fn on_heard(&mut self, slot: Slot, from: SocketAddr, is_new: bool, now: Instant) {
        let Some(peer) = self.peers.get_mut(slot) else {
            return;
        };
        let id = peer.id;
        let before = peer.endpoint.replace(from);
        if is_new {
            self.tell(EdgeEvent::Connected { id });
        } else if before != Some(from) {
            if let Some(wg) = &mut peer.awake {
                wg.greet(from, &mut self.outbox, now);
            }
            self.tell(EdgeEvent::Roamed { id });
        }
    }

    /// Does what is due: ends of leases, retries, keepalives, sessions that die.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.give_notice(now);
        self.answer_renewals(now);
        for _ in 0..TICKS_PER_CALL {
            match self.peers.take_due(now) {
                Some(Due::Tick(slot)) => self.tick(slot, now),
                Some(Due::Expired(slot)) => self.expire(slot),
                None => return,
            }
        }
    }

    fn expire(&mut self, slot: Slot) {
        self.peers.sleep(slot);
        self.stand_down(slot);
        if let Some(Peer { id, public, .. }) = self.peers.get(slot) {
            let event = EdgeEvent::Expired {
                id: *id,
                public: *public,
            };
            self.tell(event);
        }
    }

    fn tick(&mut self, slot: Slot, now: Instant) {
        let Some(peer) = self.peers.get_mut(slot) else {
            return;
        };
        let (id, endpoint) = (peer.id, peer.endpoint);
        if let Some(wg) = &mut peer.awake {
            wg.forget_unconfirmed(now);
            loop {
                match wg.tick(endpoint, &mut self.outbox, now) {
                    Tick::Quiet => break,
                    Tick::Expired => {}
                    Tick::WantsHandshake => {
                        let tries = wg.timers.attempt().map_or(0, |attempt| attempt.tries);
                        match endpoint.filter(|_| tries < MAX_TRIES) {
                            // A full outbox costs one try; the next is due in seconds.
                            Some(to) => {
                                _ = wg.initiate(to, &mut self.outbox, &mut self.jitter, now)
                            }
                            None => wg.timers.give_up_attempt(),
                        }
                    }
                }
            }
            if wg.is_at_rest() {
                self.peers.sleep(slot);
                self.on_asleep(slot);
                self.tell(EdgeEvent::Asleep { id });
                return;
            }
        }
        self.rearm(slot, now);
    }

    fn rearm(&mut self, slot: Slot, now: Instant) {
        let awake = self
            .peers
            .get_mut(slot)
            .and_then(|peer| peer.awake.as_mut());
        let at = awake.map(|wg| {
            // Who has nothing to wait for is to be put to sleep.
            let next = wg.next_deadline().map_or(now, |(at, _why)| at);
            let at = next.max(now + MIN_TICK);
            wg.armed = Some(at);
            at
        });
        self.peers.arm(slot, at);
    }

    /// When [`EdgeTunnel::handle_timeout`] is to be called, and why.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let peers = self.peers.next_deadline();
        let renewal = self.renewals.front().map(Renewal::deadline);
        [peers, self.duty.next_deadline(), renewal]
            .into_iter()
            .flatten()
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
    pub fn poll_event(&mut self) -> Option<EdgeEvent> {
        self.events.pop_front()
    }

    fn wake(&mut self, slot: Slot, now: Instant) -> Result<(), Dropped> {
        if self.peers.awake() >= self.max_awake {
            return Err(Dropped::TableFull);
        }
        let peer = self.peers.get(slot).ok_or(Dropped::UnknownPeer)?;
        let psk = peer.psk.as_deref();
        let wg = self.gate.peer(peer.public, psk, slot, self.shape, now);
        self.peers.wake(slot, wg);
        self.peers.arm(slot, Some(now + MIN_TICK));
        Ok(())
    }

    fn tell(&mut self, event: EdgeEvent) {
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
