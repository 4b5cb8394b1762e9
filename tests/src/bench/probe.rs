//! What running daemons cost: processor time and memory from `/proc`, round trips by ping.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::report::quantile;
use crate::netns::Netns;

/// Clock ticks a second in `/proc` (`USER_HZ`, the same on every architecture that we measure on).
const TICKS_PER_S: f64 = 100.0;

/// Processor seconds that processes have used so far, with all their threads.
pub(super) fn cpu_seconds(pids: &[u32]) -> Result<f64> {
    pids.iter()
        .map(|pid| cpu_of_stat(&format!("/proc/{pid}/stat")))
        .sum()
}

/// The same of one process or thread, by its `stat` file.
pub(super) fn cpu_of_stat(path: &str) -> Result<f64> {
    let stat = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    // The name in parentheses may hold blanks.
    let (_, fields) = stat.rsplit_once(')').context("a stat without a name")?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut next = || -> Option<f64> { fields.next()?.parse().ok() };
    let ticks = next().zip(next()).map(|(user, system)| user + system);
    Ok(ticks.context("a stat without times")? / TICKS_PER_S)
}

/// Memory that processes hold now, in MB.
pub(super) fn resident_mb(pids: &[u32]) -> Result<f64> {
    pids.iter().map(|pid| memory_of(*pid, "VmRSS:")).sum()
}

/// The most memory that processes ever held, in MB.
pub(super) fn peak_mb(pids: &[u32]) -> Result<f64> {
    pids.iter().map(|pid| memory_of(*pid, "VmHWM:")).sum()
}

fn memory_of(pid: u32, line: &str) -> Result<f64> {
    let status =
        fs::read_to_string(format!("/proc/{pid}/status")).context("reading a process's status")?;
    let kib: f64 = status
        .lines()
        .find_map(|l| l.strip_prefix(line))
        .with_context(|| format!("no {line} in a process's status"))?
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .context("reading a process's memory")?;
    Ok(kib * 1024.0 / 1e6)
}

/// Round trips in milliseconds: the middle one, and the one that 1 in 100 exceeds.
#[derive(Debug, Clone, Copy)]
pub(super) struct RoundTrips {
    pub(super) median_ms: f64,
    pub(super) p99_ms: f64,
}

/// Pings every 10 ms.
pub(super) fn ping(from: &Netns, to: &str, count: u32) -> Result<RoundTrips> {
    let count_word = count.to_string();
    let printed = from.output(&["ping", "-n", "-i", "0.01", "-c", &count_word, "-W", "1", to])?;
    let mut times = times_of(&String::from_utf8_lossy(&printed.stdout));
    ensure!(
        times.len() * 2 > count as usize,
        "only {} of {count} pings to {to} were answered",
        times.len()
    );
    let mut part = |part| quantile(&mut times, part).context("no ping was answered");
    Ok(RoundTrips {
        median_ms: part(0.5)?,
        p99_ms: part(0.99)?,
    })
}

fn times_of(printed: &str) -> Vec<f64> {
    printed
        .lines()
        .filter_map(|line| line.split_once("time="))
        .filter_map(|(_, rest)| rest.split_whitespace().next()?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_process_has_used_time_and_memory() {
        let pid = std::process::id();

        let used = cpu_seconds(&[pid]).unwrap();

        assert!(used <= cpu_seconds(&[pid, pid]).unwrap());
        assert!(resident_mb(&[pid]).unwrap() <= peak_mb(&[pid]).unwrap());
        assert!(cpu_seconds(&[0]).is_err());
    }

    #[test]
    fn ping_is_read_line_by_line() {
        let printed = "PING 10.0.0.1\n64 bytes from 10.0.0.1: icmp_seq=1 ttl=64 time=0.123 ms\n\
                       64 bytes from 10.0.0.1: icmp_seq=2 ttl=64 time=12 ms\n\n2 packets transmitted\n";

        assert_eq!(times_of(printed), [0.123, 12.0]);
    }
}
