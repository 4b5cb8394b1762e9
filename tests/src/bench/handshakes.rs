//! How many handshakes a gateway answers on one core, and what a flood of initiations that nobody should answer does to
//! the data of those who have a session.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::blast::{Blast, Mode, Search, Trial, lossless_rate};
use super::crowd::{self, Crowd};
use super::fleet::{self, Terms};
use super::flood::{self, Flood, Front, Sink};
use super::probe::cpu_seconds;
use super::report::{Better, Row};
use super::stage::{self, Pool, Stage};
use super::{Found, Options};
use crate::pop::GATEWAY_INNER;
use crate::programs::Programs;
use crate::topology::Lab;

/// Clients that shake hands again and again.
const CLIENTS: usize = 1_000;
/// Initiations that are not answered yet.
const IN_FLIGHT: usize = 48;
/// Done means, line 4 of the issue.
const GOAL_PER_CORE: f64 = 3_000.0;
const GOAL_UNDER_FLOOD: f64 = 0.99;
/// Inner IP packets of the established peer.
const SIZE: usize = 1_400;
/// The part of the lossless rate that is offered with and without the flood, whose sender needs a core too.
const OFFERED: f64 = 0.25;
/// The part of the rate that is lossless beside a flood to the sink.
const NEAR_THE_LIMIT: f64 = 0.9;
/// The reserved start of a pool, and the bench's router.
const FIRST_OFFSET: u32 = 64;

/// What one round found.
struct Round {
    per_core: f64,
    per_second: f64,
    calm: Trial,
    flooded: Trial,
    hidden: Trial,
    beside: Trial,
    pressed: Trial,
    /// Initiations a second, in clear and hidden.
    flood: f64,
    hidden_flood: f64,
}

/// The flood, the same hidden behind packets, and the same to somebody else.
struct Floods {
    gateway: Flood,
    hidden: Flood,
    sink: Flood,
}

pub(super) fn run(options: Options, say: &dyn Fn(&str)) -> Result<Found> {
    say("building a lab with a gateway, a router and a thousand clients");
    let lab = Lab::for_test()?;
    stage::join(&lab)?;
    let stage = Stage::set(&lab, &Programs::of_this_build()?, Pool::Wide)?;
    let keys = crowd::keys(CLIENTS);
    let publics: Vec<_> = keys.iter().map(|(_, public)| *public).collect();
    let terms = Terms {
        gateway: stage.gateway_id()?,
        stamp: &stage.pop.stamp,
        offset: FIRST_OFFSET,
    };
    let leases = fleet::lease_all(&stage.office, &publics, &terms)?;
    stage.wait_leased(1 + CLIENTS as u64, Duration::from_secs(30))?;
    let (address, key) = (stage::gateway_address()?, stage.gateway_key()?);
    let mut crowd = Crowd::new(&lab.router, address, key, keys, &leases)?;
    let sink = Sink::new(&lab.pop, address.ip())?;
    let floods = Floods {
        gateway: Flood::new(&lab.router, address, &key, Front::Open)?,
        hidden: Flood::new(&lab.router, address, &key, Front::Hidden)?,
        sink: Flood::new(&lab.router, sink.address()?, &key, Front::Open)?,
    };
    let mut blast = Blast::between(&lab.router, &lab.pop, GATEWAY_INNER)?;
    let lasting = Duration::from_secs(if options.quick { 1 } else { 4 });
    let mut rounds = Vec::new();
    for round in 1..=options.rounds {
        crowd.connect(Duration::from_secs(30))?;
        let found = measure(&stage, &mut crowd, &floods, &mut blast, lasting)?;
        say(&format!(
            "round {round}/{}: {:.0} handshakes a core second ({:.0} a second), {:.1} kpps without, {:.1} with {:.0} thousand invalid initiations a second and {:.1} with {:.0} thousand hidden ones; near the limit {:.1} kpps with them elsewhere and {:.1} here",
            options.rounds,
            found.per_core,
            found.per_second,
            found.calm.arrived / 1e3,
            found.flooded.arrived / 1e3,
            found.flood / 1e3,
            found.hidden.arrived / 1e3,
            found.hidden_flood / 1e3,
            found.beside.arrived / 1e3,
            found.pressed.arrived / 1e3
        ));
        rounds.push(found);
    }
    drop(stage);
    lab.remove().context("removing the bench's lab")?;
    Ok(Found {
        rows: rows_of(&rounds)?,
        notes: vec![
            format!(
                "handshakes per core: initiations of {CLIENTS} clients (boringtun) that were answered, over the processor time of all of the gateway's threads; kernel time that is charged to nobody is not in it"
            ),
            format!(
                "under a flood: 1,400-byte packets at {OFFERED} of the lossless rate; half of the flood has a wrong first mac, half a right one over garbage"
            ),
            format!(
                "near the limit: at {NEAR_THE_LIMIT} of the rate that is lossless while the same flood goes to a port beside the gateway's that nobody reads"
            ),
        ],
        svg: None,
    })
}

fn measure(
    stage: &Stage,
    crowd: &mut Crowd,
    floods: &Floods,
    blast: &mut Blast,
    lasting: Duration,
) -> Result<Round> {
    let gateway = stage.gateway_pid()?;
    let (cpu, start) = (cpu_seconds(&[gateway])?, Instant::now());
    let answered = shake(crowd, lasting)?;
    let elapsed = start.elapsed().as_secs_f64();
    let used = cpu_seconds(&[gateway])? - cpu;
    let search = Search {
        trial: Duration::from_millis(400),
        allowed: 0.001,
        steps: 12,
    };
    let segmented = Mode::Segmented;
    let most = lossless_rate(blast, SIZE, segmented, 60_000.0, &search)?;
    let calm = blast.trial(SIZE, most * OFFERED, segmented, lasting)?;
    let (flooded, flood) = floods
        .gateway
        .during(|| blast.trial(SIZE, most * OFFERED, segmented, lasting))?;
    let (hidden, hidden_flood) = floods
        .hidden
        .during(|| blast.trial(SIZE, most * OFFERED, segmented, lasting))?;
    let ((near, beside), _) = floods.sink.during(|| {
        let near = NEAR_THE_LIMIT * lossless_rate(blast, SIZE, segmented, most * 0.5, &search)?;
        Ok((near, blast.trial(SIZE, near, segmented, lasting)?))
    })?;
    let (pressed, _) = floods
        .gateway
        .during(|| blast.trial(SIZE, near, segmented, lasting))?;
    Ok(Round {
        per_core: answered as f64 / used.max(0.01),
        per_second: answered as f64 / elapsed,
        calm,
        flooded,
        hidden,
        beside,
        pressed,
        flood,
        hidden_flood,
    })
}

/// Lets one client after the other shake hands, some at a time, and gives how many were answered.
fn shake(crowd: &mut Crowd, lasting: Duration) -> Result<u64> {
    let (start, mut answered) = (Instant::now(), 0);
    let (mut next, mut waiting, mut heard_at) = (0, 0_usize, Instant::now());
    while start.elapsed() < lasting {
        while waiting < IN_FLIGHT {
            crowd.initiate(next % CLIENTS)?;
            next += 1;
            waiting += 1;
        }
        let (heard, came) = crowd.listen()?;
        answered += heard.responses;
        let back = usize::try_from(heard.responses + heard.cookies)?;
        waiting = waiting.saturating_sub(back);
        if came > 0 {
            heard_at = Instant::now();
        } else if heard_at.elapsed() > Duration::from_millis(50) {
            // What was lost is not waited for.
            waiting = 0;
            heard_at = Instant::now();
        } else {
            thread::sleep(Duration::from_micros(50));
        }
    }
    Ok(answered)
}

fn rows_of(rounds: &[Round]) -> Result<Vec<Row>> {
    let of = |pick: fn(&Round) -> f64| rounds.iter().map(pick).collect::<Vec<_>>();
    let pairs: Vec<_> = rounds
        .iter()
        .map(|round| (round.flooded.arrived / 1e3, round.calm.arrived / 1e3))
        .collect();
    let hidden: Vec<_> = rounds
        .iter()
        .map(|round| (round.hidden.arrived / 1e3, round.calm.arrived / 1e3))
        .collect();
    let pressed: Vec<_> = rounds
        .iter()
        .map(|round| (round.pressed.arrived / 1e3, round.beside.arrived / 1e3))
        .collect();
    let flooded = "data under a flood of invalid initiations";
    Ok(vec![
        Row::figure("handshakes per core", "1/s", &of(|r| r.per_core))?
            .bounded(Better::More, GOAL_PER_CORE),
        Row::figure("handshakes with one sender", "1/s", &of(|r| r.per_second))?,
        Row::compare(
            flooded,
            "no flood",
            "kpps",
            Better::More,
            &pairs,
            Some(GOAL_UNDER_FLOOD),
        )?,
        Row::compare(
            "data under a flood of initiations hidden behind packets",
            "no flood",
            "kpps",
            Better::More,
            &hidden,
            Some(GOAL_UNDER_FLOOD),
        )?,
        Row::compare(
            "data near the limit under a flood of invalid initiations",
            "the same flood to another port",
            "kpps",
            Better::More,
            &pressed,
            Some(GOAL_UNDER_FLOOD),
        )?,
        Row::figure("invalid initiations", "1/s", &of(|r| r.flood))?
            .bounded(Better::More, flood::RATE * 0.98),
        Row::figure("hidden initiations", "1/s", &of(|r| r.hidden_flood))?
            .bounded(Better::More, flood::RATE * 0.98),
        Row::figure("loss without a flood", "%", &of(|r| r.calm.loss * 100.0))?,
        Row::figure("loss under a flood", "%", &of(|r| r.flooded.loss * 100.0))?,
    ])
}
