//! One worker's loop: packets from the network, packets from the TUN queue, what other workers hand over, handshakes as
//! far as they leave packets their time, timers, then some of what control asks.

mod orders;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use netio::poll::{Interest, Ready};
use netio::tun::{FRAME_BYTES, Written};
use netio::udp::Sent;
use netio::{Poller, RecvBuffer, Tun, Waker};
use tokio::sync::mpsc;
use tunnel::edge::{EdgeEvent, Taken};
use tunnel::offload::{Accepts, VNET_BYTES};
use tunnel::{EdgeTunnel, Transmit};

use super::budget::{Budget, Rush, Worth};
use super::handover::{Kind, Letter, Post};
use super::lanes::{INITIATION, Lanes};
use super::{Command, Totals, WorkerIo};
use crate::announce::Announcer;
use crate::exit::Fault;
use crate::sampling::Networks;

/// Runs or packets taken from one side before the other has its turn: one `UDP_SEGMENT` run's worth.
const BATCH: usize = 64;
const TUN: u32 = 0;
const DATA_V4: u32 = 1;
const DATA_V6: u32 = 2;
const HANDSHAKES_V4: u32 = 3;
const HANDSHAKES_V6: u32 = 4;

/// Drops at the edges of the tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct IoDropped {
    /// The TUN queue was full.
    tun_full: u64,
    /// The kernel did not take the packet.
    tun_refused: u64,
    /// Bytes of frames that were not written for these two reasons; no reason of its own.
    tun_bytes: u64,
    /// The socket's buffer was full; counted in runs.
    udp_full: u64,
    /// The kernel did not send; counted in runs.
    udp_failed: u64,
    /// An initiation while the gateway drains.
    draining: u64,
    /// An initiation among packets, for which there was no time.
    hidden_handshake: u64,
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
            ("hidden_handshake", self.hidden_handshake),
        ]
        .into_iter()
    }
}

/// The tunnel's state beside what it reads and writes.
pub(super) struct Engine {
    tunnel: EdgeTunnel,
    io: Io,
    inbox: mpsc::Receiver<Command>,
    totals: Totals,
    io_dropped: IoDropped,
    admission: Admission,
    announcer: Announcer,
    post: Post,
    budget: Budget,
    networks: Option<Arc<Networks>>,
}

struct Io {
    tun: Tun,
    v4: Option<Lanes>,
    v6: Option<Lanes>,
    poller: Poller,
    waker: Waker,
    runs: RecvBuffer,
    frame: Vec<u8>,
    /// Until then nobody looks at the handshakes' lanes.
    resting: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admission {
    Open,
    Closed,
}

/// What may be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ReadyIo {
    tun: bool,
    data: [bool; 2],
    handshakes: [bool; 2],
    woken: bool,
}

#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Go,
    Stop,
}

/// Whether all packets that waited have been taken.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    Drained,
    More,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Engine {
    pub(super) fn new(
        mut tunnel: EdgeTunnel,
        io: WorkerIo,
        poller: Poller,
        (inbox, announcer): (mpsc::Receiver<Command>, Announcer),
        (post, rush): (Post, Rush),
    ) -> io::Result<Self> {
        poller.add(&io.tun, TUN, Interest::Readable)?;
        for (lanes, data) in [(&io.v4, DATA_V4), (&io.v6, DATA_V6)] {
            if let Some(lanes) = lanes {
                poller.add(&lanes.data, data, Interest::Readable)?;
            }
        }
        let offloads = io.tun.offloads();
        tunnel.set_accepts(Accepts {
            tcp: offloads.tcp,
            udp: offloads.udp,
        });
        let networks = io.networks;
        let io = Io {
            tun: io.tun,
            v4: io.v4,
            v6: io.v6,
            waker: poller.waker(),
            poller,
            runs: RecvBuffer::new(),
            frame: vec![0; FRAME_BYTES],
            resting: None,
        };
        io.watch_handshakes()?;
        Ok(Self {
            tunnel,
            io,
            inbox,
            totals: Totals::default(),
            io_dropped: IoDropped::default(),
            admission: Admission::Open,
            announcer,
            post,
            budget: Budget::new(rush, Instant::now()),
            networks,
        })
    }

    pub(super) fn run(mut self) -> Result<(), Fault> {
        loop {
            let deadline = self.tunnel.poll_timeout().map(|(at, _why)| at);
            let deadline = deadline
                .into_iter()
                .chain(self.announcer.poll_timeout())
                .min();
            let ready = self
                .io
                .wait(deadline)
                .map_err(|error| Fault::io("wait for packets", &error))?;
            let now = Instant::now();
            self.take_packets(ready, now)?;
            if self
                .tunnel
                .poll_timeout()
                .is_some_and(|(at, _why)| at <= now)
            {
                self.tunnel.handle_timeout(now);
                self.transmit();
            }
            self.note_events(now);
            self.count_drawn();
            if ready.woken && self.obey(now) == Next::Stop {
                return Ok(());
            }
        }
    }

    fn take_packets(&mut self, ready: ReadyIo, now: Instant) -> Result<(), Fault> {
        let receiving = |error| Fault::io("receive from the tunnel's sockets", &error);
        let reading = |error| Fault::io("read the TUN device", &error);
        let network = self.take_from_network(ready, now).map_err(receiving)?;
        let mut load = network;
        if ready.tun && self.take_from_tun(now).map_err(reading)? == Load::More {
            load = Load::More;
        }
        self.budget.note_packets(now, Instant::now());
        if ready.woken {
            self.take_letters(now).map_err(reading)?;
        }
        self.take_handshakes(ready, load).map_err(receiving)?;
        self.post.wake();
        Ok(())
    }

    fn take_from_network(&mut self, ready: ReadyIo, now: Instant) -> io::Result<Load> {
        let mut load = Load::Drained;
        for (is_ready, family) in ready.data.into_iter().zip([Family::V4, Family::V6]) {
            if !is_ready {
                continue;
            }
            load = Load::More;
            for _ in 0..BATCH {
                if self.take_run(family, now)? == Next::Stop {
                    load = Load::Drained;
                    break;
                }
                self.write()?;
                self.transmit();
            }
        }
        self.tunnel.flush_tun();
        self.write()?;
        Ok(load)
    }

    /// Takes one run of datagrams; stops when none is waiting.
    fn take_run(&mut self, family: Family, now: Instant) -> io::Result<Next> {
        let Io { v4, v6, runs, .. } = &mut self.io;
        let Some(lanes) = (if family == Family::V4 { v4 } else { v6 }) else {
            return Ok(Next::Stop);
        };
        let Some(received) = lanes.data.recv(runs)? else {
            return Ok(Next::Stop);
        };
        let (from, tos) = (received.from, received.tos);
        for datagram in received.datagrams() {
            let (tunnel, post) = (&mut self.tunnel, &mut self.post);
            if datagram.first() != Some(&INITIATION) {
                take_datagram(tunnel, post, datagram, (from, tos), now);
                continue;
            }
            if self.admission == Admission::Closed {
                self.io_dropped.draining += 1;
                continue;
            }
            // The kernel steers a run by its first datagram. An honest router's may end with an initiation; a crowd that hides
            // behind another first byte has the time that it has at the door.
            let mut turn = self.budget.turn(Instant::now(), true);
            if turn.is_open() {
                let worth = take_datagram(tunnel, post, datagram, (from, tos), now);
                turn.note(Instant::now(), worth);
            } else {
                self.io_dropped.hidden_handshake += 1;
            }
            let _rest = self.budget.settle(turn);
        }
        Ok(Next::Go)
    }

    /// Takes handshakes for a moment; while packets wait, as far as their part of the time reaches.
    fn take_handshakes(&mut self, ready: ReadyIo, load: Load) -> io::Result<()> {
        let mut turn = self.budget.turn(Instant::now(), load == Load::More);
        for (is_ready, family) in ready.handshakes.into_iter().zip([Family::V4, Family::V6]) {
            while is_ready && turn.is_open() {
                let Some(outcome) = self.take_handshake(family, turn.now())? else {
                    break;
                };
                turn.note(Instant::now(), outcome);
            }
        }
        if let Some(until) = self.budget.settle(turn) {
            self.io.rest_from_handshakes(until)?;
        }
        self.tunnel.flush_tun();
        self.write()?;
        self.transmit();
        Ok(())
    }

    /// Takes one datagram of the handshakes' lane and says whether it was worth it.
    fn take_handshake(&mut self, family: Family, now: Instant) -> io::Result<Option<Worth>> {
        let Io { v4, v6, runs, .. } = &mut self.io;
        let Some(lanes) = (if family == Family::V4 { v4 } else { v6 }) else {
            return Ok(None);
        };
        let Some(received) = lanes.handshakes.recv(runs)? else {
            return Ok(None);
        };
        if self.admission == Admission::Closed {
            self.io_dropped.draining += 1;
            return Ok(Some(Worth::Nothing));
        }
        let (from, tos) = (received.from, received.tos);
        let mut worth = Worth::Nothing;
        for datagram in received.datagrams() {
            let (tunnel, post) = (&mut self.tunnel, &mut self.post);
            if take_datagram(tunnel, post, datagram, (from, tos), now) == Worth::Something {
                worth = Worth::Something;
            }
        }
        Ok(Some(worth))
    }

    /// Takes what other workers have handed over.
    fn take_letters(&mut self, now: Instant) -> io::Result<()> {
        for _ in 0..BATCH {
            let Some(Letter { kind, bytes }) = self.post.take() else {
                break;
            };
            // An error is a drop, which the tunnel has counted.
            let taken = match &kind {
                Kind::Frame => self.tunnel.handle_tun_frame(&bytes, now),
                Kind::Datagram { from, tos } => {
                    self.tunnel.handle_datagram(&bytes, *from, *tos, now)
                }
                Kind::Initiation { from, initiator } => self
                    .tunnel
                    .handle_initiation(initiator, *from, now)
                    .map(|()| Taken::Here),
            };
            if let Ok(Taken::Elsewhere(_)) = taken {
                // What is not ours either is not sent around again.
                self.post.lose(&kind, &bytes);
            }
            self.post.give_back(bytes);
            self.write()?;
            self.transmit();
        }
        if self.post.has_letters() {
            // Nobody else would wake us for the rest.
            let _woken = self.io.waker.wake();
        }
        self.tunnel.flush_tun();
        self.write()
    }

    /// Writes what the tunnel has for the internet.
    fn write(&mut self) -> io::Result<()> {
        while let Some(frame) = self.tunnel.poll_tun() {
            match self.io.tun.send(frame)? {
                Written::Yes => continue,
                Written::Full => self.io_dropped.tun_full += 1,
                Written::Refused => self.io_dropped.tun_refused += 1,
            }
            self.io_dropped.tun_bytes += frame.len().saturating_sub(VNET_BYTES) as u64;
        }
        Ok(())
    }

    fn take_from_tun(&mut self, now: Instant) -> io::Result<Load> {
        let mut load = Load::More;
        for _ in 0..BATCH {
            let Some(len) = self.io.tun.recv(&mut self.io.frame)? else {
                load = Load::Drained;
                break;
            };
            let frame = self.io.frame.get(..len).unwrap_or_default();
            // An error is a drop, which the tunnel has counted.
            if let Ok(Taken::Elsewhere(elsewhere)) = self.tunnel.handle_tun_frame(frame, now) {
                self.post.hand_over(elsewhere.worker, Kind::Frame, frame);
            }
            while let Some(run) = self.tunnel.poll_full_transmit() {
                self.io.send(run, &mut self.io_dropped);
            }
        }
        self.transmit();
        // Answers to packets that are too long for their peers.
        self.write()?;
        Ok(load)
    }

    fn transmit(&mut self) {
        while let Some(run) = self.tunnel.poll_transmit() {
            self.io.send(run, &mut self.io_dropped);
        }
    }

    fn note_events(&mut self, now: Instant) {
        while let Some(event) = self.tunnel.poll_event() {
            match event {
                EdgeEvent::Connected { .. }
                | EdgeEvent::Asleep { .. }
                | EdgeEvent::Roamed { .. }
                | EdgeEvent::Expired { .. } => {}
                EdgeEvent::Carried { addresses } => self.announcer.carried(addresses, now),
                EdgeEvent::Left { addresses } => self.announcer.left(addresses, now),
            }
        }
        let carried = self.tunnel.carried_addresses();
        self.announcer.handle_timeout(carried, now);
    }

    /// Counts the packets that were drawn, if any are.
    fn count_drawn(&mut self) {
        let Some(networks) = &self.networks else {
            return;
        };
        while let Some(drawn) = self.tunnel.poll_drawn() {
            self.totals.tally.count(networks, drawn);
        }
    }
}

impl Io {
    /// What the kernel had no room for in one kind of sockets.
    fn overflowed(&self, kind: fn(&Lanes) -> &netio::Udp) -> u64 {
        [&self.v4, &self.v6]
            .into_iter()
            .flatten()
            .filter_map(|lanes| kind(lanes).overflowed().ok())
            .map(u64::from)
            .sum()
    }

    /// What cannot be read for now would end every wait at once.
    fn rest_from_handshakes(&mut self, until: Instant) -> io::Result<()> {
        if self.resting.replace(until).is_none() {
            for lanes in [&self.v4, &self.v6].into_iter().flatten() {
                self.poller.remove(&lanes.handshakes)?;
            }
        }
        Ok(())
    }

    fn watch_handshakes(&self) -> io::Result<()> {
        for (lanes, token) in [(&self.v4, HANDSHAKES_V4), (&self.v6, HANDSHAKES_V6)] {
            if let Some(lanes) = lanes {
                self.poller
                    .add(&lanes.handshakes, token, Interest::Readable)?;
            }
        }
        Ok(())
    }

    fn wait(&mut self, deadline: Option<Instant>) -> io::Result<ReadyIo> {
        if self
            .resting
            .take_if(|until| *until <= Instant::now())
            .is_some()
        {
            self.watch_handshakes()?;
        }
        let deadline = [deadline, self.resting].into_iter().flatten().min();
        let timeout = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let mut found = ReadyIo::default();
        for ready in self.poller.wait(timeout)? {
            match ready {
                Ready::Woken => found.woken = true,
                Ready::Descriptor { token: TUN, .. } => found.tun = true,
                Ready::Descriptor { token: DATA_V4, .. } => found.data[0] = true,
                Ready::Descriptor { token: DATA_V6, .. } => found.data[1] = true,
                Ready::Descriptor {
                    token: HANDSHAKES_V4,
                    ..
                } => found.handshakes[0] = true,
                Ready::Descriptor { .. } => found.handshakes[1] = true,
            }
        }
        Ok(found)
    }

    fn send(&self, run: Transmit<'_>, dropped: &mut IoDropped) {
        let lanes = if run.to.is_ipv4() { &self.v4 } else { &self.v6 };
        let Some(Lanes { data, .. }) = lanes else {
            dropped.udp_failed += 1;
            return;
        };
        match data.send_marked(run.to, run.payload, run.segment, run.tos) {
            Sent::Yes => {}
            Sent::Full => dropped.udp_full += 1,
            Sent::Failed(_) => dropped.udp_failed += 1,
        }
    }
}

/// Takes a datagram, or hands it to the worker whose peer's it is.
fn take_datagram(
    tunnel: &mut EdgeTunnel,
    post: &mut Post,
    datagram: &[u8],
    (from, tos): (SocketAddr, u8),
    now: Instant,
) -> Worth {
    match tunnel.handle_datagram(datagram, from, tos, now) {
        Ok(Taken::Here) => Worth::Something,
        Ok(Taken::Elsewhere(elsewhere)) => {
            let worker = elsewhere.worker;
            let kind = Kind::of_datagram(elsewhere, from, tos);
            post.hand_over(worker, kind, datagram);
            Worth::Something
        }
        // A drop, which the tunnel has counted.
        Err(_) => Worth::Nothing,
    }
}
