//! One peer's WireGuard: its handshake and its sessions ([`crate::noise`]) under this crate's timers, and the packets
//! that wait for a session.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use x25519_dalek::StaticSecret;

use crate::dropped::Dropped;
use crate::noise::{By, Checker, HEADER_BYTES, Identity, Noise, Verdict};
use crate::offload::ecn::OuterTos;
use crate::offload::segment::Segments;
use crate::psk::Psk;
use crate::stats::Traffic;
use crate::timers::{Due, Jitter, Pace, Role, Timers, is_alive};
use crate::transmit::Outbox;

pub(crate) use crate::noise::{Initiator, Message, OVERHEAD_BYTES, initiation_in};

/// Packets are padded to a multiple of this (whitepaper, section 5.4.6).
const PADDING_BYTES: usize = 16;
/// Initiations inside a session are looked at no more often.
const BETWEEN_RENEWALS: Duration = Duration::from_secs(1);
/// How long an answered initiation may stay without its first packet.
const CONFIRM_WITHIN: Duration = Duration::from_secs(15);
/// A peer changes where it is carried no more often; it repeats what was not answered.
const BETWEEN_STANDINGS: Duration = Duration::from_millis(50);
/// A peer that comes by two ways in turn is greeted no more often.
const BETWEEN_GREETINGS: Duration = Duration::from_millis(250);

/// What an authentic datagram brought.
#[derive(Debug)]
pub(crate) enum Heard<'b> {
    /// The answer to ours: there is a session.
    Response,
    /// A cookie for our next initiation.
    Cookie,
    /// An empty packet.
    Keepalive,
    /// An inner packet, of which nothing is checked but that it is the peer's.
    Packet(&'b mut [u8]),
}

/// Where an outgoing packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sealed {
    /// In the outbox.
    Sent,
    /// Waiting for a session; a handshake is due.
    Waiting,
}

/// What [`Wg::tick`] wants of its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tick {
    Quiet,
    WantsHandshake,
    Expired,
}

/// Our key, and the limit on handshakes that anybody may ask of it.
pub(crate) struct Gate {
    us: Arc<Identity>,
    checker: Checker,
    /// Admitted messages in a second that may come to nothing before everybody must show a cookie.
    max_wasted: u32,
    /// Counts them, for all gates of one gateway.
    wasted: Arc<AtomicU32>,
    wasted_before: u32,
    counted_since: Instant,
}

impl Gate {
    /// `since_1970` is the calendar's time at `now`: peers that remember an initiation of ours take only later ones.
    pub(crate) fn new(
        private: StaticSecret,
        max_wasted: u32,
        wasted: Arc<AtomicU32>,
        since_1970: Duration,
        now: Instant,
    ) -> Self {
        let us = Identity::new(private, since_1970, now);
        Self {
            checker: Checker::new(&us.public()),
            us: Arc::new(us),
            max_wasted,
            wasted_before: wasted.load(Ordering::Relaxed),
            wasted,
            counted_since: now,
        }
    }

    pub(crate) fn public(&self) -> [u8; 32] {
        self.us.public()
    }

    /// Reads what `datagram` is and checks that a handshake message is for us; under load its sender first
    /// has to show, with a cookie, that it receives at its address.
    pub(crate) fn admit(
        &mut self,
        datagram: &[u8],
        from: SocketAddr,
        outbox: &mut Outbox,
        now: Instant,
    ) -> Result<Message, Dropped> {
        let message = Message::classify(datagram)?;
        if matches!(message, Message::Cookie { .. } | Message::Data { .. }) {
            return Ok(message);
        }
        let is_under_load = self.is_under_load(now);
        match self.checker.check(datagram, from, is_under_load, now)? {
            Verdict::Right => {
                self.wasted.fetch_add(1, Ordering::Relaxed);
                Ok(message)
            }
            Verdict::Ask(reply) => {
                outbox.push(&reply, from)?;
                Err(Dropped::RateLimited)
            }
        }
    }

    /// Whoever has our public key can make messages that cost a key agreement before we know that they are worth nothing.
    fn is_under_load(&mut self, now: Instant) -> bool {
        let wasted = self.wasted.load(Ordering::Relaxed);
        if now.saturating_duration_since(self.counted_since) >= Duration::from_secs(1) {
            self.counted_since = now;
            self.wasted_before = wasted;
        }
        // What was under way when the second began may have turned out useful since.
        let more = wasted.wrapping_sub(self.wasted_before).cast_signed();
        more.max(0).cast_unsigned() >= self.max_wasted
    }

    /// An admitted handshake message was worth its work.
    pub(crate) fn note_useful(&self) {
        self.wasted.fetch_sub(1, Ordering::Relaxed);
    }

    /// Who sent an initiation; proved only by what follows.
    pub(crate) fn initiator(&self, datagram: &[u8]) -> Result<Initiator, Dropped> {
        self.us.initiator(datagram)
    }

    /// A peer without a session; `number` becomes the upper 24 bits of its receiver indexes.
    pub(crate) fn peer(
        &self,
        public: [u8; 32],
        psk: Option<&Psk>,
        number: u32,
        shape: Shape,
        now: Instant,
    ) -> Wg {
        let psk = psk.map(Psk::bytes).unwrap_or_default();
        Wg {
            noise: Noise::new(Arc::clone(&self.us), public, psk, number),
            timers: Timers::new(shape.pace, now),
            waiting: VecDeque::new(),
            shape,
            armed: None,
            traffic: Traffic::default(),
            renewed: None,
            greeted: None,
            stood: None,
        }
    }
}

/// What all peers of a tunnel have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) pace: Pace,
    pub(crate) mtu: usize,
    /// How many packets wait for a session.
    pub(crate) max_waiting: usize,
    /// The outer header's TOS byte.
    pub(crate) tos: OuterTos,
}

/// One peer that is awake.
pub(crate) struct Wg {
    noise: Noise,
    pub(crate) timers: Timers,
    waiting: VecDeque<Box<[u8]>>,
    shape: Shape,
    /// When its owner is going to tick it.
    pub(crate) armed: Option<Instant>,
    /// What passed since it woke.
    pub(crate) traffic: Traffic,
    /// When an initiation came inside a session.
    renewed: Option<Instant>,
    greeted: Option<Instant>,
    /// When an ask of the peer's changed where it is carried.
    stood: Option<Instant>,
}

impl Wg {
    /// Takes packets up to this length from now on.
    pub(crate) fn set_mtu(&mut self, mtu: usize) {
        self.shape.mtu = mtu;
    }

    /// The longest packet that is taken.
    pub(crate) fn mtu(&self) -> u16 {
        u16::try_from(self.shape.mtu).unwrap_or(u16::MAX)
    }

    /// Seals the packets of one frame for `to`, or keeps them until there is a session. With several the answer is the
    /// last one's, or the first refusal's.
    pub(crate) fn seal(
        &mut self,
        packets: &Segments<'_>,
        to: SocketAddr,
        outbox: &mut Outbox,
        now: Instant,
    ) -> Result<Sealed, Dropped> {
        if packets.longest() > self.shape.mtu {
            return Err(Dropped::TooBig);
        }
        if self.timers.session_since(now).is_none() {
            return self.keep(packets, outbox, now);
        }
        let sealed = self.seal_all(packets, to, outbox, now);
        self.timers.on_data_sent(now);
        sealed.map(|()| Sealed::Sent)
    }

    fn seal_all(
        &mut self,
        packets: &Segments<'_>,
        to: SocketAddr,
        outbox: &mut Outbox,
        now: Instant,
    ) -> Result<(), Dropped> {
        let tos = self.shape.tos.outer(packets.headers());
        let longest = packets.longest() + PADDING_BYTES + OVERHEAD_BYTES;
        for index in 0..packets.count() {
            let room = outbox.reserve(longest)?;
            let place = room.get_mut(HEADER_BYTES..).unwrap_or_default();
            let len = packets.write(index, place)?;
            let padded = len
                .next_multiple_of(PADDING_BYTES)
                .min(self.shape.mtu)
                .max(len);
            place.get_mut(len..padded).ok_or(Dropped::TooBig)?.fill(0);
            self.seal_reserved(padded, (to, tos), outbox, now)?;
            self.traffic.count_sent(len);
            outbox.count_carried(len);
        }
        Ok(())
    }

    /// Seals a packet of our own with padding up to `length`, whatever the MTU; it counts as nobody's.
    pub(crate) fn seal_padded(
        &mut self,
        packet: &[u8],
        length: usize,
        to: SocketAddr,
        outbox: &mut Outbox,
        now: Instant,
    ) -> Result<(), Dropped> {
        if self.timers.session_since(now).is_none() {
            return Err(Dropped::NoSession);
        }
        let padded = packet.len().next_multiple_of(PADDING_BYTES).max(length);
        let room = outbox.reserve(padded + OVERHEAD_BYTES)?;
        let place = room.get_mut(HEADER_BYTES..).unwrap_or_default();
        let (place, rest) = place.split_at_mut(packet.len());
        place.copy_from_slice(packet);
        rest.fill(0);
        self.timers.on_data_sent(now);
        self.seal_reserved(padded, (to, 0), outbox, now)
    }

    /// Seals the packet of `len` bytes, padding included, that was written into the outbox's room.
    fn seal_reserved(
        &mut self,
        len: usize,
        (to, tos): (SocketAddr, u8),
        outbox: &mut Outbox,
        now: Instant,
    ) -> Result<(), Dropped> {
        let sent = len + OVERHEAD_BYTES;
        if let Err(reason) = self.noise.seal(outbox.reserve(sent)?) {
            // The counter has come to its end.
            self.timers.on_session_lost(now);
            return Err(reason);
        }
        outbox.commit(sent, to, tos);
        Ok(())
    }

    /// Keeps packets for the session to come; those of earlier frames make room, the oldest first, as whoever sent them has
    /// sent again or given up.
    fn keep(
        &mut self,
        packets: &Segments<'_>,
        outbox: &mut Outbox,
        now: Instant,
    ) -> Result<Sealed, Dropped> {
        self.timers.want_handshake(now);
        let mut kept = Ok(Sealed::Waiting);
        let mut earlier = self.waiting.len();
        for index in 0..packets.count() {
            if self.waiting.len() >= self.shape.max_waiting {
                if earlier == 0 {
                    return Err(Dropped::QueueFull);
                }
                kept = Err(Dropped::QueueFull);
                earlier -= 1;
                self.give_up_oldest(outbox);
            }
            let mut packet = vec![0; packets.longest()];
            let len = packets.write(index, &mut packet)?;
            packet.truncate(len);
            outbox.note_waiting(len);
            self.waiting.push_back(packet.into());
        }
        kept
    }

    fn give_up_oldest(&mut self, outbox: &mut Outbox) {
        if let Some(packet) = self.waiting.pop_front() {
            outbox.note_fetched(packet.len());
            outbox.note_given_up(packet.len());
        }
    }

    /// Answers an initiation of this peer, to where it came from.
    pub(crate) fn accept(
        &mut self,
        initiator: &Initiator,
        from: SocketAddr,
        outbox: &mut Outbox,
        now: Instant,
    ) -> Result<(), Dropped> {
        let response = self.noise.accept(initiator, now)?;
        outbox.push(&response, from)
    }

    /// Opens `datagram`, which is no initiation, into `buf`; answers go to the outbox.
    pub(crate) fn open<'b>(
        &mut self,
        message: Message,
        datagram: &[u8],
        from: SocketAddr,
        buf: &'b mut [u8],
        outbox: &mut Outbox,
        now: Instant,
    ) -> Result<Heard<'b>, Dropped> {
        let index = match message {
            Message::Initiation => return Err(Dropped::Unexpected),
            Message::Response { index } => {
                self.notice_late(index);
                self.noise.finish(datagram, now)?;
                self.on_response(from, outbox, now);
                return Ok(Heard::Response);
            }
            Message::Cookie { index } => {
                self.notice_late(index);
                self.noise.take_cookie(datagram, now)?;
                self.timers.be_patient();
                return Ok(Heard::Cookie);
            }
            Message::Data { index } => index,
        };
        if buf.len() < datagram.len() {
            return Err(Dropped::TooBig);
        }
        let since = self.noise.session_since(index);
        if !since.is_some_and(|since| is_alive(since, now)) {
            return Err(Dropped::NoSession);
        }
        let (by, packet) = self.noise.open(index, datagram, buf)?;
        if let By::Confirmed(since) = by {
            // The first packet of a session that we answered proves that its initiator has the keys.
            self.timers.on_established(Role::Responder, since, now);
            self.flush(from, outbox, now);
        }
        if packet.is_empty() {
            self.timers.on_keepalive_received(now);
            return Ok(Heard::Keepalive);
        }
        self.timers.on_data_received(now);
        Ok(Heard::Packet(packet))
    }

    /// Answers and cookies that come too late each time would leave us without a session for ever.
    fn notice_late(&mut self, index: u32) {
        if self.noise.was_replaced(index) {
            self.timers.on_late_answer();
        }
    }

    /// There is a session, of which the responder learns by the first packet.
    fn on_response(&mut self, from: SocketAddr, outbox: &mut Outbox, now: Instant) {
        self.timers.on_established(Role::Initiator, now, now);
        if !self.flush(from, outbox, now) {
            self.send_keepalive(Some(from), outbox, now);
        }
    }

    /// Sends what waits; whether anything was sent.
    fn flush(&mut self, to: SocketAddr, outbox: &mut Outbox, now: Instant) -> bool {
        let mut has_sent = false;
        while let Some(packet) = self.waiting.pop_front() {
            outbox.note_fetched(packet.len());
            match self.seal(&Segments::plain(&packet), to, outbox, now) {
                Ok(Sealed::Sent) => has_sent = true,
                // The path may have become narrower while it waited.
                Err(Dropped::TooBig) => outbox.note_given_up(packet.len()),
                Ok(Sealed::Waiting) | Err(_) => {
                    outbox.note_waiting(packet.len());
                    self.waiting.push_front(packet);
                    break;
                }
            }
        }
        has_sent
    }

    /// Sends an initiation to `to`.
    pub(crate) fn initiate(
        &mut self,
        to: SocketAddr,
        outbox: &mut Outbox,
        jitter: &mut Jitter,
        now: Instant,
    ) -> Result<(), Dropped> {
        self.timers.on_initiation(jitter, now);
        let initiation = self.noise.initiate(now);
        outbox.push(&initiation, to)
    }

    /// Sends an initiation inside the session that it is to renew: what comes by a session is not in the crowd before the peer's
    /// door. Only a peer that knows of it takes one.
    pub(crate) fn initiate_inside(
        &mut self,
        to: SocketAddr,
        outbox: &mut Outbox,
        jitter: &mut Jitter,
        now: Instant,
    ) -> Result<(), Dropped> {
        self.timers.on_initiation(jitter, now);
        let initiation = self.noise.initiate(now);
        self.seal_padded(&initiation, 0, to, outbox, now)
    }

    /// Whether an initiation that came inside the session may be looked at: each costs a key agreement, and nobody
    /// needs more.
    pub(crate) fn may_renew(&mut self, now: Instant) -> bool {
        let is_soon = |at| now.saturating_duration_since(at) < BETWEEN_RENEWALS;
        if self.renewed.is_some_and(is_soon) {
            return false;
        }
        self.renewed = Some(now);
        true
    }

    /// Whether the peer may change where it is carried: each change is a route's, which all peers' share a queue.
    pub(crate) fn may_stand(&mut self, now: Instant) -> bool {
        let is_soon = |at| now.saturating_duration_since(at) < BETWEEN_STANDINGS;
        if self.stood.is_some_and(is_soon) {
            return false;
        }
        self.stood = Some(now);
        true
    }

    /// Does what is due at `now`; to be called until it is [`Tick::Quiet`], sending or giving up the handshake it wants.
    pub(crate) fn tick(
        &mut self,
        to: Option<SocketAddr>,
        outbox: &mut Outbox,
        now: Instant,
    ) -> Tick {
        while let Some(due) = self.timers.due(now) {
            match due {
                Due::Handshake => return Tick::WantsHandshake,
                Due::Expired => {
                    self.noise.forget_sessions();
                    return Tick::Expired;
                }
                Due::Keepalive => self.send_keepalive(to, outbox, now),
            }
        }
        if let Some(to) = to.filter(|_| self.timers.session_since(now).is_some()) {
            self.flush(to, outbox, now);
        }
        Tick::Quiet
    }

    fn send_keepalive(&mut self, to: Option<SocketAddr>, outbox: &mut Outbox, now: Instant) {
        self.timers.on_keepalive_sent(now);
        let mut keepalive = [0; OVERHEAD_BYTES];
        if let (Ok(()), Some(to)) = (self.noise.seal(&mut keepalive), to) {
            // A full outbox costs one keepalive, which the next one makes good.
            let _pushed = outbox.push(&keepalive, to);
        }
    }

    /// Answers a peer that came from a new address there with an empty packet, at once: whoever tries a way by one packet among
    /// others that go another way learns that it is open, whichever comes next. It puts off nothing: it may not arrive.
    pub(crate) fn greet(&mut self, to: SocketAddr, outbox: &mut Outbox, now: Instant) {
        let is_soon = |at| now.saturating_duration_since(at) < BETWEEN_GREETINGS;
        if self.greeted.is_some_and(is_soon) {
            return;
        }
        self.greeted = Some(now);
        let mut greeting = [0; OVERHEAD_BYTES];
        if self.noise.seal(&mut greeting).is_ok() {
            // A full outbox costs one greeting; the next try has another.
            let _pushed = outbox.push(&greeting, to);
        }
    }

    /// When [`Wg::tick`] has something to do next, and why.
    pub(crate) fn next_deadline(&self) -> Option<(Instant, &'static str)> {
        let unconfirmed = self.noise.unconfirmed_since();
        let unconfirmed = unconfirmed.map(|since| (since + CONFIRM_WITHIN, "confirmation"));
        [self.timers.next(), unconfirmed]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether it is to be ticked sooner than its owner is going to, since something was sent or came.
    pub(crate) fn wants_sooner(&mut self) -> bool {
        let next = self.timers.take_sooner().then(|| self.next_deadline());
        let at = next.flatten().map(|(at, _why)| at);
        at.is_some_and(|at| self.armed.is_none_or(|armed| at < armed))
    }

    /// Whether there is neither a session nor a handshake: nothing is lost by forgetting it.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.timers.next().is_none() && self.noise.unconfirmed_since().is_none()
    }

    /// Forgets an answered initiation whose sender never came back: most likely a replay of an old one.
    pub(crate) fn forget_unconfirmed(&mut self, now: Instant) {
        let since = self.noise.unconfirmed_since();
        if since.is_some_and(|since| now.saturating_duration_since(since) >= CONFIRM_WITHIN) {
            self.noise.forget_unconfirmed();
        }
    }

    /// Bytes of what waits for a session.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        self.waiting.iter().map(|packet| packet.len() as u64).sum()
    }

    /// Hands over what waits for a session, when another peer is to carry it.
    pub(crate) fn take_waiting(&mut self) -> VecDeque<Box<[u8]>> {
        std::mem::take(&mut self.waiting)
    }

    /// Takes over what waited for another peer's session.
    pub(crate) fn set_waiting(&mut self, waiting: VecDeque<Box<[u8]>>) {
        self.waiting = waiting;
    }
}

#[cfg(test)]
mod tests;
