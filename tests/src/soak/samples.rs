//! What each daemon holds over time, a series for each of its lives, written down as it is taken.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::load::Moved;

/// What a process holds at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    /// Since the soak's start.
    pub(crate) at: Duration,
    pub(crate) rss_kib: u64,
    pub(crate) descriptors: u64,
    pub(crate) threads: u64,
}

/// One life of a daemon: from a start to its end.
#[derive(Debug, Clone)]
pub(super) struct Life {
    pub(super) who: &'static str,
    pub(super) pid: u32,
    pub(super) held: Vec<Held>,
}

/// What the home got between two samples.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flow {
    pub(super) at: Duration,
    pub(super) down_mbit: f64,
    pub(super) up_mbit: f64,
}

/// All samples of a run.
#[derive(Debug)]
pub(super) struct Samples {
    csv: File,
    pub(super) lives: Vec<Life>,
    pub(super) flows: Vec<Flow>,
    /// The fullest that a UDP socket's queue was seen, in bytes, and what they dropped at most in one life.
    pub(super) queue_peak: u64,
    pub(super) queue_drops: u64,
    last: (Duration, u64, u64),
}

impl Samples {
    /// Begins with an empty `soak.csv`.
    pub(super) fn create(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).context("making the soak's folder")?;
        let mut csv = File::create(folder.join("soak.csv")).context("creating soak.csv")?;
        writeln!(
            csv,
            "seconds,daemon,pid,rss_kib,descriptors,threads,udp_queue_bytes,udp_drops,path,down_bytes,up_bytes"
        )
        .context("writing soak.csv")?;
        Ok(Self {
            csv,
            lives: Vec::new(),
            flows: Vec::new(),
            queue_peak: 0,
            queue_drops: 0,
            last: (Duration::ZERO, 0, 0),
        })
    }

    /// Takes one of each daemon that runs.
    pub(super) fn take(
        &mut self,
        at: Duration,
        daemons: &[(&'static str, u32)],
        moved: Moved,
        path: &str,
    ) -> Result<()> {
        for (who, pid) in daemons {
            let held = held(*pid, at)?;
            let (queued, dropped) = udp_queues(*pid);
            self.queue_peak = self.queue_peak.max(queued);
            self.queue_drops = self.queue_drops.max(dropped);
            writeln!(
                self.csv,
                "{:.1},{who},{pid},{},{},{},{queued},{dropped},{path},{},{}",
                at.as_secs_f64(),
                held.rss_kib,
                held.descriptors,
                held.threads,
                moved.down_bytes,
                moved.up_bytes
            )
            .context("writing soak.csv")?;
            match self.lives.iter_mut().find(|life| life.pid == *pid) {
                Some(life) => life.held.push(held),
                None => self.lives.push(Life {
                    who,
                    pid: *pid,
                    held: vec![held],
                }),
            }
        }
        let (before, down, up) = self.last;
        let mbit = |now: u64, then: u64| {
            let seconds = (at - before).as_secs_f64().max(0.001);
            now.saturating_sub(then) as f64 * 8.0 / 1e6 / seconds
        };
        self.flows.push(Flow {
            at,
            down_mbit: mbit(moved.down_bytes, down),
            up_mbit: mbit(moved.up_bytes, up),
        });
        self.last = (at, moved.down_bytes, moved.up_bytes);
        Ok(())
    }

    /// How it goes, for a person who waits.
    pub(super) fn line(&self) -> String {
        let Some(flow) = self.flows.last() else {
            return String::new();
        };
        let mut words = format!(
            "{:>5.1} min: {:.0} Mb/s down, {:.0} up",
            flow.at.as_secs_f64() / 60.0,
            flow.down_mbit,
            flow.up_mbit
        );
        for life in &self.lives {
            if let Some(held) = life.held.last()
                && held.at == flow.at
            {
                words += &format!(
                    "; {} {:.1} MiB {} fd",
                    life.who,
                    held.rss_kib as f64 / 1024.0,
                    held.descriptors
                );
            }
        }
        words
    }
}

/// Memory, descriptors and threads of a process.
pub(crate) fn held(pid: u32, at: Duration) -> Result<Held> {
    let status =
        fs::read_to_string(format!("/proc/{pid}/status")).context("reading a daemon's status")?;
    let figure = |name: &str| -> Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let line = line.with_context(|| format!("no {name} in a daemon's status"))?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    };
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).context("counting descriptors")?;
    Ok(Held {
        at,
        rss_kib: figure("VmRSS:")?,
        descriptors: descriptors.count() as u64,
        threads: figure("Threads:")?,
    })
}

/// Bytes that wait in the UDP sockets of a process's namespace, and datagrams that these dropped.
fn udp_queues(pid: u32) -> (u64, u64) {
    let (mut queued, mut dropped) = (0, 0);
    for table in ["udp", "udp6"] {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let received = fields.get(4).and_then(|field| field.split(':').nth(1));
            queued += received.map_or(0, |hex| u64::from_str_radix(hex, 16).unwrap_or(0));
            dropped += fields.last().map_or(0, |drops| drops.parse().unwrap_or(0));
        }
    }
    (queued, dropped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_process_opens_is_counted() {
        let me = std::process::id();
        let before = held(me, Duration::ZERO).unwrap();

        let files: Vec<File> = (0..200)
            .map(|_| File::open("/proc/self/stat").unwrap())
            .collect();
        let ballast = std::hint::black_box(vec![1_u8; 32 << 20]);

        let after = held(me, Duration::ZERO).unwrap();
        // Other tests of this process open and close some of their own.
        assert!(after.descriptors >= before.descriptors + 150, "{after:?}");
        assert!(after.rss_kib >= before.rss_kib + 24 * 1024, "{after:?}");
        drop((files, ballast));
    }
}
