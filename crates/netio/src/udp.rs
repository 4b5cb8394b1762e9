//! UDP with the kernel's segmentation offload: one system call for a run of equal datagrams to one destination,
//! and one for a run that arrived. Where the kernel has no offload, the same calls work datagram by datagram.
//! Raw addresses and control messages are in `udp/message.rs`.

mod batch;
mod message;
mod overflow;
mod path;
pub mod steering;

pub use batch::{Batch, MAX_BATCH};
pub use path::Fragment;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};

/// The most datagrams that one [`Udp::send`] takes (the kernel's `UDP_MAX_SEGMENTS` before Linux 6.9).
pub const MAX_SEGMENTS: usize = 64;

/// The most bytes that one [`Udp::send`] takes: an IPv4 datagram's payload, less room for IP options.
pub const MAX_RUN_BYTES: usize = 65_000;

/// What a receive buffer must hold: the largest run that the kernel hands over.
const RECV_BYTES: usize = 65_536;

/// Why a UDP socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum UdpError {
    /// Another process has the port.
    #[error("UDP {0} is in use by another process; stop it or choose another port")]
    Busy(SocketAddr),
    /// A mark, a device or a low port without the capability for it.
    #[error("no permission for {what} on UDP {address}; run as root or with CAP_NET_ADMIN")]
    Permission {
        /// The step that was refused.
        what: &'static str,
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// The address is not on this machine.
    #[error("UDP {0} is not an address of this machine")]
    NoSuchAddress(SocketAddr),
    /// The kernel refused for another reason.
    #[error("{what} on UDP {address} failed")]
    Os {
        /// The step that failed.
        what: &'static str,
        /// The address that was asked for.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Whether to use the kernel's segmentation offload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offload {
    /// Where the kernel has it.
    #[default]
    Auto,
    /// For what is sent alone: what comes is told apart by the kernel, as [`Udp::recv_batch`] needs it.
    Sending,
    /// Never: the kernel neither joins nor cuts.
    Never,
}

/// How a socket is made.
#[derive(Clone, Debug)]
pub struct UdpOptions {
    /// Several sockets share the port, one per worker (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// The firewall mark of what is sent (`SO_MARK`).
    pub mark: Option<u32>,
    /// The only interface to send and receive on (`SO_BINDTODEVICE`).
    pub device: Option<String>,
    /// The kernel's buffer, in each direction; beyond the system's limit only with `CAP_NET_ADMIN`.
    pub buffer_bytes: usize,
    /// Segmentation offload.
    pub offload: Offload,
}

impl Default for UdpOptions {
    fn default() -> Self {
        Self {
            reuse_port: false,
            mark: None,
            device: None,
            buffer_bytes: 4 << 20,
            offload: Offload::Auto,
        }
    }
}

/// What became of a run given to [`Udp::send`].
#[must_use]
#[derive(Debug)]
pub enum Sent {
    /// The kernel has it.
    Yes,
    /// The socket's buffer is full: the run, or what was left of it, is dropped.
    Full,
    /// The kernel does not send it: no route, a firewall's rule, too big for the path.
    Failed(io::Error),
}

/// A nonblocking UDP socket of one address family.
#[derive(Debug)]
pub struct Udp {
    socket: UdpSocket,
    segments: AtomicBool,
}

impl Udp {
    /// Binds `address`; an IPv6 socket takes IPv6 only, so that both families can have the same port.
    ///
    /// # Errors
    /// By cause, see [`UdpError`].
    pub fn bind(address: SocketAddr, options: &UdpOptions) -> Result<Self, UdpError> {
        let failed = |what| move |e: Errno| refusal(what, address, e);
        let family = if address.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd =
            socket(family, SockType::Datagram, flags, None).map_err(failed("opening a socket"))?;
        if address.is_ipv6() {
            setsockopt(&fd, sockopt::Ipv6V6Only, &true).map_err(failed("IPV6_V6ONLY"))?;
        }
        if options.reuse_port {
            setsockopt(&fd, sockopt::ReusePort, &true).map_err(failed("SO_REUSEPORT"))?;
        }
        if let Some(mark) = options.mark {
            setsockopt(&fd, sockopt::Mark, &mark).map_err(failed("SO_MARK"))?;
        }
        if let Some(device) = &options.device {
            setsockopt(&fd, sockopt::BindToDevice, &device.into())
                .map_err(failed("SO_BINDTODEVICE"))?;
        }
        enlarge_buffers(&fd, options.buffer_bytes);
        bind(fd.as_raw_fd(), &SockaddrStorage::from(address)).map_err(failed("binding"))?;
        // Without it congestion marks stay behind, as in a kernel that does not know it.
        let _unmarked = match address {
            SocketAddr::V4(_) => setsockopt(&fd, sockopt::IpRecvTos, &true),
            SocketAddr::V6(_) => setsockopt(&fd, sockopt::Ipv6RecvTClass, &true),
        };
        if options.offload == Offload::Auto {
            // A kernel without it hands over one datagram at a time, which `recv` takes as well.
            let _without = setsockopt(&fd, sockopt::UdpGroSegment, &true);
        }
        Ok(Self {
            socket: UdpSocket::from(fd),
            segments: AtomicBool::new(options.offload != Offload::Never),
        })
    }

    /// A socket under a port that the kernel draws, which hears of `peer` alone: what others send there is answered by the
    /// kernel as if the port were closed.
    ///
    /// # Errors
    /// By cause, see [`UdpError`].
    pub fn connected(peer: SocketAddr, options: &UdpOptions) -> Result<Self, UdpError> {
        let any = match peer {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let udp = Self::bind(any, options)?;
        let connected = udp.socket.connect(peer);
        connected.map_err(|source| UdpError::Os {
            what: "connecting",
            address: peer,
            source,
        })?;
        Ok(udp)
    }

    /// A socket that somebody else has bound, for [`recv_batch`](Self::recv_batch) and [`send_batch`](Self::send_batch).
    #[must_use]
    pub fn of(socket: UdpSocket) -> Self {
        Self {
            socket,
            segments: AtomicBool::new(true),
        }
    }

    /// The address and port in use.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Datagrams that came and found the socket's buffer full, since it was bound; what the kernel had joined counts once.
    /// It wraps.
    ///
    /// # Errors
    /// When the kernel does not tell (Linux before 4.12).
    pub fn overflowed(&self) -> io::Result<u32> {
        overflow::drops(self.socket.as_fd())
    }

    /// A second descriptor of the same socket, for a run time that waits on it; sending and receiving stay here.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn to_wait_on(&self) -> io::Result<UdpSocket> {
        self.socket.try_clone()
    }

    /// Sends `payload` to `to`, cut into datagrams of `segment` bytes, of which the last may be shorter.
    ///
    /// At most [`MAX_SEGMENTS`] datagrams and [`MAX_RUN_BYTES`] bytes.
    pub fn send(&self, to: SocketAddr, payload: &[u8], segment: usize) -> Sent {
        self.send_marked(to, payload, segment, 0)
    }

    /// The same under a TOS or traffic class byte.
    pub fn send_marked(&self, to: SocketAddr, payload: &[u8], segment: usize, tos: u8) -> Sent {
        if segment == 0 || payload.len() <= segment {
            return self.send_one(to, payload, tos);
        }
        let mut is_refused = false;
        if self.segments.load(Ordering::Relaxed) {
            match message::send_run(self.socket.as_fd(), to, payload, Some(segment), tos) {
                Ok(()) => return Sent::Yes,
                Err(e) if is_full(&e) => return Sent::Full,
                Err(e) if lacks_segments(&e) => is_refused = true,
                Err(e) if e.raw_os_error() == Some(libc::EMSGSIZE) => {}
                Err(e) => return Sent::Failed(e),
            }
        }
        for datagram in payload.chunks(segment) {
            match self.send_one(to, datagram, tos) {
                Sent::Yes if is_refused => {
                    is_refused = false;
                    self.go_without_segments();
                }
                Sent::Yes => {}
                refused @ (Sent::Full | Sent::Failed(_)) => return refused,
            }
        }
        Sent::Yes
    }

    /// A run was refused of which the first datagram alone was not.
    fn go_without_segments(&self) {
        if self.segments.swap(false, Ordering::Relaxed) {
            tracing::info!("no UDP segmentation offload on the way out; sending one by one");
        }
    }

    fn send_one(&self, to: SocketAddr, datagram: &[u8], tos: u8) -> Sent {
        let sent = match tos {
            0 => self.socket.send_to(datagram, to).map(drop),
            _ => message::send_run(self.socket.as_fd(), to, datagram, None, tos),
        };
        match sent {
            Ok(()) => Sent::Yes,
            Err(e) if is_full(&e) => Sent::Full,
            Err(e) => Sent::Failed(e),
        }
    }

    /// Receives what has arrived from one sender, or `None` when nothing is waiting.
    ///
    /// # Errors
    /// When the socket is unusable; an ICMP error that came back is not one.
    pub fn recv<'a>(&self, buffer: &'a mut RecvBuffer) -> io::Result<Option<Received<'a>>> {
        match message::receive(self.socket.as_fd(), &mut buffer.0) {
            Ok(message) => {
                let bytes = buffer.0.get_mut(..message.len).unwrap_or_default();
                let segment = message.segment.unwrap_or(message.len).max(1);
                Ok(Some(Received {
                    from: message.from,
                    tos: message.tos,
                    segment,
                    bytes,
                }))
            }
            Err(e) if is_transient(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

impl AsFd for Udp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Where [`Udp::recv`] puts a run; one per worker, reused for ever.
#[derive(Debug)]
pub struct RecvBuffer(Box<[u8]>);

impl RecvBuffer {
    /// Room for the largest run.
    #[must_use]
    pub fn new() -> Self {
        Self(vec![0; RECV_BYTES].into_boxed_slice())
    }
}

impl Default for RecvBuffer {
    fn default() -> Self {
        Self::new()
    }
}

/// Datagrams of one sender, equally long but for the last.
#[derive(Debug)]
pub struct Received<'a> {
    /// Who sent them.
    pub from: SocketAddr,
    /// The TOS or traffic class byte that they arrived under.
    pub tos: u8,
    segment: usize,
    bytes: &'a mut [u8],
}

impl Received<'_> {
    /// The datagrams in the order of their arrival; an empty one is not reported.
    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.chunks(self.segment)
    }

    /// The same, for callers that decrypt in place.
    pub fn datagrams_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.bytes.chunks_mut(self.segment)
    }
}

/// Asks for more than the system's limit first, which needs a capability, then for what everybody may have.
fn enlarge_buffers(fd: &impl AsFd, bytes: usize) {
    // Smaller buffers only cost packets under bursts, so a refusal is not an error.
    let _receive = setsockopt(fd, sockopt::RcvBufForce, &bytes)
        .or_else(|_| setsockopt(fd, sockopt::RcvBuf, &bytes));
    let _send = setsockopt(fd, sockopt::SndBufForce, &bytes)
        .or_else(|_| setsockopt(fd, sockopt::SndBuf, &bytes));
}

fn refusal(what: &'static str, address: SocketAddr, e: Errno) -> UdpError {
    match e as i32 {
        libc::EADDRINUSE => UdpError::Busy(address),
        libc::EADDRNOTAVAIL => UdpError::NoSuchAddress(address),
        libc::EPERM | libc::EACCES => UdpError::Permission { what, address },
        _ => UdpError::Os {
            what,
            address,
            source: e.into(),
        },
    }
}

/// No offload in this kernel, or none on the interface that the route leads to; or, said with the same words by older kernels,
/// datagrams longer than the path takes; or an address that nothing can be sent to.
fn lacks_segments(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error(),
        Some(libc::EINVAL | libc::EIO | libc::EOPNOTSUPP | libc::ENOPROTOOPT)
    )
}

fn is_full(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::WouldBlock || e.raw_os_error() == Some(libc::ENOBUFS)
}

fn is_transient(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::WouldBlock
            | io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}

#[cfg(test)]
mod tests;
