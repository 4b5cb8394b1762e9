//! The DNSCrypt server: opens queries, hands them to a resolver, seals the answers.
//!
//! The resolver is any function from a DNS query to a DNS answer. Certificates are answered here, over
//! UDP and TCP, from the same key ring that opens the queries. A server in front of many clients has `workers`,
//! each with its `clerk`, and keeps answers; without them a task is started for each query.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hickory_proto::rr::RecordType;
use rand_core::OsRng;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::clock::Clock;
use crate::listen::{self, Homes, Limits, Packet, Service, Sockets, Step, Stopped};
use crate::proto::Transport;
use crate::proto::dropped::{Counted, Counters, Dropped};
use crate::proto::message;
use crate::proto::server::{KeyCache, Keyring, Opened, open};

#[cfg(feature = "workers")]
pub mod answers;
#[cfg(feature = "workers")]
mod clerk;
#[cfg(feature = "workers")]
mod connections;
#[cfg(feature = "workers")]
mod desk;
#[cfg(feature = "workers")]
pub mod forward;
#[cfg(feature = "workers")]
mod heard;
mod keys;
#[cfg(feature = "workers")]
mod randomness;
#[cfg(feature = "workers")]
mod rates;
#[cfg(feature = "workers")]
mod relay;
#[cfg(feature = "workers")]
mod strangers;
#[cfg(feature = "workers")]
mod tls;
#[cfg(feature = "workers")]
mod workers;

#[cfg(feature = "workers")]
pub use heard::Heard;
use keys::Keys;
#[cfg(feature = "workers")]
pub use rates::Rates;
#[cfg(feature = "workers")]
pub use relay::Relaying;
#[cfg(feature = "workers")]
pub use tls::{Begun, TlsDoor};
#[cfg(feature = "workers")]
pub use workers::WorkerSockets;

/// How long a handler may take. Clients have given up by then.
const HANDLER: Duration = Duration::from_secs(10);
/// Lifetime of certificate answers: refreshes are hourly anyway.
const CERT_TTL_S: u32 = 600;
/// Keys agreed on for one packet: one.
const FRESH_KEYS: usize = 8;

/// A DNS query that came sealed.
#[derive(Debug)]
pub struct Query {
    /// The DNS message.
    pub message: Vec<u8>,
    /// Who sent it.
    pub source: SocketAddr,
    /// Over what.
    pub transport: Transport,
    /// The longest answer that will not be truncated.
    pub room: usize,
    /// How whoever is asked is to be asked.
    pub asking: Asking,
}

/// How a question is to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// In any way, and of any memory.
    Anyhow,
    /// Over TCP, as what datagrams brought was cut, or perhaps not from there.
    OverTcp,
    /// Of no memory, while nobody waits, for an answer that is kept and near its end. It takes no place of those who wait.
    Ahead,
}

/// Everything a server needs but its sockets and its resolver.
#[derive(Clone)]
pub struct Server {
    /// The name under which certificates are served.
    pub provider_name: String,
    /// The keys, as [`Certs`](crate::certs::Certs) publishes them.
    pub keyring: watch::Receiver<Arc<Keyring>>,
    /// What is let in at the same time.
    pub limits: Limits,
    /// Who counts as one source of a server's workers and its relay.
    pub homes: Homes,
    /// What happened.
    pub counters: Arc<Counters>,
    /// The time of day.
    pub clock: Clock,
}

impl Server {
    /// Serves until dropped. The handler's `None` means that there is no answer: nothing is sent.
    pub async fn serve<H, F>(self, sockets: Sockets, handler: H) -> Stopped
    where
        H: Fn(Query) -> F + Send + Sync + 'static,
        F: Future<Output = Option<Vec<u8>>> + Send + 'static,
    {
        let limits = self.limits;
        let service = Serving::new(self, handler);
        listen::run(Arc::new(service), sockets, limits).await
    }

    /// The same with a worker for each set of sockets.
    #[cfg(feature = "workers")]
    pub async fn serve_by_workers<H, F>(
        self,
        sockets: Vec<WorkerSockets>,
        duties: Duties,
        handler: H,
    ) -> Stopped
    where
        H: Fn(Query) -> F + Send + Sync + 'static,
        F: Future<Output = Heard> + Send + 'static,
    {
        self.serve_and_relay(sockets, duties, None, handler).await
    }

    /// The same, and by the same sockets forwards packets that are for other resolvers, if there is to be a relay.
    #[cfg(feature = "workers")]
    pub async fn serve_and_relay<H, F>(
        self,
        sockets: Vec<WorkerSockets>,
        duties: Duties,
        relay: Option<Relaying>,
        handler: H,
    ) -> Stopped
    where
        H: Fn(Query) -> F + Send + Sync + 'static,
        F: Future<Output = Heard> + Send + 'static,
    {
        let handler = Arc::new(handler);
        match workers::Workers::start(&self, sockets, &duties, (&handler, relay)) {
            Ok(mut workers) => workers.ended().await,
            Err(error) => tracing::error!(%error, "the DNSCrypt workers cannot start"),
        }
        Stopped
    }
}

impl Server {
    fn count(&self, opened: &Opened, transport: Transport) {
        self.counters.count(match transport {
            Transport::Udp => Counted::UdpQuery,
            Transport::Tcp => Counted::TcpQuery,
        });
        if opened.reply.is_post_quantum() {
            self.counters.count(Counted::PostQuantum);
        }
    }
}

/// What workers do by themselves before they ask the handler.
#[cfg(feature = "workers")]
#[derive(Clone, Debug)]
pub struct Duties {
    /// They keep up to so many bytes of answers together.
    pub kept_bytes: usize,
    /// Each asks so many questions ahead, at a time, for answers that are near their end; 0 where whoever is asked would answer from
    /// a memory of its own.
    pub ahead: usize,
    /// They ask these resolvers, within their own threads.
    pub forwarding: Option<forward::Forwarding>,
    /// They leave connections there that begin as TLS does; `None`: those are closed.
    pub tls: Option<TlsDoor>,
}

struct Serving<H> {
    server: Server,
    handler: H,
    /// All loops and connections agree on keys here; held for a packet's opening and never over a key agreement.
    keys: Mutex<Keys>,
}

impl<H, F> Service for Serving<H>
where
    H: Fn(Query) -> F + Send + Sync + 'static,
    F: Future<Output = Option<Vec<u8>>> + Send + 'static,
{
    type Local = ();

    fn local(&self) {}

    fn begin(self: &Arc<Self>, (): &mut (), packet: Packet<'_>) -> Step {
        let keyring = self.keys().current();
        let now = (self.server.clock)();
        let (source, transport) = (packet.source, packet.transport);
        if !keyring.claims(packet.bytes) {
            return match certificates(&self.server, &keyring, packet.bytes, transport, now) {
                Some(answer) => Step::Answer(answer),
                None => Step::Drop(Dropped::UnknownMagic),
            };
        }
        let opened = match self.open(&keyring, packet, now) {
            Ok(opened) => opened,
            Err(reason) => return Step::Drop(reason),
        };
        self.server.count(&opened, transport);
        let service = Arc::clone(self);
        Step::Wait(Box::pin(async move {
            service.answer(opened, source, transport).await
        }))
    }

    fn counters(&self) -> &Counters {
        &self.server.counters
    }
}

impl<H, F> Serving<H>
where
    H: Fn(Query) -> F + Send + Sync + 'static,
    F: Future<Output = Option<Vec<u8>>> + Send + 'static,
{
    fn new(server: Server, handler: H) -> Self {
        Self {
            keys: Mutex::new(Keys::new(server.keyring.clone())),
            server,
            handler,
        }
    }

    fn open(
        &self,
        keyring: &Arc<Keyring>,
        packet: Packet<'_>,
        now: u64,
    ) -> Result<Opened, Dropped> {
        let (bytes, transport) = (packet.bytes.to_vec(), packet.transport);
        let mut keys = self.keys();
        if keyring.is_cheap(&keys.kept, &bytes) {
            return open(keyring, &mut keys.kept, bytes, transport, now);
        }
        drop(keys);
        let mut fresh = KeyCache::new(FRESH_KEYS);
        let opened = open(keyring, &mut fresh, bytes, transport, now);
        let mut keys = self.keys();
        // What was agreed under a ring that is gone meanwhile is not kept.
        if Arc::ptr_eq(&keys.current(), keyring) {
            keys.kept.absorb(fresh);
        }
        opened
    }

    async fn answer(
        &self,
        opened: Opened,
        source: SocketAddr,
        transport: Transport,
    ) -> Result<Vec<u8>, Dropped> {
        let query = Query {
            message: opened.query.clone(),
            source,
            transport,
            room: opened.reply.room(),
            asking: Asking::Anyhow,
        };
        let answer = timeout(HANDLER, (self.handler)(query)).await;
        let answer = answer.ok().flatten().ok_or(Dropped::Unanswered)?;
        Ok(self.seal(opened, answer))
    }

    fn seal(&self, opened: Opened, answer: Vec<u8>) -> Vec<u8> {
        let sealed = opened.reply.seal(answer, &opened.query, OsRng);
        if sealed.truncated {
            self.server.counters.count(Counted::Truncated);
        }
        sealed.packet
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer to a plain query for the certificates; `None` for any other packet.
fn certificates(
    server: &Server,
    keyring: &Keyring,
    packet: &[u8],
    transport: Transport,
    now: u64,
) -> Option<Vec<u8>> {
    let query = message::Query::read(packet).ok()?;
    if query.qtype != RecordType::TXT || !query.asks_for(&server.provider_name) {
        return None;
    }
    server.counters.count(Counted::CertQuery);
    Some(keyring.cert_answer(&query, packet.len(), transport, CERT_TTL_S, now))
}
