//! The file that `serve` reads. [`RawConfig`] is what was written, [`Config`] what the program uses;
//! between them every mistake is found at once.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};
use serde::Deserialize;
use toml::Value;

use crate::assign::Pool;

/// Where the state lives when nobody says otherwise.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/culvert-provisioning";
const DEFAULT_LIFETIME_S: u64 = 604_800;
const DEFAULT_RENEW_AFTER_S: u64 = 86_400;
const LIFETIME_BOUNDS_S: (u64, u64) = (600, 2_592_000);
const MAX_POOLS: usize = 4096;

/// The configuration after every check.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Addresses of the enrolment API.
    pub listen: Vec<SocketAddr>,
    /// Keys, database and logs.
    pub data_dir: PathBuf,
    /// Plain HTTP for Prometheus; loopback or a management address.
    pub metrics_listen: Option<SocketAddr>,
    /// How long leases live.
    pub lease: LeaseTimes,
    /// Where inner addresses come from, one entry for each shard.
    pub pools: Vec<Pool>,
}

/// How long leases live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTimes {
    /// From issue to expiry.
    pub lifetime: Duration,
    /// From issue to the moment when the same keys get a new lease; before it they get the same one.
    pub renew_after: Duration,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    mistakes: Vec<Mistake>,
}

#[derive(Debug, PartialEq, Eq)]
struct Mistake {
    key: String,
    wrong: String,
    accepted: &'static str,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, mistake) in self.mistakes.iter().enumerate() {
            if position > 0 {
                f.write_str("\n")?;
            }
            let Mistake {
                key,
                wrong,
                accepted,
            } = mistake;
            write!(f, "{key}: {wrong}; accepted: {accepted}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// The file as written. Values stay untyped here so that one wrong type does not hide the next mistake.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct RawConfig {
    listen: Option<Value>,
    data_dir: Option<Value>,
    metrics_listen: Option<Value>,
    lease: Option<Value>,
    pool: Option<Value>,
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        use anyhow::Context;
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration {}", path.display()))?;
        Ok(Self::parse(&text)?)
    }

    /// Checks the text of a file.
    pub fn parse(text: &str) -> Result<Self, ConfigErrors> {
        let raw: RawConfig = toml::from_str(text).map_err(|error| ConfigErrors {
            mistakes: vec![Mistake {
                key: "file".to_owned(),
                wrong: error.to_string().trim_end().replace('\n', " "),
                accepted: "TOML 1.0",
            }],
        })?;
        Self::try_from(raw)
    }
}

impl TryFrom<RawConfig> for Config {
    type Error = ConfigErrors;

    fn try_from(raw: RawConfig) -> Result<Self, ConfigErrors> {
        let mut found = Mistakes::default();
        found.unknown_keys(
            "",
            raw.unknown.keys(),
            "listen, data-dir, metrics-listen, lease, pool",
        );
        let listen = listen(raw.listen, &mut found);
        let data_dir = data_dir(raw.data_dir, &mut found);
        let metrics_listen = raw
            .metrics_listen
            .and_then(|value| address("metrics-listen", &value, &mut found));
        let lease = lease_times(raw.lease, &mut found);
        let pools = pools(raw.pool, &mut found);
        if found.0.is_empty() {
            Ok(Self {
                listen,
                data_dir,
                metrics_listen,
                lease,
                pools,
            })
        } else {
            Err(ConfigErrors { mistakes: found.0 })
        }
    }
}

#[derive(Default)]
struct Mistakes(Vec<Mistake>);

impl Mistakes {
    fn add(&mut self, key: impl Into<String>, wrong: impl Into<String>, accepted: &'static str) {
        self.0.push(Mistake {
            key: key.into(),
            wrong: wrong.into(),
            accepted,
        });
    }

    fn unknown_keys<'a>(
        &mut self,
        prefix: &str,
        keys: impl Iterator<Item = &'a String>,
        accepted: &'static str,
    ) {
        for key in keys {
            self.add(format!("{prefix}{key}"), "is not a known key", accepted);
        }
    }
}

const ADDRESS: &str = "an address and port such as \"198.18.2.2:8443\" or \"[2001:db8::1]:8443\"";

fn listen(value: Option<Value>, found: &mut Mistakes) -> Vec<SocketAddr> {
    const ACCEPTED: &str = "a list of 1 to 16 addresses such as [\"198.18.2.2:8443\"]";
    let list = match value {
        Some(Value::Array(list)) if (1..=16).contains(&list.len()) => list,
        Some(Value::Array(_)) => {
            found.add("listen", "has the wrong number of addresses", ACCEPTED);
            return Vec::new();
        }
        Some(_) => {
            found.add("listen", "is not a list", ACCEPTED);
            return Vec::new();
        }
        None => {
            found.add("listen", "is missing", ACCEPTED);
            return Vec::new();
        }
    };
    list.iter()
        .enumerate()
        .filter_map(|(position, value)| address(&format!("listen[{position}]"), value, found))
        .collect()
}

fn address(key: &str, value: &Value, found: &mut Mistakes) -> Option<SocketAddr> {
    let parsed = value.as_str().and_then(|text| text.parse().ok());
    if parsed.is_none() {
        found.add(
            key,
            format!("{} is not an address and port", shown(value)),
            ADDRESS,
        );
    }
    parsed
}

fn shown(value: &Value) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "this".to_owned())
}

fn data_dir(value: Option<Value>, found: &mut Mistakes) -> PathBuf {
    match value {
        None => PathBuf::from(DEFAULT_DATA_DIR),
        Some(Value::String(text)) if text.starts_with('/') => PathBuf::from(text),
        Some(other) => {
            found.add(
                "data-dir",
                format!("{} is not an absolute path", shown(&other)),
                "an absolute path",
            );
            PathBuf::new()
        }
    }
}

fn lease_times(value: Option<Value>, found: &mut Mistakes) -> LeaseTimes {
    let mut table = match value {
        None => toml::Table::new(),
        Some(Value::Table(table)) => table,
        Some(_) => {
            found.add(
                "lease",
                "is not a table",
                "[lease] with lifetime-s and renew-after-s",
            );
            toml::Table::new()
        }
    };
    let lifetime = seconds("lifetime-s", DEFAULT_LIFETIME_S, &mut table, found);
    let renew_after = seconds("renew-after-s", DEFAULT_RENEW_AFTER_S, &mut table, found);
    found.unknown_keys("lease.", table.keys(), "lifetime-s, renew-after-s");
    if renew_after >= lifetime {
        found.add(
            "lease.renew-after-s",
            format!("{renew_after} is not below lease.lifetime-s, which is {lifetime}"),
            "seconds below lease.lifetime-s",
        );
    }
    if !(LIFETIME_BOUNDS_S.0..=LIFETIME_BOUNDS_S.1).contains(&lifetime) {
        found.add(
            "lease.lifetime-s",
            format!("{lifetime} is out of bounds"),
            "600 to 2592000",
        );
    }
    LeaseTimes {
        lifetime: Duration::from_secs(lifetime),
        renew_after: Duration::from_secs(renew_after),
    }
}

fn seconds(key: &str, default: u64, table: &mut toml::Table, found: &mut Mistakes) -> u64 {
    match table.remove(key) {
        None => default,
        Some(value) => match value.as_integer().and_then(|n| u64::try_from(n).ok()) {
            Some(seconds) if seconds > 0 => seconds,
            _ => {
                let wrong = format!("{} is not a number of seconds", shown(&value));
                found.add(
                    format!("lease.{key}"),
                    wrong,
                    "a whole number of seconds above 0",
                );
                default
            }
        },
    }
}

fn pools(value: Option<Value>, found: &mut Mistakes) -> Vec<Pool> {
    const ACCEPTED: &str = "1 to 4096 tables [[pool]] with pop, shard, v4 and v6";
    let list = match value {
        Some(Value::Array(list)) if (1..=MAX_POOLS).contains(&list.len()) => list,
        Some(_) => {
            found.add("pool", "is not a list of tables", ACCEPTED);
            return Vec::new();
        }
        None => {
            found.add("pool", "is missing", ACCEPTED);
            return Vec::new();
        }
    };
    let mut pools: Vec<(usize, Pool)> = Vec::with_capacity(list.len());
    for (position, value) in list.into_iter().enumerate() {
        let Some(pool) = pool(&format!("pool[{position}]"), value, found) else {
            continue;
        };
        for (other, earlier) in &pools {
            refuse_overlap(position, &pool, *other, earlier, found);
        }
        pools.push((position, pool));
    }
    pools.into_iter().map(|(_, pool)| pool).collect()
}

fn pool(key: &str, value: Value, found: &mut Mistakes) -> Option<Pool> {
    let Value::Table(mut table) = value else {
        found.add(key, "is not a table", "pop, shard, v4, v6");
        return None;
    };
    let mut text = |name: &str| table.remove(name).map(|v| v.as_str().map(str::to_owned));
    let pop = text("pop")
        .flatten()
        .filter(|pop| crate::store::is_word(pop, 32));
    let v4 = text("v4")
        .flatten()
        .and_then(|text| text.parse::<Ipv4Net>().ok());
    let v6 = text("v6")
        .flatten()
        .and_then(|text| text.parse::<Ipv6Net>().ok());
    let shard = table
        .remove("shard")
        .and_then(|v| v.as_integer())
        .and_then(|n| u32::try_from(n).ok());
    found.unknown_keys(&format!("{key}."), table.keys(), "pop, shard, v4, v6");
    if pop.is_none() {
        found.add(
            format!("{key}.pop"),
            "is missing or not a name",
            "1 to 32 letters, digits, - or _",
        );
    }
    if shard.is_none() {
        found.add(
            format!("{key}.shard"),
            "is missing or not a number",
            "0 to 4294967295",
        );
    }
    let v4 = v4.filter(|net| net.prefix_len() <= 28 && net.addr() == net.network());
    if v4.is_none() {
        found.add(
            format!("{key}.v4"),
            "is missing or not an IPv4 network",
            "a network of /28 or larger such as \"10.64.0.0/16\"",
        );
    }
    let v6 = v6.filter(|net| net.prefix_len() <= 96 && net.addr() == net.network());
    if v6.is_none() {
        found.add(
            format!("{key}.v6"),
            "is missing or not an IPv6 network",
            "a network of /96 or larger such as \"fd64::/48\"",
        );
    }
    Some(Pool {
        pop: pop?,
        shard: shard?,
        v4: v4?,
        v6: v6?,
    })
}

fn refuse_overlap(
    position: usize,
    pool: &Pool,
    other: usize,
    earlier: &Pool,
    found: &mut Mistakes,
) {
    const ACCEPTED: &str = "networks and shards that no other pool has";
    if pool.shard == earlier.shard {
        let wrong = format!("{} stands in pool[{other}] too", pool.shard);
        found.add(format!("pool[{position}].shard"), wrong, ACCEPTED);
    }
    if pool.v4.contains(&earlier.v4) || earlier.v4.contains(&pool.v4) {
        let wrong = format!("{} overlaps pool[{other}]", pool.v4);
        found.add(format!("pool[{position}].v4"), wrong, ACCEPTED);
    }
    if pool.v6.contains(&earlier.v6) || earlier.v6.contains(&pool.v6) {
        let wrong = format!("{} overlaps pool[{other}]", pool.v6);
        found.add(format!("pool[{position}].v6"), wrong, ACCEPTED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../../docs/config/provisioning.toml");

    fn keys(text: &str) -> Vec<String> {
        let errors = Config::parse(text).unwrap_err();
        errors
            .mistakes
            .into_iter()
            .map(|mistake| mistake.key)
            .collect()
    }

    #[test]
    fn every_mistake_is_reported_at_once_with_its_key() {
        let text = r#"
            listen = ["198.18.2.2:8443", "nowhere"]
            data-dir = "relative"
            metrics-listen = 9102
            colour = "red"
            [lease]
            lifetime-s = -1
            renew-after = 3
            [[pool]]
            pop = "a.b"
            shard = "one"
            v4 = "10.64.0.0/30"
            v6 = "fd64::/97"
            [[pool]]
            pop = "pop1"
            shard = 1
            v4 = "10.64.0.0/16"
            v6 = "fd64::/48"
            [[pool]]
            pop = "pop2"
            shard = 1
            v4 = "10.64.128.0/17"
            v6 = "fd64::/64"
        "#;

        assert_eq!(
            keys(text),
            [
                "colour",
                "listen[1]",
                "data-dir",
                "metrics-listen",
                "lease.lifetime-s",
                "lease.renew-after",
                "pool[0].pop",
                "pool[0].shard",
                "pool[0].v4",
                "pool[0].v6",
                "pool[2].shard",
                "pool[2].v4",
                "pool[2].v6",
            ]
        );
    }

    #[test]
    fn an_empty_file_and_a_torn_file_are_refused() {
        assert_eq!(keys(""), ["listen", "pool"]);
        assert_eq!(keys("listen = ["), ["file"]);
    }

    #[test]
    fn a_lease_that_is_renewed_after_it_has_expired_is_refused() {
        let text = SAMPLE.replace("renew-after-s = 86400", "renew-after-s = 604800");

        assert_eq!(keys(&text), ["lease.renew-after-s"]);
    }

    #[test]
    fn a_mistake_names_the_key_what_is_wrong_and_what_is_accepted() {
        let text = SAMPLE.replace("lifetime-s = 604800", "lifetime-s = 2592001");

        assert_eq!(
            Config::parse(&text).unwrap_err().to_string(),
            "lease.lifetime-s: 2592001 is out of bounds; accepted: 600 to 2592000"
        );
    }

    #[test]
    fn the_sample_in_docs_is_accepted() {
        let config = Config::parse(SAMPLE).unwrap();

        assert_eq!(config.listen, ["198.18.2.2:8443".parse().unwrap()]);
        assert_eq!(config.lease.lifetime, Duration::from_secs(604_800));
        assert_eq!(config.pools.len(), 1);
        assert_eq!(config.pools[0].v4, "10.64.0.0/16".parse().unwrap());
    }
}
