//! What a soak came to: the bounds, the verdict, and how both are told.

use std::fmt::Write as _;

use anyhow::Result;
use serde::Serialize;

use super::line::LineCount;
use super::load::Moved;
use super::strikes::{Strike, Victim};
use super::verdict::{Growth, growths};
use super::{Options, Soak};

/// A dead gateway is left after 1.5 s without an answer, on a good line; here answers are lost and late, and the
/// handshake with the next one may be too.
const GATEWAY_OUTAGE_S: f64 = 5.0;
/// From the agent's start: its handshakes may be lost, and are sent again after a second or, when told that they are too many, five (WireGuard's
/// Rekey-Timeout).
const AGENT_OUTAGE_S: f64 = 12.0;
/// The kernels before the cable may drop one frame in so many, of their own accord, on a machine that has much else to do.
const DROPPED_ONE_IN: u64 = 10_000;
/// The share of names that may stay without an answer within three seconds.
const UNANSWERED: f64 = 0.1;

/// What it came to.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Nothing in clear, no leak, nothing corrupt, no outage over its bound.
    pub ok: bool,
    /// What did not hold, one sentence each.
    pub failures: Vec<String>,
    /// How bad the line was, and by whom.
    pub line: String,
    /// What our cable counted, where it was ours.
    pub cable: Option<LineCount>,
    /// Minutes of load.
    pub minutes: u32,
    /// What kills and loss were drawn from.
    pub seed: u64,
    /// WireGuard frames seen by the observer.
    pub wireguard_frames: u64,
    /// Frames that should not be there, those that the cable lost included.
    pub clear_frames: u64,
    /// What the home got.
    pub moved: Moved,
    /// Each kill.
    pub strikes: Vec<Strike>,
    /// Each thing that was judged for growth.
    pub growths: Vec<Growth>,
    /// The fullest that the UDP sockets of a daemon's namespace were seen, in bytes.
    pub udp_queue_peak_bytes: u64,
    /// Datagrams that they dropped, at most in one namespace.
    pub udp_queue_drops: u64,
}

impl Soak {
    pub(super) fn report(&self, options: Options, moved: Moved) -> Result<Report> {
        let growths = growths(&self.samples.lives);
        let cable = self.line.count()?;
        let mut failures = Vec::new();
        if self.findings.clear > 0 {
            failures.push(format!(
                "{} frames in clear: {}",
                self.findings.clear,
                self.findings.examples.join("; ")
            ));
        }
        for leak in growths.iter().filter(|growth| growth.is_leak()) {
            failures.push(format!(
                "{} grew by {:.1} in {:.0} s, allowed are {:.0}",
                leak.of, leak.growth, leak.seconds, leak.bound
            ));
        }
        let too_long = self
            .strikes
            .iter()
            .filter(|strike| strike.outage_s > strike.bound_s());
        failures.extend(too_long.map(|strike| format!("too long an outage: {}", strike.words())));
        failures.extend(unmet(moved));
        if let Some(count) = &cable {
            let failed: u64 = count.ways.iter().map(|way| way.failed).sum();
            let entered: u64 = count.ways.iter().map(|way| way.entered).sum();
            let dropped = count.dropped_before;
            if failed > 0 || dropped * DROPPED_ONE_IN > entered {
                failures.push(format!("the cable lost what it was not told to: {count:?}"));
            }
        }
        Ok(Report {
            ok: failures.is_empty(),
            failures,
            line: self.line.words(options),
            cable,
            minutes: options.minutes,
            seed: options.seed,
            wireguard_frames: self.findings.wireguard,
            clear_frames: self.findings.clear,
            moved,
            strikes: self.strikes.clone(),
            growths,
            udp_queue_peak_bytes: self.samples.queue_peak,
            udp_queue_drops: self.samples.queue_drops,
        })
    }
}

/// What the home wished for and did not get.
fn unmet(moved: Moved) -> Vec<String> {
    let mut failures = Vec::new();
    if moved.corrupt > 0 {
        failures.push(format!("{} transfers arrived changed", moved.corrupt));
    }
    if moved.broken > 0 {
        failures.push(format!("{} transfers broke", moved.broken));
    }
    if moved.completed == 0 {
        failures.push("no transfer was completed".to_owned());
    }
    let asked = moved.lookups_answered + moved.lookups_unanswered;
    if moved.lookups_unanswered as f64 > asked as f64 * UNANSWERED {
        failures.push(format!(
            "{} of {asked} lookups unanswered",
            moved.lookups_unanswered
        ));
    }
    failures
}

impl Strike {
    /// The longest outage that is allowed.
    pub(super) fn bound_s(&self) -> f64 {
        match self.victim {
            Victim::Agent => self.away_s + AGENT_OUTAGE_S,
            Victim::Gateway(_) => GATEWAY_OUTAGE_S,
        }
    }

    /// One line about it.
    pub(super) fn words(&self) -> String {
        let who = match self.victim {
            Victim::Agent => "the agent".to_owned(),
            Victim::Gateway(n) if self.in_use => format!("gw{}, in use", n + 1),
            Victim::Gateway(n) => format!("gw{}, standing by", n + 1),
        };
        format!(
            "at {:.0} s killed {who}, back after {:.1} s: {:.2} s without an answer, {:.2} s without a byte",
            self.at_s, self.away_s, self.outage_s, self.stall_s
        )
    }
}

impl Report {
    /// For a person.
    pub fn text(&self) -> Result<String> {
        let mut out = String::new();
        writeln!(out, "{} minutes; {}", self.minutes, self.line)?;
        if let Some(count) = &self.cable {
            for (way, name) in count.ways.iter().zip(["from the home", "to the home"]) {
                let share = |n: u64| 100.0 * n as f64 / way.entered.max(1) as f64;
                writeln!(
                    out,
                    "  {name}: {} frames, {:.2} % lost, {:.2} % held, {} not taken, {} over 5 ms late",
                    way.entered,
                    share(way.lost),
                    share(way.held),
                    way.failed,
                    way.late
                )?;
            }
            writeln!(out, "  dropped before the cable: {}", count.dropped_before)?;
        }
        let moved = self.moved;
        writeln!(
            out,
            "{:.0} MB down, {:.0} MB up; transfers: {} whole, {} broken, {} corrupt; lookups: {} answered, {} not",
            moved.down_bytes as f64 / 1e6,
            moved.up_bytes as f64 / 1e6,
            moved.completed,
            moved.broken,
            moved.corrupt,
            moved.lookups_answered,
            moved.lookups_unanswered
        )?;
        writeln!(
            out,
            "{} WireGuard frames, {} in clear; UDP queues: at most {} bytes, {} dropped",
            self.wireguard_frames,
            self.clear_frames,
            self.udp_queue_peak_bytes,
            self.udp_queue_drops
        )?;
        for (name, is_of) in KINDS {
            let mut outages: Vec<f64> = self
                .strikes
                .iter()
                .filter(|s| is_of(s))
                .map(|s| s.outage_s)
                .collect();
            outages.sort_by(f64::total_cmp);
            if let (Some(middle), Some(most)) = (outages.get(outages.len() / 2), outages.last()) {
                let count = outages.len();
                writeln!(
                    out,
                    "{count} kills of {name}: {middle:.2} s without service, at most {most:.2} s"
                )?;
            }
        }
        for growth in &self.growths {
            writeln!(out, "{growth}")?;
        }
        for failure in &self.failures {
            writeln!(out, "FAILED: {failure}")?;
        }
        out += if self.ok { "all of it held\n" } else { "" };
        Ok(out)
    }
}

type Kind = (&'static str, fn(&Strike) -> bool);

const KINDS: [Kind; 3] = [
    ("the gateway in use", |s| {
        s.victim != Victim::Agent && s.in_use
    }),
    ("the gateway that stood by", |s| !s.in_use),
    ("the agent", |s| s.victim == Victim::Agent),
];
