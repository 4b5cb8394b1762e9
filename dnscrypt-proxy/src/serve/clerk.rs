//! What one worker does with a packet, without sockets, clocks or waiting: those whose shared key is kept are
//! served at once, strangers when there is time for them, and what is not known is handed on to be asked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::answers::RCODE_SERVFAIL;
use super::connections::Id;
use super::desk::{Bounds, Desk, Served, Share, Wait};
use super::keys::Keys;
use super::randomness::Page;
use super::relay::Door;
use super::strangers::Strangers;
use super::{Asking, Heard, Query, Rates, Server, certificates};
use crate::cache::Look;
use crate::listen::{Class, Holder};
use crate::proto::Transport;
use crate::proto::dropped::{Counted, Dropped};
use crate::proto::message;
use crate::proto::relay::is_anonymized;
use crate::proto::server::{Keyring, Opened, Reply, open};

/// Answers that others' questions brought and that are neither of these are failures.
const RCODE_NOERROR: u8 = 0;
const RCODE_NXDOMAIN: u8 = 3;

/// Where a packet came from and its answer goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) way: Way,
    pub(super) peer: SocketAddr,
}

/// By what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// One of the worker's sockets.
    Udp(usize),
    /// A connection.
    Tcp(Id),
}

impl Place {
    pub(super) fn transport(self) -> Transport {
        match self.way {
            Way::Udp(_) => Transport::Udp,
            Way::Tcp(_) => Transport::Tcp,
        }
    }
}

/// The time, as often as it is looked at: once a turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// The time of day.
    pub(super) unix_s: u64,
    /// Since the worker began.
    pub(super) uptime_s: u64,
    /// As the rates have it.
    pub(super) moment_us: u64,
    /// In milliseconds.
    pub(super) uptime_ms: u64,
}

/// What a packet was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Work that was done.
    Done,
    /// Somebody whose key is not known, or who wants another resolver; it waits, or was dropped.
    Stranger,
}

/// A question for the resolver.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) number: u64,
    pub(super) query: Query,
    /// The same, read.
    pub(super) asked: message::Query,
}

/// Sealed answers and questions to be asked, for the worker to take out.
#[derive(Debug, Default)]
pub(super) struct Out {
    pub(super) packets: Vec<(Place, Vec<u8>)>,
    /// Connections on which no answer comes.
    pub(super) refused: Vec<Id>,
    pub(super) asks: Vec<Ask>,
    /// Numbers of questions that are to end: nobody has a place for them any more.
    pub(super) ended: Vec<u64>,
}

/// The clerk: everything that one worker knows.
pub(super) struct Clerk {
    server: Server,
    keys: Keys,
    strangers: Strangers<(Place, Vec<u8>)>,
    desk: Desk<Waiter>,
    random: Page,
    /// All workers' together.
    rates: Option<Arc<Rates>>,
    door: Option<Door>,
    pub(super) out: Out,
}

/// What the answer to an open query needs.
#[derive(Debug)]
struct Waiter {
    query: Vec<u8>,
    reply: Reply,
    place: Place,
}

impl Waiter {
    fn to_be_asked(&self, asking: Asking) -> Query {
        Query {
            message: self.query.clone(),
            source: self.place.peer,
            transport: self.place.transport(),
            room: self.reply.room(),
            asking,
        }
    }
}

impl Clerk {
    pub(super) fn new(server: Server, bounds: Bounds, rates: Option<Arc<Rates>>) -> Self {
        Self {
            keys: Keys::new(server.keyring.clone()),
            strangers: Strangers::new(),
            desk: Desk::new(bounds),
            random: Page::new(),
            rates,
            door: None,
            out: Out::default(),
            server,
        }
    }

    /// A time for [`Now`].
    pub(super) fn moment_us(&self, now: Instant) -> u64 {
        let rates = self.rates.as_ref();
        rates.map_or(0, |rates| rates.moment_us(now))
    }

    /// The same with a relay's door to leave packets at.
    pub(super) fn before(self, door: Option<Door>) -> Self {
        Self { door, ..self }
    }

    /// Takes a packet: answers it, lets it wait, or drops it.
    pub(super) fn take(&mut self, place: Place, bytes: &[u8], now: Now) -> Taken {
        let rates = self.rates.as_ref();
        if rates.is_some_and(|rates| !rates.admit(place.peer.ip(), now.moment_us)) {
            self.drop(place, Dropped::OverRate);
            return Taken::Done;
        }
        let keyring = self.keys.current();
        if !keyring.claims(bytes) {
            if let Some(door) = self.door.as_ref().filter(|_| is_anonymized(bytes)) {
                // The relay has counted what it refused.
                if door.hand_over(place, bytes).is_err() {
                    self.refuse(place);
                }
                return Taken::Stranger;
            }
            let transport = place.transport();
            let answer = certificates(&self.server, &keyring, bytes, transport, now.unix_s);
            match answer {
                Some(answer) => self.out.packets.push((place, answer)),
                None => self.drop(place, Dropped::UnknownMagic),
            }
            return Taken::Done;
        }
        if keyring.is_cheap(&self.keys.kept, bytes) {
            self.open(&keyring, place, bytes.to_vec(), now);
            return Taken::Done;
        }
        let class = Holder::of(&self.server.homes, place.peer.ip()).class;
        if self.strangers.push((place, bytes.to_vec()), class).is_err() {
            self.drop(place, Dropped::StrangersOverBudget);
        }
        Taken::Stranger
    }

    /// The resolver has answered, or will not.
    pub(super) fn answered(&mut self, number: u64, heard: Heard, now: Now) {
        if matches!(heard, Heard::Busy(_)) {
            return self.turned_away(number, now);
        }
        for served in self.desk.answered(number, heard, now.uptime_s) {
            self.serve(served);
        }
    }

    /// Whose question it was gets no answer, or a stale one, however often that home waits for it; others who joined it ask by themselves.
    fn turned_away(&mut self, number: u64, now: Now) {
        let mut turned_away = None;
        for (message, waiter, share) in self.desk.turned_away(number) {
            let home = Holder::of(&self.server.homes, waiter.place.peer.ip());
            if share == Share::Own {
                turned_away = Some(home);
            } else if turned_away != Some(home) {
                self.ask(message, waiter, now);
                continue;
            }
            match self.desk.stale(&message, now.uptime_s) {
                Some(answer) => self.give_stale(waiter, answer),
                None => self.seal(waiter, message.refuse(RCODE_SERVFAIL, None)),
            }
        }
    }

    /// Looks for those who have waited long enough for a better answer than a stale one.
    pub(super) fn handle_timeout(&mut self, now: Now) {
        for served in self.desk.handle_timeout(now.uptime_ms) {
            self.serve(served);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do, in milliseconds since the worker began.
    pub(super) fn poll_timeout(&self) -> Option<u64> {
        self.desk.poll_timeout()
    }

    /// Whether no stranger waits.
    pub(super) fn is_idle(&self) -> bool {
        self.strangers.is_empty()
    }

    /// Begins the strangers' turn, before which everybody else's work took so long.
    pub(super) fn begin_strangers(&mut self, busy: Duration) {
        self.strangers.begin(busy);
    }

    /// Serves one stranger, if there is one and time for it; what it took is to be told to
    /// [`spent`](Self::spent).
    pub(super) fn serve_stranger(&mut self, now: Now) -> bool {
        let Some((place, packet)) = self.strangers.next() else {
            return false;
        };
        let keyring = self.keys.current();
        self.open(&keyring, place, packet, now);
        true
    }

    pub(super) fn spent(&mut self, time: Duration) {
        self.strangers.spent(time);
    }

    fn open(&mut self, keyring: &Keyring, place: Place, packet: Vec<u8>, now: Now) {
        let kept = &mut self.keys.kept;
        let opened = match open(keyring, kept, packet, place.transport(), now.unix_s) {
            Ok(opened) => opened,
            Err(reason) => return self.drop(place, reason),
        };
        self.server.count(&opened, place.transport());
        let Opened {
            query,
            message,
            reply,
        } = opened;
        let waiter = Waiter {
            query,
            reply,
            place,
        };
        match self.desk.find(&message, now.uptime_s) {
            Look::Fresh(answer) => self.give(waiter, answer),
            Look::Ending(answer) => {
                self.ask_ahead(&message, &waiter);
                self.give(waiter, answer);
            }
            Look::Vain(answer) => self.give_stale(waiter, answer),
            Look::Stale | Look::Nothing => self.ask(message, waiter, now),
        }
    }

    fn ask(&mut self, message: message::Query, waiter: Waiter, now: Now) {
        let query = waiter.to_be_asked(Asking::Anyhow);
        let asked = message.clone();
        let holder = self.holder(&waiter);
        match self.desk.wait(message, waiter, holder, now.uptime_ms) {
            Wait::Ask(number) => self.out.asks.push(Ask {
                number,
                query,
                asked,
            }),
            Wait::Joined => {}
            Wait::Full(waiter) => self.refuse_room(&asked, waiter, now),
        }
        for (message, waiter) in std::mem::take(&mut self.desk.out.waiting) {
            self.refuse_room(&message, waiter, now);
        }
        self.out.ended.append(&mut self.desk.out.questions);
    }

    fn refuse_room(&mut self, message: &message::Query, waiter: Waiter, now: Now) {
        match self.desk.stale(message, now.uptime_s) {
            Some(answer) => self.give_stale(waiter, answer),
            None => self.drop(waiter.place, Dropped::Overloaded),
        }
    }

    /// Asks for an answer that is near its end; strangers do not keep names in memory.
    fn ask_ahead(&mut self, message: &message::Query, waiter: &Waiter) {
        if self.holder(waiter).class == Class::Stranger {
            return;
        }
        let Some(number) = self.desk.ask_ahead(message) else {
            return;
        };
        self.server.counters.count(Counted::Ahead);
        self.out.asks.push(Ask {
            number,
            query: waiter.to_be_asked(Asking::Ahead),
            asked: message.clone(),
        });
    }

    fn holder(&self, waiter: &Waiter) -> Holder {
        Holder::of(&self.server.homes, waiter.place.peer.ip())
    }

    fn serve(&mut self, served: Served<Waiter>) {
        let Served {
            to,
            answer,
            is_stale,
            share,
        } = served;
        let Some(answer) = answer else {
            return self.drop(to.place, Dropped::Unanswered);
        };
        if is_stale {
            self.server.counters.count(Counted::Stale);
        }
        if share == Share::Others {
            self.count_shared(&answer);
        }
        self.seal(to, answer);
    }

    fn give(&mut self, to: Waiter, answer: Vec<u8>) {
        self.server.counters.count(Counted::Shared);
        self.seal(to, answer);
    }

    fn give_stale(&mut self, to: Waiter, answer: Vec<u8>) {
        self.server.counters.count(Counted::Stale);
        self.give(to, answer);
    }

    fn seal(&mut self, to: Waiter, answer: Vec<u8>) {
        let sealed = to.reply.seal(answer, &to.query, &mut self.random);
        if sealed.truncated {
            self.server.counters.count(Counted::Truncated);
        }
        self.out.packets.push((to.place, sealed.packet));
    }

    fn count_shared(&self, answer: &[u8]) {
        let is_answer = matches!(message::rcode_low(answer), RCODE_NOERROR | RCODE_NXDOMAIN);
        self.server.counters.count(if is_answer {
            Counted::Shared
        } else {
            Counted::SharedFailure
        });
    }

    fn drop(&mut self, place: Place, reason: Dropped) {
        self.server.counters.drop_packet(reason);
        self.refuse(place);
    }

    fn refuse(&mut self, place: Place) {
        if let Way::Tcp(connection) = place.way {
            self.out.refused.push(connection);
        }
    }
}

#[cfg(test)]
mod tests;
