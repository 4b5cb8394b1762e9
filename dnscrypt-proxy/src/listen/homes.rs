//! Which addresses are one home's: what is bounded by source is bounded by home.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// Every home of the internet has at least a /64.
pub(crate) const HOME_BITS: u32 = 64;

/// The networks in which each home has one address. On the internet it has a network of IPv6, of which it may use any.
#[derive(Clone, Debug, Default)]
pub struct Homes {
    networks: Arc<[(IpAddr, u8)]>,
}

impl Homes {
    /// By address and prefix length; without any, everybody comes from the internet.
    pub fn within(networks: impl IntoIterator<Item = (IpAddr, u8)>) -> Self {
        Self {
            networks: networks.into_iter().collect(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }

    /// Whether an address is in one of the networks.
    #[must_use]
    pub fn hold(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|(network, len)| {
            let (own, other, width) = match (network, address) {
                (IpAddr::V4(own), IpAddr::V4(other)) => {
                    (own.to_bits().into(), other.to_bits().into(), u32::BITS)
                }
                (IpAddr::V6(own), IpAddr::V6(other)) => {
                    (own.to_bits(), other.to_bits(), u128::BITS)
                }
                (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
            };
            let rest = width.saturating_sub(u32::from(*len));
            prefix(own, rest) == prefix(other, rest)
        })
    }

    /// What stands for the home of an address, if one of the internet has a network this long.
    #[must_use]
    pub fn of(&self, address: IpAddr, home_bits: u32) -> IpAddr {
        match address.to_canonical() {
            IpAddr::V6(v6) if !self.hold(v6.into()) => {
                let rest = u128::BITS.saturating_sub(home_bits);
                Ipv6Addr::from_bits(prefix(v6.to_bits(), rest)).into()
            }
            whole @ (IpAddr::V4(_) | IpAddr::V6(_)) => whole,
        }
    }
}

/// All bits but the last ones.
fn prefix(bits: u128, rest: u32) -> u128 {
    let low = 1_u128
        .checked_shl(rest)
        .map_or(u128::MAX, |above| above - 1);
    bits & !low
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn inner() -> Homes {
        Homes::within([(ip("10.64.0.1"), 16), (ip("fd64::1"), 48)])
    }

    #[test]
    fn neighbours_of_the_tunnel_are_two_homes_and_those_of_the_internet_one() {
        for (one, other) in [("fd64::10", "fd64::11"), ("10.64.0.16", "10.64.0.17")] {
            assert_ne!(inner().of(ip(one), 56), inner().of(ip(other), 56), "{one}");
        }

        let of = |text| inner().of(ip(text), 56);
        assert_eq!(of("2001:db8::10"), of("2001:db8:0:00ff::11"));
        assert_ne!(of("2001:db8::10"), of("2001:db8:0:0100::11"));
        assert_eq!(of("fd64:0:1::10"), of("fd64:0:1::11"), "beside the tunnel");
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("::ffff:192.0.2.1"), ip("192.0.2.1"));
    }

    #[test]
    fn an_address_is_in_a_network_by_all_the_bits_of_its_prefix_and_no_others() {
        for (text, is_held) in [
            ("10.64.255.255", true),
            ("10.65.0.1", false),
            ("::ffff:10.64.0.7", true),
            ("fd64::ffff:0:0:1", true),
            ("fd64:0:1::1", false),
            ("::10.64.0.7", false),
        ] {
            assert_eq!(inner().hold(ip(text)), is_held, "{text}");
        }
        assert!(Homes::within([(ip("::"), 0)]).hold(ip("2001:db8::1")));
        assert!(!Homes::default().hold(ip("10.64.0.7")));
    }
}
