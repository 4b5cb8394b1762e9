//! What is known of how a resolver answers: how long it takes, whether it is silent, whether it is down.
//! Pure: the time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// What is taken for the time that is due to a resolver that was never measured.
const UNMEASURED: Duration = Duration::from_millis(200);
/// Nobody is thought late before this, nor in time after that.
const LATE_AFTER: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(800)];
/// A resolver that says nothing for this long, though it is asked, is silent.
const SILENT_AFTER: Duration = Duration::from_secs(1);
/// One that is outpaced this often in a row, over at least this time, and says nothing at all, is silent too.
const OUTPACED: (u32, Duration) = (5, Duration::from_millis(250));
/// A time that was measured is believed for this long, where it decides who is asked.
const MEASURED_FOR: Duration = Duration::from_secs(60);
/// A resolver that falls silent again after each recovery is believed in after ever longer pauses.
const MOST_RELAPSES: u32 = 6;
/// Likewise one that answers and cannot be used.
const MOST_UNUSABLE: u32 = 10;
/// So many refusals in a row, and not one other answer, are about us and not about a name.
const MOST_REFUSALS: u32 = 5;

/// How a resolver is doing, from the questions that it was asked.
#[derive(Debug, Default)]
pub(super) struct Standing {
    rtt: Option<Rtt>,
    measured: Option<Instant>,
    /// Questions on their way.
    pending: u32,
    /// Since when nothing came though something was asked.
    unheard_since: Option<Instant>,
    heard: Option<Instant>,
    /// Questions in a row that another one answered first, and when the first of them was.
    outpaced: Option<(u32, Instant)>,
    down: bool,
    failures: u32,
    relapses: u32,
    /// Looks in a row that found certificates, and none to use.
    unusable: u32,
    /// Answers in a row that said nothing else.
    refusals: u32,
    last_error: Option<String>,
    /// Whether somebody looks after it until it is up.
    watched: bool,
}

/// What a failure or a doubt asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Watch {
    /// Nobody looks after the resolver yet: the caller does.
    Begin,
    /// Somebody does.
    Goes,
}

impl Standing {
    /// A question leaves.
    pub(super) fn asked(&mut self, now: Instant) {
        self.pending += 1;
        self.unheard_since.get_or_insert(now);
    }

    /// A question is over, however it ended.
    pub(super) fn ended(&mut self) {
        self.pending = self.pending.saturating_sub(1);
        if self.pending == 0 {
            self.unheard_since = None;
        }
    }

    /// An authentic answer came; `took` if it answers a question that was sent once.
    pub(super) fn heard(&mut self, took: Option<Duration>, now: Instant) {
        self.heard = Some(now);
        self.unheard_since = (self.pending > 0).then_some(now);
        self.outpaced = None;
        if let Some(took) = took {
            self.measure(took, now);
        }
    }

    /// It gave the answer to a question.
    pub(super) fn served(&mut self) {
        self.relapses = 0;
        self.refusals = 0;
        self.up();
    }

    /// It refused to answer a question. Whether it refuses all.
    pub(super) fn refused(&mut self) -> bool {
        self.refusals = self.refusals.saturating_add(1);
        self.refusals >= MOST_REFUSALS
    }

    /// Another resolver answered first, so long after this one was asked. Being slower is no failure; whether
    /// it is silent is told.
    pub(super) fn outpaced(&mut self, waited: Duration, now: Instant) -> bool {
        // It takes at least as long.
        if self.rtt.is_none_or(|rtt| waited > rtt.smoothed) {
            self.measure(waited, now);
        }
        let (times, first) = self.outpaced.unwrap_or((0, now));
        let times = times.saturating_add(1);
        self.outpaced = Some((times, first));
        let (most, over) = OUTPACED;
        self.is_silent(now) || (times >= most && now.saturating_duration_since(first) >= over)
    }

    /// A question came to nothing.
    pub(super) fn failed(&mut self, error: String) -> Watch {
        self.down = true;
        self.failures = self.failures.saturating_add(1);
        self.last_error = Some(error);
        self.watch()
    }

    /// It is to be looked at, whether or not it is down.
    pub(super) fn watch(&mut self) -> Watch {
        if std::mem::replace(&mut self.watched, true) {
            Watch::Goes
        } else {
            Watch::Begin
        }
    }

    /// It shows its certificates again. Only an answer proves more.
    pub(super) fn recovered(&mut self) {
        self.relapses = (self.relapses + 1).min(MOST_RELAPSES);
        self.up();
    }

    /// It shows certificates, and none that can be used.
    pub(super) fn unusable(&mut self) {
        self.unusable = (self.unusable + 1).min(MOST_UNUSABLE);
    }

    /// It shows nothing: whatever was wrong with it may be mended when it is back.
    pub(super) fn away(&mut self) {
        self.unusable = 0;
    }

    /// Everything may be different now.
    pub(super) fn forget(&mut self) {
        let (pending, watched) = (self.pending, self.watched);
        *self = Self {
            pending,
            watched,
            ..Self::default()
        };
    }

    /// How often the pause before it is believed in again is doubled, or `None` when it is well; then nobody
    /// looks after it any more.
    pub(super) fn keep_watch(&mut self, now: Instant) -> Option<u32> {
        self.watched = self.down || self.is_silent(now);
        self.watched.then_some(self.relapses.max(self.unusable))
    }

    /// Whether it came to nothing lately.
    pub(super) fn is_down(&self) -> bool {
        self.down
    }

    /// Whether it has said nothing for a while though it was asked.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        self.unheard_since
            .is_some_and(|since| now.saturating_duration_since(since) >= SILENT_AFTER)
    }

    /// Whether nothing came since a moment.
    pub(super) fn is_unheard_since(&self, moment: Instant) -> bool {
        self.heard.is_none_or(|heard| heard < moment)
    }

    /// When an answer is later than nineteen of twenty, about.
    pub(super) fn late_after(&self) -> Duration {
        let [least, most] = LATE_AFTER;
        self.rtt.map_or(UNMEASURED, |rtt| {
            (rtt.smoothed + 4 * rtt.deviation).clamp(least, most)
        })
    }

    /// A class of speed, lower is faster: two to each doubling, so that equals keep their order. Who was never
    /// measured comes first, once.
    pub(super) fn speed(&self) -> u32 {
        self.rtt.map_or(0, |rtt| {
            let micros = u32::try_from(rtt.smoothed.as_micros())
                .unwrap_or(u32::MAX)
                .max(2);
            let doublings = micros.ilog2();
            2 * doublings + ((micros >> (doublings - 1)) & 1)
        })
    }

    /// The smoothed time of an answer.
    pub(super) fn rtt(&self) -> Option<Duration> {
        self.rtt.map(|rtt| rtt.smoothed)
    }

    /// Whether it is time to measure it again, told once.
    pub(super) fn wants_measuring(&mut self, now: Instant) -> bool {
        let old = |at: Instant| now.saturating_duration_since(at) >= MEASURED_FOR;
        let due = !self.down && self.measured.is_none_or(old);
        if due {
            self.measured = Some(now);
        }
        due
    }

    /// How often it failed since it last answered.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// The last failure, if it is the latest news.
    pub(super) fn last_error(&self) -> Option<&String> {
        self.last_error.as_ref()
    }

    fn up(&mut self) {
        self.unusable = 0;
        self.outpaced = None;
        self.down = false;
        self.failures = 0;
        self.last_error = None;
    }

    fn measure(&mut self, took: Duration, now: Instant) {
        self.measured = Some(now);
        match &mut self.rtt {
            Some(rtt) => rtt.add(took),
            None => self.rtt = Some(Rtt::first(took)),
        }
    }
}

/// The time of an answer, smoothed as RFC 6298 does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rtt {
    smoothed: Duration,
    deviation: Duration,
}

impl Rtt {
    fn first(took: Duration) -> Self {
        Self {
            smoothed: took,
            deviation: took / 2,
        }
    }

    fn add(&mut self, took: Duration) {
        self.deviation = (3 * self.deviation + took.abs_diff(self.smoothed)) / 4;
        self.smoothed = (7 * self.smoothed + took) / 8;
    }
}

/// How many questions may be asked twice, in tenths: a tenth is earned by each question.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hedges(u32);

impl Hedges {
    const PRICE: u32 = 10;
    const MOST: u32 = 10 * Self::PRICE;

    pub(super) fn earn(&mut self) {
        self.0 = (self.0 + 1).min(Self::MOST);
    }

    /// Whether one more may be asked twice.
    pub(super) fn spend(&mut self) -> bool {
        let left = self.0.checked_sub(Self::PRICE);
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }
}

impl Default for Hedges {
    fn default() -> Self {
        Self(Self::MOST)
    }
}

#[cfg(test)]
mod tests;
