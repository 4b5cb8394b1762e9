//! Which peer has an inner address: the longest prefix wins. A worker knows the addresses of all peers of its gateway,
//! so that it can tell whose a packet is that landed on its queue; of those of others it knows the worker alone.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use crate::policy::Slot;

/// Who holds a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// A peer of this worker.
    Here(Slot),
    /// A peer of another one.
    Elsewhere {
        /// The worker's number.
        worker: u8,
        /// The first bytes of the peer's key, so that only its own end takes the prefix away.
        tag: [u8; 6],
    },
}

const _: () = assert!(size_of::<Holder>() == 8);

impl Holder {
    pub(crate) fn elsewhere(worker: u8, public: &[u8; 32]) -> Self {
        let [a, b, c, d, e, f, ..] = *public;
        Self::Elsewhere {
            worker,
            tag: [a, b, c, d, e, f],
        }
    }
}

/// The table of prefixes.
#[derive(Default)]
pub(crate) struct Routes {
    v4: PrefixMap<Ipv4Net, Holder>,
    v6: PrefixMap<Ipv6Net, Holder>,
}

impl Routes {
    /// Who has `address`.
    pub(crate) fn lookup(&self, address: IpAddr) -> Option<Holder> {
        match address {
            IpAddr::V4(v4) => self.v4.get_lpm(&v4.into()).map(|(_, holder)| *holder),
            IpAddr::V6(v6) => self.v6.get_lpm(&v6.into()).map(|(_, holder)| *holder),
        }
    }

    /// The holder of exactly `net`.
    pub(crate) fn holder(&self, net: IpNet) -> Option<Holder> {
        match net {
            IpNet::V4(net) => self.v4.get(&net).copied(),
            IpNet::V6(net) => self.v6.get(&net).copied(),
        }
    }

    /// Gives `net` to `holder`, whoever had it before.
    pub(crate) fn insert(&mut self, net: IpNet, holder: Holder) {
        match net {
            IpNet::V4(net) => self.v4.insert(net, holder),
            IpNet::V6(net) => self.v6.insert(net, holder),
        };
    }

    /// Takes `net` from `holder`, if it has it.
    pub(crate) fn remove(&mut self, net: IpNet, holder: Holder) {
        if self.holder(net) != Some(holder) {
            return;
        }
        match net {
            IpNet::V4(net) => self.v4.remove(&net),
            IpNet::V6(net) => self.v6.remove(&net),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_prefix_wins_and_a_removed_one_is_gone() {
        let mut routes = Routes::default();
        for (slot, text) in (0..).zip(["10.0.0.0/8", "10.64.0.0/16", "10.64.0.7/32"]) {
            routes.insert(net(text), Holder::Here(slot));
        }
        let host = address("10.64.0.7");

        assert_eq!(routes.lookup(host), Some(Holder::Here(2)));
        assert_eq!(routes.lookup(address("10.64.0.8")), Some(Holder::Here(1)));
        assert_eq!(routes.lookup(address("10.65.0.8")), Some(Holder::Here(0)));
        assert_eq!(routes.lookup(address("11.0.0.1")), None);
        assert_eq!(routes.lookup(address("fd64::1")), None);

        routes.remove(net("10.64.0.7/32"), Holder::Here(1));
        assert_eq!(
            routes.lookup(host),
            Some(Holder::Here(2)),
            "only its holder gives it up"
        );
        routes.remove(net("10.64.0.7/32"), Holder::Here(2));
        assert_eq!(routes.lookup(host), Some(Holder::Here(1)));
    }

    #[test]
    fn a_peer_elsewhere_is_known_by_its_worker_and_given_up_by_its_own_key_alone() {
        let mut routes = Routes::default();
        let (one, two) = (
            Holder::elsewhere(3, &[1; 32]),
            Holder::elsewhere(3, &[2; 32]),
        );
        routes.insert(net("fd64:0:0:7::/64"), one);

        routes.remove(net("fd64:0:0:7::/64"), two);
        assert_eq!(routes.lookup(address("fd64:0:0:7::9")), Some(one));
        routes.remove(net("fd64:0:0:7::/64"), one);
        assert_eq!(routes.lookup(address("fd64:0:0:7::9")), None);
    }
}
