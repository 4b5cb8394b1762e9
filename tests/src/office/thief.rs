//! What somebody does who has a provisioning server, or only its store: changes rows behind the server's back, puts an old store in the place
//! of the new one, shows another time, runs a copy of the whole of it elsewhere.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use trust::lease::fleet_entry;
use trust::{Activation, Cosigner, Lease, LogSigner, Tree};

use super::Office;
use crate::process::Running;
use crate::topology::Lab;

impl Office {
    /// Asks or changes the store while the server runs.
    pub fn sql(&self, sql: &str) -> Result<String> {
        let store = self.data.join("culvert.db");
        let store = store.to_string_lossy();
        let waiting = ["sqlite3", "-cmd", ".timeout 10000"];
        let argv = [&waiting[..], &[store.as_ref(), sql]].concat();
        Ok(self.netns.run(&argv)?.trim().to_owned())
    }

    /// Puts other bytes in the place of what shows that the only gateway is one.
    pub fn replace_activation(&self, activation: &Activation) -> Result<()> {
        let bytes = hex(&activation.to_bytes());
        self.sql(&format!(
            "UPDATE proposal SET activation = x'{bytes}' WHERE leaf IN (SELECT leaf FROM gateway)"
        ))?;
        Ok(())
    }

    /// Copies all that the store holds, its write-ahead log too.
    pub fn copy_store(&self, into: &Path) -> Result<()> {
        self.sql(&format!("VACUUM INTO '{}'", into.display()))?;
        Ok(())
    }

    /// Puts a copy in the place of the store; the server must not be running.
    pub fn replace_store(&self, with: &Path) -> Result<()> {
        for end in ["-wal", "-shm"] {
            let _gone = fs::remove_file(self.data.join(format!("culvert.db{end}")));
        }
        fs::copy(with, self.data.join("culvert.db")).context("replacing the store")?;
        Ok(())
    }

    /// A copy of the whole server, keys and all, which listens at another port of the office.
    pub fn stolen(&self, lab: &Lab, name: &str, port: u16) -> Result<Self> {
        let data = lab.work().join(name);
        let (from, to) = (self.data.to_string_lossy(), data.to_string_lossy());
        let copy = r#"cp -a "$1" "$2"; rm "$2"/culvert.db*"#;
        self.netns.run(&["sh", "-ec", copy, "sh", &from, &to])?;
        self.copy_store(&data.join("culvert.db"))?;
        let stolen = Self {
            config: lab.work().join(format!("{name}.toml")),
            data,
            port,
            ..self.clone()
        };
        let metrics = format!("127.0.0.1:{}", port + 1000);
        let configuration = stolen.configuration().replace("127.0.0.1:9102", &metrics);
        fs::write(&stolen.config, configuration).context("configuring a stolen server")?;
        Ok(stolen)
    }

    /// Takes over the TLS key and the certificate of another server.
    pub fn take_tls_key(&self, of: &Self) -> Result<()> {
        for file in ["server.key", "server.crt"] {
            fs::copy(of.data.join(file), self.data.join(file))
                .with_context(|| format!("taking {file}"))?;
        }
        Ok(())
    }

    /// Starts the server with another calendar, as faketime(1) takes it; timers run as ever.
    pub fn start_at(&self, time: &str) -> Result<Running> {
        let script = format!("{}\nexec {}", wrong_clock(time), self.serve_line());
        let mut command = self.netns.command("sh");
        command.args(["-c", &script]);
        let server = self.netns.spawn_command("provisioning-at", command)?;
        self.wait_for_answer(server)
    }
}

impl Office {
    /// Leases with the keys of the server's logs, past its program and all of its rules.
    pub fn forge_lease(&self, lease: &Lease) -> Result<()> {
        let entries = self.sql("SELECT hex(entry) FROM log_entry WHERE log = 0 ORDER BY idx")?;
        let mut tree = Tree::new();
        for entry in entries.lines() {
            tree.append(&unhex(entry)?);
        }
        let (salt, bytes) = ([7; 32], lease.to_bytes());
        let entry = fleet_entry(&salt, &bytes);
        let leaf = tree.append(&entry);
        let mut sql = format!(
            "BEGIN; INSERT INTO log_entry VALUES (0, {leaf}, x'{}');",
            hex(&entry)
        );
        for level in 0..u64::BITS as u8 {
            let nodes = (0..tree.size() >> level).map(|at| (at, tree.node(level, at)));
            for (at, node) in nodes {
                let node = hex(&node.context("a tree has all nodes of its size")?);
                // A String takes all that is written.
                let _infallible = write!(
                    sql,
                    "INSERT OR IGNORE INTO log_node VALUES (0, {level}, {at}, x'{node}');"
                );
            }
        }
        let fleet = LogSigner::from_seed("lab/fleet", &self.seed("log-fleet.key")?)?;
        let cosigner = Cosigner::from_seed("lab/cosigner", &self.seed("cosigner.key")?)?;
        let head = fleet.sign_checkpoint(tree.size(), tree.root());
        let head = cosigner.cosign(&head, lease.not_before).text();
        let shard = lease.shard;
        let places = ["shard_entry", "psk_offer"]
            .map(|table| format!("SELECT seq FROM {table} WHERE shard = {shard}"));
        let end = format!("SELECT 1 + max(seq) FROM ({})", places.join(" UNION "));
        self.sql(&format!(
            "{sql} UPDATE log_head SET size = {size}, statement = x'{head}' WHERE log = 0;
             INSERT INTO lease VALUES (x'{device}', {epoch}, x'{wg_pub}', x'{bytes}', x'{salt}', {leaf}, 0, 0);
             INSERT INTO shard_entry VALUES ({shard}, coalesce(({end}), 0), 0, {leaf}); COMMIT;",
            size = tree.size(),
            head = hex(head.as_bytes()),
            device = hex(&lease.devid_hash),
            epoch = lease.epoch,
            wg_pub = hex(&lease.wg_pub),
            bytes = hex(&bytes),
            salt = hex(&salt),
        ))?;
        Ok(())
    }

    fn seed(&self, file: &str) -> Result<[u8; 32]> {
        let text = fs::read_to_string(self.data.join(file)).context("taking a key")?;
        let seed = unhex(text.trim())?;
        seed.try_into()
            .map_err(|_| anyhow!("{file} is not 32 bytes"))
    }
}

/// Shows another calendar to what a shell starts after it; timers run as ever.
pub fn wrong_clock(time: &str) -> String {
    format!(
        "export LD_PRELOAD='/usr/$LIB/faketime/libfaketimeMT.so.1' FAKETIME='{time}' FAKETIME_DONT_FAKE_MONOTONIC=1"
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pair = |pair: &[u8]| match pair {
        [high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(pair).collect();
    bytes.with_context(|| format!("no hexadecimal digits: {text}"))
}
