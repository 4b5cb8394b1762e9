//! `sendmsg` and `recvmsg` with the control messages of UDP's segmentation offload (`udp(7)`), on the stack.

use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// Linux's `include/uapi/linux/udp.h`; not in libc for every target.
const UDP_SEGMENT: libc::c_int = 103;
const UDP_GRO: libc::c_int = 104;

/// Room for two control messages of an integer each, aligned for `cmsghdr` on every target.
#[repr(align(8))]
pub(super) struct Control([u8; 64]);

/// Sends `payload`, as datagrams of `segment` bytes if there is one, under an outer TOS byte, in one call.
#[expect(
    unsafe_code,
    reason = "sendmsg with control messages, without an allocation"
)]
pub(super) fn send_run(
    fd: BorrowedFd<'_>,
    to: SocketAddr,
    payload: &[u8],
    segment: Option<usize>,
    tos: u8,
) -> io::Result<()> {
    let segment = segment.map(u16::try_from).transpose();
    let segment = segment.map_err(|_| io::ErrorKind::InvalidInput)?;
    let (mut name, name_len) = to_storage(to);
    let mut control = Control::EMPTY;
    let mut used = 0;
    if let Some(segment) = segment {
        used = control.put_segment(segment);
    }
    if tos != 0 {
        let (level, kind) = match to {
            SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TOS),
            SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
        };
        used = control.put(used, level, kind, &libc::c_int::from(tos).to_ne_bytes());
    }
    let mut iov = libc::iovec {
        iov_base: payload.as_ptr().cast_mut().cast(),
        iov_len: payload.len(),
    };
    let header = message(&mut name, name_len, &mut iov, &mut control, used);
    // SAFETY: `header` points to `name`, `iov` and the first `used` bytes of `control`, which outlive the call; the
    // kernel only reads through all of them.
    let sent = unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const header, 0) };
    if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// What one call received.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) len: usize,
    pub(super) from: SocketAddr,
    /// The length of each datagram when there are several.
    pub(super) segment: Option<usize>,
    /// The outer TOS or traffic class byte.
    pub(super) tos: u8,
}

/// Receives into `buf`.
#[expect(
    unsafe_code,
    reason = "recvmsg with control messages, without an allocation"
)]
pub(super) fn receive(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<Message> {
    // SAFETY: all zeroes is a valid sockaddr_storage (family AF_UNSPEC).
    let mut name: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let mut control = Control::EMPTY;
    let mut iov = libc::iovec {
        iov_base: buf.as_mut_ptr().cast(),
        iov_len: buf.len(),
    };
    let name_len = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    let mut header = message(&mut name, name_len, &mut iov, &mut control, 64);
    // SAFETY: `header` points to `name`, `iov` (the whole of `buf`) and `control`, all writable and alive.
    let len = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, 0) };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    let from = from_storage(&name).ok_or(io::ErrorKind::InvalidData)?;
    let (mut segment, mut tos) = (None, 0);
    // SAFETY: the kernel filled `control` up to `msg_controllen`, and the macros stay within it; UDP_GRO and IPV6_TCLASS
    // carry a c_int, read unaligned, IP_TOS one byte.
    unsafe {
        let mut cmsg = libc::CMSG_FIRSTHDR(&raw const header);
        while !cmsg.is_null() {
            let data = libc::CMSG_DATA(cmsg);
            match ((*cmsg).cmsg_level, (*cmsg).cmsg_type) {
                (libc::IPPROTO_UDP, UDP_GRO) => {
                    segment = Some(ptr::read_unaligned(data.cast::<libc::c_int>()));
                }
                (libc::IPPROTO_IP, libc::IP_TOS) => tos = data.read(),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    tos = ptr::read_unaligned(data.cast::<libc::c_int>()) as u8;
                }
                _ => {}
            }
            cmsg = libc::CMSG_NXTHDR(&raw const header, cmsg);
        }
    }
    let segment = segment
        .and_then(|s| usize::try_from(s).ok())
        .filter(|s| *s > 0);
    Ok(Message {
        len,
        from,
        segment,
        tos,
    })
}

impl Control {
    pub(super) const EMPTY: Self = Self([0; 64]);

    pub(super) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.0.as_mut_ptr()
    }

    /// Writes the length of the datagrams that a message is to be cut into, and gives how many bytes that took.
    pub(super) fn put_segment(&mut self, segment: u16) -> usize {
        self.put(0, libc::IPPROTO_UDP, UDP_SEGMENT, &segment.to_ne_bytes())
    }

    /// Writes one control message at `at`, which is 0 or what the last call returned; the caller's messages fit together.
    #[expect(
        unsafe_code,
        reason = "cmsghdr's fields and padding differ between C libraries"
    )]
    fn put(&mut self, at: usize, level: libc::c_int, kind: libc::c_int, data: &[u8]) -> usize {
        // SAFETY: CMSG_SPACE and CMSG_LEN are arithmetic on their argument.
        let (space, len) = unsafe {
            (
                libc::CMSG_SPACE(data.len() as libc::c_uint) as usize,
                libc::CMSG_LEN(data.len() as libc::c_uint),
            )
        };
        assert!(at + space <= self.0.len(), "two small messages fit");
        // SAFETY: `at` is a sum of CMSG_SPACEs and so aligned, and `space` bytes from it lie within the buffer.
        unsafe {
            let cmsg = self.0.as_mut_ptr().add(at).cast::<libc::cmsghdr>();
            (*cmsg).cmsg_level = level;
            (*cmsg).cmsg_type = kind;
            (*cmsg).cmsg_len = len as _;
            ptr::copy_nonoverlapping(data.as_ptr(), libc::CMSG_DATA(cmsg), data.len());
        }
        at + space
    }
}

/// A header over the four parts; its fields' types and padding differ between C libraries.
#[expect(unsafe_code, reason = "msghdr has private padding on musl")]
fn message(
    name: &mut libc::sockaddr_storage,
    name_len: libc::socklen_t,
    iov: &mut libc::iovec,
    control: &mut Control,
    control_len: usize,
) -> libc::msghdr {
    // SAFETY: all zeroes is a valid msghdr: null pointers with zero lengths.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_name = ptr::from_mut(name).cast();
    header.msg_namelen = name_len;
    header.msg_iov = ptr::from_mut(iov);
    header.msg_iovlen = 1;
    if control_len > 0 {
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = control_len as _;
    }
    header
}

#[expect(
    unsafe_code,
    reason = "sockaddr_storage is a union of the families' shapes"
)]
pub(super) fn to_storage(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: all zeroes is valid for the three plain C structures.
    let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let place = ptr::from_mut(&mut storage);
    let len = match address {
        SocketAddr::V4(v4) => {
            // SAFETY: as above.
            let mut sin: libc::sockaddr_in = unsafe { mem::zeroed() };
            sin.sin_family = libc::AF_INET as libc::sa_family_t;
            sin.sin_port = v4.port().to_be();
            sin.sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
            // SAFETY: a sockaddr_storage is at least as large and as aligned as any sockaddr.
            unsafe { place.cast::<libc::sockaddr_in>().write(sin) };
            mem::size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            // SAFETY: as above.
            let mut sin6: libc::sockaddr_in6 = unsafe { mem::zeroed() };
            sin6.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            sin6.sin6_port = v6.port().to_be();
            sin6.sin6_flowinfo = v6.flowinfo();
            sin6.sin6_addr.s6_addr = v6.ip().octets();
            sin6.sin6_scope_id = v6.scope_id();
            // SAFETY: as above.
            unsafe { place.cast::<libc::sockaddr_in6>().write(sin6) };
            mem::size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, len as libc::socklen_t)
}

#[expect(
    unsafe_code,
    reason = "sockaddr_storage is a union of the families' shapes"
)]
pub(super) fn from_storage(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let place = ptr::from_ref(storage);
    match libc::c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the kernel wrote a sockaddr_in, which fits and is aligned.
            let sin = unsafe { place.cast::<libc::sockaddr_in>().read() };
            let ip = Ipv4Addr::from(sin.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddrV4::new(ip, u16::from_be(sin.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the kernel wrote a sockaddr_in6, which fits and is aligned.
            let sin6 = unsafe { place.cast::<libc::sockaddr_in6>().read() };
            let ip = Ipv6Addr::from(sin6.sin6_addr.s6_addr);
            let port = u16::from_be(sin6.sin6_port);
            Some(SocketAddrV6::new(ip, port, sin6.sin6_flowinfo, sin6.sin6_scope_id).into())
        }
        _ => None,
    }
}
