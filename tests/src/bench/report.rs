//! What a bench found: rows, each a comparison round by round or a figure alone, with its goal.

use std::fs;

use anyhow::{Context, Result};
use serde::Serialize;

/// All of one run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) name: String,
    pub(super) machine: String,
    pub(super) rows: Vec<Row>,
    /// What has to be known to read the rows.
    pub(super) notes: Vec<String>,
    /// Where the drawing is.
    pub(super) svg: Option<String>,
}

/// Which of two figures is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Better {
    More,
    Less,
}

/// One comparison, or one figure. A ratio says how many times better ours is.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    pub(super) what: String,
    pub(super) unit: &'static str,
    pub(super) ours: Spread,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) peer: Option<Spread>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) peer_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ratio: Option<Spread>,
    /// In round order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) ratios: Vec<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) goal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) met: Option<bool>,
}

/// Median, minimum and maximum over the rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Spread {
    pub(super) fn of(values: &[f64]) -> Result<Self> {
        Ok(Self {
            median: rounded(median(values.to_vec()).context("a bench without rounds")?),
            min: rounded(values.iter().copied().fold(f64::INFINITY, f64::min)),
            max: rounded(values.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
        })
    }
}

impl Row {
    /// Compares rounds; each pair, ours and theirs, was measured in the same round.
    pub(super) fn compare(
        what: &str,
        peer_name: &str,
        unit: &'static str,
        better: Better,
        rounds: &[(f64, f64)],
        goal: Option<f64>,
    ) -> Result<Self> {
        let ratios: Vec<f64> = rounds
            .iter()
            .map(|(ours, theirs)| match better {
                Better::More => ours / theirs,
                Better::Less => theirs / ours,
            })
            .map(rounded)
            .collect();
        let ratio = Spread::of(&ratios)?;
        let pick = |side: fn(&(f64, f64)) -> f64| rounds.iter().map(side).collect::<Vec<_>>();
        Ok(Self {
            what: what.to_owned(),
            unit,
            ours: Spread::of(&pick(|pair| pair.0))?,
            peer: Some(Spread::of(&pick(|pair| pair.1))?),
            peer_name: Some(peer_name.to_owned()),
            ratio: Some(ratio),
            ratios,
            goal: goal.map(|goal| format!("ratio at least {goal}")),
            met: goal.map(|goal| ratio.median >= goal),
        })
    }

    /// A figure that stands alone.
    pub(super) fn figure(what: &str, unit: &'static str, values: &[f64]) -> Result<Self> {
        Ok(Self {
            what: what.to_owned(),
            unit,
            ours: Spread::of(values)?,
            peer: None,
            peer_name: None,
            ratio: None,
            ratios: Vec::new(),
            goal: None,
            met: None,
        })
    }

    /// The same with a bound that its median has to keep.
    pub(super) fn bounded(mut self, better: Better, bound: f64) -> Self {
        let (word, met) = match better {
            Better::More => ("at least", self.ours.median >= bound),
            Better::Less => ("at most", self.ours.median <= bound),
        };
        self.goal = Some(format!("{word} {bound}"));
        self.met = Some(met);
        self
    }

    fn print(&self) {
        let Spread { median, min, max } = self.ours;
        let mut line = format!(
            "  {:<44} {median:>9.3} ({min:.3} to {max:.3}) {}",
            self.what, self.unit
        );
        if let (Some(peer), Some(ratio)) = (self.peer, self.ratio) {
            line += &format!(
                "   theirs {:.3} ({:.3} to {:.3})   ratio {:.2} ({:.2} to {:.2})",
                peer.median, peer.min, peer.max, ratio.median, ratio.min, ratio.max
            );
        }
        if let (Some(goal), Some(met)) = (&self.goal, self.met) {
            line += &format!("   {goal}: {}", if met { "met" } else { "NOT met" });
        }
        println!("{line}");
    }
}

impl Report {
    pub(super) fn print(&self) {
        println!("\n{} on {}", self.name, self.machine);
        for row in &self.rows {
            row.print();
        }
        for note in &self.notes {
            println!("  * {note}");
        }
        if let Some(svg) = &self.svg {
            println!("  drawn in {svg}");
        }
    }
}

pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    quantile(&mut values, 0.5)
}

/// The value below which this part of all lies, between two neighbours in proportion.
pub(super) fn quantile(values: &mut [f64], part: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let place = part * values.len().checked_sub(1)? as f64;
    let (lower, upper) = (place.floor(), place.ceil());
    let (below, above) = (*values.get(lower as usize)?, *values.get(upper as usize)?);
    Some(below + (above - below) * (place - lower))
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

pub(super) fn machine() -> Result<String> {
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
    fn no_rounds_make_no_row() {
        assert!(Row::compare("x", "peer", "Gb/s", Better::More, &[], None).is_err());
        assert!(Row::figure("x", "Gb/s", &[]).is_err());
    }

    #[test]
    fn a_row_compares_within_rounds_and_not_across_them() {
        let rounds = [(2.0, 1.0), (8.0, 2.0), (3.0, 3.0)];

        let row = Row::compare("x", "peer", "Gb/s", Better::More, &rounds, Some(2.5)).unwrap();

        let medians = (row.ours.median, row.peer.unwrap().median);
        assert_eq!(medians, (3.0, 2.0));
        assert_eq!(row.ratios, [2.0, 4.0, 1.0]);
        let ratio = row.ratio.unwrap();
        assert_eq!((ratio.median, ratio.min, ratio.max), (2.0, 1.0, 4.0));
        assert_eq!(row.met, Some(false));
    }

    #[test]
    fn where_less_is_better_the_ratio_turns_round() {
        let row = Row::compare("x", "peer", "s/GB", Better::Less, &[(2.0, 6.0)], Some(2.0));

        let row = row.unwrap();
        assert_eq!(
            (row.ratios.as_slice(), row.met),
            ([3.0].as_slice(), Some(true))
        );
    }

    #[test]
    fn a_bound_is_for_the_median() {
        let row = Row::figure("x", "MB", &[90.0, 99.0, 150.0]).unwrap();

        assert_eq!(row.clone().bounded(Better::Less, 100.0).met, Some(true));
        assert_eq!(row.bounded(Better::More, 100.0).met, Some(false));
    }

    #[test]
    fn a_quantile_lies_between_its_neighbours() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(quantile(&mut [0.0, 10.0], 0.99), Some(9.9));
        assert_eq!(median(Vec::new()), None);
    }
}
