//! Answers of one worker, and who waits for which: what is kept is given at once, what several ask at the same time is
//! asked once, and where no better one comes in time, an answer that has ended stands in (RFC 8767). Never waits, and
//! never gives an answer to another question than its own.

use std::collections::{BTreeSet, HashMap};

use super::Heard;
use super::answers::{RCODE_SERVFAIL, keep, read};
use crate::cache::{Cache, Look};
use crate::listen::{Class, Holder, Places};
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
    places: Places,
    ahead: usize,
    bounds: Bounds,
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

/// A question on its way.
#[derive(Debug)]
struct Asked<W> {
    /// None: its answer is for nobody else.
    key: Option<Box<[u8]>>,
    /// The question, where it is not the first waiting one's.
    query: Option<Query>,
    waiting: Vec<(Query, W, Holder)>,
    place: Place,
    due_ms: Option<u64>,
}

/// Whose place a question has among those that may be on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// That of those who wait.
    Waiting,
    /// That of somebody who got a stale answer and waits no longer.
    Left(Holder),
    /// One of those that nobody waited for from the beginning.
    Ahead,
}

impl<W> Asked<W> {
    /// Whether its failure is one for everybody: strangers may fail for want of their places alone.
    fn concerns_homes(&self) -> bool {
        let is_homes = match self.place {
            Place::Waiting => false,
            Place::Left(holder) => holder.class == Class::Home,
            Place::Ahead => true,
        };
        let mut waiting = self.waiting.iter();
        is_homes || waiting.any(|(.., holder)| holder.class == Class::Home)
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
            bounds,
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

    /// Lets somebody wait for the answer to a query.
    pub(super) fn wait(&mut self, query: Query, to: W, holder: Holder, now_ms: u64) -> Wait<W> {
        if !self.places.take(holder) {
            return Wait::Full(to);
        }
        let key = query.marked_key();
        let known = key.as_deref();
        let on_its_way = known.and_then(|key| self.by_key.get(key)).copied();
        let is_stale = known.is_some_and(|key| self.kept.is_stale(key, now_ms / 1000));
        let number = on_its_way.unwrap_or_else(|| self.begin(key, None, Place::Waiting));
        if let Some(asked) = self.asked.get_mut(&number) {
            asked.waiting.push((query, to, holder));
            if is_stale && asked.due_ms.is_none() {
                let due_ms = now_ms + STALE_AFTER_MS;
                asked.due_ms = Some(due_ms);
                self.due.insert((due_ms, number));
            }
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
            let owns = asked.place == Place::Waiting;
            for (place, (query, to, holder)) in asked.waiting.drain(..).enumerate() {
                let is_own = owns && place == 0;
                served.push(Served {
                    to,
                    answer: self.kept.stale(key, &query, now_s),
                    is_stale: true,
                    share: Share::of(is_own),
                });
                if is_own {
                    asked.query = Some(query);
                    asked.place = Place::Left(holder);
                } else {
                    self.places.give_back(holder);
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
        let owns = asked.place == Place::Waiting;
        let Some(key) = asked.key.take() else {
            let answer = heard.into_message();
            let own = asked.waiting.into_iter().map(|(_, to, _)| Served {
                to,
                answer: answer.clone(),
                is_stale: false,
                share: Share::Own,
            });
            return own.collect();
        };
        let first = asked.waiting.first().map(|(query, ..)| query);
        let query = asked.query.as_ref().or(first);
        let response = query.and_then(|query| self.learn(&key, query, &heard, now_s));
        let is_failure = is_failure(response.as_ref());
        if is_failure && asked.concerns_homes() {
            self.kept.failed(&key, now_s);
        }
        let has_spoken = heard != Heard::Silence;
        let served = asked.waiting.into_iter().enumerate();
        let served = served.map(|(place, (query, to, _))| {
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
                share: Share::of(owns && place == 0),
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
        let Some(asked) = self.end(number) else {
            return Vec::new();
        };
        let owns = asked.place == Place::Waiting;
        let waiting = asked.waiting.into_iter().enumerate();
        let waiting = waiting.map(|(at, (query, to, _))| (query, to, Share::of(owns && at == 0)));
        waiting.collect()
    }

    fn begin(&mut self, key: Option<Box<[u8]>>, query: Option<Query>, place: Place) -> u64 {
        self.last += 1;
        if let Some(key) = &key {
            self.by_key.insert(key.clone(), self.last);
        }
        let asked = Asked {
            key,
            query,
            waiting: Vec::new(),
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
            Place::Waiting => None,
            Place::Left(holder) => Some(holder),
            Place::Ahead => {
                self.ahead = self.ahead.saturating_sub(1);
                None
            }
        };
        for holder in asked.waiting.iter().map(|(.., holder)| *holder).chain(left) {
            self.places.give_back(holder);
        }
        Some(asked)
    }
}

impl Share {
    fn of(is_own: bool) -> Self {
        if is_own { Self::Own } else { Self::Others }
    }
}

/// Whether those who were asked reached nobody, or said nothing that can be read.
fn is_failure(response: Option<&Response>) -> bool {
    response.is_none_or(|response| response.rcode == RCODE_SERVFAIL)
}

#[cfg(test)]
mod tests;
