//! The way from the router to its gateway: which WAN, from which address, how long a packet may be on it.
//!
//! The kernel is asked with the mark of the tunnel's own packets, and again whenever it says that a link, an address or a
//! route has changed; what it has learnt from ICMP (fragmentation needed, packet too big) is in its answer.

use std::io;
use std::net::IpAddr;
use std::time::Instant;

use netio::netlink::{LinkIndex, Netlink, NetlinkError, Watch, Way};
use netio::udp::Fragment;
use tokio::io::unix::AsyncFd;

use super::MARK;
use super::choice::{Choice, Usable, Which};
use crate::config::{Config, InterfaceName};

/// WireGuard's data message around a packet (16 bytes of header, 16 of tag), UDP's 8, and the IP header outside.
const AROUND_V4: u32 = 20 + 8 + 32;
const AROUND_V6: u32 = 40 + 8 + 32;
/// IPv6 in the tunnel needs it; a path that takes less gets datagrams in pieces.
const LEAST_MTU: u16 = 1_280;

/// The WANs, and what was seen of the way to the gateway.
pub(crate) struct Wan {
    watch: AsyncFd<Watch>,
    netlink: Netlink,
    interfaces: Vec<InterfaceName>,
    most_mtu: u16,
    /// Meaningful with a second WAN.
    pub(crate) choice: Choice,
    seen: Option<(IpAddr, Option<Way>)>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Look {
    /// How the gateway is reached; `None` when it cannot be.
    pub(crate) path: Option<Path>,
    /// The way to the same address was another one before.
    pub(crate) is_new: bool,
}

/// How the gateway is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path {
    /// The interface's name.
    pub(crate) interface: String,
    /// The only interface to send on; `None` where the routes lead.
    pub(crate) out: Option<LinkIndex>,
    /// What fits inside the tunnel.
    pub(crate) fit: Fit,
}

/// The tunnel's MTU, and whether its datagrams may be cut on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fit {
    pub(crate) mtu: u16,
    pub(crate) fragment: Fragment,
}

impl Wan {
    /// Begins to watch.
    pub(crate) fn open(config: &Config) -> Result<Self, NetlinkError> {
        #[expect(
            deprecated,
            reason = "a Watch owns its descriptor until it is dropped; the other constructor is unsafe"
        )]
        let watch = AsyncFd::new(Watch::open()?).map_err(NetlinkError::Socket)?;
        Ok(Self {
            watch,
            netlink: Netlink::open()?,
            interfaces: config.wans.clone(),
            most_mtu: config.tunnel.mtu,
            choice: Choice::new(),
            seen: None,
        })
    }

    /// Waits until something has changed in the router's network.
    pub(crate) async fn changed(&self) -> io::Result<()> {
        loop {
            let mut ready = self.watch.readable().await?;
            let is_news = self.watch.get_ref().drain()?;
            ready.clear_ready();
            if is_news {
                return Ok(());
            }
        }
    }

    /// Looks for the way to `to`.
    pub(crate) fn look(&mut self, to: IpAddr, now: Instant) -> Result<Look, NetlinkError> {
        let out = match self.interfaces.as_slice() {
            [first, second] => {
                let (first, second) = (first.clone(), second.clone());
                Some(self.choose(to, &first, &second, now)?)
            }
            _ => None,
        };
        let way = match out {
            // Chosen, and not there: the routes lead elsewhere, or nowhere.
            Some(None) | None => self.netlink.way(to, MARK, None)?,
            Some(Some(link)) => self.netlink.way(to, MARK, Some(link))?,
        };
        let path = match &way {
            Some(way) => Some(self.path(way, to, out.flatten())?),
            None => None,
        };
        let before = self.seen.replace((to, way));
        let is_new = match (before, &self.seen) {
            (Some((seen_to, before)), Some((_, after))) if seen_to == to => {
                place(before.as_ref()) != place(after.as_ref())
            }
            _ => false,
        };
        Ok(Look { path, is_new })
    }

    /// The interface of the WAN to use, if it exists.
    fn choose(
        &mut self,
        to: IpAddr,
        first: &InterfaceName,
        second: &InterfaceName,
        now: Instant,
    ) -> Result<Option<LinkIndex>, NetlinkError> {
        let usable = Usable {
            first: self.is_usable(first, to)?,
            second: self.is_usable(second, to)?,
        };
        self.choice.handle_usable(usable, now);
        let name = match self.choice.in_use() {
            Which::First => first,
            Which::Second => second,
        };
        Ok(self.netlink.link(name.as_str()).ok())
    }

    fn is_usable(&mut self, name: &InterfaceName, to: IpAddr) -> Result<bool, NetlinkError> {
        let Ok(link) = self.netlink.link(name.as_str()) else {
            return Ok(false);
        };
        Ok(self.netlink.link_state(link)?.is_up
            && self.netlink.way(to, MARK, Some(link))?.is_some())
    }

    fn path(
        &mut self,
        way: &Way,
        to: IpAddr,
        out: Option<LinkIndex>,
    ) -> Result<Path, NetlinkError> {
        let link_mtu = self.netlink.link_state(way.link)?.mtu;
        let mtu = way.mtu.map_or(link_mtu, |known| known.min(link_mtu));
        Ok(Path {
            interface: self.netlink.link_name(way.link),
            out,
            fit: fit(mtu, to, self.most_mtu),
        })
    }
}

/// What makes a way another one: not its MTU.
fn place(way: Option<&Way>) -> Option<(LinkIndex, Option<IpAddr>, Option<IpAddr>)> {
    way.map(|way| (way.link, way.source, way.next_hop))
}

/// What fits inside the tunnel on a path of `mtu` to `to`.
fn fit(mtu: u32, to: IpAddr, most: u16) -> Fit {
    let around = match to {
        IpAddr::V4(_) => AROUND_V4,
        IpAddr::V6(_) => AROUND_V6,
    };
    let inside = u16::try_from(mtu.saturating_sub(around)).unwrap_or(u16::MAX);
    if inside < LEAST_MTU {
        return Fit {
            mtu: LEAST_MTU,
            fragment: Fragment::Allowed,
        };
    }
    Fit {
        mtu: inside.min(most),
        fragment: Fragment::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &str = "198.18.1.2";
    const V6: &str = "2001:db8:b::2";

    #[test]
    fn a_path_too_short_for_ipv6_inside_gets_datagrams_in_pieces() {
        for (mtu, to) in [(1_339, V4), (1_359, V6), (576, V4), (0, V4)] {
            let fit = fit(mtu, to.parse().unwrap(), 1_420);

            assert_eq!((fit.mtu, fit.fragment), (1_280, Fragment::Allowed), "{mtu}");
        }
    }

    #[test]
    fn the_tunnel_takes_what_the_access_leaves_and_never_more_than_configured() {
        let cases = [
            (1_500, V4, 1_420, 1_420),
            (1_500, V6, 1_420, 1_420),
            (1_492, V6, 1_420, 1_412),
            (1_492, V4, 1_420, 1_420),
            (1_492, V4, 1_500, 1_432),
            (1_400, V4, 1_420, 1_340),
            (65_536, V4, 1_420, 1_420),
        ];
        for (mtu, to, most, inside) in cases {
            let fit = fit(mtu, to.parse().unwrap(), most);

            assert_eq!((fit.mtu, fit.fragment), (inside, Fragment::Never), "{mtu}");
        }
    }
}
