//! Which way the kernel would send to an address, and being told when that may have changed.
//!
//! The messages that the kernel multicasts are not read: whoever is woken asks again what matters. Layouts:
//! `linux/rtnetlink.h`, `linux/if_link.h`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

use super::{
    HEADER_BYTES, IFLA_MTU, LinkIndex, Netlink, NetlinkError, RTA_DST, RTA_GATEWAY, RTA_OIF,
    Request, family_and_octets, socket_failed,
};

const RTM_GETLINK: u16 = 18;
const RTM_GETROUTE: u16 = 26;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_MARK: u16 = 16;
const RTAX_MTU: u16 = 2;
/// `ifinfomsg` and `rtmsg` are before the attributes.
const LINK_BODY_BYTES: usize = 16;
const ROUTE_BODY_BYTES: usize = 12;
/// `IFF_LOWER_UP` (there is a carrier), `linux/if.h`.
const IFF_LOWER_UP: u32 = 1 << 16;
/// `NLA_TYPE_MASK`.
const KIND_MASK: u16 = 0x3fff;
/// Links, addresses and routes of both families: `RTMGRP_LINK`, `_IPV4_IFADDR`, `_IPV4_ROUTE`, `_IPV6_IFADDR`, `_IPV6_ROUTE`.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
/// A multicast message may be cut; it is not read.
const NEWS_BYTES: usize = 64;

/// The way of packets to one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Out of this interface.
    pub link: LinkIndex,
    /// From this address.
    pub source: Option<IpAddr>,
    /// By this router.
    pub next_hop: Option<IpAddr>,
    /// The longest packet, when the kernel knows better than the interface: by a route's setting, or since a router on
    /// the way said so.
    pub mtu: Option<u32>,
}

/// An interface as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkState {
    /// Its longest packet.
    pub mtu: u32,
    /// Up, and connected.
    pub is_up: bool,
}

impl Netlink {
    /// The way that a packet with `mark` would take to `to`, out of `only` if given; `None` when there is none.
    pub fn way(
        &mut self,
        to: IpAddr,
        mark: u32,
        only: Option<LinkIndex>,
    ) -> Result<Option<Way>, NetlinkError> {
        let (family, octets) = family_and_octets(to);
        let mut request = Request::question(RTM_GETROUTE);
        request.body(&[&[family, octets.len() as u8 * 8, 0, 0], &[0; 8]]);
        request.attribute(RTA_DST, &octets);
        request.attribute(RTA_MARK, &mark.to_ne_bytes());
        if let Some(link) = only {
            request.attribute(RTA_OIF, &link.0.to_ne_bytes());
        }
        match self.inquire("find a route", request) {
            Ok(answer) => Ok(parse_way(&answer)),
            Err(NetlinkError::Refused {
                errno:
                    Errno::ENETUNREACH
                    | Errno::EHOSTUNREACH
                    | Errno::ENETDOWN
                    | Errno::ENODEV
                    | Errno::EINVAL
                    | Errno::EAFNOSUPPORT,
                ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// An interface's name, or its number when it has just gone.
    pub fn link_name(&self, link: LinkIndex) -> String {
        nix::net::if_::if_indextoname(link.0).map_or_else(
            |_| link.0.to_string(),
            |name| name.to_string_lossy().into_owned(),
        )
    }

    /// An interface's MTU, and whether it is up.
    pub fn link_state(&mut self, link: LinkIndex) -> Result<LinkState, NetlinkError> {
        let mut request = Request::question(RTM_GETLINK);
        request.body(&[&[0; 4], &link.0.to_ne_bytes(), &[0; 8]]);
        let answer = self.inquire("look at an interface", request)?;
        parse_link(&answer).ok_or(NetlinkError::Garbled)
    }
}

impl Request {
    /// A request whose answer is what was asked for, without an acknowledgement behind it.
    fn question(kind: u16) -> Self {
        let mut request = Self::new(kind, 0);
        request.flags &= !super::NLM_F_ACK;
        request
    }
}

/// Readable whenever a link, an address or a route has changed in this network namespace.
#[derive(Debug)]
pub struct Watch(OwnedFd);

impl Watch {
    /// Begins to listen.
    pub fn open() -> Result<Self, NetlinkError> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkRoute,
        )
        .map_err(socket_failed)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS)).map_err(socket_failed)?;
        Ok(Self(socket))
    }

    /// Takes what was told since the last call, and says whether there was anything; more than the kernel could keep for
    /// us is something too.
    pub fn drain(&self) -> io::Result<bool> {
        let mut is_news = false;
        loop {
            let mut news = [0; NEWS_BYTES];
            match recv(self.0.as_raw_fd(), &mut news, MsgFlags::empty()) {
                Ok(_) | Err(Errno::ENOBUFS) => is_news = true,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(is_news),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

fn parse_way(answer: &[u8]) -> Option<Way> {
    let attributes = answer.get(HEADER_BYTES + ROUTE_BODY_BYTES..)?;
    let mut way = Way {
        link: LinkIndex(0),
        source: None,
        next_hop: None,
        mtu: None,
    };
    for (kind, payload) in Attributes(attributes) {
        match kind {
            RTA_OIF => way.link = LinkIndex(number(payload)?),
            RTA_PREFSRC => way.source = address(payload),
            RTA_GATEWAY => way.next_hop = address(payload),
            RTA_METRICS => {
                let mut metrics = Attributes(payload);
                way.mtu = metrics
                    .find(|(kind, _)| *kind == RTAX_MTU)
                    .and_then(|(_, payload)| number(payload));
            }
            _ => {}
        }
    }
    (way.link != LinkIndex(0)).then_some(way)
}

fn parse_link(answer: &[u8]) -> Option<LinkState> {
    let flags = answer.get(HEADER_BYTES + 8..HEADER_BYTES + 12)?;
    let flags = number(flags)?;
    let attributes = answer.get(HEADER_BYTES + LINK_BODY_BYTES..)?;
    let (_, mtu) = Attributes(attributes).find(|(kind, _)| *kind == IFLA_MTU)?;
    Some(LinkState {
        mtu: number(mtu)?,
        is_up: flags & nix::libc::IFF_UP as u32 != 0 && flags & IFF_LOWER_UP != 0,
    })
}

fn number(payload: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(*payload.first_chunk()?))
}

fn address(payload: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(payload) {
        return Some(Ipv4Addr::from(v4).into());
    }
    let v6 = <[u8; 16]>::try_from(payload).ok()?;
    Some(Ipv6Addr::from(v6).into())
}

/// The attributes in a row; ends at the first that is not whole.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let header = self.0.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & KIND_MASK;
        let payload = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_cut_makes_no_way_and_no_panic() {
        let mut request = Request::question(RTM_GETROUTE);
        request.body(&[&[2, 32, 0, 0], &[0; 8]]);
        request.attribute(RTA_GATEWAY, &[198, 18, 0, 1]);
        let mut metrics = Request::question(0);
        metrics.attribute(RTAX_MTU, &1_400u32.to_ne_bytes());
        request.attribute(RTA_METRICS, &metrics.bytes);
        request.attribute(RTA_OIF, &7u32.to_ne_bytes());
        let bytes = request.finish(1);

        for cut in 0..bytes.len() {
            assert_eq!(parse_way(&bytes[..cut]), None);
        }
        let way = parse_way(&bytes).unwrap();

        assert_eq!(way.link, LinkIndex(7));
        assert_eq!(way.next_hop, Some(Ipv4Addr::new(198, 18, 0, 1).into()));
        assert_eq!(way.mtu, Some(1_400));
    }

    #[test]
    fn the_kernel_is_asked_about_the_way_to_this_machine_itself() {
        let mut netlink = Netlink::open().unwrap();
        let lo = netlink.link("lo").unwrap();

        let way = netlink.way(Ipv4Addr::LOCALHOST.into(), 0, None).unwrap();
        let state = netlink.link_state(lo).unwrap();

        assert_eq!(way.unwrap().link, lo);
        assert!(state.mtu >= 1_280, "{state:?}");
    }

    #[test]
    fn a_watch_that_was_told_nothing_has_nothing() {
        let watch = Watch::open().unwrap();

        assert!(!watch.drain().unwrap());
    }
}
