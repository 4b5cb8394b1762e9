//! What one worker has asked and not been answered yet, without sockets or clocks: where each question goes, under which
//! port and id and in which letters; what a datagram that comes back is an answer to; what is asked again, and where.
//!
//! Who cannot see our datagrams must guess port, id and letters of a question at once. Guesses are counted, and few
//! of them are enough for the question to be asked over TCP.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use hickory_proto::rr::Name;
use rand_core::RngCore;

use super::counts::{Event, Events};
use super::servers::Zones;
use super::verdict::{self, Verdict};
use crate::proto::message::{HEADER, OUR_UDP_SIZE};
use crate::serve::clerk::Ask;
use crate::serve::{Asking, Heard};

/// A datagram that is not answered within that time is followed by the next one.
pub(super) const TRY_MS: u64 = 750;
/// Datagrams for one question.
const MAX_TRIES: usize = 4;
/// A question is given up after so many times of [`TRY_MS`]: before stubs ask again, which they do after 5 s.
const MAX_WAITS: usize = 6;
/// An answer that comes later than that has to be to something else: resolvers give a dead name up within ten seconds.
const LINGER_MS: u64 = 12_000;
/// Answers to nothing on one port, after which all that was asked from it is asked over TCP.
pub(super) const MAX_MISMATCHES: u32 = 8;
/// The port of what waits for none in particular.
const NO_PORT: u32 = 0;
const RCODE_SERVFAIL: u16 = 2;
const QR: u8 = 0x80;

/// The questions; ports are known by numbers that are never used again.
pub(super) struct Questions<R> {
    zones: Zones,
    ports: HashMap<u32, Port>,
    open: HashMap<u64, Open>,
    /// In the order of their time, which is the same for all.
    again: VecDeque<Due>,
    forget: VecDeque<Due>,
    random: R,
    events: Arc<Events>,
    pub(super) out: Out,
}

/// What the shell has to do.
#[derive(Debug, Default)]
pub(super) struct Out {
    pub(super) answers: Vec<(u64, Heard)>,
    /// Questions that have to be asked in another way.
    pub(super) elsewhere: Vec<Ask>,
    /// Ports that are not used any more.
    pub(super) closed: Vec<u32>,
}

/// A socket, as far as it is known here.
#[derive(Debug)]
struct Port {
    server: usize,
    tries: HashMap<u16, Try>,
    outbox: Vec<Vec<u8>>,
    mismatches: u32,
}

/// A datagram that went out and was not answered.
#[derive(Debug)]
struct Try {
    number: u64,
    /// The question, in its letters.
    question: Box<[u8]>,
}

#[derive(Debug)]
struct Open {
    ask: Ask,
    zone: usize,
    tries: usize,
    waits: usize,
    refusals: usize,
    /// Whether a server said that validation refused what it was given.
    is_bogus: bool,
}

#[derive(Clone, Copy, Debug)]
struct Due {
    at_ms: u64,
    number: u64,
    port: u32,
    id: u16,
}

impl<R: RngCore> Questions<R> {
    pub(super) fn new(zones: Zones, events: Arc<Events>, random: R) -> Self {
        Self {
            zones,
            ports: HashMap::new(),
            open: HashMap::new(),
            again: VecDeque::new(),
            forget: VecDeque::new(),
            random,
            events,
            out: Out::default(),
        }
    }

    /// Takes a question, or gives it back: it is for nobody here.
    #[expect(
        clippy::result_large_err,
        reason = "the question goes on in another way"
    )]
    pub(super) fn ask(&mut self, ask: Ask, now_ms: u64) -> Result<(), Ask> {
        let Some(zone) = self.zones.of(&ask.asked) else {
            return Err(ask);
        };
        let number = ask.number;
        let open = Open {
            ask,
            zone,
            tries: 0,
            waits: 0,
            refusals: 0,
            is_bogus: false,
        };
        self.open.insert(number, open);
        match self.send(number, now_ms) {
            Sent::Yes => Ok(()),
            // Without a port there is no way but the other one.
            Sent::No => match self.open.remove(&number) {
                Some(open) => Err(open.ask),
                None => Ok(()),
            },
        }
    }

    /// Takes what came on a port.
    pub(super) fn handle_datagram(&mut self, port: u32, datagram: &[u8], now_ms: u64) {
        let number = match self.match_up(port, datagram) {
            Match::Answer(number) => number,
            Match::Mismatch(event) => return self.mismatch(port, event),
            // The right id is a guess in 65,536, or the server writes names its own way: datagrams prove nothing to it.
            Match::OtherCase(number) => {
                self.events.count(Event::WrongCase);
                return self.hand_on(number, Event::Suspicious, Asking::OverTcp);
            }
        };
        if let Some(port) = self.ports.get(&port) {
            self.zones.answered(port.server);
        }
        let Some(open) = self.open.get_mut(&number) else {
            return self.events.count(Event::Late);
        };
        let is_theirs = |alias: &Name| self.zones.has(open.zone, alias);
        match verdict::judge(datagram, &open.ask.asked, is_theirs) {
            Verdict::Answer(answer) => {
                self.count_end(number, Event::Answered);
                self.open.remove(&number);
                self.out.answers.push((number, Heard::Answer(answer)));
            }
            Verdict::Cut | Verdict::Incomplete => {
                self.hand_on(number, Event::Cut, Asking::OverTcp);
            }
            Verdict::Foreign => self.hand_on(number, Event::Foreign, Asking::Anyhow),
            Verdict::Refused { is_bogus } => {
                open.is_bogus |= is_bogus;
                self.events.count(Event::Refused);
                self.refused(number, now_ms);
            }
            Verdict::Garbled => {
                self.events.count(Event::Garbled);
                self.refused(number, now_ms);
            }
        }
    }

    /// Asks again what was not answered in time, and gives up what was asked often enough.
    pub(super) fn handle_timeout(&mut self, now_ms: u64) {
        while let Some(due) = pop_due(&mut self.again, now_ms) {
            let port = self.ports.get(&due.port);
            let is_waited_for = port.is_some_and(|port| port.expects(due));
            if is_waited_for {
                self.events.count(Event::TimedOut);
                if let Some(port) = port {
                    self.zones.timed_out(port.server, now_ms);
                }
                self.forget.push_back(Due {
                    at_ms: due.at_ms + LINGER_MS,
                    ..due
                });
            }
            self.wait_on(due, now_ms);
        }
        while let Some(due) = pop_due(&mut self.forget, now_ms) {
            if let Some(port) = self.ports.get_mut(&due.port)
                && port.expects(due)
            {
                port.tries.remove(&due.id);
            }
        }
        let idle = self.zones.retired();
        for number in idle {
            self.close_if_idle(number);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub(super) fn poll_timeout(&self) -> Option<u64> {
        self.again.front().map(|due| due.at_ms)
    }

    /// Servers that want another port.
    pub(super) fn wanted_ports(&mut self, now_ms: u64) -> Vec<(usize, SocketAddr)> {
        self.zones.wanted_ports(now_ms)
    }

    /// The shell has opened a port for a server.
    pub(super) fn port_opened(&mut self, server: usize, number: u32, now_ms: u64) {
        self.zones.opened(server, number, now_ms);
        let port = Port {
            server,
            tries: HashMap::new(),
            outbox: Vec::new(),
            mismatches: 0,
        };
        self.ports.insert(number, port);
    }

    /// The shell has lost a port: what was asked from it will be asked again.
    pub(super) fn port_failed(&mut self, number: u32) {
        if let Some(port) = self.ports.remove(&number) {
            self.zones.retire(port.server, number);
        }
    }

    /// What is to be sent, by port; the next question draws another one.
    pub(super) fn poll_transmit(&mut self) -> Option<(u32, Vec<Vec<u8>>)> {
        while let Some(number) = self.zones.take_drawn() {
            let outbox = self.ports.get_mut(&number);
            let outbox = outbox.map(|port| std::mem::take(&mut port.outbox));
            if let Some(outbox) = outbox.filter(|outbox| !outbox.is_empty()) {
                return Some((number, outbox));
            }
        }
        None
    }

    fn send(&mut self, number: u64, now_ms: u64) -> Sent {
        let Some(open) = self.open.get_mut(&number) else {
            return Sent::No;
        };
        // A server without a port is passed over.
        let servers = self.zones.servers_of(open.zone);
        let drawn = (open.tries..open.tries + servers).find_map(|tries| {
            let server = self.zones.choose(open.zone, tries, now_ms)?;
            server.draw(&mut self.random)
        });
        let Some((drawn, port)) =
            drawn.and_then(|drawn| Some((drawn, self.ports.get_mut(&drawn)?)))
        else {
            return Sent::No;
        };
        let Some(id) = port.free_id(&mut self.random) else {
            return Sent::No;
        };
        open.tries += 1;
        let mut message = open.ask.asked.to_upstream(id, OUR_UDP_SIZE);
        let question_end = HEADER + open.ask.asked.question().len();
        let question = message.get_mut(HEADER..question_end).unwrap_or_default();
        randomise_case(question, &mut self.random);
        let question = question.to_vec().into_boxed_slice();
        port.tries.insert(id, Try { number, question });
        port.outbox.push(message);
        self.events.count(Event::Asked);
        self.again.push_back(Due {
            at_ms: now_ms + TRY_MS,
            number,
            port: drawn,
            id,
        });
        Sent::Yes
    }

    /// What a datagram answers; the try that it answers is over.
    fn match_up(&mut self, port: u32, datagram: &[u8]) -> Match {
        let Some(port) = self.ports.get_mut(&port) else {
            return Match::Mismatch(Event::WrongId);
        };
        let Some(([id_high, id_low, flags, _, count @ .., _, _, _, _, _, _], rest)) =
            datagram.split_first_chunk::<HEADER>()
        else {
            return Match::Mismatch(Event::Garbled);
        };
        if flags & QR == 0 || *count != [0, 1] {
            return Match::Mismatch(Event::Garbled);
        }
        let id = u16::from_be_bytes([*id_high, *id_low]);
        let Some(tried) = port.tries.get(&id) else {
            return Match::Mismatch(Event::WrongId);
        };
        let number = tried.number;
        let theirs = rest.get(..tried.question.len()).unwrap_or_default();
        if theirs == &*tried.question {
            port.tries.remove(&id);
            return Match::Answer(number);
        }
        if theirs.eq_ignore_ascii_case(&tried.question) {
            port.tries.remove(&id);
            return Match::OtherCase(number);
        }
        Match::Mismatch(Event::WrongQuestion)
    }

    /// Somebody guesses at what is asked from this port, or all is well and something is late.
    fn mismatch(&mut self, number: u32, event: Event) {
        self.events.count(event);
        let Some(port) = self.ports.get_mut(&number) else {
            return;
        };
        port.mismatches += 1;
        if port.mismatches < MAX_MISMATCHES {
            return;
        }
        let mut asked: Vec<_> = port.tries.values().map(|tried| tried.number).collect();
        asked.sort_unstable();
        self.port_failed(number);
        self.out.closed.push(number);
        for number in asked {
            self.hand_on(number, Event::Suspicious, Asking::OverTcp);
        }
    }

    /// This question is for the handler, which may ask over datagrams or TCP alone.
    fn hand_on(&mut self, number: u64, event: Event, asking: Asking) {
        let Some(mut open) = self.open.remove(&number) else {
            return self.events.count(Event::Late);
        };
        self.events.count(event);
        // What is asked ahead is asked in no other way anyhow, and has places of its own.
        if open.ask.query.asking == Asking::Anyhow {
            open.ask.query.asking = asking;
        }
        self.out.elsewhere.push(open.ask);
    }

    /// The time of a datagram is over; perhaps others are on their way, or the question is answered.
    fn wait_on(&mut self, due: Due, now_ms: u64) {
        let Some(open) = self.open.get_mut(&due.number) else {
            return;
        };
        open.waits += 1;
        if open.waits >= MAX_WAITS {
            return self.give_up(due.number);
        }
        if open.tries < MAX_TRIES && matches!(self.send(due.number, now_ms), Sent::Yes) {
            return;
        }
        self.again.push_back(Due {
            at_ms: now_ms + TRY_MS,
            port: NO_PORT,
            ..due
        });
    }

    fn refused(&mut self, number: u64, now_ms: u64) {
        let Some(open) = self.open.get_mut(&number) else {
            return;
        };
        open.refusals += 1;
        let enough = self.zones.servers_of(open.zone).min(MAX_TRIES);
        let is_over = open.refusals >= enough || open.tries >= MAX_TRIES;
        if is_over || matches!(self.send(number, now_ms), Sent::No) {
            self.give_up(number);
        }
    }

    /// Asks no more, and says so.
    pub(super) fn give_up(&mut self, number: u64) {
        self.count_end(number, Event::Failed);
        let Some(open) = self.open.remove(&number) else {
            return;
        };
        let failure = open.ask.asked.refuse(RCODE_SERVFAIL, None);
        let failure = if open.is_bogus {
            Heard::Refused(failure)
        } else {
            Heard::Answer(failure)
        };
        self.out.answers.push((number, failure));
    }

    /// Lookups are counted by how they end, and what is asked ahead is nobody's.
    fn count_end(&self, number: u64, event: Event) {
        let open = self.open.get(&number);
        if open.is_some_and(|open| open.ask.query.asking != Asking::Ahead) {
            self.events.count(event);
        }
    }

    fn close_if_idle(&mut self, number: u32) {
        let is_idle = self
            .ports
            .get(&number)
            .is_none_or(|port| port.tries.is_empty() && port.outbox.is_empty());
        if is_idle {
            self.ports.remove(&number);
            self.zones.closed(number);
            self.out.closed.push(number);
        }
    }
}

/// Whether a datagram was made.
enum Sent {
    Yes,
    No,
}

/// What a datagram belongs to.
enum Match {
    Answer(u64),
    OtherCase(u64),
    Mismatch(Event),
}

impl Port {
    fn expects(&self, due: Due) -> bool {
        let tried = self.tries.get(&due.id);
        tried.is_some_and(|tried| tried.number == due.number)
    }

    /// An id that nothing else is asked under from here.
    fn free_id(&self, random: &mut impl RngCore) -> Option<u16> {
        let drawn = (0..8).map(|_| {
            let [high, low, ..] = random.next_u32().to_ne_bytes();
            u16::from_ne_bytes([high, low])
        });
        let mut drawn = drawn;
        drawn.find(|id| !self.tries.contains_key(id))
    }
}

fn pop_due(queue: &mut VecDeque<Due>, now_ms: u64) -> Option<Due> {
    if queue.front()?.at_ms > now_ms {
        return None;
    }
    queue.pop_front()
}

/// Draws the case of each letter of a question's name.
fn randomise_case(question: &mut [u8], random: &mut impl RngCore) {
    /// What distinguishes a small letter from a capital; length bytes are below 64, where no letter is.
    const CASE: u8 = 0x20;
    let name_len = question.len().saturating_sub(4);
    for bytes in question
        .get_mut(..name_len)
        .unwrap_or_default()
        .chunks_mut(32)
    {
        let mut bits = random.next_u32();
        for byte in bytes {
            if byte.is_ascii_alphabetic() && bits & 1 == 1 {
                *byte ^= CASE;
            }
            bits >>= 1;
        }
    }
}

#[cfg(test)]
mod tests;
