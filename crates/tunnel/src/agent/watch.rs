//! Whether one gateway is there, from what was sent to it and heard from it: pure bookkeeping on the caller's clock.
//!
//! ```text
//!            sent, nothing heard for 400 ms         no answer, 1.15 s and two round trips
//!   well ─────────────────────────────────▶ alarm ─────────────────────────────────────▶ dead
//!    ▲                                        │                                            │
//!    └───────────── anything authentic heard ─┴────────────────────────────────────────────┘
//! ```
//!
//! Only a gateway that answers asks can be found dead like this; for one of another hand, handshakes count.

use std::time::{Duration, Instant};

use crate::health::{Answer, Service};

/// Sent and nothing heard for this long is suspicious, and asked about.
const ALARM_AFTER: Duration = Duration::from_millis(400);
/// Silence for this long and two round trips, with three asks in it, means that the gateway or the way to it is gone:
/// soon enough for TCP's third retransmission, 1.4 s after a loss, to find the new way.
const DEAD_AFTER: Duration = Duration::from_millis(1_100);
/// The wait between two asks that want an answer now.
pub(super) const ASK_AGAIN: Duration = Duration::from_millis(200);
/// An alarm that nobody answered for this long is an outage of the line; handshakes go on at their own pace.
const ALARM_LASTS: Duration = Duration::from_secs(4);
/// How often a gateway that has answered before is told something until it answers.
const TELLS: u8 = 10;
/// The same for one that may be of another hand.
const FIRST_TELLS: u8 = 4;
/// Asks under way whose round trip is measured.
const MEASURED: usize = 4;
/// A round trip counted as longer would let a dead gateway live.
const MAX_RTT: Duration = Duration::from_secs(1);

/// What is known of one gateway.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    /// Since when something that was sent has been without an answer.
    unanswered: Option<Instant>,
    heard: Option<Instant>,
    healthy_since: Option<Instant>,
    asked: Option<Instant>,
    sequence: u32,
    under_way: [Option<(u32, Instant)>; MEASURED],
    rtt: Option<Duration>,
    answers: bool,
    service: Service,
    /// How often it is still to be told what we want of it.
    tells: u8,
    /// The first ask that told it, and since when it is to be told.
    told: u32,
    told_at: Option<Instant>,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self {
            unanswered: None,
            heard: None,
            healthy_since: None,
            asked: None,
            sequence: 0,
            under_way: [None; MEASURED],
            rtt: None,
            answers: false,
            service: Service::Serving,
            tells: FIRST_TELLS,
            told: 1,
            told_at: None,
        }
    }

    pub(super) fn on_sent(&mut self, now: Instant) {
        self.unanswered.get_or_insert(now);
    }

    /// Something authentic came.
    pub(super) fn on_heard(&mut self, now: Instant) {
        self.heard = Some(now);
        self.unanswered = None;
        self.healthy_since.get_or_insert(now);
    }

    /// A session was made or renewed: whoever was restarted does not know what we want.
    pub(super) fn on_session(&mut self, now: Instant) {
        if self.answers {
            self.tell(now);
        }
    }

    /// There is no session any more.
    pub(super) fn on_lost(&mut self) {
        self.unanswered = None;
        self.healthy_since = None;
        self.service = Service::Serving;
        self.tells = FIRST_TELLS;
    }

    /// What we want has changed.
    pub(super) fn tell(&mut self, now: Instant) {
        self.told_at = Some(now);
        self.tells = if self.answers { TELLS } else { FIRST_TELLS };
        self.told = next(self.sequence);
    }

    /// Counts an ask that is sent now, and gives its number.
    pub(super) fn ask(&mut self, now: Instant) -> u32 {
        if self.tells > 0 {
            self.tells -= 1;
            // Asked so often in vain, and it is there: it is of another hand by now.
            let is_there = self.told_at.is_none_or(|told| self.heard >= Some(told));
            self.answers &= self.tells > 0 || !is_there;
        }
        self.sequence = next(self.sequence);
        self.asked = Some(now);
        self.under_way.rotate_right(1);
        self.under_way[0] = Some((self.sequence, now));
        self.sequence
    }

    /// An answer came. It was heard, too.
    pub(super) fn on_answer(&mut self, answer: Answer, now: Instant) {
        self.answers = true;
        self.service = answer.service;
        let asked = self
            .under_way
            .iter()
            .flatten()
            .find(|(sequence, _)| *sequence == answer.sequence);
        if let Some((_, at)) = asked {
            let trip = now.saturating_duration_since(*at).min(MAX_RTT);
            self.rtt = Some(self.rtt.map_or(trip, |rtt| (rtt * 7 + trip) / 8));
        }
        // Numbers wrap; the difference tells which is later.
        if answer.sequence != 0 && answer.sequence.wrapping_sub(self.told) < u32::MAX / 2 {
            self.tells = 0;
        }
    }

    /// Forgets that it has been well for long.
    pub(super) fn on_left(&mut self) {
        self.healthy_since = None;
    }

    /// When it is to be asked next because something is open: it was not told, or is suspected.
    pub(super) fn urgent_ask_at(
        &self,
        alarm: Option<Instant>,
        now_or_next: Instant,
    ) -> Option<Instant> {
        let again = self.asked.map_or(now_or_next, |asked| asked + ASK_AGAIN);
        let telling = (self.tells > 0).then_some(again);
        let alarmed = alarm
            .map(|alarm| (alarm, again.max(alarm)))
            .filter(|(alarm, at)| self.answers && *at < *alarm + ALARM_LASTS)
            .map(|(_, at)| at);
        [telling, alarmed].into_iter().flatten().min()
    }

    /// When it was asked last.
    pub(super) fn asked(&self) -> Option<Instant> {
        self.asked
    }

    /// Whether asking is of any use.
    pub(super) fn answers(&self) -> bool {
        self.answers
    }

    /// When silence becomes suspicious, if it lasts.
    pub(super) fn alarm_at(&self) -> Option<Instant> {
        self.unanswered.map(|since| since + ALARM_AFTER)
    }

    /// When it is taken for dead, if silence lasts.
    pub(super) fn dead_at(&self) -> Option<Instant> {
        let since = self.unanswered.filter(|_| self.answers)?;
        Some(since + DEAD_AFTER + self.rtt.unwrap_or_default() * 2)
    }

    /// Since when nothing that was sent to it went unanswered for long.
    pub(super) fn healthy_since(&self, now: Instant) -> Option<Instant> {
        self.healthy_since
            .filter(|_| self.dead_at().is_none_or(|at| now < at))
    }

    /// Whether silence lasts so long that it was not well all the time.
    pub(super) fn note_silence(&mut self, now: Instant) {
        if self.dead_at().is_some_and(|at| at <= now) {
            self.healthy_since = None;
        }
    }

    pub(super) fn heard(&self) -> Option<Instant> {
        self.heard
    }

    pub(super) fn is_draining(&self) -> bool {
        self.service == Service::Draining
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        self.rtt
    }
}

/// 0 is for answers that nobody asked for.
fn next(sequence: u32) -> u32 {
    sequence.checked_add(1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn answer(sequence: u32) -> Answer {
        Answer {
            service: Service::Serving,
            sequence,
        }
    }

    #[test]
    fn a_gateway_that_never_answered_an_ask_is_not_dead_for_not_answering() {
        let start = Instant::now();
        let mut watch = Watch::new();

        watch.on_sent(start);
        for n in 0..20 {
            watch.ask(start + ms(n * 200));
        }

        assert_eq!((watch.dead_at(), watch.answers()), (None, false));
        assert_eq!(watch.urgent_ask_at(watch.alarm_at(), start), None);
    }

    #[test]
    fn one_that_answers_is_suspected_then_dead_and_well_again_with_the_first_word() {
        let start = Instant::now();
        let mut watch = Watch::new();
        let sequence = watch.ask(start);
        watch.on_sent(start);
        watch.on_heard(start + ms(50));
        watch.on_answer(answer(sequence), start + ms(50));
        assert_eq!((watch.alarm_at(), watch.dead_at()), (None, None));

        watch.on_sent(start + ms(1_000));
        watch.on_sent(start + ms(1_300));

        assert_eq!(watch.alarm_at(), Some(start + ms(1_400)));
        assert_eq!(
            watch.dead_at(),
            Some(start + ms(2_200)),
            "two round trips later"
        );
        assert_eq!(watch.healthy_since(start + ms(2_199)), Some(start + ms(50)));
        assert_eq!(watch.healthy_since(start + ms(2_200)), None);
        watch.on_heard(start + ms(2_300));
        assert_eq!((watch.alarm_at(), watch.dead_at()), (None, None));
    }

    #[test]
    fn an_alarm_asks_five_times_a_second_and_not_for_ever() {
        let start = Instant::now();
        let mut watch = Watch::new();
        let first = watch.ask(start);
        watch.on_answer(answer(first), start);
        watch.on_sent(start + ms(1_000));

        let mut asked = Vec::new();
        while let Some(at) = watch.urgent_ask_at(watch.alarm_at(), start) {
            asked.push((at - start).as_millis());
            watch.ask(at);
        }

        assert_eq!(&asked[..3], [1_400, 1_600, 1_800]);
        assert_eq!(asked.len(), 20);
    }

    #[test]
    fn what_a_gateway_is_told_is_repeated_until_an_answer_to_it_comes() {
        let start = Instant::now();
        let mut watch = Watch::new();
        let before = watch.ask(start);
        watch.on_answer(answer(before), start);
        assert_eq!(watch.urgent_ask_at(None, start), None);

        watch.tell(start + ms(400));
        let told = watch.ask(start + ms(500));
        watch.on_answer(answer(before), start + ms(510));
        watch.on_answer(answer(0), start + ms(520));

        assert_eq!(watch.urgent_ask_at(None, start), Some(start + ms(700)));
        watch.on_answer(answer(told), start + ms(530));
        assert_eq!(watch.urgent_ask_at(None, start), None);
    }
}
