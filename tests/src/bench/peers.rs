//! A hundred thousand leased routers on one gateway: what they cost asleep, and whether a thousand of them share
//! fairly awake.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::socket::{setsockopt, sockopt};

use super::crowd::{self, Crowd, jain};
use super::fleet::{self, Terms};
use super::packet;
use super::probe::{cpu_seconds, resident_mb};
use super::report::{Better, Row};
use super::stage::{self, Pool, Stage};
use super::{Found, Options};
use crate::iperf::{IperfServer, Way, streams};
use crate::pop::GATEWAY_INNER;
use crate::programs::Programs;
use crate::topology::Lab;
use crate::wait::wait_until;

const SLEEPING: usize = 100_000;
const ACTIVE: usize = 1_000;
/// The reserved start of a pool, and the bench's router.
const FIRST_OFFSET: u32 = 64;
/// Done means, line 3 of the issue.
const MOST_MB: f64 = 100.0;
const MOST_LOAD_S: f64 = 10.0;
const LEAST_THROUGHPUT: f64 = 0.95;
const LEAST_FAIRNESS: f64 = 0.95;
const LOADED_WITHIN: Duration = Duration::from_secs(180);
/// Bytes of an active client's inner packets.
const SIZE: usize = 1_200;
const HEADERS: usize = 28;
const SINK_BYTES: usize = 32 << 20;

/// The two shard caches between which the gateway is switched.
struct Caches {
    live: PathBuf,
    one: PathBuf,
    all: PathBuf,
}

/// What one round found.
#[derive(Default)]
struct Round {
    few: Stream,
    many: Stream,
    few_mb: f64,
    many_mb: f64,
    load_s: f64,
}

/// One stream up and one down.
#[derive(Clone, Copy, Default)]
struct Stream {
    gbps: f64,
    /// Processor time of the gateway for 10^9 bytes of payload.
    cpu_per_gb: f64,
}

pub(super) fn run(options: Options, say: &dyn Fn(&str)) -> Result<Found> {
    say("building a lab with a gateway and a router");
    let lab = Lab::for_test()?;
    stage::join(&lab)?;
    let mut stage = Stage::set(&lab, &Programs::of_this_build()?, Pool::Wide)?;
    let live = stage.pop.state_dir().join("shard-1.log");
    let caches = Caches {
        one: live.with_extension("one"),
        all: live.with_extension("all"),
        live,
    };
    fs::copy(&caches.live, &caches.one).context("keeping the shard cache of one router")?;
    let keys = crowd::keys(ACTIVE);
    let (streamed_s, leases) = load(&stage, &keys, say)?;
    fs::copy(&caches.live, &caches.all).context("keeping the shard cache of all routers")?;
    // From here on the gateway lives from its cache, so that it can be switched.
    stage.close_office()?;
    let seconds = if options.quick { 1 } else { 4 };
    let mut rounds = Vec::new();
    for round in 1..=options.rounds {
        let found = measure(&lab, &mut stage, &caches, round, seconds)?;
        say(&format!(
            "round {round}/{}: {:.2} Gb/s and {:.1} MB with one router, {:.2} Gb/s and {:.1} MB with {} of them, read back in {:.1} s",
            options.rounds,
            found.few.gbps,
            found.few_mb,
            found.many.gbps,
            found.many_mb,
            1 + leases.len(),
            found.load_s
        ));
        rounds.push(found);
    }
    switch(&mut stage, &caches.all, &caches, 1 + leases.len())?;
    say("a thousand clients at once");
    let address = stage::gateway_address()?;
    let mut crowd = Crowd::new(&lab.router, address, stage.gateway_key()?, keys, &leases)?;
    crowd.connect(Duration::from_secs(60))?;
    let lasting = Duration::from_secs(seconds.into());
    let up = upload(&lab, &mut crowd, lasting)?;
    let down = download(&lab, &mut crowd, lasting)?;
    drop(stage);
    lab.remove().context("removing the bench's lab")?;
    Ok(Found {
        rows: rows_of(&rounds, streamed_s, [up, down])?,
        notes: vec![
            "loading: from provisioning's commit of all leases, or from the start of the gateway's process, until its status counts them; each is verified".into(),
            "throughput: one TCP stream of the bench's own router, mean of both ways; the gateway is started anew with either cache in each round".into(),
            "fairness: Jain's index over what arrived of each client, all of them sending, or being sent to, more than the gateway can carry".into(),
        ],
        svg: None,
    })
}

/// Leases everybody while all of it runs, and waits until the gateway knows them.
fn load(
    stage: &Stage,
    active: &[(x25519_dalek::StaticSecret, [u8; 32])],
    say: &dyn Fn(&str),
) -> Result<(f64, Vec<Ipv4Addr>)> {
    say(&format!("leasing {SLEEPING} routers"));
    let mut publics: Vec<_> = active.iter().map(|(_, public)| *public).collect();
    publics.resize_with(SLEEPING, fleet::random);
    let terms = Terms {
        gateway: stage.gateway_id()?,
        stamp: &stage.pop.stamp,
        offset: FIRST_OFFSET,
    };
    let leases = fleet::lease_all(&stage.office, &publics, &terms)?;
    let start = Instant::now();
    stage.wait_leased(1 + SLEEPING as u64, LOADED_WITHIN)?;
    let seconds = start.elapsed().as_secs_f64();
    say(&format!(
        "the gateway streamed them in within {seconds:.1} s"
    ));
    wait_idle(stage.gateway_pid()?)?;
    Ok((seconds, leases))
}

fn measure(
    lab: &Lab,
    stage: &mut Stage,
    caches: &Caches,
    round: usize,
    seconds: u32,
) -> Result<Round> {
    let mut found = Round::default();
    let mut few = |stage: &mut Stage| -> Result<()> {
        switch(stage, &caches.one, caches, 1)?;
        found.few_mb = resident_mb(&[stage.gateway_pid()?])?;
        found.few = throughput(lab, stage, seconds)?;
        Ok(())
    };
    let few_first = !round.is_multiple_of(2);
    if few_first {
        few(stage)?;
    }
    let (load_s, many_mb) = {
        let load_s = switch(stage, &caches.all, caches, 1 + SLEEPING)?;
        (load_s, resident_mb(&[stage.gateway_pid()?])?)
    };
    let many = throughput(lab, stage, seconds)?;
    if !few_first {
        few(stage)?;
    }
    Ok(Round {
        many,
        many_mb,
        load_s,
        ..found
    })
}

/// Starts the gateway anew with another cache, and gives how long it took to read it.
fn switch(stage: &mut Stage, cache: &Path, caches: &Caches, leased: usize) -> Result<f64> {
    stage.stop_gateway()?;
    fs::copy(cache, &caches.live).context("giving the gateway another shard cache")?;
    let start = Instant::now();
    stage.start_gateway()?;
    stage.wait_leased(leased as u64, LOADED_WITHIN)?;
    let seconds = start.elapsed().as_secs_f64();
    wait_idle(stage.gateway_pid()?)?;
    Ok(seconds)
}

/// Workers are told of leases after the table has them.
fn wait_idle(pid: u32) -> Result<()> {
    let mut before = cpu_seconds(&[pid])?;
    let mut since = Instant::now();
    wait_until("the gateway has nothing to do", LOADED_WITHIN, || {
        if since.elapsed() < Duration::from_millis(300) {
            return Ok(None);
        }
        let used = cpu_seconds(&[pid])?;
        let is_idle = used - before < 0.03;
        (before, since) = (used, Instant::now());
        Ok(is_idle.then_some(()))
    })
}

fn throughput(lab: &Lab, stage: &Stage, seconds: u32) -> Result<Stream> {
    wait_until(
        "the router's tunnel passes packets",
        Duration::from_secs(60),
        || {
            let ping = ["ping", "-n", "-c", "1", "-W", "1", GATEWAY_INNER];
            Ok(lab.router.output(&ping)?.status.success().then_some(()))
        },
    )?;
    let _server = IperfServer::start(&lab.pop, GATEWAY_INNER)?;
    let gateway = [stage.gateway_pid()?];
    let before = cpu_seconds(&gateway)?;
    let up = streams(&lab.router, GATEWAY_INNER, Way::Up, seconds, 1)?;
    let down = streams(&lab.router, GATEWAY_INNER, Way::Down, seconds, 1)?;
    let used = cpu_seconds(&gateway)? - before;
    Ok(Stream {
        gbps: (up.gbps + down.gbps) / 2.0,
        cpu_per_gb: used * 1e9 / (up.bytes + down.bytes),
    })
}

/// All clients send as fast as one thread can seal for them; gives each one's part of what arrived.
fn upload(lab: &Lab, crowd: &mut Crowd, lasting: Duration) -> Result<Vec<f64>> {
    let sink = lab.pop.enter(|| socket(&format!("{GATEWAY_INNER}:0")))?;
    let SocketAddr::V4(address) = sink.local_addr().context("the sink's port")? else {
        bail!("the sink's address is not IPv4");
    };
    let packets: Vec<_> = crowd
        .members
        .iter()
        .map(|member| packet::udp(member.address, address, SIZE))
        .collect::<Result<_>>()?;
    let over = AtomicBool::new(false);
    let by_source = thread::scope(|scope| {
        let counting = scope.spawn(|| count(&sink, &over));
        let start = Instant::now();
        let mut sent = Ok(());
        'sending: while start.elapsed() < lasting {
            for (member, packet) in packets.iter().enumerate() {
                sent = crowd.send_packet(member, packet);
                if sent.is_err() {
                    break 'sending;
                }
            }
        }
        thread::sleep(Duration::from_millis(200));
        over.store(true, Ordering::Relaxed);
        match counting.join() {
            Ok(counted) => sent.and(counted),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;
    Ok(crowd
        .members
        .iter()
        .map(|member| {
            by_source
                .get(&member.address.into())
                .copied()
                .unwrap_or(0.0)
        })
        .collect())
}

/// The gateway's site sends to all clients, one after the other; gives what each one received.
fn download(lab: &Lab, crowd: &mut Crowd, lasting: Duration) -> Result<Vec<f64>> {
    let source = lab.pop.enter(|| socket(&format!("{GATEWAY_INNER}:0")))?;
    let targets: Vec<SocketAddr> = crowd
        .members
        .iter()
        .map(|member| (member.address, 9).into())
        .collect();
    for member in &mut crowd.members {
        member.received = 0;
    }
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let payload = [0; SIZE - HEADERS];
            while !over.load(Ordering::Relaxed) {
                for target in &targets {
                    // A full queue is what this is about.
                    let _refused = source.send_to(&payload, target);
                }
            }
        });
        let heard = crowd.listen_for(lasting);
        over.store(true, Ordering::Relaxed);
        match sending.join() {
            Ok(()) => heard.map(drop),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;
    Ok(crowd.members.iter().map(|m| m.received as f64).collect())
}

fn socket(address: &str) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(address).with_context(|| format!("binding UDP {address}"))?;
    socket
        .set_read_timeout(Some(Duration::from_millis(20)))
        .context("bounding a wait")?;
    setsockopt(&socket, sockopt::RcvBufForce, &SINK_BYTES).context("asking for a large buffer")?;
    Ok(socket)
}

fn count(sink: &UdpSocket, over: &AtomicBool) -> Result<BTreeMap<IpAddr, f64>> {
    let (mut buffer, mut by_source) = (vec![0; 2_048], BTreeMap::new());
    loop {
        match sink.recv_from(&mut buffer) {
            Ok((len, from)) => *by_source.entry(from.ip()).or_insert(0.0) += len as f64,
            Err(_) if over.load(Ordering::Relaxed) => return Ok(by_source),
            Err(_) => {}
        }
    }
}

fn rows_of(rounds: &[Round], streamed_s: f64, shares: [Vec<f64>; 2]) -> Result<Vec<Row>> {
    let of = |pick: fn(&Round) -> f64| rounds.iter().map(pick).collect::<Vec<_>>();
    let pairs_of = |pick: fn(&Stream) -> f64| -> Vec<_> {
        let both = rounds.iter().map(|r| (pick(&r.many), pick(&r.few)));
        both.collect()
    };
    let [up, down] = shares;
    let total = |shares: &[f64]| shares.iter().sum::<f64>() / 1e6;
    Ok(vec![
        Row::figure(
            "memory of 100,000 sleeping peers",
            "MB",
            &of(|r| r.many_mb - r.few_mb),
        )?
        .bounded(Better::Less, MOST_MB),
        Row::figure("loading from provisioning", "s", &[streamed_s])?
            .bounded(Better::Less, MOST_LOAD_S),
        Row::figure("loading from the shard cache", "s", &of(|r| r.load_s))?
            .bounded(Better::Less, MOST_LOAD_S),
        Row::compare(
            "one stream beside 100,000 sleeping peers vs alone",
            "one peer",
            "Gb/s",
            Better::More,
            &pairs_of(|stream| stream.gbps),
            Some(LEAST_THROUGHPUT),
        )?,
        Row::compare(
            "gateway's cpu per GB beside 100,000 sleeping peers vs alone",
            "one peer",
            "s/GB",
            Better::Less,
            &pairs_of(|stream| stream.cpu_per_gb),
            Some(LEAST_THROUGHPUT),
        )?,
        Row::figure("fairness of 1,000 clients up", "of 1", &[jain(&up)])?
            .bounded(Better::More, LEAST_FAIRNESS),
        Row::figure("fairness of 1,000 clients down", "of 1", &[jain(&down)])?
            .bounded(Better::More, LEAST_FAIRNESS),
        Row::figure("all clients up", "MB arrived", &[total(&up)])?,
        Row::figure("all clients down", "MB arrived", &[total(&down)])?,
    ])
}
