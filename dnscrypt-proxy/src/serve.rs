//! The DNSCrypt server: opens queries, hands them to a resolver, seals the answers.
//!
//! The resolver is any function from a DNS query to a DNS answer. Certificates are answered here, over
//! UDP and TCP, from the same key ring that opens the queries.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::rr::RecordType;
use rand_core::OsRng;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::clock::Clock;
use crate::listen::{self, Limits, Packet, Service, Sockets, Step, Stopped};
use crate::proto::Transport;
use crate::proto::dropped::{Counted, Counters, Dropped};
use crate::proto::message;
use crate::proto::server::{KeyCache, Keyring, Opened, open};

/// How long a handler may take. Clients have given up by then.
const HANDLER: Duration = Duration::from_secs(10);
/// Lifetime of certificate answers: refreshes are hourly anyway.
const CERT_TTL_S: u32 = 600;
/// Shared keys kept by each UDP loop: 96 bytes each.
const KEPT_KEYS: usize = 16384;

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
        let service = Serving {
            server: self,
            handler,
        };
        listen::run(Arc::new(service), sockets, limits).await
    }
}

struct Serving<H> {
    server: Server,
    handler: H,
}

/// What one loop keeps: its view of the key ring, and the shared keys that it agreed on.
struct Local {
    keyring: watch::Receiver<Arc<Keyring>>,
    cache: KeyCache,
}

impl<H, F> Service for Serving<H>
where
    H: Fn(Query) -> F + Send + Sync + 'static,
    F: Future<Output = Option<Vec<u8>>> + Send + 'static,
{
    type Local = Local;

    fn local(&self) -> Local {
        Local {
            keyring: self.server.keyring.clone(),
            cache: KeyCache::new(KEPT_KEYS),
        }
    }

    fn begin(self: &Arc<Self>, local: &mut Local, packet: Packet) -> Step {
        if local.keyring.has_changed().unwrap_or(false) {
            let keyring = Arc::clone(&local.keyring.borrow_and_update());
            local.cache.retain_only(&keyring);
        }
        let keyring = Arc::clone(&local.keyring.borrow());
        let now = (self.server.clock)();
        let (source, transport) = (packet.source, packet.transport);
        if !keyring.claims(&packet.bytes) {
            return match self.certificates(&keyring, &packet.bytes, transport, now) {
                Some(answer) => Step::Answer(answer),
                None => Step::Drop(Dropped::UnknownMagic),
            };
        }
        let opened = match open(&keyring, &mut local.cache, packet.bytes, transport, now) {
            Ok(opened) => opened,
            Err(reason) => return Step::Drop(reason),
        };
        self.server.counters.count(match transport {
            Transport::Udp => Counted::UdpQuery,
            Transport::Tcp => Counted::TcpQuery,
        });
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
        };
        let answer = timeout(HANDLER, (self.handler)(query)).await;
        let answer = answer.ok().flatten().ok_or(Dropped::Unanswered)?;
        let sealed = opened.reply.seal(answer, &opened.query, OsRng);
        if sealed.truncated {
            self.server.counters.count(Counted::Truncated);
        }
        Ok(sealed.packet)
    }

    /// The answer to a plain query for the certificates; `None` for any other packet.
    fn certificates(
        &self,
        keyring: &Keyring,
        packet: &[u8],
        transport: Transport,
        now: u64,
    ) -> Option<Vec<u8>> {
        let query = message::Query::read(packet).ok()?;
        if query.qtype != RecordType::TXT || !query.asks_for(&self.server.provider_name) {
            return None;
        }
        self.server.counters.count(Counted::CertQuery);
        Some(keyring.cert_answer(&query, packet.len(), transport, CERT_TTL_S, now))
    }
}
