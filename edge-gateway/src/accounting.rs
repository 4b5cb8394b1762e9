//! How many bytes each device carried: two numbers per device and nothing about what they were. Kept in
//! memory, written now and then and when the gateway drains, and read back at the next start.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tunnel::Traffic;

const FILE: &str = "accounting.json";
/// Devices, present and past; the rest of a shard's life fits many times over.
const MAX_DEVICES: usize = 262_144;
/// The account of those for which there is no other, so that all together stay right.
const OTHERS: &str = "others";
/// A line per device.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// Bytes of inner packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bytes {
    /// From the router.
    pub rx_bytes: u64,
    /// To the router.
    pub tx_bytes: u64,
}

/// The accounts of all devices.
#[derive(Debug)]
pub(crate) struct Accounts {
    path: PathBuf,
    /// What earlier runs and removed peers carried.
    settled: BTreeMap<String, Bytes>,
}

impl Accounts {
    /// Reads what an earlier run wrote; a damaged file is put aside, not destroyed.
    pub(crate) fn load(directory: &Path) -> Self {
        let path = directory.join(FILE);
        let settled = match read(&path) {
            Ok(settled) => settled,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => {
                let aside = path.with_extension("damaged");
                let kept = std::fs::rename(&path, &aside).is_ok();
                tracing::error!(%error, file = FILE, kept, "the accounts of earlier runs cannot be read; counting from zero");
                BTreeMap::new()
            }
        };
        Self { path, settled }
    }

    /// Adds what a removed peer carried since this run began.
    pub(crate) fn settle(&mut self, device: &[u8; 32], traffic: Traffic) {
        add(&mut self.settled, device, traffic);
    }

    /// Adds what removed peers carried of which it is not known which they were.
    pub(crate) fn settle_others(&mut self, traffic: Traffic) {
        add_to(&mut self.settled, OTHERS.to_owned(), traffic);
    }

    /// Every device's bytes, those of present peers included.
    pub(crate) fn totals(&self, present: &[([u8; 32], Traffic)]) -> BTreeMap<String, Bytes> {
        let mut totals = self.settled.clone();
        for (device, traffic) in present {
            add(&mut totals, device, *traffic);
        }
        totals
    }

    /// Writes the totals down, whole or not at all.
    pub(crate) fn save(&self, present: &[([u8; 32], Traffic)]) -> io::Result<()> {
        let fresh = self.path.with_extension("new");
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(&serde_json::to_vec(&self.totals(present))?)?;
        file.sync_all()?;
        std::fs::rename(&fresh, &self.path)
    }
}

fn add(accounts: &mut BTreeMap<String, Bytes>, device: &[u8; 32], traffic: Traffic) {
    if traffic == Traffic::default() {
        return;
    }
    let key = hex::encode(device);
    let is_full = accounts.len() >= MAX_DEVICES && !accounts.contains_key(&key);
    let key = if is_full { OTHERS.to_owned() } else { key };
    add_to(accounts, key, traffic);
}

fn add_to(accounts: &mut BTreeMap<String, Bytes>, key: String, traffic: Traffic) {
    if traffic.rx_bytes == 0 && traffic.tx_bytes == 0 {
        return;
    }
    let bytes = accounts.entry(key).or_default();
    bytes.rx_bytes = bytes.rx_bytes.saturating_add(traffic.rx_bytes);
    bytes.tx_bytes = bytes.tx_bytes.saturating_add(traffic.tx_bytes);
}

fn read(path: &Path) -> io::Result<BTreeMap<String, Bytes>> {
    if std::fs::metadata(path)?.len() > MAX_FILE_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carried(rx_bytes: u64, tx_bytes: u64) -> Traffic {
        Traffic {
            rx_bytes,
            tx_bytes,
            ..Traffic::default()
        }
    }

    #[test]
    fn bytes_add_up_over_a_restart_and_a_removed_peer() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = Accounts::load(dir.path());
        first.settle(&[1; 32], carried(10, 1));
        first
            .save(&[([1; 32], carried(5, 5)), ([2; 32], carried(7, 0))])
            .unwrap();

        let second = Accounts::load(dir.path());
        let totals = second.totals(&[([1; 32], carried(100, 0))]);

        assert_eq!(
            totals[&hex::encode([1; 32])],
            Bytes {
                rx_bytes: 115,
                tx_bytes: 6
            }
        );
        assert_eq!(
            totals[&hex::encode([2; 32])],
            Bytes {
                rx_bytes: 7,
                tx_bytes: 0
            }
        );
    }

    #[test]
    fn a_damaged_file_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "{\"0101").unwrap();

        let accounts = Accounts::load(dir.path());

        assert_eq!(accounts.totals(&[]).len(), 0);
        assert_eq!(
            std::fs::read(dir.path().join("accounting.damaged")).unwrap(),
            b"{\"0101"
        );
    }

    #[test]
    fn an_account_holds_two_numbers_and_no_address_or_time() {
        let dir = tempfile::tempdir().unwrap();
        Accounts::load(dir.path())
            .save(&[([1; 32], carried(3, 4))])
            .unwrap();

        let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();

        let device = "01".repeat(32);
        assert_eq!(
            text,
            format!("{{\"{device}\":{{\"rx_bytes\":3,\"tx_bytes\":4}}}}")
        );
    }
}
