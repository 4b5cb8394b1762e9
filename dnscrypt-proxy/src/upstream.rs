//! Asking DNSCrypt resolvers: several stamps in order of preference, the next one when one fails. What
//! cannot be asked encrypted is not asked.

mod channel;
mod fetch;
mod resolver;
mod session;
mod sockets;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::time::{Instant, timeout};

pub use fetch::{CertSet, FetchBy, FetchError, fetch};
pub use resolver::Health;
pub use sockets::SocketFactory;

use crate::clock::{self, Clock};
use crate::proto::cert::Policy;
use crate::proto::client::SessionError;
use crate::proto::stamp::DnsCryptStamp;
use crate::proto::{Transport, message};
use resolver::Resolver;

/// More stamps than this are not taken: a lease or a configuration with more is a mistake.
pub const MAX_STAMPS: usize = 16;
/// How long one resolver may take while others could still be asked.
const BUDGET_WITH_OTHERS: Duration = Duration::from_millis(2500);
/// How long the last one may take.
const BUDGET_LAST: Duration = Duration::from_secs(6);
const RCODE_REFUSED: u8 = 5;

/// How long the client's key pair lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyPolicy {
    /// One pair until [`Upstream::network_changed`]: cheapest.
    #[default]
    PerNetwork,
    /// A pair for every query: queries cannot be linked by their key.
    PerQuery,
}

/// How resolvers are asked.
#[derive(Clone)]
pub struct Settings {
    /// How long client keys live.
    pub keys: KeyPolicy,
    /// Which certificates are taken.
    pub policy: Policy,
    /// Makes the sockets.
    pub sockets: SocketFactory,
    /// Judges the validity of certificates.
    pub clock: Clock,
    /// UDP queries start at this size, and so may their answers.
    pub udp_target: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            keys: KeyPolicy::default(),
            policy: Policy::default(),
            sockets: SocketFactory::default(),
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
}

impl From<std::io::Error> for ResolveError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

/// The resolvers. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Upstream {
    settings: Arc<Settings>,
    // Contended by queries for as long as it takes to clone a list of Arcs.
    resolvers: Arc<Mutex<Vec<Arc<Resolver>>>>,
}

impl Upstream {
    /// Takes the stamps in order of preference. Nothing is sent until something is asked.
    #[must_use]
    pub fn new(stamps: Vec<DnsCryptStamp>, settings: Settings) -> Self {
        let upstream = Self {
            settings: Arc::new(settings),
            resolvers: Arc::default(),
        };
        upstream.set_stamps(stamps);
        upstream
    }

    /// Replaces the stamps; what is known of a resolver that stays is kept.
    pub fn set_stamps(&self, stamps: Vec<DnsCryptStamp>) {
        let mut resolvers = self
            .resolvers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *resolvers);
        *resolvers = stamps
            .into_iter()
            .take(MAX_STAMPS)
            .map(|stamp| {
                let known = before.iter().find(|resolver| *resolver.stamp() == stamp);
                known
                    .cloned()
                    .unwrap_or_else(|| Arc::new(Resolver::new(stamp, Arc::clone(&self.settings))))
            })
            .collect();
    }

    /// Forgets keys, sockets and grudges: the machine is on another network now.
    pub fn network_changed(&self) {
        for resolver in self.all() {
            resolver.network_changed();
        }
    }

    /// The response to a DNS query, authenticated, from the first resolver that gives one.
    pub async fn resolve(&self, query: &[u8]) -> Result<Vec<u8>, ResolveError> {
        let resolvers = self.by_health();
        let mut failure = ResolveError::NoResolver;
        for (at, resolver) in resolvers.iter().enumerate() {
            let last = at + 1 == resolvers.len();
            let budget = if last {
                BUDGET_LAST
            } else {
                BUDGET_WITH_OTHERS
            };
            let outcome = timeout(budget, resolver.ask(query)).await;
            match outcome.unwrap_or(Err(ResolveError::NoAnswer)) {
                Ok(response) if message::rcode_low(&response) == RCODE_REFUSED => {
                    failure = ResolveError::Refused
                }
                Ok(response) => {
                    resolver.succeeded();
                    return Ok(response);
                }
                Err(error) => failure = error,
            }
            resolver.failed(&failure);
        }
        Err(failure)
    }

    /// Gets the certificate of the most preferred resolver now, so that the first question need not wait.
    pub async fn warm(&self) -> Result<(), ResolveError> {
        let resolver = self
            .all()
            .into_iter()
            .next()
            .ok_or(ResolveError::NoResolver)?;
        let outcome = timeout(BUDGET_LAST, resolver.warm()).await;
        outcome.unwrap_or(Err(ResolveError::NoAnswer))
    }

    /// Asks the most preferred resolver over one transport only: for testing a stamp.
    pub async fn resolve_over(
        &self,
        query: &[u8],
        transport: Transport,
    ) -> Result<Vec<u8>, ResolveError> {
        let resolver = self
            .all()
            .into_iter()
            .next()
            .ok_or(ResolveError::NoResolver)?;
        let outcome = timeout(BUDGET_LAST, resolver.ask_over(query, transport)).await;
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

    fn all(&self) -> Vec<Arc<Resolver>> {
        self.resolvers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Those that did not fail lately first; the others by when they may be tried again.
    fn by_health(&self) -> Vec<Arc<Resolver>> {
        let now = Instant::now();
        let mut resolvers = self.all();
        resolvers.sort_by_cached_key(|resolver| resolver.down_until().filter(|until| *until > now));
        resolvers
    }
}
