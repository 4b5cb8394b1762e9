//! What a policy is to do: the configuration of it, in types that cannot be wrong.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use super::home;
use super::inside::may_serve;
use super::name::{NotAName, WireName};
use super::special;

/// More names of one kind are not taken in a configuration.
pub const MAX_NAMES: usize = 256;
/// More files of one kind are not taken.
pub const MAX_FILES: usize = 16;
/// More servers of one zone are not taken.
pub const MAX_SERVERS: usize = 4;
const DNS_PORT: u16 = 53;

/// What is answered here, refused, or let through. Special-use names (RFC 6761) never leave, whatever is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The domain of the home's own names.
    pub local_domain: Option<WireName>,
    /// Files of `address name name…`.
    pub hosts_files: Vec<PathBuf>,
    /// Files of leases: `expiry mac address name id`.
    pub leases_files: Vec<PathBuf>,
    /// Files of names that are not answered.
    pub blocklists: Vec<PathBuf>,
    /// Files of names that always are.
    pub allowlists: Vec<PathBuf>,
    /// What a name on a blocklist is answered with.
    pub block_answer: BlockAnswer,
    /// What happens to answers from outside with addresses of the inside.
    pub rebinding: Rebinding,
    /// Names that may have them, and all below.
    pub rebind_allow: Vec<WireName>,
    /// Names with answers of their own.
    pub cloaks: Vec<Cloak>,
    /// Zones that are asked of servers of the network one is in.
    pub forwards: Vec<Forward>,
    /// What happens to questions for IPv6 addresses.
    pub aaaa: Aaaa,
    /// What browsers are told that ask whether to use a resolver of their own.
    pub browser_doh: OwnResolver,
    /// Likewise Apple's Private Relay.
    pub private_relay: OwnResolver,
}

impl Rules {
    /// What is wrong with forwarded zones that are right one by one, for who listens there on a machine whose own addresses `is_own` knows.
    pub fn wrong_forwards(
        &self,
        listen: &[SocketAddr],
        is_own: fn(IpAddr) -> bool,
    ) -> impl Iterator<Item = NotAForward> {
        let forwards = &self.forwards;
        let twice = forwards.iter().enumerate().filter(|(at, forward)| {
            let before = forwards.iter().take(*at);
            before
                .map(|other| &other.zone)
                .any(|zone| *zone == forward.zone)
        });
        let servers = forwards.iter().flat_map(|forward| &forward.servers);
        let comes_here = move |server| listen.iter().any(|at| reaches(server, *at, is_own));
        let loops = servers.filter(move |server| comes_here(**server));
        let twice = twice.map(|(_, forward)| NotAForward::Twice(forward.zone.clone()));
        twice.chain(loops.map(|server| NotAForward::Loop(*server)))
    }
}

/// Whether what is sent to a server comes to who listens at `at`: the same place, or every address of the machine.
fn reaches(server: SocketAddr, at: SocketAddr, is_own: fn(IpAddr) -> bool) -> bool {
    let plain = |place: SocketAddr| SocketAddr::new(place.ip().to_canonical(), place.port());
    let (server, at) = (plain(server), plain(at));
    // `::` hears IPv4, too.
    let is_everywhere = at.ip().is_unspecified() && (at.is_ipv6() || server.is_ipv4());
    server == at || is_everywhere && server.port() == at.port() && is_own(server.ip())
}

/// What a name on a blocklist is answered with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BlockAnswer {
    /// There is no such name.
    #[default]
    NoName,
    /// The address that leads nowhere: 0.0.0.0 or `::`.
    Zero,
}

impl FromStr for BlockAnswer {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "nxdomain" => Ok(Self::NoName),
            "zero" => Ok(Self::Zero),
            _ => Err(()),
        }
    }
}

/// What happens to answers from outside with addresses of the inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rebinding {
    /// They are answers like others.
    #[default]
    Accepted,
    /// They are not handed out.
    Refused,
}

/// What happens to questions for IPv6 addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aaaa {
    /// They are asked.
    #[default]
    Asked,
    /// The answer is that there are none: nothing of IPv6 could be reached.
    Denied,
}

/// What software is told that asks by a name whether to use a resolver of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OwnResolver {
    /// What the name's owner says.
    #[default]
    Asked,
    /// That it should not.
    Denied,
}

/// A name with an answer of our own: `name address…` or `name other-name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cloak {
    pub(super) name: WireName,
    pub(super) to: CloakTo,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CloakTo {
    Addresses(Vec<IpAddr>),
    Name(WireName),
}

impl FromStr for Cloak {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let mut words = text.split_ascii_whitespace();
        let name = words.next().ok_or(NotAName)?.parse()?;
        let to: Vec<&str> = words.collect();
        let addresses: Result<Vec<IpAddr>, _> = to.iter().map(|word| word.parse()).collect();
        let to = match (addresses, to.as_slice()) {
            (Ok(addresses), [_, ..]) if addresses.len() <= home::MAX_ADDRESSES => {
                CloakTo::Addresses(addresses)
            }
            (Err(_), [other]) => CloakTo::Name(other.parse()?),
            _ => return Err(NotAName),
        };
        Ok(Self { name, to })
    }
}

/// A zone with servers of its own: `zone address…`. They are asked in clear, and so have to be inside the network: an address is
/// private, shared, link-local or loopback, with a port (`192.168.1.5:5353`, `[fd00::5]:5353`) where it is not 53.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    pub(super) zone: WireName,
    pub(super) servers: Vec<SocketAddr>,
}

/// What is no zone with servers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAForward {
    /// It begins with no name.
    #[error(transparent)]
    Name(#[from] NotAName),
    /// There is none, or there are too many.
    #[error("not a zone and 1 to {MAX_SERVERS} addresses of servers")]
    Count,
    /// No server has such names.
    #[error("{0} is answered by this program itself, and no server is asked for it")]
    Special(WireName),
    /// It has an entry already.
    #[error("{0} is there twice: give all its servers in one entry")]
    Twice(WireName),
    /// It would go round.
    #[error("{0} is where this program listens: it would ask itself")]
    Loop(SocketAddr),
    /// One is no address.
    #[error("{0:?} is no address of a server")]
    Address(String),
    /// One is there already.
    #[error("the server {0} is there twice")]
    Again(SocketAddr),
    /// It would be asked in clear outside.
    #[error("{0} is not inside this network, and would be asked in clear")]
    Outside(IpAddr),
}

impl FromStr for Forward {
    type Err = NotAForward;

    fn from_str(text: &str) -> Result<Self, NotAForward> {
        let mut words = text.split_ascii_whitespace();
        let zone: WireName = words.next().ok_or(NotAName)?.parse()?;
        if special::is_of_no_server(zone.as_bytes()) {
            return Err(NotAForward::Special(zone));
        }
        let mut servers = Vec::new();
        for word in words {
            let server = server(word)?;
            if servers.contains(&server) {
                return Err(NotAForward::Again(server));
            }
            servers.push(server);
        }
        match servers.len() {
            1..=MAX_SERVERS => Ok(Self { zone, servers }),
            _ => Err(NotAForward::Count),
        }
    }
}

fn server(word: &str) -> Result<SocketAddr, NotAForward> {
    let with_port = || word.parse().ok();
    let plain = word.parse().map(|ip| SocketAddr::new(ip, DNS_PORT));
    let server: SocketAddr = plain
        .ok()
        .or_else(with_port)
        .filter(|server: &SocketAddr| server.port() != 0)
        .ok_or_else(|| NotAForward::Address(word.to_owned()))?;
    let ip = server.ip();
    may_serve(ip)
        .then_some(server)
        .ok_or(NotAForward::Outside(ip))
}
