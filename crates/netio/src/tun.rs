//! The TUN device: one nonblocking descriptor per queue, whole IP packets without a header of the kernel's.
//!
//! A queue is read one packet at a time into the caller's buffer until it is empty. Segmentation offload
//! (`IFF_VNET_HDR`) is to come here; callers that keep [`HEADROOM`] free bytes in front of a packet need not change.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

/// Bytes to leave free in front of every packet that is read from or written to a queue: room for a virtio header.
pub const HEADROOM: usize = 12;

/// The kernel's limit on queues of one device (`MAX_TAP_QUEUES`).
const MAX_QUEUES: usize = 256;

/// IPv6's minimum (RFC 8200, section 5); below it a dual-stack tunnel cannot work.
const MIN_MTU: u16 = 1_280;

/// Why a TUN device could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// The kernel has no TUN driver.
    #[error(
        "/dev/net/tun is missing; load the tun module (`modprobe tun`) or give the container that device"
    )]
    NoDriver,
    /// Not root, or without `CAP_NET_ADMIN`.
    #[error("no permission to open a TUN device; run as root or with CAP_NET_ADMIN")]
    Permission,
    /// Another process holds the device.
    #[error("interface {0} is in use by another process; stop it or choose another name")]
    Busy(String),
    /// Not a name that Linux takes.
    #[error("{0:?} is not an interface name; use 1 to 15 letters, digits, '-', '_' or '.'")]
    BadName(String),
    /// Too few or too many queues.
    #[error("{0} queues are not possible; use 1 to 256")]
    BadQueues(usize),
    /// Below IPv6's minimum.
    #[error("an MTU of {0} is too small; use 1280 or more")]
    BadMtu(u16),
    /// The kernel refused for another reason.
    #[error("{what} for interface {name} failed")]
    Os {
        /// The step that failed.
        what: &'static str,
        /// The interface.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What became of a packet written to a queue.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The kernel has it.
    Yes,
    /// The kernel's queue is full: the packet is dropped.
    Full,
    /// The kernel does not take it: the interface is down, or it is no IP packet.
    Refused,
}

/// One queue of a TUN device; the device goes away with its last queue.
#[derive(Debug)]
pub struct Tun {
    file: File,
}

impl Tun {
    /// Opens the device `name`, making it if needed, with `queues` queues, and sets its MTU; it is left down.
    ///
    /// # Errors
    /// By cause, see [`TunError`].
    pub fn open(name: &str, mtu: u16, queues: usize) -> Result<Vec<Self>, TunError> {
        if !is_interface_name(name) {
            return Err(TunError::BadName(name.to_owned()));
        }
        if !(1..=MAX_QUEUES).contains(&queues) {
            return Err(TunError::BadQueues(queues));
        }
        if mtu < MIN_MTU {
            return Err(TunError::BadMtu(mtu));
        }
        let opened = (0..queues)
            .map(|_| Self::open_queue(name, queues))
            .collect::<Result<Vec<_>, _>>()?;
        set_mtu(name, mtu).map_err(|source| TunError::Os {
            what: "setting the MTU",
            name: name.to_owned(),
            source,
        })?;
        Ok(opened)
    }

    fn open_queue(name: &str, queues: usize) -> Result<Self, TunError> {
        let os = |what, source| TunError::Os {
            what,
            name: name.to_owned(),
            source,
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")
            .map_err(|e| match e.raw_os_error() {
                Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TunError::NoDriver,
                Some(libc::EACCES | libc::EPERM) => TunError::Permission,
                _ => os("opening /dev/net/tun", e),
            })?;
        let mut flags = libc::IFF_TUN | libc::IFF_NO_PI;
        if queues > 1 {
            flags |= libc::IFF_MULTI_QUEUE;
        }
        attach(&file, name, flags).map_err(|e| match e.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => TunError::Permission,
            Some(libc::EBUSY) => TunError::Busy(name.to_owned()),
            _ => os("attaching a queue", e),
        })?;
        Ok(Self { file })
    }

    /// Reads one packet into `buf` and returns its length, or `None` when the queue is empty.
    ///
    /// # Errors
    /// When the device is gone or down for good; a packet longer than `buf` is cut by the kernel.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        match (&self.file).read(buf) {
            Ok(len) => Ok(Some(len)),
            Err(e) if is_transient(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Writes one packet.
    ///
    /// # Errors
    /// When the device is gone.
    pub fn send(&self, packet: &[u8]) -> io::Result<Written> {
        match (&self.file).write(packet) {
            Ok(_) => Ok(Written::Yes),
            Err(e) if is_transient(&e) => Ok(Written::Full),
            Err(e)
                if matches!(
                    e.raw_os_error(),
                    Some(libc::EIO | libc::EINVAL | libc::ENOBUFS)
                ) =>
            {
                Ok(Written::Refused)
            }
            Err(e) => Err(e),
        }
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn is_transient(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

fn is_interface_name(name: &str) -> bool {
    (1..libc::IFNAMSIZ).contains(&name.len())
        && name != "."
        && name != ".."
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// An `ifreq` for `name`, which [`is_interface_name`] accepted.
fn ifreq(name: &str, value: libc::__c_anonymous_ifr_ifru) -> libc::ifreq {
    let mut ifr_name = [0; libc::IFNAMSIZ];
    for (slot, byte) in ifr_name.iter_mut().zip(name.bytes()) {
        *slot = byte as libc::c_char;
    }
    libc::ifreq {
        ifr_name,
        ifr_ifru: value,
    }
}

#[expect(unsafe_code, reason = "TUNSETIFF has no safe form")]
fn attach(file: &File, name: &str, flags: libc::c_int) -> io::Result<()> {
    let flags = libc::c_short::try_from(flags).map_err(|_| io::ErrorKind::InvalidInput)?;
    let request = ifreq(name, libc::__c_anonymous_ifr_ifru { ifru_flags: flags });
    // SAFETY: the descriptor is open and `request` is a whole, initialised ifreq that outlives the call.
    let status = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw const request) };
    if status < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[expect(unsafe_code, reason = "SIOCSIFMTU has no safe form")]
fn set_mtu(name: &str, mtu: u16) -> io::Result<()> {
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
    let request = ifreq(
        name,
        libc::__c_anonymous_ifr_ifru {
            ifru_mtu: mtu.into(),
        },
    );
    // SAFETY: the descriptor is open and `request` is a whole, initialised ifreq that outlives the call.
    let status = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFMTU as _,
            &raw const request,
        )
    };
    if status < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
