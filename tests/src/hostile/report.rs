//! What it came to, and whether all of it held.

use std::fmt::Write as _;

use anyhow::Result;
use serde::Serialize;

use super::Options;
use super::asker::Tally;
use super::phase::{Found, JUDGED};
use crate::soak::{Growth, growth};

/// The share of known names that may stay without an answer.
const UNANSWERED: f64 = 0.02;
/// The share of the packets that the kernel may drop: what it drops is no input.
const DROPPED: f64 = 0.01;

/// All of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Nobody crashed, nothing grew, nobody was told what is not so.
    pub ok: bool,
    /// What did not hold, one sentence each.
    pub failures: Vec<String>,
    /// What chance was drawn from.
    pub seed: u64,
    /// Each program.
    pub programs: Vec<Program>,
}

/// What one program went through.
#[derive(Debug, Serialize)]
pub struct Program {
    /// Which.
    pub who: &'static str,
    /// Datagrams sent to it, and those of them that the kernel dropped.
    pub packets: u64,
    /// The kernel's part of them, which it never saw.
    pub dropped_by_kernel: u64,
    /// Frames over TCP.
    pub frames: u64,
    /// Answers to it that were lies.
    pub lies: u64,
    /// How long it took.
    pub seconds: f64,
    /// Questions about liars' names.
    pub provoked: Counts,
    /// Those about names of a signed zone for which a liar answers; none where there is no such zone.
    pub signed: Option<Counts>,
    /// Questions to which the answers are known.
    pub known: Counts,
    /// The same when all was over.
    pub afterwards: Counts,
    /// Milliseconds that known answers took, 99 of 100.
    pub p99_ms: f64,
    /// Memory, descriptors, threads.
    pub growths: Vec<Growth>,
    /// Whether it took long enough to judge these.
    pub growth_is_judged: bool,
}

/// What came of questions.
#[derive(Debug, Serialize)]
pub struct Counts {
    /// All of them.
    pub asked: u64,
    /// As it should be.
    pub right: u64,
    /// SERVFAIL.
    pub refused: u64,
    /// Nothing came.
    pub unanswered: u64,
    /// Not as it should be.
    pub wrong: u64,
}

impl Counts {
    /// None where nothing was asked.
    fn of_any(tally: &Tally) -> Option<Self> {
        (tally.asked > 0).then(|| Self::of(tally))
    }

    fn of(tally: &Tally) -> Self {
        Self {
            asked: tally.asked,
            right: tally.right,
            refused: tally.refused,
            unanswered: tally.unanswered,
            wrong: tally.wrong.values().sum(),
        }
    }
}

impl Report {
    pub(super) fn of(options: Options, found: Vec<Found>) -> Result<Self> {
        let mut failures = Vec::new();
        let mut programs = Vec::new();
        for found in found {
            let growths = growths(&found);
            failures.extend(judged(&found, &growths));
            let mut ms = found.checked.ms.clone();
            ms.sort_by(f64::total_cmp);
            programs.push(Program {
                who: found.who,
                packets: found.packets,
                dropped_by_kernel: found.dropped,
                frames: found.frames,
                lies: found.lies,
                seconds: found.seconds,
                provoked: Counts::of(&found.provoked),
                signed: Counts::of_any(&found.signed),
                known: Counts::of(&found.checked),
                afterwards: Counts::of(&found.afterwards),
                p99_ms: ms.get(ms.len() * 99 / 100).copied().unwrap_or_default(),
                growth_is_judged: growths.iter().any(is_judged),
                growths,
            });
        }
        Ok(Self {
            ok: failures.is_empty(),
            failures,
            seed: options.seed,
            programs,
        })
    }

    /// For a person.
    pub fn text(&self) -> Result<String> {
        let mut out = String::new();
        for program in &self.programs {
            writeln!(
                out,
                "{}: {} packets ({} dropped by the kernel), {} frames, {} lies in {:.0} s",
                program.who,
                program.packets,
                program.dropped_by_kernel,
                program.frames,
                program.lies,
                program.seconds
            )?;
            let parts = [
                ("about liars' names", Some(&program.provoked)),
                ("about signed names of liars", program.signed.as_ref()),
                ("with known answers", Some(&program.known)),
                ("afterwards", Some(&program.afterwards)),
            ];
            for (what, counts) in parts {
                let Some(counts) = counts else { continue };
                writeln!(
                    out,
                    "  {} questions {what}: {} right, {} refused, {} unanswered, {} wrong",
                    counts.asked, counts.right, counts.refused, counts.unanswered, counts.wrong
                )?;
            }
            writeln!(out, "  known answers: p99 {:.2} ms", program.p99_ms)?;
            for growth in &program.growths {
                let end = match is_judged(growth) {
                    true => "",
                    false => ", not judged: too short",
                };
                writeln!(out, "  {growth}{end}")?;
            }
        }
        for failure in &self.failures {
            writeln!(out, "FAILED: {failure}")?;
        }
        out += if self.ok { "all of it held\n" } else { "" };
        Ok(out)
    }
}

fn growths(found: &Found) -> Vec<Growth> {
    let half = found.held.get(found.held.len() / 2..).unwrap_or_default();
    let judge = |what: &str, of: &dyn Fn(usize) -> u64, bound| {
        let points: Vec<(f64, f64)> = half
            .iter()
            .enumerate()
            .map(|(n, held)| (held.at.as_secs_f64(), of(n) as f64))
            .collect();
        growth(format!("{} {what}", found.who), &points, bound)
    };
    let held = |n: usize| half.get(n);
    let bounds = found.bounds;
    [
        judge(
            "memory, KiB",
            &|n| held(n).map_or(0, |h| h.rss_kib),
            bounds.memory_kib,
        ),
        judge(
            "descriptors",
            &|n| held(n).map_or(0, |h| h.descriptors),
            bounds.descriptors,
        ),
        judge(
            "threads",
            &|n| held(n).map_or(0, |h| h.threads),
            bounds.threads,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn is_judged(growth: &Growth) -> bool {
    // Shorter ones are all warm-up.
    growth.seconds >= JUDGED.as_secs_f64()
}

fn judged(found: &Found, growths: &[Growth]) -> Vec<String> {
    let who = found.who;
    let mut failures = Vec::new();
    for (when, tally) in [
        ("about a liar's name", &found.provoked),
        ("about a liar's signed name", &found.signed),
        ("under attack", &found.checked),
        ("afterwards", &found.afterwards),
    ] {
        for (what, times) in &tally.wrong {
            failures.push(format!("{who} {when}, {times} times: {what}"));
        }
    }
    for (when, tally, share) in [
        ("under attack", &found.checked, found.may_miss),
        ("afterwards", &found.afterwards, UNANSWERED),
    ] {
        let (missing, asked) = (tally.unanswered + tally.refused, tally.asked);
        if missing as f64 > asked as f64 * share {
            failures.push(format!(
                "{who} {when}: {missing} of {asked} known names without an answer"
            ));
        }
    }
    if found.provoked.right == 0 {
        failures.push(format!(
            "{who}: not one answer about a liar's name: nothing was tried"
        ));
    }
    if found.signed.asked > 0 && found.signed.right == 0 {
        failures.push(format!(
            "{who}: not one right answer about a liar's signed name: nothing was proven"
        ));
    }
    if found.dropped as f64 > found.packets as f64 * DROPPED {
        failures.push(format!(
            "the kernel dropped {} of {} packets for {who}",
            found.dropped, found.packets
        ));
    }
    if found.fooled > 0 {
        failures.push(format!(
            "{who}: {} queries under a false certificate",
            found.fooled
        ));
    }
    if !found.strays.is_empty() {
        failures.push(format!(
            "{who} asked a liar for others' names: {:?}",
            found.strays
        ));
    }
    failures.extend(found.panics.iter().map(|line| format!("{who}: {line}")));
    let lasting = growths.iter().filter(|growth| is_judged(growth));
    let leaks = lasting.filter(|growth| growth.is_leak());
    failures.extend(leaks.map(|leak| format!("a leak: {leak}")));
    failures
}
