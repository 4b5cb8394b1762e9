//! All that passes a machine, whole, kept in a file: what its operator could have recorded.

use std::ffi::OsStr;
use std::fs;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::netns::Netns;
use crate::process::Running;
use crate::topology::Lab;
use crate::wait::wait_until;

const RING_KIB: &str = "16384";
const START: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_secs(20);
/// A datagram of the machine to itself, which nobody else sends.
const LAST: &[u8] = b"the last packet of the capture";

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Running,
    netns: Netns,
    file: PathBuf,
}

/// Starts tcpdump on an interface, or on all, for what its filter lets through; gives the file that it writes.
pub(crate) fn record(
    lab: &Lab,
    (netns, interface): (&Netns, &str),
    filter: &str,
    more: &[&str],
) -> Result<(Running, PathBuf)> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let file = lab.folder("capture")?.join(format!("{n}.pcap"));
    let args = ["-i", interface, "-n", "-p", "-U", "--immediate-mode"];
    let args = args
        .iter()
        .chain(&["-Z", "root"])
        .chain(more)
        .chain(&["-w"]);
    let args: Vec<&OsStr> = args
        .map(OsStr::new)
        .chain([file.as_os_str(), filter.as_ref()])
        .collect();
    let mut tcpdump = netns.spawn("capture", "tcpdump", &args)?;
    let log = tcpdump.log_path().to_owned();
    tcpdump.wait_ready("listens", START, || {
        let said = fs::read_to_string(&log)?;
        Ok(said.contains("listening on").then_some(()))
    })?;
    Ok((tcpdump, file))
}

impl Capture {
    /// Begins on all interfaces of a machine, or on one of them.
    pub fn start(lab: &Lab, netns: &Netns, interface: &str, filter: &str) -> Result<Self> {
        let whole = ["-s", "0", "-B", RING_KIB];
        let (tcpdump, file) = record(lab, (netns, interface), filter, &whole)?;
        Ok(Self {
            tcpdump,
            netns: netns.clone(),
            file,
        })
    }

    /// Ends it and gives the file, once all that had passed is in it; packets that it missed are an error. `target` is an
    /// address that the interface leads to; this machine's own where all interfaces are looked at.
    pub fn finish(self, target: &str) -> Result<PathBuf> {
        wait_until("the capture has caught up", SOON, || {
            self.netns.enter(|| {
                let socket = UdpSocket::bind("0.0.0.0:0").context("a socket")?;
                socket
                    .send_to(LAST, (target, 9))
                    .context("the last packet")?;
                Ok(())
            })?;
            let capture = fs::read(&self.file)?;
            let is_last = |piece: &[u8]| piece == LAST;
            Ok(capture.windows(LAST.len()).any(is_last).then_some(()))
        })?;
        let log = self.tcpdump.log_path().to_owned();
        self.tcpdump.interrupt()?;
        let said = fs::read_to_string(&log).context("reading tcpdump's counters")?;
        ensure!(
            said.contains("\n0 packets dropped by kernel"),
            "the capture missed packets: {}",
            said.trim()
        );
        Ok(self.file)
    }
}
