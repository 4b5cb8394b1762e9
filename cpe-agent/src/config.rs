//! The configuration file: read as raw TOML, turned once into [`Config`], with every mistake at once.

mod dns;
mod section;

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use dns::{Dns, FilterAaaa};
use section::Section;
use toml::de::{DeTable, DeValue};
use tunnel::offload::ecn::OuterTos;

use crate::exit::{Exit, Failure};
use crate::psk::PostQuantum;

/// What the program uses. Every value has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// Where identity, lease and memory are kept.
    pub state_dir: PathBuf,
    /// The image's trust file.
    pub trust_policy: PathBuf,
    /// The provisioning server.
    pub provisioning: Provisioning,
    /// The interfaces to the access network: one, or the preferred one and the other.
    pub wans: Vec<InterfaceName>,
    /// The home's side.
    pub lan: Lan,
    /// The home's lookups.
    pub dns: Dns,
    /// The tunnel.
    pub tunnel: Tunnel,
    /// The captive-portal window.
    pub portal: Portal,
    /// Whether anything may leave in clear when the tunnel is down.
    pub kill_switch: KillSwitch,
    /// The user that the agent becomes once its sockets stand.
    pub user: String,
    /// Where `status` and `enrol` reach the running agent.
    pub status_socket: PathBuf,
    /// How much is logged.
    pub log_level: telemetry::Level,
}

/// The provisioning server and how it is recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Provisioning {
    /// Where it listens.
    pub server: SocketAddr,
    /// SHA-256 of the SubjectPublicKeyInfo of the keys that it may show.
    pub pins: Vec<[u8; 32]>,
}

/// The home's side of the router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lan {
    /// Interfaces whose packets go through the tunnel.
    pub interfaces: Vec<InterfaceName>,
    /// Addresses on which lookups are answered.
    pub dns_listen: Vec<SocketAddr>,
    /// Whether lookups to other resolvers are answered by the router too.
    pub dns_redirect: DnsRedirect,
}

/// The tunnel's interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tunnel {
    /// Its name.
    pub interface: InterfaceName,
    /// Its MTU.
    pub mtu: u16,
    /// Whether pre-shared keys are agreed with gateways by ML-KEM-768.
    pub post_quantum: PostQuantum,
    /// Which class of service the tunnel's datagrams show.
    pub dscp: OuterTos,
    /// How often a silent tunnel says that it is there, so that NAT on the way stays open.
    pub keepalive: Duration,
}

/// The window through which a device of the home may reach the access network's login page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Portal {
    /// How long it stays open unless another time is asked for.
    pub window: Duration,
    /// Where the access network's resolvers are written down.
    pub resolvers: PathBuf,
}

/// What happens to packets that cannot go through the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KillSwitch {
    /// They are dropped, also while the agent is not running.
    On,
    /// They leave in clear.
    Off,
}

/// What happens to a lookup from the LAN to another resolver's port 53.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DnsRedirect {
    /// The router answers it.
    ToStub,
    /// It goes through the tunnel as it is.
    No,
}

/// A network interface's name: 1 to 15 of letters, digits, `.`, `_`, `-`, so that it is also safe inside a rule set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InterfaceName(String);

impl InterfaceName {
    /// Checks a name.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let is_name =
            (1..=15).contains(&text.len()) && text.chars().all(fine) && text != "." && text != "..";
        is_name.then(|| Self(text.to_owned()))
    }

    /// The name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One thing wrong in the file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Mistake {
    /// Where: `section.key`.
    pub key: String,
    /// What is wrong with it.
    pub wrong: String,
    /// What would be right.
    pub accepted: &'static str,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}; accepted: {}",
            self.key, self.wrong, self.accepted
        )
    }
}

/// Everything that is wrong in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration has mistakes:")?;
        for mistake in &self.0 {
            write!(f, "\n  {mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// No configuration of an agent is near this size.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// IPv6 demands this much of a link.
const MIN_MTU: i64 = 1280;
/// What is left of an Ethernet's 1,500 bytes inside WireGuard over IPv6, and a little more where the access has it.
const MAX_MTU: i64 = 1500;
const DEFAULT_MTU: u16 = 1420;
/// Below the 30 s after which common home gateways forget a UDP mapping.
const DEFAULT_KEEPALIVE_S: u16 = 25;
/// Long enough to find a login page and type what it asks for.
const DEFAULT_WINDOW_S: u16 = 300;
/// A home forgets what it has left open.
pub(crate) const MAX_WINDOW_S: u16 = 900;
const MAX_PINS: usize = 8;
const MAX_INTERFACES: usize = 16;

/// Why there is no configuration.
#[derive(Debug)]
pub(crate) enum LoadError {
    /// The file cannot be read.
    Unreadable(String),
    /// What is in it is wrong.
    Wrong(String, Mistakes),
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Unreadable(sentence) => Self::new(Exit::Config, sentence),
            LoadError::Wrong(path, mistakes) => {
                Self::new(Exit::Config, format!("{path}: {mistakes}"))
            }
        }
    }
}

/// Reads and checks the file.
pub(crate) fn load(path: &Path) -> Result<Config, LoadError> {
    let unreadable = |why: &dyn fmt::Display| {
        LoadError::Unreadable(format!(
            "the configuration {} cannot be read: {why}",
            path.display()
        ))
    };
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text))
        .map_err(|error| unreadable(&error))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(unreadable(&"it is larger than any configuration"));
    }
    parse(&text).map_err(|mistakes| LoadError::Wrong(path.display().to_string(), mistakes))
}

/// Checks the text of a configuration.
pub(crate) fn parse(text: &str) -> Result<Config, Mistakes> {
    let table = DeTable::parse(text).map_err(|error| Mistakes(vec![not_toml(text, &error)]))?;
    let mut mistakes = Vec::new();
    let mut root = Section::root(table.into_inner(), &mut mistakes);
    let config = read_root(&mut root);
    root.finish();
    match config {
        Some(config) if mistakes.is_empty() => Ok(config),
        Some(_) | None => Err(Mistakes(mistakes)),
    }
}

fn not_toml(text: &str, error: &toml::de::Error) -> Mistake {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.map_or(1, |before| before.matches('\n').count() + 1);
    Mistake {
        key: "the file".to_owned(),
        wrong: format!("is not TOML at line {line}: {}", error.message()),
        accepted: "TOML 1.0",
    }
}

fn read_root(root: &mut Section<'_>) -> Option<Config> {
    let state_dir = root.optional(
        "state-dir",
        "an absolute path",
        "/etc/culvert/state".into(),
        absolute_path,
    );
    let trust_policy = root.optional(
        "trust-policy",
        "an absolute path",
        "/etc/culvert/trust.policy".into(),
        absolute_path,
    );
    let kill_switch = root.optional("kill-switch", "true or false", KillSwitch::On, |value| {
        value
            .as_bool()
            .map(|on| if on { KillSwitch::On } else { KillSwitch::Off })
    });
    let user = root.optional(
        "user",
        "a user name of this system",
        "nobody".to_owned(),
        user_name,
    );
    let status_socket = root.optional(
        "status-socket",
        "an absolute path of at most 100 bytes",
        "/run/culvert/agent.sock".into(),
        socket_path,
    );
    let log_level = root.optional(
        "log-level",
        "error, warn, info, debug, trace",
        telemetry::Level::INFO,
        |value| telemetry::parse_level(value.as_str()?).ok(),
    );
    let provisioning = root.section("provisioning", read_provisioning);
    let wans = root.section("wan", read_wans);
    let lan = root.section("lan", read_lan);
    let tunnel = root.section("tunnel", read_tunnel);
    let is_quantum_safe = (tunnel.as_ref()).map_or(PostQuantum::On, |tunnel| tunnel.post_quantum);
    let dns = root.section("dns", |section| dns::read(section, is_quantum_safe));
    let portal = root.section("portal", read_portal);
    if let (Some(wans), Some(lan), Some(tunnel)) = (&wans, &lan, &tunnel) {
        check_interfaces(root, wans, lan, tunnel);
    }
    if let (Some(dns), Some(lan)) = (&dns, &lan) {
        // It never listens on every address.
        let wrong = dns.rules.wrong_forwards(&lan.dns_listen, |_| false);
        for wrong in wrong {
            root.mistake("dns.forward", wrong.to_string(), dns::FORWARDS);
        }
    }
    Some(Config {
        state_dir: state_dir?,
        trust_policy: trust_policy?,
        provisioning: provisioning?,
        wans: wans?,
        lan: lan?,
        dns: dns?,
        tunnel: tunnel?,
        portal: portal?,
        kill_switch: kill_switch?,
        user: user?,
        status_socket: status_socket?,
        log_level: log_level?,
    })
}

fn read_provisioning(section: &mut Section<'_>) -> Option<Provisioning> {
    let server = section.required(
        "url",
        "https://ADDRESS:PORT with an IP address, since names cannot be resolved before the tunnel stands",
        server_address,
    );
    let pins = section.required(
        "spki-sha256",
        "1 to 8 strings of 64 hexadecimal digits, different from each other",
        |value| {
            let pins = list(value, MAX_PINS, pin)?;
            (!pins.is_empty() && all_different(&pins)).then_some(pins)
        },
    );
    Some(Provisioning {
        server: server?,
        pins: pins?,
    })
}

fn read_wans(section: &mut Section<'_>) -> Option<Vec<InterfaceName>> {
    let first = section.required("interface", INTERFACE, interface);
    let second = section.optional("backup", INTERFACE, None, |value| {
        interface(value).map(Some)
    });
    let wans: Vec<_> = std::iter::once(first?).chain(second?).collect();
    if !all_different(&wans) {
        section.mistake(
            "backup",
            "is the first WAN's".to_owned(),
            "another interface",
        );
    }
    Some(wans)
}

fn read_lan(section: &mut Section<'_>) -> Option<Lan> {
    let interfaces = section.required(
        "interfaces",
        "1 to 16 interface names, different from each other",
        |value| {
            let names = list(value, MAX_INTERFACES, interface)?;
            (!names.is_empty() && all_different(&names)).then_some(names)
        },
    );
    let dns_listen = section.optional(
        "dns-listen",
        "up to 16 of ADDRESS:PORT, different from each other, on the LAN's own addresses",
        Vec::new(),
        |value| {
            let addresses = list(value, MAX_INTERFACES, listen_address)?;
            all_different(&addresses).then_some(addresses)
        },
    );
    let dns_redirect =
        section.optional("dns-redirect", "true or false", DnsRedirect::No, |value| {
            value.as_bool().map(|on| {
                if on {
                    DnsRedirect::ToStub
                } else {
                    DnsRedirect::No
                }
            })
        });
    Some(Lan {
        interfaces: interfaces?,
        dns_listen: dns_listen?,
        dns_redirect: dns_redirect?,
    })
}

fn read_tunnel(section: &mut Section<'_>) -> Option<Tunnel> {
    let interface = section.optional(
        "interface",
        INTERFACE,
        InterfaceName("culvert0".to_owned()),
        interface,
    );
    let mtu = section.optional("mtu", "1280 to 1500", DEFAULT_MTU, |value| {
        let mtu = integer(value).filter(|mtu| (MIN_MTU..=MAX_MTU).contains(mtu))?;
        u16::try_from(mtu).ok()
    });
    let dscp = section.optional(
        "dscp",
        "\"zero\", \"copy\", or 0 to 63",
        OuterTos::Zero,
        |value| match (value.as_str(), integer(value)) {
            (Some("zero"), _) => Some(OuterTos::Zero),
            (Some("copy"), _) => Some(OuterTos::Copy),
            (_, Some(class)) => {
                let class = u8::try_from(class).ok().filter(|class| *class < 64)?;
                Some(OuterTos::Fixed(class))
            }
            _ => None,
        },
    );
    let keepalive_s = section.optional("keepalive-s", "5 to 3600", DEFAULT_KEEPALIVE_S, |value| {
        let seconds = integer(value).filter(|seconds| (5..=3600).contains(seconds))?;
        u16::try_from(seconds).ok()
    });
    let post_quantum =
        section.optional("post-quantum", "true or false", PostQuantum::On, |value| {
            Some(if value.as_bool()? {
                PostQuantum::On
            } else {
                PostQuantum::Off
            })
        });
    Some(Tunnel {
        interface: interface?,
        post_quantum: post_quantum?,
        mtu: mtu?,
        dscp: dscp?,
        keepalive: Duration::from_secs(u64::from(keepalive_s?)),
    })
}

fn read_portal(section: &mut Section<'_>) -> Option<Portal> {
    let window_s = section.optional("window-s", "1 to 900", DEFAULT_WINDOW_S, |value| {
        let seconds = u16::try_from(integer(value)?).ok()?;
        (1..=MAX_WINDOW_S).contains(&seconds).then_some(seconds)
    });
    let resolvers = section.optional(
        "resolvers",
        "an absolute path",
        "/tmp/resolv.conf.d/resolv.conf.auto".into(),
        absolute_path,
    );
    Some(Portal {
        window: Duration::from_secs(u64::from(window_s?)),
        resolvers: resolvers?,
    })
}

fn check_interfaces(root: &mut Section<'_>, wans: &[InterfaceName], lan: &Lan, tunnel: &Tunnel) {
    if let Some(wan) = wans.iter().find(|wan| lan.interfaces.contains(wan)) {
        root.mistake(
            "lan.interfaces",
            format!("{wan} is also the WAN's"),
            "interfaces of the home only",
        );
    }
    if wans.contains(&tunnel.interface) || lan.interfaces.contains(&tunnel.interface) {
        let wrong = format!("{} is also the WAN's or the LAN's", tunnel.interface);
        root.mistake(
            "tunnel.interface",
            wrong,
            "a name that no other interface has",
        );
    }
}

const INTERFACE: &str = "an interface name: 1 to 15 letters, digits, `.`, `_`, `-`";

fn interface(value: &DeValue<'_>) -> Option<InterfaceName> {
    InterfaceName::parse(value.as_str()?)
}

fn absolute_path(value: &DeValue<'_>) -> Option<PathBuf> {
    let path = PathBuf::from(value.as_str()?);
    path.is_absolute().then_some(path)
}

/// The kernel's limit for a socket's path is 107 bytes.
fn socket_path(value: &DeValue<'_>) -> Option<PathBuf> {
    let path = absolute_path(value)?;
    (path.as_os_str().len() <= 100 && path.file_name().is_some()).then_some(path)
}

fn user_name(value: &DeValue<'_>) -> Option<String> {
    let name = value.as_str()?;
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    ((1..=32).contains(&name.len()) && name.chars().all(fine)).then(|| name.to_owned())
}

fn server_address(value: &DeValue<'_>) -> Option<SocketAddr> {
    let address = value
        .as_str()?
        .strip_prefix("https://")?
        .trim_end_matches('/');
    address.parse().ok().filter(usable)
}

fn listen_address(value: &DeValue<'_>) -> Option<SocketAddr> {
    value.as_str()?.parse().ok().filter(usable)
}

fn usable(address: &SocketAddr) -> bool {
    address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast()
}

fn pin(value: &DeValue<'_>) -> Option<[u8; 32]> {
    let text = value.as_str()?;
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut pin = [0; 32];
    for (index, byte) in pin.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(pin)
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

fn list<T>(
    value: &DeValue<'_>,
    most: usize,
    parse: fn(&DeValue<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let items = value.as_array().filter(|items| items.len() <= most)?;
    items.iter().map(|item| parse(item.get_ref())).collect()
}

fn all_different<T: PartialEq>(items: &[T]) -> bool {
    items
        .iter()
        .enumerate()
        .all(|(index, item)| !items[..index].contains(item))
}
