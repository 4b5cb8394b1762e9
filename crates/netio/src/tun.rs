//! The TUN device: one nonblocking descriptor per queue, frames of a `virtio_net_hdr` and an IP packet, which with
//! the kernel's segmentation offload stands for many.
//!
//! A queue is read one frame at a time into the caller's buffer until it is empty. What the kernel lacks it falls back from
//! by itself, and [`Tun::offloads`] tells; a kernel without the header gets and gives packets behind ten zeros that only we see.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

/// The length of the `virtio_net_hdr` in front of every packet.
pub const HEADER_BYTES: usize = 10;

/// What a receive buffer must hold: the header and the longest packet.
pub const FRAME_BYTES: usize = HEADER_BYTES + 65_535;

/// `linux/if_tun.h`, not in libc for every target: checksums, TSO of both families, with ECN, and USO (Linux 6.2).
const TUN_F_CSUM: libc::c_uint = 0x01;
const TUN_F_TSO: libc::c_uint = 0x02 | 0x04 | 0x08;
const TUN_F_USO: libc::c_uint = 0x20 | 0x40;

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

/// Which super-packets the device hands over and takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Of TCP.
    pub tcp: bool,
    /// Of UDP.
    pub udp: bool,
}

/// Whether to use the kernel's segmentation offload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offload {
    /// Where the kernel has it.
    #[default]
    Auto,
    /// Never: every packet is its own system call.
    Never,
}

/// One queue of a TUN device; the device goes away with its last queue.
#[derive(Debug)]
pub struct Tun {
    file: File,
    /// Whether the kernel puts the header in front, or we do.
    has_header: bool,
    offloads: Offloads,
}

impl Tun {
    /// Opens the device `name`, making it if needed, with `queues` queues, and sets its MTU; it is left down.
    ///
    /// # Errors
    /// By cause, see [`TunError`].
    pub fn open(name: &str, mtu: u16, queues: usize) -> Result<Vec<Self>, TunError> {
        Self::open_with(name, mtu, queues, Offload::Auto)
    }

    /// The same, with a say on offloads.
    ///
    /// # Errors
    /// By cause, see [`TunError`].
    pub fn open_with(
        name: &str,
        mtu: u16,
        queues: usize,
        offload: Offload,
    ) -> Result<Vec<Self>, TunError> {
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
            .map(|_| Self::open_queue(name, queues, offload))
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(first) = opened.first() {
            say_what_lacks(name, first.offloads, offload);
        }
        set_mtu(name, mtu).map_err(|source| TunError::Os {
            what: "setting the MTU",
            name: name.to_owned(),
            source,
        })?;
        Ok(opened)
    }

    fn open_queue(name: &str, queues: usize, offload: Offload) -> Result<Self, TunError> {
        let file = open_driver(name)?;
        let mut flags = libc::IFF_TUN | libc::IFF_NO_PI;
        if queues > 1 {
            flags |= libc::IFF_MULTI_QUEUE;
        }
        let has_header = match attach(&file, name, flags | libc::IFF_VNET_HDR) {
            Ok(()) => true,
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                attach(&file, name, flags).map_err(|e| not_attached(name, e))?;
                false
            }
            Err(e) => return Err(not_attached(name, e)),
        };
        let offloads = if has_header {
            choose_offloads(&file, offload)
        } else {
            Offloads::default()
        };
        Ok(Self {
            file,
            has_header,
            offloads,
        })
    }

    /// What the kernel agreed to.
    #[must_use]
    pub fn offloads(&self) -> Offloads {
        self.offloads
    }

    /// Reads one frame into `buf`, which should hold [`FRAME_BYTES`], and returns its length, or `None` when the queue is empty.
    ///
    /// # Errors
    /// When the device is gone or down for good; a packet longer than `buf` is cut by the kernel.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        let ours = if self.has_header { 0 } else { HEADER_BYTES };
        let (header, rest) = buf
            .split_at_mut_checked(ours)
            .ok_or(io::ErrorKind::InvalidInput)?;
        header.fill(0);
        match (&self.file).read(rest) {
            Ok(len) => Ok(Some(ours + len)),
            Err(e) if is_transient(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Writes one frame.
    ///
    /// # Errors
    /// When the device is gone.
    pub fn send(&self, frame: &[u8]) -> io::Result<Written> {
        let ours = if self.has_header { 0 } else { HEADER_BYTES };
        write_to(&self.file, frame.get(ours..).unwrap_or_default())
    }
}

/// A descriptor of the driver, for [`attach`].
pub(crate) fn open_driver(name: &str) -> Result<File, TunError> {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun");
    opened.map_err(|source| match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TunError::NoDriver,
        Some(libc::EACCES | libc::EPERM) => TunError::Permission,
        _ => TunError::Os {
            what: "opening /dev/net/tun",
            name: name.to_owned(),
            source,
        },
    })
}

pub(crate) fn not_attached(name: &str, source: io::Error) -> TunError {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => TunError::Permission,
        Some(libc::EBUSY) => TunError::Busy(name.to_owned()),
        _ => TunError::Os {
            what: "attaching a queue",
            name: name.to_owned(),
            source,
        },
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

pub(crate) fn write_to(mut file: &File, frame: &[u8]) -> io::Result<Written> {
    match file.write(frame) {
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

pub(crate) fn is_transient(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

pub(crate) fn is_interface_name(name: &str) -> bool {
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
pub(crate) fn attach(file: &File, name: &str, flags: libc::c_int) -> io::Result<()> {
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

/// Asks for what the kernel may have, the newest first; `Never` still takes the header, with nothing in it.
fn choose_offloads(file: &File, offload: Offload) -> Offloads {
    let wanted: &[libc::c_uint] = match offload {
        Offload::Auto => &[TUN_F_CSUM | TUN_F_TSO | TUN_F_USO, TUN_F_CSUM | TUN_F_TSO],
        Offload::Never => &[0],
    };
    let agreed = wanted
        .iter()
        .find(|flags| set_offload(file, **flags).is_ok());
    let agreed = agreed.copied().unwrap_or(0);
    Offloads {
        tcp: agreed & TUN_F_TSO != 0,
        udp: agreed & TUN_F_USO != 0,
    }
}

fn say_what_lacks(name: &str, has: Offloads, offload: Offload) {
    if offload == Offload::Never || has.tcp && has.udp {
        return;
    }
    let lacks = if has.tcp { "UDP" } else { "TCP and UDP" };
    tracing::info!(
        interface = name,
        "this kernel has no segmentation offload for {lacks}; its packets pass one by one"
    );
}

#[expect(unsafe_code, reason = "TUNSETOFFLOAD has no safe form")]
fn set_offload(file: &File, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the argument is a number.
    let status = unsafe {
        libc::ioctl(
            file.as_raw_fd(),
            libc::TUNSETOFFLOAD as _,
            libc::c_ulong::from(flags),
        )
    };
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
