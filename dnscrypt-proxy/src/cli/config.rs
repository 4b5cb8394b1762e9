//! The configuration file of `culvert-dns run`: read once, into a type that cannot be wrong. All mistakes
//! are reported together.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde_json::json;
use telemetry::Level;
use toml::{Table, Value};

use super::exit::{CONFIG, Failure};
use super::{CheckConfigArgs, legacy, policy, relay_stamp};
use crate::policy::Rules;
use crate::proto::cert::Policy;
use crate::proto::stamp::DnsCryptStamp;
use crate::upstream::{KeyPolicy, MAX_STAMPS, Prefer, Route};

/// The cache's default bound, in KiB.
pub(super) const DEFAULT_CACHE_KIB: usize = 4096;
const MAX_CACHE_KIB: usize = 1024 * 1024;
const MAX_LISTEN: usize = 64;
const MAX_RELAYS: usize = 16;
/// To look up a way takes one.
const ANY_PORT: u16 = 53;
const ACCEPTED_KEYS: &str = "listen, stamps, relays, prefer, ephemeral-keys, post-quantum, legacy-certificates, cache-kib, status-socket, log-level, [policy]";

/// What `run` uses.
#[derive(Debug)]
pub(super) struct Config {
    /// Addresses to answer on, over UDP and TCP; none where systemd hands the sockets over.
    pub(super) listen: Vec<SocketAddr>,
    /// Resolvers, in order of preference.
    pub(super) stamps: Vec<DnsCryptStamp>,
    /// How they are reached.
    pub(super) route: Route,
    /// Whom a question goes to first.
    pub(super) prefer: Prefer,
    /// How long a client key lives.
    pub(super) keys: KeyPolicy,
    /// Which certificates are taken.
    pub(super) policy: Policy,
    /// The cache's bound.
    pub(super) cache_bytes: usize,
    /// Where the status is told, if anywhere.
    pub(super) status_socket: Option<PathBuf>,
    /// What is answered or refused without asking.
    pub(super) rules: Rules,
    /// What is logged.
    pub(super) level: Level,
}

/// The file's text, or a section's, as it is: every key optional and of any type, so that all mistakes can be told.
pub(super) struct RawConfig {
    pub(super) table: Table,
    pub(super) mistakes: Vec<String>,
}

/// Why there is no configuration: how the program ends, and each mistake by itself.
#[derive(Debug)]
pub(super) struct NoConfig {
    failure: Failure,
    mistakes: Vec<String>,
}

impl From<NoConfig> for Failure {
    fn from(none: NoConfig) -> Self {
        none.failure
    }
}

impl From<Failure> for NoConfig {
    fn from(failure: Failure) -> Self {
        let mistakes = vec![failure.message.clone()];
        Self { failure, mistakes }
    }
}

pub(super) fn load(path: &Path) -> Result<Config, NoConfig> {
    let name = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::io(&format!("cannot read {name}"), &error))?;
    let table = text.parse::<Table>().map_err(|error| {
        let error = error.to_string();
        Failure::new(CONFIG, format!("{name} is not TOML: {}", error.trim_end()))
    })?;
    let raw = RawConfig {
        table,
        mistakes: Vec::new(),
    };
    Config::try_from(raw).map_err(|mistakes| {
        let list: String = mistakes
            .iter()
            .map(|mistake| format!("\n  {mistake}"))
            .collect();
        let message = format!("{name} has {} mistakes:{list}", mistakes.len());
        NoConfig {
            failure: Failure::new(CONFIG, message),
            mistakes,
        }
    })
}

pub(super) fn check(args: &CheckConfigArgs) -> Result<String, Failure> {
    let checked = load(&args.file);
    if !args.json {
        checked?;
        return Ok(format!("{} is right\n", args.file.display()));
    }
    match checked {
        Ok(config) => {
            let listen: Vec<_> = config.listen.iter().map(ToString::to_string).collect();
            let stamps: Vec<_> = config.stamps.iter().map(ToString::to_string).collect();
            let object = json!({"ok": true, "mistakes": [], "listen": listen, "stamps": stamps});
            Ok(format!("{object}\n"))
        }
        Err(NoConfig { failure, mistakes }) => {
            let object = json!({"ok": false, "mistakes": mistakes});
            Err(Failure {
                output: format!("{object}\n"),
                ..failure
            })
        }
    }
}

impl TryFrom<RawConfig> for Config {
    type Error = Vec<String>;

    fn try_from(mut raw: RawConfig) -> Result<Self, Vec<String>> {
        let listen = raw.listen();
        let stamps = raw.list(
            "stamps",
            "sdns:// stamps of DNSCrypt resolvers",
            MAX_STAMPS,
            |text| DnsCryptStamp::from_str(text).map_err(|error| error.to_string()),
        );
        let route = if raw.table.contains_key("relays") {
            let relays = "sdns:// stamps of DNSCrypt relays";
            Route::Relays(raw.list("relays", relays, MAX_RELAYS, relay_stamp))
        } else {
            Route::Direct
        };
        let prefer = raw.word("prefer", "\"order\" or \"latency\"");
        let keys = if raw.boolean("ephemeral-keys") {
            KeyPolicy::PerQuery
        } else {
            KeyPolicy::PerNetwork
        };
        let policy = Policy {
            post_quantum: raw.word("post-quantum", "\"required\", \"preferred\" or \"off\""),
            legacy: legacy(raw.boolean("legacy-certificates")),
        };
        let cache_kib = raw.number("cache-kib", DEFAULT_CACHE_KIB, MAX_CACHE_KIB);
        let status_socket = raw.path("status-socket");
        let level = raw.level("log-level");
        let rules = policy::read(&mut raw);
        for wrong in rules.wrong_forwards(&listen, is_own) {
            raw.mistake("policy.forward", &wrong.to_string(), policy::FORWARDS);
        }
        raw.unknown_keys(ACCEPTED_KEYS);
        if !raw.mistakes.is_empty() {
            return Err(raw.mistakes);
        }
        Ok(Self {
            listen,
            stamps,
            route,
            prefer,
            keys,
            policy,
            cache_bytes: cache_kib * 1024,
            status_socket,
            rules,
            level,
        })
    }
}

/// Whether this machine has an address: then the way there begins at it. Nothing is sent.
pub(super) fn is_own(address: IpAddr) -> bool {
    let anywhere: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let begin = || {
        let socket = UdpSocket::bind((anywhere, 0))?;
        socket.connect((address, ANY_PORT))?;
        socket.local_addr()
    };
    address.is_loopback() || begin().is_ok_and(|begin| begin.ip() == address)
}

impl RawConfig {
    /// An empty list is no mistake: systemd may hand the sockets over.
    fn listen(&mut self) -> Vec<SocketAddr> {
        const KEY: &str = "listen";
        let value = self.table.get(KEY).and_then(Value::as_array);
        if value.is_some_and(Vec::is_empty) {
            self.table.remove(KEY);
            return Vec::new();
        }
        let accepted = "IP:PORT, such as \"127.0.0.1:53\"";
        self.list(KEY, accepted, MAX_LISTEN, |text| {
            text.parse()
                .map_err(|_| "not an IP address with a port".to_owned())
        })
    }

    fn list<T>(
        &mut self,
        key: &str,
        accepted: &str,
        max: usize,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        if !self.table.contains_key(key) {
            self.mistake(key, "is missing", &format!("a list of {accepted}"));
            return Vec::new();
        }
        let values = self.optional_list(key, 1, max, accepted, read);
        values.unwrap_or_default()
    }

    /// A list that may be left out.
    pub(super) fn optional_list<T>(
        &mut self,
        key: &str,
        least: usize,
        most: usize,
        accepted: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let value = self.table.remove(key)?;
        let items = value.as_array();
        let Some(items) = items.filter(|items| (least..=most).contains(&items.len())) else {
            let lengths = format!("{least} to {most} {accepted}");
            self.mistake(key, "is not a list of the right length", &lengths);
            return None;
        };
        let mut values = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let read = item
                .as_str()
                .map_or_else(|| Err("not a text".to_owned()), &read);
            match read {
                Ok(value) => values.push(value),
                Err(why) => self.mistake(&format!("{key}[{at}]"), &why, accepted),
            }
        }
        Some(values)
    }

    fn path(&mut self, key: &str) -> Option<PathBuf> {
        let text = self.table.remove(key)?;
        let path = text.as_str().map(PathBuf::from);
        let path = path.filter(|path| path.is_absolute());
        if path.is_none() {
            self.mistake(
                key,
                "is not an absolute path",
                "such as \"/run/culvert-dns/status.sock\"",
            );
        }
        path
    }

    pub(super) fn boolean(&mut self, key: &str) -> bool {
        match self.table.remove(key) {
            None => false,
            Some(Value::Boolean(value)) => value,
            Some(_) => {
                self.mistake(key, "is not a truth value", "true or false");
                false
            }
        }
    }

    fn word<T: FromStr + Default>(&mut self, key: &str, accepted: &str) -> T {
        let value = match self.table.remove(key) {
            None => return T::default(),
            Some(value) => value.as_str().and_then(|text| text.parse().ok()),
        };
        if value.is_none() {
            self.mistake(key, "is none of the words", accepted);
        }
        value.unwrap_or_default()
    }

    fn number(&mut self, key: &str, default: usize, max: usize) -> usize {
        let value = match self.table.remove(key) {
            None => return default,
            Some(value) => value
                .as_integer()
                .and_then(|value| usize::try_from(value).ok()),
        };
        if let Some(value) = value.filter(|value| *value <= max) {
            return value;
        }
        self.mistake(key, "is out of bounds", &format!("0 to {max}"));
        default
    }

    fn level(&mut self, key: &str) -> Level {
        let level = match self.table.remove(key) {
            None => return Level::INFO,
            Some(value) => value
                .as_str()
                .and_then(|text| telemetry::parse_level(text).ok()),
        };
        if level.is_none() {
            self.mistake(
                key,
                "is not a level",
                "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
            );
        }
        level.unwrap_or(Level::INFO)
    }

    pub(super) fn unknown_keys(&mut self, accepted: &str) {
        let unknown: Vec<_> = self.table.keys().cloned().collect();
        for key in unknown {
            self.mistake(&key, "is not a key here", accepted);
        }
    }

    pub(super) fn mistake(&mut self, key: &str, what: &str, accepted: &str) {
        self.mistakes
            .push(format!("{key}: {what}; accepted: {accepted}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::cert::{Legacy, PostQuantum};

    const STAMP: &str = "sdns://AQMAAAAAAAAADDkuOS45Ljk6ODQ0MyBnyEe4yHWM0SAkVUO-dWdG3zTfHYTAC4xHA2jfgh2GPhkyLmRuc2NyeXB0LWNlcnQucXVhZDkubmV0";

    fn read(text: &str) -> Result<Config, Vec<String>> {
        Config::try_from(RawConfig {
            table: text.parse().unwrap(),
            mistakes: Vec::new(),
        })
    }

    #[test]
    fn every_mistake_is_reported_at_once_with_its_key_and_what_is_accepted() {
        let text = "listen = [\"127.0.0.1\", 5]\nstamps = [\"sdns://AA\"]\nrelays = [\"sdns://AA\"]\nprefer = \"fastest\"\nephemeral-keys = 1\n\
                    post-quantum = true\nlegacy-certificates = 0\ncache-kib = -1\nstatus-socket = \"here\"\nlog-level = \"loud\"\nlisten-on = 1";

        let mistakes = read(text).unwrap_err();

        let keys: Vec<_> = mistakes
            .iter()
            .map(|mistake| mistake.split(':').next().unwrap())
            .collect();
        assert_eq!(
            keys,
            [
                "listen[0]",
                "listen[1]",
                "stamps[0]",
                "relays[0]",
                "prefer",
                "ephemeral-keys",
                "post-quantum",
                "legacy-certificates",
                "cache-kib",
                "status-socket",
                "log-level",
                "listen-on"
            ]
        );
        assert!(
            mistakes
                .iter()
                .all(|mistake| mistake.contains("; accepted: "))
        );
    }

    #[test]
    fn an_empty_file_says_what_is_missing() {
        let mistakes = read("").unwrap_err();

        assert_eq!(mistakes.len(), 2);
        assert!(mistakes[0].starts_with("listen: is missing"));
    }

    #[test]
    fn only_where_to_listen_may_be_left_to_systemd() {
        let mistakes = read("listen = []\nstamps = []").unwrap_err();

        assert_eq!(mistakes.len(), 1);
        assert!(
            mistakes[0].starts_with("stamps: is not a list"),
            "{mistakes:?}"
        );
    }

    #[test]
    fn an_empty_list_of_relays_does_not_mean_without() {
        let text = |relays| {
            format!("listen = [\"127.0.0.1:53\"]\nstamps = [\"{STAMP}\"]\nrelays = {relays}")
        };

        let mistakes = read(&text("[]")).unwrap_err();

        assert!(
            mistakes[0].starts_with("relays: is not a list"),
            "{mistakes:?}"
        );
        let route = read(&text("[\"sdns://gQwxOTguNTEuMTAwLjE\"]"))
            .unwrap()
            .route;
        assert_eq!(
            route,
            Route::Relays(vec!["198.51.100.1:443".parse().unwrap()])
        );
    }

    #[test]
    fn no_zone_is_forwarded_to_where_the_program_listens_by_itself_or_on_every_address() {
        let wrong = |listen: &str, server: &str| {
            let text = format!(
                "listen = [{listen:?}]\nstamps = [\"{STAMP}\"]\n[policy]\nforward = [\"lan {server}\"]"
            );
            read(&text).err().unwrap_or_default()
        };

        for (listen, server) in [
            ("127.0.0.1:53", "127.0.0.1"),
            ("0.0.0.0:53", "127.0.0.1"),
            ("[::]:5353", "127.0.0.2:5353"),
            ("[::]:53", "::1"),
        ] {
            let told = wrong(listen, server);
            assert_eq!(told.len(), 1, "{listen} {server}: {told:?}");
            assert!(told[0].starts_with("policy.forward: "), "{told:?}");
        }
        for (listen, server) in [
            ("127.0.0.1:53", "127.0.0.2"),
            ("0.0.0.0:53", "127.0.0.1:5353"),
            ("0.0.0.0:53", "::1"),
            // This machine's way there begins at another address.
            ("0.0.0.0:53", "10.255.255.254"),
        ] {
            assert_eq!(wrong(listen, server), [""; 0], "{listen} {server}");
        }
    }

    #[test]
    fn an_address_is_this_machines_own_where_the_way_to_it_begins_there() {
        assert!(is_own("127.0.0.9".parse().unwrap()));
        assert!(is_own("::1".parse().unwrap()));
        assert!(!is_own("192.0.2.1".parse().unwrap()));

        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        // A machine without a network has no other address.
        if socket.connect("192.0.2.1:53").is_ok() {
            assert!(is_own(socket.local_addr().unwrap().ip()));
        }
    }

    #[test]
    fn a_whole_file_is_read() {
        let text = format!(
            "listen = [\"127.0.0.1:53\", \"[::1]:53\"]\nstamps = [\"{STAMP}\"]\nprefer = \"latency\"\nephemeral-keys = true\npost-quantum = \"required\"\nlegacy-certificates = true\ncache-kib = 64\nstatus-socket = \"/run/x.sock\"\nlog-level = \"debug\""
        );

        let config = read(&text).unwrap();

        assert_eq!(config.listen.len(), 2);
        assert_eq!(config.route, Route::Direct);
        assert_eq!(config.stamps[0].to_string(), STAMP);
        assert_eq!(config.keys, KeyPolicy::PerQuery);
        assert_eq!(config.prefer, Prefer::Latency);
        assert_eq!(config.policy.post_quantum, PostQuantum::Required);
        assert_eq!(config.policy.legacy, Legacy::LastResort);
        assert_eq!(config.cache_bytes, 65_536);
        assert_eq!(config.status_socket, Some("/run/x.sock".into()));
        assert_eq!(config.level, Level::DEBUG);
    }
}
