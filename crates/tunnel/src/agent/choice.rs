//! Which gateway carries the home's packets: the first of the lease that is well, left when it falls silent or drains,
//! taken again only after it has been well for a while.
//!
//! ```text
//!                 silent 1.1 s, another one speaks; or draining
//!   preferred ─────────────────────────────────────────────────▶ standby
//!      ▲                                                            │
//!      └──────────── well for 30 s; twice as long after a flap ─────┘
//! ```

use std::time::{Duration, Instant};

use super::path::{Path, Ticked, Want};
use super::{AgentEvent, AgentTunnel, Link, MoveReason};
use crate::health::Intent;

/// How long an endpoint that was never heard may stay silent before the next is tried: three initiations.
const PATIENCE: Duration = Duration::from_secs(7);
/// The same for the gateway in use when there is no other: a restart takes less.
const PATIENCE_IN_USE: Duration = Duration::from_secs(15);
/// How much sooner the preferred gateway is tried than the others.
const HEAD_START: Duration = Duration::from_secs(1);
/// A home that sent something so lately is at work: its gateway is asked every [`ASK_AT_WORK`].
const AT_WORK: Duration = Duration::from_secs(30);
/// So that a drain that was announced in vain is noticed.
const ASK_AT_WORK: Duration = Duration::from_secs(10);
/// A home that sent something so lately has sessions with all gateways: no handshake stands between it and the next
/// one. An idle router costs the others nothing.
const WARM: Duration = Duration::from_secs(180);
/// How often a standby is asked meanwhile.
const ASK_STANDBY: Duration = Duration::from_secs(20);
/// How often a gateway better than the one in use is asked, whatever the home does.
const ASK_BETTER: Duration = Duration::from_secs(10);
/// How long a better gateway has to be well before the home goes back, and the longest after flaps.
const HOLDS: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(960)];
/// A gateway left for its silence within so long of the return to it has flapped.
const FLAP: Duration = Duration::from_secs(600);

/// Against going to and fro.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    lasts: Duration,
    returned: Option<Instant>,
}

impl Hold {
    pub(super) const FIRST: Self = Self {
        lasts: HOLDS[0],
        returned: None,
    };

    fn on_silent(&mut self, now: Instant) {
        let has_flapped = self
            .returned
            .is_some_and(|at| now.saturating_duration_since(at) < FLAP);
        self.lasts = if has_flapped {
            (self.lasts * 2).min(HOLDS[1])
        } else {
            HOLDS[0]
        };
        self.returned = None;
    }
}

impl AgentTunnel {
    pub(super) fn active(&self) -> Option<&Path> {
        self.paths.get(self.active)
    }

    /// Does what is due for each gateway and for the choice among them.
    pub(super) fn work(&mut self, now: Instant) {
        self.handled = Some(now);
        self.follow_probe(now);
        for index in 0..self.paths.len() {
            self.tick(index, now);
        }
        self.choose(now);
        let mut next = self.choice_ends(now);
        for index in 0..self.paths.len() {
            let want = self.want(index, now);
            let Some(path) = self.paths.get_mut(index) else {
                continue;
            };
            path.ask_if_due(&want, self.moves, &mut self.outbox, now);
            next.extend(path.ask_at(&want));
            next.extend(path.rest_end().filter(|_| want.session));
        }
        next.extend(self.probe_path(now));
        self.planned = next.into_iter().filter(|at| *at > now).min();
    }

    fn tick(&mut self, index: usize, now: Instant) {
        loop {
            let want = self.want(index, now);
            let Some(path) = self.paths.get_mut(index) else {
                return;
            };
            match path.tick(&want, &mut self.outbox, &mut self.jitter, now) {
                Ticked::Quiet => return,
                Ticked::Lost if index == self.active => self.disconnect(now),
                Ticked::Lost => {}
                Ticked::Silent => self.try_elsewhere(index, now),
            }
        }
    }

    /// The next endpoint of a gateway that nobody has heard for long.
    fn try_elsewhere(&mut self, index: usize, now: Instant) {
        if index == self.active {
            self.disconnect(now);
        }
        self.renew(index, now);
        let Some(path) = self.paths.get_mut(index) else {
            return;
        };
        path.next_endpoint(now);
        let (gateway, endpoint) = (path.gateway.public, path.endpoint);
        self.tell(AgentEvent::Trying { gateway, endpoint });
    }

    /// Whether the home sent something lately.
    pub(super) fn is_at_work(&self, now: Instant) -> bool {
        self.was_used_within(AT_WORK, now)
    }

    fn was_used_within(&self, limit: Duration, now: Instant) -> bool {
        self.used
            .is_some_and(|at| now.saturating_duration_since(at) < limit)
    }

    /// What is wanted of a gateway now.
    pub(super) fn want(&self, index: usize, now: Instant) -> Want {
        let mut want = Want {
            intent: Intent::Standby,
            session: true,
            patience: Some(PATIENCE),
            ask_every: None,
            alarm: None,
        };
        if index == self.active {
            want.intent = if self.paths.len() > 1 {
                Intent::Active
            } else {
                Intent::Stuck
            };
        }
        if let Link::Connecting { since } = self.link {
            want.session = index == 0 || index == self.active || now >= since + HEAD_START;
            return want;
        }
        want.alarm = self.alarm(now);
        if index == self.active {
            want.patience = Some(PATIENCE_IN_USE);
            want.ask_every = self.is_at_work(now).then_some(ASK_AT_WORK);
        } else if want.alarm.is_none() && !self.is_draining() {
            want.patience = None;
            want.ask_every = if index < self.active {
                Some(ASK_BETTER)
            } else {
                self.was_used_within(WARM, now).then_some(ASK_STANDBY)
            };
            want.session = want.ask_every.is_some();
        }
        want
    }

    fn is_draining(&self) -> bool {
        self.active().is_some_and(|path| path.watch.is_draining())
    }

    /// Since when the gateway in use is suspected.
    fn alarm(&self, now: Instant) -> Option<Instant> {
        let [alarm, _] = self.active()?.doubts()?;
        (alarm <= now).then_some(alarm)
    }

    /// When there may be something to choose.
    fn choice_ends(&self, now: Instant) -> Vec<Instant> {
        let mut ends = Vec::new();
        match self.link {
            Link::Connecting { since } => ends.push(since + HEAD_START),
            Link::Connected { .. } => {
                ends.extend(self.active().and_then(Path::doubts).into_iter().flatten());
                let better = self.paths.iter().take(self.active);
                let well = better.filter_map(|path| path.watch.healthy_since(now));
                ends.extend(well.map(|since| since + self.hold.lasts));
            }
        }
        ends
    }

    /// Connects, or moves to a better gateway.
    pub(super) fn choose(&mut self, now: Instant) {
        match self.link {
            Link::Connecting { since } => self.connect(since, now),
            Link::Connected { .. } => {
                if let Some((to, why)) = self.better(now) {
                    self.move_to(to, why, now);
                }
            }
        }
    }

    fn connect(&mut self, since: Instant, now: Instant) {
        let is_there = |path: &Path| {
            let heard = path.watch.heard();
            path.is_up() && heard.is_some_and(|heard| heard >= since)
        };
        let serving = |path: &Path| is_there(path) && !path.watch.is_draining();
        let first = self.paths.iter().position(serving);
        let Some(found) = first.or_else(|| self.paths.iter().position(is_there)) else {
            return;
        };
        if found != 0 && found != self.active && now < since + HEAD_START {
            return;
        }
        self.carry_by(found, now);
        self.link = Link::Connected { since: now };
        if let Some(path) = self.active() {
            let (gateway, endpoint) = (path.gateway.public, path.endpoint);
            self.tell(AgentEvent::Connected { gateway, endpoint });
        }
    }

    fn is_dead(&self, now: Instant) -> bool {
        let doubts = self.active().and_then(Path::doubts);
        doubts.is_some_and(|[_, dead]| dead <= now)
    }

    /// The gateway to move to, and why.
    fn better(&self, now: Instant) -> Option<(usize, MoveReason)> {
        let others = || {
            self.paths
                .iter()
                .enumerate()
                .filter(|(index, path)| *index != self.active && path.is_up())
        };
        let serving = || others().filter(|(_, path)| !path.watch.is_draining());
        if self.is_dead(now) {
            let alarm = self.alarm(now)?;
            let speaks = |path: &Path| path.watch.heard().is_some_and(|heard| heard >= alarm);
            let found = serving().find(|(_, path)| speaks(path));
            let found = found.or_else(|| others().find(|(_, path)| speaks(path)));
            return found.map(|(index, _)| (index, MoveReason::Silent));
        }
        if self.is_draining() {
            let found = serving().find(|(_, path)| path.watch.healthy_since(now).is_some());
            return found.map(|(index, _)| (index, MoveReason::Draining));
        }
        let well = |path: &Path| {
            let since = path.watch.healthy_since(now);
            since.is_some_and(|since| now >= since + self.hold.lasts)
        };
        let (index, _) = serving().find(|(index, path)| *index < self.active && well(path))?;
        Some((index, MoveReason::Preferred))
    }

    fn move_to(&mut self, to: usize, why: MoveReason, now: Instant) {
        if let Some(left) = self.paths.get_mut(self.active) {
            left.watch.on_left();
            left.wg.timers.give_up_attempt();
        }
        match why {
            MoveReason::Silent => self.hold.on_silent(now),
            MoveReason::Preferred => self.hold.returned = Some(now),
            MoveReason::Draining => self.hold = Hold::FIRST,
        }
        self.carry_by(to, now);
        if let Some(path) = self.active() {
            let (gateway, endpoint) = (path.gateway.public, path.endpoint);
            self.tell(AgentEvent::Moved {
                gateway,
                endpoint,
                why,
            });
        }
    }

    /// From here on the home's packets go by this gateway. The session with the other one stays for what is under way.
    fn carry_by(&mut self, to: usize, now: Instant) {
        let from = std::mem::replace(&mut self.active, to);
        if from == to {
            return;
        }
        self.moves = self.moves.wrapping_add(1);
        self.probe.restart();
        let mut waiting = None;
        if let Some(path) = self.paths.get_mut(from) {
            path.set_pace(self.shape.pace.standby());
            path.watch.tell(now);
            waiting = Some(path.wg.take_waiting());
        }
        if let Some(path) = self.paths.get_mut(to) {
            path.set_pace(self.shape.pace);
            path.watch.tell(now);
            if let Some(waiting) = waiting {
                path.wg.set_waiting(waiting);
            }
        }
    }
}
