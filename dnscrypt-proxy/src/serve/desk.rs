//! Answers of one worker, and who waits for which: what is kept is given at once, and what several ask at the
//! same time is asked once. Never waits, and never gives an answer to another question than its own.

use std::collections::HashMap;

use super::answers::{find, keep};
use crate::cache::Cache;
use crate::proto::message::Query;

const RCODE_SERVFAIL: u16 = 2;

/// The desk; `W` is what is needed to give somebody an answer.
#[derive(Debug)]
pub(super) struct Desk<W> {
    kept: Cache,
    asked: HashMap<u64, Asked<W>>,
    by_key: HashMap<Box<[u8]>, u64>,
    last: u64,
    waiting: usize,
    strangers: usize,
    most: usize,
}

/// Who waits: the homes have three quarters of the places for themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Home,
    Stranger,
}

/// A question on its way.
#[derive(Debug)]
struct Asked<W> {
    /// None: its answer is for nobody else.
    key: Option<Box<[u8]>>,
    waiting: Vec<(Query, W, Class)>,
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
    /// Keeps so many bytes of answers and lets so many wait.
    pub(super) fn new(kept_bytes: usize, most: usize) -> Self {
        Self {
            kept: Cache::new(kept_bytes),
            asked: HashMap::new(),
            by_key: HashMap::new(),
            last: 0,
            waiting: 0,
            strangers: 0,
            most,
        }
    }

    /// The kept answer to a query.
    pub(super) fn find(&mut self, query: &Query, now_s: u64) -> Option<Vec<u8>> {
        find(&mut self.kept, query, now_s)
    }

    /// Lets somebody wait for the answer to a query.
    pub(super) fn wait(&mut self, query: Query, to: W, class: Class) -> Wait<W> {
        let is_stranger = class == Class::Stranger;
        if self.waiting >= self.most || is_stranger && self.strangers >= self.most / 4 {
            return Wait::Full(to);
        }
        self.waiting += 1;
        self.strangers += usize::from(is_stranger);
        let key = query.marked_key();
        if let Some(asked) = key
            .as_deref()
            .and_then(|key| self.by_key.get(key))
            .and_then(|number| self.asked.get_mut(number))
        {
            asked.waiting.push((query, to, class));
            return Wait::Joined;
        }
        self.last += 1;
        if let Some(key) = &key {
            self.by_key.insert(key.clone(), self.last);
        }
        let waiting = vec![(query, to, class)];
        self.asked.insert(self.last, Asked { key, waiting });
        Wait::Ask(self.last)
    }

    /// What was asked under a number has been answered, or will not be.
    pub(super) fn answered(
        &mut self,
        number: u64,
        answer: Option<Vec<u8>>,
        now_s: u64,
    ) -> Vec<Served<W>> {
        let Some(asked) = self.asked.remove(&number) else {
            return Vec::new();
        };
        self.waiting = self.waiting.saturating_sub(asked.waiting.len());
        let strangers = asked.waiting.iter();
        let strangers = strangers.filter(|(_, _, class)| *class == Class::Stranger);
        self.strangers = self.strangers.saturating_sub(strangers.count());
        let Some(key) = asked.key else {
            let own = asked.waiting.into_iter().map(|(_, to, _)| Served {
                to,
                answer: answer.clone(),
                share: Share::Own,
            });
            return own.collect();
        };
        self.by_key.remove(&key);
        let first = asked.waiting.first().map(|(query, ..)| query);
        let response =
            first.and_then(|query| keep(&mut self.kept, query, answer.as_deref()?, now_s));
        let served = asked.waiting.into_iter().enumerate();
        served
            .map(|(place, (query, to, _))| Served {
                to,
                answer: match &response {
                    Some(response) => Some(query.adopt(&response.stored, None)),
                    // What cannot be read is nobody's answer; without any, nothing is said.
                    None => answer.as_ref().map(|_| query.refuse(RCODE_SERVFAIL, None)),
                },
                share: if place == 0 {
                    Share::Own
                } else {
                    Share::Others
                },
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
