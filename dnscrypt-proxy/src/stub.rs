//! The LAN's resolver: answers plain DNS from its cache, and asks the encrypted resolvers for the rest.
//!
//! It asks nobody in clear but servers of the network's own, for zones that the configuration says are theirs. When no resolver can be reached it answers with what it still has, or
//! with SERVFAIL and the reason. Identical questions in flight are asked once.

mod judged;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hickory_proto::op::OpCode;
use hickory_proto::rr::RecordType;
use rand_core::{OsRng, RngCore as _};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::cache::{Cache, Found};
use crate::listen::{self, Limits, Packet, Service, Sockets, Step, Stopped};
use crate::policy::{Policy, PolicyFigures};
use crate::proto::Transport;
use crate::proto::dropped::{Counted, Counters, Dropped};
use crate::proto::message::{self, CLASS_IN, ExtendedError, Fit, OUR_UDP_SIZE, Query, Response};
use crate::upstream::{ResolveError, Upstream};

/// What we let resolvers send us. The encrypted packet bounds it again.
const UPSTREAM_UDP_SIZE: u16 = 4096;
/// A client that waited this long gets the stale answer, if there is one (RFC 8767, section 5).
const STALE_AFTER: Duration = Duration::from_millis(1800);
/// After a failure, the same question fails at once for this long (RFC 9520), unless the upstream has changed.
const FAILURE_KEPT: Duration = Duration::from_secs(2);
/// And a stale answer is given at once for this long (RFC 8767, section 5: the failure recheck timer).
const RECHECK_AFTER: Duration = Duration::from_secs(30);
/// Failures that are no news any more are forgotten, and with them what was asked, no more often.
const SWEEP_EVERY_S: usize = 30;
/// Questions that may be asked upstream at the same time; more where more are let in.
const MAX_FLIGHTS: usize = 512;
const TCP_ROOM: usize = 65_535;
/// The part that one answer has in what answers take.
const SMOOTHING: usize = 8;

const RCODE_SERVFAIL: u16 = 2;
const RCODE_NOTIMP: u16 = 4;
const RCODE_REFUSED: u16 = 5;
const RCODE_BADVERS: u16 = 16;

/// How a stub works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StubConfig {
    /// The cache's bound; 0 keeps nothing.
    pub cache_bytes: usize,
    /// What is let in at the same time.
    pub limits: Limits,
}

impl Default for StubConfig {
    fn default() -> Self {
        Self {
            cache_bytes: 512 * 1024,
            limits: Limits::ROUTER,
        }
    }
}

/// What a stub did since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StubFigures {
    /// Queries that were understood.
    pub queries: usize,
    /// Of them, answered from the cache.
    pub cache_hits: usize,
    /// Of them, answered with stale data for want of better.
    pub stale: usize,
    /// Of them, joined to the same question that was already being asked.
    pub coalesced: usize,
    /// Questions asked upstream.
    pub asked: usize,
    /// Of them, asked of servers of the network's own.
    pub forwarded: usize,
    /// Of them, asked before anybody had to wait.
    pub prefetched: usize,
    /// Questions that no resolver answered.
    pub failed: usize,
    /// Answers kept at this moment.
    pub cached: usize,
    /// Bytes that they take, of the cache's bound.
    pub cached_bytes: usize,
    /// Microseconds that a resolver's answer took, the last ones most; 0 before the first.
    pub upstream_us: usize,
    /// Packets dropped, for all reasons.
    pub dropped: usize,
    /// What was answered or refused without a resolver's word.
    pub policy: PolicyFigures,
}

/// The stub. Share it by `Arc`.
pub struct Stub {
    upstream: Upstream,
    policy: Policy,
    config: StubConfig,
    started: Instant,
    // Both contended by queries that begin and flights that land, for one map operation each.
    cache: Mutex<Cache>,
    flights: Mutex<HashMap<Box<[u8]>, watch::Receiver<Flight>>>,
    counters: Counters,
    cache_hits: AtomicUsize,
    stale: AtomicUsize,
    coalesced: AtomicUsize,
    asked: AtomicUsize,
    forwarded: AtomicUsize,
    prefetched: AtomicUsize,
    failed: AtomicUsize,
    upstream_us: AtomicUsize,
    /// The policy's, when the cache was last empty.
    generation: AtomicUsize,
    next_sweep_s: AtomicUsize,
}

/// A question on its way. Failures, and answers that say that there is none, stay in the table for a while.
#[derive(Clone)]
enum Flight {
    InTheAir {
        since: Instant,
    },
    Landed {
        response: Arc<Response>,
        when: Instant,
    },
    /// How often the upstream had changed by then.
    Failed {
        when: Instant,
        changes: usize,
    },
}

impl Flight {
    /// Whether its end is no news any more, when news are good for so long.
    fn is_over(&self, kept: Duration, changes_now: usize) -> bool {
        match self {
            Self::InTheAir { .. } => false,
            Self::Landed { when, .. } => when.elapsed() >= kept,
            Self::Failed { when, changes } => when.elapsed() >= kept || *changes != changes_now,
        }
    }
}

impl Stub {
    /// Makes a stub that lets everything through; it listens once [`listen`](Self::listen) runs.
    #[must_use]
    pub fn new(upstream: Upstream, config: StubConfig) -> Arc<Self> {
        Self::with_policy(upstream, Policy::none(), config)
    }

    /// Makes a stub with a policy.
    #[must_use]
    pub fn with_policy(upstream: Upstream, policy: Policy, config: StubConfig) -> Arc<Self> {
        Arc::new(Self {
            generation: AtomicUsize::new(policy.generation()),
            upstream,
            policy,
            config,
            started: Instant::now(),
            cache: Mutex::new(Cache::new(config.cache_bytes)),
            flights: Mutex::default(),
            counters: Counters::default(),
            cache_hits: AtomicUsize::new(0),
            stale: AtomicUsize::new(0),
            coalesced: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            forwarded: AtomicUsize::new(0),
            prefetched: AtomicUsize::new(0),
            failed: AtomicUsize::new(0),
            upstream_us: AtomicUsize::new(0),
            next_sweep_s: AtomicUsize::new(SWEEP_EVERY_S),
        })
    }

    /// Answers on the caller's sockets until dropped.
    pub async fn listen(self: &Arc<Self>, sockets: Sockets) -> Stopped {
        listen::run(Arc::clone(self), sockets, self.config.limits).await
    }

    /// The resolvers behind it.
    #[must_use]
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// What it answers and refuses by itself.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// What happened to packets.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What it did so far.
    #[must_use]
    pub fn figures(&self) -> StubFigures {
        let read = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        let (cached, cached_bytes) = {
            let cache = self.cache();
            (cache.len(), cache.used_bytes())
        };
        StubFigures {
            queries: self.counters.get(Counted::UdpQuery) + self.counters.get(Counted::TcpQuery),
            cache_hits: read(&self.cache_hits),
            stale: read(&self.stale),
            coalesced: read(&self.coalesced),
            asked: read(&self.asked),
            forwarded: read(&self.forwarded),
            prefetched: read(&self.prefetched),
            failed: read(&self.failed),
            cached,
            cached_bytes,
            upstream_us: read(&self.upstream_us),
            dropped: self.counters.all_dropped().map(|(_, times)| times).sum(),
            policy: self.policy.figures(),
        }
    }

    /// Answers one message: for callers with a transport of their own.
    pub async fn answer(
        self: &Arc<Self>,
        bytes: &[u8],
        transport: Transport,
    ) -> Result<Vec<u8>, Dropped> {
        match self.begin_query(bytes, transport) {
            Step::Answer(answer) => Ok(answer),
            Step::Wait(answer) => answer.await,
            Step::Drop(reason) => Err(reason),
        }
    }

    fn begin_query(self: &Arc<Self>, bytes: &[u8], transport: Transport) -> Step {
        let query = match Query::read(bytes) {
            Ok(query) => query,
            Err(Dropped::Malformed) => {
                return message::form_error(bytes)
                    .map_or(Step::Drop(Dropped::Malformed), Step::Answer);
            }
            Err(reason) => return Step::Drop(reason),
        };
        self.counters.count(match transport {
            Transport::Udp => Counted::UdpQuery,
            Transport::Tcp => Counted::TcpQuery,
        });
        if let Some(rcode) = refusal(&query) {
            return Step::Answer(query.refuse(rcode, None));
        }
        self.follow_policy();
        self.sweep();
        let key = query.key();
        let found = self.cache().get(&key, self.now_s());
        match found {
            Found::Fresh(stored) => {
                self.cache_hits.fetch_add(1, Ordering::Relaxed);
                Step::Answer(self.finish(&query, &stored, None, transport))
            }
            Found::Ending(stored) => {
                self.cache_hits.fetch_add(1, Ordering::Relaxed);
                self.prefetch(&query);
                Step::Answer(self.finish(&query, &stored, None, transport))
            }
            Found::Stale(stored) if self.is_vain(&query) => {
                Step::Answer(self.give_stale(&query, &stored, transport))
            }
            Found::Stale(stored) => {
                let stub = Arc::clone(self);
                Step::Wait(Box::pin(async move {
                    Ok(stub.renew(&query, &stored, transport).await)
                }))
            }
            Found::Nothing => self.begin_unknown(query, &key, transport),
        }
    }

    /// The new answer if it comes in time, the stale one otherwise.
    async fn renew(self: &Arc<Self>, query: &Query, stale: &[u8], transport: Transport) -> Vec<u8> {
        match self.renewed(query).await {
            Some(response) => self.deliver(query, &response, transport),
            None => self.give_stale(query, stale, transport),
        }
    }

    /// A new answer in the place of a stale one. `None`: there is none in time.
    async fn renewed(self: &Arc<Self>, query: &Query) -> Option<Arc<Response>> {
        let asked = timeout(STALE_AFTER, self.ask(query)).await.ok().flatten();
        asked.filter(|response| response.rcode != RCODE_SERVFAIL || is_bogus(response))
    }

    fn give_stale(&self, query: &Query, stale: &[u8], transport: Transport) -> Vec<u8> {
        self.stale.fetch_add(1, Ordering::Relaxed);
        self.finish(query, stale, Some(ExtendedError::StaleAnswer), transport)
    }

    /// Whether nobody should wait for a better answer than a stale one: the last try failed lately, this one
    /// takes too long already, or no resolver is well.
    fn is_vain(&self, query: &Query) -> bool {
        let flight = self.flights().get(&query.key()).cloned();
        let flight = flight.map(|flight| flight.borrow().clone());
        match flight {
            Some(Flight::InTheAir { since }) if since.elapsed() >= STALE_AFTER => true,
            Some(Flight::Landed { response, .. }) if is_bogus(&response) => false,
            Some(ended @ (Flight::Landed { .. } | Flight::Failed { .. }))
                if !ended.is_over(RECHECK_AFTER, self.upstream.changes()) =>
            {
                true
            }
            Some(_) | None => !self.is_hopeful(query),
        }
    }

    /// The network's own servers stand as near as whoever asks.
    fn is_hopeful(&self, query: &Query) -> bool {
        self.policy.servers(query).is_some() || self.upstream.is_hopeful()
    }

    /// Asks for an answer that is wanted often, before it ends.
    fn prefetch(self: &Arc<Self>, query: &Query) {
        if self.is_hopeful(query) && self.join(query).is_some() {
            self.prefetched.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The response to a question, asked by whoever came first. `None`: no resolver answered.
    async fn ask(self: &Arc<Self>, query: &Query) -> Option<Arc<Response>> {
        let mut flight = self.join(query)?;
        let landed = flight
            .wait_for(|flight| !matches!(flight, Flight::InTheAir { .. }))
            .await;
        match landed.ok().as_deref() {
            Some(Flight::Landed { response, .. }) => Some(Arc::clone(response)),
            Some(Flight::InTheAir { .. } | Flight::Failed { .. }) | None => None,
        }
    }

    /// Names of lookups are in memory for no longer than they are of use.
    fn sweep(&self) {
        let now_s = usize::try_from(self.now_s()).unwrap_or(usize::MAX);
        if now_s < self.next_sweep_s.load(Ordering::Relaxed) {
            return;
        }
        let next_s = now_s.saturating_add(SWEEP_EVERY_S);
        self.next_sweep_s.store(next_s, Ordering::Relaxed);
        let changes = self.upstream.changes();
        let mut flights = self.flights();
        flights.retain(|_, flight| !flight.borrow().is_over(RECHECK_AFTER, changes));
    }

    /// Joins the flight of this question, or starts it. The flight belongs to no client: it lands, and
    /// fills the cache, even if all of them are gone. It ends within the upstream's timeouts.
    fn join(self: &Arc<Self>, query: &Query) -> Option<watch::Receiver<Flight>> {
        let key = query.key();
        let most = self.config.limits.in_flight.max(MAX_FLIGHTS);
        let mut flights = self.flights();
        if let Some(flight) = flights.get(&key) {
            let changes = self.upstream.changes();
            let is_over = flight.borrow().is_over(FAILURE_KEPT, changes);
            if !is_over {
                self.coalesced.fetch_add(1, Ordering::Relaxed);
                return Some(flight.clone());
            }
        }
        if flights.len() >= most {
            flights.retain(|_, flight| matches!(&*flight.borrow(), Flight::InTheAir { .. }));
        }
        if flights.len() >= most {
            self.counters.drop_packet(Dropped::Overloaded);
            return None;
        }
        let (sender, receiver) = watch::channel(Flight::InTheAir {
            since: Instant::now(),
        });
        flights.insert(key, receiver.clone());
        drop(flights);
        let (stub, query) = (Arc::clone(self), query.clone());
        tokio::spawn(async move { stub.fly(&query, &sender).await });
        Some(receiver)
    }

    async fn fly(&self, query: &Query, sender: &watch::Sender<Flight>) {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let id = u16::try_from(OsRng.next_u32() >> 16).unwrap_or_default();
        let asked = query.to_upstream(id, UPSTREAM_UDP_SIZE);
        let began = Instant::now();
        let generation = self.policy.generation();
        let outcome = match self.policy.servers(query) {
            Some(servers) => {
                self.forwarded.fetch_add(1, Ordering::Relaxed);
                self.upstream.ask_inside(servers, query, &asked).await
            }
            None => {
                let answer = self.upstream.resolve(&asked).await;
                if answer.is_ok() {
                    self.took(began.elapsed());
                }
                answer.and_then(|answer| {
                    Response::read(&answer, query).map_err(ResolveError::Unusable)
                })
            }
        };
        match outcome {
            Ok(response) => {
                let response = self.policy.judge(query, response).failing_briefly(query);
                self.keep(query, &response, generation);
                if response.rcode != RCODE_SERVFAIL {
                    self.flights().remove(&query.key());
                }
                sender.send_replace(Flight::Landed {
                    response: Arc::new(response),
                    when: Instant::now(),
                });
            }
            Err(error) => {
                if let ResolveError::Unusable(reason) = &error {
                    self.counters.drop_packet(*reason);
                }
                tracing::debug!(%error, "no resolver answered");
                self.fail(sender);
            }
        }
    }

    /// Two that land at once may lose one of them, which changes little.
    fn took(&self, time: Duration) {
        let time = usize::try_from(time.as_micros()).unwrap_or(usize::MAX);
        let before = self.upstream_us.load(Ordering::Relaxed);
        let smoothed = match before {
            0 => time,
            _ => before - before / SMOOTHING + time / SMOOTHING,
        };
        self.upstream_us.store(smoothed.max(1), Ordering::Relaxed);
    }

    fn fail(&self, sender: &watch::Sender<Flight>) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        sender.send_replace(Flight::Failed {
            when: Instant::now(),
            changes: self.upstream.changes(),
        });
    }

    fn deliver(&self, query: &Query, response: &Response, transport: Transport) -> Vec<u8> {
        self.finish(query, &response.stored, response.error, transport)
    }

    /// The stored answer as this client gets it.
    fn finish(
        &self,
        query: &Query,
        stored: &[u8],
        error: Option<ExtendedError>,
        transport: Transport,
    ) -> Vec<u8> {
        let room = match transport {
            Transport::Udp => query.udp_size().min(usize::from(OUR_UDP_SIZE)),
            Transport::Tcp => TCP_ROOM,
        };
        let mut answer = query.adopt(stored, error);
        if error == Some(ExtendedError::StaleAnswer) {
            // Its proof has ended, too.
            message::unmark_proven(&mut answer);
        }
        let (answer, fit) = query.fit(answer, room);
        if fit == Fit::Truncated {
            self.counters.count(Counted::Truncated);
        }
        answer
    }

    fn now_s(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<Box<[u8]>, watch::Receiver<Flight>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service for Stub {
    type Local = ();

    fn local(&self) {}

    fn begin(self: &Arc<Self>, (): &mut (), packet: Packet<'_>) -> Step {
        self.begin_query(packet.bytes, packet.transport)
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }
}

/// Whether a resolver's validation refused what there is, which no stale answer may stand in for.
fn is_bogus(response: &Response) -> bool {
    response.error == Some(ExtendedError::DnssecBogus)
}

/// The response code for what a stub does not do.
fn refusal(query: &Query) -> Option<u16> {
    if query.opcode != OpCode::Query {
        return Some(RCODE_NOTIMP);
    }
    if query.edns.is_some_and(|edns| edns.version > 0) {
        return Some(RCODE_BADVERS);
    }
    if query.qclass != CLASS_IN || matches!(query.qtype, RecordType::AXFR | RecordType::IXFR) {
        return Some(RCODE_REFUSED);
    }
    None
}

#[cfg(test)]
mod tests;
