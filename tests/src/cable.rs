//! A bad cable between two namespaces: a TAP device at each end and a thread for each way, which holds every frame for
//! the delay, some of them longer, and loses some. For kernels without netem; what it did is in its counters.

mod way;

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use netio::Tap;
use netio::tun::Written;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use serde::Serialize;

use crate::netns::Netns;
use way::{Entered, Way};

/// What a TAP device of MTU 1500 sends at most, with room for a VLAN tag.
const FRAME_BYTES: usize = 1_518;
/// Frames read before those that are due go out.
const BATCH: usize = 64;
/// The kernel keeps this many frames for a thread that has not had its turn.
const TAP_QUEUE: &str = "8000";
/// Lost frames kept for whoever judges them, until they are asked for.
const KEPT: usize = 65_536;
/// As much of a lost frame as the observer keeps of one.
const KEPT_BYTES: usize = 320;
/// How soon a thread sees that it is to stop.
const STOP_WITHIN: Duration = Duration::from_millis(100);
/// A frame that leaves this much after it was due shows a machine that is too busy for the cable.
const LATE: Duration = Duration::from_millis(5);

/// How bad a cable is, the same both ways.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quality {
    /// One way.
    pub delay: Duration,
    /// This share of frames, from 0 to 1, is held longer and overtaken by others.
    pub reorder: f64,
    /// By up to this, and at least by half of it.
    pub jitter: Duration,
    /// This share of frames, from 0 to 1, is lost.
    pub loss: f64,
    /// Bits a second, if limited.
    pub rate: Option<u64>,
    /// Frames that would wait longer for their turn at that rate are dropped.
    pub queue: Duration,
    /// What chance is drawn from.
    pub seed: u64,
}

impl Default for Quality {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            reorder: 0.0,
            jitter: Duration::ZERO,
            loss: 0.0,
            rate: None,
            queue: Duration::from_millis(100),
            seed: 1,
        }
    }
}

/// What one way of a cable did with its frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Carried {
    /// Frames that entered.
    pub entered: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Lost by chance, as asked.
    pub lost: u64,
    /// Held longer, as asked.
    pub held: u64,
    /// Dropped by the limited rate's full queue, as asked.
    pub queue_full: u64,
    /// Came out at the far end.
    pub delivered: u64,
    /// Not taken by the far end's kernel, or more under way than the cable holds: should be none.
    pub failed: u64,
    /// Came out more than 5 ms after they were due.
    pub late: u64,
    /// The most that one was late, in microseconds.
    pub latest_us: u64,
}

impl Carried {
    /// Frames that are still under way.
    pub fn under_way(&self) -> u64 {
        let gone = self.lost + self.queue_full + self.delivered + self.failed;
        self.entered.saturating_sub(gone)
    }
}

#[derive(Debug, Default)]
struct Counters {
    entered: AtomicU64,
    bytes: AtomicU64,
    lost: AtomicU64,
    held: AtomicU64,
    queue_full: AtomicU64,
    delivered: AtomicU64,
    failed: AtomicU64,
    late: AtomicU64,
    latest_us: AtomicU64,
}

/// A laid cable; its interfaces go away with it.
#[derive(Debug)]
pub struct Cable {
    ends: [(Netns, String); 2],
    counters: [Arc<Counters>; 2],
    lost: Receiver<Vec<u8>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Cable {
    /// Makes an interface in each of two namespaces and carries frames between them.
    pub fn lay(ends: [(&Netns, &str); 2], quality: Quality) -> Result<Self> {
        let taps = ends.map(|(netns, name)| plug(netns, name));
        let [left, right] = taps;
        let taps = [Arc::new(left?), Arc::new(right?)];
        let counters: [Arc<Counters>; 2] = Default::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (keep, lost) = sync_channel(KEPT);
        let mut threads = Vec::new();
        for (n, counters) in counters.iter().enumerate() {
            let lane = Lane {
                from: Arc::clone(&taps[n]),
                to: Arc::clone(&taps[1 - n]),
                way: Way::new(quality, n as u64),
                counters: Arc::clone(counters),
                keep: keep.clone(),
            };
            let stop = Arc::clone(&stop);
            threads.push(std::thread::spawn(move || lane.carry(&stop)));
        }
        Ok(Self {
            ends: ends.map(|(netns, name)| (netns.clone(), name.to_owned())),
            counters,
            lost,
            stop,
            threads,
        })
    }

    /// What each way did so far, the one that begins at the first end first.
    pub fn carried(&self) -> [Carried; 2] {
        [0, 1].map(|n| self.counters[n].read())
    }

    /// Frames that the two kernels dropped before the cable could read them: should be none.
    pub fn dropped_before(&self) -> Result<u64> {
        let mut dropped = 0;
        for (netns, name) in &self.ends {
            let path = format!("/sys/class/net/{name}/statistics/tx_dropped");
            let text = netns.run(&["cat", &path])?;
            dropped += text.trim().parse::<u64>().context("reading tx_dropped")?;
            let text = netns.run(&["tc", "-s", "-j", "qdisc", "show", "dev", name])?;
            let queues: serde_json::Value =
                serde_json::from_str(&text).with_context(|| format!("tc printed: {text}"))?;
            let drops = queues.as_array().into_iter().flatten();
            dropped += drops
                .filter_map(|queue| queue["drops"].as_u64())
                .sum::<u64>();
        }
        Ok(dropped)
    }

    /// The beginnings of the frames that were lost since the last call, so that no eye misses what chance took away.
    pub fn lost_frames(&self) -> Vec<Vec<u8>> {
        self.lost.try_iter().collect()
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic has been printed, and the cable is being taken up anyway.
            let _ = thread.join();
        }
    }
}

fn plug(netns: &Netns, name: &str) -> Result<Tap> {
    let tap = netns.enter(|| Tap::open(name).context("making a cable's end"))?;
    // Up before the first frame is carried: an end that is down takes none.
    let set = ["ip", "link", "set", name, "up", "txqueuelen", TAP_QUEUE];
    netns.run(&set)?;
    Ok(tap)
}

impl Counters {
    fn read(&self) -> Carried {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Carried {
            entered: of(&self.entered),
            bytes: of(&self.bytes),
            lost: of(&self.lost),
            held: of(&self.held),
            queue_full: of(&self.queue_full),
            delivered: of(&self.delivered),
            failed: of(&self.failed),
            late: of(&self.late),
            latest_us: of(&self.latest_us),
        }
    }
}

/// One way of a cable, owned by its thread.
struct Lane {
    from: Arc<Tap>,
    to: Arc<Tap>,
    way: Way,
    counters: Arc<Counters>,
    keep: SyncSender<Vec<u8>>,
}

impl Lane {
    fn carry(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            // The interface has gone with its namespace: there is nothing left to carry.
            if self.turn().is_err() {
                return;
            }
        }
    }

    fn turn(&mut self) -> io::Result<()> {
        let mut frame = [0; FRAME_BYTES];
        for _ in 0..BATCH {
            let Some(length) = self.from.recv(&mut frame)? else {
                break;
            };
            self.take(frame.get(..length).unwrap_or_default());
        }
        while let Some((due, frame)) = self.way.leave(Instant::now()) {
            let written = self.to.send(&frame)?;
            self.count_out(due.elapsed(), written);
        }
        let wait = match self.way.next_due() {
            Some(due) => due.saturating_duration_since(Instant::now()),
            None => STOP_WITHIN,
        };
        let wait = TimeSpec::from_duration(wait.min(STOP_WITHIN));
        let mut readable = [PollFd::new(self.from.as_fd(), PollFlags::POLLIN)];
        match ppoll(&mut readable, Some(wait), None) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn take(&mut self, frame: &[u8]) {
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        count(&self.counters.entered);
        let bytes = frame.len() as u64;
        self.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
        match self.way.enter(frame, Instant::now()) {
            Entered::InOrder => {}
            Entered::Held => {
                count(&self.counters.held);
            }
            Entered::Lost => {
                let kept = frame.get(..KEPT_BYTES.min(frame.len()));
                // Nobody asked for the earlier ones; the caller sees by the counter how many it got.
                let _ = self.keep.try_send(kept.unwrap_or_default().to_vec());
                count(&self.counters.lost);
            }
            Entered::QueueFull => {
                count(&self.counters.queue_full);
            }
            Entered::CableFull => {
                count(&self.counters.failed);
            }
        }
    }

    fn count_out(&self, late: Duration, written: Written) {
        let counter = match written {
            Written::Yes => &self.counters.delivered,
            Written::Full | Written::Refused => &self.counters.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if late > LATE {
            self.counters.late.fetch_add(1, Ordering::Relaxed);
        }
        let late_us = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
        self.counters
            .latest_us
            .fetch_max(late_us, Ordering::Relaxed);
    }
}
