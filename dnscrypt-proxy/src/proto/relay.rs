//! Anonymized DNSCrypt: a relay knows who asks, the resolver knows what is asked. The draft's section of
//! that name.
//!
//! ```text
//! ff×8 00 00  address(16, IPv4 as ::ffff:a.b.c.d)  port(2)  query
//! ```
//! A client adds these 28 bytes; a relay takes them off, judges where they point, and judges what comes
//! back. The answer has no prefix.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hickory_proto::rr::RecordType;

use super::cert::ANONYMOUS_MAGIC;
use super::client::{RESOLVER_MAGIC, RESPONSE_HEADER};
use super::dropped::Dropped;
use super::message;
use super::seal::TAG;
use super::{MAX_QUERY, MAX_RESPONSE};

/// Bytes before the inner query.
pub const PREFIX: usize = 28;
const MAGIC: [u8; 10] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0];
/// What QUIC begins with, and no certificate's magic.
const QUIC: [u8; 7] = [0; 7];
/// Header, tag, the header of a DNS message, and one byte of padding.
const LEAST_SEALED: usize = RESPONSE_HEADER + TAG + message::HEADER + 1;
/// What a provider name begins with, as it stands in a question.
const CERT_LABELS: &[u8] = b"\x012\x0ddnscrypt-cert";

/// What a relay's operator allows.
#[derive(Clone, Debug)]
pub struct RelayPolicy {
    /// Ports of resolvers; 443 as a rule.
    pub ports: Vec<u16>,
    /// Every address at which this relay listens: none of them is a target.
    pub own: Vec<SocketAddr>,
    /// Networks behind this relay, as address and length of the prefix: no target is in them.
    pub behind: Vec<(IpAddr, u8)>,
    /// Which addresses are targets.
    pub reach: Reach,
}

/// Which addresses a relay forwards to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// Those of the internet alone.
    #[default]
    Global,
    /// Any but those behind the relay: for tests, whose resolvers have addresses of no internet.
    AnyForTests,
}

/// A query that may be forwarded.
#[derive(Debug)]
pub struct Forward<'a> {
    /// The resolver, over UDP.
    pub target: SocketAddr,
    /// The query, unchanged.
    pub inner: &'a [u8],
    /// What may come back.
    pub awaited: Awaited,
}

/// What may go back to the client.
#[derive(Debug)]
pub struct Awaited {
    target: SocketAddr,
    limit: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Sealed,
    /// Header and question of the query.
    Certificates(Vec<u8>),
}

/// A query with the prefix that sends it on to a resolver.
#[must_use]
pub fn wrap(target: SocketAddr, inner: &[u8]) -> Vec<u8> {
    let ip = match target.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let mut packet = Vec::with_capacity(PREFIX + inner.len());
    packet.extend_from_slice(&MAGIC);
    packet.extend_from_slice(&ip.octets());
    packet.extend_from_slice(&target.port().to_be_bytes());
    packet.extend_from_slice(inner);
    packet
}

/// Whether a packet wants to be forwarded.
#[must_use]
pub fn is_anonymized(packet: &[u8]) -> bool {
    packet.starts_with(&MAGIC)
}

/// Judges a packet, the same over UDP and TCP. Every refusal comes before anything is sent.
// MUST, "Forwarding and Validation": all of the checks of this function.
pub fn judge<'a>(packet: &'a [u8], policy: &RelayPolicy) -> Result<Forward<'a>, Dropped> {
    let (prefix, inner) = packet
        .split_first_chunk::<PREFIX>()
        .ok_or(Dropped::TooShort)?;
    let rest = prefix.strip_prefix(&MAGIC).ok_or(Dropped::UnknownMagic)?;
    let (ip, port) = rest.split_first_chunk::<16>().ok_or(Dropped::TooShort)?;
    let port = u16::from_be_bytes(*port.first_chunk().ok_or(Dropped::TooShort)?);
    let target = SocketAddr::new(Ipv6Addr::from(*ip).to_canonical(), port);
    let is_behind = |(network, len): &(IpAddr, u8)| contains(*network, *len, target.ip());
    if policy.reach == Reach::Global && !is_global(target.ip())
        || policy.behind.iter().any(is_behind)
    {
        return Err(Dropped::RelayTarget);
    }
    if port == 0 || !policy.ports.contains(&port) {
        return Err(Dropped::RelayPort);
    }
    let is_own = |own: &SocketAddr| own.port() == port && own.ip().to_canonical() == target.ip();
    if policy.own.iter().any(is_own) {
        return Err(Dropped::RelayLoop);
    }
    let kind = kind_of(inner)?;
    Ok(Forward {
        target,
        inner,
        awaited: Awaited {
            target,
            // The prefix does not count, nor does TCP between client and relay.
            limit: inner.len().min(MAX_RESPONSE),
            kind,
        },
    })
}

fn kind_of(inner: &[u8]) -> Result<Kind, Dropped> {
    if inner.len() < message::HEADER {
        return Err(Dropped::TooShort);
    }
    if inner.len() > MAX_QUERY {
        return Err(Dropped::TooLong);
    }
    if inner.starts_with(&ANONYMOUS_MAGIC) {
        return Err(Dropped::RelayLoop);
    }
    if inner.starts_with(&QUIC) {
        return Err(Dropped::RelayQuic);
    }
    let Ok(query) = message::Query::read(inner) else {
        return Ok(Kind::Sealed);
    };
    // A query in clear that is not for certificates would make the relay an open resolver's front.
    let name = query.question().to_ascii_lowercase();
    let for_certs = name.starts_with(CERT_LABELS)
        && query.qtype == RecordType::TXT
        && query.qclass == message::CLASS_IN;
    let end = message::HEADER + query.question().len();
    let question = inner.get(..end).filter(|_| for_certs);
    Ok(Kind::Certificates(
        question.ok_or(Dropped::RelayPlainQuery)?.to_vec(),
    ))
}

impl Awaited {
    /// Whether an answer may go back, unchanged, and once.
    // MUST, "Forwarding and Validation": from the target, no larger than the query, and of its kind.
    pub fn accepts(&self, from: SocketAddr, answer: &[u8]) -> Result<(), Dropped> {
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        if from != self.target {
            return Err(Dropped::RelaySource);
        }
        if answer.len() > self.limit {
            return Err(Dropped::TooLong);
        }
        match &self.kind {
            Kind::Sealed if !answer.starts_with(&RESOLVER_MAGIC) => Err(Dropped::UnknownMagic),
            Kind::Sealed if answer.len() < LEAST_SEALED => Err(Dropped::TooShort),
            Kind::Sealed => Ok(()),
            Kind::Certificates(query) => message::check_response(answer, query),
        }
    }
}

/// Whether an address is one host's on the internet.
#[must_use]
pub fn is_global(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => !within(V4_SPECIAL, v4.to_bits(), 32),
        IpAddr::V6(v6) => {
            // 2000::/3 is all that is given out; what is special in it is excepted.
            let [first, ..] = v6.octets();
            first >> 5 == 1 && !within(V6_SPECIAL, v6.to_bits(), 128)
        }
    }
}

fn contains(network: IpAddr, len: u8, address: IpAddr) -> bool {
    match (network.to_canonical(), address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            within(&[(network.to_bits(), len.into())], address.to_bits(), 32)
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            within(&[(network.to_bits(), len.into())], address.to_bits(), 128)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

/// The registries of special addresses (RFC 6890 and later), in whole networks: what is excepted from
/// them holds no resolvers.
const V4_SPECIAL: &[(u32, u32)] = &[
    (Ipv4Addr::new(0, 0, 0, 0).to_bits(), 8),
    (Ipv4Addr::new(10, 0, 0, 0).to_bits(), 8),
    (Ipv4Addr::new(100, 64, 0, 0).to_bits(), 10),
    (Ipv4Addr::new(127, 0, 0, 0).to_bits(), 8),
    (Ipv4Addr::new(169, 254, 0, 0).to_bits(), 16),
    (Ipv4Addr::new(172, 16, 0, 0).to_bits(), 12),
    (Ipv4Addr::new(192, 0, 0, 0).to_bits(), 24),
    (Ipv4Addr::new(192, 0, 2, 0).to_bits(), 24),
    (Ipv4Addr::new(192, 88, 99, 0).to_bits(), 24),
    (Ipv4Addr::new(192, 168, 0, 0).to_bits(), 16),
    (Ipv4Addr::new(198, 18, 0, 0).to_bits(), 15),
    (Ipv4Addr::new(198, 51, 100, 0).to_bits(), 24),
    (Ipv4Addr::new(203, 0, 113, 0).to_bits(), 24),
    // Multicast, what is reserved, and broadcast.
    (Ipv4Addr::new(224, 0, 0, 0).to_bits(), 3),
];
const V6_SPECIAL: &[(u128, u32)] = &[
    // Protocol assignments, Teredo and benchmarking among them.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0).to_bits(), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0).to_bits(), 32),
    // 6to4: an IPv4 address of anybody's choice is inside.
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0).to_bits(), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0).to_bits(), 20),
];

fn within<B>(networks: &[(B, u32)], address: B, width: u32) -> bool
where
    B: Copy + std::ops::BitXor<Output = B> + std::ops::Shr<u32, Output = B> + Default + PartialEq,
{
    networks.iter().any(|(network, len)| {
        let differs = address ^ *network;
        // A shift by the whole width is none.
        *len == 0 || differs >> width.saturating_sub(*len) == B::default()
    })
}

#[cfg(test)]
mod tests;
