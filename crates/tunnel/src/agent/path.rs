//! The way to one gateway of the lease: its session, the endpoint in use, and the watch over it.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::watch::Watch;
use super::{GatewayConfig, GatewayState};
use crate::dropped::Dropped;
use crate::health::{self, Ask, Intent};
use crate::offload::segment::Segments;
use crate::timers::{Jitter, Pace};
use crate::transmit::Outbox;
use crate::wg::{Message, Tick, Wg};

/// Initiations to a standby's endpoint before the next endpoint, and after the last one a pause.
const STANDBY_TRIES: u32 = 3;
/// The first pause and the longest; each is twice the one before.
const PAUSES: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(60)];
/// An initiation without an answer for so long is suspicious where asks are not answered.
const UNANSWERED_ALARM: Duration = Duration::from_millis(700);
/// And for so long means that the gateway is gone.
const UNANSWERED_DEAD: Duration = Duration::from_millis(1_500);
/// An ask goes out so much sooner than the empty packet that would hold NAT's mapping, and in its place.
const BEFORE_KEEPALIVE: Duration = Duration::from_millis(50);

/// One gateway and how it is reached.
pub(super) struct Path {
    pub(super) gateway: GatewayConfig,
    pub(super) endpoint: SocketAddr,
    pub(super) wg: Wg,
    /// The upper 24 bits of this session's receiver indexes.
    pub(super) number: u32,
    pub(super) watch: Watch,
    /// Our inner address and the gateway's, for asks.
    ends: Option<(IpAddr, IpAddr)>,
    at: usize,
    tried_since: Instant,
    up_since: Option<Instant>,
    rest_until: Option<Instant>,
    pause: Duration,
}

/// What the agent wants of a path at a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Want {
    pub(super) intent: Intent,
    /// Whether there is to be a session even if nothing is to be sent.
    pub(super) session: bool,
    /// How long an endpoint may be silent before the next is tried; none: a few tries, then a pause.
    pub(super) patience: Option<Duration>,
    /// How often it is asked.
    pub(super) ask_every: Option<Duration>,
    /// Since when the gateway in use is suspected.
    pub(super) alarm: Option<Instant>,
}

/// What came of a tick.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ticked {
    Quiet,
    /// The session has ended.
    Lost,
    /// The endpoint has been silent beyond all patience.
    Silent,
}

impl Path {
    pub(super) fn new(
        gateway: GatewayConfig,
        endpoint: SocketAddr,
        (wg, number): (Wg, u32),
        addresses: &[IpNet],
        now: Instant,
    ) -> Self {
        Self {
            ends: ends(&gateway.inner, addresses),
            gateway,
            endpoint,
            wg,
            number,
            watch: Watch::new(),
            at: 0,
            tried_since: now,
            up_since: None,
            rest_until: None,
            pause: PAUSES[0],
        }
    }

    /// Takes over what a renewed lease says of the same gateway; an endpoint in use stays.
    pub(super) fn update(&mut self, gateway: GatewayConfig, addresses: &[IpNet]) {
        self.ends = ends(&gateway.inner, addresses);
        self.gateway = gateway;
        self.at = 0;
    }

    /// Begins anew with another session, at the same or the next endpoint; what waits goes along.
    pub(super) fn renew(&mut self, (mut wg, number): (Wg, u32), is_active: bool, now: Instant) {
        wg.set_waiting(self.wg.take_waiting());
        wg.timers.keep_pace_of(&self.wg.timers);
        if is_active {
            wg.timers.want_handshake(now);
        }
        (self.wg, self.number) = (wg, number);
        self.tried_since = now;
        self.lose();
    }

    /// Goes to the next endpoint; whether that is the first again.
    pub(super) fn next_endpoint(&mut self, now: Instant) -> bool {
        self.at = (self.at + 1) % self.gateway.endpoints.len().max(1);
        if let Some(endpoint) = self.gateway.endpoints.get(self.at) {
            self.endpoint = *endpoint;
        }
        self.tried_since = now;
        self.at == 0
    }

    pub(super) fn is_up(&self) -> bool {
        self.up_since.is_some()
    }

    pub(super) fn state(&self, now: Instant) -> GatewayState {
        if !self.is_up() {
            GatewayState::Idle
        } else if self.doubts().is_some_and(|[_, dead]| dead <= now) {
            GatewayState::Silent
        } else if self.watch.is_draining() {
            GatewayState::Draining
        } else {
            GatewayState::Well
        }
    }

    fn lose(&mut self) {
        self.up_since = None;
        self.watch.on_lost();
    }

    /// Something that only the gateway can have sent came with `message`.
    pub(super) fn on_heard(&mut self, message: Message, now: Instant) {
        self.watch.on_heard(now);
        let may_be_new = match message {
            Message::Response { .. } => true,
            Message::Data { .. } => !self.is_up(),
            Message::Initiation | Message::Cookie { .. } => false,
        };
        if may_be_new && self.wg.timers.session_since(now).is_some() {
            self.up_since.get_or_insert(now);
            self.watch.on_session(now);
            (self.rest_until, self.pause) = (None, PAUSES[0]);
        }
    }

    /// Does what is due for the session, until there is nothing left or the owner has to know.
    pub(super) fn tick(
        &mut self,
        want: &Want,
        outbox: &mut Outbox,
        jitter: &mut Jitter,
        now: Instant,
    ) -> Ticked {
        self.watch.note_silence(now);
        let is_resting =
            want.patience.is_none() && self.rest_until.is_some_and(|until| now < until);
        if self.needs_session(want, now) && !is_resting && self.wg.timers.attempt().is_none() {
            self.rest_until = None;
            self.tried_since = now;
            self.wg.timers.want_handshake(now);
        }
        loop {
            match self.wg.tick(Some(self.endpoint), outbox, now) {
                Tick::Quiet => break,
                Tick::Expired => {
                    self.lose();
                    return Ticked::Lost;
                }
                Tick::WantsHandshake => match want.patience {
                    Some(patience) if self.is_silent_for(patience, now) => return Ticked::Silent,
                    None if self.has_tried_enough() => self.rest(now),
                    // A full outbox costs one try; the next is due in seconds.
                    Some(_) | None => _ = self.initiate(outbox, jitter, now),
                },
            }
        }
        self.wg.forget_unconfirmed(now);
        Ticked::Quiet
    }

    /// Every other try to renew a session that is well goes inside it, so that a flood at the gateway's door keeps no home
    /// out that is in.
    fn initiate(
        &mut self,
        outbox: &mut Outbox,
        jitter: &mut Jitter,
        now: Instant,
    ) -> Result<(), Dropped> {
        let tries = self.wg.timers.attempt().map_or(0, |attempt| attempt.tries);
        let is_well = self.wg.timers.session_since(now).is_some()
            && self.watch.answers()
            && self.watch.alarm_at().is_none_or(|at| now < at);
        if is_well && tries.is_multiple_of(2) {
            self.wg.initiate_inside(self.endpoint, outbox, jitter, now)
        } else {
            self.wg.initiate(self.endpoint, outbox, jitter, now)
        }
    }

    fn needs_session(&self, want: &Want, now: Instant) -> bool {
        let is_unheard = |alarm: Instant| self.watch.heard().is_none_or(|heard| heard < alarm);
        let is_in_doubt = self.watch.dead_at().is_some_and(|at| at <= now)
            || (!self.watch.answers() && want.alarm.is_some_and(is_unheard));
        want.session && (!self.is_up() || is_in_doubt)
    }

    fn is_silent_for(&self, patience: Duration, now: Instant) -> bool {
        let attempt = self
            .wg
            .timers
            .attempt()
            .map_or(now, |attempt| attempt.since);
        let heard = self.watch.heard().unwrap_or(attempt);
        let since = attempt.max(self.tried_since).max(heard);
        now.saturating_duration_since(since) >= patience
    }

    fn has_tried_enough(&self) -> bool {
        let attempt = self.wg.timers.attempt();
        attempt.is_some_and(|attempt| attempt.tries >= STANDBY_TRIES)
    }

    /// Leaves a standby's endpoint that does not answer: for the next one, or for a while.
    fn rest(&mut self, now: Instant) {
        self.wg.timers.give_up_attempt();
        if self.next_endpoint(now) {
            self.rest_until = Some(now + self.pause);
            self.pause = (self.pause * 2).min(PAUSES[1]);
        } else {
            self.wg.timers.want_handshake(now);
        }
    }

    /// Tries at once, whatever pause there was.
    pub(super) fn wake(&mut self, now: Instant) {
        self.rest_until = None;
        self.pause = PAUSES[0];
        self.wg.timers.give_up_attempt();
        self.wg.timers.want_handshake(now);
    }

    pub(super) fn set_pace(&mut self, pace: Pace) {
        self.wg.timers.set_pace(pace);
    }

    /// Sends an ask if one is due.
    pub(super) fn ask_if_due(
        &mut self,
        want: &Want,
        moves: u32,
        outbox: &mut Outbox,
        now: Instant,
    ) {
        let (Some(at), Some((from, to))) = (self.ask_at(want), self.ends) else {
            return;
        };
        if at > now || self.wg.timers.session_since(now).is_none() {
            return;
        }
        let ask = Ask {
            intent: want.intent,
            sequence: self.watch.ask(now),
            moves,
            mtu: self.wg.mtu(),
        };
        let Some(packet) = health::encode_ask(from, to, ask) else {
            return;
        };
        // Asks are not the home's: they are not counted. One that is lost is repeated.
        let counted = self.wg.traffic;
        let packets = Segments::plain(packet.as_bytes());
        if self.wg.seal(&packets, self.endpoint, outbox, now).is_ok() {
            self.watch.on_sent(now);
        }
        self.wg.traffic = counted;
    }

    /// Asks with so much padding that the datagram is as long as one with a packet of `length`.
    pub(super) fn probe(
        &mut self,
        want: &Want,
        (sequence, moves): (u32, u32),
        length: u16,
        outbox: &mut Outbox,
        now: Instant,
    ) {
        let ask = Ask {
            intent: want.intent,
            sequence,
            moves,
            mtu: self.wg.mtu(),
        };
        let packet = self
            .ends
            .and_then(|(from, to)| health::encode_ask(from, to, ask));
        if let Some(packet) = packet {
            // One that does not leave is one that is not answered.
            let _sealed =
                self.wg
                    .seal_padded(packet.as_bytes(), length.into(), self.endpoint, outbox, now);
        }
    }

    /// When it is to be asked next.
    pub(super) fn ask_at(&self, want: &Want) -> Option<Instant> {
        let up_since = self.up_since.filter(|_| self.ends.is_some())?;
        let urgent = self.watch.urgent_ask_at(want.alarm, up_since);
        let answering = self.watch.answers();
        let periodic = want.ask_every.filter(|_| answering);
        let periodic = periodic.and_then(|every| Some(self.watch.asked()? + every));
        let keepalive = self.wg.timers.keepalive_end().filter(|_| answering);
        let keepalive = keepalive.and_then(|at| at.checked_sub(BEFORE_KEEPALIVE));
        [urgent, periodic, keepalive].into_iter().flatten().min()
    }

    /// Whether a packet from `source` can be an answer.
    pub(super) fn is_inner(&self, source: IpAddr) -> bool {
        self.gateway.inner.contains(&source)
    }

    /// When its pause ends.
    pub(super) fn rest_end(&self) -> Option<Instant> {
        self.rest_until
    }

    /// When the gateway becomes suspect, and when it is taken for dead, if nothing is heard until then.
    pub(super) fn doubts(&self) -> Option<[Instant; 2]> {
        let asked = self.watch.alarm_at().zip(self.watch.dead_at());
        let heard = self.watch.heard();
        let attempt =
            self.wg.timers.attempt().filter(|attempt| {
                attempt.tries > 0 && heard.is_none_or(|heard| heard < attempt.since)
            });
        let shaken = attempt.map(|attempt| {
            (
                attempt.since + UNANSWERED_ALARM,
                attempt.since + UNANSWERED_DEAD,
            )
        });
        let soonest = [asked, shaken]
            .into_iter()
            .flatten()
            .min_by_key(|(_, dead)| *dead)?;
        Some([soonest.0, soonest.1])
    }
}

/// The first of the gateway's inner addresses that one of ours can speak to, with ours before it.
fn ends(inner: &[IpAddr], addresses: &[IpNet]) -> Option<(IpAddr, IpAddr)> {
    inner.iter().find_map(|to| {
        let ours = addresses
            .iter()
            .find(|net| net.addr().is_ipv4() == to.is_ipv4())?;
        Some((ours.hosts().next().unwrap_or(ours.addr()), *to))
    })
}
