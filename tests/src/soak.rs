//! The soak: a home under steady load on a bad line, its two gateways killed at random, for as many minutes as asked;
//! memory and descriptors of the daemons are sampled, and every frame on the access wire is judged.

mod load;
mod samples;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::observer::{Findings, Observer};
use crate::sites::Sites;
use crate::topology::{Lab, OBSERVED};
use load::Load;
use samples::Samples;

/// Loss and delay each way; two per cent and 40 ms for a round trip's answer.
const NETEM: &str = "delay 20ms 3ms 25% loss 1% reorder 5% 50% limit 20000";
/// Where the kernel has no netem: one in a hundred packets each way is lost.
const LOSS: &str = "table inet line { chain c { type filter hook forward priority 0; numgen random mod 100 < 1 drop; }; }";
const SAMPLE_PERIOD: Duration = Duration::from_secs(5);
/// An observer's capture is judged and thrown away this often, so that hours fit on a disk.
const CAPTURE_PERIOD: Duration = Duration::from_secs(60);
/// Between two kills: at least the first, and up to the second more.
const KILL_AFTER_S: (u64, u64) = (15, 45);
/// A killed gateway stays away for up to this; the other carries the home.
const AWAY_MS: u64 = 3_000;
/// The loop's own step.
const TICK: Duration = Duration::from_millis(200);

/// How long, and how it is told.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Minutes of load.
    pub minutes: u32,
    /// What the moments of the kills are drawn from.
    pub seed: u64,
    /// One object on the last line of stdout.
    pub json: bool,
}

/// What it came to.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Nothing in clear, no leak, no stretch without progress.
    pub ok: bool,
    /// What did not hold, one sentence each.
    pub failures: Vec<String>,
    /// How bad the line was.
    pub line: &'static str,
    /// Minutes of load.
    pub minutes: u32,
    /// Kills of a gateway.
    pub kills: u32,
    /// WireGuard frames seen by the observer.
    pub wireguard_frames: u64,
    /// Frames that should not be there.
    pub clear_frames: u64,
    /// Bytes that arrived in the home, and from it.
    pub down_bytes: u64,
    /// Bytes that arrived from the home.
    pub up_bytes: u64,
    /// The longest time in which nothing arrived, in seconds.
    pub longest_pause_s: f64,
    /// The agent's resident memory after the first minute and at the end, in KiB.
    pub agent_rss_kib: (u64, u64),
    /// The agent's descriptors, likewise.
    pub agent_descriptors: (u64, u64),
    /// The gateway's largest resident memory and descriptors over all of its lives.
    pub gateway_peak: (u64, u64),
}

/// Runs it; samples go to `folder` as `soak.csv`.
pub fn run(options: Options, folder: &std::path::Path) -> Result<Report> {
    let say = |line: &str| match options.json {
        true => eprintln!("{line}"),
        false => println!("{line}"),
    };
    let mut sites = Sites::protected()?;
    let lab = &sites.world.lab;
    let line = spoil(lab)?;
    say(&format!("the line: {line}"));
    let mut soak = Soak {
        line,
        load: Load::start(lab)?,
        samples: Samples::create(folder)?,
        observer: Some(Observer::start_as(lab, "soak-0")?),
        captures: 0,
        findings: Findings::default(),
        kills: 0,
        dice: options.seed | 1,
    };
    let result = soak.last(&mut sites, options, &say);
    let last_words = sites.world.last_words();
    soak.load.stop();
    result.with_context(|| format!("the soak broke off; the daemons said:\n{last_words}"))?;
    soak.judge_capture(&sites)?;
    Ok(soak.report(options))
}

/// Makes the access wire a bad one, both ways, and says how bad it could be made.
fn spoil(lab: &Lab) -> Result<&'static str> {
    let mut is_spoilt = true;
    for (netns, device) in [(&lab.access, OBSERVED), (&lab.router, "wan0")] {
        let line = format!("tc qdisc add dev {device} root netem {NETEM}");
        let output = netns.output(&line.split(' ').collect::<Vec<_>>())?;
        is_spoilt &= output.status.success();
    }
    if is_spoilt {
        return Ok("2 % loss, 40 ms, reordering (netem)");
    }
    lab.access.run(&["nft", LOSS])?;
    Ok("2 % loss by nftables alone: this kernel has no netem, so no delay and no reordering")
}

struct Soak {
    line: &'static str,
    load: Load,
    samples: Samples,
    observer: Option<Observer>,
    captures: u32,
    findings: Findings,
    kills: u32,
    dice: u64,
}

impl Soak {
    fn last(&mut self, sites: &mut Sites, options: Options, say: &impl Fn(&str)) -> Result<()> {
        let start = Instant::now();
        let end = start + Duration::from_secs(u64::from(options.minutes) * 60);
        let mut sample_at = start;
        let mut capture_at = start + CAPTURE_PERIOD;
        let mut kill_at = start + self.pause();
        let mut away: Option<(usize, Instant)> = None;
        loop {
            let now = Instant::now();
            if now >= end && away.is_none() {
                return Ok(());
            }
            if now >= sample_at {
                sample_at += SAMPLE_PERIOD;
                let agent = sites.world.agent.as_mut().context("the router is off")?;
                anyhow::ensure!(agent.ended().is_none(), "the agent ended");
                let gateways = sites.gateways.iter().flatten().map(|gateway| gateway.pid());
                let gateways: Vec<u32> = gateways.collect();
                self.samples
                    .take(start.elapsed(), agent.pid(), &gateways, &self.load)?;
            }
            if now >= capture_at {
                capture_at += CAPTURE_PERIOD;
                self.next_capture(sites)?;
                say(&self.samples.line(self.kills, self.findings.clear));
            }
            if now >= kill_at && now < end && away.is_none() {
                let which = usize::try_from(self.roll(2))?;
                sites.kill(which)?;
                self.kills += 1;
                away = Some((which, now + Duration::from_millis(self.roll(AWAY_MS))));
            }
            if let Some((which, at)) = away
                && now >= at
            {
                sites.restart(which)?;
                away = None;
                kill_at = Instant::now() + self.pause();
            }
            std::thread::sleep(TICK);
        }
    }

    /// Starts the next capture before it judges the one before: no frame is missed.
    fn next_capture(&mut self, sites: &Sites) -> Result<()> {
        self.captures += 1;
        let next = Observer::start_as(&sites.world.lab, &format!("soak-{}", self.captures))?;
        self.judge_capture(sites)?;
        self.observer = Some(next);
        Ok(())
    }

    fn judge_capture(&mut self, sites: &Sites) -> Result<()> {
        let Some(observer) = self.observer.take() else {
            return Ok(());
        };
        let file = observer.file().to_owned();
        let found = observer.finish(&sites.world.lab, &sites.allowed()?, &[load::MARKER])?;
        // Two captures overlap for a moment; what is counted twice is nothing in a good run.
        self.findings.wireguard += found.wireguard;
        self.findings.clear += found.clear + found.markers.len() as u64;
        self.findings.examples.extend(found.examples);
        self.findings.examples.truncate(10);
        std::fs::remove_file(file).context("throwing a capture away")
    }

    fn report(&self, options: Options) -> Report {
        let mut failures = self.samples.leaks();
        if self.findings.clear > 0 {
            failures.push(format!(
                "{} frames in clear: {}",
                self.findings.clear,
                self.findings.examples.join("; ")
            ));
        }
        failures.extend(self.samples.stalls());
        Report {
            ok: failures.is_empty(),
            failures,
            line: self.line,
            minutes: options.minutes,
            kills: self.kills,
            wireguard_frames: self.findings.wireguard,
            clear_frames: self.findings.clear,
            down_bytes: self.load.down(),
            up_bytes: self.load.up(),
            longest_pause_s: self.samples.longest_pause().as_secs_f64(),
            agent_rss_kib: self.samples.agent_memory(),
            agent_descriptors: self.samples.agent_descriptors(),
            gateway_peak: self.samples.gateway_peak(),
        }
    }

    fn pause(&mut self) -> Duration {
        let (least, more) = KILL_AFTER_S;
        Duration::from_millis(least * 1_000 + self.roll(more * 1_000))
    }

    /// A number below `sides` (xorshift64).
    fn roll(&mut self, sides: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % sides
    }
}
