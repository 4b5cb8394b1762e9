//! How long a packet the path takes, found out by sending some that are so long: where ICMP is filtered nobody else tells
//! (RFC 8899). Pure bookkeeping on the caller's clock; a probe is an ask with padding, whose answer comes back as long.
//!
//! ```text
//!              answered                    long ones unanswered, short one answered
//!   rest ◀──────────────────── check ──────────────────────────────────────▶ search
//!    │ ▲  every 5 s of work ───▶                                            │   ▲
//!    │ └──────────── the longest answered is known to four bytes ───────────┘   │
//!    └──────────────────── after two minutes with less than the link has ───────┘
//! ```

use std::time::{Duration, Instant};

/// What is believed to pass without a probe: IPv6's least (RFC 8200 section 5).
const LEAST: u16 = 1_280;
/// Lengths are told apart to so many bytes.
const GRAIN: u16 = 4;
/// Lengths tried in one round.
const WIDTH: u16 = 8;
/// Rounds until what was not answered counts as too long (RFC 8899 section 5.1.2).
const TRIES: u8 = 3;
/// A home at work has its path confirmed so often: a route may change to one that takes less.
const CONFIRM_EVERY: Duration = Duration::from_secs(5);
/// A path that takes less than its link is looked at again after so long.
const RAISE_AFTER: Duration = Duration::from_secs(120);
/// How long an answer may take: two round trips and something for a slow peer.
const SLACK: Duration = Duration::from_millis(100);
const WAITS: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];
/// Sequences with this bit are a probe's; an agent's asks would need thirteen years to get there.
const IS_PROBE: u32 = 1 << 31;
const GENERATION_MASK: u32 = 0x7fff;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Rest,
    Check,
    /// Lengths at every `step` above `from`.
    Search {
        from: u16,
        step: u16,
    },
}

/// What the caller knows of the line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    /// The round trip.
    pub(super) rtt: Option<Duration>,
    /// Whether the home uses it.
    pub(super) is_at_work: bool,
}

/// The search on one path.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    ceiling: u16,
    mtu: u16,
    /// The shortest length that is believed not to pass; beyond the ceiling when none is.
    too_long: u16,
    phase: Phase,
    tries: u8,
    /// When the phase goes on; none for at once.
    due: Option<Instant>,
    raise_at: Option<Instant>,
    small_passes: bool,
    generation: u16,
}

impl Probe {
    /// A path whose link takes packets up to `ceiling`.
    pub(super) fn new(ceiling: u16) -> Self {
        Self {
            ceiling,
            mtu: ceiling,
            too_long: ceiling.saturating_add(1),
            phase: Phase::Check,
            tries: 0,
            due: None,
            raise_at: None,
            small_passes: false,
            generation: 0,
        }
    }

    /// The link takes another length from now on: it is believed until found untrue.
    pub(super) fn set_ceiling(&mut self, ceiling: u16) {
        let generation = self.generation;
        *self = Self::new(ceiling);
        self.generation = generation;
        self.restart();
    }

    /// The way is another one; what is known of the one before may be true of it.
    pub(super) fn restart(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.enter(Phase::Check, None);
        self.raise_at = None;
    }

    /// The longest packet to send.
    pub(super) fn mtu(&self) -> u16 {
        self.mtu
    }

    /// When [`Probe::handle_timeout`] has something to do, which may be at once.
    pub(super) fn next(&self, line: Line) -> Option<Option<Instant>> {
        let is_awake = self.ceiling > LEAST && (self.phase != Phase::Rest || line.is_at_work);
        is_awake.then_some(self.due)
    }

    /// Takes the sequence of an answer; whether it was a probe's.
    pub(super) fn handle_answer(&mut self, sequence: u32, now: Instant) -> bool {
        if sequence & IS_PROBE == 0 {
            return false;
        }
        let [_, _, high, low] = sequence.to_be_bytes();
        let length = u16::from_be_bytes([high, low]);
        if sequence != self.sequence(length) || length > self.ceiling {
            return true;
        }
        if length == 0 {
            self.small_passes = true;
        } else if length >= self.mtu {
            self.mtu = length;
            self.too_long = self.too_long.max(length.saturating_add(1));
            if self.phase == Phase::Check || length == self.ceiling {
                self.rest(now);
            }
        }
        true
    }

    /// The sequence of a probe of this length.
    pub(super) fn sequence(&self, length: u16) -> u32 {
        let generation = u32::from(self.generation) & GENERATION_MASK;
        IS_PROBE | generation << 16 | u32::from(length)
    }

    /// Does what is due, and returns the lengths to be tried now; 0 stands for one as short as can be.
    pub(super) fn handle_timeout(&mut self, line: Line, now: Instant) -> Vec<u16> {
        match self.next(line) {
            Some(due) if due.is_none_or(|due| due <= now) => {}
            _ => return Vec::new(),
        }
        if self.tries >= TRIES {
            self.conclude(now);
        }
        let is_short = self.mtu < self.ceiling;
        if self.phase == Phase::Rest && is_short && self.raise_at.is_none_or(|at| at <= now) {
            self.too_long = self.ceiling.saturating_add(1);
            self.search();
        } else if self.phase == Phase::Rest && self.due.is_none_or(|due| due <= now) {
            self.enter(Phase::Check, None);
        }
        if self.phase == Phase::Check && self.mtu <= LEAST {
            // There is nothing shorter to fall back to.
            self.rest(now);
        }
        if self.due.is_some_and(|due| due > now) {
            return Vec::new();
        }
        self.tries += 1;
        let wait = line.rtt.map_or(WAITS[1] / 2, |rtt| rtt * 2 + SLACK);
        self.due = Some(now + wait.clamp(WAITS[0], WAITS[1]));
        self.lengths()
    }

    /// The rounds of a phase are over.
    fn conclude(&mut self, now: Instant) {
        match self.phase {
            Phase::Check if self.small_passes => {
                self.too_long = self.mtu;
                self.mtu = LEAST;
                self.search();
            }
            Phase::Search { step, .. } => {
                self.too_long = self.too_long.min(self.mtu.saturating_add(step));
                if self.too_long - self.mtu > GRAIN {
                    self.search();
                } else {
                    self.raise_at = Some(now + RAISE_AFTER);
                    self.rest(now);
                }
            }
            // Nothing passes at all: that says nothing of lengths.
            Phase::Check | Phase::Rest => self.rest(now),
        }
    }

    fn search(&mut self) {
        let span = self.too_long.saturating_sub(self.mtu);
        let step = span.div_ceil(WIDTH).next_multiple_of(GRAIN).max(GRAIN);
        let from = self.mtu;
        self.enter(Phase::Search { from, step }, None);
    }

    fn rest(&mut self, now: Instant) {
        if self.raise_at.is_some_and(|at| at <= now) {
            self.raise_at = Some(now + RAISE_AFTER);
        }
        self.enter(Phase::Rest, Some(now + CONFIRM_EVERY));
    }

    fn enter(&mut self, phase: Phase, due: Option<Instant>) {
        (self.phase, self.due) = (phase, due);
        (self.tries, self.small_passes) = (0, false);
    }

    fn lengths(&self) -> Vec<u16> {
        let Phase::Search { from, step } = self.phase else {
            return vec![self.mtu, 0];
        };
        let grid = (1..=WIDTH).filter_map(|n| from.checked_add(step.checked_mul(n)?));
        let untold = grid.filter(|length| *length > self.mtu && *length < self.too_long);
        let mut lengths: Vec<u16> = untold.collect();
        if self.too_long > self.ceiling && lengths.last() != Some(&self.ceiling) {
            lengths.push(self.ceiling);
        }
        lengths
    }
}

#[cfg(test)]
mod tests;
