//! Sockets towards resolvers. The caller may prepare each one (mark it, bind it to an interface) before
//! it is connected.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;

use tokio::net::{TcpSocket, TcpStream, UdpSocket};

type Prepare = dyn Fn(BorrowedFd<'_>, SocketAddr) -> io::Result<()> + Send + Sync;

/// Makes sockets; by default plain ones.
#[derive(Clone, Default)]
pub struct SocketFactory {
    prepare: Option<Arc<Prepare>>,
}

impl SocketFactory {
    /// Calls `prepare` with each new socket and the address that it will be connected to.
    pub fn prepared_by(
        prepare: impl Fn(BorrowedFd<'_>, SocketAddr) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self {
            prepare: Some(Arc::new(prepare)),
        }
    }

    /// A UDP socket that exchanges packets with `remote` only.
    pub(crate) async fn udp(&self, remote: SocketAddr) -> io::Result<UdpSocket> {
        let local: SocketAddr = match remote {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(local).await?;
        self.prepare(socket.as_fd(), remote)?;
        socket.connect(remote).await?;
        Ok(socket)
    }

    /// A TCP connection to `remote`.
    pub(crate) async fn tcp(&self, remote: SocketAddr) -> io::Result<TcpStream> {
        let socket = match remote {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        self.prepare(socket.as_fd(), remote)?;
        let stream = socket.connect(remote).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn prepare(&self, socket: BorrowedFd<'_>, remote: SocketAddr) -> io::Result<()> {
        self.prepare
            .as_ref()
            .map_or(Ok(()), |prepare| prepare(socket, remote))
    }
}
