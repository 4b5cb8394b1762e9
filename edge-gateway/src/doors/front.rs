//! What all doors ask: answers that are kept are given at once, others are asked for, and each is padded before it is
//! sealed (RFC 8467).

use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dnscrypt_proxy::cache::Cache;
use dnscrypt_proxy::listen::{GivenUp, Holder, Homes, Rate, Seats};
use dnscrypt_proxy::proto::message::{Query, Response, pad_answer};
use dnscrypt_proxy::serve::{Asking, Heard, Rates, answers};
use tokio::time::timeout;

use super::AT_ONCE;
use crate::answers::{Answers, MAX_LOOKUPS};
use crate::places::count;

/// Answers that the doors keep together, in memory.
const KEPT_BYTES: usize = 8 << 20;
/// Questions that wait for the resolver at once, of all doors together; more are answered SERVFAIL. The other half of its
/// places is DNSCrypt's.
const WAITING: usize = MAX_LOOKUPS / 2;
/// Those of one source: of its connections, four may ask for all that they can.
const WAITING_PER_SOURCE: usize = 4 * AT_ONCE;
/// Clients have given up by then.
const HANDLER: Duration = Duration::from_secs(10);
/// RFC 8467, section 4.1.
const PADDING_BLOCK: usize = 468;
const RCODE_SERVFAIL: u16 = 2;

/// The doors; the label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Tls,
    Http2,
    Http3,
    Quic,
}

impl Door {
    /// Every door, for tables of counters.
    pub(crate) const ALL: [Self; 4] = [Self::Tls, Self::Http2, Self::Http3, Self::Quic];

    /// The label's value.
    pub(crate) fn as_label(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Http2 => "http2",
            Self::Http3 => "http3",
            Self::Quic => "quic",
        }
    }
}

/// What the doors have done since they were opened.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    queries: [AtomicU64; Door::ALL.len()],
    open: [AtomicU64; Door::ALL.len()],
    /// Queries that a kept answer was given to.
    pub(crate) shared: AtomicU64,
    /// Connections that found no place.
    pub(super) refused: Arc<AtomicU64>,
    /// What is no question, or not as the protocol wants it.
    pub(super) malformed: AtomicU64,
    /// Queries beyond their source's rate.
    pub(super) over_rate: AtomicU64,
    /// Queries for which there was no place among those that wait.
    pub(super) overloaded: Arc<AtomicU64>,
}

impl Figures {
    /// Queries by door.
    pub(crate) fn queries(&self) -> impl Iterator<Item = (Door, &AtomicU64)> {
        Door::ALL.into_iter().zip(&self.queries)
    }

    /// Connections that are open now, by door.
    pub(crate) fn open(&self) -> impl Iterator<Item = (Door, &AtomicU64)> {
        Door::ALL.into_iter().zip(&self.open)
    }

    /// Why questions and connections were turned away, and how often.
    pub(crate) fn turned_away(&self) -> [(&'static str, &AtomicU64); 4] {
        [
            ("connections", &*self.refused),
            ("malformed", &self.malformed),
            ("over_rate", &self.over_rate),
            ("overloaded", &*self.overloaded),
        ]
    }

    /// Where the connections of a door are counted.
    pub(super) fn open_at(&self, door: Door) -> &AtomicU64 {
        &self.open[door as usize]
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is no question.
    Malformed,
    /// Its source has asked too often.
    OverRate,
}

/// An answer, ready to be sealed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) message: Vec<u8>,
    /// How long it may be kept, which HTTP says besides; zero: not at all.
    pub(super) lifetime_s: u32,
}

/// The front: everything behind the doors.
pub(super) struct Front {
    answers: Answers,
    rates: Option<Rates>,
    // Held for one look by whichever task asks.
    kept: Mutex<Cache>,
    homes: Homes,
    waiting: Seats,
    began: Instant,
    pub(super) figures: Arc<Figures>,
}

impl Front {
    pub(super) fn new(
        answers: Answers,
        rate: Option<Rate>,
        homes: &Homes,
        figures: Arc<Figures>,
    ) -> Self {
        Self {
            answers,
            rates: rate.map(|rate| Rates::new(rate, homes.clone())),
            kept: Mutex::new(Cache::new(KEPT_BYTES)),
            homes: homes.clone(),
            waiting: Seats::bounded(WAITING, WAITING_PER_SOURCE),
            began: Instant::now(),
            figures,
        }
    }

    /// Answers a query that came through a door.
    pub(super) async fn ask(
        &self,
        message: &[u8],
        from: IpAddr,
        door: Door,
    ) -> Result<Answer, Refused> {
        let is_over = |rates: &Rates| !rates.admit(from, rates.moment_us(Instant::now()));
        if self.rates.as_ref().is_some_and(is_over) {
            count(&self.figures.over_rate, 1);
            return Err(Refused::OverRate);
        }
        let Ok(query) = Query::read(message) else {
            return Err(self.malformed());
        };
        count(&self.figures.queries[door as usize], 1);
        let found = answers::find(&mut self.kept(), &query, self.uptime_s());
        let answer = match found {
            Some(answer) => {
                count(&self.figures.shared, 1);
                answer
            }
            None => self.fetch(message, &query, from).await,
        };
        Ok(finish(answer, &query, door))
    }

    /// Counts what is not as the protocol wants it.
    pub(super) fn malformed(&self) -> Refused {
        count(&self.figures.malformed, 1);
        Refused::Malformed
    }

    async fn fetch(&self, message: &[u8], query: &Query, from: IpAddr) -> Vec<u8> {
        let asking = timeout(HANDLER, self.answers.answer(message, from, Asking::Anyhow));
        let answer = match self.waiting.take(Holder::of(&self.homes, from)) {
            Some(seat) => seat.during(asking).await,
            None => Err(GivenUp),
        };
        let Ok(answer) = answer else {
            count(&self.figures.overloaded, 1);
            return query.refuse(RCODE_SERVFAIL, None);
        };
        let Some(answer) = answer.ok().and_then(Heard::into_message) else {
            return query.refuse(RCODE_SERVFAIL, None);
        };
        answers::keep(&mut self.kept(), query, &answer, self.uptime_s());
        answer
    }

    fn uptime_s(&self) -> u64 {
        self.began.elapsed().as_secs()
    }

    fn kept(&self) -> MutexGuard<'_, Cache> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn finish(mut message: Vec<u8>, query: &Query, door: Door) -> Answer {
    let lifetime_s = match door {
        Door::Http2 | Door::Http3 => Response::read(&message, query)
            .ok()
            .and_then(|response| response.lifetime_s)
            .unwrap_or(0),
        Door::Tls | Door::Quic => 0,
    };
    pad_answer(&mut message, PADDING_BLOCK);
    Answer {
        message,
        lifetime_s,
    }
}
