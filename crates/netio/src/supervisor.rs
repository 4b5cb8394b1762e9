//! What systemd hands to a service and wants to hear from it: open sockets (`sd_listen_fds(3)`), and when the service is
//! ready and when it stops (`sd_notify(3)`). Both are environment variables and need no library.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;
use nix::sys::socket::{SockType, getsockopt, sockopt};

/// The first descriptor that is handed over (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;
/// More are a mistake: nobody listens in so many places.
const MAX: RawFd = 128;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// Sockets that were bound by whoever started this process; none of them blocks.
#[derive(Debug, Default)]
pub struct Inherited {
    /// Bound.
    pub udp: Vec<UdpSocket>,
    /// Listening.
    pub tcp: Vec<TcpListener>,
}

impl Inherited {
    /// Whether nothing was handed over.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.udp.is_empty() && self.tcp.is_empty()
    }
}

/// Why sockets that were announced cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// `LISTEN_FDS` is not what systemd writes.
    #[error("LISTEN_FDS is {0:?}, which is not a number up to {MAX}")]
    Count(String),
    /// A descriptor is not there, or is something else.
    #[error(
        "descriptor {fd} of those in LISTEN_FDS is neither a UDP socket nor a listening TCP socket"
    )]
    Kind {
        /// Its number.
        fd: RawFd,
        /// What the kernel said of it.
        source: io::Error,
    },
}

/// Takes the sockets that were handed over; none the second time, or when none were.
///
/// To be called before the process opens anything: the numbers in the environment are believed.
///
/// # Errors
/// When something was handed over that is no such socket.
pub fn sockets() -> Result<Inherited, InheritError> {
    let mut inherited = Inherited::default();
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(inherited);
    }
    let word = |name| env::var(name).ok();
    let count = announced(word("LISTEN_PID"), word("LISTEN_FDS"), std::process::id())?;
    for fd in FIRST..FIRST + count {
        sort(adopt(fd)?, &mut inherited).map_err(|source| InheritError::Kind { fd, source })?;
    }
    Ok(inherited)
}

/// How many descriptors are for this process, and not for a parent that did not clear its environment.
fn announced(pid: Option<String>, fds: Option<String>, own: u32) -> Result<RawFd, InheritError> {
    let (Some(pid), Some(fds)) = (pid, fds) else {
        return Ok(0);
    };
    if pid.parse() != Ok(own) {
        return Ok(0);
    }
    match fds.parse() {
        Ok(count) if (0..=MAX).contains(&count) => Ok(count),
        Ok(_) | Err(_) => Err(InheritError::Count(fds)),
    }
}

#[expect(
    unsafe_code,
    reason = "a descriptor that another process opened for this one has only a number"
)]
fn adopt(fd: RawFd) -> Result<OwnedFd, InheritError> {
    // SAFETY: touches a flag of a descriptor and no memory; a number that is not open is refused.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
        let source = io::Error::last_os_error();
        return Err(InheritError::Kind { fd, source });
    }
    // SAFETY: it is open, the environment says under our own process id that it was opened for us, and `TAKEN` that nobody
    // has taken it before.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn sort(fd: OwnedFd, inherited: &mut Inherited) -> io::Result<()> {
    let kind = getsockopt(&fd, sockopt::SockType)?;
    if kind == SockType::Datagram {
        let socket = UdpSocket::from(fd);
        // A Unix socket has no such address.
        socket.local_addr()?;
        socket.set_nonblocking(true)?;
        inherited.udp.push(socket);
    } else if kind == SockType::Stream && getsockopt(&fd, sockopt::AcceptConn)? {
        let listener = TcpListener::from(fd);
        listener.local_addr()?;
        listener.set_nonblocking(true)?;
        inherited.tcp.push(listener);
    } else {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(())
}

/// Tells the supervisor, if it wants to know: `READY=1`, `STOPPING=1`, `STATUS=…`.
///
/// # Errors
/// When it cannot be told.
pub fn tell(state: &str) -> io::Result<()> {
    let Some(name) = env::var_os("NOTIFY_SOCKET") else {
        return Ok(());
    };
    let name = name.as_encoded_bytes();
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(OsStr::from_bytes(name))?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(pid: &str, fds: &str) -> Result<RawFd, InheritError> {
        announced(Some(pid.to_owned()), Some(fds.to_owned()), 42)
    }

    #[test]
    fn sockets_of_another_process_are_left_alone() {
        assert_eq!(told("41", "2").unwrap(), 0);
        assert_eq!(told("", "2").unwrap(), 0);
        assert_eq!(announced(None, Some("2".to_owned()), 42).unwrap(), 0);
        assert_eq!(announced(Some("42".to_owned()), None, 42).unwrap(), 0);
    }

    #[test]
    fn a_count_that_systemd_would_not_write_is_refused() {
        for fds in ["-1", "129", "two", ""] {
            assert!(told("42", fds).is_err(), "{fds}");
        }
        assert_eq!(told("42", "2").unwrap(), 2);
    }

    #[test]
    fn a_file_a_unix_socket_and_a_socket_that_does_not_listen_are_refused() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let (unix, _other) = UnixDatagram::pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut inherited = Inherited::default();

        for fd in [file.into(), OwnedFd::from(unix), stream.into()] {
            assert!(sort(fd, &mut inherited).is_err());
        }

        assert!(inherited.is_empty());
        sort(listener.into(), &mut inherited).unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        sort(udp.into(), &mut inherited).unwrap();
        assert_eq!((inherited.udp.len(), inherited.tcp.len()), (1, 1));
    }
}
