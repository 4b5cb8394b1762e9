//! What a device may do and until when (`Lease`), and what ends it early (`Revocation`).
//!
//! Addresses travel as byte strings: 4 or 16 bytes, and one byte of prefix length after a network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use sha2::{Digest, Sha256};

use crate::cbor::{self, DecodeError, Object, Reader, Writer};
use crate::limits::Limits;

pub(crate) const MAX_NAME: usize = 64;
pub(crate) const MAX_STAMP: usize = 512;
pub(crate) const MAX_STAMPS: usize = 8;
const MAX_GATEWAYS: usize = 8;
const MAX_ADDRESSES: usize = 16;
/// Keys of what a lease may carry; left out where it is not limited.
const LIMITS: [u8; 2] = [12, 13];

/// The right of one device to use some gateways with one tunnel key for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub v: u8,
    /// SHA-256 of the DevID's public key.
    pub devid_hash: [u8; 32],
    pub epoch: u64,
    pub wg_pub: [u8; 32],
    pub pop: String,
    pub shard: u32,
    /// Ids of the gateways, preferred one first.
    pub gateways: Vec<[u8; 32]>,
    /// Inner addresses; host bits beyond the prefix are zero.
    pub addresses: Vec<IpNet>,
    /// `sdns://` stamps of the resolvers inside the tunnel.
    pub dns: Vec<String>,
    pub not_before: u64,
    pub not_after: u64,
    /// Enforced by the gateways, which is why the device need not look at them.
    pub limits: Limits,
}

impl Lease {
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        cbor::decode(bytes)
    }
}

impl Object for Lease {
    const MAX_BYTES: usize = 8 * 1024;

    fn write(&self, w: &mut Writer) {
        w.open(11 + self.limits.fields(), self.v);
        w.bytes(1, &self.devid_hash);
        w.uint(2, self.epoch);
        w.bytes(3, &self.wg_pub);
        w.text(4, &self.pop);
        w.uint(5, u64::from(self.shard));
        w.list(6, &self.gateways, |w, id| w.item_bytes(id));
        w.list(7, &self.addresses, |w, net| w.item_bytes(&net_bytes(net)));
        w.list(8, &self.dns, |w, stamp| w.item_text(stamp));
        // Key 9 is reserved for the exit of the blind relay.
        w.uint(10, self.not_before);
        w.uint(11, self.not_after);
        self.limits.write(w, LIMITS);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            v: r.open_at_least(11)?,
            devid_hash: r.array(1)?,
            epoch: r.uint(2)?,
            wg_pub: r.array(3)?,
            pop: r.text(4, MAX_NAME)?,
            shard: r.uint32(5)?,
            gateways: r.list(6, MAX_GATEWAYS, |r| r.item_array())?,
            addresses: r.list(7, MAX_ADDRESSES, read_net)?,
            dns: r.list(8, MAX_STAMPS, |r| r.item_text(MAX_STAMP))?,
            not_before: r.uint(10)?,
            not_after: r.uint(11)?,
            limits: Limits::read(r, LIMITS)?,
        })
    }
}

/// The end of every lease of a device up to an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    pub v: u8,
    pub devid_hash: [u8; 32],
    /// Leases with an epoch up to this one are dead.
    pub epoch: u64,
    pub reason: u8,
    pub at: u64,
}

impl Revocation {
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        cbor::decode(bytes)
    }
}

impl Object for Revocation {
    const MAX_BYTES: usize = 256;

    fn write(&self, w: &mut Writer) {
        w.open(5, self.v);
        w.bytes(1, &self.devid_hash);
        w.uint(2, self.epoch);
        w.uint(3, u64::from(self.reason));
        w.uint(4, self.at);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            v: r.open(5)?,
            devid_hash: r.array(1)?,
            epoch: r.uint(2)?,
            reason: r.uint8(3)?,
            at: r.uint(4)?,
        })
    }
}

/// The entry of the fleet log for a lease or a revocation: `SHA-256(salt || bytes)`.
///
/// Outsiders see only how many there are; without the salt nobody can test a guess.
pub fn fleet_entry(salt: &[u8; 32], bytes: &[u8]) -> [u8; 32] {
    Sha256::new()
        .chain_update(salt)
        .chain_update(bytes)
        .finalize()
        .into()
}

pub(crate) fn addr_bytes(addr: &IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

pub(crate) fn addr_from(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(v4).into());
    }
    <[u8; 16]>::try_from(bytes)
        .ok()
        .map(|v6| Ipv6Addr::from(v6).into())
}

fn net_bytes(net: &IpNet) -> Vec<u8> {
    let mut bytes = addr_bytes(&net.addr());
    bytes.push(net.prefix_len());
    bytes
}

fn read_net(r: &mut Reader<'_>) -> Result<IpNet, DecodeError> {
    let bytes = r.item_bytes()?;
    let net = bytes
        .split_last()
        .and_then(|(prefix, addr)| IpNet::new(addr_from(addr)?, *prefix).ok())
        .filter(|net| net.addr() == net.network());
    net.ok_or_else(|| r.refused())
}
