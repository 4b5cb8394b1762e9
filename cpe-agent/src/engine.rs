//! The data plane: one thread that carries packets between the TUN device and the marked UDP sockets.
//!
//! The thread owns the device, the sockets and the tunnel's state; it waits on them and on orders, and sends [`News`] to
//! the control loop. Stopping it is safe at any packet: what is in flight is lost as on any wire, and the gateway's session
//! is made anew. The order of its loop is that of the `tunnel` crate's documentation.

mod detour;
mod looping;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ipnet::IpNet;
use netio::netlink::LinkIndex;
use netio::udp::{Fragment, UdpError, UdpOptions};
use netio::{Poller, Tun, Udp, Waker};
use tokio::sync::mpsc;
use tunnel::Traffic;
use tunnel::agent::{AgentConfig, AgentEvent, GatewayConfig, GatewayStatus};

use crate::config;
use crate::net::MARK;
use crate::net::wan::Fit;
pub(crate) use detour::WayEvent;
use looping::Loop;

/// Orders that the thread has not taken yet; it takes them at once.
const MAX_ORDERS: usize = 8;
/// The kernel's buffers for the tunnel's datagrams: a burst of some milliseconds at a router's speed.
const BUFFER_BYTES: usize = 1 << 20;

/// What the control loop orders.
pub(crate) enum Order {
    /// Another key, or the first: make the tunnel anew.
    Make(Box<AgentConfig>),
    /// The same key with other gateways or addresses.
    Lease(Vec<GatewayConfig>, Vec<IpNet>),
    /// There may be nobody at the other end any more: shake hands now.
    Probe,
    /// Packets up to this length, in datagrams that may be cut or not.
    Fit(Fit),
    /// Send out of this interface only, or again where the routes lead.
    WayOut(Option<LinkIndex>),
    /// The gateway with this key can be reached through a relay at this address, or no longer.
    Relay([u8; 32], Option<SocketAddr>),
    /// There is no lease: carry nothing.
    Rest,
    /// End the thread.
    Stop,
}

/// What the thread tells.
#[derive(Debug)]
pub(crate) enum News {
    /// What the subscriber would notice.
    Tunnel(AgentEvent),
    /// A gateway is silent, or reached another way.
    Way(WayEvent),
    /// A datagram is longer than the path takes.
    PathTooSmall,
    /// The device or a socket is gone for good.
    Broken(io::Error),
}

/// What is counted, as of at most a second ago.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    /// Age of the session in use; `None` without one.
    pub(crate) session_age: Option<Duration>,
    /// The gateways of the lease, the preferred first.
    pub(crate) gateways: Vec<GatewayStatus>,
    /// Inner bytes and packets since the agent started.
    pub(crate) traffic: Traffic,
    /// Inner bits per second in and out, over the last second.
    pub(crate) rates: [u64; 2],
    /// Packets that went no further since the agent started, by the tunnel's reasons, and `not_taken` for those that the
    /// kernel did not take from us.
    pub(crate) dropped: BTreeMap<&'static str, u64>,
}

/// The TUN device and the sockets, opened while the process still has its rights.
pub(crate) struct Wires {
    tun: Tun,
    v4: Option<Udp>,
    v6: Option<Udp>,
    /// To relays, which are tasks of this process: neither marked nor bound to a WAN.
    local: Udp,
}

impl Wires {
    /// Opens the sockets beside the device; a family that the kernel does not have is left out.
    pub(crate) fn open(tun: Tun) -> Result<Self, UdpError> {
        let v4 = bind(IpAddr::V4(Ipv4Addr::UNSPECIFIED))?;
        let v6 = bind(IpAddr::V6(Ipv6Addr::UNSPECIFIED))?;
        let local = Udp::bind(
            SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0),
            &UdpOptions {
                buffer_bytes: BUFFER_BYTES,
                ..UdpOptions::default()
            },
        )?;
        let wires = Self { tun, v4, v6, local };
        wires.set_fragment(Fragment::Never);
        Ok(wires)
    }

    /// Where relays find the packet thread.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.local.local_addr()
    }

    fn set_fragment(&self, fragment: Fragment) {
        for udp in self.udp() {
            // Refused by a kernel without it, where the path's length is not told and datagrams are cut.
            let _ = udp.set_fragment(fragment);
        }
    }

    fn set_way_out(&self, link: Option<LinkIndex>) -> io::Result<()> {
        self.udp().try_for_each(|udp| udp.set_way_out(link))
    }

    /// Runs of datagrams for which a socket had no room, since the start.
    fn overflowed(&self) -> u64 {
        self.udp()
            .chain([&self.local])
            .filter_map(|udp| udp.overflowed().ok())
            .map(u64::from)
            .sum()
    }

    fn udp(&self) -> impl Iterator<Item = &Udp> {
        [&self.v4, &self.v6].into_iter().flatten()
    }
}

fn bind(any: IpAddr) -> Result<Option<Udp>, UdpError> {
    let options = UdpOptions {
        mark: Some(MARK),
        buffer_bytes: BUFFER_BYTES,
        ..UdpOptions::default()
    };
    match Udp::bind(SocketAddr::new(any, 0), &options) {
        Ok(udp) => Ok(Some(udp)),
        Err(UdpError::Os { source, .. })
            if source.raw_os_error() == Some(nix::libc::EAFNOSUPPORT) =>
        {
            Ok(None)
        }
        Err(UdpError::NoSuchAddress(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The running thread.
pub(crate) struct Engine {
    orders: SyncSender<Order>,
    waker: Waker,
    // Written by the thread once a second, read when somebody asks for the status.
    snapshot: Arc<Mutex<Snapshot>>,
    thread: JoinHandle<()>,
}

impl Engine {
    /// Starts the thread; it carries nothing until it is given a lease.
    pub(crate) fn start(
        wires: Wires,
        config: &config::Tunnel,
        news: mpsc::Sender<News>,
    ) -> io::Result<Self> {
        let poller = Poller::new()?;
        let waker = poller.waker();
        let (orders, taken) = sync_channel(MAX_ORDERS);
        let snapshot = Arc::new(Mutex::new(Snapshot::default()));
        let work = Loop::new(wires, config, poller, taken, news, Arc::clone(&snapshot))?;
        let thread = std::thread::Builder::new()
            .name("packets".into())
            .spawn(move || work.run())?;
        Ok(Self {
            orders,
            waker,
            snapshot,
            thread,
        })
    }

    /// Gives an order. A thread that has ended has told why already.
    pub(crate) fn order(&self, order: Order) {
        let _ = self.orders.send(order);
        let _ = self.waker.wake();
    }

    /// What is counted.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.snapshot
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Ends the thread, and with it the TUN device.
    pub(crate) fn stop(self) {
        self.order(Order::Stop);
        // A panic in it has been printed; there is nothing to add.
        let _ = self.thread.join();
    }
}
