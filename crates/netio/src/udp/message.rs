//! `sendmsg` and `recvmsg` with the control messages of UDP's segmentation offload (`udp(7)`), on the stack.

use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// Linux's `include/uapi/linux/udp.h`; not in libc for every target.
const UDP_SEGMENT: libc::c_int = 103;
const UDP_GRO: libc::c_int = 104;

/// Room for one control message of an integer, aligned for `cmsghdr` on every target.
#[repr(align(8))]
struct Control([u8; 64]);

/// Sends `payload` as datagrams of `segment` bytes in one call.
#[expect(
    unsafe_code,
    reason = "sendmsg with a control message, without an allocation"
)]
pub(super) fn send_run(
    fd: BorrowedFd<'_>,
    to: SocketAddr,
    payload: &[u8],
    segment: usize,
) -> io::Result<()> {
    let segment = u16::try_from(segment).map_err(|_| io::ErrorKind::InvalidInput)?;
    let (mut name, name_len) = to_storage(to);
    let mut control = Control([0; 64]);
    let mut iov = libc::iovec {
        iov_base: payload.as_ptr().cast_mut().cast(),
        iov_len: payload.len(),
    };
    // SAFETY: CMSG_SPACE and CMSG_LEN are arithmetic on their argument; 64 bytes hold one u16 on every target.
    let (space, len) = unsafe { (libc::CMSG_SPACE(2), libc::CMSG_LEN(2)) };
    let header = message(&mut name, name_len, &mut iov, &mut control, space as usize);
    // SAFETY: `header` points to `name`, `iov` and `control`, which outlive the call; the first control message
    // lies within `control`, whose `space` bytes hold it whole; the kernel only reads through all of them.
    let sent = unsafe {
        let cmsg = libc::CMSG_FIRSTHDR(&raw const header);
        (*cmsg).cmsg_level = libc::IPPROTO_UDP;
        (*cmsg).cmsg_type = UDP_SEGMENT;
        (*cmsg).cmsg_len = len as _;
        ptr::copy_nonoverlapping(segment.to_ne_bytes().as_ptr(), libc::CMSG_DATA(cmsg), 2);
        libc::sendmsg(fd.as_raw_fd(), &raw const header, 0)
    };
    if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Receives into `buf`: the length, the sender, and the length of each datagram when there are several.
#[expect(
    unsafe_code,
    reason = "recvmsg with a control message, without an allocation"
)]
pub(super) fn receive(
    fd: BorrowedFd<'_>,
    buf: &mut [u8],
) -> io::Result<(usize, SocketAddr, Option<usize>)> {
    // SAFETY: all zeroes is a valid sockaddr_storage (family AF_UNSPEC).
    let mut name: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let mut control = Control([0; 64]);
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
    // SAFETY: the kernel filled `control` up to `msg_controllen`, and the macros stay within it; a UDP_GRO
    // message carries a c_int, read unaligned.
    let segment = unsafe {
        let cmsg = libc::CMSG_FIRSTHDR(&raw const header);
        let is_gro = !cmsg.is_null()
            && (*cmsg).cmsg_level == libc::IPPROTO_UDP
            && (*cmsg).cmsg_type == UDP_GRO;
        is_gro.then(|| ptr::read_unaligned(libc::CMSG_DATA(cmsg).cast::<libc::c_int>()))
    };
    let segment = segment
        .and_then(|s| usize::try_from(s).ok())
        .filter(|s| *s > 0);
    Ok((len, from, segment))
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
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control_len as _;
    header
}

#[expect(
    unsafe_code,
    reason = "sockaddr_storage is a union of the families' shapes"
)]
fn to_storage(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
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
fn from_storage(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
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
