//! Memory and descriptors of the daemons over time, written down as they are taken, and judged at the end.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::load::Load;

/// What is before belongs to the start: buffers and tables reach their size.
const WARM_UP: Duration = Duration::from_secs(60);
/// Allocators do not give back at once: a leak is more than a tenth and a megabyte in the end.
const SLACK_KIB: u64 = 1_024;
/// Descriptors come and go with connections to provisioning and to resolvers.
const SLACK_DESCRIPTORS: u64 = 6;
/// The home moves in under three seconds; on this line TCP's own pauses double beside it.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Duration,
    agent: Held,
    gateway: Option<Held>,
    moved: u64,
}

/// What a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    rss_kib: u64,
    descriptors: u64,
}

/// All samples of a run.
#[derive(Debug)]
pub(super) struct Samples {
    csv: File,
    all: Vec<Sample>,
}

impl Samples {
    /// Begins with an empty `soak.csv`.
    pub(super) fn create(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).context("making the soak's folder")?;
        let mut csv = File::create(folder.join("soak.csv")).context("creating soak.csv")?;
        writeln!(
            csv,
            "seconds,agent_rss_kib,agent_descriptors,gateway_rss_kib,gateway_descriptors,down_bytes,up_bytes,streams"
        )
        .context("writing soak.csv")?;
        Ok(Self {
            csv,
            all: Vec::new(),
        })
    }

    /// Takes one.
    pub(super) fn take(
        &mut self,
        at: Duration,
        agent: u32,
        gateways: &[u32],
        load: &Load,
    ) -> Result<()> {
        let sample = Sample {
            at,
            agent: held(agent)?,
            gateway: gateways.iter().filter_map(|pid| held(*pid).ok()).max(),
            moved: load.down() + load.up(),
        };
        let gateway = sample.gateway.map_or(",".to_owned(), |held| {
            format!("{},{}", held.rss_kib, held.descriptors)
        });
        writeln!(
            self.csv,
            "{},{},{},{gateway},{},{},{}",
            at.as_secs(),
            sample.agent.rss_kib,
            sample.agent.descriptors,
            load.down(),
            load.up(),
            load.begun()
        )
        .context("writing soak.csv")?;
        self.all.push(sample);
        Ok(())
    }

    /// How it goes, for a person who waits.
    pub(super) fn line(&self, kills: u32, clear: u64) -> String {
        let Some(last) = self.all.last() else {
            return String::new();
        };
        format!(
            "{:>4} min: agent {} KiB, {} descriptors; {:.1} MB moved; {kills} kills; {clear} frames in clear",
            last.at.as_secs() / 60,
            last.agent.rss_kib,
            last.agent.descriptors,
            last.moved as f64 / 1e6
        )
    }

    /// Memory after the start and at the end, each the middle of a sixth of the samples.
    pub(super) fn agent_memory(&self) -> (u64, u64) {
        self.begin_and_end(|sample| sample.agent.rss_kib)
    }

    /// Descriptors, likewise.
    pub(super) fn agent_descriptors(&self) -> (u64, u64) {
        self.begin_and_end(|sample| sample.agent.descriptors)
    }

    /// The most that a gateway held.
    pub(super) fn gateway_peak(&self) -> (u64, u64) {
        let held = || self.all.iter().filter_map(|sample| sample.gateway);
        let most = |of: fn(Held) -> u64| held().map(of).max().unwrap_or(0);
        (most(|held| held.rss_kib), most(|held| held.descriptors))
    }

    /// What grew, one sentence each.
    pub(super) fn leaks(&self) -> Vec<String> {
        let mut leaks = Vec::new();
        let (begin, end) = self.agent_memory();
        if end > begin + begin / 10 + SLACK_KIB {
            leaks.push(format!("the agent's memory grew from {begin} to {end} KiB"));
        }
        let (begin, end) = self.agent_descriptors();
        if end > begin + SLACK_DESCRIPTORS {
            leaks.push(format!(
                "the agent's descriptors grew from {begin} to {end}"
            ));
        }
        // Each life of the gateway begins anew: what outlives them would be in its files, and show in the later ones.
        let gateway: Vec<Held> = self.all.iter().filter_map(|s| s.gateway).collect();
        let half = gateway.len() / 2;
        let most = |lives: &[Held]| lives.iter().map(|held| held.rss_kib).max().unwrap_or(0);
        let (early, late) = (most(&gateway[..half]), most(&gateway[half..]));
        if late > early + early / 5 + 4 * SLACK_KIB {
            leaks.push(format!(
                "the gateway's later lives hold {late} KiB, the earlier ones {early}"
            ));
        }
        leaks
    }

    /// A time without progress that is too long.
    pub(super) fn stalls(&self) -> Vec<String> {
        let pause = self.longest_pause();
        let is_stalled =
            pause > LONGEST_PAUSE || self.all.last().is_none_or(|last| last.moved == 0);
        is_stalled
            .then(|| format!("nothing arrived for {} s", pause.as_secs()))
            .into_iter()
            .collect()
    }

    /// The longest time in which nothing arrived.
    pub(super) fn longest_pause(&self) -> Duration {
        let mut longest = Duration::ZERO;
        let mut moved_at = Duration::ZERO;
        for pair in self.all.windows(2) {
            let [before, after] = pair else { continue };
            if after.moved > before.moved {
                longest = longest.max(before.at.saturating_sub(moved_at));
                moved_at = after.at;
            }
        }
        let end = self.all.last().map_or(Duration::ZERO, |last| last.at);
        longest.max(end.saturating_sub(moved_at))
    }

    fn begin_and_end(&self, of: impl Fn(&Sample) -> u64) -> (u64, u64) {
        let warm: Vec<u64> = self
            .all
            .iter()
            .filter(|s| s.at >= WARM_UP)
            .map(of)
            .collect();
        let sixth = (warm.len() / 6).max(1).min(warm.len());
        let middle = |part: &[u64]| {
            let mut sorted = part.to_vec();
            sorted.sort_unstable();
            sorted.get(sorted.len() / 2).copied().unwrap_or(0)
        };
        (middle(&warm[..sixth]), middle(&warm[warm.len() - sixth..]))
    }
}

fn held(pid: u32) -> Result<Held> {
    let status =
        fs::read_to_string(format!("/proc/{pid}/status")).context("reading a daemon's memory")?;
    let rss = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no VmRSS")?;
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).context("counting descriptors")?;
    Ok(Held {
        rss_kib: rss.trim().trim_end_matches(" kB").parse()?,
        descriptors: descriptors.count() as u64,
    })
}
