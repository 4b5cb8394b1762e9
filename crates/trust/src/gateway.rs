//! What an activated `gateway` statement says: the keys and addresses of one gateway.

use std::net::{IpAddr, SocketAddr};

use crate::cbor::{self, DecodeError, Object, Reader, Writer};
use crate::keys::key_id;
use crate::lease::{MAX_NAME, MAX_STAMP, MAX_STAMPS, addr_bytes, addr_from};

const MAX_ENDPOINTS: usize = 8;
const MAX_INNER: usize = 8;
const MAX_SHARDS: usize = 1024;
/// One in use, one while it is being changed, and room.
const MAX_PINS: usize = 4;
const POST_QUANTUM: u64 = 1;

/// One gateway, as people approved it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayRecord {
    pub v: u8,
    pub name: String,
    pub ed25519_pub: [u8; 32],
    pub wg_pub: [u8; 32],
    /// Where it listens for WireGuard. IPv6 scope and flow are not carried.
    pub endpoints: Vec<SocketAddr>,
    pub pop: String,
    pub shards: Vec<u32>,
    /// Its own addresses inside the tunnel, IPv4 and IPv6.
    pub inner: Vec<IpAddr>,
    /// `sdns://` stamps of its resolver inside the tunnel.
    pub dns: Vec<String>,
    /// The way to it where UDP to [`GatewayRecord::endpoints`] does not pass.
    pub relay: Option<RelayRecord>,
    /// Whether a router that can agree a pre-shared key uses this gateway with one alone.
    pub post_quantum: bool,
}

/// A gateway's proxy for UDP inside HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayRecord {
    /// Where it listens, for HTTP/3 over UDP and for TLS over TCP.
    pub endpoints: Vec<SocketAddr>,
    /// The name that a client asks for, as any browser does.
    pub server_name: String,
    /// SHA-256 of the public keys (SPKI) that its certificate may have.
    pub spki_sha256: Vec<[u8; 32]>,
}

impl GatewayRecord {
    /// The id by which leases name this gateway.
    pub fn id(&self) -> [u8; 32] {
        key_id(&self.ed25519_pub)
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        cbor::decode(bytes)
    }
}

impl Object for GatewayRecord {
    const MAX_BYTES: usize = 12 * 1024;

    fn write(&self, w: &mut Writer) {
        let optional = u8::from(self.relay.is_some()) + u8::from(self.post_quantum);
        w.open(9 + optional, self.v);
        w.text(1, &self.name);
        w.bytes(2, &self.ed25519_pub);
        w.bytes(3, &self.wg_pub);
        w.list(4, &self.endpoints, |w, endpoint| {
            w.item_bytes(&endpoint_bytes(endpoint))
        });
        w.text(5, &self.pop);
        w.list(6, &self.shards, |w, shard| w.item_uint(u64::from(*shard)));
        w.list(7, &self.inner, |w, addr| w.item_bytes(&addr_bytes(addr)));
        w.list(8, &self.dns, |w, stamp| w.item_text(stamp));
        if let Some(relay) = &self.relay {
            w.nested(9, |w| relay.write(w));
        }
        if self.post_quantum {
            w.uint(10, POST_QUANTUM);
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            v: r.open_at_least(9)?,
            name: r.text(1, MAX_NAME)?,
            ed25519_pub: r.array(2)?,
            wg_pub: r.array(3)?,
            endpoints: r.list(4, MAX_ENDPOINTS, read_endpoint)?,
            pop: r.text(5, MAX_NAME)?,
            shards: r.list(6, MAX_SHARDS, read_shard)?,
            inner: r.list(7, MAX_INNER, read_addr)?,
            dns: r.list(8, MAX_STAMPS, |r| r.item_text(MAX_STAMP))?,
            relay: if r.is_next(9) {
                r.key(9)?;
                Some(RelayRecord::read(r)?)
            } else {
                None
            },
            post_quantum: r.is_next(10) && read_post_quantum(r)?,
        })
    }
}

impl RelayRecord {
    fn write(&self, w: &mut Writer) {
        w.map(3);
        w.list(0, &self.endpoints, |w, endpoint| {
            w.item_bytes(&endpoint_bytes(endpoint))
        });
        w.text(1, &self.server_name);
        w.list(2, &self.spki_sha256, |w, pin| w.item_bytes(pin));
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.map(3)?;
        Ok(Self {
            endpoints: r.list(0, MAX_ENDPOINTS, read_endpoint)?,
            server_name: r.text(1, MAX_NAME)?,
            spki_sha256: r.list(2, MAX_PINS, Reader::item_array)?,
        })
    }
}

fn endpoint_bytes(endpoint: &SocketAddr) -> Vec<u8> {
    let mut bytes = addr_bytes(&endpoint.ip());
    bytes.extend_from_slice(&endpoint.port().to_be_bytes());
    bytes
}

fn read_endpoint(r: &mut Reader<'_>) -> Result<SocketAddr, DecodeError> {
    let endpoint = r
        .item_bytes()?
        .split_last_chunk::<2>()
        .and_then(|(addr, port)| {
            Some(SocketAddr::new(addr_from(addr)?, u16::from_be_bytes(*port)))
        });
    endpoint.ok_or_else(|| r.refused())
}

fn read_shard(r: &mut Reader<'_>) -> Result<u32, DecodeError> {
    let shard = r.item_uint()?;
    u32::try_from(shard).map_err(|_| r.refused())
}

/// Absent where it is false, so that there is one encoding.
fn read_post_quantum(r: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match r.uint(10)? {
        POST_QUANTUM => Ok(true),
        _ => Err(r.refused()),
    }
}

fn read_addr(r: &mut Reader<'_>) -> Result<IpAddr, DecodeError> {
    let addr = addr_from(r.item_bytes()?);
    addr.ok_or_else(|| r.refused())
}
