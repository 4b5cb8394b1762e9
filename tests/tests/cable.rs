//! The bad cable does what it is told and nothing else: what it did is measured from its ends.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::{Cable, Carried, Frames, Lab, OBSERVED, Quality, ROUTER_WAN};

const MS: Duration = Duration::from_millis(1);
const PORT: u16 = 7_010;
/// How long a receiver waits for one more.
const SILENCE: Duration = Duration::from_millis(600);

/// One numbered datagram that came: its number, and how long it took.
type Arrival = (u32, Duration);

/// Sends numbered datagrams from the provider to the router, one in each `pause`, and gives those that came, in order of arrival.
fn through(lab: &Lab, count: u32, pause: Duration) -> Vec<Arrival> {
    let inbox = lab
        .router
        .enter(|| UdpSocket::bind((ROUTER_WAN, PORT)).context("binding"))
        .unwrap();
    inbox.set_read_timeout(Some(SILENCE)).unwrap();
    let outbox = lab
        .access
        .enter(|| UdpSocket::bind(("198.18.0.1", 0)).context("binding"))
        .unwrap();
    outbox.connect((ROUTER_WAN, PORT)).unwrap();
    neighbours_know_each_other(&outbox, &inbox);
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..count {
                let due = pause * n;
                // The pace of the stream, not a wait for something.
                std::thread::park_timeout(due.saturating_sub(start.elapsed()));
                let sent_us = u64::try_from(start.elapsed().as_micros()).unwrap();
                outbox
                    .send(&[&n.to_be_bytes()[..], &sent_us.to_be_bytes()].concat())
                    .unwrap();
            }
        });
        let mut arrivals = Vec::new();
        let mut datagram = [0; 12];
        while let Ok(length) = inbox.recv(&mut datagram) {
            if length < datagram.len() {
                continue;
            }
            let n = u32::from_be_bytes(datagram[..4].try_into().unwrap());
            let sent = u64::from_be_bytes(datagram[4..].try_into().unwrap());
            arrivals.push((n, start.elapsed() - Duration::from_micros(sent)));
        }
        arrivals
    })
}

/// What waits for a neighbour's address is sent beside what comes after it, and overtaken.
fn neighbours_know_each_other(outbox: &UdpSocket, inbox: &UdpSocket) {
    lab::wait_for("a first datagram comes", Duration::from_secs(20), || {
        outbox.send(b"knock").unwrap();
        inbox.recv(&mut [0; 12]).is_ok()
    })
    .unwrap();
}

fn laid(quality: Quality) -> Result<(Cable, Lab)> {
    let lab = Lab::for_test()?;
    Ok((lab.lay_cable(quality)?, lab))
}

/// The way from the provider to the router, and the proof that both ways lost nothing but what they were told to.
fn accounted(cable: &Cable) -> Carried {
    let ways = cable.carried();
    assert_eq!(cable.dropped_before().unwrap(), 0);
    for way in ways {
        assert_eq!((way.failed, way.under_way()), (0, 0), "{way:?}");
    }
    ways[1]
}

#[test]
fn a_good_cable_loses_and_reorders_nothing() {
    let (cable, lab) = laid(Quality::default()).unwrap();

    let arrivals = through(&lab, 2_000, MS / 4);

    assert!(arrivals.iter().map(|(n, _)| *n).eq(0..2_000));
    assert_eq!((accounted(&cable).lost, accounted(&cable).held), (0, 0));
}

#[test]
fn every_frame_takes_the_delay_and_half_of_them_hardly_more() {
    let (cable, lab) = laid(Quality {
        delay: 40 * MS,
        ..Quality::default()
    })
    .unwrap();

    let mut took: Vec<Duration> = through(&lab, 1_000, MS).iter().map(|a| a.1).collect();

    took.sort_unstable();
    println!(
        "delay of 40 ms: {:?} to {:?}, median {:?}",
        took[0],
        took.last().unwrap(),
        took[took.len() / 2]
    );
    assert_eq!(took.len(), 1_000);
    assert!(took[0] >= 40 * MS, "{:?}", took[0]);
    // The machine has other work too.
    assert!(took[500] < 43 * MS, "{:?}", took[500]);
    accounted(&cable);
}

#[test]
fn the_share_that_is_lost_is_the_one_asked_for_and_each_loss_is_counted() {
    let (cable, lab) = laid(Quality {
        loss: 0.02,
        ..Quality::default()
    })
    .unwrap();
    let sent = 20_000;

    let arrived = through(&lab, sent, MS / 20).len();

    let way = accounted(&cable);
    println!("loss of 2 %: {} of {sent}", way.lost);
    // What the kernels say to each other is lost as well, now and then.
    let missing = u64::from(sent) - arrived as u64;
    assert!(missing.abs_diff(way.lost) <= 5, "{missing} {way:?}");
    // Four standard deviations of a binomial.
    assert!((320..=480).contains(&missing), "{missing}");
    assert_eq!(
        cable.lost_frames().len() as u64,
        cable.carried().iter().map(|w| w.lost).sum::<u64>()
    );
}

#[test]
fn the_share_that_is_overtaken_is_the_one_asked_for() {
    let (cable, lab) = laid(Quality {
        delay: 10 * MS,
        reorder: 0.05,
        jitter: 4 * MS,
        ..Quality::default()
    })
    .unwrap();
    let sent = 10_000;

    let arrivals = through(&lab, sent, MS / 5);

    // RFC 4737: a packet is reordered if one with a higher number came before it.
    let mut highest = 0;
    let reordered = arrivals
        .iter()
        .filter(|(n, _)| {
            highest = highest.max(*n);
            *n < highest
        })
        .count();
    let way = accounted(&cable);
    println!(
        "reordering of 5 %: {reordered} of {sent}, {} held",
        way.held
    );
    assert_eq!(arrivals.len() as u32, sent);
    assert!((400..=600).contains(&reordered), "{reordered}");
}

#[test]
fn four_hundred_megabits_a_second_pass_and_nothing_of_them_is_lost() {
    let (cable, lab) = laid(Quality {
        delay: 20 * MS,
        ..Quality::default()
    })
    .unwrap();
    let outbox = lab
        .access
        .enter(|| UdpSocket::bind(("198.18.0.1", 0)).context("binding"))
        .unwrap();
    outbox.connect((ROUTER_WAN, 9)).unwrap();
    let start = Instant::now();

    let bursts = 1_000;
    for n in 0..bursts {
        std::thread::park_timeout((MS * n).saturating_sub(start.elapsed()));
        for _ in 0..35 {
            // Nobody listens; the router's kernel may say so, and the socket then once.
            let _ = outbox.send(&[0; 1_430]);
        }
    }

    let took = start.elapsed();
    lab::wait_until("all counters agree", Duration::from_secs(5), || {
        let way = cable.carried()[1];
        let sent = Frames::of(&lab.access, OBSERVED)?.sent;
        let came = Frames::of(&lab.router, "wan0")?.received;
        let is_agreed = way.delivered == came && way.delivered == sent && way.entered == sent;
        Ok(is_agreed.then_some(()))
    })
    .unwrap();
    let way = accounted(&cable);
    let rate = way.bytes as f64 * 8.0 / took.as_secs_f64() / 1e6;
    println!(
        "{rate:.0} Mb/s, {} frames, the latest {} us late",
        way.entered, way.latest_us
    );
    assert!(rate > 300.0, "{rate}");
}

#[test]
fn a_limited_rate_is_kept_and_its_full_queue_drops() {
    let (cable, lab) = laid(Quality {
        rate: Some(2_000_000),
        queue: 20 * MS,
        ..Quality::default()
    })
    .unwrap();
    let start = Instant::now();

    let arrivals = through(&lab, 20_000, MS / 20);

    let took = start.elapsed() - SILENCE;
    let way = accounted(&cable);
    println!("2 Mb/s and 20 ms of queue: {way:?} in {took:?}");
    // A frame of twelve bytes in UDP and IPv4; what the queue holds comes after the last was sent.
    let passed = 54.0 * 8.0 * arrivals.len() as f64 / 2e6;
    assert!(way.queue_full > 1_000, "{way:?}");
    assert!(passed < took.as_secs_f64() + 0.03, "{passed}");
    assert!(passed > took.as_secs_f64() * 0.8, "{passed}");
}
