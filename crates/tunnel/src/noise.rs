//! One peer's WireGuard without timers: the handshake (Noise IKpsk2), the cookies against floods, and the sessions
//! that come of it (whitepaper, section 5). The caller has the clock, and decides when to shake hands and what a session is good for.
//!
//! ```text
//!   initiate ──▶ pending ──▶ finish ─────────────▶ current ──▶ previous
//!   accept ────▶ next ─────▶ its first packet ───────┘
//! ```

mod cipher;
mod cookie;
mod handshake;
mod hash;
mod session;
mod sources;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod wide;

use std::sync::Arc;
use std::time::{Duration, Instant};

use x25519_dalek::PublicKey;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::dropped::Dropped;

pub use cipher::SessionKey;
pub(crate) use cookie::{Checker, Verdict};
pub(crate) use handshake::INITIATION_BYTES;
pub(crate) use handshake::Identity;
pub use handshake::Initiator;
use handshake::{Keys, Pending, RESPONSE_BYTES, Stamp};
use session::Session;
pub(crate) use session::{HEADER_BYTES, OVERHEAD_BYTES};

pub(crate) const COOKIE_BYTES: usize = 64;
/// How long a cookie is good for (whitepaper, section 5.4.7).
const COOKIE_AGE: Duration = Duration::from_secs(120);

/// An answer that comes later is held back by somebody, and whoever gave it has forgotten the session by then.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// So many initiations are remembered by their indexes after later ones replaced them.
const REPLACED: u32 = 16;
/// A peer's initiations are answered no faster: each costs four key agreements.
const BETWEEN_ANSWERS: Duration = Duration::from_millis(20);

/// What a datagram says it is, before anything is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Initiation,
    Response { index: u32 },
    Cookie { index: u32 },
    Data { index: u32 },
}

impl Message {
    /// Reads the fixed header: the type, the length it must have, and whose session it names.
    pub(crate) fn classify(datagram: &[u8]) -> Result<Self, Dropped> {
        let kind = word(datagram, 0).ok_or(Dropped::Malformed)?;
        let index = |at| word(datagram, at).ok_or(Dropped::Malformed);
        match (kind, datagram.len()) {
            (1, INITIATION_BYTES) => Ok(Self::Initiation),
            (2, RESPONSE_BYTES) => Ok(Self::Response { index: index(8)? }),
            (3, COOKIE_BYTES) => Ok(Self::Cookie { index: index(4)? }),
            (4, OVERHEAD_BYTES..) => Ok(Self::Data { index: index(4)? }),
            _ => Err(Dropped::Malformed),
        }
    }
}

/// The initiation that a session's packet is, instead of one of IP, which begins otherwise. Padding may follow.
pub(crate) fn initiation_in(packet: &[u8]) -> Option<&[u8]> {
    packet
        .get(..INITIATION_BYTES)
        .filter(|initiation| Message::classify(initiation) == Ok(Message::Initiation))
}

/// Which of a peer's sessions a packet came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// One that it had come by before.
    Known,
    /// The first of a session that we answered: the initiator has its keys. Its age counts from here.
    Confirmed(Instant),
}

/// A peer: its keys and its sessions.
pub(crate) struct Noise {
    us: Arc<Identity>,
    keys: Keys,
    /// The newest time that an initiation of the peer claimed; older ones are replays.
    newest: Option<Stamp>,
    /// When one of its initiations was answered last.
    answered: Option<Instant>,
    /// The last that ours claimed.
    claimed: Stamp,
    cookie: Cookie,
    /// Our last initiation, and when it was sent.
    pending: Option<(Instant, Box<Pending>)>,
    current: Option<Box<Session>>,
    previous: Option<Box<Session>>,
    next: Option<Box<Session>>,
    /// The upper 24 bits of receiver indexes, and a counter.
    index: u32,
}

/// What the peer demands to see with our next initiation.
#[derive(Default, Zeroize, ZeroizeOnDrop)]
struct Cookie {
    #[zeroize(skip)]
    since: Option<Instant>,
    value: [u8; 16],
    /// The first mac of our last message: the peer's answer is bound to it.
    asked_with: Option<[u8; 16]>,
}

impl Noise {
    /// A peer without a session; `number` becomes the upper 24 bits of its receiver indexes.
    pub(crate) fn new(us: Arc<Identity>, public: [u8; 32], psk: [u8; 32], number: u32) -> Self {
        Self {
            keys: Keys::new(&us, PublicKey::from(public), psk),
            us,
            newest: None,
            answered: None,
            claimed: Stamp::default(),
            cookie: Cookie::default(),
            pending: None,
            current: None,
            previous: None,
            next: None,
            index: number << 8,
        }
    }

    fn next_index(&mut self) -> u32 {
        self.index = self.index & !0xff | self.index.wrapping_add(1) & 0xff;
        self.index
    }

    /// Writes an initiation; an earlier one is forgotten.
    pub(crate) fn initiate(&mut self, now: Instant) -> [u8; INITIATION_BYTES] {
        let index = self.next_index();
        self.claimed = self.us.stamp(now).after(self.claimed);
        let (pending, mut message) = Pending::new(&self.us, &self.keys, index, self.claimed);
        self.pending = Some((now, Box::new(pending)));
        self.add_macs(&mut message, now);
        message
    }

    /// Answers the initiation of this peer that `initiator` has begun to read. There is a session when its first packet comes.
    pub(crate) fn accept(
        &mut self,
        initiator: &Initiator,
        now: Instant,
    ) -> Result<[u8; RESPONSE_BYTES], Dropped> {
        let stamp = initiator.stamp(&self.keys)?;
        if self.newest.is_some_and(|newest| stamp <= newest) {
            return Err(Dropped::Replayed);
        }
        let is_soon = |since| now.saturating_duration_since(since) < BETWEEN_ANSWERS;
        if self.answered.is_some_and(is_soon) {
            return Err(Dropped::RateLimited);
        }
        let index = self.next_index();
        let (secrets, mut message) = initiator.respond(&self.keys, index)?;
        self.newest = Some(stamp);
        self.answered = Some(now);
        self.next = Some(Box::new(Session::new(secrets, now)));
        self.add_macs(&mut message, now);
        Ok(message)
    }

    /// Whether this is the receiver index of an initiation of ours that later ones have replaced.
    pub(crate) fn was_replaced(&self, index: u32) -> bool {
        let pending = self.pending.as_ref().map(|(_, pending)| pending.index());
        pending.is_some_and(|pending| {
            let back = (pending & 0xff).wrapping_sub(index & 0xff) & 0xff;
            pending >> 8 == index >> 8 && (1..=REPLACED).contains(&back)
        })
    }

    /// Takes the answer to our initiation: there is a session.
    pub(crate) fn finish(&mut self, response: &[u8], now: Instant) -> Result<(), Dropped> {
        let index = word(response, 8);
        let is_late = |sent| now.saturating_duration_since(sent) >= ANSWER_WITHIN;
        let pending = self.pending.as_ref();
        let (_, pending) = pending
            .filter(|(sent, pending)| Some(pending.index()) == index && !is_late(*sent))
            .ok_or(Dropped::Unexpected)?;
        let secrets = pending.finish(&self.us, &self.keys, response)?;
        self.pending = None;
        let session = Box::new(Session::new(secrets, now));
        match self.next.take() {
            // Both sides began at once: the one that this side began is sent by, the other may still be heard.
            Some(next) => {
                self.previous = Some(next);
                self.current = Some(session);
            }
            None => self.make_current(session),
        }
        Ok(())
    }

    /// Takes a cookie that the peer demands with our next initiation.
    pub(crate) fn take_cookie(&mut self, reply: &[u8], now: Instant) -> Result<(), Dropped> {
        let pending = self.pending.as_ref().map(|(_, pending)| pending.index());
        let answered = self.next.as_ref().map(|next| next.index());
        let is_ours =
            word(reply, 4).is_some_and(|index| [pending, answered].contains(&Some(index)));
        let asked_with = self.cookie.asked_with.filter(|_| is_ours);
        let asked_with = asked_with.ok_or(Dropped::Unexpected)?;
        self.cookie.value = cookie::open(&self.keys.public(), reply, &asked_with)?;
        self.cookie.since = Some(now);
        Ok(())
    }

    fn add_macs(&mut self, message: &mut [u8], now: Instant) {
        let since = self.cookie.since;
        let is_fresh = |since: &Instant| now.saturating_duration_since(*since) < COOKIE_AGE;
        let cookie = since.filter(is_fresh).map(|_| self.cookie.value);
        self.cookie.asked_with = Some(cookie::add_macs(self.keys.mac_key(), cookie, message));
    }

    fn make_current(&mut self, session: Box<Session>) {
        self.previous = self.current.replace(session);
    }

    /// Seals the packet in `room`, after [`HEADER_BYTES`] and followed by room for the tag.
    pub(crate) fn seal(&mut self, room: &mut [u8]) -> Result<(), Dropped> {
        let session = self.current.as_mut().ok_or(Dropped::NoSession)?;
        session.seal(room)
    }

    /// When the session that has this receiver index was made.
    pub(crate) fn session_since(&self, index: u32) -> Option<Instant> {
        self.sessions()
            .find(|session| session.index() == index)
            .map(Session::since)
    }

    fn sessions(&self) -> impl Iterator<Item = &Session> {
        let all = [&self.current, &self.next, &self.previous];
        all.into_iter().flatten().map(Box::as_ref)
    }

    /// Opens a packet into `buf`, which is as long as the datagram.
    pub(crate) fn open<'b>(
        &mut self,
        index: u32,
        datagram: &[u8],
        buf: &'b mut [u8],
    ) -> Result<(By, &'b mut [u8]), Dropped> {
        if let Some(next) = self.next.as_mut().filter(|next| next.index() == index) {
            let packet = next.open(datagram, buf)?;
            let since = next.since();
            if let Some(next) = self.next.take() {
                self.make_current(next);
            }
            return Ok((By::Confirmed(since), packet));
        }
        let known = [&mut self.current, &mut self.previous]
            .into_iter()
            .flatten();
        let session = known.into_iter().find(|session| session.index() == index);
        let packet = session.ok_or(Dropped::NoSession)?.open(datagram, buf)?;
        Ok((By::Known, packet))
    }

    /// When an initiation was answered whose sender has not come back yet.
    pub(crate) fn unconfirmed_since(&self) -> Option<Instant> {
        self.next.as_ref().map(|next| next.since())
    }

    /// Forgets it: most likely a replay of an old one.
    pub(crate) fn forget_unconfirmed(&mut self) {
        self.next = None;
    }

    /// Forgets the keys of all sessions that the peer has proved.
    pub(crate) fn forget_sessions(&mut self) {
        self.current = None;
        self.previous = None;
    }
}

fn word(datagram: &[u8], at: usize) -> Option<u32> {
    let bytes = datagram.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_le_bytes(bytes))
}
