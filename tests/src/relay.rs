//! A gateway's relay in the lab: its certificate, its lines in the configuration and in provisioning; and the firewall
//! of an access network that blocks UDP.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::netns::Netns;
use crate::peers::Peers;
use crate::process::Running;
use crate::topology::{GATEWAY, GATEWAY_V6, Lab};

/// The name in the relay's certificate.
pub const RELAY_NAME: &str = "relay-pop1";

/// Python and a handshake.
const START: Duration = Duration::from_secs(15);

/// An address of the internet that nobody has.
pub const NOBODY: &str = "203.0.113.200";

/// Whether a gateway has a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relay {
    /// None.
    Without,
    /// On port 443, UDP and TCP.
    On443,
    /// The same, and provisioning names [`NOBODY`] as its first address.
    SecondOfTwo,
    /// Another hand's, which the test starts; provisioning knows it as the gateway's.
    Foreign,
}

/// Files of a relay.
#[derive(Debug, Clone)]
pub(crate) struct RelaySite {
    certificate: PathBuf,
    key: PathBuf,
    pin: String,
}

impl RelaySite {
    /// Makes a certificate as an authority would give it for a web server's key.
    pub(crate) fn make(lab: &Lab) -> Result<Self> {
        let dir = lab.folder("relay")?;
        let (certificate, key) = (dir.join("relay.crt"), dir.join("relay.key"));
        let (certificate_text, key_text) = (certificate.to_string_lossy(), key.to_string_lossy());
        lab.pop.run(&[
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "90",
            "-subj",
            &format!("/CN={RELAY_NAME}"),
            "-addext",
            &format!("subjectAltName=DNS:{RELAY_NAME}"),
            "-keyout",
            &key_text,
            "-out",
            &certificate_text,
        ])?;
        let script = format!(
            "openssl x509 -in {certificate_text} -noout -pubkey | openssl pkey -pubin -outform der | sha256sum"
        );
        let said = lab.pop.run(&["sh", "-c", &script])?;
        let pin = said
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned();
        ensure!(pin.len() == 64, "openssl printed no key: {said}");
        Ok(Self {
            certificate,
            key,
            pin,
        })
    }

    /// What the gateway's configuration says of it.
    fn configuration(&self) -> String {
        format!(
            r#"
[relay]
listen = ["{GATEWAY}:443", "[{GATEWAY_V6}]:443"]
certificate-file = "{}"
key-file = "{}"
targets = ["{GATEWAY}:51820", "[{GATEWAY_V6}]:51820"]
"#,
            self.certificate.display(),
            self.key.display()
        )
    }

    /// What the gateway itself is told: nothing of a relay that another program is.
    pub(crate) fn configuration_for(&self, relay: Relay) -> String {
        match relay {
            Relay::On443 | Relay::SecondOfTwo => self.configuration(),
            Relay::Without | Relay::Foreign => String::new(),
        }
    }

    /// What provisioning is told of it.
    pub(crate) fn arguments(&self, relay: Relay) -> [String; 6] {
        let nobody = match relay {
            Relay::SecondOfTwo => format!("{NOBODY}:443,"),
            Relay::Without | Relay::On443 | Relay::Foreign => String::new(),
        };
        [
            "--relay".into(),
            format!("{nobody}{GATEWAY}:443"),
            "--relay-name".into(),
            RELAY_NAME.into(),
            "--relay-spki".into(),
            self.pin.clone(),
        ]
    }
}

/// aioquic in one of the roles of `tests/peers/connect_udp.py`, until it says `ready`.
pub fn aioquic(netns: &Netns, peers: &Peers, args: &[&str], ready: &str) -> Result<Running> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/connect_udp.py");
    let path = format!("PYTHONPATH={}", peers.aioquic()?.display());
    let mut words = vec![path.as_str(), "/usr/bin/python3", script];
    words.extend(args);
    let words: Vec<&OsStr> = words.into_iter().map(OsStr::new).collect();
    let mut running = netns.spawn("aioquic", "env", &words)?;
    let log = running.log_path().to_owned();
    running.wait_ready(ready, START, || {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        Ok(said.contains(ready).then_some(()))
    })?;
    Ok(running)
}

/// What an access network may drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocked {
    /// UDP from and to WireGuard's port.
    WireGuard,
    /// All UDP.
    Udp,
}

/// Blocks it on every way through the namespace, until [`unblock`].
pub fn block(access: &Netns, blocked: Blocked) -> Result<()> {
    let rule = match blocked {
        Blocked::WireGuard => "udp dport 51820 drop\nudp sport 51820 drop",
        Blocked::Udp => "meta l4proto udp drop",
    };
    unblock(access)?;
    access
        .run(&[
            "nft",
            &format!(
                "table inet blocked {{\nchain forward {{\ntype filter hook forward priority 0\n{rule}\n}}\n}}\n"
            ),
        ])
        .context("blocking UDP")?;
    Ok(())
}

/// Lets everything through again.
pub fn unblock(access: &Netns) -> Result<()> {
    access
        .run(&["nft", "add table inet blocked; delete table inet blocked"])
        .context("letting UDP through again")?;
    Ok(())
}
