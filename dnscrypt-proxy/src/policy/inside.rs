//! Addresses inside the home, in answers from outside it: what DNS rebinding lives from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use crate::proto::message::{ANCOUNT_AT, Response, name_at};

const TYPE_A: u16 = 1;
const TYPE_CNAME: u16 = 5;
const TYPE_AAAA: u16 = 28;
const TYPE_DNAME: u16 = 39;
const TYPE_SVCB: u16 = 64;
const TYPE_HTTPS: u16 = 65;
/// RFC 9460, section 14.3.2.
const PARAMETER_IPV4: u16 = 4;
const PARAMETER_IPV6: u16 = 6;
/// A label's length that is none, but half of a pointer.
const POINTER: u8 = 0xc0;

/// Whether a server of the network's own may have this address. One of a link alone would need the link's name.
pub(super) fn may_serve(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_inside_v4(v4) && !v4.is_broadcast() && v4.octets().first() != Some(&0),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
    }
}

/// Whether an address is one that no name of the internet should have.
pub(super) fn is_inside(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_inside_v4(v4),
        IpAddr::V6(v6) => is_inside_v6(v6),
    }
}

fn is_inside_v4(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    let is_shared = first == 100 && second & 0xc0 == 64;
    first == 0
        || is_shared
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_broadcast()
}

fn is_inside_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // Unspecified, loopback, and the two ways to write an IPv4 address in one of IPv6.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => true,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            is_inside_v4(embedded(high, low))
        }
        [0x2002, high, low, ..] => is_inside_v4(embedded(high, low)),
        // Unique local, link-local, and what was site-local.
        [first, ..] => {
            first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfe80 || first & 0xffc0 == 0xfec0
        }
    }
}

fn embedded(high: u16, low: u16) -> Ipv4Addr {
    let [a, b] = high.to_be_bytes();
    let [c, d] = low.to_be_bytes();
    Ipv4Addr::new(a, b, c, d)
}

/// Whether any record of a response leads inside, and not to one of the gateways, in whatever section: addresses, and the
/// hints beside a service.
pub(super) fn leads_inside(response: &Response, gateways: &[IpAddr]) -> bool {
    let is_astray = |address| is_inside(address) && !gateways.contains(&address);
    records(response).any(|(rtype, data)| {
        let data = response.stored.get(data).unwrap_or_default();
        match rtype {
            TYPE_A => v4s(data).any(is_astray),
            TYPE_AAAA => v6s(data).any(is_astray),
            TYPE_SVCB | TYPE_HTTPS => hints(data).is_some_and(|mut hints| hints.any(is_astray)),
            _ => false,
        }
    })
}

/// The names that a response says its name stands for.
pub(super) fn aliases(response: &Response) -> impl Iterator<Item = Vec<u8>> {
    records(response).filter_map(|(rtype, data)| {
        let at = match rtype {
            TYPE_CNAME | TYPE_DNAME => data.start,
            // A priority stands before the name.
            TYPE_SVCB | TYPE_HTTPS => data.start + 2,
            _ => return None,
        };
        name_at(&response.stored, at)
    })
}

/// The addresses that a response answers with: those beside the answer are of other names.
pub(super) fn addresses(response: &Response) -> impl Iterator<Item = IpAddr> {
    let answers = number(response, ANCOUNT_AT).unwrap_or_default();
    let answers = records(response).take(answers.into());
    answers.filter_map(|(rtype, data)| {
        let data = response.stored.get(data)?;
        match rtype {
            TYPE_A => v4s(data).next(),
            TYPE_AAAA => v6s(data).next(),
            _ => None,
        }
    })
}

/// Type and place of each record, found by where its lifetime stands: those of the answer come first.
fn records(response: &Response) -> impl Iterator<Item = (u16, Range<usize>)> {
    response.ttl_at.iter().filter_map(move |at| {
        let at = usize::from(*at);
        let rtype = number(response, at.checked_sub(4)?)?;
        let len = usize::from(number(response, at + 4)?);
        Some((rtype, at + 6..at + 6 + len))
    })
}

fn number(response: &Response, at: usize) -> Option<u16> {
    let two = response.stored.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*two))
}

fn v4s(data: &[u8]) -> impl Iterator<Item = IpAddr> {
    data.as_chunks::<4>()
        .0
        .iter()
        .map(|octets| (*octets).into())
}

fn v6s(data: &[u8]) -> impl Iterator<Item = IpAddr> {
    data.as_chunks::<16>()
        .0
        .iter()
        .map(|octets| (*octets).into())
}

/// The addresses in a service's parameters. Its name must not be compressed; whoever reads one that is would find them
/// after it all the same.
fn hints(data: &[u8]) -> Option<impl Iterator<Item = IpAddr>> {
    let name = data.get(2..)?;
    let mut at = 0;
    while let Some(len) = name.get(at).filter(|len| **len != 0) {
        if *len >= POINTER {
            at += 1;
            break;
        }
        at += 1 + usize::from(*len);
    }
    let mut rest = name.get(at + 1..)?;
    let parameters = std::iter::from_fn(move || {
        let (key, after) = rest.split_first_chunk::<2>()?;
        let (len, after) = after.split_first_chunk::<2>()?;
        let (value, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        rest = after;
        Some((u16::from_be_bytes(*key), value))
    });
    Some(parameters.flat_map(|(key, value)| {
        let (fours, sixes) = match key {
            PARAMETER_IPV4 => (value, &[][..]),
            PARAMETER_IPV6 => (&[][..], value),
            _ => (&[][..], &[][..]),
        };
        v4s(fours).chain(v6s(sixes))
    }))
}
