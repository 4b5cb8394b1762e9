//! Which way a socket's datagrams take, and whether they may be cut on it; both can change while it is in use.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::Udp;
use crate::netlink::LinkIndex;

/// What becomes of a datagram that is longer than its path takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// [`Udp::send`](super::Udp::send) fails with `EMSGSIZE` once the kernel knows, and the path's routers drop it.
    Never,
    /// The kernel cuts it.
    Allowed,
}

impl Udp {
    /// Lets datagrams be cut or not.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_fragment(&self, fragment: Fragment) -> io::Result<()> {
        let (level, option) = match self.is_ipv4()? {
            true => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
            false => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
        };
        let value = match fragment {
            Fragment::Never => libc::IP_PMTUDISC_DO,
            Fragment::Allowed => libc::IP_PMTUDISC_WANT,
        };
        self.set(level, option, value)
    }

    /// Sends out of this interface, or with `None` where the routes lead. Needs no right, unlike `SO_BINDTODEVICE`, and
    /// datagrams are still taken from everywhere.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn set_way_out(&self, link: Option<LinkIndex>) -> io::Result<()> {
        let (level, option) = match self.is_ipv4()? {
            true => (libc::IPPROTO_IP, libc::IP_UNICAST_IF),
            false => (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_IF),
        };
        // In network order (ip(7), IP_UNICAST_IF).
        let index = link.map_or(0, LinkIndex::number).to_be();
        self.set(level, option, index.cast_signed())
    }

    fn is_ipv4(&self) -> io::Result<bool> {
        Ok(self.local_addr()?.is_ipv4())
    }

    #[expect(unsafe_code, reason = "options that no safe wrapper has")]
    fn set(&self, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
        // SAFETY: the descriptor is open while `self` lives, and the kernel reads a c_int from the pointer within the call.
        let result = unsafe {
            libc::setsockopt(
                self.as_fd().as_raw_fd(),
                level,
                option,
                (&raw const value).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Netlink;
    use crate::udp::{Sent, UdpOptions};

    #[test]
    fn a_datagram_longer_than_the_path_is_refused_unless_it_may_be_cut() {
        let udp = Udp::bind("127.0.0.1:0".parse().unwrap(), &UdpOptions::default()).unwrap();
        let to = udp.local_addr().unwrap();
        let lo = Netlink::open().unwrap().link("lo").unwrap();
        let mtu = Netlink::open().unwrap().link_state(lo).unwrap().mtu;
        let payload = vec![0; mtu.min(65_507) as usize];

        udp.set_fragment(Fragment::Never).unwrap();
        let whole = udp.send(to, &payload, payload.len());
        udp.set_fragment(Fragment::Allowed).unwrap();
        let cut = udp.send(to, &payload, payload.len());

        assert!(
            matches!(&whole, Sent::Failed(e) if e.raw_os_error() == Some(libc::EMSGSIZE))
                || mtu > 65_535,
            "{whole:?}"
        );
        assert!(matches!(cut, Sent::Yes), "{cut:?}");
    }

    #[test]
    fn a_socket_is_sent_out_of_an_interface_and_let_go_again() {
        let udp = Udp::bind("[::]:0".parse().unwrap(), &UdpOptions::default()).unwrap();
        let lo = Netlink::open().unwrap().link("lo").unwrap();

        udp.set_way_out(Some(lo)).unwrap();
        let other = udp.send("[2001:db8::1]:9".parse().unwrap(), &[0], 1);
        udp.set_way_out(None).unwrap();

        assert!(matches!(other, Sent::Failed(_)), "{other:?}");
    }
}
