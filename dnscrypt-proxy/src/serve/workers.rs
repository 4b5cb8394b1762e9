//! Threads, one for each processor. A worker owns its sockets and connections (the kernel spreads clients over those
//! that share a port), its keys and its answers, and takes no lock. It never waits for a resolver: what it has no answer
//! to goes to a task of the run time over a bounded channel, and comes back over another one.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use netio::poll::{Interest, Ready};
use netio::tcp::Listener;
use netio::udp::{Batch, MAX_BATCH};
use netio::{Poller, Udp, Waker};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::clerk::{Ask, Clerk, Now, Place, Taken, Way};
use super::connections::{Arrived, Connections, SILENCE};
use super::desk::Bounds;
use super::forward::Forwarder;
use super::relay::{self, Relayed, Relaying};
use super::{Duties, HANDLER, Heard, Query, Rates, Server};
use crate::clock::Clock;
use crate::listen::Limits;
use crate::proto::MAX_QUERY;
use crate::proto::dropped::{Counted, Counters, Dropped};
use crate::proto::relay::PREFIX;

/// After an error of a socket itself, so that a broken one does not spin.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Who has had something to do twice within this looks again before it sleeps: waking a processor that sleeps costs the one who
/// wakes it, mostly the client's or the network's, more than most of what is to be done.
const AWAKE: Duration = Duration::from_micros(50);

/// Sockets of one worker.
#[derive(Debug, Default)]
pub struct WorkerSockets {
    /// Made with [`Offload::Sending`](netio::udp::Offload).
    pub udp: Vec<Udp>,
    /// Made by [`listen`](Self::listen).
    pub tcp: Vec<Listener>,
}

impl WorkerSockets {
    /// Listens for TCP on an address that all workers share.
    ///
    /// # Errors
    /// When the address is not there, somebody else's, or needs a right.
    pub fn listen(&mut self, address: SocketAddr) -> io::Result<()> {
        self.tcp.push(Listener::bind(address, SILENCE)?);
        Ok(())
    }
}

/// A resolver's answer on its way back.
type Answer = (u64, Heard);

/// A question on its way there, which is asked for as long as the worker has the other end of its leash.
type Leashed = (Ask, oneshot::Receiver<()>);

/// Workers that run; dropping it ends them.
pub(super) struct Workers {
    stop: Arc<AtomicBool>,
    wakers: Vec<Waker>,
    threads: Vec<JoinHandle<()>>,
    ends: Vec<oneshot::Receiver<()>>,
    /// Owns the tasks that ask for the workers.
    asking: JoinSet<()>,
}

impl Workers {
    /// Starts a worker for each set of sockets, and a relay behind them.
    pub(super) fn start<H, F>(
        server: &Server,
        sockets: Vec<WorkerSockets>,
        duties: &Duties,
        (handler, relay): (&Arc<H>, Option<Relaying>),
    ) -> io::Result<Self>
    where
        H: Fn(Query) -> F + Send + Sync + 'static,
        F: Future<Output = Heard> + Send + 'static,
    {
        let mut workers = Self {
            stop: Arc::default(),
            wakers: Vec::new(),
            threads: Vec::new(),
            ends: Vec::new(),
            asking: JoinSet::new(),
        };
        let count = sockets.len().max(1);
        let bounds = Bounds {
            kept_bytes: duties.kept_bytes / count,
            waiting: server.limits.in_flight,
            ahead: duties.ahead,
        };
        let rates = Rates::of(server).map(Arc::new);
        let mut desk = relay::Desk::open(relay, &server.homes, sockets.first())?;
        for (number, sockets) in sockets.into_iter().enumerate() {
            let poller = Poller::new()?;
            let WorkerSockets { udp, tcp } = sockets;
            for (number, socket) in (0..).zip(&udp) {
                poller.add(socket, number, Interest::Readable)?;
            }
            let bounded = (share(server.limits, count), server.homes.clone());
            let connections = Connections::new(tcp, bounded, &poller)?.before(duties.tls.clone());
            let waker = poller.waker();
            let (door, relayed) = relay::door(desk.as_mut(), &waker, server.limits);
            let (asks, answers) = workers.ask_by(handler, &waker, bounds.on_their_way());
            let (ended, end) = oneshot::channel();
            let (server, stop) = (server.clone(), Arc::clone(&workers.stop));
            let rates = rates.clone();
            let forwarder = duties.forwarding.as_ref().map(Forwarder::new);
            let thread = std::thread::Builder::new().name(format!("dns-{number}"));
            let thread = thread.spawn(move || {
                Worker {
                    outboxes: udp.iter().map(|_| Vec::new()).collect(),
                    sockets: udp,
                    connections,
                    poller,
                    counters: Arc::clone(&server.counters),
                    clock: Arc::clone(&server.clock),
                    clerk: Clerk::new(server, bounds, rates).before(door),
                    relayed,
                    forwarder,
                    leashes: HashMap::new(),
                    asks,
                    answers,
                    began: Instant::now(),
                    stop,
                }
                .run();
                drop(ended);
            })?;
            workers.wakers.push(waker);
            workers.threads.push(thread);
            workers.ends.push(end);
        }
        if let Some(desk) = desk {
            workers.asking.spawn(desk.serve());
        }
        Ok(workers)
    }

    /// Has a task ask for one worker, over a channel there and one back.
    fn ask_by<H, F>(
        &mut self,
        handler: &Arc<H>,
        waker: &Waker,
        on_their_way: usize,
    ) -> (mpsc::Sender<Leashed>, Receiver<Answer>)
    where
        H: Fn(Query) -> F + Send + Sync + 'static,
        F: Future<Output = Heard> + Send + 'static,
    {
        // Every question on its way has a place in both, so that neither is ever full.
        let (asks, asked) = mpsc::channel(on_their_way.max(1));
        let (answers, answered) = sync_channel(on_their_way.max(1));
        let back = Back {
            answers,
            waker: waker.clone(),
        };
        self.asking.spawn(ask_all(asked, back, Arc::clone(handler)));
        (asks, answered)
    }

    /// Ends when a worker has ended, which it never should.
    pub(super) async fn ended(&mut self) {
        let mut waiting = JoinSet::new();
        for end in self.ends.drain(..) {
            waiting.spawn(end);
        }
        if waiting.is_empty() {
            std::future::pending().await
        } else {
            waiting.join_next().await;
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for waker in &self.wakers {
            // Without its waker a worker sees it with the next packet.
            let _woken = waker.wake();
        }
        for thread in self.threads.drain(..) {
            // One that panicked has told why already.
            let _ended = thread.join();
        }
    }
}

/// Where answers go.
#[derive(Clone)]
struct Back {
    answers: SyncSender<Answer>,
    waker: Waker,
}

/// A number whose answer is sent whatever becomes of the task that asks.
struct Promise {
    number: u64,
    answer: Heard,
    back: Back,
}

impl Promise {
    fn keep(mut self, answer: Heard) {
        self.answer = answer;
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        let answer = std::mem::replace(&mut self.answer, Heard::Silence);
        // Neither can fail but for a worker that has ended.
        let _gone = self.back.answers.try_send((self.number, answer));
        let _gone = self.back.waker.wake();
    }
}

/// Asks what one worker wants to know, until the worker is gone.
async fn ask_all<H, F>(mut asked: mpsc::Receiver<Leashed>, back: Back, handler: Arc<H>)
where
    H: Fn(Query) -> F + Send + Sync + 'static,
    F: Future<Output = Heard> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    while let Some((Ask { number, query, .. }, ended)) = asked.recv().await {
        while tasks.try_join_next().is_some() {}
        let promise = Promise {
            number,
            answer: Heard::Silence,
            back: back.clone(),
        };
        let answer = timeout(HANDLER, handler(query));
        tasks.spawn(async move {
            promise.keep(tokio::select! {
                biased;
                _ = ended => Heard::Silence,
                answer = answer => answer.unwrap_or(Heard::Silence),
            });
        });
    }
}

/// Whether what comes, comes so fast that it is better waited for awake.
#[derive(Debug, Default)]
struct Pulse {
    last: Option<Instant>,
    is_fast: bool,
}

impl Pulse {
    fn beat(&mut self, now: Instant) {
        let last = self.last.replace(now);
        self.is_fast = last.is_some_and(|last| now.saturating_duration_since(last) < AWAKE);
    }

    fn is_awake(&self, now: Instant) -> bool {
        let is_recent = |last: Instant| now.saturating_duration_since(last) < AWAKE;
        self.is_fast && self.last.is_some_and(is_recent)
    }
}

/// What one of several workers lets in: clients are spread over them.
fn share(limits: Limits, workers: usize) -> Limits {
    Limits {
        tcp_connections: limits.tcp_connections.div_ceil(workers),
        ..limits
    }
}

struct Worker {
    sockets: Vec<Udp>,
    /// What goes out by each socket at the end of a turn.
    outboxes: Vec<Vec<(SocketAddr, Vec<u8>)>>,
    connections: Connections,
    poller: Poller,
    counters: Arc<Counters>,
    clock: Clock,
    clerk: Clerk,
    relayed: Option<Receiver<Relayed>>,
    forwarder: Option<Forwarder>,
    asks: mpsc::Sender<Leashed>,
    /// Of what was asked in another way than by the forwarder.
    leashes: HashMap<u64, oneshot::Sender<()>>,
    answers: Receiver<Answer>,
    began: Instant,
    stop: Arc<AtomicBool>,
}

impl Worker {
    fn run(mut self) {
        // One byte more than the longest query, and what goes before it to a relay: what fills it is too long.
        let mut batch = Batch::new(PREFIX + MAX_QUERY + 1);
        let mut ready = Vec::new();
        if let Some(forwarder) = &mut self.forwarder {
            forwarder.flush(&self.poller, 0);
        }
        let mut pulse = Pulse::default();
        while !self.stop.load(Ordering::Relaxed) {
            let is_awake = pulse.is_awake(Instant::now());
            let patience = self.patience();
            let wait = if is_awake {
                Some(Duration::ZERO)
            } else {
                patience
            };
            let mut has_come = false;
            match self.poller.wait(wait) {
                Ok(events) => ready.extend(events.filter_map(|event| {
                    has_come = true;
                    match event {
                        Ready::Descriptor { token, .. } => Some(token),
                        Ready::Woken => None,
                    }
                })),
                Err(error) => {
                    tracing::error!(%error, "a DNSCrypt worker cannot wait for packets");
                    return;
                }
            }
            if has_come {
                pulse.beat(Instant::now());
            } else if is_awake && patience != Some(Duration::ZERO) {
                // Others that have something to do on this processor go first.
                std::thread::yield_now();
                continue;
            }
            self.turn(&mut batch, &ready);
            ready.clear();
        }
    }

    /// One turn: answers that came back, what is known, then strangers for as long as they may.
    fn turn(&mut self, batch: &mut Batch, ready: &[u32]) {
        let began = Instant::now();
        let now = Now {
            unix_s: (self.clock)(),
            uptime_s: self.uptime(began).as_secs(),
            moment_us: self.clerk.moment_us(began),
            uptime_ms: millis(self.uptime(began)),
        };
        let mut is_busy = self.take_answers(now);
        self.take_relayed(now);
        for token in ready {
            is_busy |= match (&mut self.forwarder, self.sockets.get(*token as usize)) {
                (_, Some(_)) => self.receive(*token as usize, batch, now),
                (Some(forwarder), _) if Forwarder::has(*token) => {
                    forwarder.receive(*token, now.uptime_ms);
                    true
                }
                _ => self.serve_connections(Some(*token), now),
            };
        }
        self.hear_upstream(now);
        self.clerk.handle_timeout(now);
        is_busy |= self.serve_connections(None, now);
        self.hand_out(now);
        self.clerk.begin_strangers(if is_busy {
            began.elapsed()
        } else {
            Duration::ZERO
        });
        let mut last = Instant::now();
        while self.clerk.serve_stranger(now) {
            let done = Instant::now();
            self.clerk.spent(done.saturating_duration_since(last));
            last = done;
        }
        self.hand_out(now);
        let at = (&self.poller, &*self.counters, now.uptime_s);
        self.connections.sweep(at);
    }

    /// How long nothing has to be done unless something comes.
    fn patience(&self) -> Option<Duration> {
        if !self.clerk.is_idle() {
            return Some(Duration::ZERO);
        }
        let forwarder = self.forwarder.as_ref().and_then(Forwarder::poll_timeout);
        let due_ms = [forwarder, self.clerk.poll_timeout()].into_iter().flatten();
        let due_ms = due_ms.min();
        let now_ms = millis(self.uptime(Instant::now()));
        let due = due_ms.map(|due_ms| Duration::from_millis(due_ms.saturating_sub(now_ms)));
        let first = [self.connections.patience(), due].into_iter().flatten();
        first.min()
    }

    /// What the resolvers said that this worker asks by itself.
    fn hear_upstream(&mut self, now: Now) {
        let Some(forwarder) = &mut self.forwarder else {
            return;
        };
        forwarder.handle_timeout(now.uptime_ms);
        for (number, answer) in forwarder.answers() {
            self.clerk.answered(number, answer, now);
        }
    }

    fn uptime(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }

    /// Answers that came back; whether there were any.
    fn take_answers(&mut self, now: Now) -> bool {
        let mut came = 0;
        for (number, answer) in self.answers.try_iter().take(MAX_BATCH) {
            self.leashes.remove(&number);
            self.clerk.answered(number, answer, now);
            came += 1;
        }
        if came == MAX_BATCH {
            // The next wait would not be told of what is left: a waker reports many calls once.
            let _woken = self.poller.waker().wake();
        }
        came > 0
    }

    /// Answers of other resolvers, for connections; those for datagrams do not come by here.
    fn take_relayed(&mut self, now: Now) {
        let at = (&self.poller, &*self.counters, now.uptime_s);
        for (connection, answer) in self.relayed.iter().flat_map(Receiver::try_iter) {
            match answer {
                Some(answer) => self.connections.answer(connection, &answer, at),
                None => self.connections.close(connection),
            }
        }
    }

    /// A socket's datagrams; whether there was one of somebody known.
    fn receive(&mut self, number: usize, batch: &mut Batch, now: Now) -> bool {
        let Some(socket) = self.sockets.get(number) else {
            return false;
        };
        if let Err(error) = socket.recv_batch(batch) {
            tracing::debug!(%error, "udp receive failed");
            std::thread::sleep(ERROR_PAUSE);
            return false;
        }
        let mut is_busy = false;
        for (peer, bytes) in batch.iter() {
            let way = Way::Udp(number);
            is_busy |= self.clerk.take(Place { way, peer }, bytes, now) == Taken::Done;
        }
        is_busy
    }

    /// Queries of the connections under a token, or of those that sent more than one; likewise.
    fn serve_connections(&mut self, token: Option<u32>, now: Now) -> bool {
        let mut arrived = Vec::new();
        match token {
            Some(token) => {
                let at = (&self.poller, &*self.counters, now.uptime_s);
                self.connections.ready(token, at, &mut arrived);
            }
            None => self.connections.take_next(&mut arrived),
        }
        let mut is_busy = false;
        for Arrived { id, source, packet } in arrived {
            let place = Place {
                way: Way::Tcp(id),
                peer: source,
            };
            is_busy |= self.clerk.take(place, &packet, now) == Taken::Done;
        }
        is_busy
    }

    /// Sends what the clerk has answered, and asks what it wants to know.
    fn hand_out(&mut self, now: Now) {
        let mut asks = std::mem::take(&mut self.clerk.out.asks);
        if let Some(forwarder) = &mut self.forwarder {
            let own = |ask| forwarder.ask(ask, now.uptime_ms).err();
            asks = asks.into_iter().filter_map(own).collect();
            asks.extend(forwarder.elsewhere());
            forwarder.flush(&self.poller, now.uptime_ms);
        }
        for ask in asks {
            let (leash, ended) = oneshot::channel();
            self.leashes.insert(ask.number, leash);
            // There is room for all; without the other end the server is ending.
            let _ending = self.asks.try_send((ask, ended));
        }
        for number in self.clerk.out.ended.drain(..) {
            self.leashes.remove(&number);
            if let Some(forwarder) = &mut self.forwarder {
                forwarder.give_up(number);
            }
        }
        let at = (&self.poller, &*self.counters, now.uptime_s);
        for (place, packet) in self.clerk.out.packets.drain(..) {
            match place.way {
                Way::Udp(socket) => {
                    if let Some(outbox) = self.outboxes.get_mut(socket) {
                        outbox.push((place.peer, packet));
                    }
                }
                Way::Tcp(id) => self.connections.answer(id, &packet, at),
            }
        }
        for id in self.clerk.out.refused.drain(..) {
            self.connections.close(id);
        }
        for (socket, outbox) in self.sockets.iter().zip(&mut self.outboxes) {
            if outbox.is_empty() {
                continue;
            }
            let sent = socket.send_batch(outbox);
            self.counters.count_many(Counted::Answer, sent);
            for _ in sent..outbox.len() {
                self.counters.drop_packet(Dropped::SendFailed);
            }
            outbox.clear();
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
