//! One peer's WireGuard: boringtun's handshake and cipher under this crate's timers. The only file that names boringtun.
//!
//! Limits that come from boringtun 0.7.1: it reads the system's clocks itself (the timestamp of an initiation, which
//! is the calendar's; the age at which it forgets a session; the two minutes of a cookie), so those three do not
//! follow the caller's `now`; it copies each packet once in each direction. Its own timers run behind ours
//! and only speak when ours were not asked for long. A peer whose calendar goes back, as after a reboot without
//! a clock, is taken for a replay until its last session is forgotten, three minutes after it was made.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::dropped::Dropped;
use crate::offload::ecn::OuterTos;
use crate::offload::segment::Segments;
use crate::psk::Psk;
use crate::stats::Traffic;
use crate::timers::{Due, Jitter, Pace, Role, Timers, is_alive};
use crate::transmit::Outbox;

/// What a data message adds to a packet: header and tag.
pub(crate) const OVERHEAD_BYTES: usize = 32;
/// The longest handshake message, and so the least that boringtun takes as a buffer.
const INITIATION_BYTES: usize = 148;
/// The least room that [`Wg::open`] wants.
pub(crate) const MIN_OPENED: usize = INITIATION_BYTES;
/// A data message's first byte.
const DATA: u8 = 4;
const COOKIE_BYTES: usize = 64;
/// Packets are padded to a multiple of this (whitepaper, section 5.4.6).
const PADDING_BYTES: usize = 16;
/// The whitepaper's `REJECT_AFTER_MESSAGES`. boringtun computes beyond such a counter and would overflow.
const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
/// How often boringtun's own timers are called while a session or a handshake is there.
const BOOKKEEPING: Duration = Duration::from_secs(1);
/// How long an answered initiation may stay without its first packet.
const CONFIRM_WITHIN: Duration = Duration::from_secs(15);

/// What a datagram says it is, before anything is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Initiation,
    Response { index: u32 },
    Cookie { index: u32 },
    Data { index: u32 },
}

/// What an authentic datagram brought.
#[derive(Debug)]
pub(crate) enum Heard<'b> {
    /// An initiation, answered to where it came from.
    Initiation,
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
    private: StaticSecret,
    public: PublicKey,
    /// Checks messages while there are few; every `Tunn` has it too, so that none counts again what was admitted here.
    calm: Arc<RateLimiter>,
    /// Demands a cookie of everybody.
    strict: RateLimiter,
    /// Admitted messages in a second that may come to nothing before it does.
    max_wasted: u32,
    /// Counts them, for all gates of one gateway.
    wasted: Arc<AtomicU32>,
    wasted_before: u32,
    counted_since: Instant,
}

impl Gate {
    pub(crate) fn new(
        private: StaticSecret,
        max_wasted: u32,
        wasted: Arc<AtomicU32>,
        now: Instant,
    ) -> Self {
        let public = PublicKey::from(&private);
        Self {
            calm: Arc::new(RateLimiter::new(&public, u64::MAX)),
            strict: RateLimiter::new(&public, 0),
            max_wasted,
            wasted_before: wasted.load(Ordering::Relaxed),
            wasted,
            counted_since: now,
            private,
            public,
        }
    }

    pub(crate) fn public(&self) -> [u8; 32] {
        self.public.to_bytes()
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
        let message = classify(datagram)?;
        if matches!(message, Message::Cookie { .. } | Message::Data { .. }) {
            return Ok(message);
        }
        let mut cookie = [0; COOKIE_BYTES];
        let limiter = if self.is_under_load(now) {
            &self.strict
        } else {
            &*self.calm
        };
        match limiter.verify_packet(Some(from.ip()), datagram, &mut cookie) {
            Ok(_) => {
                self.wasted.fetch_add(1, Ordering::Relaxed);
                Ok(message)
            }
            Err(TunnResult::WriteToNetwork(reply)) => {
                outbox.push(reply, from)?;
                Err(Dropped::RateLimited)
            }
            Err(TunnResult::Err(e)) => Err(cause(e)),
            Err(
                TunnResult::Done
                | TunnResult::WriteToTunnelV4(..)
                | TunnResult::WriteToTunnelV6(..),
            ) => Err(Dropped::Malformed),
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

    /// The static key that an initiation claims; proved only by what follows.
    pub(crate) fn initiator(&self, datagram: &[u8]) -> Result<[u8; 32], Dropped> {
        match Tunn::parse_incoming_packet(datagram) {
            Ok(Packet::HandshakeInit(init)) => {
                parse_handshake_anon(&self.private, &self.public, &init)
                    .map(|half| half.peer_static_public)
                    .map_err(cause)
            }
            Ok(_) => Err(Dropped::Malformed),
            Err(e) => Err(cause(e)),
        }
    }

    /// A peer without a session; `index` becomes the upper 24 bits of its receiver indexes.
    pub(crate) fn peer(
        &self,
        public: [u8; 32],
        psk: Option<&Psk>,
        index: u32,
        shape: Shape,
        now: Instant,
    ) -> Wg {
        let (private, limiter) = (self.private.clone(), Arc::clone(&self.calm));
        let psk = psk.map(Psk::bytes);
        let tunn = Tunn::new(private, public.into(), psk, None, index, Some(limiter));
        Wg {
            tunn,
            timers: Timers::new(shape.pace, now),
            unconfirmed: None,
            waiting: VecDeque::new(),
            shape,
            bookkept: now,
            traffic: Traffic::default(),
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

/// A responder's session that its initiator has not used yet.
#[derive(Debug)]
struct Unconfirmed {
    index: u32,
    since: Instant,
}

/// One peer that is awake.
pub(crate) struct Wg {
    tunn: Tunn,
    pub(crate) timers: Timers,
    unconfirmed: Option<Unconfirmed>,
    waiting: VecDeque<Box<[u8]>>,
    shape: Shape,
    bookkept: Instant,
    /// What passed since it woke.
    pub(crate) traffic: Traffic,
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
            return self.keep(packets, now);
        }
        let mut staging = outbox.take_staging(packets.longest() + PADDING_BYTES);
        let sealed = self.seal_all(packets, &mut staging, to, outbox, now);
        outbox.keep_staging(staging);
        self.timers.on_data_sent(now);
        sealed.map(|()| Sealed::Sent)
    }

    fn seal_all(
        &mut self,
        packets: &Segments<'_>,
        staging: &mut [u8],
        to: SocketAddr,
        outbox: &mut Outbox,
        now: Instant,
    ) -> Result<(), Dropped> {
        let tos = self.shape.tos.outer(packets.headers());
        for index in 0..packets.count() {
            let len = packets.write(index, staging)?;
            let padded_len = len.next_multiple_of(PADDING_BYTES).min(self.shape.mtu);
            let padded = staging.get_mut(..padded_len.max(len));
            let padded = padded.ok_or(Dropped::TooBig)?;
            padded.get_mut(len..).unwrap_or_default().fill(0);
            self.seal_one(padded, (to, tos), outbox, now)?;
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
        let mut padded = packet.to_vec();
        padded.resize(packet.len().next_multiple_of(PADDING_BYTES).max(length), 0);
        self.timers.on_data_sent(now);
        self.seal_one(&padded, (to, 0), outbox, now)
    }

    /// Keeps packets for the session to come.
    fn keep(&mut self, packets: &Segments<'_>, now: Instant) -> Result<Sealed, Dropped> {
        self.timers.want_handshake(now);
        for index in 0..packets.count() {
            if self.waiting.len() >= self.shape.max_waiting {
                return Err(Dropped::QueueFull);
            }
            let mut packet = vec![0; packets.longest()];
            let len = packets.write(index, &mut packet)?;
            packet.truncate(len);
            self.waiting.push_back(packet.into());
        }
        Ok(Sealed::Waiting)
    }

    /// Seals a packet with its padding.
    fn seal_one(
        &mut self,
        padded: &[u8],
        (to, tos): (SocketAddr, u8),
        outbox: &mut Outbox,
        now: Instant,
    ) -> Result<(), Dropped> {
        let room = outbox.reserve((padded.len() + OVERHEAD_BYTES).max(INITIATION_BYTES))?;
        let TunnResult::WriteToNetwork(datagram) = self.tunn.encapsulate(padded, room) else {
            return Err(Dropped::NoSession);
        };
        let (sent, is_data) = (datagram.len(), datagram.first() == Some(&DATA));
        outbox.commit(sent, to, tos);
        if !is_data {
            // boringtun had forgotten the session on its own clock, and asks for a new one.
            self.timers.on_session_lost(now);
            return Err(Dropped::NoSession);
        }
        Ok(())
    }

    /// Opens `datagram` into `buf`; answers go to the outbox.
    pub(crate) fn open<'b>(
        &mut self,
        message: Message,
        datagram: &[u8],
        from: SocketAddr,
        buf: &'b mut [u8],
        outbox: &mut Outbox,
        now: Instant,
    ) -> Result<Heard<'b>, Dropped> {
        if buf.len() < datagram.len().max(INITIATION_BYTES) {
            return Err(Dropped::TooBig);
        }
        if let Message::Data { index } = message {
            self.check_data(index, datagram, now)?;
        }
        let packet = match self.tunn.decapsulate(Some(from.ip()), datagram, buf) {
            TunnResult::Err(e) => return Err(cause(e)),
            TunnResult::WriteToNetwork(answer) => {
                let answered = u32_at(answer, 4);
                outbox.push(answer, from)?;
                return self.on_handshake(message, answered, from, outbox, now);
            }
            TunnResult::Done => None,
            TunnResult::WriteToTunnelV4(packet, _) => Some(packet),
            TunnResult::WriteToTunnelV6(packet, _) => Some(packet),
        };
        let Message::Data { index } = message else {
            return Ok(Heard::Cookie);
        };
        self.confirm(index, from, outbox, now);
        let Some(packet) = packet else {
            self.timers.on_keepalive_received(now);
            return Ok(Heard::Keepalive);
        };
        self.timers.on_data_received(now);
        Ok(Heard::Packet(packet))
    }

    /// What must hold before the cipher is asked: a session by our clock, a counter that boringtun can count on from.
    fn check_data(&self, index: u32, datagram: &[u8], now: Instant) -> Result<(), Dropped> {
        let unconfirmed = self.unconfirmed.as_ref().filter(|u| u.index == index);
        let is_usable = match unconfirmed {
            Some(unconfirmed) => is_alive(unconfirmed.since, now),
            None => self.timers.session_since(now).is_some(),
        };
        if !is_usable {
            return Err(Dropped::NoSession);
        }
        let counter = datagram.get(8..16).and_then(|bytes| bytes.try_into().ok());
        match counter.map(u64::from_le_bytes) {
            Some(counter) if counter < REJECT_AFTER_MESSAGES => Ok(()),
            _ => Err(Dropped::Replayed),
        }
    }

    fn on_handshake<'b>(
        &mut self,
        message: Message,
        answer_index: Option<u32>,
        from: SocketAddr,
        outbox: &mut Outbox,
        now: Instant,
    ) -> Result<Heard<'b>, Dropped> {
        match message {
            Message::Initiation => {
                self.unconfirmed = answer_index.map(|index| Unconfirmed { index, since: now });
                Ok(Heard::Initiation)
            }
            Message::Response { .. } => {
                self.timers.on_established(Role::Initiator, now, now);
                self.flush(from, outbox, now);
                Ok(Heard::Response)
            }
            Message::Cookie { .. } | Message::Data { .. } => Err(Dropped::Malformed),
        }
    }

    /// The first packet of a session that we answered proves that its initiator has the keys.
    fn confirm(&mut self, index: u32, from: SocketAddr, outbox: &mut Outbox, now: Instant) {
        if let Some(confirmed) = self.unconfirmed.take_if(|u| u.index == index) {
            self.timers
                .on_established(Role::Responder, confirmed.since, now);
            self.flush(from, outbox, now);
        }
    }

    fn flush(&mut self, to: SocketAddr, outbox: &mut Outbox, now: Instant) {
        while let Some(packet) = self.waiting.pop_front() {
            match self.seal(&Segments::plain(&packet), to, outbox, now) {
                // The path may have become narrower while it waited.
                Ok(Sealed::Sent) | Err(Dropped::TooBig) => {}
                Ok(Sealed::Waiting) | Err(_) => {
                    self.waiting.push_front(packet);
                    return;
                }
            }
        }
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
        let room = outbox.reserve(INITIATION_BYTES)?;
        let TunnResult::WriteToNetwork(datagram) =
            self.tunn.format_handshake_initiation(room, true)
        else {
            return Err(Dropped::Unexpected);
        };
        let len = datagram.len();
        outbox.commit(len, to, 0);
        Ok(())
    }

    /// Does what is due at `now`; to be called until it is [`Tick::Quiet`], sending or giving up the handshake it wants.
    pub(crate) fn tick(
        &mut self,
        to: Option<SocketAddr>,
        outbox: &mut Outbox,
        jitter: &mut Jitter,
        now: Instant,
    ) -> Tick {
        while let Some(due) = self.timers.due(now) {
            match due {
                Due::Handshake => return Tick::WantsHandshake,
                Due::Expired => return Tick::Expired,
                Due::Keepalive => self.send_keepalive(to, outbox, now),
            }
        }
        if let Some(to) = to.filter(|_| self.timers.session_since(now).is_some()) {
            self.flush(to, outbox, now);
        }
        if now.saturating_duration_since(self.bookkept) >= BOOKKEEPING {
            self.bookkeep(to, outbox, jitter, now);
        }
        Tick::Quiet
    }

    fn send_keepalive(&mut self, to: Option<SocketAddr>, outbox: &mut Outbox, now: Instant) {
        self.timers.on_keepalive_sent(now);
        let mut datagram = [0; INITIATION_BYTES];
        if let (TunnResult::WriteToNetwork(datagram), Some(to)) =
            (self.tunn.encapsulate(&[], &mut datagram), to)
        {
            // A full outbox costs one keepalive, which the next one makes good.
            let _pushed = outbox.push(datagram, to);
        }
    }

    /// Lets boringtun's own timers run: they forget old keys, and back ours up.
    fn bookkeep(
        &mut self,
        to: Option<SocketAddr>,
        outbox: &mut Outbox,
        jitter: &mut Jitter,
        now: Instant,
    ) {
        self.bookkept = now;
        let mut datagram = [0; INITIATION_BYTES];
        let TunnResult::WriteToNetwork(datagram) = self.tunn.update_timers(&mut datagram) else {
            return;
        };
        if classify(datagram) == Ok(Message::Initiation) {
            self.timers.on_initiation(jitter, now);
        }
        if let Some(to) = to {
            // As with a keepalive of ours.
            let _pushed = outbox.push(datagram, to);
        }
    }

    /// When [`Wg::tick`] has something to do next, and why.
    pub(crate) fn next_deadline(&self) -> Option<(Instant, &'static str)> {
        if self.is_at_rest() {
            return None;
        }
        let bookkeeping = (self.bookkept + BOOKKEEPING, "bookkeeping");
        Some(
            self.timers
                .next()
                .map_or(bookkeeping, |next| next.min(bookkeeping)),
        )
    }

    /// Whether there is neither a session nor a handshake: nothing is lost by forgetting it.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.timers.next().is_none() && self.unconfirmed.is_none()
    }

    /// Forgets an answered initiation whose sender never came back: most likely a replay of an old one.
    pub(crate) fn forget_unconfirmed(&mut self, now: Instant) {
        let late = |u: &mut Unconfirmed| now.saturating_duration_since(u.since) >= CONFIRM_WITHIN;
        self.unconfirmed.take_if(late);
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

/// Reads the fixed header: the type, the length it must have, and whose session it names.
fn classify(datagram: &[u8]) -> Result<Message, Dropped> {
    match Tunn::parse_incoming_packet(datagram).map_err(cause)? {
        Packet::HandshakeInit(_) => Ok(Message::Initiation),
        Packet::HandshakeResponse(response) => Ok(Message::Response {
            index: response.receiver_idx,
        }),
        Packet::PacketCookieReply(cookie) => Ok(Message::Cookie {
            index: cookie.receiver_idx,
        }),
        Packet::PacketData(data) => Ok(Message::Data {
            index: data.receiver_idx,
        }),
    }
}

fn u32_at(datagram: &[u8], at: usize) -> Option<u32> {
    let bytes = datagram.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_le_bytes(bytes))
}

fn cause(e: WireGuardError) -> Dropped {
    match e {
        WireGuardError::InvalidCounter
        | WireGuardError::DuplicateCounter
        | WireGuardError::WrongTai64nTimestamp => Dropped::Replayed,
        WireGuardError::InvalidAeadTag => Dropped::Forged,
        WireGuardError::WrongKey => Dropped::UnknownPeer,
        WireGuardError::InvalidMac => Dropped::WrongRecipient,
        WireGuardError::UnderLoad => Dropped::RateLimited,
        WireGuardError::UnexpectedPacket => Dropped::Unexpected,
        WireGuardError::DestinationBufferTooSmall => Dropped::TooBig,
        WireGuardError::NoCurrentSession
        | WireGuardError::WrongIndex
        | WireGuardError::ConnectionExpired
        | WireGuardError::LockFailed => Dropped::NoSession,
        WireGuardError::IncorrectPacketLength
        | WireGuardError::WrongPacketType
        | WireGuardError::InvalidTai64nTimestamp
        | WireGuardError::InvalidPacket => Dropped::Malformed,
    }
}

#[cfg(test)]
mod tests;
