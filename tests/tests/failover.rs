//! Two gateways: one killed under a download, one drained under two hundred connections, and the way back.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::{DOWNLOAD_BYTES, NAME_MARKER, Netns, Observer, PAGE_MARKER, Sites, WEB};

/// The limit from the kill of a gateway to the next byte.
const FAILOVER: Duration = Duration::from_secs(3);
/// The connections under a drain.
const CONNECTIONS: usize = 200;
const ECHO_PORT: u16 = 7_007;
/// What the home takes of the download in a second, so that it lasts.
const DOWNLOAD_PER_S: u64 = 12_000_000;
const PIECE: usize = 65_536;
/// A connection without an answer for this long has been lost.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// When pieces of a download came.
#[derive(Default)]
struct Arrivals {
    times: Mutex<Vec<Instant>>,
    bytes: AtomicUsize,
}

/// One GET over one connection, which is never made anew; what came, without the head.
fn download(arrivals: &Arrivals) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect((WEB, 80)).context("connecting")?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.write_all(b"GET /hundred.bin HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")?;
    let mut got = Vec::new();
    let mut piece = vec![0; PIECE];
    let start = Instant::now();
    loop {
        let read = stream.read(&mut piece).context("reading the download")?;
        if read == 0 {
            break;
        }
        arrivals.times.lock().unwrap().push(Instant::now());
        got.extend_from_slice(&piece[..read]);
        arrivals.bytes.store(got.len(), Ordering::Relaxed);
        let due = Duration::from_micros(got.len() as u64 * 1_000_000 / DOWNLOAD_PER_S);
        // The pace of a line, not a wait for something.
        std::thread::park_timeout(due.saturating_sub(start.elapsed()));
    }
    let head = got.windows(4).position(|four| four == b"\r\n\r\n");
    Ok(got.split_off(head.context("an answer without a head")? + 4))
}

/// The longest that the home waited for a byte after `since`.
fn longest_gap(times: &[Instant], since: Instant) -> Duration {
    let after = times.iter().copied().filter(|at| *at > since);
    let from = std::iter::once(since).chain(after.clone());
    from.zip(after)
        .map(|(before, at)| at - before)
        .max()
        .unwrap_or_default()
}

/// Does something to the gateway in use under a download, and holds the home to the limit.
fn held_to_the_limit(what: &str, strike: impl FnOnce(&mut Sites, usize) -> Result<Instant>) {
    let mut sites = Sites::protected().unwrap();
    let observer = Observer::start(&sites.world.lab).unwrap();
    let home = sites.world.lab.home.clone();
    let arrivals = Arrivals::default();

    let (got, struck, left) = std::thread::scope(|scope| {
        let loading = scope.spawn(|| home.enter(|| download(&arrivals)));
        lab::wait_until("a fifth is there", Duration::from_secs(20), || {
            let bytes = arrivals.bytes.load(Ordering::Relaxed) as u64;
            Ok((bytes > DOWNLOAD_BYTES / 5).then_some(()))
        })
        .unwrap();
        let active = sites.active().unwrap();
        let struck = strike(&mut sites, active).unwrap();
        (loading.join().unwrap(), struck, active)
    });

    let gap = longest_gap(&arrivals.times.lock().unwrap(), struck);
    println!(
        "failover: {:.2} s from the {what} to the next byte",
        gap.as_secs_f32()
    );
    let got = got.unwrap();
    let original = std::fs::read(&sites.world.internet.download).unwrap();
    assert_eq!(got.len() as u64, DOWNLOAD_BYTES);
    assert!(got == original, "the download differs from the original");
    assert!(gap < FAILOVER, "{gap:?}");
    assert_ne!(sites.active().unwrap(), left);
    assert_eq!(sites.world.router.status().unwrap()["state"], "protected");
    let markers = &[NAME_MARKER, PAGE_MARKER];
    let findings = observer
        .finish(&sites.world.lab, &sites.allowed().unwrap(), markers)
        .unwrap();
    assert_eq!(
        (findings.clear, findings.markers.len()),
        (0, 0),
        "{findings:?}"
    );
}

#[test]
fn a_download_goes_on_within_three_seconds_of_the_kill_of_its_gateway_and_completes() {
    held_to_the_limit("kill of the gateway", Sites::kill);
}

/// The gateway runs on and still announces the home; the later announcement of the other one wins.
#[test]
fn a_download_goes_on_within_three_seconds_of_the_loss_of_its_gateways_line_and_completes() {
    held_to_the_limit("loss of the gateway's line", Sites::cut_off);
}

/// Sends back what comes, on every connection, until its client ends.
fn echo(listener: &TcpListener, connections: usize) {
    std::thread::scope(|scope| {
        for stream in listener.incoming().take(connections) {
            let mut stream = stream.unwrap();
            scope.spawn(move || {
                let mut bytes = [0; 64];
                while let Ok(read @ 1..) = stream.read(&mut bytes) {
                    if stream.write_all(&bytes[..read]).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// What became of the connections.
#[derive(Debug, Default)]
struct Exchanged {
    rounds: AtomicUsize,
    slowest_ms: AtomicUsize,
    reset: AtomicUsize,
    silent: AtomicUsize,
    wrong: AtomicUsize,
}

/// Keeps all connections exchanging data, a round at a time, until it is told to end.
fn exchange(exchanged: &Exchanged, ready: &AtomicBool, end: &AtomicBool) -> Result<()> {
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect((WEB, ECHO_PORT)).context("connecting")?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    ready.store(true, Ordering::Relaxed);
    while !end.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let round = exchanged.rounds.load(Ordering::Relaxed).to_be_bytes();
        streams.retain_mut(|stream| one_exchange(stream, &round, exchanged));
        exchanged.rounds.fetch_add(1, Ordering::Relaxed);
        let took = begun.elapsed();
        exchanged
            .slowest_ms
            .fetch_max(took.as_millis() as usize, Ordering::Relaxed);
        // The pace of the connections, not a wait for something.
        std::thread::park_timeout(Duration::from_millis(100).saturating_sub(took));
    }
    Ok(())
}

/// Whether the connection lives on.
fn one_exchange(stream: &mut TcpStream, sent: &[u8; 8], exchanged: &Exchanged) -> bool {
    let mut got = [0; 8];
    let result = stream
        .write_all(sent)
        .and_then(|()| stream.read_exact(&mut got));
    let count = match result {
        Ok(()) if got == *sent => return true,
        Ok(()) => &exchanged.wrong,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            &exchanged.silent
        }
        Err(_) => &exchanged.reset,
    };
    count.fetch_add(1, Ordering::Relaxed);
    false
}

/// Waits for some rounds of all connections.
fn rounds(exchanged: &Exchanged, count: usize) {
    let wanted = exchanged.rounds.load(Ordering::Relaxed) + count;
    lab::wait_until("all connections go on", Duration::from_secs(60), || {
        Ok((exchanged.rounds.load(Ordering::Relaxed) >= wanted).then_some(()))
    })
    .unwrap();
}

#[test]
fn a_drain_and_the_return_reset_none_of_two_hundred_connections() {
    let mut sites = Sites::protected().unwrap();
    let observer = Observer::start(&sites.world.lab).unwrap();
    let lab = &sites.world.lab;
    let (home, internet): (Netns, Netns) = (lab.home.clone(), lab.internet.clone());
    let listener = internet
        .enter(|| TcpListener::bind((WEB, ECHO_PORT)).context("listening"))
        .unwrap();
    let exchanged = Exchanged::default();
    let (ready, end) = (AtomicBool::new(false), AtomicBool::new(false));

    std::thread::scope(|scope| {
        scope.spawn(|| echo(&listener, CONNECTIONS));
        let client = scope.spawn(|| home.enter(|| exchange(&exchanged, &ready, &end)));
        lab::wait_until("all connections stand", Duration::from_secs(30), || {
            Ok(ready.load(Ordering::Relaxed).then_some(()))
        })
        .unwrap();
        rounds(&exchanged, 10);
        let preferred = sites.active().unwrap();

        let begun = Instant::now();
        let told = sites.drain(preferred).unwrap();
        println!("drain: {:.2} s, {told}", begun.elapsed().as_secs_f32());
        assert_eq!(told["left_behind"], 0, "{told}");
        assert_ne!(sites.active().unwrap(), preferred);
        rounds(&exchanged, 20);

        sites.restart(preferred).unwrap();
        let back = sites
            .wait_moved(1 - preferred, Duration::from_secs(120))
            .unwrap();
        println!(
            "return to the preferred gateway: {:.1} s",
            back.as_secs_f32()
        );
        assert!(back > Duration::from_secs(25), "{back:?}");
        rounds(&exchanged, 20);
        end.store(true, Ordering::Relaxed);
        client.join().unwrap().unwrap();
    });

    println!("{CONNECTIONS} connections: {exchanged:?}");
    assert_eq!(exchanged.reset.into_inner(), 0);
    assert_eq!(exchanged.silent.into_inner(), 0);
    assert_eq!(exchanged.wrong.into_inner(), 0);
    let findings = observer
        .finish(
            &sites.world.lab,
            &sites.allowed().unwrap(),
            &[NAME_MARKER, PAGE_MARKER],
        )
        .unwrap();
    assert_eq!(
        (findings.clear, findings.markers.len()),
        (0, 0),
        "{findings:?}"
    );
}
