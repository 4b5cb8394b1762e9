//! Benches, each against a program of another hand in the same lab, with rounds of the two interleaved.

use std::fs;

use anyhow::{Context, Result, bail};
use serde::Serialize;

mod smoke;

/// The benches that there are.
pub const NAMES: &[&str] = &["smoke"];

/// Runs one bench; with `json` its last line on stdout is one object.
pub fn run(name: &str, json: bool) -> Result<()> {
    let say = |line: &str| {
        if json {
            eprintln!("{line}")
        } else {
            println!("{line}")
        }
    };
    let rows = match name {
        "smoke" => smoke::run(&say)?,
        _ => bail!("no bench `{name}`; there are: {}", NAMES.join(", ")),
    };
    let report = Report {
        name: name.to_owned(),
        machine: machine()?,
        rows,
    };
    if json {
        println!(
            "{}",
            serde_json::to_string(&report).context("writing the report")?
        );
    } else {
        report.print();
    }
    Ok(())
}

/// What a bench found.
#[derive(Debug, Serialize)]
struct Report {
    name: String,
    machine: String,
    rows: Vec<Row>,
}

/// One comparison. A ratio says how many times better ours is.
#[derive(Debug, Serialize)]
struct Row {
    what: String,
    ours: f64,
    peer: f64,
    peer_name: String,
    unit: &'static str,
    ratio_median: f64,
    ratio_min: f64,
    ratio_max: f64,
    goal: f64,
    met: bool,
}

impl Row {
    /// Compares rounds in which more is better; each pair was measured back to back.
    fn more_is_better(
        what: &str,
        peer_name: &str,
        unit: &'static str,
        rounds: &[(f64, f64)],
        goal: f64,
    ) -> Result<Self> {
        let median_of = |pick: fn(&(f64, f64)) -> f64| median(rounds.iter().map(pick).collect());
        let ratios: Vec<_> = rounds.iter().map(|(ours, peer)| ours / peer).collect();
        let ratio_median = median(ratios.clone()).context("a bench without rounds")?;
        Ok(Self {
            what: what.to_owned(),
            ours: rounded(median_of(|r| r.0).context("a bench without rounds")?),
            peer: rounded(median_of(|r| r.1).context("a bench without rounds")?),
            peer_name: peer_name.to_owned(),
            unit,
            ratio_median: rounded(ratio_median),
            ratio_min: rounded(ratios.iter().copied().fold(f64::INFINITY, f64::min)),
            ratio_max: rounded(ratios.iter().copied().fold(0.0, f64::max)),
            goal,
            met: ratio_median >= goal,
        })
    }
}

impl Report {
    fn print(&self) {
        println!("\n{} on {}", self.name, self.machine);
        for row in &self.rows {
            println!(
                "  {:<32} ours {:>7.3} {unit}   {} {:>7.3} {unit}   ratio {:.2} ({:.2} to {:.2}), goal {:.2}: {}",
                row.what,
                row.ours,
                row.peer_name,
                row.peer,
                row.ratio_median,
                row.ratio_min,
                row.ratio_max,
                row.goal,
                if row.met { "met" } else { "NOT met" },
                unit = row.unit,
            );
        }
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some((values.get(middle.checked_sub(1)?)? + upper) / 2.0)
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn machine() -> Result<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo").context("reading /proc/cpuinfo")?;
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or(": unknown processor");
    let cores = cpus
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let kernel =
        fs::read_to_string("/proc/sys/kernel/osrelease").context("reading the kernel's release")?;
    Ok(format!(
        "{}, {cores} cores, Linux {}",
        model.trim_start_matches([':', ' ', '\t']),
        kernel.trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_compares_within_rounds_and_not_across_them() {
        let row = Row::more_is_better(
            "x",
            "peer",
            "Gb/s",
            &[(2.0, 1.0), (8.0, 2.0), (3.0, 3.0)],
            2.5,
        )
        .unwrap();

        assert_eq!((row.ours, row.peer), (3.0, 2.0));
        assert_eq!(
            (row.ratio_median, row.ratio_min, row.ratio_max),
            (2.0, 1.0, 4.0)
        );
        assert!(!row.met);
    }

    #[test]
    fn no_rounds_make_no_row() {
        assert!(Row::more_is_better("x", "peer", "Gb/s", &[], 1.0).is_err());
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }
}
