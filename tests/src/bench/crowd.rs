//! Many WireGuard clients in one process, on boringtun, over real sockets: what a gateway sees of a thousand homes.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use nix::sys::socket::{setsockopt, sockopt};
use x25519_dalek::{PublicKey, StaticSecret};

use super::fleet::random;
use crate::netns::Netns;

/// Homes share sockets, as subscribers behind one address do; the gateway tells them apart by keys and indexes.
const SOCKETS: usize = 16;
const BUFFER_BYTES: usize = 8 << 20;
const LARGEST: usize = 2_048;
/// Type and length of the answer to an initiation.
const RESPONSE: (u8, usize) = (2, 92);
const DATA: u8 = 4;
const COOKIE: u8 = 3;

/// A private key and what it was leased.
pub(super) struct Member {
    tunn: Tunn,
    pub(super) address: Ipv4Addr,
    socket: usize,
    /// Inner bytes that came for it.
    pub(super) received: u64,
    has_session: bool,
}

/// Clients of one gateway.
pub(super) struct Crowd {
    pub(super) members: Vec<Member>,
    sockets: Vec<UdpSocket>,
    buffer: Vec<u8>,
    out: Vec<u8>,
}

/// What [`Crowd::listen`] heard.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Heard {
    pub(super) responses: u64,
    pub(super) cookies: u64,
}

/// New keys, secret and public.
pub(super) fn keys(count: usize) -> Vec<(StaticSecret, [u8; 32])> {
    (0..count)
        .map(|_| {
            let secret = StaticSecret::from(random());
            let public = PublicKey::from(&secret).to_bytes();
            (secret, public)
        })
        .collect()
}

impl Crowd {
    /// Clients with these keys and leases, behind sockets of a namespace that are connected to the gateway.
    pub(super) fn new(
        netns: &Netns,
        gateway: SocketAddr,
        gateway_key: [u8; 32],
        keys: Vec<(StaticSecret, [u8; 32])>,
        addresses: &[Ipv4Addr],
    ) -> Result<Self> {
        let sockets = netns.enter(|| (0..SOCKETS).map(|_| socket(gateway)).collect())?;
        let members = keys
            .into_iter()
            .zip(addresses)
            .zip(0_u32..)
            .map(|(((secret, public), address), n)| Member {
                tunn: tunn(secret, public, gateway_key, n),
                address: *address,
                socket: n as usize % SOCKETS,
                received: 0,
                has_session: false,
            })
            .collect();
        Ok(Self {
            members,
            sockets,
            buffer: vec![0; LARGEST],
            out: vec![0; LARGEST],
        })
    }

    /// Sends one client's initiation, whether it has a session or not.
    pub(super) fn initiate(&mut self, member: usize) -> Result<()> {
        let Some(member) = self.members.get_mut(member) else {
            return Ok(());
        };
        if let TunnResult::WriteToNetwork(datagram) =
            member.tunn.format_handshake_initiation(&mut self.out, true)
        {
            send(self.sockets.get(member.socket), datagram)?;
        }
        Ok(())
    }

    /// Shakes hands with everybody, until all have a session.
    pub(super) fn connect(&mut self, within: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            let without: Vec<_> = (0..self.members.len())
                .filter(|n| self.members.get(*n).is_some_and(|m| !m.has_session))
                .collect();
            if without.is_empty() {
                return Ok(());
            }
            ensure!(
                start.elapsed() < within,
                "{} of {} clients got no session in {} s",
                without.len(),
                self.members.len(),
                within.as_secs()
            );
            for some in without.chunks(64) {
                for member in some {
                    self.initiate(*member)?;
                }
                self.listen_for(Duration::from_millis(20))?;
            }
            self.listen_for(Duration::from_millis(100))?;
        }
    }

    /// Seals one packet of a client and sends it.
    pub(super) fn send_packet(&mut self, member: usize, packet: &[u8]) -> Result<()> {
        let Some(member) = self.members.get_mut(member) else {
            return Ok(());
        };
        if let TunnResult::WriteToNetwork(datagram) = member.tunn.encapsulate(packet, &mut self.out)
        {
            send(self.sockets.get(member.socket), datagram)?;
        }
        Ok(())
    }

    /// Listens for a while.
    pub(super) fn listen_for(&mut self, lasting: Duration) -> Result<Heard> {
        let start = Instant::now();
        let mut all = Heard::default();
        while start.elapsed() < lasting {
            let (heard, came) = self.listen()?;
            all.responses += heard.responses;
            all.cookies += heard.cookies;
            if came == 0 {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        Ok(all)
    }

    /// Takes what has arrived, up to some from each socket, and gives how many datagrams that were.
    pub(super) fn listen(&mut self) -> Result<(Heard, usize)> {
        const AT_ONCE: usize = 64;
        let (mut heard, mut came) = (Heard::default(), 0);
        for socket in &self.sockets {
            for _ in 0..AT_ONCE {
                let len = match socket.recv(&mut self.buffer) {
                    Ok(len) => len,
                    Err(error) if is_quiet(&error) => break,
                    Err(error) => return Err(error).context("receiving from the gateway"),
                };
                came += 1;
                let Some(datagram) = self.buffer.get(..len) else {
                    continue;
                };
                let Some(member) = whose(datagram).and_then(|n| self.members.get_mut(n)) else {
                    continue;
                };
                member.take(datagram, &mut self.out, socket, &mut heard)?;
            }
        }
        Ok((heard, came))
    }
}

impl Member {
    fn take(
        &mut self,
        datagram: &[u8],
        out: &mut [u8],
        socket: &UdpSocket,
        heard: &mut Heard,
    ) -> Result<()> {
        let kind = datagram.first().copied();
        match self.tunn.decapsulate(None, datagram, out) {
            TunnResult::WriteToNetwork(answer) => {
                // The first packet after a response, which confirms the session to the gateway.
                if (kind, datagram.len()) == (Some(RESPONSE.0), RESPONSE.1) {
                    heard.responses += 1;
                    self.has_session = true;
                }
                return send(Some(socket), answer);
            }
            TunnResult::WriteToTunnelV4(packet, _) if kind == Some(DATA) => {
                self.received += packet.len() as u64;
            }
            TunnResult::Done if kind == Some(COOKIE) => heard.cookies += 1,
            TunnResult::Done
            | TunnResult::Err(_)
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => {}
        }
        Ok(())
    }
}

/// A client that takes as many answers as come: boringtun's own limit is ten.
fn tunn(secret: StaticSecret, public: [u8; 32], gateway: [u8; 32], number: u32) -> Tunn {
    let limiter = Arc::new(RateLimiter::new(&PublicKey::from(public), u64::MAX));
    let gateway = PublicKey::from(gateway);
    Tunn::new(secret, gateway, None, None, number, Some(limiter))
}

/// The client of a datagram, from its receiver index: boringtun has a client's number in the upper 24 bits.
fn whose(datagram: &[u8]) -> Option<usize> {
    let at = match datagram.first()? {
        2 => 8,
        3 | 4 => 4,
        _ => return None,
    };
    let index = datagram.get(at..at + 4)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(index) >> 8).ok()
}

fn socket(gateway: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind("0.0.0.0:0").context("binding a client's socket")?;
    socket
        .connect(gateway)
        .context("connecting a client's socket")?;
    socket
        .set_nonblocking(true)
        .context("a socket that does not wait")?;
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES)
        .context("asking for a large buffer")?;
    Ok(socket)
}

fn send(socket: Option<&UdpSocket>, datagram: &[u8]) -> Result<()> {
    match socket.map(|socket| socket.send(datagram)) {
        // A full queue is a loss, as on any wire.
        Some(Err(error)) if !is_quiet(&error) => Err(error).context("sending to the gateway"),
        _ => Ok(()),
    }
}

fn is_quiet(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionRefused
    ) || error.raw_os_error() == Some(nix::libc::ENOBUFS)
}

/// Jain's index of fairness: 1 when all have the same, 1/n when one has all.
pub(super) fn jain(shares: &[f64]) -> f64 {
    let (sum, squares) = shares
        .iter()
        .fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
    if squares == 0.0 {
        return 0.0;
    }
    sum * sum / (shares.len() as f64 * squares)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fairness_is_one_for_equals_and_one_nth_for_a_monopoly() {
        assert_eq!(jain(&[]), 0.0);
        assert_eq!(jain(&[0.0, 0.0]), 0.0);
        assert_eq!(jain(&[3.0, 3.0, 3.0]), 1.0);
        assert_eq!(jain(&[5.0, 0.0, 0.0, 0.0]), 0.25);
    }

    #[test]
    fn a_datagram_names_its_client_by_its_receiver_index() {
        let mut data = [0; 32];
        data[0] = 4;
        data[4..8].copy_from_slice(&(77_u32 << 8 | 5).to_le_bytes());
        let mut response = [0; 92];
        response[0] = 2;
        response[8..12].copy_from_slice(&(9_u32 << 8).to_le_bytes());

        assert_eq!(whose(&data), Some(77));
        assert_eq!(whose(&response), Some(9));
        assert_eq!(whose(&[1; 148]), None);
        assert_eq!(whose(&data[..6]), None);
    }
}
