//! Answers of one worker, and who waits for which: what is kept is given at once, what several ask at the same time is
//! asked once, and where no better one comes in time, an answer that has ended stands in (RFC 8767). Never waits, and
//! never gives an answer to another question than its own.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Heard;
use super::answers::{RCODE_SERVFAIL, keep, read};
use crate::cache::{Cache, Look};
use crate::listen::{Class, Holder, Places, Ticket};
use crate::proto::message::{Query, Response};

/// Who waited this long gets the stale answer, if there is one (RFC 8767, section 5: the client response timer).
pub(super) const STALE_AFTER_MS: u64 = 1_800;

/// The desk; `W` is what is needed to give somebody an answer.
#[derive(Debug)]
pub(super) struct Desk<W> {
    kept: Cache,
    asked: HashMap<u64, Asked<W>>,
    by_key: HashMap<Box<[u8]>, u64>,
    /// When those who wait for a question get its stale answer, in milliseconds.
    due: BTreeSet<(u64, u64)>,
    last: u64,
    /// Each for somebody who waits for the question of a number.
    places: Places<u64>,
    ahead: usize,
    /// Questions that are to end.
    ending: usize,
    bounds: Bounds,
    pub(super) out: Out<W>,
}

/// What others had to give up, for whoever has the desk to take out.
#[derive(Debug)]
pub(super) struct Out<W> {
    /// They wait no longer.
    pub(super) waiting: Vec<(Query, W)>,
    /// Questions that nobody waits for any more: these are to be ended, and are on their way until they have.
    pub(super) questions: Vec<u64>,
}

/// How much a desk takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Bytes of answers.
    pub(super) kept_bytes: usize,
    /// Who waits.
    pub(super) waiting: usize,
    /// Questions that are asked before anybody waits, beside them.
    pub(super) ahead: usize,
}

impl Bounds {
    /// Questions that are on their way at most: as many as wait, as many more that are ending, and those ahead.
    pub(super) fn on_their_way(self) -> usize {
        2 * self.waiting + self.ahead
    }
}

/// A question on its way.
#[derive(Debug)]
struct Asked<W> {
    /// None: its answer is for nobody else.
    key: Option<Box<[u8]>>,
    /// The question, where it is not the first waiting one's.
    query: Option<Query>,
    /// In the order in which they came.
    waiting: BTreeMap<u64, (Query, W, Ticket)>,
    place: Place,
    due_ms: Option<u64>,
}

/// Whose place a question has among those that may be on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// That of the one whose question it is.
    Own(Ticket),
    /// That of one who joined: whose question it was had to give theirs up.
    Joined(Ticket),
    /// That of somebody who got a stale answer and waits no longer.
    Left(Ticket),
    /// One of those that nobody waited for from the beginning.
    Ahead,
    /// None any more: it ends as soon as whoever asks hears of it.
    Ending,
}

impl Place {
    fn is_of(self, ticket: Ticket) -> bool {
        matches!(self, Self::Own(it) | Self::Joined(it) | Self::Left(it) if it == ticket)
    }
}

impl<W> Asked<W> {
    /// Whether its failure is one for everybody: strangers may fail for want of their places alone.
    fn concerns_homes(&self) -> bool {
        let is_homes = match self.place {
            Place::Own(_) | Place::Joined(_) | Place::Ending => false,
            Place::Left(ticket) => ticket.holder.class == Class::Home,
            Place::Ahead => true,
        };
        let mut waiting = self.waiting.values();
        is_homes || waiting.any(|(.., ticket)| ticket.holder.class == Class::Home)
    }

    fn share(&self, ticket: Ticket) -> Share {
        if self.place == Place::Own(ticket) {
            Share::Own
        } else {
            Share::Others
        }
    }
}

/// What becomes of one who waits.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wait<W> {
    /// The question is to be asked, under this number.
    Ask(u64),
    /// It is on its way already.
    Joined,
    /// Too many wait; this one is not let in.
    Full(W),
}

/// Somebody who gets an answer.
#[derive(Debug)]
pub(super) struct Served<W> {
    pub(super) to: W,
    /// None: there is none.
    pub(super) answer: Option<Vec<u8>>,
    /// Whether it is a stale one.
    pub(super) is_stale: bool,
    /// Whether another one's question brought it.
    pub(super) share: Share,
}

/// Whose question an answer is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    Own,
    Others,
}

impl<W> Desk<W> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            kept: Cache::new(bounds.kept_bytes),
            asked: HashMap::new(),
            by_key: HashMap::new(),
            due: BTreeSet::new(),
            last: 0,
            places: Places::new(bounds.waiting),
            ahead: 0,
            ending: 0,
            bounds,
            out: Out {
                waiting: Vec::new(),
                questions: Vec::new(),
            },
        }
    }

    /// What is kept for a query.
    pub(super) fn find(&mut self, query: &Query, now_s: u64) -> Look {
        match query.marked_key() {
            Some(key) => self.kept.look(&key, query, now_s),
            None => Look::Nothing,
        }
    }

    /// An answer that has ended, for somebody who cannot wait.
    pub(super) fn stale(&mut self, query: &Query, now_s: u64) -> Option<Vec<u8>> {
        self.kept.stale(&query.marked_key()?, query, now_s)
    }

    /// Lets somebody wait for the answer to a query; others may have to give up for it.
    pub(super) fn wait(&mut self, query: Query, to: W, holder: Holder, now_ms: u64) -> Wait<W> {
        let key = query.marked_key();
        let known = key.as_deref();
        let on_its_way = known.and_then(|key| self.by_key.get(key)).copied();
        let is_stale = known.is_some_and(|key| self.kept.is_stale(key, now_ms / 1000));
        if self.ending >= self.bounds.waiting {
            return Wait::Full(to);
        }
        let next = self.last + 1;
        let Ok(taken) = self.places.take(holder, on_its_way.unwrap_or(next)) else {
            return Wait::Full(to);
        };
        let ticket = taken.ticket;
        let number = on_its_way.unwrap_or_else(|| self.begin(key, None, Place::Own(ticket)));
        if let Some(asked) = self.asked.get_mut(&number) {
            asked.waiting.insert(ticket.number, (query, to, ticket));
            if is_stale && asked.due_ms.is_none() {
                let due_ms = now_ms + STALE_AFTER_MS;
                asked.due_ms = Some(due_ms);
                self.due.insert((due_ms, number));
            }
        }
        // Not before: it may be the same question that somebody gives up.
        if let Some((ticket, number)) = taken.given_up {
            self.give_up(ticket, number);
        }
        match on_its_way {
            Some(_) => Wait::Joined,
            None => Wait::Ask(number),
        }
    }

    /// Asks anew for an answer that is kept and near its end, while nobody waits; under which number, if it may.
    pub(super) fn ask_ahead(&mut self, query: &Query) -> Option<u64> {
        if self.ahead >= self.bounds.ahead {
            return None;
        }
        let key = query.marked_key()?;
        self.kept.asked_anew(&key);
        if self.by_key.contains_key(&key) {
            return None;
        }
        self.ahead += 1;
        Some(self.begin(Some(key), Some(query.clone()), Place::Ahead))
    }

    /// When somebody has waited long enough.
    pub(super) fn poll_timeout(&self) -> Option<u64> {
        self.due.first().map(|(due_ms, _)| *due_ms)
    }

    /// Those who have waited long enough, with the stale answers that they get. Their questions stay on their way.
    pub(super) fn handle_timeout(&mut self, now_ms: u64) -> Vec<Served<W>> {
        let now_s = now_ms / 1000;
        let mut served = Vec::new();
        while let Some((due_ms, number)) = self.due.first().copied()
            && due_ms <= now_ms
        {
            self.due.pop_first();
            let Some(asked) = self.asked.get_mut(&number) else {
                continue;
            };
            asked.due_ms = None;
            let Some(key) = asked.key.as_deref() else {
                continue;
            };
            // It may have made room for another one meanwhile: then they wait on.
            if !self.kept.is_stale(key, now_s) {
                continue;
            }
            if asked.concerns_homes() {
                self.kept.failed(key, now_s);
            }
            for (query, to, ticket) in std::mem::take(&mut asked.waiting).into_values() {
                served.push(Served {
                    to,
                    answer: self.kept.stale(key, &query, now_s),
                    is_stale: true,
                    share: asked.share(ticket),
                });
                if asked.place.is_of(ticket) {
                    asked.query = Some(query);
                    asked.place = Place::Left(ticket);
                } else {
                    self.places.give_back(ticket);
                }
            }
        }
        served
    }

    /// What was asked under a number has been answered, or will not be.
    pub(super) fn answered(&mut self, number: u64, heard: Heard, now_s: u64) -> Vec<Served<W>> {
        let Some(mut asked) = self.end(number) else {
            return Vec::new();
        };
        let Some(key) = asked.key.take() else {
            let answer = heard.into_message();
            let own = asked.waiting.into_values().map(|(_, to, _)| Served {
                to,
                answer: answer.clone(),
                is_stale: false,
                share: Share::Own,
            });
            return own.collect();
        };
        let first = asked.waiting.first_key_value();
        let first = first.map(|(_, (query, ..))| query);
        let query = asked.query.as_ref().or(first);
        let response = query.and_then(|query| self.learn(&key, query, &heard, now_s));
        let is_failure = is_failure(response.as_ref());
        if is_failure && asked.concerns_homes() {
            self.kept.failed(&key, now_s);
        }
        let has_spoken = heard != Heard::Silence;
        let waiting = std::mem::take(&mut asked.waiting).into_values();
        let served = waiting.map(|(query, to, ticket)| {
            let stale = if is_failure {
                self.kept.stale(&key, &query, now_s)
            } else {
                None
            };
            let is_stale = stale.is_some();
            let fresh = || match &response {
                Some(response) => Some(query.adopt(&response.stored, None)),
                // What cannot be read is nobody's answer; without any, nothing is said.
                None => has_spoken.then(|| query.refuse(RCODE_SERVFAIL, None)),
            };
            Served {
                to,
                answer: stale.or_else(fresh),
                is_stale,
                share: asked.share(ticket),
            }
        });
        served.collect()
    }

    /// Keeps an answer, or what a refusal says of the one that is kept; the answer, if it can be read.
    fn learn(&mut self, key: &[u8], query: &Query, heard: &Heard, now_s: u64) -> Option<Response> {
        match heard {
            Heard::Answer(answer) => keep(&mut self.kept, query, answer, now_s),
            Heard::Refused(answer) => {
                self.kept.refused(key, now_s);
                read(query, answer)
            }
            // Neither says anything of the name.
            Heard::Busy(_) | Heard::Silence => None,
        }
    }

    /// What was asked under a number was not asked, for want of what its own asker may have: that one, if it waits, comes first.
    /// Their places are free.
    pub(super) fn turned_away(&mut self, number: u64) -> Vec<(Query, W, Share)> {
        let Some(mut asked) = self.end(number) else {
            return Vec::new();
        };
        let waiting = std::mem::take(&mut asked.waiting).into_values();
        let waiting = waiting.map(|(query, to, ticket)| (query, to, asked.share(ticket)));
        waiting.collect()
    }

    /// A place is somebody else's now: whoever waited in it for a question does so no longer, and the question ends with the last one.
    fn give_up(&mut self, ticket: Ticket, number: u64) {
        let Some(asked) = self.asked.get_mut(&number) else {
            return;
        };
        let was_theirs = asked.place.is_of(ticket);
        if let Some((query, to, _)) = asked.waiting.remove(&ticket.number) {
            if was_theirs {
                asked.query = Some(query.clone());
            }
            self.out.waiting.push((query, to));
        }
        if !was_theirs {
            return;
        }
        if let Some((_, (.., next))) = asked.waiting.first_key_value() {
            asked.place = Place::Joined(*next);
            return;
        }
        asked.place = Place::Ending;
        self.ending += 1;
        if let Some(key) = asked.key.take() {
            self.by_key.remove(&key);
        }
        if let Some(due_ms) = asked.due_ms.take() {
            self.due.remove(&(due_ms, number));
        }
        self.out.questions.push(number);
    }

    fn begin(&mut self, key: Option<Box<[u8]>>, query: Option<Query>, place: Place) -> u64 {
        self.last += 1;
        if let Some(key) = &key {
            self.by_key.insert(key.clone(), self.last);
        }
        let asked = Asked {
            key,
            query,
            waiting: BTreeMap::new(),
            place,
            due_ms: None,
        };
        self.asked.insert(self.last, asked);
        self.last
    }

    /// Takes a question off its way, and gives back the places that it and those who wait for it had.
    fn end(&mut self, number: u64) -> Option<Asked<W>> {
        let asked = self.asked.remove(&number)?;
        if let Some(key) = &asked.key {
            self.by_key.remove(key);
        }
        if let Some(due_ms) = asked.due_ms {
            self.due.remove(&(due_ms, number));
        }
        let left = match asked.place {
            Place::Own(_) | Place::Joined(_) => None,
            Place::Left(ticket) => Some(ticket),
            Place::Ahead => {
                self.ahead = self.ahead.saturating_sub(1);
                None
            }
            Place::Ending => {
                self.ending = self.ending.saturating_sub(1);
                None
            }
        };
        let waiting = asked.waiting.values().map(|(.., ticket)| *ticket);
        for ticket in waiting.chain(left) {
            self.places.give_back(ticket);
        }
        Some(asked)
    }
}

/// Whether those who were asked reached nobody, or said nothing that can be read.
fn is_failure(response: Option<&Response>) -> bool {
    response.is_none_or(|response| response.rcode == RCODE_SERVFAIL)
}

#[cfg(test)]
mod tests;
