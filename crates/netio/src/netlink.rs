//! Links, addresses, routes and rules of the network namespace, by `NETLINK_ROUTE` requests.
//!
//! Requests are written out by hand (layouts: `linux/rtnetlink.h`, `linux/fib_rules.h`, `linux/if_addr.h`) and of answers
//! only what is needed is read: a few kilobytes on a router, where the general crates cost hundreds.
//! Everything is idempotent: adding what is there and deleting what is not are both a success.

mod way;

pub use way::{LinkState, Watch, Way};

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use ipnet::IpNet;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

/// The socket over which this thread changes the kernel's network state. Blocking; every call waits for its answer.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

/// Why a change did not happen.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No netlink socket, or the kernel did not answer on it.
    #[error("the kernel's netlink socket does not work")]
    Socket(#[source] io::Error),
    /// The interface does not exist in this network namespace.
    #[error("there is no network interface named {0}")]
    NoSuchLink(String),
    /// The kernel refused the change.
    #[error("the kernel refused to {what}")]
    Refused {
        /// What was asked, as an infinitive.
        what: &'static str,
        /// Its answer.
        #[source]
        errno: Errno,
    },
    /// The answer is not an acknowledgement of the request.
    #[error("the kernel answered a netlink request with something else")]
    Garbled,
}

impl NetlinkError {
    /// Tells a missing right (CAP_NET_ADMIN) from other refusals.
    pub fn is_permission(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                errno: Errno::EPERM | Errno::EACCES,
                ..
            }
        )
    }

    /// Tells a kernel without this address family (IPv6 switched off) from other refusals.
    pub fn is_unsupported_family(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                errno: Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP,
                ..
            }
        )
    }
}

/// A network interface's index in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkIndex(u32);

impl LinkIndex {
    /// As the kernel's calls take it.
    pub(crate) fn number(self) -> u32 {
        self.0
    }
}

/// Where packets of a route go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// Out of this interface, to the destination itself.
    Link(LinkIndex),
    /// To a next hop; the kernel finds the interface.
    Gateway(IpAddr),
    /// Nowhere: the sender learns that it is unreachable.
    Unreachable,
}

/// One route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Destination.
    pub to: IpNet,
    /// Next hop.
    pub via: Via,
    /// Routing table, 254 being `main`.
    pub table: u32,
    /// Preference; a lower one wins.
    pub metric: Option<u32>,
}

/// An address family, as rules have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Which packets a rule takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Select {
    /// All of them.
    All,
    /// Those with this mark.
    Marked(u32),
    /// Those without this mark.
    NotMarked(u32),
}

/// One policy rule: what it selects is looked up in `table`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Address family.
    pub family: Family,
    /// Place among the rules; a lower one is asked first.
    pub priority: u32,
    /// Which packets.
    pub select: Select,
    /// Table to look in.
    pub table: u32,
    /// Ignores a found route whose prefix is this long or shorter (0: ignores default routes).
    pub suppress_prefix_length: Option<u32>,
}

/// The number of the `main` routing table.
pub const TABLE_MAIN: u32 = 254;

// linux/rtnetlink.h
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const IFLA_MTU: u16 = 4;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_TABLE: u16 = 15;
const RT_TABLE_UNSPEC: u8 = 0;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;
const RTN_UNREACHABLE: u8 = 7;
// linux/if_addr.h
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_F_NODAD: u8 = 0x02;
// linux/fib_rules.h
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FR_ACT_TO_TBL: u8 = 1;
const FIB_RULE_INVERT: u32 = 0x2;
// linux/netfilter/nfnetlink.h, nfnetlink_conntrack.h: NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE
const CONNTRACK_DELETE: u16 = 1 << 8 | 2;
// linux/netlink.h
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const HEADER_BYTES: usize = 16;

/// An acknowledgement repeats the request, which is below 200 bytes; an interface with all its counters is below 3 KB.
const ANSWER_BYTES: usize = 8192;
/// The kernel answers at once; a silent one is broken.
const ANSWER_TIMEOUT_S: i64 = 5;

impl Netlink {
    /// Opens the socket in the calling thread's network namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        Self::open_for(SockProtocol::NetlinkRoute)
    }

    fn open_for(protocol: SockProtocol) -> Result<Self, NetlinkError> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            protocol,
        )
        .map_err(socket_failed)?;
        setsockopt(
            &socket,
            sockopt::ReceiveTimeout,
            &TimeVal::new(ANSWER_TIMEOUT_S as _, 0),
        )
        .map_err(socket_failed)?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Finds an interface by name.
    pub fn link(&self, name: &str) -> Result<LinkIndex, NetlinkError> {
        nix::net::if_::if_nametoindex(name)
            .map(LinkIndex)
            .map_err(|_| NetlinkError::NoSuchLink(name.to_owned()))
    }

    /// Sets an interface's MTU and brings it up.
    pub fn bring_up(&mut self, link: LinkIndex, mtu: u16) -> Result<(), NetlinkError> {
        let mut request = Request::new(RTM_NEWLINK, 0);
        let up = (nix::libc::IFF_UP as u32).to_ne_bytes();
        request.body(&[&[0; 4], &link.0.to_ne_bytes(), &up, &up]);
        request.attribute(IFLA_MTU, &u32::from(mtu).to_ne_bytes());
        self.ask("bring the interface up", request, &[])
    }

    /// Sets an interface's MTU.
    pub fn set_mtu(&mut self, link: LinkIndex, mtu: u16) -> Result<(), NetlinkError> {
        let mut request = Request::new(RTM_NEWLINK, 0);
        request.body(&[&[0; 4], &link.0.to_ne_bytes(), &[0; 8]]);
        request.attribute(IFLA_MTU, &u32::from(mtu).to_ne_bytes());
        self.ask("set the interface's MTU", request, &[])
    }

    /// Gives an interface an address; IPv6 ones are usable at once, without duplicate detection.
    pub fn add_address(&mut self, link: LinkIndex, address: IpNet) -> Result<(), NetlinkError> {
        let request = address_request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, link, address);
        self.ask("add an address", request, &[Errno::EEXIST])
    }

    /// Takes an address away.
    pub fn delete_address(&mut self, link: LinkIndex, address: IpNet) -> Result<(), NetlinkError> {
        let request = address_request(RTM_DELADDR, 0, link, address);
        self.ask(
            "delete an address",
            request,
            &[Errno::EADDRNOTAVAIL, Errno::ENODEV],
        )
    }

    /// Adds a route, in the place of one to the same destination in the same table.
    pub fn add_route(&mut self, route: &Route) -> Result<(), NetlinkError> {
        self.add_route_of(route, RTPROT_STATIC)
    }

    /// The same, marked as made by this routing protocol (`rtm_protocol`), by which others tell whose it is.
    pub fn add_route_of(&mut self, route: &Route, protocol: u8) -> Result<(), NetlinkError> {
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        let request = route_request(RTM_NEWROUTE, flags, route, protocol);
        self.ask("add a route", request, &[Errno::EEXIST])
    }

    /// Deletes a route.
    pub fn delete_route(&mut self, route: &Route) -> Result<(), NetlinkError> {
        self.delete_route_of(route, RTPROT_STATIC)
    }

    /// The same, if it is one of this routing protocol.
    pub fn delete_route_of(&mut self, route: &Route, protocol: u8) -> Result<(), NetlinkError> {
        let request = route_request(RTM_DELROUTE, 0, route, protocol);
        self.ask(
            "delete a route",
            request,
            &[Errno::ESRCH, Errno::ENOENT, Errno::ENODEV],
        )
    }

    /// Adds a policy rule.
    pub fn add_rule(&mut self, rule: &Rule) -> Result<(), NetlinkError> {
        let request = rule_request(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, rule);
        self.ask("add a routing rule", request, &[Errno::EEXIST])
    }

    /// Deletes a policy rule.
    pub fn delete_rule(&mut self, rule: &Rule) -> Result<(), NetlinkError> {
        let request = rule_request(RTM_DELRULE, 0, rule);
        self.ask(
            "delete a routing rule",
            request,
            &[Errno::ENOENT, Errno::ESRCH],
        )
    }

    fn ask(
        &mut self,
        what: &'static str,
        request: Request,
        fine: &[Errno],
    ) -> Result<(), NetlinkError> {
        let answer = self.exchange(request)?;
        let code = parse_ack(&answer).ok_or(NetlinkError::Garbled)?;
        let errno = Errno::from_raw(-code);
        if code == 0 || fine.contains(&errno) {
            Ok(())
        } else {
            Err(NetlinkError::Refused { what, errno })
        }
    }

    /// Asks for something; the answer is one message.
    fn inquire(&mut self, what: &'static str, request: Request) -> Result<Vec<u8>, NetlinkError> {
        let answer = self.exchange(request)?;
        match parse_ack(&answer) {
            Some(code) => Err(NetlinkError::Refused {
                what,
                errno: Errno::from_raw(-code),
            }),
            None => Ok(answer),
        }
    }

    fn exchange(&mut self, request: Request) -> Result<Vec<u8>, NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = request.finish(self.sequence);
        let kernel = NetlinkAddr::new(0, 0);
        sendto(self.socket.as_raw_fd(), &bytes, &kernel, MsgFlags::empty())
            .map_err(socket_failed)?;
        let mut answer = vec![0; ANSWER_BYTES];
        loop {
            let length = match recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::empty()) {
                Ok(length) => length,
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(socket_failed(errno)),
            };
            // Another number is that of a request that timed out earlier.
            if sequence_of(answer.get(..length).unwrap_or(&[])) == Some(self.sequence) {
                answer.truncate(length);
                return Ok(answer);
            }
        }
    }
}

/// Forgets every connection that the packet filter tracks, so that each is translated anew. Needed when the address that
/// they were translated to is no longer ours; a kernel without connection tracking has none to forget.
pub fn forget_connections() -> Result<(), NetlinkError> {
    let mut netfilter = Netlink::open_for(SockProtocol::NetlinkNetFilter)?;
    let mut request = Request::new(CONNTRACK_DELETE, 0);
    // nfgenmsg: any family, version 0; no filter, and so all of them.
    request.body(&[&[0; 4]]);
    netfilter.ask(
        "forget tracked connections",
        request,
        &[Errno::EINVAL, Errno::ENOENT],
    )
}

fn socket_failed(errno: Errno) -> NetlinkError {
    NetlinkError::Socket(errno.into())
}

fn address_request(kind: u16, flags: u16, link: LinkIndex, address: IpNet) -> Request {
    let (family, octets) = family_and_octets(address.addr());
    let mut request = Request::new(kind, flags);
    request.body(&[
        &[family, address.prefix_len(), IFA_F_NODAD, 0],
        &link.0.to_ne_bytes(),
    ]);
    request.attribute(IFA_LOCAL, &octets);
    request.attribute(IFA_ADDRESS, &octets);
    request
}

fn route_request(kind: u16, flags: u16, route: &Route, protocol: u8) -> Request {
    let (family, octets) = family_and_octets(route.to.network());
    let route_type = match route.via {
        Via::Link(_) | Via::Gateway(_) => RTN_UNICAST,
        Via::Unreachable => RTN_UNREACHABLE,
    };
    let scope = match (route.via, route.to) {
        (Via::Link(_), IpNet::V4(_)) => RT_SCOPE_LINK,
        (Via::Link(_) | Via::Gateway(_) | Via::Unreachable, _) => RT_SCOPE_UNIVERSE,
    };
    let mut request = Request::new(kind, flags);
    request.body(&[
        &[family, route.to.prefix_len(), 0, 0],
        &[RT_TABLE_UNSPEC, protocol, scope, route_type],
        &[0; 4],
    ]);
    request.attribute(RTA_DST, &octets);
    request.attribute(RTA_TABLE, &route.table.to_ne_bytes());
    if let Some(metric) = route.metric {
        request.attribute(RTA_PRIORITY, &metric.to_ne_bytes());
    }
    match route.via {
        Via::Link(link) => request.attribute(RTA_OIF, &link.0.to_ne_bytes()),
        Via::Gateway(hop) => request.attribute(RTA_GATEWAY, &family_and_octets(hop).1),
        Via::Unreachable => {}
    }
    request
}

fn rule_request(kind: u16, flags: u16, rule: &Rule) -> Request {
    let family = match rule.family {
        Family::V4 => nix::libc::AF_INET,
        Family::V6 => nix::libc::AF_INET6,
    };
    let (rule_flags, mark) = match rule.select {
        Select::All => (0, None),
        Select::Marked(mark) => (0, Some(mark)),
        Select::NotMarked(mark) => (FIB_RULE_INVERT, Some(mark)),
    };
    let mut request = Request::new(kind, flags);
    request.body(&[
        &[family as u8, 0, 0, 0],
        &[RT_TABLE_UNSPEC, 0, 0, FR_ACT_TO_TBL],
        &rule_flags.to_ne_bytes(),
    ]);
    request.attribute(FRA_PRIORITY, &rule.priority.to_ne_bytes());
    request.attribute(FRA_TABLE, &rule.table.to_ne_bytes());
    if let Some(mark) = mark {
        request.attribute(FRA_FWMARK, &mark.to_ne_bytes());
    }
    if let Some(length) = rule.suppress_prefix_length {
        request.attribute(FRA_SUPPRESS_PREFIXLEN, &length.to_ne_bytes());
    }
    request
}

fn family_and_octets(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(v4) => (nix::libc::AF_INET as u8, v4.octets().to_vec()),
        IpAddr::V6(v6) => (nix::libc::AF_INET6 as u8, v6.octets().to_vec()),
    }
}

/// A request being written: `nlmsghdr`, the kind's own header, attributes.
#[derive(Debug)]
struct Request {
    kind: u16,
    flags: u16,
    bytes: Vec<u8>,
}

impl Request {
    fn new(kind: u16, flags: u16) -> Self {
        Self {
            kind,
            flags: flags | NLM_F_REQUEST | NLM_F_ACK,
            bytes: Vec::new(),
        }
    }

    fn body(&mut self, parts: &[&[u8]]) {
        self.bytes.extend(parts.iter().flat_map(|part| part.iter()));
    }

    fn attribute(&mut self, kind: u16, payload: &[u8]) {
        let length = 4 + payload.len() as u16;
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(payload);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(self, sequence: u32) -> Vec<u8> {
        let length = (HEADER_BYTES + self.bytes.len()) as u32;
        let mut message = Vec::with_capacity(HEADER_BYTES + self.bytes.len());
        message.extend(length.to_ne_bytes());
        message.extend(self.kind.to_ne_bytes());
        message.extend(self.flags.to_ne_bytes());
        message.extend(sequence.to_ne_bytes());
        message.extend(0u32.to_ne_bytes());
        message.extend(self.bytes);
        message
    }
}

/// The number of the request that a message answers, from its `nlmsghdr`.
fn sequence_of(answer: &[u8]) -> Option<u32> {
    let header = answer.first_chunk::<HEADER_BYTES>()?;
    Some(u32::from_ne_bytes([
        header[8], header[9], header[10], header[11],
    ]))
}

/// Reads `nlmsghdr` and `nlmsgerr`: 0 or a negative errno.
fn parse_ack(answer: &[u8]) -> Option<i32> {
    let (header, rest) = answer.split_first_chunk::<HEADER_BYTES>()?;
    let kind = u16::from_ne_bytes([header[4], header[5]]);
    let code = i32::from_ne_bytes(*rest.first_chunk::<4>()?);
    (kind == NLMSG_ERROR && code <= 0).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_short_or_of_another_kind_is_not_an_acknowledgement() {
        let mut ack = Request::new(NLMSG_ERROR, 0);
        ack.body(&[&(-17i32).to_ne_bytes()]);
        let bytes = ack.finish(9);

        assert_eq!(sequence_of(&bytes), Some(9));
        assert_eq!(parse_ack(&bytes), Some(-17));
        for cut in 0..bytes.len() {
            assert_eq!(parse_ack(&bytes[..cut]), None);
        }
        let mut other = Request::new(RTM_NEWLINK, 0);
        other.body(&[&0i32.to_ne_bytes()]);
        assert_eq!(parse_ack(&other.finish(9)), None);
    }

    #[test]
    fn attributes_are_padded_to_four_bytes_and_their_length_is_not() {
        let mut request = Request::new(RTM_NEWLINK, 0);
        request.attribute(7, &[1, 2, 3, 4, 5]);

        let bytes = request.finish(1);

        assert_eq!(bytes.len(), HEADER_BYTES + 12);
        assert_eq!(u16::from_ne_bytes([bytes[16], bytes[17]]), 9);
        assert_eq!(
            u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
            28
        );
    }

    #[test]
    fn a_link_that_is_not_there_is_named_in_the_error() {
        let netlink = Netlink::open().expect("a netlink socket needs no rights");

        let error = netlink.link("no-such-link").unwrap_err();

        assert_eq!(
            error.to_string(),
            "there is no network interface named no-such-link"
        );
    }
}
