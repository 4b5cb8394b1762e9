//! Where a device goes: its shard, its inner addresses, its gateways. Pure and deterministic; what
//! has been given out already comes in as an argument.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sha2::{Digest, Sha256};

/// The start of every pool is left to the gateways' own inner addresses.
pub const RESERVED: u32 = 16;
/// A lease lists at most this many gateways.
pub const MAX_GATEWAYS: usize = 3;

/// The inner addresses of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The point of presence that the shard belongs to.
    pub pop: String,
    /// The shard, unique among all points of presence.
    pub shard: u32,
    /// One address of this for each device.
    pub v4: Ipv4Net,
    /// One address of this for each device.
    pub v6: Ipv6Net,
}

impl Pool {
    /// The addresses at a position, none past the end of the pool or on its broadcast address.
    pub fn addresses(&self, offset: u32) -> Option<[IpNet; 2]> {
        let v4 = Ipv4Addr::from(u32::from(self.v4.network()).checked_add(offset)?);
        let v6 = Ipv6Addr::from(u128::from(self.v6.network()).checked_add(u128::from(offset))?);
        let inside = self.v4.contains(&v4) && v4 != self.v4.broadcast() && self.v6.contains(&v6);
        inside.then(|| [IpNet::from(IpAddr::from(v4)), IpNet::from(IpAddr::from(v6))])
    }

    /// The position for the next device: after the last one given, past what the gateways use.
    pub fn next_offset(&self, last: Option<u32>, taken: &[IpAddr]) -> Option<u32> {
        let mut offset = last
            .map_or(Some(RESERVED), |last| last.checked_add(1))?
            .max(RESERVED);
        while self
            .addresses(offset)?
            .iter()
            .any(|net| taken.contains(&net.addr()))
        {
            offset = offset.checked_add(1)?;
        }
        Some(offset)
    }
}

/// A shard of the wanted point of presence, with what decides whether it gets the next device.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The shard's number.
    pub shard: u32,
    /// Devices already there.
    pub devices: u64,
    /// The free position that the device would get.
    pub offset: Option<u32>,
    /// Whether any gateway serves the shard.
    pub served: bool,
}

/// Why no shard can take a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// No gateway serves the point of presence.
    NoGateway,
    /// Every pool that a gateway serves is used up.
    Exhausted,
}

/// Chooses the least loaded shard that has a gateway and an address left.
pub fn choose(candidates: &[Candidate]) -> Result<(u32, u32), NoPlace> {
    if !candidates.iter().any(|candidate| candidate.served) {
        return Err(NoPlace::NoGateway);
    }
    candidates
        .iter()
        .filter(|candidate| candidate.served)
        .filter_map(|candidate| Some((candidate.devices, candidate.shard, candidate.offset?)))
        .min()
        .map(|(_, shard, offset)| (shard, offset))
        .ok_or(NoPlace::Exhausted)
}

/// The gateways of a device, best first: rendezvous hashing, so that a gateway that comes or goes moves
/// only the devices that it concerns.
pub fn rendezvous(devid_hash: &[u8; 32], gateways: &[[u8; 32]]) -> Vec<[u8; 32]> {
    let mut ranked: Vec<([u8; 32], [u8; 32])> = gateways
        .iter()
        .map(|gateway| {
            let weight = Sha256::new_with_prefix(gateway)
                .chain_update(devid_hash)
                .finalize();
            (weight.into(), *gateway)
        })
        .collect();
    ranked.sort_unstable_by(|a, b| b.cmp(a));
    ranked
        .into_iter()
        .map(|(_, gateway)| gateway)
        .take(MAX_GATEWAYS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(v4: &str) -> Pool {
        Pool {
            pop: "pop1".to_owned(),
            shard: 1,
            v4: v4.parse().unwrap(),
            v6: "fd64::/48".parse().unwrap(),
        }
    }

    fn candidate(shard: u32, devices: u64, offset: Option<u32>, served: bool) -> Candidate {
        Candidate {
            shard,
            devices,
            offset,
            served,
        }
    }

    #[test]
    fn a_pool_ends_before_its_broadcast_address() {
        let pool = pool("10.64.0.0/27");

        let mut given = Vec::new();
        let mut last = None;
        while let Some(offset) = pool.next_offset(last, &[]) {
            given.push(pool.addresses(offset).unwrap()[0].to_string());
            last = Some(offset);
        }

        assert_eq!(given.first().unwrap(), "10.64.0.16/32");
        assert_eq!(given.last().unwrap(), "10.64.0.30/32");
        assert_eq!(given.len(), 15);
    }

    #[test]
    fn an_address_that_a_gateway_uses_is_passed_over() {
        let taken = ["10.64.0.16".parse().unwrap(), "fd64::11".parse().unwrap()];

        assert_eq!(pool("10.64.0.0/16").next_offset(None, &taken), Some(18));
    }

    #[test]
    fn a_device_goes_to_the_least_loaded_shard_that_can_take_it() {
        let full = candidate(1, 0, None, true);
        let unserved = candidate(2, 0, Some(16), false);
        let busy = candidate(3, 9, Some(25), true);
        let free = candidate(4, 8, Some(24), true);

        assert_eq!(choose(&[]), Err(NoPlace::NoGateway));
        assert_eq!(
            choose(std::slice::from_ref(&unserved)),
            Err(NoPlace::NoGateway)
        );
        assert_eq!(
            choose(&[full.clone(), unserved.clone()]),
            Err(NoPlace::Exhausted)
        );
        assert_eq!(choose(&[full, unserved, busy, free]), Ok((4, 24)));
    }

    #[test]
    fn a_gateway_that_leaves_moves_only_its_own_devices() {
        let gateways: Vec<[u8; 32]> = (0..8).map(|n| [n; 32]).collect();
        for device in 0..200 {
            let devid = [device; 32];
            let before = rendezvous(&devid, &gateways);
            let after = rendezvous(&devid, &gateways[..7]);

            assert_eq!(before.len(), MAX_GATEWAYS);
            if !before.contains(&[7; 32]) {
                assert_eq!(before, after);
            }
        }
    }
}
