//! `tidy.toml`: what may break a rule for a while, why, and until when.

use std::time::SystemTime;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::{Problem, Rule};

/// One exception. It covers every problem of its rule in its file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Waiver {
    rule: Rule,
    file: String,
    until: toml::value::Datetime,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    waiver: Vec<Waiver>,
}

pub(super) fn parse(text: &str) -> Result<Vec<Waiver>> {
    let file: File = toml::from_str(text).context("reading tidy.toml")?;
    Ok(file.waiver)
}

/// Takes away what is waived, and adds what is wrong with the waivers themselves.
pub(super) fn apply(waivers: &[Waiver], problems: Vec<Problem>, today: Date) -> Vec<Problem> {
    let mut left = Vec::new();
    for waiver in waivers {
        let used = problems.iter().any(|p| waiver.covers(p));
        let fault = match waiver.date() {
            None => Some("`until` is no date"),
            Some(until) if until < today => Some("its time is over"),
            Some(_) if !used => Some("nothing needs it"),
            Some(_) if waiver.reason.trim().len() < 10 => Some("its reason says nothing"),
            Some(_) => None,
        };
        if let Some(fault) = fault {
            let what = format!("{} for {}: {fault}", waiver.rule, waiver.file);
            left.push(Problem::new(Rule::Waiver, "tidy.toml", 1, what));
        }
    }
    let in_force = |p: &Problem| {
        waivers
            .iter()
            .any(|w| w.covers(p) && w.date().is_some_and(|d| d >= today))
    };
    left.extend(problems.into_iter().filter(|p| !in_force(p)));
    left
}

/// Year, month, day.
pub(super) type Date = (u16, u8, u8);

/// Today in UTC.
pub(super) fn today() -> Result<Date> {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .context("the clock is before 1970")?;
    Ok(date_of(since.as_secs() / 86_400))
}

/// The Gregorian date of a day counted from 1970-01-01.
fn date_of(mut day: u64) -> Date {
    let mut year = 1970_u16;
    while day >= days_in(year) {
        day -= days_in(year);
        year += 1;
    }
    let february = if days_in(year) == 366 { 29 } else { 28 };
    let mut month = 1_u8;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    (year, month, u8::try_from(day + 1).unwrap_or(u8::MAX))
}

fn days_in(year: u16) -> u64 {
    let leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    if leap { 366 } else { 365 }
}

impl Waiver {
    fn covers(&self, problem: &Problem) -> bool {
        self.rule == problem.rule && self.file == problem.file
    }

    fn date(&self) -> Option<Date> {
        self.until.date.map(|d| (d.year, d.month, d.day))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(rule: Rule, file: &str) -> Problem {
        Problem::new(rule, file, 1, "wrong")
    }

    fn waiver(until: &str, reason: &str) -> Vec<Waiver> {
        let text = format!(
            "[[waiver]]\nrule = \"unsafe\"\nfile = \"a.rs\"\nuntil = {until}\nreason = \"{reason}\"\n"
        );
        parse(&text).unwrap()
    }

    #[test]
    fn an_unknown_rule_is_refused() {
        let text = "[[waiver]]\nrule = \"everything\"\nfile = \"a.rs\"\nuntil = 2030-01-01\nreason = \"x\"\n";

        assert!(parse(text).is_err());
    }

    #[test]
    fn a_waiver_past_its_date_covers_nothing_and_is_told() {
        let waivers = waiver("2026-01-31", "the split is under way");

        let left = apply(&waivers, vec![problem(Rule::Unsafe, "a.rs")], (2026, 2, 1));

        assert_eq!(left.len(), 2);
        assert!(
            left[0].to_string().contains("its time is over"),
            "{}",
            left[0]
        );
    }

    #[test]
    fn a_waiver_that_nothing_needs_is_told() {
        let left = apply(
            &waiver("2026-01-31", "the split is under way"),
            Vec::new(),
            (2026, 1, 1),
        );

        assert!(
            left[0].to_string().contains("nothing needs it"),
            "{}",
            left[0]
        );
    }

    #[test]
    fn a_waiver_without_a_reason_is_told() {
        let left = apply(
            &waiver("2026-01-31", "x"),
            vec![problem(Rule::Unsafe, "a.rs")],
            (2026, 1, 1),
        );

        assert!(
            left[0].to_string().contains("its reason says nothing"),
            "{}",
            left[0]
        );
    }

    #[test]
    fn a_waiver_covers_its_rule_in_its_file_alone_and_its_last_day_counts() {
        let waivers = waiver("2026-01-31", "the split is under way");
        let problems = vec![
            problem(Rule::Unsafe, "a.rs"),
            problem(Rule::Unsafe, "b.rs"),
            problem(Rule::Unwrap, "a.rs"),
        ];

        let left = apply(&waivers, problems, (2026, 1, 31));

        assert_eq!(
            left,
            [problem(Rule::Unsafe, "b.rs"), problem(Rule::Unwrap, "a.rs")]
        );
    }

    #[test]
    fn days_become_dates() {
        assert_eq!(date_of(0), (1970, 1, 1));
        assert_eq!(date_of(59), (1970, 3, 1));
        assert_eq!(date_of(11_016), (2000, 2, 29));
        assert_eq!(date_of(20_453), (2025, 12, 31));
        assert_eq!(date_of(20_454), (2026, 1, 1));
    }
}
