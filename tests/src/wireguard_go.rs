//! Userspace WireGuard of other hands, in either role: wireguard-go and boringtun-cli, which share the interface to wg(8).

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::netns::Netns;
use crate::process::Running;
use crate::topology::Lab;

/// A WireGuard key pair in base64, as `wg` writes it.
#[derive(Debug, Clone)]
pub struct WgKey {
    /// The private half.
    pub private: String,
    /// The public half.
    pub public: String,
}

impl WgKey {
    /// Makes a pair with `wg genkey`.
    pub fn generate() -> Result<Self> {
        Self::of_private(wg(&["genkey"], "")?)
    }

    /// Completes a pair with `wg pubkey`.
    pub fn of_private(private: String) -> Result<Self> {
        let public = wg(&["pubkey"], &private)?;
        Ok(Self { private, public })
    }
}

/// The other end, as `[Peer]` of wg(8) has it.
#[derive(Debug, Clone)]
pub struct WgPeer {
    /// Its public key in base64.
    pub public: String,
    /// `IP:PORT`, when we are to begin.
    pub endpoint: Option<String>,
    /// Networks behind it.
    pub allowed: Vec<String>,
}

/// A program that is a WireGuard interface, and how it stays in the foreground.
#[derive(Debug, Clone)]
pub struct Userspace {
    /// Its binary.
    pub program: PathBuf,
    /// What comes before the interface's name.
    pub flags: &'static [&'static str],
}

impl Userspace {
    /// wireguard-go of this path.
    pub fn wireguard_go(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            flags: &["-f"],
        }
    }

    /// boringtun-cli of this path, as root and on both cores of a small machine, where it is fastest.
    pub fn boringtun(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            flags: &[
                "--foreground",
                "--disable-drop-privileges",
                "--threads",
                "2",
            ],
        }
    }
}

/// A running wireguard-go, or its like, with its interface.
#[derive(Debug)]
pub struct WireGuardGo {
    netns: Netns,
    /// The interface's name.
    pub interface: String,
    process: Running,
}

impl WireGuardGo {
    /// Starts Debian 12's, with keys, peers, addresses and routes to what the peers allow.
    pub fn start(
        lab: &Lab,
        netns: &Netns,
        key: &WgKey,
        port: u16,
        addresses: &[&str],
        peers: &[WgPeer],
    ) -> Result<Self> {
        let program = Userspace::wireguard_go("wireguard-go");
        Self::start_of(&program, lab, netns, key, port, addresses, peers)
    }

    /// Starts one of another program.
    pub fn start_of(
        userspace: &Userspace,
        lab: &Lab,
        netns: &Netns,
        key: &WgKey,
        port: u16,
        addresses: &[&str],
        peers: &[WgPeer],
    ) -> Result<Self> {
        // Its control socket has a fixed place in the file system, which namespaces share.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let interface = format!("wg{}x{n}", std::process::id());
        let mut args: Vec<&OsStr> = userspace.flags.iter().map(AsRef::as_ref).collect();
        args.push(interface.as_ref());
        let mut process = netns.spawn(&interface, &userspace.program, &args)?;
        let socket = format!("/var/run/wireguard/{interface}.sock");
        process.wait_ready("has its control socket", Duration::from_secs(10), || {
            Ok(Path::new(&socket).exists().then_some(()))
        })?;
        let config = lab.work().join(format!("{interface}.conf"));
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&config)
            .and_then(|mut file| file.write_all(configuration(key, port, peers).as_bytes()))
            .context("writing wireguard-go's configuration")?;
        netns.run(&["wg", "setconf", &interface, &config.to_string_lossy()])?;
        for address in addresses {
            netns.run(&["ip", "addr", "add", address, "dev", &interface, "nodad"])?;
        }
        netns.run(&["ip", "link", "set", &interface, "mtu", "1420", "up"])?;
        for network in peers.iter().flat_map(|peer| &peer.allowed) {
            netns.run(&["ip", "route", "replace", network, "dev", &interface])?;
        }
        Ok(Self {
            netns: netns.clone(),
            interface,
            process,
        })
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its interface's name.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// Gives a peer a pre-shared key, in base64.
    pub fn set_psk(&self, public: &str, psk: &str, work: &Path) -> Result<()> {
        let file = work.join(format!("{}.psk", self.interface));
        fs::write(&file, psk).context("writing a pre-shared key")?;
        let file = file.to_string_lossy();
        let set = ["wg", "set", &self.interface, "peer", public];
        self.netns
            .run(&[&set[..], &["preshared-key", file.as_ref()]].concat())?;
        Ok(())
    }

    /// Seconds since 1970 of the newest handshake with a peer; 0 is never.
    pub fn latest_handshake(&self, public: &str) -> Result<u64> {
        let table = self
            .netns
            .run(&["wg", "show", &self.interface, "latest-handshakes"])?;
        let line = table
            .lines()
            .find(|line| line.starts_with(public))
            .context("wireguard-go does not know the peer")?;
        line.split_whitespace()
            .nth(1)
            .context("a peer without a time")?
            .parse()
            .context("a time that is no number")
    }
}

pub(crate) fn configuration(key: &WgKey, port: u16, peers: &[WgPeer]) -> String {
    let mut text = format!(
        "[Interface]\nPrivateKey = {}\nListenPort = {port}\n",
        key.private
    );
    for peer in peers {
        text += &format!(
            "[Peer]\nPublicKey = {}\nAllowedIPs = {}\n",
            peer.public,
            peer.allowed.join(", ")
        );
        if let Some(endpoint) = &peer.endpoint {
            text += &format!("Endpoint = {endpoint}\nPersistentKeepalive = 25\n");
        }
    }
    text
}

fn wg(args: &[&str], input: &str) -> Result<String> {
    let mut child = Command::new("wg")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting wg (Debian package wireguard-tools)")?;
    let mut stdin = child.stdin.take().context("wg has no stdin")?;
    stdin.write_all(input.as_bytes()).context("feeding wg")?;
    drop(stdin);
    let output = child.wait_with_output().context("waiting for wg")?;
    ensure!(
        output.status.success(),
        "wg {}: {}",
        args.join(" "),
        output.status
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
