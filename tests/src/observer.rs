//! The observer on the access wire: tcpdump towards the router, and the search through what it caught.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::net::UdpSocket;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::judge::{Allowed, Kind};
use crate::pcap::Frames;
use crate::process::Running;
use crate::topology::{
    GATEWAY, GATEWAY_V6, Lab, OBSERVED, OBSERVED_2, OFFICE, ROUTER_WAN, ROUTER_WAN_2, ROUTER_WAN_V6,
};
use crate::wait::wait_until;

/// Enough of each frame for all headers and several of the page's markers.
const SNAP_BYTES: &str = "320";
const RING_KIB: &str = "65536";
const EXAMPLES: usize = 10;
/// A broadcast that nobody answers and nobody else sends.
const LAST_FRAME: &[u8] = b"the observer's last frame";
/// Frames behind the last one, should there be any, fit in this.
const TAIL_BYTES: u64 = 262_144;

/// A running capture.
#[derive(Debug)]
pub struct Observer {
    tcpdump: Running,
    file: PathBuf,
    wire: Wire,
}

/// A wire between the router and a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// The one that every lab has.
    First,
    /// That of [`Lab::add_second_wan`].
    Second,
}

impl Wire {
    fn interface(self) -> &'static str {
        match self {
            Self::First => OBSERVED,
            Self::Second => OBSERVED_2,
        }
    }

    /// The provider's own address on it, and the one that reaches everybody.
    fn addresses(self) -> [&'static str; 2] {
        match self {
            Self::First => ["198.18.0.1", "198.18.0.255"],
            Self::Second => ["198.18.4.1", "198.18.4.255"],
        }
    }
}

/// What was on the wire.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Findings {
    /// WireGuard frames between router and gateway.
    pub wireguard: u64,
    /// Frames between router and relay.
    pub relay: u64,
    /// Frames of the TLS to provisioning.
    pub provisioning_tls: u64,
    /// ARP and neighbour discovery.
    pub neighbour: u64,
    /// Frames that should not be there.
    pub clear: u64,
    /// Some of these, in words.
    pub examples: Vec<String>,
    /// The markers (names, bytes of the page) that were found in any frame.
    pub markers: Vec<String>,
}

impl Observer {
    /// Starts to listen and returns when it does.
    pub fn start(lab: &Lab) -> Result<Self> {
        Self::start_as(lab, "access")
    }

    /// Starts another one, whose capture has a name of its own.
    pub fn start_as(lab: &Lab, name: &str) -> Result<Self> {
        Self::start_on(lab, Wire::First, name)
    }

    /// The same on either wire.
    pub fn start_on(lab: &Lab, wire: Wire, name: &str) -> Result<Self> {
        let file = lab.folder("capture")?.join(format!("{name}.pcap"));
        let args: Vec<&OsStr> = [
            "-i",
            wire.interface(),
            "-n",
            "-p",
            "-U",
            "-Z",
            "root",
            "-s",
            SNAP_BYTES,
            "-B",
            RING_KIB,
            "-w",
        ]
        .into_iter()
        .map(OsStr::new)
        .chain([file.as_os_str()])
        .collect();
        let mut tcpdump = lab.access.spawn("observer", "tcpdump", &args)?;
        let log = tcpdump.log_path().to_owned();
        tcpdump.wait_ready("listens", Duration::from_secs(10), || {
            Ok(fs::read_to_string(&log)?
                .contains("listening on")
                .then_some(()))
        })?;
        Ok(Self {
            tcpdump,
            file,
            wire,
        })
    }

    /// Where its capture is.
    pub(crate) fn file(&self) -> &std::path::Path {
        &self.file
    }

    /// Stops and judges every frame; an observer that missed frames is an error.
    pub fn finish(self, lab: &Lab, allowed: &Allowed, markers: &[&str]) -> Result<Findings> {
        self.catch_up(lab)?;
        let log = self.tcpdump.log_path().to_owned();
        self.tcpdump.interrupt()?;
        let said = fs::read_to_string(&log).context("reading tcpdump's counters")?;
        ensure!(
            said.contains("\n0 packets dropped by kernel"),
            "the observer missed packets: {}",
            said.trim()
        );
        let capture = fs::read(&self.file).context("reading the capture")?;
        search(&capture, allowed, markers)
    }

    /// The same where packets are whatever they may be in the lab; anything in clear, or a marker in any frame, is an error.
    pub fn saw_nothing_in_clear(self, lab: &Lab, markers: &[&str]) -> Result<Findings> {
        let findings = self.finish(lab, &allowed_in_the_lab()?, markers)?;
        let is_clean = findings.clear == 0 && findings.markers.is_empty();
        ensure!(is_clean, "the home was on the wire in clear: {findings:?}");
        Ok(findings)
    }

    /// Sends a last frame and waits until it is in the file: tcpdump forgets what it has not yet read when it ends.
    fn catch_up(&self, lab: &Lab) -> Result<()> {
        lab.access.enter(|| {
            let [own, everybody] = self.wire.addresses();
            let socket = UdpSocket::bind((own, 0)).context("binding in access")?;
            socket.set_broadcast(true).context("allowing a broadcast")?;
            socket
                .send_to(LAST_FRAME, (everybody, 9))
                .context("sending the last frame")?;
            Ok(())
        })?;
        wait_until(
            "the observer has caught up",
            Duration::from_secs(20),
            || {
                let mut file = fs::File::open(&self.file)?;
                let length = file.metadata()?.len();
                file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
                let mut tail = Vec::new();
                file.read_to_end(&mut tail)?;
                Ok(contains(&tail, LAST_FRAME).then_some(()))
            },
        )
    }
}

/// Judges a capture and searches it for what only the home knows.
pub fn search(capture: &[u8], allowed: &Allowed, markers: &[&str]) -> Result<Findings> {
    let mut findings = Findings::default();
    for frame in Frames::parse(capture)? {
        findings.look_at(frame?, allowed, markers);
    }
    Ok(findings)
}

impl Findings {
    /// Judges one frame, or its beginning.
    pub(crate) fn look_at(&mut self, frame: &[u8], allowed: &Allowed, markers: &[&str]) {
        if contains(frame, LAST_FRAME) {
            return;
        }
        match allowed.judge(frame) {
            Kind::WireGuard => self.wireguard += 1,
            Kind::Relay => self.relay += 1,
            Kind::ProvisioningTls => self.provisioning_tls += 1,
            Kind::Neighbour => self.neighbour += 1,
            Kind::Clear(what) => {
                self.clear += 1;
                if self.examples.len() < EXAMPLES && !self.examples.contains(&what) {
                    self.examples.push(what);
                }
            }
        }
        for marker in markers {
            if !self.markers.iter().any(|m| m == marker) && contains(frame, marker.as_bytes()) {
                self.markers.push((*marker).to_owned());
            }
        }
    }
}

/// The talks that the lab's addresses allow.
pub fn allowed_in_the_lab() -> Result<Allowed> {
    let socket = |address: &str, port: u16| -> Result<_> {
        Ok((address.parse::<std::net::IpAddr>()?, port).into())
    };
    Ok(Allowed {
        router: vec![
            ROUTER_WAN.parse()?,
            ROUTER_WAN_V6.parse()?,
            ROUTER_WAN_2.parse()?,
        ],
        gateways: vec![socket(GATEWAY, 51820)?, socket(GATEWAY_V6, 51820)?],
        relays: vec![socket(GATEWAY, 443)?, socket(GATEWAY_V6, 443)?],
        provisioning: vec![socket(OFFICE, 8443)?],
    })
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    let Some(first) = needle.first() else {
        return false;
    };
    let mut rest = haystack;
    while let Some(at) = rest.iter().position(|b| b == first) {
        rest = rest.get(at..).unwrap_or_default();
        if rest.starts_with(needle) {
            return true;
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}
