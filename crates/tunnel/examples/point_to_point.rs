//! The loop of the crate's documentation as a program: one agent, one gateway, fixed keys; to see it run and to
//! measure it before anything else is there. Root, and two network namespaces that reach each other:
//!
//! `point_to_point edge 192.0.2.1:51820` here, `point_to_point agent 192.0.2.1:51820` there; inside, the edge is
//! 10.99.0.1 and the agent 10.99.0.2 on `culvert0`.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use netio::Tun;
use netio::clock::since_1970;
use netio::netlink::Netlink;
use netio::poll::{Interest, Poller};
use netio::tun::FRAME_BYTES;
use netio::udp::{RecvBuffer, Sent, Udp, UdpOptions};
use tunnel::agent::{AgentConfig, AgentTunnel, GatewayConfig};
use tunnel::edge::{EdgeTunnel, PeerConfig};
use tunnel::offload::Accepts;
use tunnel::{DEFAULT_MTU, Dropped, Transmit};
use x25519_dalek::{PublicKey, StaticSecret};

const DEVICE: &str = "culvert0";
const EDGE_ADDRESS: [u8; 4] = [10, 99, 0, 1];
const AGENT_ADDRESS: [u8; 4] = [10, 99, 0, 2];
/// Packets or runs taken from one side before the other has its turn.
const BATCH: usize = 64;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, role, address] = &arguments[..] else {
        return usage();
    };
    let Ok(address) = address.parse() else {
        return usage();
    };
    let ran = match role.as_str() {
        "agent" => agent(address).and_then(|role| run(role, AGENT_ADDRESS, any_port())),
        "edge" => edge().and_then(|role| run(role, EDGE_ADDRESS, address)),
        _ => return usage(),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: point_to_point agent|edge GATEWAY:PORT");
    ExitCode::from(64)
}

fn any_port() -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, 0).into()
}

/// The verbs that both roles share.
trait Role {
    fn on_tun_frame(&mut self, frame: &[u8], now: Instant) -> Result<(), Dropped>;
    fn on_datagram(
        &mut self,
        datagram: &[u8],
        from: SocketAddr,
        tos: u8,
        now: Instant,
    ) -> Result<(), Dropped>;
    fn frame(&mut self) -> Option<&[u8]>;
    fn flush(&mut self);
    fn accept(&mut self, accepts: Accepts);
    fn on_timeout(&mut self, now: Instant);
    fn deadline(&self) -> Option<Instant>;
    fn transmit(&mut self) -> Option<Transmit<'_>>;
    fn tell(&mut self);
}

impl Role for AgentTunnel {
    fn on_tun_frame(&mut self, frame: &[u8], now: Instant) -> Result<(), Dropped> {
        self.handle_tun_frame(frame, now)
    }
    fn on_datagram(
        &mut self,
        datagram: &[u8],
        from: SocketAddr,
        tos: u8,
        now: Instant,
    ) -> Result<(), Dropped> {
        self.handle_datagram(datagram, from, tos, now)
    }
    fn frame(&mut self) -> Option<&[u8]> {
        self.poll_tun()
    }
    fn flush(&mut self) {
        self.flush_tun();
    }
    fn accept(&mut self, accepts: Accepts) {
        self.set_accepts(accepts);
    }
    fn on_timeout(&mut self, now: Instant) {
        self.handle_timeout(now);
    }
    fn deadline(&self) -> Option<Instant> {
        self.poll_timeout().map(|(at, _)| at)
    }
    fn transmit(&mut self) -> Option<Transmit<'_>> {
        self.poll_transmit()
    }
    fn tell(&mut self) {
        while let Some(event) = self.poll_event() {
            eprintln!("{event:?}");
        }
    }
}

impl Role for EdgeTunnel {
    fn on_tun_frame(&mut self, frame: &[u8], now: Instant) -> Result<(), Dropped> {
        self.handle_tun_frame(frame, now).map(|_| ())
    }
    fn on_datagram(
        &mut self,
        datagram: &[u8],
        from: SocketAddr,
        tos: u8,
        now: Instant,
    ) -> Result<(), Dropped> {
        self.handle_datagram(datagram, from, tos, now).map(|_| ())
    }
    fn frame(&mut self) -> Option<&[u8]> {
        self.poll_tun()
    }
    fn flush(&mut self) {
        self.flush_tun();
    }
    fn accept(&mut self, accepts: Accepts) {
        self.set_accepts(accepts);
    }
    fn on_timeout(&mut self, now: Instant) {
        self.handle_timeout(now);
    }
    fn deadline(&self) -> Option<Instant> {
        self.poll_timeout().map(|(at, _)| at)
    }
    fn transmit(&mut self) -> Option<Transmit<'_>> {
        self.poll_transmit()
    }
    fn tell(&mut self) {
        while let Some(event) = self.poll_event() {
            eprintln!("{event:?}");
        }
    }
}

fn key(n: u8) -> StaticSecret {
    StaticSecret::from([n; 32])
}

fn agent(gateway: SocketAddr) -> io::Result<AgentTunnel> {
    let config = AgentConfig {
        private: key(2),
        gateways: vec![GatewayConfig {
            public: PublicKey::from(&key(1)).to_bytes(),
            psk: None,
            endpoints: vec![gateway],
            inner: Vec::new(),
        }],
        addresses: vec![IpNet::from(std::net::IpAddr::from(AGENT_ADDRESS))],
        keepalive: Duration::from_secs(25),
        seed: std::process::id().into(),
        calendar: since_1970(),
    };
    AgentTunnel::new(config, Instant::now()).map_err(io::Error::other)
}

fn edge() -> io::Result<EdgeTunnel> {
    let now = Instant::now();
    let mut edge = EdgeTunnel::new(key(1), since_1970(), now);
    let peer = PeerConfig {
        id: [2; 32],
        public: PublicKey::from(&key(2)).to_bytes(),
        psk: None,
        allowed: vec![IpNet::from(std::net::IpAddr::from(AGENT_ADDRESS))],
        not_after: now + Duration::from_secs(86_400),
        rates: tunnel::rate::Rates::default(),
    };
    edge.upsert_peer(peer, now).map_err(io::Error::other)?;
    Ok(edge)
}

fn run(mut role: impl Role, inner: [u8; 4], listen: SocketAddr) -> io::Result<()> {
    let mut queues = Tun::open(DEVICE, DEFAULT_MTU, 1).map_err(io::Error::other)?;
    let tun = queues.pop().ok_or(io::ErrorKind::NotFound)?;
    let offloads = tun.offloads();
    role.accept(Accepts {
        tcp: offloads.tcp,
        udp: offloads.udp,
    });
    let mut netlink = Netlink::open().map_err(io::Error::other)?;
    let link = netlink.link(DEVICE).map_err(io::Error::other)?;
    let address = IpNet::new(inner.into(), 24).map_err(io::Error::other)?;
    netlink
        .add_address(link, address)
        .map_err(io::Error::other)?;
    netlink
        .bring_up(link, DEFAULT_MTU)
        .map_err(io::Error::other)?;
    let udp = Udp::bind(listen, &UdpOptions::default()).map_err(io::Error::other)?;
    let mut poller = Poller::new()?;
    poller.add(&tun, 0, Interest::Readable)?;
    poller.add(&udp, 1, Interest::Readable)?;
    let (mut runs, mut frame) = (RecvBuffer::new(), vec![0; FRAME_BYTES]);
    loop {
        let deadline = role.deadline();
        let wait = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let _which = poller.wait(wait)?.count();
        let now = Instant::now();
        network_to_tun(&mut role, &udp, &tun, &mut runs, now)?;
        tun_to_network(&mut role, &udp, &tun, &mut frame, now)?;
        if role.deadline().is_some_and(|at| at <= now) {
            role.on_timeout(now);
        }
        send_all(&mut role, &udp);
        role.tell();
    }
}

fn network_to_tun(
    role: &mut impl Role,
    udp: &Udp,
    tun: &Tun,
    runs: &mut RecvBuffer,
    now: Instant,
) -> io::Result<()> {
    for _ in 0..BATCH {
        let Some(received) = udp.recv(runs)? else {
            break;
        };
        for datagram in received.datagrams() {
            // Counted by the tunnel.
            let _dropped = role.on_datagram(datagram, received.from, received.tos, now);
        }
        write_all(role, tun)?;
        send_all(role, udp);
    }
    role.flush();
    write_all(role, tun)
}

fn write_all(role: &mut impl Role, tun: &Tun) -> io::Result<()> {
    while let Some(frame) = role.frame() {
        // A full or refusing TUN device costs the packet, as any full queue does.
        let _written = tun.send(frame)?;
    }
    Ok(())
}

fn tun_to_network(
    role: &mut impl Role,
    udp: &Udp,
    tun: &Tun,
    frame: &mut [u8],
    now: Instant,
) -> io::Result<()> {
    for _ in 0..BATCH {
        let Some(len) = tun.recv(frame)? else {
            break;
        };
        // Counted by the tunnel.
        let _dropped = role.on_tun_frame(frame.get(..len).unwrap_or_default(), now);
        send_all(role, udp);
    }
    send_all(role, udp);
    Ok(())
}

fn send_all(role: &mut impl Role, udp: &Udp) {
    while let Some(run) = role.transmit() {
        if let Sent::Failed(e) = udp.send_marked(run.to, run.payload, run.segment, run.tos) {
            eprintln!("sending to {}: {e}", run.to);
        }
    }
}
