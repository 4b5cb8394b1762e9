//! The control loop: one place where everything that happens to the agent is decided.
//!
//! ```text
//!   Unenrolled ──code──▶ Enrolling ──verified lease──▶ Connecting ◀──▶ Protected
//!       ▲                   │  ▲                           │ lease ended
//!       └──code refused─────┘  └───────────────────────────┘
//!   Revoked: the provider says so and no tunnel is up; asked again rarely, or with a new code
//! ```
//!
//! What acts on the router (addresses, keys, endpoints, resolvers) comes from a `Verified<Bundle>` and nothing else. An
//! answer that does not verify changes only the reason in the status.

pub(crate) mod attempt;
mod gateways;
mod network;
mod portal;
mod way;

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{info, warn};
use trust::{Anchors, Bundle, ClaimCode, DeviceFacts, KeyId, LeaseBundle, Stored, Verified};
use tunnel::agent::{AgentConfig, AgentEvent, GatewayConfig};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::clock::Clock;
use crate::config::Config;
use crate::dns::Dns;
use crate::engine::{Engine, News, Order};
use crate::enrol::schedule::{self, Backoff};
use crate::exit::{Exit, Failure, chain};
use crate::net::Network;
use crate::net::wan::{Path, Wan};
use crate::people;
use crate::psk::Psks;
use crate::relay::{RelayNews, Relays};
use crate::state::{Keys, State, StateDir};
use crate::status::socket::{Answers, Request};
use crate::status::{Condition, LastWords, LeaseStatus, Status};
use attempt::Attempt;

/// A gateway that does not answer for this long, or half of it by chance, may have moved or dropped us: provisioning is
/// asked. Longer than a restart of the gateway takes.
const SILENT_GATEWAY: Duration = Duration::from_secs(40);
/// The calendar may jump, so that what is due by it is looked at this often.
const CALENDAR_PERIOD: Duration = Duration::from_secs(30);

/// What is more than time going by.
const LEAP_S: u64 = 60;

const LEASE_ENDED: &str = "the lease has ended without having been renewed";

/// What the loop is made of.
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) anchors: Anchors,
    pub(crate) state_dir: StateDir,
    pub(crate) state: State,
    pub(crate) network: Network,
    pub(crate) wan: Wan,
    pub(crate) engine: Engine,
    pub(crate) relays: Relays,
    pub(crate) dns: Dns,
    pub(crate) clock: Clock,
    pub(crate) last_words: LastWords,
}

/// What the loop waits for.
pub(crate) struct Inputs {
    pub(crate) news: mpsc::Receiver<News>,
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) stop: mpsc::Receiver<()>,
}

/// The agent's state.
pub(crate) struct Control {
    config: Config,
    anchors: Anchors,
    state_dir: StateDir,
    keys: Keys,
    stored: Stored,
    psks: Psks,
    bundle: Option<Verified<Bundle>>,
    /// What the engine was told of the gateways.
    peers: Vec<GatewayConfig>,
    /// Why there is no lease, when there was one.
    lost: Option<String>,
    claim: Option<ClaimCode>,
    network: Network,
    wan: Wan,
    path: Option<Path>,
    /// Where the gateway in use, or the one that is tried, is looked for.
    endpoint: Option<IpAddr>,
    engine: Engine,
    relays: Relays,
    dns: Dns,
    clock: Clock,
    status: Status,
    last_words: LastWords,
    link: Link,
    /// The tunnel key of the gateway that carries the home, or did last.
    carrier: Option<[u8; 32]>,
    attempt: Option<Attempt>,
    attempt_due: Option<Instant>,
    backoff: Backoff,
    /// When provisioning is asked next about a gateway that is silent, and how often it was.
    silence_due: Instant,
    silence: Backoff,
    /// What the provider said when it had shut us out, until a gateway says otherwise.
    revoked: Option<String>,
    /// Those who wait to hear how the enrolment goes.
    listeners: Vec<Answers>,
}

/// The tunnel as the engine told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Up,
    Down,
}

enum Event {
    News(Option<News>),
    Request(Option<Request>),
    Attempt(attempt::Outcome),
    Network(io::Result<()>),
    Relay(Option<RelayNews>),
    Time,
    Stop,
}

impl Control {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            config,
            mut anchors,
            state_dir,
            state,
            network,
            wan,
            engine,
            relays,
            dns,
            clock,
            last_words,
        } = parts;
        people::recall(&mut anchors, state.people.as_deref());
        let mut status = Status::new(&config, Condition::Enrolling, clock.now());
        status.device = Some(KeyId::from(state.keys.devid_hash()).to_string());
        status.authority = anchors.people.epoch();
        let mut control = Self {
            config,
            anchors,
            state_dir,
            keys: state.keys,
            stored: state.stored,
            psks: state.psks,
            peers: Vec::new(),
            bundle: None,
            lost: None,
            claim: None,
            network,
            wan,
            path: None,
            endpoint: None,
            engine,
            relays,
            dns,
            clock,
            status,
            last_words,
            link: Link::Down,
            carrier: None,
            attempt: None,
            attempt_due: None,
            backoff: Backoff::default(),
            silence_due: Instant::now() + schedule::by_chance(SILENT_GATEWAY),
            silence: Backoff::default(),
            revoked: None,
            listeners: Vec::new(),
        };
        for damaged in &state.damaged {
            warn!(
                file = damaged.0.file_name(),
                "a state file was damaged and has been set aside"
            );
        }
        control.begin(state.lease.as_deref());
        control.look_at_network();
        control
    }

    /// Takes up the kept lease, and decides when provisioning is asked first.
    fn begin(&mut self, kept: Option<&[u8]>) {
        match self.state_dir.claim() {
            Ok(claim) => self.claim = claim,
            Err(error) => warn!(error = %chain(&error), "the claim code cannot be read"),
        }
        if let Some(bytes) = kept {
            match self.verify_kept(bytes) {
                Ok((bundle, stored)) => self.take_up(bundle, stored),
                Err(error) => {
                    warn!(%error, "the kept lease is not used");
                    self.lost = Some(format!("the kept lease is not used: {error}"));
                }
            }
        }
        match &self.bundle {
            Some(bundle) if self.claim.is_none() && self.keys.next.is_none() => {
                let lease = &bundle.get().lease;
                self.ask_in(schedule::until_renewal(
                    lease.not_before,
                    lease.not_after,
                    self.clock.now(),
                ));
            }
            // A code to be used, a renewal that was cut, or no lease.
            Some(_) | None => self.ask_in(Duration::ZERO),
        }
        if self.bundle.is_none() {
            self.turn(Condition::Enrolling, self.lost.clone());
        }
    }

    /// Runs until it is told to stop, and then undoes what was done.
    pub(crate) async fn run(mut self, mut inputs: Inputs) -> Result<(), Failure> {
        let result = loop {
            match self.next_event(&mut inputs).await {
                Event::News(Some(News::Tunnel(event))) => self.on_tunnel(event),
                Event::News(Some(News::Way(event))) => self.on_way(event),
                Event::News(Some(News::PathTooSmall)) => self.look_at_network(),
                Event::News(Some(News::Broken(error))) => {
                    break Err(Failure::new(
                        Exit::Io,
                        format!("the tunnel's device or socket failed: {error}"),
                    ));
                }
                Event::News(None) => {
                    break Err(Failure::new(
                        Exit::Bug,
                        "the packet thread ended without a word",
                    ));
                }
                Event::Request(request) => self.on_request(request),
                Event::Attempt(outcome) => self.on_outcome(outcome),
                Event::Network(result) => self.on_network(result),
                Event::Relay(news) => self.on_relay(news),
                Event::Time => self.look_at_network(),
                Event::Stop => break Ok(()),
            }
            self.leave_relays();
            self.on_time();
        };
        self.end(result)
    }

    async fn next_event(&mut self, inputs: &mut Inputs) -> Event {
        let calendar = Instant::now() + CALENDAR_PERIOD;
        let deadline = self
            .due()
            .into_iter()
            .flatten()
            .chain(self.relays.poll_timeout())
            .fold(calendar, Instant::min);
        let deadline = self
            .wan
            .choice
            .poll_timeout()
            .into_iter()
            .chain(self.portal_due())
            .fold(deadline, |deadline, at| deadline.min(at.into()));
        let attempt = async {
            match &mut self.attempt {
                Some(attempt) => attempt.outcome().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = inputs.stop.recv() => Event::Stop,
            news = inputs.news.recv() => Event::News(news),
            request = inputs.requests.recv() => Event::Request(request),
            outcome = attempt => Event::Attempt(outcome),
            news = self.relays.next() => Event::Relay(news),
            changed = self.wan.changed() => Event::Network(changed),
            () = tokio::time::sleep_until(deadline) => Event::Time,
        }
    }

    fn end(mut self, result: Result<(), Failure>) -> Result<(), Failure> {
        if let Some(attempt) = self.attempt.take() {
            attempt.abort();
        }
        let (state, reason) = match &result {
            Ok(()) => (Condition::Stopped, "the agent was stopped".to_owned()),
            Err(failure) => (Condition::Error, failure.to_string()),
        };
        self.turn(state, Some(reason));
        self.relays.stop();
        self.engine.stop();
        if let Err(error) = self.network.undo() {
            warn!(error = %chain(&error), "the router's network could not be restored");
        }
        result
    }

    fn on_tunnel(&mut self, event: AgentEvent) {
        match event {
            AgentEvent::Connected { gateway, endpoint } => self.on_connected(&gateway, endpoint),
            AgentEvent::Moved {
                gateway,
                endpoint,
                why,
            } => self.on_moved(&gateway, endpoint, why),
            AgentEvent::Disconnected { .. } => {
                info!("the tunnel is down");
                self.go_down();
                self.explain("the gateway does not answer any more".to_owned());
            }
            AgentEvent::Trying { gateway, endpoint } => {
                let name = self.gateway_name(&gateway).unwrap_or_default();
                self.explain(format!("no gateway has answered; trying {name}"));
                self.on_silence(endpoint);
            }
            AgentEvent::Roamed { endpoint } => self.on_endpoint(endpoint),
            AgentEvent::PathMtu { mtu } => self.use_mtu(mtu),
        }
    }

    fn go_down(&mut self) {
        self.link = Link::Down;
        self.silence_due = Instant::now() + schedule::by_chance(SILENT_GATEWAY);
    }

    fn on_request(&mut self, request: Option<Request>) {
        match request {
            Some(Request::Status(answers)) => {
                self.refresh();
                // One line always fits into a new conversation.
                let _ = answers.try_send(serde_json::to_string(&self.status).unwrap_or_default());
            }
            Some(Request::Enrol(code, answers)) => self.on_code(code, answers),
            Some(Request::OpenPortal(device, lasts, answers)) => {
                self.on_open_portal(device, lasts, &answers);
            }
            Some(Request::ClosePortal(answers)) => self.on_close_portal(&answers),
            None => {}
        }
    }

    fn on_time(&mut self) {
        self.keep_portal_time();
        if let Some(bundle) = &self.bundle
            && bundle.get().lease.not_after < self.clock.now()
        {
            self.drop_lease();
        }
        let now = Instant::now();
        let [attempt, silence] = self.due();
        if silence.is_some_and(|due| due <= now) {
            info!("the gateway is silent: asking provisioning whether something has changed");
            self.silence_due = now + SILENT_GATEWAY.max(self.silence.next());
            self.start_attempt();
        } else if attempt.is_some_and(|due| due <= now) {
            self.start_attempt();
        }
    }

    /// When provisioning is to be asked, because of the lease and because of a silent gateway; not while it is being asked.
    fn due(&self) -> [Option<Instant>; 2] {
        if self.attempt.is_some() {
            return [None, None];
        }
        let is_lost = self.link == Link::Down && self.bundle.is_some() && self.revoked.is_none();
        [self.attempt_due, is_lost.then_some(self.silence_due)]
    }

    fn drop_lease(&mut self) {
        warn!("{LEASE_ENDED}");
        self.bundle = None;
        (self.status.lease, self.status.gateway) = (None, None);
        self.use_resolvers();
        self.engine.order(Order::Rest);
        if let Err(error) = self.network.leave() {
            warn!(error = %chain(&error), "the routes into the tunnel could not be removed");
        }
        self.go_down();
        self.lost = Some(LEASE_ENDED.to_owned());
        self.explain(LEASE_ENDED.to_owned());
    }

    /// Judges the lease from flash with whichever key it is for.
    fn verify_kept(
        &mut self,
        bytes: &[u8],
    ) -> Result<(Verified<Bundle>, Stored), trust::BundleError> {
        let bundle = LeaseBundle::from_bytes(bytes)?;
        let result = self.verify(&bundle, &PublicKey::from(&self.keys.tunnel));
        match (&self.keys.next, result) {
            (Some(next), Err(trust::BundleError::NotMine)) => {
                self.verify(&bundle, &PublicKey::from(next))
            }
            (_, result) => result,
        }
    }

    fn verify(
        &self,
        bundle: &LeaseBundle,
        wg: &PublicKey,
    ) -> Result<(Verified<Bundle>, Stored), trust::BundleError> {
        let me = DeviceFacts {
            devid_hash: self.keys.devid_hash(),
            wg_pub: wg.to_bytes(),
        };
        self.anchors
            .verify_bundle(bundle, &me, &self.stored, self.clock.now())
    }

    /// Acts on a verified lease, which is on flash already.
    fn take_up(&mut self, bundle: Verified<Bundle>, stored: Stored) {
        let Bundle { lease, .. } = bundle.get();
        if let Err(error) = self.state_dir.adopt_key_of(&mut self.keys, &lease.wg_pub) {
            warn!(error = %chain(&error), "the tunnel key could not be kept; it is asked for again at the next start");
        }
        let in_use = [Some(&self.keys.tunnel), self.keys.next.as_ref()];
        let in_use = in_use.into_iter().flatten();
        let in_use: Vec<_> = in_use.map(|key| PublicKey::from(key).to_bytes()).collect();
        self.psks.retain(&in_use);
        let before = self.clock.now();
        self.clock.raise(stored.clock_floor);
        if self.clock.now() > before + LEAP_S {
            // Certificates that seemed to be of the future are judged anew.
            self.dns.network_changed();
        }
        self.stored = stored;
        self.status.lease = Some(LeaseStatus {
            epoch: lease.epoch,
            not_after: lease.not_after,
            addresses: lease.addresses.iter().map(ToString::to_string).collect(),
        });
        let before = self.bundle.as_ref().map(Verified::get);
        let same_key = before.is_some_and(|before| before.lease.wg_pub == lease.wg_pub);
        let peers = match self.peers_of(bundle.get()) {
            Ok(peers) => peers,
            // Not reached with an answer, which was asked the same before it was kept.
            Err(withheld) => {
                warn!(error = %withheld, "the kept lease is not used");
                self.lost = Some(withheld.to_string());
                return;
            }
        };
        let same_place = self.peers == peers
            && before.is_some_and(|before| before.lease.addresses == lease.addresses);
        if let Err(error) = self.network.enter(&lease.addresses) {
            warn!(error = %chain(&error), "the tunnel's addresses and routes could not be set");
            self.turn(Condition::Error, Some(chain(&error)));
        }
        self.peers.clone_from(&peers);
        if !same_key {
            self.go_down();
            self.engine.order(Order::Make(Box::new(AgentConfig {
                private: StaticSecret::from(self.keys.tunnel.to_bytes()),
                gateways: peers,
                addresses: lease.addresses.clone(),
                keepalive: self.config.tunnel.keepalive,
                // The packet thread sets both when it makes the tunnel.
                seed: 0,
                calendar: Duration::ZERO,
            })));
        } else if !same_place {
            self.engine
                .order(Order::Lease(peers, lease.addresses.clone()));
        }
        info!(
            epoch = lease.epoch,
            not_after = lease.not_after,
            "a verified lease is in use"
        );
        self.bundle = Some(bundle);
        self.use_resolvers();
        (self.lost, self.revoked) = (None, None);
        if self.status.state != Condition::Error && self.link != Link::Up {
            self.turn(Condition::Connecting, None);
        }
    }

    fn turn(&mut self, state: Condition, reason: Option<String>) {
        if self.status.turn(state, reason, self.clock.now()) {
            self.refresh();
            self.last_words.say(&self.status);
        }
    }

    /// Brings the counters up to date.
    fn refresh(&mut self) {
        let snapshot = self.engine.snapshot();
        self.status.gateways = self.gateway_lines(&snapshot.gateways);
        let post_quantum = self.is_post_quantum();
        let tunnel = &mut self.status.tunnel;
        tunnel.post_quantum = post_quantum;
        tunnel.last_handshake_s = snapshot.session_age.map(|age| age.as_secs());
        tunnel.rx_bytes = snapshot.traffic.rx_bytes;
        tunnel.tx_bytes = snapshot.traffic.tx_bytes;
        [tunnel.rx_bits_per_s, tunnel.tx_bits_per_s] = snapshot.rates;
        tunnel.dropped = snapshot.dropped;
        tunnel.wan = self.path.as_ref().map(|path| path.interface.clone());
        tunnel.mtu = self.network.mtu();
        let carrier = self.carrier.unwrap_or_default();
        tunnel.transport = self.relays.label(&carrier);
        let left = self.network.window().and_then(|window| window.left());
        self.status.portal_s = left.map(|left| left.as_secs() + 1);
        self.status.dns = self.dns.counters();
    }

    fn ask_in(&mut self, pause: Duration) {
        self.attempt_due = Some(Instant::now() + pause);
    }
}
