//! One question, asked of as many resolvers as it takes: the next one when one fails, says nothing for a while,
//! or is late and not too many questions were asked twice already. The first good answer wins.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::resolver::Resolver;
use super::standing::Standing;
use super::{BUDGET, Prefer, ResolveError, Shared};
use crate::proto::message;

/// Where nobody is well a question is not waited for so long: clients ask again.
const BUDGET_DOWN: Duration = Duration::from_secs(3);
/// The next resolver is asked after this, however many are asked twice.
const FAILOVER: Duration = Duration::from_secs(1);
/// After a change there is at least this much time; after several, no more in all than this beyond [`BUDGET`].
const AFTER_CHANGE: Duration = Duration::from_secs(2);
/// Attempts at one time.
const MAX_RUNNERS: usize = 4;

const RCODE_SERVFAIL: u8 = 2;
const RCODE_REFUSED: u8 = 5;

type Outcome = Result<Vec<u8>, ResolveError>;

/// A question on its way. Dropping it gives it up.
pub(super) struct Race<'a> {
    shared: &'a Arc<Shared>,
    query: &'a [u8],
    changes: watch::Receiver<Vec<Arc<Resolver>>>,
    runners: Vec<Runner<'a>>,
    /// Those who can still be asked.
    rest: VecDeque<Arc<Resolver>>,
    /// When the latest runner started, and when it is late, unless it may not be hedged.
    started: Instant,
    late: Option<Instant>,
    /// Whether anything is done when it is late.
    can_be_late: bool,
    ends: Instant,
    /// Changes lengthen it no further.
    ends_at_last: Instant,
    failure: ResolveError,
    /// The answer of a resolver that has none, for want of a better one.
    poor: Option<Vec<u8>>,
}

struct Runner<'a> {
    resolver: Arc<Resolver>,
    started: Instant,
    outcome: Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>,
}

enum Event {
    Came(usize, Outcome),
    Changed,
    Late,
    Over,
}

impl<'a> Race<'a> {
    pub(super) fn new(shared: &'a Arc<Shared>, query: &'a [u8]) -> Self {
        let changes = shared.resolvers.subscribe();
        let now = Instant::now();
        let rest = VecDeque::from(shared.in_order(now));
        let is_down = rest
            .front()
            .is_some_and(|first| first.standing(|s| s.is_down()));
        Self {
            shared,
            query,
            changes,
            runners: Vec::new(),
            rest,
            started: now,
            late: None,
            can_be_late: true,
            ends: now + if is_down { BUDGET_DOWN } else { BUDGET },
            ends_at_last: now + BUDGET + AFTER_CHANGE,
            failure: ResolveError::NoResolver,
            poor: None,
        }
    }

    /// The first good answer, or the last failure.
    pub(super) async fn run(mut self) -> Outcome {
        self.start_next();
        self.measure_another();
        loop {
            if self.runners.is_empty() && (self.poor.is_some() || !self.start_next()) {
                return self.poor.ok_or(self.failure);
            }
            match self.next_event().await {
                Event::Came(at, outcome) => {
                    if let Some(end) = self.judge(at, outcome) {
                        return end;
                    }
                }
                Event::Changed => self.start_over(),
                Event::Late => self.on_late(),
                Event::Over => return self.give_up(),
            }
        }
    }

    async fn next_event(&mut self) -> Event {
        let runners = &mut self.runners;
        let came = poll_fn(|context| {
            for (at, runner) in runners.iter_mut().enumerate() {
                if let Poll::Ready(outcome) = runner.outcome.as_mut().poll(context) {
                    return Poll::Ready(Event::Came(at, outcome));
                }
            }
            Poll::Pending
        });
        let failover = self.started + FAILOVER;
        let next = self.late.unwrap_or(failover).min(failover);
        tokio::select! {
            came = came => came,
            Ok(()) = self.changes.changed() => Event::Changed,
            () = sleep_until(next), if self.can_be_late => Event::Late,
            () = sleep_until(self.ends) => Event::Over,
        }
    }

    /// Whether there was one more to be asked.
    fn start_next(&mut self) -> bool {
        let Some(resolver) = self.rest.pop_front() else {
            return false;
        };
        self.started = Instant::now();
        let late = self.started + resolver.standing(|standing| standing.late_after());
        let next = self.rest.front();
        self.late = next.and_then(|next| (!next.standing(|s| s.is_down())).then_some(late));
        self.start(resolver);
        true
    }

    fn start(&mut self, resolver: Arc<Resolver>) {
        let (asked, query) = (Arc::clone(&resolver), self.query);
        self.runners.push(Runner {
            resolver,
            started: Instant::now(),
            outcome: Box::pin(async move { asked.ask(query).await }),
        });
    }

    /// Where the fastest is wanted, one whose time is not known any more is asked too, if that is not too much.
    fn measure_another(&mut self) {
        if self.shared.settings.prefer == Prefer::Order {
            return;
        }
        let now = Instant::now();
        let due = |one: &Arc<Resolver>| one.standing(|standing| standing.wants_measuring(now));
        let Some(at) = self.rest.iter().position(due) else {
            return;
        };
        if self.shared.hedges().spend()
            && let Some(resolver) = self.rest.remove(at)
        {
            self.start(resolver);
        }
    }

    /// The end of the race, if this was it.
    fn judge(&mut self, at: usize, outcome: Outcome) -> Option<Outcome> {
        let runner = self.runners.swap_remove(at);
        let failure = match outcome {
            Ok(response) => match message::rcode_low(&response) {
                // It may be about this name alone, which anybody can ask for.
                RCODE_REFUSED if !runner.resolver.standing(Standing::refused) => {
                    self.go_on_after(ResolveError::Refused);
                    return None;
                }
                RCODE_REFUSED => ResolveError::Refused,
                rcode => {
                    runner.resolver.standing(Standing::served);
                    if rcode == RCODE_SERVFAIL && !self.runners.is_empty() {
                        self.poor = Some(response);
                        return None;
                    }
                    self.outpace_others();
                    return Some(Ok(response));
                }
            },
            Err(ResolveError::TooLong) => return Some(Err(ResolveError::TooLong)),
            Err(error) => error,
        };
        self.hold_against(&runner, &failure);
        self.go_on_after(failure);
        None
    }

    fn go_on_after(&mut self, failure: ResolveError) {
        self.failure = failure;
        // There is room for one more.
        self.can_be_late = true;
    }

    fn outpace_others(&mut self) {
        let now = Instant::now();
        for Runner {
            resolver, started, ..
        } in &self.runners
        {
            let waited = now.saturating_duration_since(*started);
            if resolver.standing(|standing| standing.outpaced(waited, now)) {
                self.shared.failed(resolver, &ResolveError::NoAnswer);
            }
        }
    }

    /// Nothing is held against a resolver for silence to one question, if it answers others meanwhile, nor for
    /// our own want of room.
    fn hold_against(&self, runner: &Runner<'_>, failure: &ResolveError) {
        if matches!(failure, ResolveError::Io(error) if error.kind() == ErrorKind::ResourceBusy) {
            return;
        }
        let is_unheard = |standing: &mut Standing| standing.is_unheard_since(runner.started);
        if !matches!(failure, ResolveError::NoAnswer) || runner.resolver.standing(is_unheard) {
            self.shared.failed(&runner.resolver, failure);
        }
    }

    fn on_late(&mut self) {
        let now = Instant::now();
        let is_failover = now >= self.started + FAILOVER;
        if is_failover {
            for runner in &self.runners {
                if runner.resolver.standing(|standing| standing.is_silent(now)) {
                    self.shared.doubt(&runner.resolver);
                }
            }
        }
        if self.runners.len() >= MAX_RUNNERS {
            self.can_be_late = false;
        } else if is_failover || self.shared.hedges().spend() {
            self.can_be_late = self.start_next();
        } else {
            self.late = None;
        }
    }

    /// Asks again, whom there is to be asked now. What a resolver says that is none any more is not heard.
    fn start_over(&mut self) {
        let now = Instant::now();
        self.rest = self.shared.in_order(now).into();
        let rest = &self.rest;
        self.runners
            .retain(|runner| rest.iter().any(|one| Arc::ptr_eq(one, &runner.resolver)));
        self.runners.truncate(MAX_RUNNERS - 1);
        self.can_be_late = true;
        self.ends = self.ends.max(now + AFTER_CHANGE).min(self.ends_at_last);
        self.start_next();
    }

    fn give_up(self) -> Outcome {
        for runner in &self.runners {
            self.hold_against(runner, &ResolveError::NoAnswer);
        }
        self.poor.ok_or(ResolveError::NoAnswer)
    }
}
