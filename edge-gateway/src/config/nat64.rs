//! The prefix of a NAT64: which IPv6 addresses stand for IPv4 ones (RFC 6052).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use dnscrypt_proxy::proto::relay::is_global;
use ipnet::Ipv6Net;

/// The lengths there are (RFC 6052, section 2.2).
const LENGTHS: [u8; 6] = [32, 40, 48, 56, 64, 96];
/// Bits 64 to 71, which are zero in every such address.
const ZERO_OCTET: usize = 8;
/// Everybody's own (RFC 6052, section 2.1), in which there are addresses of the internet alone (section 3.1).
const WELL_KNOWN: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0);

/// A prefix, in one of the lengths there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nat64Prefix(Ipv6Net);

/// The text is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPrefix;

impl FromStr for Nat64Prefix {
    type Err = NoPrefix;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let net: Ipv6Net = text.parse().map_err(|_| NoPrefix)?;
        let has_length = LENGTHS.contains(&net.prefix_len());
        let is_bare = net.addr() == net.network();
        let [.., zero, _, _, _, _, _, _, _] = net.addr().octets();
        if has_length && is_bare && zero == 0 {
            Ok(Self(net))
        } else {
            Err(NoPrefix)
        }
    }
}

impl Nat64Prefix {
    /// Whether an address may be written in it.
    pub(crate) fn maps(self, v4: Ipv4Addr) -> bool {
        self.0.addr() != WELL_KNOWN || is_global(IpAddr::V4(v4))
    }

    /// The address that stands for an IPv4 one.
    pub(crate) fn embed(self, v4: Ipv4Addr) -> Ipv6Addr {
        let mut octets = self.0.addr().octets();
        let places = octets.iter_mut().enumerate().skip(self.octets());
        let places = places.filter(|(at, _)| *at != ZERO_OCTET);
        for ((_, place), octet) in places.zip(v4.octets()) {
            *place = octet;
        }
        octets.into()
    }

    /// The IPv4 address that one of these stands for.
    pub(crate) fn extract(self, v6: Ipv6Addr) -> Option<Ipv4Addr> {
        let octets = v6.octets().into_iter().enumerate().skip(self.octets());
        let mut octets = octets.filter_map(|(at, octet)| (at != ZERO_OCTET).then_some(octet));
        let mut next = || octets.next();
        let v4 = Ipv4Addr::new(next()?, next()?, next()?, next()?);
        // What has something else in front, between or behind is none.
        (self.embed(v4) == v6 && self.maps(v4)).then_some(v4)
    }

    fn octets(self) -> usize {
        usize::from(self.0.prefix_len() / 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 33);
    /// RFC 6052, section 2.4, tables 2 and 3.
    const VECTORS: [(&str, &str); 7] = [
        ("2001:db8::/32", "2001:db8:c000:221::"),
        ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
        ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
        ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
        ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
        ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
        ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
    ];

    fn prefix(text: &str) -> Nat64Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn other_lengths_rests_and_bits_that_have_to_be_zero_are_no_prefix() {
        for wrong in [
            "",
            "64:ff9b::",
            "10.0.0.0/8",
            "2001:db8::/33",
            "2001:db8::/0",
            "2001:db8::/128",
            "2001:db8::1/96",
            "2001:db8:1::/32",
            "2001:db8:0:0:100::/96",
        ] {
            assert_eq!(wrong.parse::<Nat64Prefix>(), Err(NoPrefix), "{wrong}");
        }
    }

    #[test]
    fn addresses_are_written_as_in_the_standards_tables() {
        for (text, v6) in VECTORS {
            assert_eq!(prefix(text).embed(V4), v6.parse::<Ipv6Addr>().unwrap());
        }
        let ones = prefix("2001:db8:122:344::/64").embed(Ipv4Addr::BROADCAST);
        assert_eq!(ones.octets()[8], 0, "bits 64 to 71");
    }

    #[test]
    fn an_address_of_another_prefix_or_with_anything_beside_stands_for_none() {
        let stands = |text: &str, v6: &str| prefix(text).extract(v6.parse().unwrap()).is_some();

        assert!(!stands(
            "2001:db8:122:344::/96",
            "2001:db8:122:345::192.0.2.33"
        ));
        assert!(!stands("2001:db8::/32", "2001:db8:c000:221::1"));
        assert!(!stands("2001:db8:122::/48", "2001:db8:122:c000:102:2100::"));
        assert!(!stands("64:ff9b::/96", "64:ff9b::10.0.0.1"));
    }

    #[test]
    fn an_address_is_read_as_it_was_written() {
        for (text, v6) in VECTORS
            .into_iter()
            .filter(|(text, _)| *text != "64:ff9b::/96")
        {
            assert_eq!(
                prefix(text).extract(v6.parse().unwrap()),
                Some(V4),
                "{text}"
            );
        }
        let global = Ipv4Addr::new(9, 9, 9, 9);
        let well_known = prefix("64:ff9b::/96");
        assert_eq!(well_known.extract(well_known.embed(global)), Some(global));
    }
}
