//! From what each contestant came to in each round to rows and panels. The first contestant is ours.

use anyhow::{Context, Result};

use crate::bench::plot::{Bar, Panel};
use crate::bench::report::{Better, Row};

/// One figure out of a round, and what it is to be against whom.
pub(super) struct Measure<R> {
    pub(super) what: &'static str,
    pub(super) unit: &'static str,
    pub(super) better: Better,
    /// `None` where it is not served.
    pub(super) of: fn(&R) -> Option<f64>,
    /// By the other's name.
    pub(super) goal: fn(&str) -> Option<f64>,
}

/// What one contestant came to.
#[derive(Clone)]
pub(super) struct Results<R> {
    pub(super) name: &'static str,
    /// Which program it is, with its version.
    pub(super) version: String,
    /// What a row that compares with it is called beyond what is measured.
    pub(super) row_end: &'static str,
    pub(super) rounds: Vec<R>,
}

impl<R> Results<R> {
    /// A figure of every round, if it is served.
    fn values(&self, measure: &Measure<R>) -> Option<Vec<f64>> {
        let values = self.rounds.iter().map(measure.of);
        values.collect::<Option<Vec<_>>>()
    }
}

/// Rows of one part of the bench, and what has to be known to read them.
#[derive(Default)]
pub(super) struct Table {
    pub(super) rows: Vec<Row>,
    pub(super) notes: Vec<String>,
    pub(super) panels: Vec<Panel>,
}

/// Lets each have its turn in each round. Who goes first moves on, so that nobody always finds the machine as the same
/// one left it.
pub(super) fn interleaved<R>(
    contestants: usize,
    rounds: usize,
    mut measure: impl FnMut(usize, usize) -> Result<R>,
) -> Result<Vec<Vec<R>>> {
    let mut all: Vec<Vec<R>> = (0..contestants).map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for turn in 0..contestants {
            let who = (round + turn) % contestants;
            let measured = measure(who, round)?;
            all.get_mut(who)
                .context("who is one of them")?
                .push(measured);
        }
    }
    Ok(all)
}

impl Table {
    pub(super) fn of<R>(results: &[Results<R>], measures: &[Measure<R>]) -> Result<Self> {
        let mut table = Self::default();
        for measure in measures {
            table.add(results, measure)?;
        }
        Ok(table)
    }

    fn add<R>(&mut self, results: &[Results<R>], measure: &Measure<R>) -> Result<()> {
        let (ours, others) = results.split_first().context("a bench of nobody")?;
        let (what, unit) = (measure.what, measure.unit);
        let our_values = ours.values(measure);
        for other in others {
            let name = format!("{what}{}", other.row_end);
            match (&our_values, other.values(measure)) {
                (Some(ours), Some(theirs)) => {
                    let pairs: Vec<_> = ours.iter().copied().zip(theirs).collect();
                    let goal = (measure.goal)(other.name);
                    let (version, better) = (&other.version, measure.better);
                    let row = Row::compare(&name, version, unit, better, &pairs, goal)?;
                    self.rows.push(row);
                }
                // Without ours there is nothing to compare: their figure stands alone.
                (None, Some(theirs)) => {
                    let name = format!("{what} of {}, not served by {}", other.name, ours.name);
                    self.rows.push(Row::figure(&name, unit, &theirs)?);
                }
                (Some(_), None) => {
                    self.notes
                        .push(format!("{what}: not served by {}", other.name));
                }
                (None, None) => self.notes.push(format!(
                    "{what}: served neither by {} nor by {}",
                    ours.name, other.name
                )),
            }
        }
        let bars = results.iter().filter_map(|contestant| {
            Some(Bar {
                name: contestant.name.to_owned(),
                is_ours: contestant.name == ours.name,
                values: contestant.values(measure)?,
            })
        });
        self.panels.push(Panel {
            title: what.to_owned(),
            unit,
            better: measure.better,
            bars: bars.collect(),
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(name: &'static str, rounds: &[Option<f64>]) -> Results<Option<f64>> {
        Results {
            name,
            version: format!("{name} 1.0"),
            row_end: if name == "other" { "" } else { " vs third" },
            rounds: rounds.to_vec(),
        }
    }

    const MEASURE: Measure<Option<f64>> = Measure {
        what: "hit",
        unit: "lookups/s",
        better: Better::More,
        of: |round| *round,
        goal: |peer| (peer == "other").then_some(1.5),
    };

    #[test]
    fn what_ours_does_not_serve_is_a_figure_of_theirs_and_never_a_comparison() {
        let all = [
            results("ours", &[Some(1.0), None]),
            results("other", &[Some(4.0), Some(6.0)]),
            results("third", &[None, None]),
        ];

        let table = Table::of(&all, &[MEASURE]).unwrap();

        let [row] = table.rows.as_slice() else {
            panic!("{:?}", table.rows);
        };
        assert_eq!(row.what, "hit of other, not served by ours");
        assert_eq!((row.ours.median, row.met), (5.0, None));
        assert_eq!(table.notes, ["hit: served neither by ours nor by third"]);
    }

    #[test]
    fn a_row_has_the_goal_against_its_peer_alone() {
        let all = [
            results("ours", &[Some(4.0)]),
            results("other", &[Some(4.0)]),
            results("third", &[Some(2.0)]),
        ];

        let table = Table::of(&all, &[MEASURE]).unwrap();

        let rows: Vec<_> = table
            .rows
            .iter()
            .map(|row| (row.what.as_str(), row.met))
            .collect();
        assert_eq!(rows, [("hit", Some(false)), ("hit vs third", None)]);
    }

    #[test]
    fn everybody_begins_a_round_once() {
        let mut order = Vec::new();

        let all = interleaved(3, 3, |who, round| {
            order.push((round, who));
            Ok(who)
        });

        assert_eq!(all.unwrap(), [[0; 3], [1; 3], [2; 3]]);
        let first: Vec<_> = order.chunks(3).map(|round| round[0].1).collect();
        assert_eq!(first, [0, 1, 2]);
    }
}
