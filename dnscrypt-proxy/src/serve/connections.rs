//! TCP of one worker: its share of the listeners, and the connections that they brought, each with one query at a time.
//! Reads and writes take what is there; whoever is too slow, or one too many, is closed.

use std::net::SocketAddr;
use std::time::Duration;

use netio::Poller;
use netio::poll::Interest;
use netio::tcp::{Listener, Stream};

use super::tls::{Begun, TlsDoor};
use crate::listen::{Holder, Homes, Limits, Places, Ticket};
use crate::proto::dropped::{Counted, Counters, Dropped};
use crate::proto::{MAX_QUERY, relay};

/// How long somebody may take for a whole query, or to accept an answer.
const PATIENCE_S: u64 = 10;
/// The same for the kernel, which waits for the first byte.
pub(super) const SILENCE: Duration = Duration::from_secs(PATIENCE_S);
/// How many queries one connection may carry.
const EXCHANGES: usize = 128;
/// Connections that are accepted in one turn, so that datagrams hardly wait for them.
const ACCEPTED: usize = 32;
/// The length before each message.
const PREFIX: usize = 2;
/// The longest query, and what goes before it to a relay.
pub(super) const LONGEST: usize = relay::PREFIX + MAX_QUERY;
/// Tokens of listeners and of connections; below are those of the worker's datagrams.
const LISTENERS: u32 = 1 << 30;
const CONNECTIONS: u32 = 1 << 31;

/// One connection; nobody after it has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Default))]
pub(super) struct Id {
    slot: u32,
    number: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// For a query.
    Reading,
    /// For its answer.
    Waiting,
    /// For room.
    Writing,
}

struct Connection {
    number: u64,
    stream: Stream,
    source: SocketAddr,
    ticket: Ticket,
    state: State,
    /// What of the next query is here.
    unread: Vec<u8>,
    /// What of the answer is not gone.
    unsent: Vec<u8>,
    ends_s: u64,
    exchanges: usize,
    /// What the poller looks for.
    watched: Option<Interest>,
}

/// A query that came.
pub(super) struct Arrived {
    pub(super) id: Id,
    pub(super) source: SocketAddr,
    pub(super) packet: Vec<u8>,
}

/// All of them.
pub(super) struct Connections {
    listeners: Vec<Listener>,
    /// Listeners are looked at again when this is over: there were no descriptors.
    paused_until_s: Option<u64>,
    slots: Vec<Option<Connection>>,
    free: Vec<u32>,
    last: u64,
    homes: Homes,
    /// Who has to give one up closes the one that did nothing for longest.
    places: Places<Id>,
    /// Where those go that speak TLS.
    tls: Option<TlsDoor>,
    buffer: Box<[u8]>,
    /// Those with a whole query that was sent along with the one before.
    next: Vec<Id>,
    swept_s: u64,
}

impl Connections {
    pub(super) fn new(
        listeners: Vec<Listener>,
        (limits, homes): (Limits, Homes),
        poller: &Poller,
    ) -> std::io::Result<Self> {
        for (number, listener) in (LISTENERS..).zip(&listeners) {
            poller.add(listener, number, Interest::Readable)?;
        }
        Ok(Self {
            listeners,
            paused_until_s: None,
            slots: Vec::new(),
            free: Vec::new(),
            last: 0,
            homes,
            places: Places::bounded(limits.tcp_connections, limits.tcp_per_source),
            tls: None,
            buffer: vec![0; PREFIX + LONGEST].into_boxed_slice(),
            next: Vec::new(),
            swept_s: 0,
        })
    }

    /// The same, with a door for those who speak TLS.
    pub(super) fn before(self, tls: Option<TlsDoor>) -> Self {
        Self { tls, ..self }
    }

    /// How long a wait may be: there may be somebody to give up, or a query that is here already.
    pub(super) fn patience(&self) -> Option<Duration> {
        if !self.next.is_empty() {
            return Some(Duration::ZERO);
        }
        let is_waiting = self.free.len() < self.slots.len() || self.paused_until_s.is_some();
        is_waiting.then_some(Duration::from_secs(1))
    }

    /// What the poller reported under a token of ours; queries that are whole are put into `arrived`.
    pub(super) fn ready(
        &mut self,
        token: u32,
        at: (&Poller, &Counters, u64),
        arrived: &mut Vec<Arrived>,
    ) {
        let Some(slot) = token.checked_sub(CONNECTIONS) else {
            return self.accept(token, at, arrived);
        };
        let Some(id) = self.id(slot) else { return };
        match self.get(id).map(|connection| connection.state) {
            Some(State::Reading) => self.read(id, at, arrived),
            Some(State::Writing) => self.write(id, at),
            // What it sends meanwhile can wait.
            Some(State::Waiting) => self.watch(id, None, at.0),
            None => {}
        }
    }

    /// Queries that came together with the ones before them.
    pub(super) fn take_next(&mut self, arrived: &mut Vec<Arrived>) {
        for id in std::mem::take(&mut self.next) {
            arrived.extend(self.arrival(id));
        }
    }

    /// Sends an answer.
    pub(super) fn answer(&mut self, id: Id, packet: &[u8], at: (&Poller, &Counters, u64)) {
        let Ok(length) = u16::try_from(packet.len()) else {
            return self.close(id);
        };
        let Some(connection) = self.get(id) else {
            return at.1.drop_packet(Dropped::SendFailed);
        };
        connection.unsent = [&length.to_be_bytes(), packet].concat();
        connection.state = State::Writing;
        self.used(id, at.2);
        self.write(id, at);
    }

    /// There is no answer, or a query that has none.
    pub(super) fn close(&mut self, id: Id) {
        drop(self.take(id));
    }

    /// Gives up those whose time is over, once a second.
    pub(super) fn sweep(&mut self, at: (&Poller, &Counters, u64)) {
        let (poller, counters, now_s) = at;
        if now_s == self.swept_s {
            return;
        }
        self.swept_s = now_s;
        if self.paused_until_s.is_some_and(|until_s| until_s <= now_s) {
            self.paused_until_s = None;
            for (number, listener) in (LISTENERS..).zip(&self.listeners) {
                // Whoever was not paused is there already.
                let _watched = poller.add(listener, number, Interest::Readable);
            }
        }
        let mut over = Vec::new();
        for (slot, connection) in (0..).zip(&self.slots) {
            let Some(connection) = connection else {
                continue;
            };
            // Those who wait for an answer get one, or are closed for want of it.
            if connection.state != State::Waiting && connection.ends_s <= now_s {
                let is_idle = connection.state == State::Reading && connection.unread.is_empty();
                let number = connection.number;
                over.push((Id { slot, number }, is_idle));
            }
        }
        for (id, is_idle) in over {
            if !is_idle {
                counters.drop_packet(Dropped::TimedOut);
            }
            self.close(id);
        }
    }

    fn accept(&mut self, token: u32, at: (&Poller, &Counters, u64), arrived: &mut Vec<Arrived>) {
        let (poller, counters, now_s) = at;
        for _ in 0..ACCEPTED {
            let number = token.saturating_sub(LISTENERS) as usize;
            let Some(listener) = self.listeners.get(number) else {
                return;
            };
            match listener.accept() {
                Ok(Some((stream, source))) => {
                    if let Some(id) = self.open(stream, source, (counters, now_s)) {
                        self.read(id, at, arrived);
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, "tcp accept failed");
                    self.paused_until_s = Some(now_s + 1);
                    // One that is not watched cannot be watched less.
                    let _paused = poller.remove(listener);
                    return;
                }
            }
        }
    }

    /// One more, if there is room for it.
    fn open(
        &mut self,
        stream: Stream,
        source: SocketAddr,
        (counters, now_s): (&Counters, u64),
    ) -> Option<Id> {
        self.last += 1;
        let number = self.last;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).unwrap_or_default()
        });
        let id = Id { slot, number };
        let holder = Holder::of(&self.homes, source.ip());
        let Ok(taken) = self.places.take(holder, id) else {
            self.free.push(slot);
            counters.drop_packet(Dropped::TooManyConnections);
            return None;
        };
        if let Some((_, other)) = taken.given_up {
            counters.drop_packet(Dropped::TooManyConnections);
            self.close(other);
        }
        *self.slots.get_mut(slot as usize)? = Some(Connection {
            number,
            stream,
            source,
            ticket: taken.ticket,
            state: State::Reading,
            unread: Vec::new(),
            unsent: Vec::new(),
            ends_s: now_s + PATIENCE_S,
            exchanges: 0,
            watched: None,
        });
        Some(id)
    }

    /// Something was done with a connection.
    fn used(&mut self, id: Id, now_s: u64) {
        let Some(connection) = self.slots.get_mut(id.slot as usize) else {
            return;
        };
        if let Some(connection) = connection.as_mut().filter(|it| it.number == id.number) {
            connection.ends_s = now_s + PATIENCE_S;
            self.places.renew(&mut connection.ticket);
        }
    }

    fn read(&mut self, id: Id, at: (&Poller, &Counters, u64), arrived: &mut Vec<Arrived>) {
        let Some(connection) = self
            .slots
            .get_mut(id.slot as usize)
            .and_then(Option::as_mut)
        else {
            return;
        };
        let room = self.buffer.len() - connection.unread.len();
        let room = self.buffer.get_mut(..room).unwrap_or_default();
        match connection.stream.recv(room) {
            Ok(None) => return self.watch(id, Some(Interest::Readable), at.0),
            Ok(Some(0)) | Err(_) => {
                if !connection.unread.is_empty() {
                    at.1.drop_packet(Dropped::TooShort);
                }
                return self.close(id);
            }
            Ok(Some(read)) => {
                let read = room.get(..read).unwrap_or_default();
                connection.unread.extend_from_slice(read);
            }
        }
        if frame_len(&connection.unread).is_some_and(|len| len > LONGEST) {
            return self.leave(id, at);
        }
        match self.arrival(id) {
            Some(query) => arrived.push(query),
            None => self.watch(id, Some(Interest::Readable), at.0),
        }
    }

    /// What is longer than any query is none: it ends its connection, or is the first of somebody who speaks TLS.
    fn leave(&mut self, id: Id, (poller, counters, _): (&Poller, &Counters, u64)) {
        // What comes from now on is reported to whoever has it then.
        self.watch(id, None, poller);
        let Some(connection) = self.take(id) else {
            return;
        };
        let door = self.tls.as_ref().filter(|_| connection.exchanges == 0);
        let place = door.map_or(Err(Dropped::TooLong), |door| {
            door.place(&connection.stream, &connection.unread)
        });
        match place {
            Ok(place) => place.send(Begun {
                stream: connection.stream.into(),
                source: connection.source,
                read: connection.unread,
            }),
            // Before it is closed, so that whoever sees the end finds it counted.
            Err(reason) => counters.drop_packet(reason),
        }
    }

    /// The next query, once it is whole; from then on the connection waits for the answer.
    fn arrival(&mut self, id: Id) -> Option<Arrived> {
        let connection = self.get(id)?;
        let end = PREFIX + frame_len(&connection.unread)?;
        let rest = (connection.unread.len() >= end).then(|| connection.unread.split_off(end))?;
        let mut packet = std::mem::replace(&mut connection.unread, rest);
        packet.drain(..PREFIX);
        connection.state = State::Waiting;
        let source = connection.source;
        Some(Arrived { id, source, packet })
    }

    fn write(&mut self, id: Id, at: (&Poller, &Counters, u64)) {
        let (poller, counters, now_s) = at;
        let Some(connection) = self.get(id) else {
            return;
        };
        let Ok(sent) = connection.stream.send(&connection.unsent) else {
            counters.drop_packet(Dropped::SendFailed);
            return self.close(id);
        };
        connection.unsent.drain(..sent);
        if !connection.unsent.is_empty() {
            return self.watch(id, Some(Interest::Writable), poller);
        }
        counters.count(Counted::Answer);
        self.used(id, now_s);
        let Some(connection) = self.get(id) else {
            return;
        };
        connection.exchanges += 1;
        if connection.exchanges >= EXCHANGES {
            return self.close(id);
        }
        connection.state = State::Reading;
        match frame_len(&connection.unread) {
            Some(len) if len > LONGEST => {
                counters.drop_packet(Dropped::TooLong);
                self.close(id);
            }
            Some(len) if connection.unread.len() >= PREFIX + len => {
                // `take_next` takes it; nothing is read before that.
                connection.state = State::Waiting;
                self.next.push(id);
            }
            _ => self.watch(id, Some(Interest::Readable), poller),
        }
    }

    fn watch(&mut self, id: Id, interest: Option<Interest>, poller: &Poller) {
        let Some(connection) = self.get(id) else {
            return;
        };
        if connection.watched == interest {
            return;
        }
        let token = CONNECTIONS + id.slot;
        let watched = match (connection.watched, interest) {
            (None, Some(interest)) => poller.add(&connection.stream, token, interest),
            (Some(_), Some(interest)) => poller.modify(&connection.stream, token, interest),
            (_, None) => poller.remove(&connection.stream),
        };
        connection.watched = interest;
        if let Err(error) = watched {
            tracing::debug!(%error, "a connection cannot be waited for");
            self.close(id);
        }
    }

    /// Gives its place back.
    fn take(&mut self, id: Id) -> Option<Connection> {
        self.get(id)?;
        let connection = self.slots.get_mut(id.slot as usize)?.take()?;
        self.free.push(id.slot);
        // Who was made to give it up has none.
        let _given_up = self.places.give_back(connection.ticket);
        Some(connection)
    }

    fn id(&self, slot: u32) -> Option<Id> {
        let connection = self.slots.get(slot as usize)?.as_ref()?;
        let number = connection.number;
        Some(Id { slot, number })
    }

    fn get(&mut self, id: Id) -> Option<&mut Connection> {
        let connection = self.slots.get_mut(id.slot as usize)?.as_mut()?;
        (connection.number == id.number).then_some(connection)
    }
}

/// How long the message is that comes first, once that is known.
fn frame_len(bytes: &[u8]) -> Option<usize> {
    let prefix: &[u8; PREFIX] = bytes.first_chunk()?;
    Some(u16::from_be_bytes(*prefix).into())
}

#[cfg(test)]
mod tests;
