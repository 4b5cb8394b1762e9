//! Stubs at their limit and at a steady rate, each started anew in each round: what it holds idle is measured before the
//! first lookup.

use anyhow::{Context, Result};

use super::Pace;
use super::echo::Echo;
use super::load::Load;
use super::questions::{AGAIN, Names, Questions};
use super::strangers::Strangers;
use super::stubs::{Bench, DNSCRYPT_PROXY, DNSMASQ, KINDS, Kind};
use super::table::{Measure, Results, Table, interleaved};
use crate::bench::probe::{peak_mb, resident_mb};
use crate::bench::report::{Better, Row, quantile};

/// Done means, line 2 of the issue.
const GOAL_HIT: f64 = 3.0;
const GOAL_HIT_OF_PLAIN: f64 = 0.75;
const GOAL_MISS: f64 = 1.5;
const GOAL_MEMORY: f64 = 10.0;
const GOAL_DISK: f64 = 8.0;
/// Done means, line 3, of a cached answer's p99.
const GOAL_P99_MS: f64 = 0.1;
/// Lookups a second at which the time of one is measured.
const STEADY: u32 = 2_000;

/// Everything measured of one stub in one round; lookups a second, milliseconds, MB.
#[derive(Debug, Clone, Copy, Default)]
struct Round {
    hit: f64,
    miss: f64,
    times_ms: [f64; 3],
    idle_mb: f64,
    loaded_mb: f64,
    disk_mb: f64,
}

/// Measures all stubs in rounds.
pub(super) fn measure(
    bench: &Bench<'_>,
    rounds: usize,
    pace: Pace,
    say: &dyn Fn(&str),
) -> Result<Table> {
    let mut echo_p99 = Vec::new();
    let measured = interleaved(KINDS.len(), rounds, |who, round| {
        if echo_p99.len() == round {
            echo_p99.push(p99_of_an_echo(bench, pace).context("measuring an echo")?);
        }
        let kind = *KINDS.get(who).context("who is one of them")?;
        let measured = one(bench, kind, round, pace);
        let measured = measured.with_context(|| format!("measuring {}", kind.name()))?;
        say(&told(round + 1, rounds, kind.name(), &measured));
        Ok(measured)
    })?;
    let results = KINDS.into_iter().zip(measured);
    let mut table = table(results.map(|(kind, rounds)| (kind, Results::of(kind, rounds))))?;
    let echo = Row::figure("stub p99 of an echo, the machine's own", "ms", &echo_p99)?;
    table.rows.push(echo);
    Ok(table)
}

/// What the time of a cached answer would be if answering took none.
fn p99_of_an_echo(bench: &Bench<'_>, pace: Pace) -> Result<f64> {
    let echo = Echo::start(&bench.lab.internet)?;
    let mut load = Load::new(&bench.lab.internet, echo.address)?;
    let hits = Questions::plain(Names::Known, AGAIN)?;
    let steady = (STEADY, pace.steady);
    let mut times = load.steady(&hits, steady, &mut Strangers::default())?.ms;
    quantile(&mut times, 0.99).context("nothing came back")
}

/// The program beside all others, then the agent's stub beside dnscrypt-proxy.
fn table(results: impl Iterator<Item = (Kind, Results<Round>)>) -> Result<Table> {
    let (routers, rest): (Vec<_>, Vec<_>) = results.partition(|(kind, _)| *kind == Kind::Routers);
    let go = rest.iter().find(|(kind, _)| *kind == Kind::DnscryptProxy);
    let routers = routers.into_iter().chain(go.cloned());
    let only = |(_, results)| results;
    let mut table = Table::of(
        &rest.iter().cloned().map(only).collect::<Vec<_>>(),
        MEASURES,
    )?;
    let of_agent = Table::of(&routers.map(only).collect::<Vec<_>>(), MEASURES_OF_AGENT)?;
    let p99 = of_times(&rest)?;
    table.rows.push(p99);
    table.rows.extend(of_agent.rows);
    table.panels.extend(of_agent.panels);
    table.notes.extend(of_agent.notes);
    Ok(table)
}

/// The time that one cached answer in a hundred takes longer than, against what the issue says.
fn of_times(results: &[(Kind, Results<Round>)]) -> Result<Row> {
    let (_, ours) = results.first().context("a bench of nobody")?;
    let p99: Vec<f64> = ours.rounds.iter().map(|m| m.times_ms[1]).collect();
    let row = Row::figure("stub p99 of a cached answer", "ms", &p99)?;
    Ok(row.bounded(Better::Less, GOAL_P99_MS))
}

impl Results<Round> {
    fn of(kind: Kind, rounds: Vec<Round>) -> Self {
        Self {
            name: kind.name(),
            version: kind.version().to_owned(),
            row_end: kind.row_end(),
            rounds,
        }
    }
}

fn one(bench: &Bench<'_>, kind: Kind, round: usize, pace: Pace) -> Result<Round> {
    let stub = kind.start(bench)?;
    let idle_mb = resident_mb(&[stub.pid])?;
    let mut load = Load::new(&bench.lab.internet, stub.address)?;
    let hits = Questions::plain(Names::Known, AGAIN)?;
    load.warm(&hits, pace.trial / 4)?;
    let hit = load.saturate(&hits, pace.trial).context("hits")?;
    let steady = (STEADY, pace.steady);
    let mut times = load.steady(&hits, steady, &mut Strangers::default())?.ms;
    drop(hits);
    let names = Questions::plain(Names::New { run: round }, AGAIN)?;
    let miss = load.saturate(&names, pace.trial).context("misses")?;
    let mut part = |part| quantile(&mut times, part).context("no lookup was answered");
    Ok(Round {
        hit,
        miss,
        times_ms: [part(0.5)?, part(0.99)?, part(0.999)?],
        idle_mb,
        loaded_mb: peak_mb(&[stub.pid])?,
        disk_mb: kind.disk_mb(bench)?,
    })
}

fn told(round: usize, of: usize, name: &str, m: &Round) -> String {
    let [p50, p99, p999] = m.times_ms;
    format!(
        "round {round}/{of}, {name:<14}: hit {:.0}, miss {:.0} a second; p50 {p50:.3} p99 {p99:.3} p99.9 {p999:.3} ms; \
         idle {:.1} loaded {:.1} MB, {:.1} MB on disk",
        m.hit, m.miss, m.idle_mb, m.loaded_mb, m.disk_mb
    )
}

const MEASURES: &[Measure<Round>] = &[
    Measure {
        what: "stub hit",
        unit: "lookups/s",
        better: Better::More,
        of: |m| Some(m.hit),
        goal: |peer| match peer {
            DNSCRYPT_PROXY => Some(GOAL_HIT),
            DNSMASQ => Some(GOAL_HIT_OF_PLAIN),
            _ => None,
        },
    },
    Measure {
        what: "stub miss",
        unit: "lookups/s",
        better: Better::More,
        of: |m| Some(m.miss),
        goal: |peer| (peer == DNSCRYPT_PROXY).then_some(GOAL_MISS),
    },
    less(
        "stub p50 at 2000/s",
        "ms",
        |m| Some(m.times_ms[0]),
        |_| None,
    ),
    less(
        "stub p99 at 2000/s",
        "ms",
        |m| Some(m.times_ms[1]),
        |_| None,
    ),
    less(
        "stub p99.9 at 2000/s",
        "ms",
        |m| Some(m.times_ms[2]),
        |_| None,
    ),
    less("stub idle memory", "MB", |m| Some(m.idle_mb), |_| None),
    less("stub loaded memory", "MB", |m| Some(m.loaded_mb), |_| None),
    less("stub size on disk", "MB", |m| Some(m.disk_mb), |_| None),
];

/// What a router carries; against dnscrypt-proxy alone.
const MEASURES_OF_AGENT: &[Measure<Round>] = &[
    Measure {
        what: "stub hit as part of the agent",
        unit: "lookups/s",
        better: Better::More,
        of: |m| Some(m.hit),
        goal: |_| None,
    },
    Measure {
        what: "stub miss as part of the agent",
        unit: "lookups/s",
        better: Better::More,
        of: |m| Some(m.miss),
        goal: |_| None,
    },
    less(
        "stub idle memory as part of the agent",
        "MB",
        |m| Some(m.idle_mb),
        |_| Some(GOAL_MEMORY),
    ),
    less(
        "stub loaded memory as part of the agent",
        "MB",
        |m| Some(m.loaded_mb),
        |_| Some(GOAL_MEMORY),
    ),
    less(
        "stub size as part of the agent",
        "MB",
        |m| Some(m.disk_mb),
        |_| Some(GOAL_DISK),
    ),
];

const fn less(
    what: &'static str,
    unit: &'static str,
    of: fn(&Round) -> Option<f64>,
    goal: fn(&str) -> Option<f64>,
) -> Measure<Round> {
    Measure {
        what,
        unit,
        better: Better::Less,
        of,
        goal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_the_issues_names_and_goals() {
        let ours = Round {
            hit: 120.0,
            miss: 15.0,
            idle_mb: 2.0,
            loaded_mb: 2.0,
            disk_mb: 1.0,
            times_ms: [1.0; 3],
        };
        let theirs = Round {
            hit: 40.0,
            miss: 10.0,
            idle_mb: 20.0,
            loaded_mb: 19.0,
            disk_mb: 8.0,
            ..ours
        };
        let plain = Round { hit: 170.0, ..ours };
        let agents = Round {
            idle_mb: 1.0,
            loaded_mb: 2.0,
            ..ours
        };
        let results = KINDS.map(|kind| {
            let round = match kind {
                Kind::Ours => ours,
                Kind::Routers => agents,
                Kind::DnscryptProxy => theirs,
                Kind::Dnsmasq | Kind::Unbound => plain,
            };
            (kind, Results::of(kind, vec![round]))
        });

        let table = table(results.into_iter()).unwrap();

        let met = |what: &str| {
            let row = table.rows.iter().find(|row| row.what == what);
            row.unwrap_or_else(|| panic!("no row {what}")).met
        };
        assert_eq!(met("stub hit vs dnscrypt-proxy"), Some(true));
        assert_eq!(met("stub hit vs dnsmasq"), Some(false));
        assert_eq!(met("stub hit vs unbound"), None);
        assert_eq!(met("stub miss vs dnscrypt-proxy"), Some(true));
        assert_eq!(met("stub idle memory vs dnscrypt-proxy"), None);
        assert_eq!(met("stub p99 of a cached answer"), Some(false));
        let of_agent = |what: &str| met(&format!("{what} as part of the agent vs dnscrypt-proxy"));
        assert_eq!(of_agent("stub hit"), None);
        assert_eq!(of_agent("stub idle memory"), Some(true));
        assert_eq!(of_agent("stub loaded memory"), Some(false));
        assert_eq!(of_agent("stub size"), Some(true));
    }
}
