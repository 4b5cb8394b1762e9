//! A hundred thousand leased routers that nobody has to switch on: their leases are written into provisioning's store as
//! it would write them, logged, sealed and put onto the shard's stream. Provisioning serves and the gateway verifies
//! them like any other.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufWriter, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use rand_core::{OsRng, RngCore};
use trust::lease::fleet_entry;
use trust::{Cosigner, Lease, LogSigner, Tree};

use crate::office::Office;

/// Seconds that the leases hold: longer than any bench.
const LIFETIME_S: u64 = 86_400;
/// The office's name, and so the origin of its logs.
const OFFICE_NAME: &str = "lab";
const SHARD: u32 = 1;

/// What all leases have in common.
pub(super) struct Terms<'a> {
    /// The gateway's id.
    pub(super) gateway: [u8; 32],
    /// Its resolver's stamp.
    pub(super) stamp: &'a str,
    /// The pool's first position that is free.
    pub(super) offset: u32,
}

/// Widens the pool and the gateway's networks to what a hundred thousand addresses need.
pub(super) fn widen(text: String) -> String {
    text.replace("10.64.0.0/16", "10.64.0.0/14")
        .replace("10.64.0.1/16", "10.64.0.1/14")
}

/// The inner address at a position of the pool.
fn address(offset: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 64, 0, 0)) + offset)
}

/// 32 bytes that nobody knows.
pub(super) fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    OsRng.fill_bytes(&mut bytes);
    bytes
}

/// Writes leases for these tunnel keys in one transaction, while the server runs or not, and gives their addresses.
pub(super) fn lease_all(
    office: &Office,
    keys: &[[u8; 32]],
    terms: &Terms<'_>,
) -> Result<Vec<Ipv4Addr>> {
    let store = office.data().join("culvert.db");
    let mut tree = Tree::new();
    for entry in column(
        &store,
        "SELECT hex(entry) FROM log_entry WHERE log = 0 ORDER BY idx",
    )? {
        tree.append(&unhex(&entry)?);
    }
    let next = end_of_stream(&store)?;
    let now = now();
    let mut sqlite = Command::new("sqlite3")
        .args(["-bail", "-cmd", ".timeout 10000"])
        .arg(&store)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("starting sqlite3 (Debian package sqlite3)")?;
    let mut sql = BufWriter::new(sqlite.stdin.take().context("sqlite3 has no stdin")?);
    sql.write_all(b"PRAGMA foreign_keys = ON;\nBEGIN IMMEDIATE;\n")?;
    let mut leased = Vec::with_capacity(keys.len());
    for ((key, offset), seq) in keys.iter().zip(terms.offset..).zip(next..) {
        let lease = lease(*key, offset, terms, now)?;
        leased.push(address(offset));
        sql.write_all(rows(&lease, offset, seq, &mut tree)?.as_bytes())?;
    }
    let head = seal(office.data(), &tree, now)?;
    writeln!(
        sql,
        "UPDATE log_head SET size = {}, stamp = max(stamp, {now}), statement = x'{}' WHERE log = 0;\nCOMMIT;",
        tree.size(),
        hex(head.as_bytes())
    )?;
    sql.flush().context("feeding sqlite3")?;
    drop(sql);
    let status = sqlite.wait().context("waiting for sqlite3")?;
    ensure!(status.success(), "sqlite3 ended with {status}");
    Ok(leased)
}

fn lease(wg_pub: [u8; 32], offset: u32, terms: &Terms<'_>, now: u64) -> Result<Lease> {
    let six = u128::from("fd64::".parse::<Ipv6Addr>()?) + u128::from(offset);
    Ok(Lease {
        v: trust::VERSION,
        devid_hash: random(),
        epoch: 1,
        wg_pub,
        pop: "pop1".to_owned(),
        shard: SHARD,
        gateways: vec![terms.gateway],
        addresses: vec![
            IpNet::from(IpAddr::from(address(offset))),
            IpNet::from(IpAddr::from(Ipv6Addr::from(six))),
        ],
        dns: vec![terms.stamp.to_owned()],
        not_before: now,
        not_after: now + LIFETIME_S,
        limits: trust::Limits::default(),
    })
}

/// The rows of one lease, as provisioning's enrolment writes them.
fn rows(lease: &Lease, offset: u32, seq: u64, tree: &mut Tree) -> Result<String> {
    let (statement, salt) = (lease.to_bytes(), random());
    let entry = fleet_entry(&salt, &statement);
    let leaf = tree.append(&entry);
    let (device, key, now) = (hex(&lease.devid_hash), hex(&lease.wg_pub), lease.not_before);
    let mut sql = String::with_capacity(2_048);
    writeln!(
        sql,
        "INSERT INTO device (devid_hash, devid_pub, pop, shard, pool_offset, epoch, enrolled_at) \
         VALUES (x'{device}', x'{}', 'pop1', {SHARD}, {offset}, 1, {now});",
        hex(&random())
    )?;
    writeln!(
        sql,
        "INSERT INTO lease (devid_hash, epoch, wg_pub, statement, salt, leaf, issued_at, not_after) \
         VALUES (x'{device}', 1, x'{key}', x'{}', x'{}', {leaf}, {now}, {});",
        hex(&statement),
        hex(&salt),
        lease.not_after
    )?;
    writeln!(
        sql,
        "INSERT INTO log_entry (log, idx, entry) VALUES (0, {leaf}, x'{}');",
        hex(&entry)
    )?;
    writeln!(
        sql,
        "INSERT INTO shard_entry (shard, seq, kind, leaf) VALUES ({SHARD}, {seq}, 0, {leaf});"
    )?;
    // An entry completes the subtrees whose last leaf it is.
    for height in 0..=u8::try_from((leaf + 1).trailing_zeros())? {
        let position = leaf >> height;
        let hash = tree
            .node(height, position)
            .context("a subtree that is not complete")?;
        writeln!(
            sql,
            "INSERT INTO log_node (log, level, idx, hash) VALUES (0, {height}, {position}, x'{}');",
            hex(&hash)
        )?;
    }
    Ok(sql)
}

/// The first free place of the stream. Offers of pre-shared keys stand in it too, and a gateway asks for no place twice.
fn end_of_stream(store: &Path) -> Result<u64> {
    let query = format!(
        "SELECT 1 + coalesce(max(seq), -1) FROM \
         (SELECT shard, seq FROM shard_entry UNION ALL SELECT shard, seq FROM psk_offer) WHERE shard = {SHARD}"
    );
    let answer = column(store, &query)?;
    let end = answer.first().context("no answer")?;
    end.parse().context("reading a number")
}

/// Signs and cosigns the head with the office's own keys.
fn seal(data: &Path, tree: &Tree, now: u64) -> Result<String> {
    let seed = |name: &str| -> Result<[u8; 32]> {
        let text =
            fs::read_to_string(data.join(name)).with_context(|| format!("reading {name}"))?;
        let bytes = unhex(text.trim())?;
        bytes.try_into().ok().context("a seed has 32 bytes")
    };
    let signer = LogSigner::from_seed(&format!("{OFFICE_NAME}/fleet"), &seed("log-fleet.key")?)?;
    let cosigner = Cosigner::from_seed(&format!("{OFFICE_NAME}/cosigner"), &seed("cosigner.key")?)?;
    let checkpoint = signer.sign_checkpoint(tree.size(), tree.root());
    Ok(cosigner.cosign(&checkpoint, now).text())
}

fn column(store: &Path, query: &str) -> Result<Vec<String>> {
    let output = Command::new("sqlite3")
        .args(["-cmd", ".timeout 10000"])
        .arg(store)
        .arg(query)
        .output()
        .context("starting sqlite3 (Debian package sqlite3)")?;
    ensure!(
        output.status.success(),
        "sqlite3: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let text = String::from_utf8(output.stdout).context("reading what sqlite3 printed")?;
    // The timeout is echoed by some versions.
    Ok(text
        .lines()
        .filter(|line| *line != "10000")
        .map(str::to_owned)
        .collect())
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|nibble| DIGITS.get(usize::from(nibble)))
        .collect()
}

/// Reads what [`hex`] writes, in either case.
pub(super) fn unhex(text: &str) -> Result<Vec<u8>> {
    let nibbles: Option<Vec<_>> = text.chars().map(|c| c.to_digit(16)).collect();
    let nibbles = nibbles.with_context(|| format!("not hexadecimal: {text}"))?;
    nibbles
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Ok(u8::try_from(high * 16 + low)?),
            _ => anyhow::bail!("an odd number of hexadecimal digits"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_or_foreign_digits_are_no_bytes() {
        assert!(unhex("abc").is_err());
        assert!(unhex("zz").is_err());
        assert_eq!(unhex(&hex(&[0, 171, 255])).unwrap(), [0, 171, 255]);
    }

    #[test]
    fn a_stream_ends_behind_its_last_offer_of_a_pre_shared_key_too() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store.db");
        let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("../provisioning/migrations");
        let mut files: Vec<_> = fs::read_dir(migrations)
            .unwrap()
            .map(|file| file.unwrap().path())
            .collect();
        files.sort();
        for file in files {
            // A file that begins with a comment would be taken for an option.
            let schema = fs::read_to_string(file).unwrap();
            column(&store, &format!(";{schema}")).unwrap();
        }

        assert_eq!(end_of_stream(&store).unwrap(), 0);
        for (insert, end) in [
            ("INSERT INTO shard_entry VALUES (1, 0, 0, 0)", 1),
            (
                "INSERT INTO psk_offer VALUES (zeroblob(32), zeroblob(32), 1, 1, x'00')",
                2,
            ),
            (
                "INSERT INTO psk_offer VALUES (zeroblob(32), randomblob(32), 2, 7, x'00')",
                2,
            ),
            ("INSERT INTO shard_entry VALUES (1, 2, 0, 1)", 3),
        ] {
            column(&store, insert).unwrap();
            assert_eq!(end_of_stream(&store).unwrap(), end, "{insert}");
        }
    }

    #[test]
    fn each_complete_subtree_has_its_row_once() {
        let mut tree = Tree::new();
        let terms = Terms {
            gateway: [1; 32],
            stamp: "sdns://x",
            offset: 16,
        };
        let mut sql = String::new();
        for (n, offset) in (0..4).zip(16..) {
            let lease = lease([n; 32], offset, &terms, 1_700_000_000).unwrap();
            sql += &rows(&lease, offset, u64::from(n), &mut tree).unwrap();
        }

        assert_eq!(sql.matches("INTO log_node").count(), 4 + 2 + 1);
        assert_eq!(sql.matches("VALUES (0, 2, 0, ").count(), 1);
        assert_eq!(sql.matches("INTO lease").count(), 4);
    }
}
