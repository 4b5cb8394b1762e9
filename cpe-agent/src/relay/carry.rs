//! The sockets and the clock around [`Session`]: what QUIC wants to send is sent, what comes is handed in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use netio::udp::{Fragment, Sent, UdpOptions};
use netio::{RecvBuffer, Udp};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::sleep_until;

use super::quic::Session;
use super::{Carrier, Job, RelayChange, RelayError, first};
use crate::net::MARK;

/// The kernel's buffers: a burst of some milliseconds.
const BUFFER_BYTES: usize = 1 << 20;
/// Datagrams that are given to the kernel in one call.
const MAX_RUN: usize = 16;
/// Datagrams of the tunnel that are taken before QUIC may send.
const BATCH: usize = 64;

/// A connection through which the relay has agreed to carry.
pub(super) struct Connection {
    session: Session,
    wire: Udp,
    /// The same socket, to wait on.
    waiting: UdpSocket,
    remote: SocketAddr,
    received: RecvBuffer,
    out: Vec<u8>,
    told: Option<usize>,
}

/// What there is to do.
enum Ready {
    Wire,
    Local,
    Time,
}

pub(super) async fn open(job: &Job) -> Result<Connection, RelayError> {
    first::address(
        job,
        |job, server| async move { open_at(&job, server).await },
    )
    .await
}

async fn open_at(job: &Job, remote: SocketAddr) -> Result<Connection, RelayError> {
    let any = match remote.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    // The mark lets it past the kill-switch and the tunnel's routing.
    let options = UdpOptions {
        mark: Some(MARK),
        buffer_bytes: BUFFER_BYTES,
        ..UdpOptions::default()
    };
    let udp = Udp::bind(SocketAddr::new(any, 0), &options).map_err(|_| RelayError::Setup)?;
    udp.set_fragment(Fragment::Never)?;
    udp.set_way_out(job.way_out.as_ref().map(|out| out.link))?;
    let session = Session::connect(
        job.tls(b"h3")?,
        remote,
        &job.record.server_name,
        job.target,
        Instant::now(),
    )?;
    let mut connection = Connection {
        session,
        waiting: UdpSocket::from_std(udp.to_wait_on()?)?,
        wire: udp,
        remote,
        received: RecvBuffer::new(),
        out: Vec::new(),
        told: None,
    };
    while !connection.session.is_open() {
        connection.turn(None).await?;
    }
    Ok(connection)
}

impl Connection {
    /// Carries until either side is gone.
    pub(super) async fn carry(
        mut self: Box<Self>,
        job: &Job,
        local: &UdpSocket,
    ) -> Result<(), RelayError> {
        let at = local.local_addr()?;
        loop {
            let longest = self.session.max_udp();
            if self.told.is_none() || longest != self.told {
                self.told = longest;
                job.tell(RelayChange::Open {
                    carrier: Carrier::Quic,
                    at,
                    longest,
                })
                .await;
            }
            self.turn(Some(local)).await?;
        }
    }

    /// Waits for something and does all that follows from it.
    async fn turn(&mut self, local: Option<&UdpSocket>) -> Result<(), RelayError> {
        self.transmit(Instant::now());
        if let Some(error) = self.session.ended() {
            return Err(error);
        }
        let ready = self.wait(local).await?;
        let now = Instant::now();
        match (ready, local) {
            (Ready::Wire, _) => self.take_from_wire(now)?,
            (Ready::Local, Some(local)) => self.take_from_local(local),
            (Ready::Local, None) | (Ready::Time, _) => {}
        }
        self.session.handle_timeout(now);
        self.session.take_udp(|udp| {
            if let Some(local) = local {
                // What the packet thread does not take is lost, as on any wire.
                let _full = local.try_send(udp);
            }
        });
        Ok(())
    }

    async fn wait(&mut self, local: Option<&UdpSocket>) -> Result<Ready, RelayError> {
        let timer = self.session.poll_timeout();
        let time = async {
            match timer {
                Some(at) => sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let inside = async {
            match local {
                Some(local) => local.readable().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            readable = self.waiting.readable() => {
                readable?;
                Ok(Ready::Wire)
            }
            readable = inside => {
                readable?;
                Ok(Ready::Local)
            }
            () = time => Ok(Ready::Time),
        }
    }

    fn take_from_wire(&mut self, now: Instant) -> Result<(), RelayError> {
        for _ in 0..BATCH {
            let received = self.waiting.try_io(Interest::READABLE, || {
                match self.wire.recv(&mut self.received)? {
                    Some(received) => Ok(received),
                    None => Err(std::io::ErrorKind::WouldBlock.into()),
                }
            });
            let received = match received {
                Ok(received) => received,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            };
            if received.from == self.remote {
                for datagram in received.datagrams() {
                    self.session.handle_network_input(datagram, now);
                }
            }
        }
        Ok(())
    }

    fn take_from_local(&mut self, local: &UdpSocket) {
        let mut buffer = [0; 2048];
        for _ in 0..BATCH {
            // Nothing there, or the packet thread is gone, which ends this task too.
            let Ok(length) = local.try_recv(&mut buffer) else {
                break;
            };
            self.session
                .send_udp(buffer.get(..length).unwrap_or_default());
        }
    }

    fn transmit(&mut self, now: Instant) {
        loop {
            self.out.clear();
            let Some(transmit) = self.session.poll_transmit(MAX_RUN, &mut self.out, now) else {
                break;
            };
            let payload = self.out.get(..transmit.size).unwrap_or_default();
            let segment = transmit.segment_size.unwrap_or(transmit.size);
            match self.wire.send(self.remote, payload, segment) {
                Sent::Yes => {}
                // QUIC takes it for lost, and slows down.
                Sent::Full | Sent::Failed(_) => {}
            }
        }
    }
}

/// An aborted task says good-bye too.
impl Drop for Connection {
    fn drop(&mut self) {
        let now = Instant::now();
        self.session.close(now);
        self.transmit(now);
    }
}
