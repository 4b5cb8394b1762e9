//! Numbered datagrams of one size at one rate from one namespace to another, and how many arrived: the highest rate
//! without loss is searched with these. The sockets are made inside the namespaces; the threads that use them are ours,
//! the same for everybody who is measured.

use std::io::{ErrorKind, IoSlice, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::prctl::set_timerslack;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
    sockopt,
};

use crate::netns::Netns;

/// Datagrams that leave at once; their sender then waits for the time of the next ones.
pub(super) const BURST: usize = 32;
/// IPv4 and UDP in front of the payload.
const HEADERS: usize = 28;
/// Trial, and number within the trial.
const NUMBERED: usize = 16;
/// More than a machine of this kind can receive in a second at any size.
const BUFFER_BYTES: usize = 32 << 20;
/// What may be on its way when the sender has ended.
const SETTLE: Duration = Duration::from_millis(150);
const LARGEST: usize = 65_536;

/// How the sender hands its datagrams to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// A burst in one call (`UDP_SEGMENT`), as a QUIC server sends.
    Segmented,
    /// Each in a call of its own, as a game or a phone call sends.
    Single,
}

/// A sender and a receiver with a tunnel between them.
#[derive(Debug)]
pub(super) struct Blast {
    sender: UdpSocket,
    receiver: UdpSocket,
    to: SocketAddr,
    trials: u64,
}

/// What one trial at one rate came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Trial {
    /// Datagrams a second that left.
    pub(super) offered: f64,
    /// The part that did not arrive.
    pub(super) loss: f64,
    /// Datagrams a second that arrived.
    pub(super) arrived: f64,
}

impl Blast {
    /// Binds a receiver to an address of `to` and a sender in `from`.
    pub(super) fn between(from: &Netns, to: &Netns, address: &str) -> Result<Self> {
        let receiver = to.enter(|| bound(&format!("{address}:0")))?;
        let to = receiver.local_addr().context("the receiver's address")?;
        let sender = from.enter(|| bound("0.0.0.0:0"))?;
        receiver
            .set_read_timeout(Some(Duration::from_millis(20)))
            .context("bounding the receiver's wait")?;
        setsockopt(&receiver, sockopt::UdpGroSegment, &true).context("asking for UDP_GRO")?;
        Ok(Self {
            sender,
            receiver,
            to,
            trials: 0,
        })
    }

    /// Sends IP packets of `size` bytes at `rate` a second for a while and counts.
    pub(super) fn trial(
        &mut self,
        size: usize,
        rate: f64,
        mode: Mode,
        lasting: Duration,
    ) -> Result<Trial> {
        self.trials += 1;
        let (trial, over) = (self.trials, AtomicBool::new(false));
        let (sent, arrived) = thread::scope(|scope| {
            let counting = scope.spawn(|| count(&self.receiver, trial, &over));
            let sent = self.send(
                trial,
                size.saturating_sub(HEADERS).max(NUMBERED),
                rate,
                mode,
                lasting,
            );
            thread::sleep(SETTLE);
            over.store(true, Ordering::Relaxed);
            let arrived = match counting.join() {
                Ok(arrived) => arrived,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            Ok::<_, anyhow::Error>((sent?, arrived?))
        })?;
        let (count, seconds) = sent;
        let (count, arrived) = (count as f64, arrived as f64);
        Ok(Trial {
            offered: count / seconds,
            loss: ((count - arrived) / count.max(1.0)).max(0.0),
            arrived: arrived / seconds,
        })
    }

    /// Gives how many left, and in how many seconds.
    fn send(
        &self,
        trial: u64,
        payload: usize,
        rate: f64,
        mode: Mode,
        lasting: Duration,
    ) -> Result<(u64, f64)> {
        set_timerslack(1).context("asking for exact sleep")?;
        let to = SockaddrStorage::from(self.to);
        let fd = self.sender.as_raw_fd();
        let mut bytes = vec![0; payload * BURST];
        let start = Instant::now();
        let mut number = 0_u64;
        loop {
            let elapsed = start.elapsed();
            if elapsed >= lasting {
                return Ok((number, elapsed.as_secs_f64()));
            }
            let due = (elapsed.as_secs_f64() * rate) as u64;
            // A sender that was kept from its core catches up by a second burst, and no more.
            let wanted = due.saturating_sub(number).min(2 * BURST as u64);
            if wanted < (BURST as u64 / 2).min((rate / 2_000.0) as u64 + 1) {
                let next = (number + BURST as u64 / 2) as f64 / rate;
                let wait = Duration::from_secs_f64(next).saturating_sub(start.elapsed());
                thread::sleep(wait.min(Duration::from_micros(500)));
                continue;
            }
            let burst = usize::try_from(wanted)?.min(BURST);
            for datagram in bytes.chunks_exact_mut(payload).take(burst) {
                write_number(datagram, trial, number);
                number += 1;
            }
            let burst = bytes.get(..burst * payload).unwrap_or_default();
            send_burst(fd, &to, burst, payload, mode)?;
        }
    }

    /// Throws away what is still in the receiver's buffer.
    fn drain(&self) -> Result<()> {
        let mut buffer = vec![0; LARGEST];
        while receive(&self.receiver, &mut buffer)?.is_some() {}
        Ok(())
    }
}

/// The highest rate at which less than `allowed` is lost, between a rate that is surely too low and a bounded search's end.
///
/// `near` is where to begin; a rate is too high only when two trials say so, since anything else on the machine can
/// take a core for a moment.
pub(super) fn lossless_rate(
    blast: &mut Blast,
    size: usize,
    mode: Mode,
    near: f64,
    search: &Search,
) -> Result<f64> {
    blast.drain()?;
    let mut tried = |rate: f64| -> Result<Option<f64>> {
        for _ in 0..2 {
            let trial = blast.trial(size, rate, mode, search.trial)?;
            if trial.loss < search.allowed {
                return Ok(Some(trial.offered));
            }
        }
        Ok(None)
    };
    bracket(near, search.steps, &mut tried)
}

/// How a rate is searched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Search {
    /// How long a trial lasts.
    pub(super) trial: Duration,
    /// The part that may be lost.
    pub(super) allowed: f64,
    /// Rates to try at most.
    pub(super) steps: usize,
}

/// A tried rate gives what was really offered when it went well.
fn bracket(
    near: f64,
    steps: usize,
    tried: &mut impl FnMut(f64) -> Result<Option<f64>>,
) -> Result<f64> {
    /// Closer than this is noise.
    const CLOSE: f64 = 1.01;
    let (mut good, mut bad, mut rate) = (0.0_f64, f64::INFINITY, near);
    let mut stride = 1.3;
    for _ in 0..steps {
        match tried(rate)? {
            Some(offered) => {
                good = good.max(offered);
                if offered < rate * 0.93 {
                    // The sender itself can do no more.
                    break;
                }
            }
            None => bad = bad.min(rate),
        }
        if bad.is_infinite() {
            rate *= stride;
            stride = (stride * stride).min(2.0);
        } else if good == 0.0 {
            rate /= stride;
            stride = (stride * stride).min(4.0);
        } else if bad / good < CLOSE {
            break;
        } else {
            rate = (good * bad).sqrt();
        }
    }
    Ok(good)
}

fn bound(address: &str) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(address).with_context(|| format!("binding UDP {address}"))?;
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES)
        .context("asking for a large buffer")?;
    setsockopt(&socket, sockopt::SndBufForce, &BUFFER_BYTES)
        .context("asking for a large buffer")?;
    Ok(socket)
}

fn write_number(datagram: &mut [u8], trial: u64, number: u64) {
    let numbers = trial.to_be_bytes().into_iter().chain(number.to_be_bytes());
    for (place, byte) in datagram.iter_mut().zip(numbers) {
        *place = byte;
    }
}

fn send_burst(
    fd: RawFd,
    to: &SockaddrStorage,
    burst: &[u8],
    payload: usize,
    mode: Mode,
) -> Result<()> {
    let segment = u16::try_from(payload).context("a datagram of more than 64 KiB")?;
    match mode {
        Mode::Segmented => {
            // The kernel takes at most 64 KiB at once.
            let most = (65_000 / payload).max(1) * payload;
            for run in burst.chunks(most) {
                let control = [ControlMessage::UdpGsoSegments(&segment)];
                send_one(fd, to, run, &control)?;
            }
        }
        Mode::Single => {
            for datagram in burst.chunks(payload) {
                send_one(fd, to, datagram, &[])?;
            }
        }
    }
    Ok(())
}

fn send_one(
    fd: RawFd,
    to: &SockaddrStorage,
    bytes: &[u8],
    control: &[ControlMessage<'_>],
) -> Result<()> {
    let iov = [IoSlice::new(bytes)];
    match sendmsg(fd, &iov, control, MsgFlags::empty(), Some(to)) {
        // A full queue is a loss, and found as one.
        Ok(_) | Err(nix::errno::Errno::ENOBUFS | nix::errno::Errno::EAGAIN) => Ok(()),
        Err(error) => Err(error).context("sending a burst"),
    }
}

fn count(receiver: &UdpSocket, trial: u64, over: &AtomicBool) -> Result<u64> {
    let mut buffer = vec![0; LARGEST];
    let mut arrived = 0;
    loop {
        match receive(receiver, &mut buffer)? {
            Some((len, segment)) => {
                let bytes = buffer.get(..len).unwrap_or_default();
                arrived += bytes
                    .chunks(segment)
                    .filter(|datagram| datagram.starts_with(&trial.to_be_bytes()))
                    .count() as u64;
            }
            None if over.load(Ordering::Relaxed) => return Ok(arrived),
            None => {}
        }
    }
}

/// Length of what came, and of each datagram in it.
fn receive(receiver: &UdpSocket, buffer: &mut [u8]) -> Result<Option<(usize, usize)>> {
    let mut control = nix::cmsg_space!(i32);
    let mut iov = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::empty();
    let got = match recvmsg::<()>(receiver.as_raw_fd(), &mut iov, Some(&mut control), flags) {
        Ok(got) => got,
        Err(error) if is_quiet(error) => return Ok(None),
        Err(error) => return Err(error).context("receiving"),
    };
    let mut segment = got.bytes;
    for message in got
        .cmsgs()
        .context("reading what the kernel says of a datagram")?
    {
        if let ControlMessageOwned::UdpGroSegments(bytes) = message {
            segment = usize::try_from(bytes).unwrap_or(segment);
        }
    }
    Ok(Some((got.bytes, segment.max(1))))
}

fn is_quiet(error: nix::errno::Errno) -> bool {
    matches!(
        std::io::Error::from(error).kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(limit: f64, near: f64) -> (f64, usize) {
        let mut tries = 0;
        let found = bracket(near, 12, &mut |rate| {
            tries += 1;
            Ok((rate <= limit).then_some(rate))
        });
        (found.unwrap(), tries)
    }

    #[test]
    fn the_search_finds_the_highest_rate_from_below_and_from_above() {
        for near in [1_000.0, 90_000.0, 110_000.0, 3_000_000.0] {
            let (found, tries) = search(100_000.0, near);

            assert!(
                (95_000.0..=100_000.0).contains(&found),
                "{found} from {near}"
            );
            assert!(tries <= 12, "{tries} tries from {near}");
        }
    }

    #[test]
    fn a_tunnel_that_loses_at_every_rate_has_none() {
        assert_eq!(search(0.0, 100_000.0).0, 0.0);
    }

    #[test]
    fn a_sender_at_its_own_end_stops_the_search() {
        let mut tries = 0;
        let found = bracket(80_000.0, 12, &mut |rate: f64| {
            tries += 1;
            Ok(Some(rate.min(100_000.0)))
        });

        assert_eq!(found.unwrap(), 100_000.0);
        assert!(tries <= 3, "{tries}");
    }

    #[test]
    fn what_is_sent_over_loopback_arrives_and_is_counted() {
        let receiver = bound("127.0.0.1:0").unwrap();
        setsockopt(&receiver, sockopt::UdpGroSegment, &true).unwrap();
        receiver
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let to = receiver.local_addr().unwrap();
        let sender = bound("127.0.0.1:0").unwrap();
        let mut blast = Blast {
            sender,
            receiver,
            to,
            trials: 0,
        };

        for mode in [Mode::Segmented, Mode::Single] {
            let trial = blast
                .trial(1400, 2_000.0, mode, Duration::from_millis(100))
                .unwrap();

            assert_eq!(trial.loss, 0.0, "{mode:?}: {trial:?}");
            assert!(trial.offered > 500.0, "{mode:?}: {trial:?}");
        }
    }
}
