//! Our tunnel beside those of other hands, over and over in turns: streams, small packets, round trips, cost.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::blast::{Blast, Mode, Search, lossless_rate};
use super::contestants::{self, BORINGTUN, Contestant, GO_2025, OURS};
use super::limit;
use super::plot;
use super::probe::{cpu_seconds, peak_mb, ping};
use super::report::{Better, Row};
use super::stage;
use super::{Found, Options};
use crate::iperf::{Way, streams};
use crate::peers::Peers;
use crate::programs::Programs;
use crate::topology::Lab;

/// Sizes of whole inner IP packets, as a phone call and a download have them.
const SIZES: [usize; 2] = [64, 1400];
const ALLOWED_LOSS: f64 = 0.001;
/// Done means, lines 1 and 2 of the issue.
const GOAL_GO_2025: f64 = 2.0;
const GOAL_BORINGTUN: f64 = 6.0;
const GOAL_CPU: f64 = 2.0;
const GOAL_SMALL: f64 = 2.0;
const GOAL_LIMIT: f64 = 0.8;

/// How long each part takes.
struct Pace {
    stream_s: u32,
    four_s: u32,
    idle_pings: u32,
    load_s: u32,
    search: Search,
    mode: Mode,
}

impl Pace {
    fn of(options: Options) -> Self {
        let search = |ms, steps| Search {
            trial: Duration::from_millis(ms),
            allowed: ALLOWED_LOSS,
            steps,
        };
        let mode = if options.single {
            Mode::Single
        } else {
            Mode::Segmented
        };
        if options.quick {
            return Self {
                mode,
                stream_s: 1,
                four_s: 1,
                idle_pings: 30,
                load_s: 1,
                search: search(250, 8),
            };
        }
        Self {
            mode,
            stream_s: 3,
            four_s: 2,
            idle_pings: 80,
            load_s: 2,
            search: search(400, 16),
        }
    }
}

/// Everything measured of one tunnel in one round.
#[derive(Debug, Clone, Copy, Default)]
struct Round {
    up: f64,
    down: f64,
    four: f64,
    cpu_per_gb: f64,
    small: [f64; 2],
    idle_ms: [f64; 2],
    load_ms: [f64; 2],
    peak_mb: f64,
}

impl Round {
    fn one_stream(&self) -> f64 {
        (self.up + self.down) / 2.0
    }
}

pub(super) fn run(options: Options, say: &dyn Fn(&str)) -> Result<Found> {
    Peers::of_this_build()?.prepare_tunnels(say)?;
    say("building a lab with five tunnels");
    let lab = Lab::for_test()?;
    let programs = Programs::of_this_build()?;
    stage::join(&lab)?;
    let limit = limit::measure(&lab, say)?;
    let mut all = vec![contestants::ours(&lab, &programs)?];
    all.extend(contestants::theirs(&lab, &Peers::of_this_build()?)?);
    let pace = Pace::of(options);
    let mut rounds: Vec<Vec<Round>> = vec![Vec::new(); all.len()];
    for round in 0..options.rounds {
        for turn in 0..all.len() {
            // Who goes first moves on, so that nobody always finds the machine as the same one left it.
            let who = (round + turn) % all.len();
            let (Some(contestant), Some(past)) = (all.get(who), rounds.get_mut(who)) else {
                continue;
            };
            let measured = measure(&lab, contestant, past.last(), &pace)
                .with_context(|| format!("measuring {}", contestant.name))?;
            say(&told(round + 1, options.rounds, contestant.name, &measured));
            past.push(measured);
        }
    }
    let names: Vec<_> = all
        .iter()
        .map(|contestant| (contestant.name, contestant.version.clone()))
        .collect();
    drop(all);
    lab.remove().context("removing the bench's lab")?;
    let mut rows = rows_of(&names, &rounds)?;
    rows.extend(limit.rows(&one_streams(&rounds), GOAL_LIMIT)?);
    let svg = draw(&programs, &names, &rounds)?;
    Ok(Found {
        rows,
        notes: notes(pace.mode),
        svg: Some(svg),
    })
}

fn measure(lab: &Lab, contestant: &Contestant, past: Option<&Round>, pace: &Pace) -> Result<Round> {
    let inside = contestant.inside.as_str();
    // The first datagram finds a session, and nothing is measured cold.
    ping(&lab.router, inside, 10)?;
    let idle = ping(&lab.router, inside, pace.idle_pings)?;
    let before = cpu_seconds(&contestant.pids)?;
    let wired = stage::bytes_on_the_wire(lab)?;
    let up = streams(&lab.router, inside, Way::Up, pace.stream_s, 1)?;
    let wired = stage::bytes_on_the_wire(lab)? - wired;
    ensure!(
        wired > up.bytes,
        "{} has another way than the wire that everybody shares: {wired} of {} bytes are on it",
        contestant.name,
        up.bytes
    );
    let down = streams(&lab.router, inside, Way::Down, pace.stream_s, 1)?;
    let cpu = cpu_seconds(&contestant.pids)? - before;
    let four_up = streams(&lab.router, inside, Way::Up, pace.four_s, 4)?;
    let four_down = streams(&lab.router, inside, Way::Down, pace.four_s, 4)?;
    let load = thread::scope(|scope| {
        let load = scope.spawn(|| streams(&lab.router, inside, Way::Up, pace.load_s, 1));
        // The stream needs a moment to fill the queues; the pings end before it does.
        thread::sleep(Duration::from_millis(300));
        let pings = ping(&lab.router, inside, pace.load_s * 100 - 80);
        match load.join() {
            Ok(arrived) => arrived.and(pings),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;
    let mut blast = Blast::between(&lab.router, &lab.pop, inside)?;
    let mut small = [0.0; 2];
    for (i, (rate, size)) in small.iter_mut().zip(SIZES).enumerate() {
        let near = past.and_then(|round| round.small.get(i)).copied();
        let near = near.filter(|rate| *rate > 0.0).unwrap_or(60_000.0);
        *rate = lossless_rate(&mut blast, size, pace.mode, near, &pace.search)?;
    }
    Ok(Round {
        up: up.gbps,
        down: down.gbps,
        four: (four_up.gbps + four_down.gbps) / 2.0,
        cpu_per_gb: cpu / ((up.bytes + down.bytes) / 1e9),
        small,
        idle_ms: [idle.median_ms, idle.p99_ms],
        load_ms: [load.median_ms, load.p99_ms],
        peak_mb: peak_mb(&contestant.pids)?,
    })
}

fn told(round: usize, of: usize, name: &str, m: &Round) -> String {
    let [small, large] = m.small;
    let ([idle, _], [load, worst]) = (m.idle_ms, m.load_ms);
    format!(
        "round {round}/{of}, {name:<17}: up {:.2} down {:.2} four {:.2} Gb/s, {:.2} CPU s/GB, \
         64 B {:.0} kpps, 1400 B {:.0} kpps, ping idle {idle:.2} load {load:.2} (p99 {worst:.2}) ms, peak {:.0} MB",
        m.up,
        m.down,
        m.four,
        m.cpu_per_gb,
        small / 1e3,
        large / 1e3,
        m.peak_mb
    )
}

fn one_streams(rounds: &[Vec<Round>]) -> Vec<f64> {
    rounds
        .first()
        .map(|ours| ours.iter().map(Round::one_stream).collect())
        .unwrap_or_default()
}

/// What is compared, which way is better, what the goal against a peer is.
struct Measure {
    what: &'static str,
    unit: &'static str,
    better: Better,
    of: fn(&Round) -> f64,
    goal: fn(&str) -> Option<f64>,
}

const MEASURES: &[Measure] = &[
    Measure {
        what: "one stream",
        unit: "Gb/s",
        better: Better::More,
        of: Round::one_stream,
        goal: |peer| match peer {
            GO_2025 => Some(GOAL_GO_2025),
            BORINGTUN => Some(GOAL_BORINGTUN),
            _ => None,
        },
    },
    Measure {
        what: "one stream up",
        unit: "Gb/s",
        better: Better::More,
        of: |round| round.up,
        goal: |_| None,
    },
    Measure {
        what: "one stream down",
        unit: "Gb/s",
        better: Better::More,
        of: |round| round.down,
        goal: |_| None,
    },
    Measure {
        what: "four streams",
        unit: "Gb/s",
        better: Better::More,
        of: |round| round.four,
        goal: |_| None,
    },
    Measure {
        what: "small packets 64",
        unit: "kpps",
        better: Better::More,
        of: |round| round.small[0] / 1e3,
        goal: |_| Some(GOAL_SMALL),
    },
    Measure {
        what: "small packets 1400",
        unit: "kpps",
        better: Better::More,
        of: |round| round.small[1] / 1e3,
        goal: |_| Some(GOAL_SMALL),
    },
    Measure {
        what: "ping under load",
        unit: "ms",
        better: Better::Less,
        of: |round| round.load_ms[0],
        goal: |_| Some(1.0),
    },
    Measure {
        what: "ping under load p99",
        unit: "ms",
        better: Better::Less,
        of: |round| round.load_ms[1],
        goal: |_| None,
    },
    Measure {
        what: "ping idle",
        unit: "ms",
        better: Better::Less,
        of: |round| round.idle_ms[0],
        goal: |_| None,
    },
    Measure {
        what: "ping idle p99",
        unit: "ms",
        better: Better::Less,
        of: |round| round.idle_ms[1],
        goal: |_| None,
    },
    Measure {
        what: "cpu per GB",
        unit: "s/GB",
        better: Better::Less,
        of: |round| round.cpu_per_gb,
        goal: |peer| (peer == GO_2025).then_some(GOAL_CPU),
    },
    Measure {
        what: "resident memory",
        unit: "MB",
        better: Better::Less,
        of: |round| round.peak_mb,
        goal: |_| None,
    },
];

fn rows_of(names: &[(&str, String)], rounds: &[Vec<Round>]) -> Result<Vec<Row>> {
    let (Some(ours), Some(peers)) = (rounds.first(), rounds.get(1..)) else {
        return Ok(Vec::new());
    };
    let mut rows = Vec::new();
    for measure in MEASURES {
        for ((name, version), theirs) in names.iter().skip(1).zip(peers) {
            let pairs: Vec<_> = ours
                .iter()
                .zip(theirs)
                .map(|(ours, theirs)| ((measure.of)(ours), (measure.of)(theirs)))
                .collect();
            let what = format!("{} vs {name}", measure.what);
            let goal = (measure.goal)(name);
            let row = Row::compare(&what, version, measure.unit, measure.better, &pairs, goal)?;
            rows.push(row);
        }
    }
    let pairs: Vec<_> = ours.iter().map(|r| (r.four, r.one_stream())).collect();
    rows.push(Row::compare(
        "four streams vs one stream",
        "one stream",
        "Gb/s",
        Better::More,
        &pairs,
        Some(1.0),
    )?);
    Ok(rows)
}

fn notes(mode: Mode) -> Vec<String> {
    let how = match mode {
        Mode::Segmented => "each burst in one call (UDP_SEGMENT)",
        Mode::Single => "each datagram in a call of its own",
    };
    vec![
        "one stream: the mean of both ways, iperf3 from router to gateway's site and back; four streams likewise".into(),
        format!(
            "small packets: whole inner IP packets of this size, the highest rate with less than {} % lost, sent in bursts of at most {}, {how}, the same sender and receiver for all",
            ALLOWED_LOSS * 100.0,
            super::blast::BURST
        ),
        "cpu per GB: user and system time of the daemons at both ends per 10^9 bytes of payload, during the one stream".into(),
        "resident memory: the peak of both ends together since the start".into(),
    ]
}

fn draw(programs: &Programs, names: &[(&str, String)], rounds: &[Vec<Round>]) -> Result<String> {
    let panels: Vec<_> = MEASURES
        .iter()
        .map(|measure| plot::Panel {
            title: measure.what.to_owned(),
            unit: measure.unit,
            better: measure.better,
            bars: names
                .iter()
                .zip(rounds)
                .map(|((name, _), rounds)| plot::Bar {
                    name: (*name).to_owned(),
                    is_ours: *name == OURS,
                    values: rounds.iter().map(measure.of).collect(),
                })
                .collect(),
        })
        .collect();
    let title = "One tunnel, both ends on one machine";
    let path = programs.target().join("bench-tunnel.svg");
    let text = plot::svg(title, &super::report::machine()?, &panels)?;
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::super::contestants::GO_2022;
    use super::*;

    #[test]
    fn rows_have_the_issues_names_and_goals() {
        let round = Round {
            up: 4.0,
            down: 4.0,
            four: 4.0,
            cpu_per_gb: 1.0,
            small: [2e6, 1e6],
            idle_ms: [0.1, 0.2],
            load_ms: [1.0, 2.0],
            peak_mb: 10.0,
        };
        let slower = Round {
            up: 1.0,
            down: 1.0,
            cpu_per_gb: 1.5,
            ..round
        };
        let names = [OURS, GO_2025, GO_2022, BORINGTUN].map(|name| (name, name.to_owned()));

        let rows = rows_of(
            &names,
            &[vec![round], vec![slower], vec![slower], vec![slower]],
        );

        let rows = rows.unwrap();
        let row = |what: &str| rows.iter().find(|row| row.what == what).unwrap();
        assert_eq!(row("one stream vs wireguard-go 2025").met, Some(true));
        assert_eq!(row("one stream vs boringtun").met, Some(false));
        assert_eq!(row("one stream vs wireguard-go 2022").met, None);
        assert_eq!(row("cpu per GB vs wireguard-go 2025").ratios, [1.5]);
        assert_eq!(
            row("small packets 64 vs wireguard-go 2025").met,
            Some(false)
        );
        assert_eq!(row("small packets 1400 vs boringtun").unit, "kpps");
        assert_eq!(row("four streams vs one stream").met, Some(true));
        assert!(row("ping under load vs wireguard-go 2025").goal.is_some());
    }
}
