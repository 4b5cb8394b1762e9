//! One resolver: its certificate, the session under it, and the tries of one query.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand_core::{OsRng, RngCore as _};
use tokio::time::{Instant, timeout};

use super::channel::{Channel, Expected};
use super::fetch::{self, FetchBy};
use super::session::{Question, Session};
use super::standing::{Standing, Watch};
use super::way::{Route, Ways};
use super::{KeyPolicy, ResolveError, Settings};
use crate::listen::{read_frame, write_frame};
use crate::proto::cert::Certificate;
use crate::proto::client::{ClientKeys, ClientNonce, QueryPadding};
use crate::proto::message;
use crate::proto::padding;
use crate::proto::stamp::DnsCryptStamp;
use crate::proto::{MAX_RESPONSE, Transport};

/// The first wait for an answer over UDP; then the packet is sent again.
const FIRST_WAIT: Duration = Duration::from_millis(800);
/// The wait after that; then TCP is tried.
const SECOND_WAIT: Duration = Duration::from_millis(1000);
/// The whole exchange over TCP.
const TCP_WAIT: Duration = Duration::from_secs(3);
/// A certificate older than this is renewed beside the queries.
const REFRESH: Duration = Duration::from_secs(3600);
/// When that failed, it is tried again after this.
const REFRESH_RETRY: Duration = Duration::from_secs(60);
/// Silence makes us look for a newer certificate, at most this often.
const SUSPICION: Duration = Duration::from_secs(5);
/// How long a resolver that is down may take to show its certificates; less than the fetch's own repetition.
const KNOCK: Duration = Duration::from_millis(700);
/// A larger query makes room for a larger answer; up to what fits one packet on every path.
const MAX_TARGET: usize = 1152;
/// What a relay is asked over TCP: it asks the resolver over UDP, and lets no answer through that is longer than the query.
const RELAYED_TARGET: usize = 3968;
/// A certificate with less than a quarter of its life left, or less than this, is renewed beside the queries.
const LAST_OF_LIFE_S: u32 = 3600;
/// When there was no newer one, it is tried again after this.
const LAST_RETRY: Duration = Duration::from_secs(30);

/// How a resolver is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Which one.
    pub stamp: DnsCryptStamp,
    /// The certificate in use.
    pub certificate: Option<Certificate>,
    /// The size that UDP queries are padded to.
    pub udp_target: usize,
    /// How often it failed since it last answered.
    pub failures: u32,
    /// The last failure, in words, if it is the latest news.
    pub last_error: Option<String>,
    /// How long its answers take, smoothed.
    pub rtt: Option<Duration>,
}

pub(super) struct Resolver {
    stamp: DnsCryptStamp,
    ways: Ways,
    settings: Arc<Settings>,
    // Contended by the queries in flight, each for a few assignments; never held while waiting.
    state: Mutex<State>,
    // Held while certificates are fetched, so that one fetch serves all who wait: its success, and its failure.
    fetching: tokio::sync::Mutex<Option<(Instant, fetch::FetchError)>>,
}

#[derive(Default)]
struct State {
    certificate: Option<Known>,
    /// When certificates were last asked for.
    tried: Option<Instant>,
    keys: Option<ClientKeys>,
    session: Option<Arc<Session>>,
    channel: Option<Arc<Channel>>,
    udp_target: usize,
    standing: Standing,
}

struct Known {
    certificate: Certificate,
    fetched: Instant,
}

impl Resolver {
    pub(super) fn new(stamp: DnsCryptStamp, route: &Route, settings: Arc<Settings>) -> Self {
        let state = State {
            udp_target: settings.udp_target.min(MAX_TARGET),
            ..State::default()
        };
        Self {
            ways: Ways::new(stamp.addr, route),
            stamp,
            settings,
            state: Mutex::new(state),
            fetching: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn stamp(&self) -> &DnsCryptStamp {
        &self.stamp
    }

    /// Whether this is the one of a stamp, on a route.
    pub(super) fn is_of(&self, stamp: &DnsCryptStamp, route: &Route) -> bool {
        self.stamp == *stamp && self.ways.are_of(stamp.addr, route)
    }

    /// Asks over UDP, then over TCP when the answer was cut or did not come.
    pub(super) async fn ask(self: &Arc<Self>, query: &[u8]) -> Result<Vec<u8>, ResolveError> {
        let _asking = Asking::begin(self);
        let session = self.session().await?;
        let cut = match self.ask_udp(&session, query).await? {
            UdpOutcome::Answer(response) if !message::is_truncated(&response) => {
                return Ok(response);
            }
            UdpOutcome::Answer(response) => {
                self.raise_target();
                Some(response)
            }
            UdpOutcome::NewCertificate => {
                let session = self.session().await?;
                match self.ask_udp(&session, query).await? {
                    UdpOutcome::Answer(response) if !message::is_truncated(&response) => {
                        return Ok(response);
                    }
                    UdpOutcome::Answer(response) => Some(response),
                    UdpOutcome::NewCertificate | UdpOutcome::Silence => None,
                }
            }
            UdpOutcome::Silence => None,
        };
        let session = self.session().await?;
        let over_tcp = Box::pin(self.ask_tcp(&session, query)).await;
        match (over_tcp, cut) {
            (Ok(response), _) | (Err(_), Some(response)) => Ok(response),
            (Err(error), None) => Err(error),
        }
    }

    /// Makes sure that there is a session to ask under.
    pub(super) async fn warm(self: &Arc<Self>) -> Result<(), ResolveError> {
        self.session().await.map(drop)
    }

    /// Asks over one transport, once the certificate is there.
    pub(super) async fn ask_over(
        self: &Arc<Self>,
        query: &[u8],
        transport: Transport,
    ) -> Result<Vec<u8>, ResolveError> {
        let session = self.session().await?;
        match transport {
            Transport::Tcp => Box::pin(self.ask_tcp(&session, query)).await,
            Transport::Udp => match self.ask_udp(&session, query).await? {
                UdpOutcome::Answer(response) => Ok(response),
                UdpOutcome::NewCertificate | UdpOutcome::Silence => Err(ResolveError::NoAnswer),
            },
        }
    }

    /// Whether it answers one small query for its certificates, over UDP.
    pub(super) async fn shows_certificates(&self) -> bool {
        let way = self.ways.now();
        let fetched = fetch::fetch(
            &self.stamp,
            &self.ways,
            &self.settings.sockets,
            FetchBy::Udp,
        );
        let is_shown = matches!(timeout(KNOCK, fetched).await, Ok(Ok(_)));
        if let Some(way) = way.filter(|_| !is_shown) {
            self.ways.silent(way);
        }
        is_shown
    }

    /// Gets the certificates anew, whatever is known. Whether a lookup may be asked under them.
    pub(super) async fn renew(self: &Arc<Self>) -> Result<(), ResolveError> {
        self.newer_certificate(Duration::ZERO).await.into_result()?;
        self.ready_session()?
            .map(drop)
            .ok_or(ResolveError::NoAnswer)
    }

    pub(super) fn failed(&self, error: &ResolveError) -> Watch {
        let mut state = self.state();
        if !state.standing.is_down() {
            tracing::warn!(resolver = %self.stamp.addr, %error, "resolver failed");
        }
        state.standing.failed(error.to_string())
    }

    /// Looks at how it is doing, or says so.
    pub(super) fn standing<T>(&self, with: impl FnOnce(&mut Standing) -> T) -> T {
        with(&mut self.state().standing)
    }

    pub(super) fn network_changed(&self) {
        let mut state = self.state();
        state.keys = None;
        state.session = None;
        state.channel = None;
        state.standing.forget();
        state.udp_target = self.settings.udp_target.min(MAX_TARGET);
    }

    pub(super) fn health(&self) -> Health {
        let state = self.state();
        Health {
            stamp: self.stamp.clone(),
            certificate: state
                .certificate
                .as_ref()
                .map(|known| known.certificate.clone()),
            udp_target: state.udp_target,
            failures: state.standing.failures(),
            last_error: state.standing.last_error().cloned(),
            rtt: state.standing.rtt(),
        }
    }

    async fn ask_udp(
        self: &Arc<Self>,
        session: &Session,
        query: &[u8],
    ) -> Result<UdpOutcome, ResolveError> {
        let channel = self.channel().await?;
        let target = self.state().udp_target;
        let seal = |expected: &Expected| {
            let how = QueryPadding::Udp { target };
            session.seal(query, *expected.nonce(), how, (self.settings.clock)())
        };
        let mut first = channel.expect(random_nonce())?;
        let question = seal(&first).map_err(|_| ResolveError::TooLong)?;
        if question.is_too_long_for_udp() {
            return Ok(UdpOutcome::Silence);
        }
        // A refusal by ICMP may be forged or old: waiting and TCP decide.
        let _ = channel.send(&question.packet).await;
        let sent = Instant::now();
        let answer = self.authentic(session, &question, query, &mut first);
        tokio::pin!(answer);
        if let Ok(response) = timeout(FIRST_WAIT, &mut answer).await {
            self.heard(Some(sent.elapsed()));
            return Ok(UdpOutcome::Answer(response));
        }
        session.unanswered(&question);
        self.ways.silent(channel.way());
        let other = self.channel().await?;
        // The same packet again, or one without the ticket that may be the reason for the silence, or by another relay.
        let mut again = None;
        if question.is_resumed() || !Arc::ptr_eq(&channel, &other) {
            let second = other.expect(random_nonce())?;
            let question = seal(&second).map_err(|_| ResolveError::TooLong)?;
            again = Some((question, second));
        }
        let packet = again
            .as_ref()
            .map_or(&question.packet, |(again, _)| &again.packet);
        let _ = other.send(packet).await;
        let answer_to_other = async {
            match &mut again {
                Some((again, second)) => self.authentic(session, again, query, second).await,
                None => std::future::pending().await,
            }
        };
        let either = async {
            tokio::select! {
                response = &mut answer => response,
                response = answer_to_other => response,
            }
        };
        let mut newer = self.newer_certificate(SUSPICION);
        tokio::select! {
            response = timeout(SECOND_WAIT, either) => {
                match &response {
                    Ok(_) => self.heard(None),
                    Err(_) => {
                        self.ways.silent(other.way());
                        // The socket may be what is wrong: the next query gets another one.
                        self.state().channel = None;
                    }
                }
                Ok(response.map_or(UdpOutcome::Silence, UdpOutcome::Answer))
            }
            Certificates::Changed = &mut newer => Ok(UdpOutcome::NewCertificate),
        }
    }

    async fn ask_tcp(&self, session: &Session, query: &[u8]) -> Result<Vec<u8>, ResolveError> {
        let way = self.ways.now().ok_or(ResolveError::NoRelay)?;
        let [choice, ..] = OsRng.next_u32().to_be_bytes();
        let target = RELAYED_TARGET;
        let (how, now) = match way.is_relayed() {
            true => (QueryPadding::Udp { target }, (self.settings.clock)()),
            false => (QueryPadding::Tcp { choice }, (self.settings.clock)()),
        };
        let question = session
            .seal(query, random_nonce(), how, now)
            .map_err(|_| ResolveError::TooLong)?;
        let exchange = async {
            let mut stream = self.settings.sockets.tcp(way.next_hop()).await?;
            let silence = |_| ResolveError::NoAnswer;
            write_frame(&mut stream, &way.dress(&question.packet))
                .await
                .map_err(silence)?;
            let answer = read_frame(&mut stream, MAX_RESPONSE)
                .await
                .map_err(silence)?;
            let answer = answer.ok_or(ResolveError::NoAnswer)?;
            session.open(&question, answer, query, now).map_err(silence)
        };
        let outcome = timeout(TCP_WAIT, exchange).await;
        let outcome = outcome.map_err(|_| ResolveError::NoAnswer).flatten();
        match &outcome {
            Ok(_) => self.heard(None),
            Err(_) => {
                self.ways.silent(way);
                session.unanswered(&question);
            }
        }
        outcome
    }

    fn heard(&self, took: Option<Duration>) {
        self.state().standing.heard(took, Instant::now());
    }

    /// The first packet that is authentic; forged ones are passed over.
    async fn authentic(
        &self,
        session: &Session,
        question: &Question,
        query: &[u8],
        expected: &mut Expected,
    ) -> Vec<u8> {
        loop {
            let Some(packet) = expected.next().await else {
                return std::future::pending().await;
            };
            let now = (self.settings.clock)();
            if let Ok(response) = session.open(question, packet, query, now) {
                return response;
            }
        }
    }

    /// The session to ask under; fetches certificates when there is none that is valid.
    async fn session(self: &Arc<Self>) -> Result<Arc<Session>, ResolveError> {
        if let Some(session) = self.ready_session()? {
            return Ok(session);
        }
        self.newer_certificate(Duration::ZERO).await.into_result()?;
        self.ready_session()?.ok_or(ResolveError::NoAnswer)
    }

    fn ready_session(self: &Arc<Self>) -> Result<Option<Arc<Session>>, ResolveError> {
        let now = (self.settings.clock)();
        let mut state = self.state();
        let Some(known) = &state.certificate else {
            return Ok(None);
        };
        if known.certificate.check_time(now).is_err() {
            return Ok(None);
        }
        let tried = state.tried.unwrap_or(known.fetched).elapsed();
        let is_old = known.fetched.elapsed() > REFRESH && tried > REFRESH_RETRY;
        if is_old || (is_near_end(&known.certificate, now) && tried > LAST_RETRY) {
            let (resolver, at_most_every) = (Arc::clone(self), tried.min(REFRESH));
            // Ends by itself within the fetch's timeouts, and only ever replaces the certificate.
            tokio::spawn(async move { resolver.newer_certificate(at_most_every).await });
        }
        if let (KeyPolicy::PerNetwork, Some(session)) = (self.settings.keys, &state.session) {
            return Ok(Some(Arc::clone(session)));
        }
        if self.settings.keys == KeyPolicy::PerQuery {
            let session = Session::new(&known.certificate, &mut None)?;
            return Ok(Some(Arc::new(session)));
        }
        let certificate = known.certificate.clone();
        let session = Arc::new(Session::new(&certificate, &mut state.keys)?);
        state.session = Some(Arc::clone(&session));
        Ok(Some(session))
    }

    /// Fetches certificates unless that was done less than `at_most_every` ago.
    ///
    /// On the heap, as all that few lookups come to: it would be in the memory of every one that waits.
    fn newer_certificate(&self, at_most_every: Duration) -> Cold<'_, Certificates> {
        Box::pin(self.fetch_newer(at_most_every))
    }

    async fn fetch_newer(&self, at_most_every: Duration) -> Certificates {
        let asked = Instant::now();
        self.state().tried = Some(asked);
        let mut last_failure = self.fetching.lock().await;
        if let Some(known) = &self.state().certificate
            && (known.fetched.elapsed() < at_most_every || known.fetched > asked)
        {
            return Certificates::Same;
        }
        if let Some((when, error)) = &*last_failure
            && *when > asked
        {
            return Certificates::Failed(error.clone());
        }
        let fetched = fetch::certificate(&self.stamp, &self.ways, &self.settings).await;
        let mut state = self.state();
        match fetched {
            Err(error) => {
                *last_failure = Some((Instant::now(), error.clone()));
                Certificates::Failed(error)
            }
            Ok(certificate) => {
                let before = state.certificate.as_ref().map(|known| &known.certificate);
                let same = before == Some(&certificate);
                if before.is_some_and(|before| before.system > certificate.system) {
                    tracing::warn!(
                        resolver = %self.stamp.addr,
                        "the resolver shows no post-quantum certificate any more: lookups are sealed without it"
                    );
                }
                state.certificate = Some(Known {
                    certificate,
                    fetched: Instant::now(),
                });
                if same {
                    state.udp_target = state
                        .udp_target
                        .saturating_sub(padding::TARGET_STEP)
                        .max(self.settings.udp_target);
                    return Certificates::Same;
                }
                state.session = None;
                Certificates::Changed
            }
        }
    }

    async fn channel(&self) -> Result<Arc<Channel>, ResolveError> {
        let way = self.ways.now().ok_or(ResolveError::NoRelay)?;
        let open = |state: &State| state.channel.clone().filter(|kept| kept.way() == way);
        if let Some(channel) = open(&self.state()) {
            return Ok(channel);
        }
        let socket = self.settings.sockets.udp(way.next_hop()).await;
        let socket = socket.inspect_err(|_| self.ways.silent(way))?;
        let channel = Arc::new(Channel::new(socket, way));
        let mut state = self.state();
        if let Some(channel) = open(&state) {
            return Ok(channel);
        }
        state.channel = Some(Arc::clone(&channel));
        Ok(channel)
    }

    fn raise_target(&self) {
        let mut state = self.state();
        state.udp_target = padding::larger_target(state.udp_target, MAX_TARGET);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question on its way to a resolver, counted there until it is over.
struct Asking<'a>(&'a Resolver);

impl<'a> Asking<'a> {
    fn begin(resolver: &'a Resolver) -> Self {
        resolver.standing(|standing| standing.asked(Instant::now()));
        Self(resolver)
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.standing(Standing::ended);
    }
}

/// Whether a certificate is about to end: whoever waits for its end finds a server that has erased the key.
fn is_near_end(certificate: &Certificate, now: u64) -> bool {
    let life_s = certificate.end - certificate.start;
    let left_s = u64::from(certificate.end).saturating_sub(now);
    left_s < u64::from((life_s / 4).min(LAST_OF_LIFE_S))
}

/// What is rarely needed.
type Cold<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

enum UdpOutcome {
    Answer(Vec<u8>),
    /// Silence, and the resolver has another certificate by now.
    NewCertificate,
    Silence,
}

enum Certificates {
    Changed,
    Same,
    Failed(fetch::FetchError),
}

impl Certificates {
    fn into_result(self) -> Result<(), ResolveError> {
        match self {
            Self::Changed | Self::Same => Ok(()),
            Self::Failed(error) => Err(error.into()),
        }
    }
}

fn random_nonce() -> ClientNonce {
    let mut nonce = [0; 12];
    OsRng.fill_bytes(&mut nonce);
    nonce
}
