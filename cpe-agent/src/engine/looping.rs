//! The thread's loop: wait, orders, network, device, time; each step bounded so that none starves the others.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use netio::clock::since_1970;
use netio::poll::{Interest, Ready};
use netio::tun::{FRAME_BYTES, Written};
use netio::udp::Sent;
use netio::{Poller, RecvBuffer, Tun};
use rand_core::{OsRng, RngCore};
use telemetry::watch::per_second;
use tokio::sync::mpsc;
use tracing::{debug, warn};
use tunnel::agent::{AgentConfig, GatewayConfig};
use tunnel::offload::Accepts;
use tunnel::offload::ecn::OuterTos;
use tunnel::{AgentTunnel, Traffic, Transmit};

use crate::config;

use super::detour::{Detour, WayEvent};
use super::{News, Order, Snapshot, Wires};

const TUN: u32 = 0;
const V4: u32 = 1;
const V6: u32 = 2;
const LOCAL: u32 = 3;
/// Runs or packets taken from one descriptor before the others are looked at.
const BATCH: usize = 64;
/// How old the counters of the status may be.
const SNAPSHOT_PERIOD: Duration = Duration::from_secs(1);
/// A path that is too short is told once in this time: every packet would tell it.
const PATH_NEWS_PERIOD: Duration = Duration::from_millis(100);

pub(super) struct Loop {
    wires: Wires,
    mtu: u16,
    tos: OuterTos,
    poller: Poller,
    orders: Receiver<Order>,
    news: mpsc::Sender<News>,
    snapshot: Arc<Mutex<Snapshot>>,
    snapshot_at: Instant,
    tunnel: Option<AgentTunnel>,
    detour: Detour,
    not_taken: u64,
    rates: Rates,
    is_path_short: bool,
    path_told_at: Option<Instant>,
    /// What earlier tunnels of this run counted.
    before: Snapshot,
    received: RecvBuffer,
    frame: Vec<u8>,
}

/// Whether the loop goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Wait,
    Stop,
}

impl Loop {
    pub(super) fn new(
        wires: Wires,
        config: &config::Tunnel,
        poller: Poller,
        orders: Receiver<Order>,
        news: mpsc::Sender<News>,
        snapshot: Arc<Mutex<Snapshot>>,
    ) -> io::Result<Self> {
        poller.add(&wires.tun, TUN, Interest::Readable)?;
        for (udp, token) in [(&wires.v4, V4), (&wires.v6, V6)] {
            if let Some(udp) = udp {
                poller.add(udp, token, Interest::Readable)?;
            }
        }
        poller.add(&wires.local, LOCAL, Interest::Readable)?;
        Ok(Self {
            wires,
            mtu: config.mtu,
            tos: config.dscp,
            poller,
            orders,
            news,
            snapshot,
            snapshot_at: Instant::now(),
            tunnel: None,
            detour: Detour::default(),
            not_taken: 0,
            rates: Rates::default(),
            is_path_short: false,
            path_told_at: None,
            before: Snapshot::default(),
            received: RecvBuffer::new(),
            frame: vec![0; FRAME_BYTES],
        })
    }

    pub(super) fn run(mut self) {
        loop {
            match self.turn() {
                Ok(Next::Wait) => {}
                Ok(Next::Stop) => break,
                Err(error) => {
                    // The control loop ends the process on this; if it is gone already, so is the reason to tell.
                    let _ = self.news.try_send(News::Broken(error));
                    break;
                }
            }
        }
    }

    fn turn(&mut self) -> io::Result<Next> {
        let ready = self.wait()?;
        if ready.woken && self.take_orders() == Next::Stop {
            return Ok(Next::Stop);
        }
        let now = Instant::now();
        if ready.v4 {
            self.take_from_network(V4, now)?;
        }
        if ready.v6 {
            self.take_from_network(V6, now)?;
        }
        if ready.local {
            self.take_from_network(LOCAL, now)?;
        }
        if ready.tun {
            self.take_from_device(now)?;
        }
        self.keep_time(now);
        Ok(Next::Wait)
    }

    fn wait(&mut self) -> io::Result<Woken> {
        let now = Instant::now();
        let deadline = self.tunnel.as_ref().map(|tunnel| {
            let timer = tunnel
                .poll_timeout()
                .map_or(self.snapshot_at, |(at, _why)| at);
            let silence = self.detour.poll_timeout().unwrap_or(timer);
            timer
                .min(silence)
                .min(self.snapshot_at)
                .saturating_duration_since(now)
        });
        let mut woken = Woken::default();
        for ready in self.poller.wait(deadline)? {
            match ready {
                Ready::Descriptor { token: TUN, .. } => woken.tun = true,
                Ready::Descriptor { token: V4, .. } => woken.v4 = true,
                Ready::Descriptor { token: LOCAL, .. } => woken.local = true,
                Ready::Descriptor { .. } => woken.v6 = true,
                Ready::Woken => woken.woken = true,
            }
        }
        Ok(woken)
    }

    fn take_orders(&mut self) -> Next {
        loop {
            match self.orders.try_recv() {
                Ok(Order::Make(config)) => self.make(*config),
                Ok(Order::Relay(gateway, relay)) => {
                    let event = self.detour.set_relay(&gateway, relay, Instant::now());
                    self.tell_way(event);
                }
                Ok(Order::Lease(gateways, addresses)) => {
                    self.know_ways(&gateways);
                    if let Some(tunnel) = &mut self.tunnel
                        && let Err(error) =
                            tunnel.replace_lease(gateways, addresses, Instant::now())
                    {
                        warn!(%error, "the renewed lease cannot be used; the one before stays in use");
                    }
                }
                Ok(Order::Probe) => {
                    if let Some(tunnel) = &mut self.tunnel {
                        tunnel.handle_network_change(Instant::now());
                    }
                }
                Ok(Order::Fit(fit)) => {
                    self.mtu = fit.mtu;
                    self.wires.set_fragment(fit.fragment);
                    if let Some(tunnel) = &mut self.tunnel {
                        tunnel.set_mtu(fit.mtu, Instant::now());
                    }
                }
                Ok(Order::WayOut(link)) => {
                    if let Err(error) = self.wires.set_way_out(link) {
                        warn!(%error, "the chosen WAN cannot be used");
                    }
                }
                Ok(Order::Rest) => self.retire(),
                Err(TryRecvError::Empty) => return Next::Wait,
                Ok(Order::Stop) | Err(TryRecvError::Disconnected) => return Next::Stop,
            }
        }
    }

    fn make(&mut self, mut config: AgentConfig) {
        self.retire();
        self.know_ways(&config.gateways);
        let now = Instant::now();
        config.seed = OsRng.next_u64();
        config.calendar = since_1970();
        match AgentTunnel::new(config, now) {
            Ok(tunnel) => {
                let mut tunnel = tunnel.with_outer_tos(self.tos).with_mtu(self.mtu, now);
                let offloads = self.wires.tun.offloads();
                tunnel.set_accepts(Accepts {
                    tcp: offloads.tcp,
                    udp: offloads.udp,
                });
                self.tunnel = Some(tunnel);
            }
            Err(error) => warn!(%error, "the lease cannot be used"),
        }
    }

    fn know_ways(&mut self, gateways: &[GatewayConfig]) {
        let ways = gateways
            .iter()
            .map(|gateway| (gateway.public, gateway.endpoints.as_slice()));
        self.detour.set_gateways(ways, Instant::now());
    }

    fn tell_way(&self, event: Option<WayEvent>) {
        if let Some(event) = event
            && self.news.try_send(News::Way(event)).is_err()
        {
            debug!("the control loop does not take the news");
        }
    }

    /// Ends the tunnel, but not its counters.
    fn retire(&mut self) {
        if let Some(tunnel) = self.tunnel.take() {
            self.before = counted(&tunnel, &self.before, 0, Instant::now());
            self.before.session_age = None;
            self.before.gateways.clear();
        }
    }

    fn take_from_network(&mut self, family: u32, now: Instant) -> io::Result<()> {
        let udp = match family {
            V4 => self.wires.v4.as_ref(),
            V6 => self.wires.v6.as_ref(),
            _ => Some(&self.wires.local),
        };
        let Some(udp) = udp else { return Ok(()) };
        for _ in 0..BATCH {
            let Some(received) = udp.recv(&mut self.received)? else {
                break;
            };
            let Some(tunnel) = &mut self.tunnel else {
                continue;
            };
            // The last words of a relay that was left would move the tunnel to where nobody is.
            let is_outside = matches!(family, V4 | V6);
            if !is_outside && !self.detour.has_relay(received.from) {
                continue;
            }
            let from = self.detour.origin(received.from);
            let before = tunnel.proofs();
            for datagram in received.datagrams() {
                // What is dropped has been counted by the tunnel.
                let _ = tunnel.handle_datagram(datagram, from, received.tos, now);
            }
            let is_theirs = tunnel.proofs() != before;
            let heard = is_theirs.then(|| self.detour.on_heard(received.from, now));
            if let Some(event) = heard.flatten() {
                // A full queue costs the news; the next change tells it.
                let _ = self.news.try_send(News::Way(event));
            }
            self.not_taken += write_all(tunnel, &self.wires.tun)?;
            let unsent = send_all(tunnel, &self.wires, &mut self.detour, now);
            self.not_taken += unsent.runs;
            self.is_path_short |= unsent.too_long;
        }
        if let Some(tunnel) = &mut self.tunnel {
            tunnel.flush_tun();
            self.not_taken += write_all(tunnel, &self.wires.tun)?;
        }
        Ok(())
    }

    fn take_from_device(&mut self, now: Instant) -> io::Result<()> {
        for _ in 0..BATCH {
            let Some(length) = self.wires.tun.recv(&mut self.frame)? else {
                break;
            };
            let (Some(tunnel), Some(frame)) = (&mut self.tunnel, self.frame.get(..length)) else {
                continue;
            };
            // What is dropped has been counted by the tunnel.
            let _ = tunnel.handle_tun_frame(frame, now);
            let unsent = send_full(tunnel, &self.wires, &mut self.detour, now);
            self.not_taken += unsent.runs;
            self.is_path_short |= unsent.too_long;
        }
        if let Some(tunnel) = &mut self.tunnel {
            let unsent = send_all(tunnel, &self.wires, &mut self.detour, now);
            self.not_taken += unsent.runs;
            self.is_path_short |= unsent.too_long;
            // Answers to packets that are too long for the tunnel.
            self.not_taken += write_all(tunnel, &self.wires.tun)?;
        }
        Ok(())
    }

    fn keep_time(&mut self, now: Instant) {
        let Some(tunnel) = &mut self.tunnel else {
            return;
        };
        if tunnel.poll_timeout().is_some_and(|(at, _why)| at <= now) {
            tunnel.handle_timeout(now);
        }
        let unsent = send_all(tunnel, &self.wires, &mut self.detour, now);
        self.not_taken += unsent.runs;
        self.is_path_short |= unsent.too_long;
        let mut is_news = false;
        while let Some(event) = tunnel.poll_event() {
            is_news = true;
            if self.news.try_send(News::Tunnel(event)).is_err() {
                debug!("the control loop does not take the news");
            }
        }
        if is_news || now >= self.snapshot_at {
            self.snapshot_at = now + SNAPSHOT_PERIOD;
            let mut snapshot = counted(tunnel, &self.before, self.not_taken, now);
            let overflowed = self.wires.overflowed();
            if overflowed > 0 {
                snapshot.dropped.insert("udp_overflow", overflowed);
            }
            snapshot.rates = self.rates.since_last(snapshot.traffic, now);
            *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
        }
        let event = self.detour.handle_timeout(now);
        self.tell_way(event);
        self.tell_of_path(now);
    }

    fn tell_of_path(&mut self, now: Instant) {
        let is_due = self
            .path_told_at
            .is_none_or(|at| now >= at + PATH_NEWS_PERIOD);
        if std::mem::take(&mut self.is_path_short) && is_due {
            self.path_told_at = Some(now);
            // The next packet that is too long tells it again.
            let _ = self.news.try_send(News::PathTooSmall);
        }
    }
}

/// What is needed to tell how fast bytes pass.
#[derive(Debug, Default)]
struct Rates {
    last: Option<(Traffic, Instant)>,
    bits_per_s: [u64; 2],
}

impl Rates {
    /// In and out since a second ago; between two seconds those of the last.
    fn since_last(&mut self, traffic: Traffic, now: Instant) -> [u64; 2] {
        let Some((before, at)) = self.last else {
            self.last = Some((traffic, now));
            return self.bits_per_s;
        };
        if now >= at + SNAPSHOT_PERIOD {
            let rate = |bytes: u64, before: u64| per_second(bytes.saturating_sub(before), at, now);
            self.bits_per_s = [
                rate(traffic.rx_bytes, before.rx_bytes),
                rate(traffic.tx_bytes, before.tx_bytes),
            ];
            self.last = Some((traffic, now));
        }
        self.bits_per_s
    }
}

/// Runs that the kernel did not take.
#[derive(Debug, Default)]
struct Unsent {
    runs: u64,
    /// One of them since the path is shorter than its datagrams.
    too_long: bool,
}

#[derive(Default)]
struct Woken {
    tun: bool,
    v4: bool,
    v6: bool,
    local: bool,
    woken: bool,
}

/// The counters of this tunnel and of those before it.
fn counted(tunnel: &AgentTunnel, before: &Snapshot, not_taken: u64, now: Instant) -> Snapshot {
    let stats = tunnel.stats(now);
    let mut snapshot = before.clone();
    snapshot.session_age = stats.session_age;
    snapshot.gateways = tunnel.gateways(now).collect();
    snapshot.traffic.rx_bytes += stats.traffic.rx_bytes;
    snapshot.traffic.tx_bytes += stats.traffic.tx_bytes;
    snapshot.traffic.rx_packets += stats.traffic.rx_packets;
    snapshot.traffic.tx_packets += stats.traffic.tx_packets;
    let dropped = tunnel
        .dropped()
        .iter()
        .map(|(reason, count)| (reason.as_label(), count));
    for (label, count) in dropped
        .chain([("not_taken", not_taken)])
        .filter(|(_, count)| *count > 0)
    {
        *snapshot.dropped.entry(label).or_default() += count;
    }
    snapshot
}

/// Sends what the tunnel has sealed, and returns what nobody took.
fn send_all(tunnel: &mut AgentTunnel, wires: &Wires, detour: &mut Detour, now: Instant) -> Unsent {
    let mut unsent = Unsent::default();
    while let Some(run) = tunnel.poll_transmit() {
        unsent.note(send(run, wires, detour, now));
    }
    unsent
}

/// The same for runs that are full: more packets are at hand, and may go with the others.
fn send_full(tunnel: &mut AgentTunnel, wires: &Wires, detour: &mut Detour, now: Instant) -> Unsent {
    let mut unsent = Unsent::default();
    while let Some(run) = tunnel.poll_full_transmit() {
        unsent.note(send(run, wires, detour, now));
    }
    unsent
}

/// `None`: there is no socket for it.
fn send(run: Transmit<'_>, wires: &Wires, detour: &mut Detour, now: Instant) -> Option<Sent> {
    let to = detour.way_out(run.to, run.payload.len(), now);
    let udp = match to {
        to if to != run.to => Some(&wires.local),
        SocketAddr::V4(_) => wires.v4.as_ref(),
        SocketAddr::V6(_) => wires.v6.as_ref(),
    };
    udp.map(|udp| udp.send_marked(to, run.payload, run.segment, run.tos))
}

impl Unsent {
    fn note(&mut self, sent: Option<Sent>) {
        match sent {
            Some(Sent::Yes) => {}
            Some(Sent::Failed(error)) => {
                self.runs += 1;
                self.too_long |= error.raw_os_error() == Some(nix::libc::EMSGSIZE);
            }
            Some(Sent::Full) | None => self.runs += 1,
        }
    }
}

/// Writes what the tunnel has for the home, and returns how many frames nobody took.
fn write_all(tunnel: &mut AgentTunnel, tun: &Tun) -> io::Result<u64> {
    let mut not_taken = 0;
    while let Some(frame) = tunnel.poll_tun() {
        if tun.send(frame)? != Written::Yes {
            not_taken += 1;
        }
    }
    Ok(not_taken)
}
