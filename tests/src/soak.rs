//! The soak: a home under steady load on a bad line, gateways and agent killed at random, for as many minutes as asked.
//!
//! What the daemons hold is sampled, every frame on the access wire is judged, every byte of the transfers is compared,
//! and the time without service after each kill is measured.

mod chart;
mod line;
mod load;
mod pulse;
mod report;
mod samples;
mod strikes;
mod verdict;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::observer::{Findings, Observer};
use crate::sites::Sites;
use crate::topology::Lab;
use crate::zones::NAME_MARKER;
use line::Line;
use load::Load;
use pulse::Pulse;
use samples::Samples;
use strikes::{Strike, Strikes, Victim};

pub use line::LineCount;
pub use load::Moved;
pub use report::Report;
pub(crate) use samples::{Held, held};
pub use strikes::{Strike as Kill, Victim as Killed};
pub use verdict::Growth;
pub(crate) use verdict::growth;

const SAMPLE_PERIOD: Duration = Duration::from_secs(5);
/// An observer's capture is judged and thrown away this often, so that hours fit on a disk.
const CAPTURE_PERIOD: Duration = Duration::from_secs(60);
/// The loop's own step.
const TICK: Duration = Duration::from_millis(100);
/// A time without service belongs to a kill up to this much after the dead one's return.
const FELT_FOR: Duration = Duration::from_secs(12);
const MARKERS: &[&str] = &[load::MARKER, NAME_MARKER];

/// How long, on how bad a line, and how it is told.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Minutes of load.
    pub minutes: u32,
    /// Per cent of frames that are lost, each way.
    pub loss: f64,
    /// Milliseconds, each way.
    pub delay_ms: u64,
    /// Per cent of frames that others overtake, each way.
    pub reorder: f64,
    /// Whether daemons are killed.
    pub kill: bool,
    /// What chance is drawn from.
    pub seed: u64,
    /// One object on the last line of stdout.
    pub json: bool,
}

/// Runs it; samples go to `folder` as `soak.csv`, the drawing as `soak.svg`.
pub fn run(options: Options, folder: &Path) -> Result<Report> {
    let say = |line: &str| match options.json {
        true => eprintln!("{line}"),
        false => println!("{line}"),
    };
    let lab = Lab::for_test()?;
    let line = Line::lay(&lab, options)?;
    say(&format!("the line: {}", line.words(options)));
    let mut sites = Sites::in_lab(lab)?;
    let load = Load::start(&sites.world.lab)?;
    let mut soak = Soak {
        pulse: Pulse::start(&sites.world.lab, &load)?,
        load,
        samples: Samples::create(folder)?,
        observer: Some(Observer::start_as(&sites.world.lab, "soak-0")?),
        line,
        captures: 0,
        findings: Findings::default(),
        start: Instant::now(),
        strikes: Vec::new(),
        preferred: sites.active()?,
    };
    let result = soak.last(&mut sites, options, &say);
    let last_words = sites.world.last_words();
    let moved = soak.load.moved();
    soak.load.stop();
    soak.pulse.stop();
    result.with_context(|| format!("the soak broke off; the daemons said:\n{last_words}"))?;
    soak.judge_capture(&sites)?;
    let report = soak.report(options, moved)?;
    let drawing = chart::svg(&report.line, &soak.samples, &soak.strikes)?;
    std::fs::write(folder.join("soak.svg"), drawing).context("writing soak.svg")?;
    Ok(report)
}

struct Soak {
    line: Line,
    load: Load,
    pulse: Pulse,
    samples: Samples,
    observer: Option<Observer>,
    captures: u32,
    findings: Findings,
    start: Instant,
    strikes: Vec<Strike>,
    preferred: usize,
}

/// Somebody who was killed and is not back.
struct Away {
    victim: Victim,
    since: Instant,
    back_at: Instant,
    in_use: bool,
}

/// A kill whose effect is still being felt.
struct Felt {
    from: Instant,
    until: Instant,
}

impl Soak {
    fn last(&mut self, sites: &mut Sites, options: Options, say: &impl Fn(&str)) -> Result<()> {
        let length = Duration::from_secs(u64::from(options.minutes) * 60);
        let mut plan = Strikes::plan(options.kill, options.seed, length, self.preferred);
        let mut sample_at = self.start;
        let mut capture_at = self.start + CAPTURE_PERIOD;
        let mut away: Option<Away> = None;
        let mut felt: Option<Felt> = None;
        loop {
            let now = Instant::now();
            if let Some(gone) = away.take_if(|gone| now >= gone.back_at) {
                felt = Some(self.bring_back(sites, &gone)?);
                plan.go_on(self.start.elapsed());
            }
            if let Some(over) = felt.take_if(|felt| now >= felt.until) {
                self.measure(&over, say);
            }
            if away.is_none() && felt.is_none() {
                if now >= self.start + length {
                    return Ok(());
                }
                if let Some((victim, time)) = plan.due(self.start.elapsed()) {
                    away = Some(self.strike(sites, victim, time)?);
                }
            }
            if now >= sample_at {
                sample_at += SAMPLE_PERIOD;
                self.sample(sites)?;
            }
            if now >= capture_at && away.is_none() {
                capture_at += CAPTURE_PERIOD;
                self.next_capture(sites)?;
                let (kills, clear) = (self.strikes.len(), self.findings.clear);
                say(&format!(
                    "{}; {kills} kills; {clear} frames in clear",
                    self.samples.line()
                ));
            }
            std::thread::sleep(TICK);
        }
    }

    fn strike(&self, sites: &mut Sites, victim: Victim, time: Duration) -> Result<Away> {
        let in_use = match victim {
            Victim::Agent => true,
            Victim::Gateway(n) => sites.active().is_ok_and(|active| active == n),
        };
        let since = Instant::now();
        match victim {
            Victim::Agent => sites
                .world
                .agent
                .take()
                .context("the router is off")?
                .kill()?,
            Victim::Gateway(n) => {
                sites.kill(n)?;
            }
        }
        Ok(Away {
            victim,
            since,
            back_at: since + time,
            in_use,
        })
    }

    fn bring_back(&mut self, sites: &mut Sites, gone: &Away) -> Result<Felt> {
        let away = gone.since.elapsed();
        match gone.victim {
            Victim::Agent => sites.world.power_on()?,
            Victim::Gateway(n) => sites.restart(n)?,
        }
        self.strikes.push(Strike {
            at_s: gone.since.duration_since(self.start).as_secs_f64(),
            victim: gone.victim,
            in_use: gone.in_use,
            away_s: away.as_secs_f64(),
            outage_s: 0.0,
            stall_s: 0.0,
        });
        Ok(Felt {
            from: gone.since,
            until: Instant::now() + FELT_FOR,
        })
    }

    fn measure(&mut self, over: &Felt, say: &impl Fn(&str)) {
        let [outage, stall] = self.pulse.longest_gaps(over.from, over.until);
        if let Some(strike) = self.strikes.last_mut() {
            strike.outage_s = outage.as_secs_f64();
            strike.stall_s = stall.as_secs_f64();
            say(&format!("        {}", strike.words()));
        }
    }

    fn sample(&mut self, sites: &mut Sites) -> Result<()> {
        let world = &mut sites.world;
        let mut daemons = Vec::new();
        let [first, second] = &mut sites.gateways;
        for (who, daemon) in [
            ("agent", &mut world.agent),
            ("gw1", first),
            ("gw2", second),
            ("provisioning", &mut world.provisioning),
        ] {
            let Some(daemon) = daemon else { continue };
            if let Some(status) = daemon.ended() {
                anyhow::bail!(
                    "{who} ended by itself: {status}; it said:\n{}",
                    daemon.log_tail()
                );
            }
            daemons.push((who, daemon.pid()));
        }
        let path = match sites.active() {
            Ok(0) => "gw1",
            Ok(_) => "gw2",
            // The agent is away, or between two gateways.
            Err(_) => "none",
        };
        self.samples
            .take(self.start.elapsed(), &daemons, self.load.moved(), path)
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
        let allowed = sites.allowed()?;
        let file = observer.file().to_owned();
        let mut found = observer.finish(&sites.world.lab, &allowed, MARKERS)?;
        self.line.judge_lost(&mut found, &allowed, MARKERS);
        // Two captures overlap for a moment; what is counted twice is nothing in a good run.
        self.findings.wireguard += found.wireguard;
        self.findings.clear += found.clear + found.markers.len() as u64;
        self.findings.examples.extend(found.examples);
        self.findings.examples.extend(found.markers);
        self.findings.examples.truncate(10);
        std::fs::remove_file(file).context("throwing a capture away")
    }
}
