//! DNSCrypt servers at their limit and at a steady rate.

use anyhow::{Context, Result};

use super::Pace;
use super::echo::TcpEcho;
use super::load::{Keep, Load};
use super::questions::{AGAIN, Names, Questions};
use super::servers::{DNSDIST, ENCRYPTED_DNS, Server};
use super::strangers::{CLASSICAL_PER_S, POST_QUANTUM_PER_S, Strangers};
use super::table::{Measure, Results, Table, interleaved};
use crate::bench::probe::{cpu_seconds, peak_mb};
use crate::bench::report::{Better, Row, quantile};
use crate::certificates::session_with_ticket;

/// Done means, line 2 of the issue.
const GOAL_HIT: f64 = 1.5;
const GOAL_NEW_KEY: f64 = 1.3;
const GOAL_POST_QUANTUM: f64 = 1.5;
const GOAL_MISS: f64 = 1.5;
const GOAL_TCP: f64 = 2.0;
/// Less memory than one of the others, and less time than both.
const GOAL_LESS: f64 = 1.0;
/// Lookups a second at which the time of one is measured.
const STEADY: u32 = 2_000;
/// The same beside garbage, of which none may be lost, nor one in a hundred take longer than this.
const STEADY_BESIDE_GARBAGE: u32 = 1_000;
const GOAL_GARBAGE_P99_MS: f64 = 5.0;
/// The part of the crowd that has to have come, for the others to count.
const WHOLE_CROWD: f64 = 0.98;
/// More than any server answers; where one does, its time ends with the last.
const NEW_KEYS_PER_S: f64 = 40_000.0;
const CIPHERTEXTS_PER_S: f64 = 25_000.0;
const NAMES_PER_S: f64 = 80_000.0;

/// Everything measured of one server in one round; lookups a second, milliseconds, MB.
#[derive(Debug, Clone, Copy, Default)]
struct Round {
    hit: f64,
    new_key: f64,
    pq_resumed: Option<f64>,
    pq_full: Option<f64>,
    tcp: f64,
    tcp_kept: f64,
    /// The server's processor time for one lookup over TCP.
    tcp_us: f64,
    miss: f64,
    times_ms: [f64; 3],
    peak_mb: f64,
}

/// Measures all servers, ours first, in rounds.
pub(super) fn measure(
    servers: &[Server],
    rounds: usize,
    pace: Pace,
    say: &dyn Fn(&str),
) -> Result<Table> {
    let measured = interleaved(servers.len(), rounds, |who, round| {
        let server = servers.get(who).context("who is one of them")?;
        let measured = one(server, round, pace);
        let measured = measured.with_context(|| format!("measuring {}", server.name))?;
        say(&told(round + 1, rounds, server.name, &measured));
        Ok(measured)
    })?;
    let results = servers
        .iter()
        .zip(measured)
        .map(|(server, rounds)| Results {
            name: server.name,
            version: server.version.to_owned(),
            row_end: server.row_end,
            rounds,
        });
    let mut table = Table::of(&results.collect::<Vec<_>>(), MEASURES)?;
    let ours = servers.first().context("a bench of nobody")?;
    table.rows.extend(beside_garbage(ours, rounds, pace, say)?);
    let echoes = (0..rounds)
        .map(|_| echoes(servers, pace))
        .collect::<Result<Vec<_>>>()?;
    let (echoed, took): (Vec<_>, Vec<_>) = echoes.into_iter().unzip();
    let what = "tcp of an echo, the machine's own";
    table.rows.push(Row::figure(what, "lookups/s", &echoed)?);
    let what = "tcp processor time of an echo";
    table.rows.push(Row::figure(what, "us", &took)?);
    Ok(table)
}

/// What `tcp` would be if answering took nothing, and the processor time of one.
fn echoes(servers: &[Server], pace: Pace) -> Result<(f64, f64)> {
    let beside = servers.last().context("a bench of nobody")?;
    let echo = TcpEcho::start(&beside.netns)?;
    let load = Load::new(&beside.netns, echo.address)?;
    let hits = Questions::sealed(&beside.classical, Names::Known, AGAIN)?;
    let echoed = load.echoed_over_tcp(&hits, pace.trial)?;
    let took_us = echo.end()? * 1e6 / (echoed * pace.trial.as_secs_f64());
    Ok((echoed, took_us))
}

/// Lookups of a router whose key is kept, beside a crowd whose every packet wants a key agreement.
fn beside_garbage(
    server: &Server,
    rounds: usize,
    pace: Pace,
    say: &dyn Fn(&str),
) -> Result<[Row; 3]> {
    let mut load = Load::new(&server.netns, server.address)?;
    let hits = Questions::sealed(&server.classical, Names::Known, AGAIN)?;
    load.warm(&hits, pace.trial / 4)?;
    let (mut lost, mut p99, mut came) = (0.0, Vec::new(), Vec::new());
    for round in 1..=rounds {
        let mut strangers = Strangers::at(server)?;
        let steady = (STEADY_BESIDE_GARBAGE, pace.steady);
        let mut times = load.steady(&hits, steady, &mut strangers)?;
        let slow = quantile(&mut times.ms, 0.99).context("no lookup was answered")?;
        let per_s = f64::from(strangers.sent()) / pace.steady.as_secs_f64();
        say(&format!(
            "round {round}/{rounds}, {} beside {per_s:.0} packets of garbage a second: {} of {} lookups lost, p99 {slow:.3} ms",
            server.name,
            times.lost,
            times.ms.len()
        ));
        lost += times.lost as f64;
        p99.push(slow);
        came.push(per_s);
    }
    let least = f64::from(CLASSICAL_PER_S + POST_QUANTUM_PER_S) * WHOLE_CROWD;
    Ok([
        Row::figure("garbage: lost", "lookups", &[lost])?.bounded(Better::Less, 0.0),
        Row::figure("garbage: p99", "ms", &p99)?.bounded(Better::Less, GOAL_GARBAGE_P99_MS),
        Row::figure("garbage: sent", "packets/s", &came)?.bounded(Better::More, least),
    ])
}

fn one(server: &Server, round: usize, pace: Pace) -> Result<Round> {
    let mut load = Load::new(&server.netns, server.address)?;
    let hits = Questions::sealed(&server.classical, Names::Known, AGAIN)?;
    load.warm(&hits, pace.trial / 4)?;
    let hit = load.saturate(&hits, pace.trial).context("hits")?;
    let steady = (STEADY, pace.steady);
    let mut times = load.steady(&hits, steady, &mut Strangers::default())?;
    let used = cpu_seconds(&[server.pid])?;
    let over_tcp = |keep| load.over_tcp(&hits, keep, pace.trial);
    let tcp = over_tcp(Keep::No).context("TCP")?;
    let used = cpu_seconds(&[server.pid])? - used;
    let tcp_kept = over_tcp(Keep::Yes).context("TCP with connections that are kept")?;
    drop(hits);
    let count = pace.of_a_trial(NEW_KEYS_PER_S);
    let new_keys = Questions::new_keys(&server.classical, count)?;
    let new_key = load.saturate(&new_keys, pace.trial).context("new keys")?;
    drop(new_keys);
    let names = Names::New { run: round };
    let names = Questions::sealed(&server.classical, names, pace.of_a_trial(NAMES_PER_S))?;
    let miss = load.saturate(&names, pace.trial).context("misses")?;
    drop(names);
    let [pq_resumed, pq_full] = post_quantum(server, &mut load, pace)?;
    let mut part = |part| quantile(&mut times.ms, part).context("no lookup was answered");
    Ok(Round {
        hit,
        new_key,
        pq_resumed,
        pq_full,
        tcp,
        tcp_kept,
        tcp_us: used * 1e6 / (tcp * pace.trial.as_secs_f64()),
        miss,
        times_ms: [part(0.5)?, part(0.99)?, part(0.999)?],
        peak_mb: peak_mb(&[server.pid])?,
    })
}

/// Resumed and full, where there is a certificate for it.
fn post_quantum(server: &Server, load: &mut Load, pace: Pace) -> Result<[Option<f64>; 2]> {
    let Some(cert) = &server.post_quantum else {
        return Ok([None; 2]);
    };
    let count = pace.of_a_trial(CIPHERTEXTS_PER_S);
    let questions = Questions::post_quantum(cert, count)?;
    let full = load.saturate(&questions, pace.trial);
    let full = full.context("post-quantum, full")?;
    let session = session_with_ticket(cert, |packet, is_it| load.ask(packet, is_it))?;
    let resumed = session.map(|session| -> Result<f64> {
        let questions = Questions::resumed(&session, AGAIN)?;
        let resumed = load.saturate(&questions, pace.trial);
        resumed.context("post-quantum, resumed")
    });
    Ok([resumed.transpose()?, Some(full)])
}

fn told(round: usize, of: usize, name: &str, m: &Round) -> String {
    let or_not = |value: Option<f64>| value.map_or("not served".to_owned(), |v| format!("{v:.0}"));
    let [p50, p99, p999] = m.times_ms;
    format!(
        "round {round}/{of}, {name:<14}: hit {:.0}, new key {:.0}, pq resumed {}, pq full {}, tcp {:.0} (of {:.1} us), kept {:.0}, miss {:.0} a second; \
         p50 {p50:.3} p99 {p99:.3} p99.9 {p999:.3} ms; peak {:.1} MB",
        m.hit,
        m.new_key,
        or_not(m.pq_resumed),
        or_not(m.pq_full),
        m.tcp,
        m.tcp_us,
        m.tcp_kept,
        m.miss,
        m.peak_mb
    )
}

const MEASURES: &[Measure<Round>] = &[
    rate(
        "classical hit",
        |m| Some(m.hit),
        |peer| against(peer, GOAL_HIT),
    ),
    rate(
        "new key",
        |m| Some(m.new_key),
        |peer| against(peer, GOAL_NEW_KEY),
    ),
    rate(
        "pq resumed",
        |m| m.pq_resumed,
        |peer| against(peer, GOAL_POST_QUANTUM),
    ),
    rate(
        "pq full",
        |m| m.pq_full,
        |peer| against(peer, GOAL_POST_QUANTUM),
    ),
    rate("tcp", |m| Some(m.tcp), |peer| against(peer, GOAL_TCP)),
    rate(
        "tcp kept",
        |m| Some(m.tcp_kept),
        |peer| against(peer, GOAL_TCP),
    ),
    Measure {
        what: "tcp processor time",
        unit: "us",
        better: Better::Less,
        of: |m| Some(m.tcp_us),
        goal: |_| None,
    },
    rate("miss", |m| Some(m.miss), |peer| against(peer, GOAL_MISS)),
    time(
        "p50 at 2000/s",
        |m| Some(m.times_ms[0]),
        |_| Some(GOAL_LESS),
    ),
    time(
        "p99 at 2000/s",
        |m| Some(m.times_ms[1]),
        |_| Some(GOAL_LESS),
    ),
    time("p99.9 at 2000/s", |m| Some(m.times_ms[2]), |_| None),
    Measure {
        what: "peak memory",
        unit: "MB",
        better: Better::Less,
        of: |m| Some(m.peak_mb),
        goal: |peer| (peer == DNSDIST).then_some(GOAL_LESS),
    },
];

fn against(peer: &str, goal: f64) -> Option<f64> {
    (peer == ENCRYPTED_DNS).then_some(goal)
}

const fn rate(
    what: &'static str,
    of: fn(&Round) -> Option<f64>,
    goal: fn(&str) -> Option<f64>,
) -> Measure<Round> {
    Measure {
        what,
        unit: "lookups/s",
        better: Better::More,
        of,
        goal,
    }
}

const fn time(
    what: &'static str,
    of: fn(&Round) -> Option<f64>,
    goal: fn(&str) -> Option<f64>,
) -> Measure<Round> {
    Measure {
        what,
        unit: "ms",
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
            hit: 15.0,
            new_key: 12.0,
            tcp: 2.0,
            tcp_kept: 2.0,
            tcp_us: 20.0,
            miss: 1.0,
            times_ms: [0.1, 0.5, 1.0],
            peak_mb: 20.0,
            ..Round::default()
        };
        let theirs = Round {
            hit: 10.0,
            new_key: 10.0,
            pq_resumed: Some(5.0),
            tcp: 1.0,
            tcp_kept: 1.5,
            times_ms: [0.1, 0.4, 2.0],
            peak_mb: 30.0,
            ..ours
        };
        let results = [
            ("culvert", "", ours),
            (ENCRYPTED_DNS, "", theirs),
            (DNSDIST, " vs dnsdist", theirs),
        ]
        .map(|(name, row_end, round)| Results {
            name,
            version: name.to_owned(),
            row_end,
            rounds: vec![round],
        });

        let table = Table::of(&results, MEASURES).unwrap();

        let met = |what: &str| {
            let row = table.rows.iter().find(|row| row.what == what);
            row.unwrap_or_else(|| panic!("no row {what}")).met
        };
        assert_eq!(met("classical hit"), Some(true));
        assert_eq!(met("classical hit vs dnsdist"), None);
        assert_eq!(met("new key"), Some(false));
        assert_eq!(met("tcp"), Some(true));
        assert_eq!(met("tcp kept"), Some(false));
        assert_eq!(met("miss"), Some(false));
        assert_eq!(met("p50 at 2000/s vs dnsdist"), Some(true));
        assert_eq!(met("p99 at 2000/s"), Some(false));
        assert_eq!(met("peak memory"), None);
        assert_eq!(met("peak memory vs dnsdist"), Some(true));
        assert!(!table.rows.iter().any(|row| row.what == "pq full"));
        assert_eq!(
            met("pq resumed of encrypted-dns, not served by culvert"),
            None
        );
    }
}
