//! TCP for servers that wait for nobody: listeners that share a port, one for each worker, and connections whose
//! reads and writes take what is there.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, SockaddrStorage, bind, listen, recv,
    send, setsockopt, socket, sockopt,
};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// A nonblocking listener of one address family.
#[derive(Debug)]
pub struct Listener(TcpListener);

impl Listener {
    /// Listens on `address`, which other listeners of the same user may share. An IPv6 listener takes IPv6 only. Nobody is
    /// accepted before the first byte has come, or `silence` is over.
    ///
    /// # Errors
    /// When the address is not there, another program listens on it, or the right to a low port is missing.
    pub fn bind(address: SocketAddr, silence: Duration) -> io::Result<Self> {
        let family = if address.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket(family, SockType::Stream, flags, None)?;
        if address.is_ipv6() {
            setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
        }
        // Accepted connections inherit it: an answer that follows another never waits for the other's acknowledgement.
        setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
        // Connections of a server that was killed may still be closing.
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        setsockopt(&fd, sockopt::ReusePort, &true)?;
        // Where the kernel will not, somebody who is silent takes a place until his time is over.
        let _undeferred = defer_accept(fd.as_fd(), silence);
        bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
        listen(&fd, Backlog::new(BACKLOG)?)?;
        Ok(Self(fd.into()))
    }

    /// The address and port in use.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// The next connection, if there is one.
    ///
    /// # Errors
    /// When there is one and it cannot be had, as without descriptors: it stays, so a wait for it ends at once.
    pub fn accept(&self) -> io::Result<Option<(Stream, SocketAddr)>> {
        match self.0.accept() {
            Ok((stream, peer)) => Ok(Some((Stream(stream), peer))),
            Err(error) if is_over(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Nobody is there, or nobody any more.
fn is_over(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted
    )
}

#[expect(unsafe_code, reason = "nix has no TCP_DEFER_ACCEPT")]
fn defer_accept(fd: BorrowedFd<'_>, silence: Duration) -> io::Result<()> {
    let seconds = libc::c_int::try_from(silence.as_secs()).unwrap_or(libc::c_int::MAX);
    // SAFETY: the option's value is the int that the pointer and the length tell of.
    let set = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            std::ptr::from_ref(&seconds).cast(),
            size_of_val(&seconds) as libc::socklen_t,
        )
    };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// One connection. Closing it is dropping it.
#[derive(Debug)]
pub struct Stream(TcpStream);

impl Stream {
    /// The address and port that the other side asked for.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Takes what has come: `None` when that is nothing, 0 bytes when the other side has closed.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match recv(self.0.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(read) => Ok(Some(read)),
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends what there is room for, and gives how many bytes that was.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        match send(self.0.as_raw_fd(), bytes, flags) {
            Ok(sent) => Ok(sent),
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}

/// For somebody who waits otherwise. Its reads block until it is told not to.
impl From<Stream> for TcpStream {
    fn from(stream: Stream) -> Self {
        stream.0
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::poll::{Interest, Poller};

    const SILENCE: Duration = Duration::from_secs(5);

    fn listener() -> Listener {
        Listener::bind("127.0.0.1:0".parse().unwrap(), SILENCE).unwrap()
    }

    fn await_readable(what: &impl AsFd) {
        let mut poller = Poller::new().unwrap();
        poller.add(what.as_fd(), 0, Interest::Readable).unwrap();
        assert_eq!(poller.wait(Some(SILENCE)).unwrap().count(), 1);
    }

    #[test]
    fn an_address_that_is_not_here_is_refused_and_one_that_is_shared_is_not() {
        let first = listener();
        let address = first.local_addr().unwrap();

        assert!(Listener::bind("192.0.2.1:0".parse().unwrap(), SILENCE).is_err());
        assert!(Listener::bind(address, SILENCE).is_ok());
        assert!(TcpListener::bind(address).is_err());
    }

    #[test]
    fn who_has_said_nothing_is_not_accepted_and_who_has_is_read_at_once() {
        let listener = listener();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(listener.accept().unwrap().is_none());

        client.write_all(b"hello").unwrap();
        await_readable(&listener);
        let (stream, peer) = listener.accept().unwrap().unwrap();

        assert_eq!(peer, client.local_addr().unwrap());
        let mut buffer = [0; 16];
        assert_eq!(stream.recv(&mut buffer).unwrap(), Some(5));
        assert_eq!(stream.recv(&mut buffer).unwrap(), None);
        drop(client);
        await_readable(&stream);
        assert_eq!(stream.recv(&mut buffer).unwrap(), Some(0));
    }

    #[test]
    fn what_finds_no_room_is_left_to_the_caller() {
        let listener = listener();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.write_all(b"x").unwrap();
        await_readable(&listener);
        let (stream, _) = listener.accept().unwrap().unwrap();
        let part = vec![7; 1 << 20];

        // The kernel makes room a few times before it stays full.
        assert!((0..1_000).any(|_| stream.send(&part).unwrap() == 0));
    }
}
