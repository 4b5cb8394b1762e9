//! `[dns.relay]`: lookups forwarded, sealed as they are, to the resolvers of others.

use std::net::SocketAddr;

use ipnet::IpNet;
use toml::Table;

use super::Mistake;
use super::fields::Fields;

/// A descriptor each.
const DEFAULT_EXCHANGES: u32 = 1024;
const MAX_EXCHANGES: u32 = 16_384;
const DEFAULT_PER_SOURCE: u32 = 64;
const DEFAULT_PORT: u32 = 443;

/// `[dns.relay]`.
#[derive(Clone, Debug)]
pub struct DnsRelay {
    /// `ports`: of resolvers, 1 to 65535. Default 443 alone.
    pub ports: Vec<u16>,
    /// `max-exchanges`: lookups on their way at a time, 1 to 16384. Default 1024.
    pub max_exchanges: usize,
    /// `max-exchanges-per-source`: the same for one inner address, and of strangers for one IPv4 address or
    /// IPv6 /64. Default 64.
    pub max_per_source: usize,
    /// `allow-private-targets-for-tests`: forwards to addresses that are not of the internet. Default false.
    pub private_targets: bool,
    /// Where this gateway listens, for whatever: no target is there.
    pub own: Vec<SocketAddr>,
    /// The routers' networks: no target is in them.
    pub behind: Vec<IpNet>,
}

impl DnsRelay {
    /// The same on a gateway that listens at these places.
    pub(super) fn on(self, own: Vec<SocketAddr>) -> Self {
        Self { own, ..self }
    }
}

pub(super) fn read_dns_relay(
    table: Table,
    inner: &[IpNet],
    mistakes: &mut Vec<Mistake>,
) -> Option<DnsRelay> {
    let mut fields = Fields::new("dns.relay", table, mistakes);
    let mut ports = fields.numbers("ports", 1, u16::MAX.into());
    if ports.is_empty() {
        ports.push(DEFAULT_PORT);
    }
    let exchanges = fields.number("max-exchanges", 1, MAX_EXCHANGES);
    let per_source = fields.number("max-exchanges-per-source", 1, MAX_EXCHANGES);
    let private = fields.flag("allow-private-targets-for-tests");
    fields.finish();
    let ports = ports.into_iter().map(u16::try_from);
    Some(DnsRelay {
        ports: ports.collect::<Result<_, _>>().ok()?,
        max_exchanges: usize::try_from(exchanges.unwrap_or(DEFAULT_EXCHANGES)).ok()?,
        max_per_source: usize::try_from(per_source.unwrap_or(DEFAULT_PER_SOURCE)).ok()?,
        private_targets: private.unwrap_or(false),
        own: Vec::new(),
        behind: inner.to_vec(),
    })
}
