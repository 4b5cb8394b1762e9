//! The pulse of the service: a datagram from the home to the internet and back, twenty times a second, and when bytes of
//! the downloads came. What lies between two beats is a time without service.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::load::Load;
use crate::topology::{Lab, WEB};

const PORT: u16 = 7_009;
const BEAT: Duration = Duration::from_millis(50);
/// How soon the echo sees that it is to stop.
const STOP_WITHIN: Duration = Duration::from_millis(200);

/// Moments at which something came, in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct Beats(Vec<Instant>);

impl Beats {
    /// The longest time without a beat that touches `from` to `to`.
    pub(super) fn longest_gap(&self, from: Instant, to: Instant) -> Duration {
        let first = self.0.partition_point(|at| *at <= from).saturating_sub(1);
        let last = self.0.partition_point(|at| *at < to);
        let touched = self.0.get(first..=last.min(self.0.len().saturating_sub(1)));
        let between = touched.unwrap_or_default().windows(2);
        let longest = between.map(|pair| match pair {
            [before, after] => after.duration_since(*before),
            _ => Duration::ZERO,
        });
        // Nothing came again.
        let silent = self
            .0
            .last()
            .map_or(to - from, |at| to.saturating_duration_since(*at));
        longest.max().unwrap_or_default().max(silent)
    }
}

#[derive(Debug, Default)]
struct Felt {
    answers: Mutex<Beats>,
    bytes: Mutex<Beats>,
    stop: AtomicBool,
}

/// The running pulse.
#[derive(Debug)]
pub(super) struct Pulse {
    felt: Arc<Felt>,
    threads: Vec<JoinHandle<()>>,
}

impl Pulse {
    /// Starts the echo in the internet and the beats in the home.
    pub(super) fn start(lab: &Lab, load: &Load) -> Result<Self> {
        let felt = Arc::new(Felt::default());
        let echo = lab
            .internet
            .enter(|| UdpSocket::bind((WEB, PORT)).context("listening for the pulse"))?;
        let home = lab.home.enter(|| {
            let socket = UdpSocket::bind(("0.0.0.0", 0)).context("binding the pulse")?;
            socket.connect((WEB, PORT)).context("aiming the pulse")?;
            Ok(socket)
        })?;
        echo.set_read_timeout(Some(STOP_WITHIN))?;
        let (answering, beating) = (Arc::clone(&felt), Arc::clone(&felt));
        let arrived = load.arrived();
        let threads = vec![
            std::thread::spawn(move || answer(&echo, &answering.stop)),
            std::thread::spawn(move || beat(&home, &arrived, &beating)),
        ];
        Ok(Self { felt, threads })
    }

    /// The longest times without an answer, and without a byte of any download, that touch `from` to `to`.
    pub(super) fn longest_gaps(&self, from: Instant, to: Instant) -> [Duration; 2] {
        [&self.felt.answers, &self.felt.bytes].map(|beats| {
            let beats = beats.lock().unwrap_or_else(PoisonError::into_inner);
            beats.longest_gap(from, to)
        })
    }

    /// Ends it.
    pub(super) fn stop(&mut self) {
        self.felt.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic has been printed; the gaps then show that nothing came.
            let _ = thread.join();
        }
    }
}

fn answer(socket: &UdpSocket, stop: &AtomicBool) {
    let mut datagram = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut datagram) {
            // An answer that cannot be sent is a beat that is missed.
            let _ = socket.send_to(datagram.get(..length).unwrap_or_default(), from);
        }
    }
}

fn beat(socket: &UdpSocket, arrived: &impl Fn() -> u64, felt: &Felt) {
    let mut next = Instant::now();
    let mut bytes = 0;
    while !felt.stop.load(Ordering::Relaxed) {
        // Refused or lost: a beat that is missed.
        let _ = socket.send(&[0; 32]);
        next = (next + BEAT).max(Instant::now());
        while let Some(left) = next.checked_duration_since(Instant::now()) {
            // Never zero, which would be for ever.
            let wait = left.max(Duration::from_millis(1));
            let is_bounded = socket.set_read_timeout(Some(wait)).is_ok();
            if is_bounded && socket.recv(&mut [0; 64]).is_ok() {
                note(&felt.answers);
            } else {
                // Nothing came, or the kernel refused at once: the next beat is not before its time.
                std::thread::park_timeout(next.saturating_duration_since(Instant::now()));
            }
        }
        let now_there = arrived();
        if now_there > bytes {
            note(&felt.bytes);
        }
        bytes = now_there;
    }
}

fn note(beats: &Mutex<Beats>) {
    let mut beats = beats.lock().unwrap_or_else(PoisonError::into_inner);
    beats.0.push(Instant::now());
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn beats(start: Instant, at: &[u32]) -> Beats {
        Beats(at.iter().map(|s| start + SECOND * *s).collect())
    }

    #[test]
    fn a_gap_counts_from_the_beat_before_it_to_the_beat_after_it() {
        let start = Instant::now();
        let beats = beats(start, &[0, 1, 2, 7, 8, 9, 10, 30]);

        let gap = beats.longest_gap(start + SECOND * 3, start + SECOND * 9);

        assert_eq!(gap, SECOND * 5);
    }

    #[test]
    fn a_silence_that_lasts_is_a_gap_and_one_outside_is_not() {
        let start = Instant::now();
        let beats = beats(start, &[0, 20, 21, 22]);

        assert_eq!(
            beats.longest_gap(start + SECOND * 21, start + SECOND * 60),
            SECOND * 38
        );
        assert_eq!(
            beats.longest_gap(start + SECOND * 20, start + SECOND * 22),
            SECOND
        );
        assert_eq!(Beats::default().longest_gap(start, start + SECOND), SECOND);
    }
}
