//! The data plane: one thread per worker, and on each the loop of `worker`. A worker owns its TUN queue, its sockets
//! and its peers; it takes no lock. Control speaks to it by [`Command`]s over a bounded channel and wakes it; what lands
//! at the wrong worker goes by `handover`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use netio::{Poller, Tun, Waker};
use tokio::sync::{mpsc, oneshot};
use tunnel::edge::Carried;
use tunnel::{EdgeTunnel, Handshakes, Traffic};

use crate::announce::Announcer;
use crate::exit::Fault;
use crate::leases::Admitted;
use crate::sampling::{Networks, Tally};

mod books;
mod budget;
mod handover;
pub(crate) mod lanes;
mod worker;

pub use books::Books;
use budget::Rush;
use handover::Post;
pub(crate) use lanes::Lanes;
use worker::Engine;

/// Commands waiting for a worker; the sender waits when it is full.
const COMMAND_QUEUE: usize = 1_024;

/// What one worker reads and writes.
pub struct WorkerIo {
    /// Its TUN queue.
    pub tun: Tun,
    /// Its IPv4 sockets.
    pub v4: Option<Lanes>,
    /// Its IPv6 sockets.
    pub v6: Option<Lanes>,
    /// By what the packets that it draws are counted; none where it draws none.
    pub networks: Option<Arc<Networks>>,
}

/// A peer of another worker.
#[derive(Debug)]
pub struct Away {
    /// Its tunnel key, which says whose it is.
    pub wg_pub: [u8; 32],
    /// Its addresses.
    pub addresses: Box<[IpNet]>,
}

/// What control asks of a worker.
#[derive(Debug)]
pub enum Command {
    /// Let this peer in, or change its terms, for this long.
    Admit(Admitted, Duration),
    /// Forget this peer at once.
    Remove {
        /// The device.
        device: [u8; 32],
        /// Its tunnel key.
        wg_pub: [u8; 32],
    },
    /// These addresses are another worker's from now on.
    Route(Away),
    /// They are no longer.
    Unroute(Away),
    /// Tell the totals, and hand over the counters of peers that are gone.
    Totals(oneshot::Sender<Totals>),
    /// Tell the counters of some peers, from this place of the table on.
    PeerTraffic(u32, oneshot::Sender<PeerTraffic>),
    /// Answer no more handshake initiations, and tell the peers to move on.
    StopAdmitting,
    /// End the loop.
    Stop,
}

/// The counters of some of a worker's peers.
#[derive(Debug)]
pub struct PeerTraffic {
    peers: Vec<([u8; 32], Traffic)>,
    /// The place of the table to go on from; none behind the last.
    next: Option<u32>,
}

/// A worker's figures since it started.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Leased peers.
    pub peers: usize,
    /// Peers with a session or a handshake.
    pub awake: usize,
    /// Peers whose packets come and go by this gateway.
    pub carried: Carried,
    /// Handshakes that came to a session, renewals too.
    pub handshakes: Handshakes,
    /// Bytes of inner packets from the routers.
    pub rx_bytes: u64,
    /// Bytes of inner packets to the routers.
    pub tx_bytes: u64,
    /// Packets from the routers.
    pub rx_packets: u64,
    /// Packets to the routers.
    pub tx_packets: u64,
    /// What the TUN device does not count as the leases do.
    pub books: Books,
    /// Frames and datagrams that came here and were handed to the worker whose they are.
    pub handed_over: u64,
    /// Drops in the tunnel and around it, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// What was drawn since the totals were last told.
    pub tally: Tally,
    /// Leases that the tunnel would not take.
    pub not_admitted: u64,
    /// Peers removed since the totals were last told, with their last counters.
    pub ended: Vec<([u8; 32], Traffic)>,
    /// The counters of those for which there was no room in that list.
    pub ended_others: Traffic,
}

impl Totals {
    /// Adds another worker's figures.
    pub fn add(&mut self, other: Self) {
        self.peers += other.peers;
        self.awake += other.awake;
        self.carried.active += other.carried.active;
        self.carried.movable += other.carried.movable;
        self.handshakes.add(other.handshakes);
        self.rx_bytes += other.rx_bytes;
        self.tx_bytes += other.tx_bytes;
        self.rx_packets += other.rx_packets;
        self.tx_packets += other.tx_packets;
        self.books.add(other.books);
        self.handed_over += other.handed_over;
        for (reason, count) in other.dropped {
            *self.dropped.entry(reason).or_default() += count;
        }
        self.not_admitted += other.not_admitted;
        self.tally.add(other.tally);
        self.ended.extend(other.ended);
        self.ended_others = self.ended_others.plus(other.ended_others);
    }
}

/// Control's end of a worker.
#[derive(Clone, Debug)]
pub struct Worker {
    commands: mpsc::Sender<Command>,
    waker: Waker,
}

/// The worker's thread has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl Worker {
    /// Hands a command over, waiting while the queue is full.
    pub async fn send(&self, command: Command) -> Result<(), Gone> {
        self.commands.send(command).await.map_err(|_| Gone)?;
        self.waker.wake().map_err(|_| Gone)
    }

    /// The worker's totals.
    pub async fn totals(&self) -> Result<Totals, Gone> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Totals(reply)).await?;
        answer.await.map_err(|_| Gone)
    }

    /// The counters of every peer for which anything has passed, told in parts, between which packets have their turn.
    pub async fn peer_traffic(&self) -> Result<Vec<([u8; 32], Traffic)>, Gone> {
        let mut all = Vec::new();
        let mut next = Some(0);
        while let Some(from) = next {
            let (reply, answer) = oneshot::channel();
            self.send(Command::PeerTraffic(from, reply)).await?;
            let part = answer.await.map_err(|_| Gone)?;
            all.extend(part.peers);
            next = part.next;
        }
        Ok(all)
    }
}

/// A worker just started.
pub struct Started {
    /// Control's end.
    pub worker: Worker,
    /// Tells how the loop ended.
    pub end: oneshot::Receiver<Result<(), Fault>>,
    /// When it has ended, device and sockets are closed.
    pub thread: JoinHandle<()>,
}

/// Starts a thread for each worker.
pub fn start(
    workers: Vec<(EdgeTunnel, WorkerIo)>,
    announcer: &Announcer,
) -> Result<Vec<Started>, Fault> {
    let polling = |error| Fault::io("wait for packets", &error);
    let pollers: Vec<Poller> = workers
        .iter()
        .map(|_| Poller::new().map_err(polling))
        .collect::<Result<_, _>>()?;
    let posts = Post::offices(pollers.iter().map(Poller::waker));
    let rush = Rush::none(Instant::now());
    let parts = workers.into_iter().zip(pollers).zip(posts).enumerate();
    parts
        .map(|(number, (((tunnel, io), poller), post))| {
            let waker = poller.waker();
            let (commands, inbox) = mpsc::channel(COMMAND_QUEUE);
            let named = announcer.of_worker(u8::try_from(number).unwrap_or(u8::MAX));
            let control = (inbox, named);
            let engine = Engine::new(tunnel, io, poller, control, (post, rush.clone()))
                .map_err(|error| Fault::io("set up the packet loop", &error))?;
            start_one(number, engine, Worker { commands, waker })
        })
        .collect()
}

fn start_one(number: usize, engine: Engine, worker: Worker) -> Result<Started, Fault> {
    let (ended, end) = oneshot::channel();
    let thread = std::thread::Builder::new()
        .name(format!("worker-{number}"))
        .spawn(move || {
            // Nobody waits for the end any more when control itself is gone.
            let _unheard = ended.send(engine.run());
        })
        .map_err(|error| Fault::io("start a worker thread", &error))?;
    Ok(Started {
        worker,
        end,
        thread,
    })
}
