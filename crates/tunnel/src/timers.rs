//! When a session is renewed, kept alive and given up: WireGuard's timers (whitepaper, section 6) on the caller's clock.
//!
//! ```text
//!            handshake wanted              answered, or first data
//!   asleep ───────────────────▶ attempt ───────────────────────────▶ session
//!     ▲                          │   ▲                                │  │
//!     └──────────────────────────┘   └── 120 s old and used, silence ─┘  │
//!     │       owner gives up                                             │
//!     └────────────────────────── 180 s old ─────────────────────────────┘
//! ```

use std::time::{Duration, Instant};

/// A session this old is renewed by who made it, once it sends (whitepaper: `REKEY_AFTER_TIME`).
const REKEY_AFTER: Duration = Duration::from_secs(120);
/// A session this old is dead (whitepaper: `REJECT_AFTER_TIME`).
const REJECT_AFTER: Duration = Duration::from_secs(180);
/// Who heard something and said nothing for this long says so (whitepaper: `KEEPALIVE_TIMEOUT`).
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// The most between two tries; with the jitter it stays under the whitepaper's `REKEY_TIMEOUT` of 5 s.
const MAX_RETRY: Duration = Duration::from_millis(4_600);
/// Between two tries of a home that waits for its gateway.
const EAGER_RETRY: Duration = Duration::from_secs(1);
/// The whitepaper's jitter between two tries.
const MAX_JITTER_MS: u64 = 333;
/// The longest silence that is suspicious (whitepaper: `KEEPALIVE_TIMEOUT + REKEY_TIMEOUT`).
const MAX_SILENCE: Duration = Duration::from_secs(15);
/// Who heard something from a session this old renews it (whitepaper: `REJECT_AFTER_TIME - MAX_SILENCE`).
const REKEY_ON_RECEIVE: Duration = Duration::from_secs(165);

/// How eager a side is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// The wait before the second try; it doubles up to the longest.
    pub(crate) first_retry: Duration,
    pub(crate) longest_retry: Duration,
    /// Data sent and nothing heard for this long starts a handshake; doubles while handshakes prove the peer alive.
    pub(crate) silence: Duration,
    /// An empty packet after this long without one of ours, to hold NAT's mapping.
    pub(crate) keepalive: Option<Duration>,
    /// Whether a session is renewed before it dies even if nobody uses it.
    pub(crate) renewal: Renewal,
}

/// When a session is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renewal {
    /// Always: the agent's home may be called at any time.
    Always,
    /// When it is used, as the whitepaper has it.
    WhenUsed,
}

impl Pace {
    /// The agent's: a gateway that comes back is found within a second or so.
    pub(crate) fn agent(keepalive: Duration) -> Self {
        Self {
            first_retry: EAGER_RETRY,
            longest_retry: EAGER_RETRY,
            silence: Duration::from_secs(3),
            keepalive: (!keepalive.is_zero()).then_some(keepalive),
            renewal: Renewal::Always,
        }
    }

    /// The agent's where there is another gateway to go to: a handshake finds out sooner.
    pub(crate) fn with_others(self) -> Self {
        Self {
            silence: Duration::from_secs(1),
            ..self
        }
    }

    /// The agent's for a gateway that it does not use: nobody calls the home by it.
    pub(crate) fn standby(self) -> Self {
        Self {
            keepalive: None,
            renewal: Renewal::WhenUsed,
            ..self.patient()
        }
    }

    /// The same for a peer that has been away for long, or has more callers than it can answer.
    pub(crate) fn patient(self) -> Self {
        Self {
            longest_retry: MAX_RETRY,
            ..self
        }
    }

    /// The gateway's: the whitepaper's figures.
    pub(crate) const EDGE: Self = Self {
        first_retry: MAX_RETRY,
        longest_retry: MAX_RETRY,
        silence: MAX_SILENCE,
        keepalive: None,
        renewal: Renewal::WhenUsed,
    };
}

/// Who began the handshake of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Initiator,
    Responder,
}

/// What a timer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// An initiation is to be sent, followed by [`Timers::on_initiation`], or the attempt to be given up.
    Handshake,
    /// An empty packet is to be sent, followed by [`Timers::on_keepalive_sent`].
    Keepalive,
    /// The session is over.
    Expired,
}

/// A handshake in progress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    /// When it was first wanted.
    pub(crate) since: Instant,
    /// How many initiations were sent.
    pub(crate) tries: u32,
    /// When the last one was.
    sent: Instant,
    next: Instant,
}

/// Jitter from a seed (splitmix64): retries of many agents must not fall together; it need not be unguessable.
#[derive(Clone, Debug)]
pub(crate) struct Jitter(pub(crate) u64);

impl Jitter {
    fn draw(&mut self) -> Duration {
        Duration::from_millis(self.next() % MAX_JITTER_MS)
    }

    /// A number that differs from another seed's.
    pub(crate) fn number(&mut self) -> u32 {
        (self.next() >> 32) as u32
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The timers of one peer.
#[derive(Debug)]
pub(crate) struct Timers {
    /// Until the next session, the usual one or a slower.
    pace: Pace,
    usual: Pace,
    session: Option<(Role, Instant)>,
    attempt: Option<Attempt>,
    last_sent: Instant,
    unanswered_since: Option<Instant>,
    owed_since: Option<Instant>,
    silence: Duration,
    /// Something may be due sooner than it was.
    is_sooner: bool,
}

impl Timers {
    pub(crate) fn new(pace: Pace, now: Instant) -> Self {
        Self {
            pace,
            usual: pace,
            session: None,
            attempt: None,
            last_sent: now,
            unanswered_since: None,
            owed_since: None,
            silence: pace.silence,
            is_sooner: false,
        }
    }

    /// Whether something may be due sooner than when this was last asked. Whatever is put off shows when it would have been due.
    pub(crate) fn take_sooner(&mut self) -> bool {
        std::mem::take(&mut self.is_sooner)
    }

    pub(crate) fn set_pace(&mut self, pace: Pace) {
        (self.pace, self.usual) = (pace, pace);
        self.silence = pace.silence;
        self.is_sooner = true;
    }

    /// When the session was made, if there is one that `now` may still use.
    pub(crate) fn session_since(&self, now: Instant) -> Option<Instant> {
        let (_, since) = self.session?;
        is_alive(since, now).then_some(since)
    }

    pub(crate) fn attempt(&self) -> Option<Attempt> {
        self.attempt
    }

    /// Starts an attempt unless one is under way; its first initiation is due at once.
    pub(crate) fn want_handshake(&mut self, now: Instant) {
        self.is_sooner |= self.attempt.is_none();
        self.attempt.get_or_insert(Attempt {
            since: now,
            tries: 0,
            sent: now,
            next: now,
        });
    }

    pub(crate) fn give_up_attempt(&mut self) {
        self.attempt = None;
        self.unanswered_since = None;
    }

    pub(crate) fn on_initiation(&mut self, jitter: &mut Jitter, now: Instant) {
        let tries = self.attempt.map_or(0, |attempt| attempt.tries);
        let wait = self
            .pace
            .first_retry
            .saturating_mul(1 << tries.min(8))
            .min(self.pace.longest_retry);
        self.attempt = Some(Attempt {
            since: self.attempt.map_or(now, |attempt| attempt.since),
            tries: tries.saturating_add(1),
            sent: now,
            next: now + wait + jitter.draw(),
        });
    }

    /// Tries less often until there is a session: the peer has been away for long, or said by a cookie that it has more
    /// callers than it can answer.
    pub(crate) fn be_patient(&mut self) {
        self.pace = self.pace.patient();
    }

    /// An answer came to an initiation that a later one had replaced: answers take longer than the wait between two, and would come
    /// too late for ever. Until there is a session the whitepaper's wait is kept, for the last initiation too.
    pub(crate) fn on_late_answer(&mut self) {
        self.pace.first_retry = MAX_RETRY;
        self.pace.longest_retry = MAX_RETRY;
        if let Some(attempt) = &mut self.attempt {
            attempt.next = attempt.next.max(attempt.sent + MAX_RETRY);
        }
    }

    /// Goes on as slowly as these did, with the same peer.
    pub(crate) fn keep_pace_of(&mut self, before: &Self) {
        self.pace.first_retry = self.pace.first_retry.max(before.pace.first_retry);
        self.pace.longest_retry = self.pace.longest_retry.max(before.pace.longest_retry);
    }

    pub(crate) fn on_established(&mut self, role: Role, since: Instant, now: Instant) {
        self.session = Some((role, since));
        self.pace = self.usual;
        self.attempt = None;
        self.unanswered_since = None;
        self.last_sent = now;
    }

    /// The session is gone before its time; a new one is wanted.
    pub(crate) fn on_session_lost(&mut self, now: Instant) {
        self.session = None;
        self.want_handshake(now);
    }

    pub(crate) fn on_data_sent(&mut self, now: Instant) {
        self.is_sooner |= self.unanswered_since.is_none();
        self.unanswered_since.get_or_insert(now);
        self.on_keepalive_sent(now);
    }

    pub(crate) fn on_keepalive_sent(&mut self, now: Instant) {
        self.last_sent = now;
        self.owed_since = None;
        if self.is_initiator_and_older_than(REKEY_AFTER, now) {
            self.want_handshake(now);
        }
    }

    pub(crate) fn on_data_received(&mut self, now: Instant) {
        self.is_sooner |= self.owed_since.is_none();
        self.owed_since.get_or_insert(now);
        self.silence = self.pace.silence;
        self.on_keepalive_received(now);
    }

    pub(crate) fn on_keepalive_received(&mut self, now: Instant) {
        self.unanswered_since = None;
        if self.is_initiator_and_older_than(REKEY_ON_RECEIVE, now) {
            self.want_handshake(now);
        }
    }

    /// What is to be done at `now`; to be asked until it is nothing.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Due> {
        if self.session.is_some_and(|(_, since)| !is_alive(since, now)) {
            self.session = None;
            self.unanswered_since = None;
            self.owed_since = None;
            return Some(Due::Expired);
        }
        if self.silence_end().is_some_and(|at| at <= now) {
            self.silence = (self.silence * 2).min(MAX_SILENCE);
            self.unanswered_since = None;
            self.want_handshake(now);
        }
        if self.renewal().is_some_and(|at| at <= now) {
            self.want_handshake(now);
        }
        if self.attempt.is_some_and(|attempt| attempt.next <= now) {
            return Some(Due::Handshake);
        }
        let keepalive = [self.owed_end(), self.keepalive_end()];
        keepalive
            .into_iter()
            .flatten()
            .any(|at| at <= now)
            .then_some(Due::Keepalive)
    }

    /// When [`Timers::due`] has something next, and why.
    pub(crate) fn next(&self) -> Option<(Instant, &'static str)> {
        let session_end = self.session.map(|(_, since)| since + REJECT_AFTER);
        [
            (session_end, "session end"),
            (self.attempt.map(|attempt| attempt.next), "handshake"),
            (self.silence_end(), "silence"),
            (self.renewal(), "renewal"),
            (self.owed_end(), "keepalive owed"),
            (self.keepalive_end(), "keepalive"),
        ]
        .into_iter()
        .filter_map(|(at, why)| Some((at?, why)))
        .min()
    }

    fn silence_end(&self) -> Option<Instant> {
        let since = self.unanswered_since?;
        self.attempt.is_none().then(|| since + self.silence)
    }

    fn renewal(&self) -> Option<Instant> {
        let (_, since) = self.session?;
        let always = self.pace.renewal == Renewal::Always && self.attempt.is_none();
        always.then(|| since + REKEY_ON_RECEIVE)
    }

    fn owed_end(&self) -> Option<Instant> {
        self.session?;
        Some(self.owed_since? + KEEPALIVE_TIMEOUT)
    }

    /// When an empty packet is due to hold NAT's mapping, unless something else is sent before.
    pub(crate) fn keepalive_end(&self) -> Option<Instant> {
        self.session?;
        Some(self.last_sent + self.pace.keepalive?)
    }

    fn is_initiator_and_older_than(&self, age: Duration, now: Instant) -> bool {
        self.session.is_some_and(|(role, since)| {
            role == Role::Initiator && now.saturating_duration_since(since) >= age
        })
    }
}

/// Whether a session made at `since` may be used at `now`.
pub(crate) fn is_alive(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) < REJECT_AFTER
}

#[cfg(test)]
mod tests;
