//! Volume by network of the internet, from packets drawn at random: which prefix is whose comes from a file of the
//! operator's, what is counted are [`Drawn`] packets, which know no subscriber. Kept in memory alone.
//!
//! A network's figures move only by [`MIN_SAMPLES`] samples at a time, so that neither a row nor the difference between
//! two looks at it tells of fewer.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::Path;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;
use tunnel::sample::{Direction, Drawn};

use crate::exit::{Exit, Fault};

/// Samples that a figure stands for, at the least: at one packet in a hundred, about a thousand packets.
pub const MIN_SAMPLES: u64 = 10;
/// The internet's own table is a little over a million.
const MAX_PREFIXES: usize = 2_000_000;
/// Two metrics each.
const MAX_NETWORKS: usize = 4_096;
const MAX_FILE_BYTES: u64 = 128 * 1024 * 1024;
const MAX_NAME_BYTES: usize = 32;
/// Where no prefix of the file fits.
const REST: &str = "other";

/// A row: a network of the file, or the rest.
type Row = u16;

/// Which prefix is whose.
#[derive(Default)]
pub struct Networks {
    v4: PrefixMap<Ipv4Net, Row>,
    v6: PrefixMap<Ipv6Net, Row>,
    /// Read once in a process's life and labels of metrics, which is why they are for ever.
    names: Vec<&'static str>,
}

/// Why a line of the file cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum LineError {
    #[error("accepted: a prefix and a name, such as `192.0.2.0/24 AS64500`")]
    Form,
    #[error("the prefix has bits beyond its length")]
    HostBits,
    #[error(
        "accepted as a name: an AS number, or 1 to 32 letters, digits, `-` and `_`, but not `other`"
    )]
    Name,
    #[error("there are more prefixes than this program takes")]
    TooManyPrefixes,
    #[error("there are more than 4096 names; put the small ones under one")]
    TooManyNetworks,
}

impl Networks {
    /// Reads the operator's file.
    pub fn load(path: &Path) -> Result<Self, Fault> {
        let reading = |error| Fault {
            exit: Exit::Config,
            ..Fault::io(format!("read sampling.prefixes {}", path.display()), &error)
        };
        let length = std::fs::metadata(path).map_err(reading)?.len();
        if length > MAX_FILE_BYTES {
            return Err(reading(std::io::ErrorKind::FileTooLarge.into()));
        }
        let text = std::fs::read_to_string(path).map_err(reading)?;
        Self::parse(&text).map_err(|(line, error)| {
            let sentence = format!("sampling.prefixes {}, line {line}: {error}", path.display());
            Fault::new(Exit::Config, sentence)
        })
    }

    fn parse(text: &str) -> Result<Self, (usize, LineError)> {
        let mut networks = Self {
            names: vec![REST],
            ..Self::default()
        };
        let mut rows = BTreeMap::new();
        let mut count = 0;
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            count += 1;
            let added = match count {
                0..=MAX_PREFIXES => networks.add(line, &mut rows),
                _ => Err(LineError::TooManyPrefixes),
            };
            added.map_err(|error| (number + 1, error))?;
        }
        Ok(networks)
    }

    fn add(&mut self, line: &str, rows: &mut BTreeMap<String, Row>) -> Result<(), LineError> {
        let mut words = line.split_ascii_whitespace();
        let (Some(prefix), Some(name), None) = (words.next(), words.next(), words.next()) else {
            return Err(LineError::Form);
        };
        let prefix: IpNet = prefix.parse().map_err(|_| LineError::Form)?;
        if prefix.trunc() != prefix {
            return Err(LineError::HostBits);
        }
        let name = network_name(name).ok_or(LineError::Name)?;
        let row = match rows.get(&name) {
            Some(row) => *row,
            None => {
                let row =
                    Row::try_from(self.names.len()).map_err(|_| LineError::TooManyNetworks)?;
                if rows.len() >= MAX_NETWORKS {
                    return Err(LineError::TooManyNetworks);
                }
                self.names.push(name.clone().leak());
                rows.insert(name, row);
                row
            }
        };
        match prefix {
            IpNet::V4(prefix) => self.v4.insert(prefix, row),
            IpNet::V6(prefix) => self.v6.insert(prefix, row),
        };
        Ok(())
    }

    /// Whose an address is, by the longest prefix.
    fn row(&self, address: IpAddr) -> Row {
        let row = match address {
            IpAddr::V4(v4) => self.v4.get_lpm(&v4.into()).map(|(_, row)| *row),
            IpAddr::V6(v6) => self.v6.get_lpm(&v6.into()).map(|(_, row)| *row),
        };
        row.unwrap_or_default()
    }
}

/// A number is one of an autonomous system.
fn network_name(text: &str) -> Option<String> {
    if let Ok(number) = text.parse::<u32>() {
        return Some(format!("AS{number}"));
    }
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let fits = (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(is_word);
    (fits && text != REST).then(|| text.to_owned())
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Samples {
    count: u64,
    bytes: u64,
}

impl Samples {
    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.bytes += other.bytes;
    }
}

/// What one worker has counted since it was last asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<(Row, Direction), Samples>);

impl Tally {
    /// Counts a packet. Nothing but this reaches here of it.
    pub fn count(&mut self, networks: &Networks, drawn: Drawn) {
        let row = networks.row(drawn.remote);
        self.0
            .entry((row, drawn.direction))
            .or_default()
            .add(Samples {
                count: 1,
                bytes: drawn.bytes as u64,
            });
    }

    /// Adds another worker's.
    pub fn add(&mut self, other: Self) {
        for (row, samples) in other.0 {
            self.0.entry(row).or_default().add(samples);
        }
    }
}

/// An estimate that may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// The network's name.
    pub network: &'static str,
    /// Which way.
    pub direction: Direction,
    /// Bytes since the start.
    pub bytes: u64,
}

/// What all workers have counted since the start.
#[derive(Debug)]
pub struct Volume {
    one_in: NonZeroU32,
    names: Vec<&'static str>,
    /// Shown, and not enough yet to be shown.
    rows: BTreeMap<(Row, Direction), [Samples; 2]>,
}

impl Volume {
    /// Nothing yet, at one packet in so many.
    pub fn new(one_in: NonZeroU32, networks: &Networks) -> Self {
        Self {
            one_in,
            names: networks.names.clone(),
            rows: BTreeMap::new(),
        }
    }

    /// Adds what was counted.
    pub fn add(&mut self, tally: Tally) {
        for (row, samples) in tally.0 {
            let [shown, pending] = self.rows.entry(row).or_default();
            pending.add(samples);
            if pending.count >= MIN_SAMPLES {
                shown.add(std::mem::take(pending));
            }
        }
    }

    /// The figures that stand for enough samples.
    pub fn estimates(&self) -> impl Iterator<Item = Estimate> {
        let shown = self.rows.iter().filter(|(_, [shown, _])| shown.count > 0);
        shown.filter_map(|((row, direction), [shown, _])| {
            Some(Estimate {
                network: self.names.get(usize::from(*row)).copied()?,
                direction: *direction,
                bytes: shown.bytes * u64::from(self.one_in.get()),
            })
        })
    }
}

#[cfg(test)]
mod tests;
