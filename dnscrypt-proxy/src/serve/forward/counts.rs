//! What a forwarder's questions and the datagrams on its ports came to, as figures.

use std::sync::atomic::{AtomicUsize, Ordering};

/// What happened. The label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Event {
    /// A datagram with a question was made for a server.
    Asked,
    /// A question that somebody asked was answered.
    Answered,
    /// A question has no answer: its asker gets SERVFAIL.
    Failed,
    /// No answer to a datagram within its time.
    TimedOut,
    /// A server said that it cannot answer.
    Refused,
    /// An answer that nobody waits for any longer.
    Late,
    /// The answer was cut to fit a datagram, or leaves off in the middle: the question was handed on.
    Cut,
    /// The answer leads to a name that others are asked for: the question was handed on.
    Foreign,
    /// On a port of ours, with an id that is not outstanding there.
    WrongId,
    /// With an outstanding id, to another question.
    WrongQuestion,
    /// With an outstanding id and its question, in other letter case than it was asked in.
    WrongCase,
    /// What is no answer at all.
    Garbled,
    /// A question that was handed on, since somebody seems to guess at its answer.
    Suspicious,
}

impl Event {
    /// Every event, in the order of the counters.
    pub const ALL: [Self; 13] = [
        Self::Asked,
        Self::Answered,
        Self::Failed,
        Self::TimedOut,
        Self::Refused,
        Self::Late,
        Self::Cut,
        Self::Foreign,
        Self::WrongId,
        Self::WrongQuestion,
        Self::WrongCase,
        Self::Garbled,
        Self::Suspicious,
    ];

    /// The label's value.
    #[must_use]
    pub fn as_label(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Refused => "refused",
            Self::Late => "late",
            Self::Cut => "cut",
            Self::Foreign => "foreign",
            Self::WrongId => "wrong_id",
            Self::WrongQuestion => "wrong_question",
            Self::WrongCase => "wrong_case",
            Self::Garbled => "garbled",
            Self::Suspicious => "suspicious",
        }
    }
}

/// How often each event happened, for all workers together.
#[derive(Debug, Default)]
pub struct Events([AtomicUsize; Event::ALL.len()]);

impl Events {
    /// How often an event happened.
    #[must_use]
    pub fn get(&self, event: Event) -> usize {
        let cell = self.0.get(event as usize);
        cell.map_or(0, |cell| cell.load(Ordering::Relaxed))
    }

    /// The events that happened, with how often.
    pub fn all(&self) -> impl Iterator<Item = (Event, usize)> + '_ {
        let all = Event::ALL.iter().map(|event| (*event, self.get(*event)));
        all.filter(|(_, times)| *times > 0)
    }

    pub(super) fn count(&self, event: Event) {
        if let Some(cell) = self.0.get(event as usize) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }
}
