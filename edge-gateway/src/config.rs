//! The configuration: [`RawConfig`] is the file as TOML reads it, [`Config`] what the program uses.
//! All mistakes of a file are reported at once. Keys are documented on the fields.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use dnscrypt_proxy::listen::Rate;
use hyper::Uri;
use ipnet::IpNet;
use telemetry::Level;
use toml::Table;
use tunnel::offload::ecn::OuterTos;
use tunnel::share::MAX_WORKERS;

mod clashes;
mod dns;
mod dns_relay;
mod dns_zones;
mod doors;
mod fields;
mod nat64;
mod relay;
mod sampling;
pub use dns_relay::DnsRelay;
pub use dns_zones::DnsZone;
pub use doors::Doors;
use fields::Fields;
pub use fields::Mistake;
pub use nat64::{Nat64Prefix, NoPrefix};
pub use relay::Relay;
pub use sampling::Sampling;

/// Where `status` and `drain` look for a running gateway unless told otherwise.
pub const DEFAULT_STATUS_SOCKET: &str = "/run/culvert/gateway.sock";
const DEFAULT_STATE_DIR: &str = "/var/lib/culvert-gateway";
const DEFAULT_TRUST_POLICY: &str = "/etc/culvert/trust.policy";
const DEFAULT_USER: &str = "nobody";
const DEFAULT_INTERFACE: &str = "culvert0";
/// WireGuard over IPv6 in an Ethernet frame of 1,500 bytes leaves 1,420.
const DEFAULT_MTU: u32 = 1420;
/// The least MTU of IPv6 (RFC 8200 section 5).
const MIN_MTU: u32 = 1280;
/// A TUN packet's length is 16 bits.
const MAX_MTU: u32 = 65_000;
const DEFAULT_DRAIN_S: u32 = 5;
const MAX_DRAIN_S: u32 = 600;
/// "CV", as everywhere.
const DEFAULT_ANNOUNCE_TABLE: u32 = 17_238;
const DEFAULT_ANNOUNCE_PROTOCOL: u32 = 67;
/// The kernel's own routes have the protocols 0 to 4 (`linux/rtnetlink.h`).
const MIN_PROTOCOL: u32 = 5;
/// `RT_TABLE_DEFAULT` to `RT_TABLE_LOCAL`, `main` between them.
const TABLE_DEFAULT: u32 = 253;
const TABLE_LOCAL: u32 = 255;
/// `IFNAMSIZ` less the terminating zero.
const MAX_INTERFACE_BYTES: usize = 15;

/// The whole configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// `state-dir`: keys and the shard caches. Default `/var/lib/culvert-gateway`.
    pub state_dir: PathBuf,
    /// `trust-policy`: the file that says whose statements count. Default `/etc/culvert/trust.policy`.
    pub trust_policy: PathBuf,
    /// `user`: who the process becomes once its interfaces stand. Default `nobody`.
    pub user: String,
    /// `log-level`: `error`, `warn`, `info`, `debug` or `trace`. Default `info`.
    pub log_level: Level,
    /// `status-socket`: the Unix socket of `status` and `drain`. Default `/run/culvert/gateway.sock`.
    pub status_socket: PathBuf,
    /// `drain-timeout-s`: how long SIGTERM waits for tunnels to fall silent, 0 to 600. Default 5.
    pub drain_timeout: Duration,
    /// `[provisioning]`: where the shard stream comes from.
    pub provisioning: Provisioning,
    /// `[tunnel]`: the routers' side.
    pub tunnel: Tunnel,
    /// `[nat]`: the internet's side; without it addresses leave as they are.
    pub nat: Option<Nat>,
    /// `[announce]`: the routes by which the site finds the gateway of a router; without it none are made.
    pub announce: Option<Announce>,
    /// `[dns]`: the resolver for the routers; without it none is offered.
    pub dns: Option<Dns>,
    /// `[dns.relay]`: lookups forwarded to resolvers of others; without it none are.
    pub dns_relay: Option<DnsRelay>,
    /// `[relay]`: UDP inside HTTP for routers whose network lets no other UDP through; without it there is none.
    pub relay: Option<Relay>,
    /// `[sampling]`: volume by network of the internet; without it no packet is looked at.
    pub sampling: Option<Sampling>,
    /// `[metrics] listen`: address of `/metrics` and `/healthz`; without it there is none.
    pub metrics: Option<SocketAddr>,
}

/// `[provisioning]`.
#[derive(Clone, Debug)]
pub struct Provisioning {
    /// `url`: `https://HOST:PORT`.
    pub url: ServerUrl,
    /// `spki-sha256`: SHA-256 of the public keys that the server may present, 64 hex digits each.
    pub spki_sha256: Vec<Digest>,
    /// `shards`: numbers of the shards that this gateway serves.
    pub shards: Vec<u32>,
}

/// `[tunnel]`.
#[derive(Clone, Debug)]
pub struct Tunnel {
    /// `listen`: UDP addresses for WireGuard.
    pub listen: Vec<SocketAddr>,
    /// `interface`: name of the TUN interface. Default `culvert0`.
    pub interface: String,
    /// `addresses`: the gateway's own inner addresses with the prefixes that its routers live in.
    pub addresses: Vec<IpNet>,
    /// `mtu`: of the TUN interface, 1280 to 65000. Default 1420.
    pub mtu: u16,
    /// `dscp`: the class of service on datagrams to routers: `zero`, `copy` of each packet's, or 0 to 63 for all. Default
    /// `zero`.
    pub dscp: OuterTos,
    /// `post-quantum`: whether routers are offered pre-shared keys by ML-KEM-768. Default true.
    pub post_quantum: bool,
    /// `workers`: data-plane threads, 1 to 64. Default: one for each processor that this process may use, since one that
    /// has nothing to do costs nothing.
    pub workers: u8,
}

/// `[nat]`.
#[derive(Clone, Debug)]
pub struct Nat {
    /// `interface`: the one towards the internet.
    pub interface: String,
    /// `ipv4`: whether IPv4 leaves with the gateway's own address. Default true. IPv6 is always routed.
    pub ipv4: bool,
}

/// `[announce]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announce {
    /// `table`: the kernel's routing table for the addresses of the routers carried here; a routing daemon reads it.
    /// Not one that packets are routed by. Default 17238.
    pub table: u32,
    /// `protocol`: the number that marks these routes, 5 to 255. Default 67.
    pub protocol: u8,
}

/// `[dns]`.
#[derive(Clone, Debug)]
pub struct Dns {
    /// `listen`: DNSCrypt addresses, UDP and TCP; inner addresses of the tunnel. Then those of `public-listen`, which
    /// anybody may ask; who is in no router's network has a quarter of the places for lookups.
    pub listen: Vec<SocketAddr>,
    /// `provider-name`: `2.dnscrypt-cert.` and a zone.
    pub provider_name: String,
    /// `provider-key-file` or `certificates-dir`.
    pub certificates: Certificates,
    /// `mode`: `forward` or `recurse`.
    pub upstream: Upstream,
    /// `dnssec`: whether answers are validated. Default true.
    pub dnssec: bool,
    /// `aggressive-nsec`: whether what a validated denial proves for other names and types denies these too, unasked (RFC 8198). Default true.
    pub aggressive_nsec: bool,
    /// `[[dns.zones]]`: zones with resolvers of their own, whatever the mode.
    pub zones: Vec<DnsZone>,
    /// `dns64`: the prefix of a NAT64, behind which names that have IPv4 addresses alone get IPv6 ones. Default: none do.
    pub dns64: Option<Nat64Prefix>,
    /// `trust-anchor-file`: DNSKEY records of the root in place of the built-in ones.
    pub trust_anchor_file: Option<PathBuf>,
    /// `rate` and `burst`: queries a second (1 to 10000) and at once (1 to 100000; default: five seconds of the rate) of one
    /// inner address, and of strangers one IPv4 address or IPv6 /64, of DNSCrypt and of the doors each. Without them there is no limit.
    pub rate: Option<Rate>,
    /// `cache-mb`: the answers that all workers together keep in memory, in bytes; in the file in megabytes, 1 to 65536. Default 24.
    /// With fewer, more is asked anew, and stale answers are there for fewer names.
    pub cache_bytes: usize,
    /// `[dns.doors]`: TLS, HTTPS and QUIC for devices; without it there is DNSCrypt alone.
    pub doors: Option<Doors>,
    /// The routers' networks, in which each home has one address.
    pub behind: Vec<IpNet>,
}

/// Where DNSCrypt certificates come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Certificates {
    /// A provider key on this machine signs a new certificate before the old one ends.
    ProviderKey(PathBuf),
    /// Somebody else signs; certificates and their keys appear in this directory.
    Directory(PathBuf),
}

/// Who answers a lookup that is not in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// `forward`: these resolvers.
    Forward(Vec<SocketAddr>),
    /// The authoritative servers, starting at `roots` (default: the internet's).
    Recurse(Vec<IpAddr>),
}

/// `https://HOST:PORT` and nothing behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    /// Name or address, an IPv6 address without brackets.
    pub host: String,
    /// TCP port, 443 if none was given.
    pub port: u16,
}

impl FromStr for ServerUrl {
    type Err = UnreadableUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: Uri = text.parse().map_err(|_| UnreadableUrl)?;
        let host = uri.host().ok_or(UnreadableUrl)?;
        if uri.scheme_str() != Some("https")
            || !matches!(uri.path(), "" | "/")
            || uri.query().is_some()
        {
            return Err(UnreadableUrl);
        }
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        Ok(Self {
            host,
            port: uri.port_u16().unwrap_or(443),
        })
    }
}

impl ServerUrl {
    /// `HOST:PORT`, for a `Host` header and for people.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// The text is no `https://HOST:PORT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnreadableUrl;

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest(pub [u8; 32]);

impl FromStr for Digest {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Why a file gives no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// It is not TOML.
    #[error("{path} is not TOML: {reason}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, column and what was expected there.
        reason: String,
    },
    /// Keys are wrong; all of them are listed.
    #[error("{}", lines(.0))]
    Mistakes(Vec<Mistake>),
}

fn lines(mistakes: &[Mistake]) -> String {
    mistakes
        .iter()
        .map(Mistake::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

/// The file as TOML reads it.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(transparent)]
pub struct RawConfig(Table);

/// Where packets are for the gateway itself.
fn listeners(tunnel: &Tunnel, dns: Option<&Dns>, relay: Option<&Relay>) -> Vec<SocketAddr> {
    let doors = dns.and_then(|dns| dns.doors.as_ref()).into_iter();
    let doors = doors.flat_map(|doors| [&doors.tls, &doors.https, &doors.quic]);
    let dns = dns.map(|dns| &dns.listen);
    let relay = relay.map(|relay| &relay.listen);
    let others = dns.into_iter().chain(doors).chain(relay).flatten();
    tunnel.listen.iter().chain(others).copied().collect()
}

impl Config {
    /// Addresses at which routers, devices and strangers reach this gateway, over UDP or TCP.
    pub(crate) fn listeners(&self) -> Vec<SocketAddr> {
        listeners(&self.tunnel, self.dns.as_ref(), self.relay.as_ref())
    }

    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let raw: RawConfig = toml::from_str(&text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            reason: error.to_string().replace('\n', " ").trim_end().to_owned(),
        })?;
        Self::try_from(raw).map_err(ConfigError::Mistakes)
    }
}

impl TryFrom<RawConfig> for Config {
    type Error = Vec<Mistake>;

    fn try_from(raw: RawConfig) -> Result<Self, Self::Error> {
        let mut mistakes = Vec::new();
        let mut top = Fields::new("", raw.0, &mut mistakes);
        let path = "the path of a file or directory";
        let state_dir = top.parsed("state-dir", path);
        let trust_policy = top.parsed("trust-policy", path);
        let user = top.parsed("user", "the name of a user of this system");
        let level: Option<LevelName> = top.parsed("log-level", "error, warn, info, debug or trace");
        let status_socket = top.parsed("status-socket", path);
        let drain = top.number("drain-timeout-s", 0, MAX_DRAIN_S);
        let [
            provisioning,
            tunnel,
            nat,
            announce,
            dns,
            relay,
            sampling,
            metrics,
        ] = [
            "provisioning",
            "tunnel",
            "nat",
            "announce",
            "dns",
            "relay",
            "sampling",
            "metrics",
        ]
        .map(|key| top.section(key));
        top.finish();

        let provisioning = read_provisioning(provisioning.unwrap_or_default(), &mut mistakes);
        let tunnel = read_tunnel(tunnel.unwrap_or_default(), &mut mistakes);
        let nat = nat.map(|table| read_nat(table, tunnel.as_ref(), &mut mistakes));
        let announce = announce.map(|table| read_announce(table, &mut mistakes));
        let inner = tunnel.as_ref().map_or(&[][..], |tunnel| &tunnel.addresses);
        let dns = dns.map(|table| dns::read_dns(table, inner, &mut mistakes));
        let (dns, dns_relay) = dns.unwrap_or_default();
        let relay =
            relay.and_then(|table| relay::read_relay(table, tunnel.as_ref(), &mut mistakes));
        let sampling = sampling.map(|table| sampling::read_sampling(table, &mut mistakes));
        let metrics = metrics.and_then(|table| read_metrics(table, &mut mistakes));
        let served = (dns.as_ref(), relay.as_ref(), metrics);
        clashes::note(tunnel.as_ref(), served, &mut mistakes);

        // A part that could not be read has left a mistake behind.
        let (Some(provisioning), Some(tunnel), true) = (provisioning, tunnel, mistakes.is_empty())
        else {
            return Err(mistakes);
        };
        let dns_relay = dns_relay.map(|it| it.on(listeners(&tunnel, dns.as_ref(), relay.as_ref())));
        Ok(Self {
            state_dir: state_dir.unwrap_or_else(|| DEFAULT_STATE_DIR.into()),
            trust_policy: trust_policy.unwrap_or_else(|| DEFAULT_TRUST_POLICY.into()),
            user: user.unwrap_or_else(|| DEFAULT_USER.to_owned()),
            log_level: level.map_or(Level::INFO, |name| name.0),
            status_socket: status_socket.unwrap_or_else(|| DEFAULT_STATUS_SOCKET.into()),
            drain_timeout: Duration::from_secs(drain.unwrap_or(DEFAULT_DRAIN_S).into()),
            provisioning,
            tunnel,
            nat: nat.flatten(),
            announce: announce.flatten(),
            dns,
            dns_relay,
            relay,
            sampling: sampling.flatten(),
            metrics,
        })
    }
}

fn read_provisioning(table: Table, mistakes: &mut Vec<Mistake>) -> Option<Provisioning> {
    let mut fields = Fields::new("provisioning", table, mistakes);
    let url_form = "https://HOST:PORT";
    let url = fields.parsed("url", url_form);
    if url.is_none() {
        fields.missing("url", url_form);
    }
    let digest_form = "64 hex digits, as `provisioning init` prints them";
    let spki_sha256: Vec<Digest> = fields.list("spki-sha256", digest_form);
    if spki_sha256.is_empty() {
        fields.missing("spki-sha256", digest_form);
    }
    let mut shards = fields.numbers("shards", 0, u32::MAX);
    if shards.is_empty() {
        fields.missing("shards", "a list of shard numbers");
    }
    shards.sort_unstable();
    shards.dedup();
    fields.finish();
    Some(Provisioning {
        url: url?,
        spki_sha256,
        shards,
    })
}

fn read_tunnel(table: Table, mistakes: &mut Vec<Mistake>) -> Option<Tunnel> {
    let mut fields = Fields::new("tunnel", table, mistakes);
    let listen_form = "IP:PORT, such as 0.0.0.0:51820 or [::]:51820";
    let listen: Vec<SocketAddr> = fields.list("listen", listen_form);
    if listen.is_empty() {
        fields.missing("listen", listen_form);
    }
    let one_each =
        |wanted: fn(&SocketAddr) -> bool| listen.iter().filter(|a| wanted(a)).count() <= 1;
    if !(one_each(SocketAddr::is_ipv4) && one_each(SocketAddr::is_ipv6)) {
        // Answers must leave from the address that was asked, and the worker knows only the family.
        let wrong = "has more than one address of a family".to_owned();
        fields.wrong("listen", wrong, "one IPv4 and one IPv6 address");
    }
    let interface = interface(&mut fields, "interface");
    let addresses_form = "ADDRESS/PREFIX, such as 10.64.0.1/16 or fd64::1/48";
    let addresses: Vec<IpNet> = fields.list("addresses", addresses_form);
    if addresses.is_empty() {
        fields.missing("addresses", addresses_form);
    }
    let mtu = fields
        .number("mtu", MIN_MTU, MAX_MTU)
        .unwrap_or(DEFAULT_MTU);
    let dscp = fields.class("dscp").unwrap_or_default();
    let workers = fields.number("workers", 1, MAX_WORKERS.into());
    let post_quantum = fields.flag("post-quantum").unwrap_or(true);
    fields.finish();
    Some(Tunnel {
        listen,
        interface: interface.unwrap_or_else(|| DEFAULT_INTERFACE.to_owned()),
        addresses,
        mtu: u16::try_from(mtu).ok()?,
        dscp,
        post_quantum,
        workers: workers
            .and_then(|workers| u8::try_from(workers).ok())
            .unwrap_or_else(default_workers),
    })
}

fn read_announce(table: Table, mistakes: &mut Vec<Mistake>) -> Option<Announce> {
    let mut fields = Fields::new("announce", table, mistakes);
    let number = fields.number("table", 1, u32::MAX);
    if number.is_some_and(|number| (TABLE_DEFAULT..=TABLE_LOCAL).contains(&number)) {
        let wrong = "is a table that packets are routed by".to_owned();
        fields.wrong("table", wrong, "any other than 253 to 255");
    }
    let protocol = fields.number("protocol", MIN_PROTOCOL, u8::MAX.into());
    fields.finish();
    Some(Announce {
        table: number.unwrap_or(DEFAULT_ANNOUNCE_TABLE),
        protocol: u8::try_from(protocol.unwrap_or(DEFAULT_ANNOUNCE_PROTOCOL)).ok()?,
    })
}

fn default_workers() -> u8 {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    u8::try_from(processors).map_or(MAX_WORKERS, |count| count.min(MAX_WORKERS))
}

fn read_nat(table: Table, tunnel: Option<&Tunnel>, mistakes: &mut Vec<Mistake>) -> Option<Nat> {
    let mut fields = Fields::new("nat", table, mistakes);
    let name = interface(&mut fields, "interface");
    let accepted = "the name of the interface towards the internet";
    if name.is_none() {
        fields.missing("interface", accepted);
    }
    if tunnel.is_some_and(|tunnel| name.as_ref() == Some(&tunnel.interface)) {
        fields.wrong("interface", "is the tunnel's own".to_owned(), accepted);
    }
    let ipv4 = fields.flag("ipv4").unwrap_or(true);
    fields.finish();
    Some(Nat {
        interface: name?,
        ipv4,
    })
}

/// An interface's name goes into a rule set, so that its characters matter.
fn interface(fields: &mut Fields<'_>, key: &'static str) -> Option<String> {
    let accepted = "an interface name of 1 to 15 letters, digits, `.`, `-` or `_`";
    let name: String = fields.parsed(key, accepted)?;
    let fits = (1..=MAX_INTERFACE_BYTES).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    if !fits {
        fields.wrong(key, format!("`{name}` is no interface name"), accepted);
    }
    fits.then_some(name)
}

fn read_metrics(table: Table, mistakes: &mut Vec<Mistake>) -> Option<SocketAddr> {
    let mut fields = Fields::new("metrics", table, mistakes);
    let accepted = "IP:PORT, such as 127.0.0.1:9101";
    let listen = fields.parsed("listen", accepted);
    if listen.is_none() {
        fields.missing("listen", accepted);
    }
    fields.finish();
    listen
}

struct LevelName(Level);

impl FromStr for LevelName {
    type Err = telemetry::UnknownLevel;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        telemetry::parse_level(text).map(Self)
    }
}

#[cfg(test)]
impl Dns {
    /// Asks this resolver; nothing is validated, and no other zone is known.
    pub(crate) fn forwarding_to(address: SocketAddr) -> Self {
        Self {
            listen: Vec::new(),
            provider_name: "2.dnscrypt-cert.example".to_owned(),
            certificates: Certificates::Directory("/nowhere".into()),
            upstream: Upstream::Forward(vec![address]),
            dnssec: false,
            aggressive_nsec: true,
            zones: Vec::new(),
            dns64: None,
            trust_anchor_file: None,
            rate: None,
            cache_bytes: 1 << 20,
            doors: None,
            behind: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
