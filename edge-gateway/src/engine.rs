//! The data plane: one thread per worker, and on it one loop in the order that `tunnel` documents:
//! network, TUN, time, then what the control side asks. A worker owns its TUN queue, its sockets and its
//! peers; it shares nothing and takes no lock. Control speaks to it by [`Command`]s over a bounded channel
//! and wakes it.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use netio::poll::{Interest, Ready};
use netio::tun::{FRAME_BYTES, Written};
use netio::udp::Sent;
use netio::{Poller, RecvBuffer, Tun, Udp, Waker};
use tokio::sync::{mpsc, oneshot};
use tunnel::edge::{Carried, EdgeEvent, PeerConfig, UpsertError};
use tunnel::offload::Accepts;
use tunnel::{EdgeTunnel, Psk, Traffic};

use crate::announce::Announcer;
use crate::exit::Fault;
use crate::leases::Admitted;

/// Runs or packets taken from one side before the other has its turn: one `UDP_SEGMENT` run's worth.
const BATCH: usize = 64;
/// Commands obeyed before packets have their turn: at a few microseconds each, a hundred thousand leases stream in
/// without a packet waiting for a millisecond.
const COMMANDS_PER_TURN: usize = 64;
/// Commands waiting for a worker; the sender waits when it is full.
const COMMAND_QUEUE: usize = 1_024;
/// A frame this long fills a call of its own; shorter ones wait for the next.
const WORTH_SENDING: usize = 16_384;
/// A lease further away than this is renewed long before.
const LONGEST_LEASE: Duration = Duration::from_secs(400 * 24 * 3600);
/// Counters of removed peers that nobody has fetched yet.
const MAX_ENDED: usize = 65_536;
/// First byte of a WireGuard handshake initiation (whitepaper section 5.4.2).
const INITIATION: u8 = 1;

const TUN: u32 = 0;
const V4: u32 = 1;
const V6: u32 = 2;

/// What one worker reads and writes.
pub struct WorkerIo {
    /// Its TUN queue.
    pub tun: Tun,
    /// Its IPv4 socket.
    pub v4: Option<Udp>,
    /// Its IPv6 socket.
    pub v6: Option<Udp>,
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
    /// Tell the counters of every peer.
    PeerTraffic(oneshot::Sender<Vec<([u8; 32], Traffic)>>),
    /// Answer no more handshake initiations, and tell the peers to move on.
    StopAdmitting,
    /// End the loop.
    Stop,
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
    /// Sessions that came to be where there was none.
    pub handshakes: u64,
    /// Bytes of inner packets from the routers.
    pub rx_bytes: u64,
    /// Bytes of inner packets to the routers.
    pub tx_bytes: u64,
    /// Drops in the tunnel and around it, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Leases that the tunnel would not take.
    pub not_admitted: u64,
    /// Peers removed since the totals were last told, with their last counters.
    pub ended: Vec<([u8; 32], Traffic)>,
}

impl Totals {
    /// Adds another worker's figures.
    pub fn add(&mut self, other: Self) {
        self.peers += other.peers;
        self.awake += other.awake;
        self.carried.active += other.carried.active;
        self.carried.movable += other.carried.movable;
        self.handshakes += other.handshakes;
        self.rx_bytes += other.rx_bytes;
        self.tx_bytes += other.tx_bytes;
        for (reason, count) in other.dropped {
            *self.dropped.entry(reason).or_default() += count;
        }
        self.not_admitted += other.not_admitted;
        self.ended.extend(other.ended);
    }
}

/// Drops at the edges of the tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct IoDropped {
    /// The TUN queue was full.
    tun_full: u64,
    /// The kernel did not take the packet.
    tun_refused: u64,
    /// The socket's buffer was full; counted in runs.
    udp_full: u64,
    /// The kernel did not send; counted in runs.
    udp_failed: u64,
    /// An initiation while the gateway drains.
    draining: u64,
}

impl IoDropped {
    /// Each reason's label with its count.
    fn iter(self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("tun_full", self.tun_full),
            ("tun_refused", self.tun_refused),
            ("udp_full", self.udp_full),
            ("udp_failed", self.udp_failed),
            ("draining", self.draining),
        ]
        .into_iter()
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

    /// Every peer's counters.
    pub async fn peer_traffic(&self) -> Result<Vec<([u8; 32], Traffic)>, Gone> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::PeerTraffic(reply)).await?;
        answer.await.map_err(|_| Gone)
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

/// Starts a worker's thread.
pub fn start(
    tunnel: EdgeTunnel,
    io: WorkerIo,
    announcer: Announcer,
    number: usize,
) -> Result<Started, Fault> {
    let (commands, inbox) = mpsc::channel(COMMAND_QUEUE);
    let engine = Engine::new(tunnel, io, announcer, inbox)
        .map_err(|error| Fault::io("set up the packet loop", &error))?;
    let waker = engine.io.poller.waker();
    let (ended, end) = oneshot::channel();
    let thread = std::thread::Builder::new()
        .name(format!("worker-{number}"))
        .spawn(move || {
            // Nobody waits for the end any more when control itself is gone.
            let _unheard = ended.send(engine.run());
        })
        .map_err(|error| Fault::io("start a worker thread", &error))?;
    let worker = Worker { commands, waker };
    Ok(Started {
        worker,
        end,
        thread,
    })
}

/// The tunnel's state beside what it reads and writes.
struct Engine {
    tunnel: EdgeTunnel,
    io: Io,
    inbox: mpsc::Receiver<Command>,
    totals: Totals,
    io_dropped: IoDropped,
    admission: Admission,
    announcer: Announcer,
}

struct Io {
    tun: Tun,
    v4: Option<Udp>,
    v6: Option<Udp>,
    poller: Poller,
    waker: Waker,
    runs: RecvBuffer,
    frame: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admission {
    Open,
    Closed,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ReadyIo {
    tun: bool,
    v4: bool,
    v6: bool,
    woken: bool,
}

#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Go,
    Stop,
}

impl Engine {
    fn new(
        tunnel: EdgeTunnel,
        io: WorkerIo,
        announcer: Announcer,
        inbox: mpsc::Receiver<Command>,
    ) -> io::Result<Self> {
        let poller = Poller::new()?;
        poller.add(&io.tun, TUN, Interest::Readable)?;
        for (socket, token) in [(&io.v4, V4), (&io.v6, V6)] {
            if let Some(socket) = socket {
                poller.add(socket, token, Interest::Readable)?;
            }
        }
        let mut tunnel = tunnel;
        let offloads = io.tun.offloads();
        tunnel.set_accepts(Accepts {
            tcp: offloads.tcp,
            udp: offloads.udp,
        });
        let io = Io {
            tun: io.tun,
            v4: io.v4,
            v6: io.v6,
            waker: poller.waker(),
            poller,
            runs: RecvBuffer::new(),
            frame: vec![0; FRAME_BYTES],
        };
        Ok(Self {
            tunnel,
            io,
            inbox,
            totals: Totals::default(),
            io_dropped: IoDropped::default(),
            admission: Admission::Open,
            announcer,
        })
    }

    fn run(mut self) -> Result<(), Fault> {
        loop {
            let deadline = self.tunnel.poll_timeout().map(|(at, _why)| at);
            let ready = self
                .io
                .wait(deadline)
                .map_err(|error| Fault::io("wait for packets", &error))?;
            let now = Instant::now();
            self.take_from_network(ready, now)
                .map_err(|error| Fault::io("receive from the tunnel's sockets", &error))?;
            if ready.tun {
                self.take_from_tun(now)
                    .map_err(|error| Fault::io("read the TUN device", &error))?;
            }
            if self
                .tunnel
                .poll_timeout()
                .is_some_and(|(at, _why)| at <= now)
            {
                self.tunnel.handle_timeout(now);
                self.transmit();
            }
            self.note_events();
            if ready.woken && self.obey(now) == Next::Stop {
                return Ok(());
            }
        }
    }

    fn take_from_network(&mut self, ready: ReadyIo, now: Instant) -> io::Result<()> {
        for (is_ready, family) in [(ready.v4, V4), (ready.v6, V6)] {
            if !is_ready {
                continue;
            }
            for _ in 0..BATCH {
                if self.take_run(family, now)? == Next::Stop {
                    break;
                }
                self.write()?;
                self.transmit();
            }
        }
        self.tunnel.flush_tun();
        self.write()
    }

    /// Takes one run of datagrams; stops when none is waiting.
    fn take_run(&mut self, family: u32, now: Instant) -> io::Result<Next> {
        let Io { v4, v6, runs, .. } = &mut self.io;
        let socket = if family == V4 { v4 } else { v6 };
        let Some(received) = socket
            .as_ref()
            .map(|socket| socket.recv(runs))
            .transpose()?
            .flatten()
        else {
            return Ok(Next::Stop);
        };
        for datagram in received.datagrams() {
            if self.admission == Admission::Closed && datagram.first() == Some(&INITIATION) {
                self.io_dropped.draining += 1;
                continue;
            }
            // An error is a drop, which the tunnel has counted.
            let _ = self
                .tunnel
                .handle_datagram(datagram, received.from, received.tos, now);
        }
        Ok(Next::Go)
    }

    /// Writes what the tunnel has for the internet.
    fn write(&mut self) -> io::Result<()> {
        while let Some(frame) = self.tunnel.poll_tun() {
            match self.io.tun.send(frame)? {
                Written::Yes => {}
                Written::Full => self.io_dropped.tun_full += 1,
                Written::Refused => self.io_dropped.tun_refused += 1,
            }
        }
        Ok(())
    }

    fn take_from_tun(&mut self, now: Instant) -> io::Result<()> {
        for _ in 0..BATCH {
            let Some(len) = self.io.tun.recv(&mut self.io.frame)? else {
                break;
            };
            let frame = self.io.frame.get(..len).unwrap_or_default();
            // An error is a drop, which the tunnel has counted.
            let _ = self.tunnel.handle_tun_frame(frame, now);
            if len >= WORTH_SENDING {
                self.transmit();
            }
        }
        self.transmit();
        Ok(())
    }

    fn transmit(&mut self) {
        while let Some(run) = self.tunnel.poll_transmit() {
            let Some(socket) = self.io.socket_to(run.to) else {
                self.io_dropped.udp_failed += 1;
                continue;
            };
            match socket.send_marked(run.to, run.payload, run.segment, run.tos) {
                Sent::Yes => {}
                Sent::Full => self.io_dropped.udp_full += 1,
                Sent::Failed(_) => self.io_dropped.udp_failed += 1,
            }
        }
    }

    fn note_events(&mut self) {
        while let Some(event) = self.tunnel.poll_event() {
            match event {
                EdgeEvent::Connected { .. } => self.totals.handshakes += 1,
                EdgeEvent::Asleep { .. } | EdgeEvent::Roamed { .. } | EdgeEvent::Expired { .. } => {
                }
                EdgeEvent::Carried { addresses } => self.announcer.carried(addresses),
                EdgeEvent::Left { addresses } => self.announcer.left(addresses),
            }
        }
    }

    /// Takes some of the commands that wait; packets come before the rest.
    fn obey(&mut self, now: Instant) -> Next {
        for _ in 0..COMMANDS_PER_TURN {
            match self.inbox.try_recv() {
                Ok(Command::Admit(admitted, lasts)) => self.admit(admitted, lasts, now),
                Ok(Command::Remove { device, wg_pub }) => self.remove(device, &wg_pub, now),
                Ok(Command::Route(Away { wg_pub, addresses })) => {
                    self.tunnel.route_elsewhere(&wg_pub, &addresses);
                }
                Ok(Command::Unroute(Away { wg_pub, addresses })) => {
                    self.tunnel.unroute_elsewhere(&wg_pub, &addresses);
                }
                Ok(Command::Totals(reply)) => {
                    // Who asked may have given up.
                    let _unheard = reply.send(self.tell_totals());
                }
                Ok(Command::PeerTraffic(reply)) => {
                    let peers = self.tunnel.peers(now);
                    // As above.
                    let _unheard =
                        reply.send(peers.map(|(id, stats)| (id, stats.traffic)).collect());
                }
                Ok(Command::StopAdmitting) => {
                    self.admission = Admission::Closed;
                    self.tunnel.drain(now);
                }
                Ok(Command::Stop) | Err(mpsc::error::TryRecvError::Disconnected) => {
                    return Next::Stop;
                }
                Err(mpsc::error::TryRecvError::Empty) => return Next::Go,
            }
        }
        // Nobody else would wake us for what is left; that it could not be written means that it is set already.
        let _woken = self.io.waker.wake();
        Next::Go
    }

    fn admit(&mut self, admitted: Admitted, lasts: Duration, now: Instant) {
        let config = PeerConfig {
            id: admitted.device,
            public: admitted.wg_pub,
            psk: admitted.psk.map(|psk| Psk::from(*psk.as_bytes())),
            allowed: admitted.addresses,
            not_after: now + lasts.min(LONGEST_LEASE),
        };
        if let Err(error) = self.tunnel.upsert_peer(config, now) {
            self.totals.not_admitted += 1;
            // The error's own words have the customer's address in them.
            let cause = match error {
                UpsertError::Full { .. } => "the table of peers is full",
                UpsertError::AddressTaken { .. } => "another device has its address",
                UpsertError::KeyTaken { .. } => "another device has its tunnel key",
            };
            tracing::warn!(cause, "a verified lease cannot be used");
        }
    }

    fn remove(&mut self, device: [u8; 32], wg_pub: &[u8; 32], now: Instant) {
        let last = self.tunnel.remove_peer(wg_pub, now);
        if let Some(last) = last.filter(|_| self.totals.ended.len() < MAX_ENDED) {
            self.totals.ended.push((device, last.traffic));
        }
    }

    fn tell_totals(&mut self) -> Totals {
        let ended = std::mem::take(&mut self.totals.ended);
        let inside = self
            .tunnel
            .dropped()
            .iter()
            .map(|(reason, count)| (reason.as_label(), count));
        let dropped = inside.chain(self.io_dropped.iter()).collect();
        let traffic = self.tunnel.traffic();
        Totals {
            rx_bytes: traffic.rx_bytes,
            tx_bytes: traffic.tx_bytes,
            peers: self.tunnel.peer_count(),
            awake: self.tunnel.awake_count(),
            carried: self.tunnel.carried(),
            dropped,
            ended,
            ..self.totals.clone()
        }
    }
}

impl Io {
    fn wait(&mut self, deadline: Option<Instant>) -> io::Result<ReadyIo> {
        let timeout = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let mut found = ReadyIo::default();
        for ready in self.poller.wait(timeout)? {
            match ready {
                Ready::Woken => found.woken = true,
                Ready::Descriptor { token: TUN, .. } => found.tun = true,
                Ready::Descriptor { token: V4, .. } => found.v4 = true,
                Ready::Descriptor { .. } => found.v6 = true,
            }
        }
        Ok(found)
    }

    fn socket_to(&self, to: SocketAddr) -> Option<&Udp> {
        if to.is_ipv4() {
            self.v4.as_ref()
        } else {
            self.v6.as_ref()
        }
    }
}
