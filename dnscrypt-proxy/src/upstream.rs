//! Asking DNSCrypt resolvers: several stamps, the next one when one fails or is late. What cannot be asked
//! encrypted is not asked; servers of the network one is in are asked for zones of their own alone.

mod channel;
mod fetch;
mod inside;
mod race;
mod resolver;
pub(crate) mod session;
mod sockets;
mod standing;
mod vigil;
mod way;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

pub use fetch::{CertSet, FetchBy, FetchError, fetch};
pub use resolver::Health;
pub use sockets::SocketFactory;
pub use way::{Route, Ways};

use crate::clock::{self, Clock};
use crate::proto::Transport;
use crate::proto::cert::Policy;
use crate::proto::client::SessionError;
use crate::proto::dropped::Dropped;
use crate::proto::message::{Query, Response};
use crate::proto::stamp::DnsCryptStamp;
use race::Race;
use resolver::Resolver;
use standing::{Hedges, Standing, Watch};

/// More stamps than this are not taken: a lease or a configuration with more is a mistake.
pub const MAX_STAMPS: usize = 16;
/// How long a question may take; a little longer where resolvers change meanwhile.
const BUDGET: Duration = Duration::from_secs(6);
/// Resolvers that are down are looked after closely for this long after somebody wanted an answer.
const WANTED_FOR_S: u32 = 60;

/// How long the client's key pair lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyPolicy {
    /// One pair until [`Upstream::network_changed`]: cheapest.
    #[default]
    PerNetwork,
    /// A pair for every query: queries cannot be linked by their key.
    PerQuery,
}

/// Whom a question goes to first, of those that are well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prefer {
    /// The first of the stamps: their order is policy.
    #[default]
    Order,
    /// The one that answers fastest; among equals the first.
    Latency,
}

impl std::str::FromStr for Prefer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "order" => Ok(Self::Order),
            "latency" => Ok(Self::Latency),
            _ => Err(format!("{text:?} is not one of order, latency")),
        }
    }
}

/// How resolvers are asked.
#[derive(Clone)]
pub struct Settings {
    /// How long client keys live.
    pub keys: KeyPolicy,
    /// Whom a question goes to first.
    pub prefer: Prefer,
    /// Which certificates are taken.
    pub policy: Policy,
    /// Makes the sockets.
    pub sockets: SocketFactory,
    /// Likewise those to servers of the network one is in.
    pub inside: SocketFactory,
    /// Judges the validity of certificates.
    pub clock: Clock,
    /// UDP queries start at this size, and so may their answers.
    pub udp_target: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            keys: KeyPolicy::default(),
            prefer: Prefer::default(),
            policy: Policy::default(),
            sockets: SocketFactory::default(),
            inside: SocketFactory::default(),
            clock: clock::system(),
            udp_target: 512,
        }
    }
}

/// Why one resolver gave no answer.
#[derive(Clone, Debug, Error)]
pub enum ResolveError {
    /// There are no stamps.
    #[error("no resolver is configured")]
    NoResolver,
    /// No relay leads to it, and it may not be asked without one.
    #[error("no relay leads to the resolver")]
    NoRelay,
    /// Its certificates could not be had, or none of them may be used.
    #[error("no certificate: {0}")]
    Certificate(#[from] FetchError),
    /// Its certificate leads to no key.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The network would not take the packet.
    #[error("cannot send: {0}")]
    Io(Arc<std::io::Error>),
    /// It was silent.
    #[error("no answer")]
    NoAnswer,
    /// It will not serve us.
    #[error("the resolver refused")]
    Refused,
    /// The query does not fit the protocol.
    #[error("the query is too long")]
    TooLong,
    /// What it said is no answer to the question.
    #[error("the answer cannot be used ({})", .0.as_label())]
    Unusable(Dropped),
}

impl From<std::io::Error> for ResolveError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

/// The resolvers. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Upstream {
    shared: Arc<Shared>,
}

/// What all questions have in common.
struct Shared {
    settings: Arc<Settings>,
    /// Told of when there are others, or when the way to them or one of them is new: who waits asks again.
    resolvers: watch::Sender<Vec<Arc<Resolver>>>,
    /// How often that was told.
    changes: AtomicUsize,
    // Contended by questions that begin or are late, for one addition.
    hedges: Mutex<Hedges>,
    began: Instant,
    /// Seconds after that when an answer was last wanted.
    wanted_s: AtomicU32,
}

impl Upstream {
    /// Takes the stamps in order of preference. Nothing is sent until something is asked.
    #[must_use]
    pub fn new(stamps: Vec<DnsCryptStamp>, settings: Settings) -> Self {
        let upstream = Self {
            shared: Arc::new(Shared {
                settings: Arc::new(settings),
                resolvers: watch::Sender::default(),
                changes: AtomicUsize::new(0),
                hedges: Mutex::default(),
                began: Instant::now(),
                wanted_s: AtomicU32::new(0),
            }),
        };
        upstream.set_stamps(stamps);
        upstream
    }

    /// Replaces the stamps, of resolvers that are asked themselves.
    pub fn set_stamps(&self, stamps: Vec<DnsCryptStamp>) {
        self.set_resolvers(stamps, &Route::Direct);
    }

    /// Replaces the resolvers and how they are reached. What is known of one that stays on its route is kept; on another
    /// route it knows nothing that it did not know before: new keys, new sockets. Questions that wait are asked of
    /// the new ones.
    pub fn set_resolvers(&self, stamps: Vec<DnsCryptStamp>, route: &Route) {
        let before = self.all();
        let known =
            |stamp: &DnsCryptStamp| before.iter().find(|one| one.is_of(stamp, route)).cloned();
        let make = |stamp| {
            Arc::new(Resolver::new(
                stamp,
                route,
                Arc::clone(&self.shared.settings),
            ))
        };
        let resolvers: Vec<_> = stamps
            .into_iter()
            .take(MAX_STAMPS)
            .map(|stamp| known(&stamp).unwrap_or_else(|| make(stamp)))
            .collect();
        let same = resolvers.len() == before.len()
            && resolvers
                .iter()
                .zip(&before)
                .all(|(a, b)| Arc::ptr_eq(a, b));
        if !same {
            self.shared.change(|known| *known = resolvers);
        }
    }

    /// Forgets keys, sockets and grudges: the machine is on another network now. Questions that wait are
    /// asked again.
    pub fn network_changed(&self) {
        for resolver in self.all() {
            resolver.network_changed();
        }
        self.shared.change(|_| ());
    }

    /// The response to a DNS query, authenticated, from the first resolver that gives one.
    pub async fn resolve(&self, query: &[u8]) -> Result<Vec<u8>, ResolveError> {
        self.shared.want();
        self.shared.hedges().earn();
        Race::new(&self.shared, query).run().await
    }

    /// The response to a question for a zone of the network's own, asked of its servers in clear by `asked`: of the next one where one is
    /// silent, declines, or says what cannot be used. It is nobody's proof, and says so.
    pub async fn ask_inside(
        &self,
        servers: &[SocketAddr],
        query: &Query,
        asked: &[u8],
    ) -> Result<Response, ResolveError> {
        let answer = inside::ask(servers, &self.shared.settings.inside, query, asked);
        timeout(BUDGET, answer)
            .await
            .unwrap_or(Err(ResolveError::NoAnswer))
    }

    /// Whether a question may hope for an answer soon. To be asked is to want one: resolvers that are down
    /// are then looked at every second.
    #[must_use]
    pub fn is_hopeful(&self) -> bool {
        self.shared.want();
        let now = Instant::now();
        let well = |standing: &mut Standing| !standing.is_down() && !standing.is_silent(now);
        let resolvers = self.shared.resolvers.borrow();
        resolvers.iter().any(|resolver| resolver.standing(well))
    }

    /// Goes up whenever what failed before may succeed.
    #[must_use]
    pub fn changes(&self) -> usize {
        self.shared.changes.load(Ordering::Relaxed)
    }

    /// Gets the certificate of the most preferred resolver now, so that the first question need not wait.
    pub async fn warm(&self) -> Result<(), ResolveError> {
        let resolver = self.first()?;
        let outcome = timeout(BUDGET, resolver.warm()).await;
        outcome.unwrap_or(Err(ResolveError::NoAnswer))
    }

    /// Asks the most preferred resolver over one transport only: for testing a stamp.
    pub async fn resolve_over(
        &self,
        query: &[u8],
        transport: Transport,
    ) -> Result<Vec<u8>, ResolveError> {
        let resolver = self.first()?;
        let outcome = timeout(BUDGET, resolver.ask_over(query, transport)).await;
        outcome.unwrap_or(Err(ResolveError::NoAnswer))
    }

    /// How each resolver is doing, in order of preference.
    #[must_use]
    pub fn health(&self) -> Vec<Health> {
        self.all()
            .iter()
            .map(|resolver| resolver.health())
            .collect()
    }

    fn first(&self) -> Result<Arc<Resolver>, ResolveError> {
        let first = self.all().into_iter().next();
        first.ok_or(ResolveError::NoResolver)
    }

    fn all(&self) -> Vec<Arc<Resolver>> {
        self.shared.resolvers.borrow().clone()
    }
}

impl Shared {
    /// Those that are well first; of them, where that is wanted, the fastest.
    fn in_order(&self, now: Instant) -> Vec<Arc<Resolver>> {
        let mut resolvers = self.resolvers.borrow().clone();
        if resolvers.len() > 1 {
            resolvers.sort_by_cached_key(|resolver| {
                resolver.standing(|standing| {
                    let speed = match self.settings.prefer {
                        Prefer::Order => 0,
                        Prefer::Latency => standing.speed(),
                    };
                    (standing.is_down(), standing.is_silent(now), speed)
                })
            });
        }
        resolvers
    }

    /// Holds a failure against a resolver, and has it looked after until it is up.
    fn failed(self: &Arc<Self>, resolver: &Arc<Resolver>, error: &ResolveError) {
        if resolver.failed(error) == Watch::Begin {
            vigil::keep(self, resolver);
        }
    }

    /// Has a resolver that is silent looked at: it may be slow, or away.
    fn doubt(self: &Arc<Self>, resolver: &Arc<Resolver>) {
        if resolver.standing(Standing::watch) == Watch::Begin {
            vigil::keep(self, resolver);
        }
    }

    fn change(&self, how: impl FnOnce(&mut Vec<Arc<Resolver>>)) {
        self.changes.fetch_add(1, Ordering::Relaxed);
        self.resolvers.send_modify(how);
    }

    fn want(&self) {
        self.wanted_s.store(self.uptime_s(), Ordering::Relaxed);
    }

    fn is_wanted(&self) -> bool {
        let wanted_s = self.wanted_s.load(Ordering::Relaxed);
        self.uptime_s().saturating_sub(wanted_s) < WANTED_FOR_S
    }

    fn uptime_s(&self) -> u32 {
        u32::try_from(self.began.elapsed().as_secs()).unwrap_or(u32::MAX)
    }

    fn hedges(&self) -> MutexGuard<'_, Hedges> {
        self.hedges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
