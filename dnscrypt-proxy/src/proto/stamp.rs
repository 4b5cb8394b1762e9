//! DNS stamps: everything a client must know about a resolver, in one line (`sdns://` and base64url).
//!
//! `LP(x)` is a length byte and x; a `VLP` is a list of LP whose length's high bit says that more follow.
//! The eight bytes of properties are little-endian.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hickory_proto::rr::Name;
use thiserror::Error;

/// The port of every encrypted kind.
const DEFAULT_PORT: u16 = 443;
const PLAIN_PORT: u16 = 53;
const SCHEME: &str = "sdns://";
/// Longer texts are no stamps.
const MAX_TEXT: usize = 4096;
/// What every provider name of this version of the protocol begins with.
pub const PROVIDER_PREFIX: &str = "2.dnscrypt-cert.";

/// What a resolver promises. Bits that have no name are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Props(pub u64);

impl Props {
    /// Validates DNSSEC.
    pub const DNSSEC: u64 = 1;
    /// Keeps no log.
    pub const NO_LOG: u64 = 2;
    /// Blocks nothing.
    pub const NO_FILTER: u64 = 4;

    /// Whether a bit is set.
    #[must_use]
    pub fn has(self, bit: u64) -> bool {
        self.0 & bit != 0
    }
}

/// The text is not a stamp.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StampError {
    /// It does not begin with `sdns://`.
    #[error("a stamp begins with sdns://")]
    NoScheme,
    /// What follows is not base64url.
    #[error("a stamp is base64url after sdns://, without padding")]
    NotBase64,
    /// It is cut off in the middle of a field.
    #[error("the stamp ends in the middle of a field: was it copied whole?")]
    CutOff,
    /// Bytes follow the last field.
    #[error("the stamp has bytes after its last field")]
    Trailing,
    /// A kind nobody here has heard of.
    #[error("stamps of kind 0x{0:02x} are not known")]
    UnknownKind(u8),
    /// A field that should be an address is not one.
    #[error("{0:?} is not an IP address with an optional port")]
    BadAddress(String),
    /// The provider's key is not 32 bytes.
    #[error("the provider's public key has {0} bytes; it must have 32")]
    BadKey(usize),
    /// The provider name is not a DNS name.
    #[error("{0:?} is not a DNS name")]
    BadName(String),
    /// A text field is not UTF-8.
    #[error("a field of the stamp is not text")]
    NotText,
    /// A field is too long to be written down.
    #[error("a field of the stamp is longer than its format allows")]
    TooLong,
}

/// A stamp that this program can ask: a DNSCrypt resolver.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DnsCryptStamp {
    /// What it promises.
    pub props: Props,
    /// Where it listens, UDP and TCP.
    pub addr: SocketAddr,
    /// The Ed25519 key that signs its certificates.
    pub provider_key: [u8; 32],
    /// The name under which it serves them.
    pub provider_name: String,
}

impl FromStr for DnsCryptStamp {
    type Err = NotDnsCrypt;

    fn from_str(text: &str) -> Result<Self, NotDnsCrypt> {
        let stamp = text.parse::<Stamp>()?;
        let kind = stamp.kind_name();
        if let Stamp::DnsCrypt(stamp) = stamp {
            Ok(stamp)
        } else {
            Err(NotDnsCrypt::OtherKind(kind))
        }
    }
}

impl fmt::Display for DnsCryptStamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Stamp::DnsCrypt(self.clone()).fmt(f)
    }
}

/// The text is no stamp of a DNSCrypt resolver.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotDnsCrypt {
    /// No stamp at all.
    #[error(transparent)]
    Stamp(#[from] StampError),
    /// A stamp of something else.
    #[error("this is a stamp for {0}; a DNSCrypt resolver's is needed")]
    OtherKind(&'static str),
}

/// Where the kinds over TLS live, as far as their stamps agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// What it promises.
    pub props: Props,
    /// Address and port, as written; may be empty.
    pub addr: String,
    /// SHA-256 of certificates (to-be-signed part) of which one must be in the chain.
    pub hashes: Vec<Vec<u8>>,
    /// Host name, with an optional port.
    pub host: String,
    /// Resolvers that may be asked for the host's address.
    pub bootstrap: Vec<String>,
}

/// Every kind of stamp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stamp {
    /// Plain DNS.
    Plain {
        /// What it promises.
        props: Props,
        /// Where it listens.
        addr: SocketAddr,
    },
    /// DNSCrypt.
    DnsCrypt(DnsCryptStamp),
    /// DNS over HTTPS, with its path.
    Doh(Tls, String),
    /// DNS over TLS.
    Dot(Tls),
    /// DNS over QUIC.
    Doq(Tls),
    /// A target of Oblivious DoH.
    OdohTarget {
        /// What it promises.
        props: Props,
        /// Host name, with an optional port.
        host: String,
        /// Path of the queries.
        path: String,
    },
    /// A relay of Anonymized DNSCrypt.
    DnsCryptRelay {
        /// Where it listens.
        addr: SocketAddr,
    },
    /// A relay of Oblivious DoH, with its path.
    OdohRelay(Tls, String),
}

impl Stamp {
    /// The kind in words.
    #[must_use]
    pub fn kind_name(&self) -> &'static str {
        match self {
            Self::Plain { .. } => "plain DNS",
            Self::DnsCrypt(_) => "DNSCrypt",
            Self::Doh(..) => "DNS over HTTPS",
            Self::Dot(_) => "DNS over TLS",
            Self::Doq(_) => "DNS over QUIC",
            Self::OdohTarget { .. } => "an Oblivious DoH target",
            Self::DnsCryptRelay { .. } => "a DNSCrypt relay",
            Self::OdohRelay(..) => "an Oblivious DoH relay",
        }
    }

    fn read(bytes: &[u8]) -> Result<Self, StampError> {
        let mut fields = Fields { rest: bytes };
        let stamp = match fields.byte()? {
            0x00 => Self::Plain {
                props: fields.props()?,
                addr: address(&fields.text()?, PLAIN_PORT)?,
            },
            0x01 => Self::DnsCrypt(fields.dnscrypt()?),
            0x02 => {
                let mut tls = fields.tls()?;
                let path = fields.text()?;
                tls.bootstrap = fields.bootstrap()?;
                Self::Doh(tls, path)
            }
            0x03 => Self::Dot(fields.tls_with_bootstrap()?),
            0x04 => Self::Doq(fields.tls_with_bootstrap()?),
            0x05 => Self::OdohTarget {
                props: fields.props()?,
                host: fields.text()?,
                path: fields.text()?,
            },
            0x81 => Self::DnsCryptRelay {
                addr: address(&fields.text()?, DEFAULT_PORT)?,
            },
            0x85 => {
                let mut tls = fields.tls()?;
                let path = fields.text()?;
                tls.bootstrap = fields.bootstrap()?;
                Self::OdohRelay(tls, path)
            }
            kind => return Err(StampError::UnknownKind(kind)),
        };
        if fields.rest.is_empty() {
            Ok(stamp)
        } else {
            Err(StampError::Trailing)
        }
    }

    fn write(&self) -> Result<Vec<u8>, StampError> {
        let mut out = Vec::new();
        match self {
            Self::Plain { props, addr } => {
                out.push(0x00);
                put_props(&mut out, *props);
                put(&mut out, &address_bytes(addr, PLAIN_PORT))?;
            }
            Self::DnsCrypt(stamp) => {
                out.push(0x01);
                put_props(&mut out, stamp.props);
                put(&mut out, &address_bytes(&stamp.addr, DEFAULT_PORT))?;
                put(&mut out, &stamp.provider_key)?;
                put(&mut out, stamp.provider_name.as_bytes())?;
            }
            Self::Doh(tls, path) => put_tls(&mut out, 0x02, tls, Some(path))?,
            Self::Dot(tls) => put_tls(&mut out, 0x03, tls, None)?,
            Self::Doq(tls) => put_tls(&mut out, 0x04, tls, None)?,
            Self::OdohTarget { props, host, path } => {
                out.push(0x05);
                put_props(&mut out, *props);
                put(&mut out, host.as_bytes())?;
                put(&mut out, path.as_bytes())?;
            }
            Self::DnsCryptRelay { addr } => {
                out.push(0x81);
                put(&mut out, &address_bytes(addr, DEFAULT_PORT))?;
            }
            Self::OdohRelay(tls, path) => put_tls(&mut out, 0x85, tls, Some(path))?,
        }
        Ok(out)
    }
}

impl FromStr for Stamp {
    type Err = StampError;

    fn from_str(text: &str) -> Result<Self, StampError> {
        let text = text.trim();
        let encoded = text.strip_prefix(SCHEME).ok_or(StampError::NoScheme)?;
        if encoded.len() > MAX_TEXT {
            return Err(StampError::TooLong);
        }
        let bytes = URL_SAFE_NO_PAD
            .decode(encoded.trim_end_matches('='))
            .map_err(|_| StampError::NotBase64)?;
        Self::read(&bytes)
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.write().map_err(|_| fmt::Error)?;
        write!(f, "{SCHEME}{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

struct Fields<'a> {
    rest: &'a [u8],
}

impl Fields<'_> {
    fn byte(&mut self) -> Result<u8, StampError> {
        let (first, rest) = self.rest.split_first().ok_or(StampError::CutOff)?;
        self.rest = rest;
        Ok(*first)
    }

    fn take(&mut self, len: usize) -> Result<Vec<u8>, StampError> {
        let (field, rest) = self.rest.split_at_checked(len).ok_or(StampError::CutOff)?;
        self.rest = rest;
        Ok(field.to_vec())
    }

    fn props(&mut self) -> Result<Props, StampError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(StampError::CutOff)?;
        self.rest = rest;
        Ok(Props(u64::from_le_bytes(*bytes)))
    }

    fn text(&mut self) -> Result<String, StampError> {
        let len = self.byte()?;
        String::from_utf8(self.take(usize::from(len))?).map_err(|_| StampError::NotText)
    }

    fn list(&mut self) -> Result<Vec<Vec<u8>>, StampError> {
        let mut list = Vec::new();
        loop {
            let len = self.byte()?;
            let item = self.take(usize::from(len & 0x7f))?;
            if !item.is_empty() {
                list.push(item);
            }
            if len & 0x80 == 0 {
                return Ok(list);
            }
        }
    }

    fn dnscrypt(&mut self) -> Result<DnsCryptStamp, StampError> {
        let props = self.props()?;
        let addr = address(&self.text()?, DEFAULT_PORT)?;
        let key_len = self.byte()?;
        let key = self.take(usize::from(key_len))?;
        let provider_key =
            <[u8; 32]>::try_from(key).map_err(|key| StampError::BadKey(key.len()))?;
        let provider_name = provider_name(&self.text()?)?;
        Ok(DnsCryptStamp {
            props,
            addr,
            provider_key,
            provider_name,
        })
    }

    fn tls(&mut self) -> Result<Tls, StampError> {
        Ok(Tls {
            props: self.props()?,
            addr: self.text()?,
            hashes: self.list()?,
            host: self.text()?,
            bootstrap: Vec::new(),
        })
    }

    fn tls_with_bootstrap(&mut self) -> Result<Tls, StampError> {
        let mut tls = self.tls()?;
        tls.bootstrap = self.bootstrap()?;
        Ok(tls)
    }

    /// The last field of its kinds, and optional.
    fn bootstrap(&mut self) -> Result<Vec<String>, StampError> {
        if self.rest.is_empty() {
            return Ok(Vec::new());
        }
        self.list()?
            .into_iter()
            .map(|ip| String::from_utf8(ip).map_err(|_| StampError::NotText))
            .collect()
    }
}

/// Checks a provider name.
pub fn provider_name(text: &str) -> Result<String, StampError> {
    let name = text.trim_end_matches('.');
    if name.is_empty() || Name::from_ascii(name).is_err() {
        return Err(StampError::BadName(text.to_owned()));
    }
    Ok(name.to_owned())
}

/// Reads `a.b.c.d`, `[v6]`, a bare v6 address, each with an optional port.
pub fn address(text: &str, default_port: u16) -> Result<SocketAddr, StampError> {
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return Ok(addr);
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, default_port));
    }
    let bad = || StampError::BadAddress(text.to_owned());
    let inner = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let ip = inner
        .and_then(|inner| inner.parse::<Ipv6Addr>().ok())
        .ok_or_else(bad)?;
    Ok(SocketAddr::new(ip.into(), default_port))
}

fn address_bytes(addr: &SocketAddr, default_port: u16) -> Vec<u8> {
    let text = match (addr, addr.port() == default_port) {
        (_, false) => addr.to_string(),
        (SocketAddr::V4(v4), true) => v4.ip().to_string(),
        (SocketAddr::V6(v6), true) => format!("[{}]", v6.ip()),
    };
    text.into_bytes()
}

fn put_props(out: &mut Vec<u8>, props: Props) {
    out.extend_from_slice(&props.0.to_le_bytes());
}

fn put(out: &mut Vec<u8>, field: &[u8]) -> Result<(), StampError> {
    out.push(u8::try_from(field.len()).map_err(|_| StampError::TooLong)?);
    out.extend_from_slice(field);
    Ok(())
}

fn put_list<'a>(
    out: &mut Vec<u8>,
    items: impl ExactSizeIterator<Item = &'a [u8]>,
) -> Result<(), StampError> {
    let count = items.len();
    if count == 0 {
        out.push(0);
    }
    for (at, item) in items.enumerate() {
        let len = u8::try_from(item.len())
            .ok()
            .filter(|len| *len < 0x80)
            .ok_or(StampError::TooLong)?;
        out.push(if at + 1 < count { len | 0x80 } else { len });
        out.extend_from_slice(item);
    }
    Ok(())
}

fn put_tls(out: &mut Vec<u8>, kind: u8, tls: &Tls, path: Option<&str>) -> Result<(), StampError> {
    out.push(kind);
    put_props(out, tls.props);
    put(out, tls.addr.as_bytes())?;
    put_list(out, tls.hashes.iter().map(Vec::as_slice))?;
    put(out, tls.host.as_bytes())?;
    if let Some(path) = path {
        put(out, path.as_bytes())?;
    }
    if !tls.bootstrap.is_empty() {
        put_list(out, tls.bootstrap.iter().map(String::as_bytes))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
