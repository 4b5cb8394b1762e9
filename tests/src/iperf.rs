//! Throughput by iperf3.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::netns::Netns;
use crate::process::Running;

/// iperf3's usual port.
pub(crate) const IPERF_PORT: u16 = 5201;

/// Which way the data flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the client.
    Up,
    /// To the client.
    Down,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}

/// A listening iperf3.
#[derive(Debug)]
pub struct IperfServer {
    process: Running,
}

impl IperfServer {
    /// Starts one on an address and waits until it listens.
    pub fn start(netns: &Netns, address: &str) -> Result<Self> {
        let port = IPERF_PORT.to_string();
        let args = ["-s", "-B", address, "-p", &port, "--forceflush"].map(AsRef::as_ref);
        let mut process = netns.spawn(&format!("iperf3-{address}"), "iperf3", &args)?;
        let log = process.log_path().to_owned();
        process.wait_ready("listens", Duration::from_secs(5), || {
            let said = std::fs::read_to_string(&log).context("reading iperf3's log")?;
            Ok(said.contains("Server listening").then_some(()))
        })?;
        Ok(Self { process })
    }

    pub(crate) fn let_go(self) {
        self.process.let_go();
    }
}

/// Sends one TCP stream for some seconds and gives what arrived in Gb/s.
pub fn stream(client: &Netns, server: &str, way: Way, seconds: u32) -> Result<f64> {
    streams(client, server, way, seconds, 1).map(|arrived| arrived.gbps)
}

/// The same with the congestion control that most of the internet's senders have, whatever this machine's is, and behind
/// its first two seconds: what slow start overshoots by may cost a rate's first second.
pub fn cubic(client: &Netns, server: &str, way: Way, seconds: u32) -> Result<f64> {
    let more = ["-C", "cubic", "-O", "2"];
    run(client, server, way, [seconds, 1], &more).map(|arrived| arrived.gbps)
}

/// What a run of iperf3 moved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrived {
    /// Throughput in Gb/s.
    pub(crate) gbps: f64,
    /// Bytes of payload.
    pub(crate) bytes: f64,
    /// Processor seconds of both of iperf3's ends.
    pub(crate) cpu_s: f64,
}

/// Sends several TCP streams at once.
pub(crate) fn streams(
    client: &Netns,
    server: &str,
    way: Way,
    seconds: u32,
    parallel: u32,
) -> Result<Arrived> {
    run(client, server, way, [seconds, parallel], &[])
}

fn run(
    client: &Netns,
    server: &str,
    way: Way,
    [seconds, parallel]: [u32; 2],
    more: &[&str],
) -> Result<Arrived> {
    let words = [IPERF_PORT.into(), seconds, parallel].map(|n: u32| n.to_string());
    let [port, time, parallel] = &words;
    let mut argv = vec![
        "iperf3", "-c", server, "-p", port, "-t", time, "-P", parallel,
    ];
    argv.extend(["-J", "--connect-timeout", "5000"]);
    argv.extend(more);
    if way == Way::Down {
        argv.push("-R");
    }
    let printed = client.run(&argv)?;
    let report: Value = serde_json::from_str(&printed).context("reading iperf3's report")?;
    let received = &report["end"]["sum_received"];
    let figure = |name: &str| {
        received[name]
            .as_f64()
            .with_context(|| format!("iperf3 reports no {name}"))
    };
    let busy = &report["end"]["cpu_utilization_percent"];
    let part = |end: &str| busy[end].as_f64().unwrap_or(0.0) / 100.0;
    Ok(Arrived {
        gbps: figure("bits_per_second")? / 1e9,
        bytes: figure("bytes")?,
        cpu_s: (part("host_total") + part("remote_total")) * figure("seconds")?,
    })
}
