//! Initiations that nobody will answer, many a second and from many ports: half have a wrong first mac, half a right one
//! over garbage, which costs the gateway a look with its private key.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, KeyInit, Update};
use blake2::{Blake2s256, Blake2sMac, Digest};
use nix::sys::prctl::set_timerslack;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use rand_core::{OsRng, RngCore};

use crate::netns::Netns;

/// Ports that the flood comes from.
const SOCKETS: usize = 64;
/// An initiation's length, and where its macs begin.
const INITIATION: usize = 148;
const MAC1_AT: usize = 116;
const MAC_BYTES: usize = 16;
const MAC1_LABEL: &[u8] = b"mac1----";
/// Datagrams of one call.
const RUN: usize = 32;
/// Prepared runs that are sent over and over; none is valid, so none is a replay.
const RUNS: usize = 64;

/// What is wrong with the initiations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Not meant for this gateway.
    WrongMac,
    /// Meant for this gateway, and random behind that.
    Garbage,
}

/// Where in a run of the kernel's the initiations are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Front {
    /// An initiation is the first.
    Open,
    /// The first begins as a packet of a session does, and the others are behind it.
    Hidden,
}

/// The type of WireGuard's transport messages.
const TRANSPORT: u8 = 4;
/// Initiations a second.
pub(super) const RATE: f64 = 200_000.0;
/// Until a flood has filled what there is to fill.
const RISE: Duration = Duration::from_millis(300);

/// Prepared datagrams and the sockets to send them from.
pub(super) struct Flood {
    sockets: Vec<UdpSocket>,
    runs: Vec<Vec<u8>>,
}

/// A socket beside the gateway that nobody reads: a flood to it costs the machine what one to the gateway does, but for
/// what the gateway does.
pub(super) struct Sink {
    socket: UdpSocket,
}

impl Sink {
    pub(super) fn new(netns: &Netns, address: IpAddr) -> Result<Self> {
        let socket = netns.enter(|| UdpSocket::bind((address, 0)).context("binding a sink"))?;
        Ok(Self { socket })
    }

    pub(super) fn address(&self) -> Result<SocketAddr> {
        self.socket.local_addr().context("the sink's port")
    }
}

impl Flood {
    /// Prepares both kinds in turns, to be sent to `target`.
    pub(super) fn new(
        netns: &Netns,
        target: SocketAddr,
        gateway_key: &[u8; 32],
        front: Front,
    ) -> Result<Self> {
        let sockets = netns.enter(|| {
            (0..SOCKETS)
                .map(|_| {
                    let socket = UdpSocket::bind("0.0.0.0:0").context("binding a socket")?;
                    socket.connect(target).context("connecting a socket")?;
                    Ok(socket)
                })
                .collect()
        })?;
        let run = |kind| {
            let mut run: Vec<u8> = (0..RUN)
                .flat_map(|_| initiation(kind, gateway_key))
                .collect();
            if let (Front::Hidden, Some(first)) = (front, run.first_mut()) {
                *first = TRANSPORT;
            }
            run
        };
        let runs = (0..RUNS)
            .map(|n| {
                run(if n % 2 == 0 {
                    Kind::WrongMac
                } else {
                    Kind::Garbage
                })
            })
            .collect();
        Ok(Self { sockets, runs })
    }

    /// Measures while the flood goes on, and gives how many a second there were.
    pub(super) fn during<T>(&self, measure: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let flooding = scope.spawn(|| self.send(|| over.load(Ordering::Relaxed)));
            thread::sleep(RISE);
            let measured = measure();
            over.store(true, Ordering::Relaxed);
            match flooding.join() {
                Ok(rate) => Ok((measured?, rate?)),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    fn send(&self, is_over: impl Fn() -> bool) -> Result<f64> {
        set_timerslack(1).context("asking for exact sleep")?;
        let segment = u16::try_from(INITIATION).context("an initiation's length")?;
        let control = [ControlMessage::UdpGsoSegments(&segment)];
        let start = Instant::now();
        let (mut sent, mut taken) = (0_u64, 0_u64);
        let sources = self.sockets.iter().cycle();
        for (run, socket) in self.runs.iter().cycle().zip(sources) {
            let due = (start.elapsed().as_secs_f64() * RATE) as u64;
            if sent > due {
                if is_over() {
                    break;
                }
                let ahead = Duration::from_secs_f64((sent - due) as f64 / RATE);
                thread::sleep(ahead.max(Duration::from_micros(100)));
            } else if due - sent > 100_000 && is_over() {
                // A sender that cannot keep up must still hear that it is over.
                break;
            }
            let iov = [IoSlice::new(run)];
            // What the kernel refuses is not on the wire, and not counted.
            let is_taken =
                sendmsg::<()>(socket.as_raw_fd(), &iov, &control, MsgFlags::empty(), None).is_ok();
            sent += RUN as u64;
            taken += if is_taken { RUN as u64 } else { 0 };
        }
        Ok(taken as f64 / start.elapsed().as_secs_f64())
    }
}

/// Random but for the type, and for the first mac where that is to be right.
fn initiation(kind: Kind, gateway_key: &[u8; 32]) -> Vec<u8> {
    let mut datagram = vec![0; INITIATION];
    OsRng.fill_bytes(&mut datagram);
    for (place, byte) in datagram.iter_mut().zip([1, 0, 0, 0]) {
        *place = byte;
    }
    if kind == Kind::Garbage {
        let mac = mac1(datagram.get(..MAC1_AT).unwrap_or_default(), gateway_key);
        for (place, byte) in datagram.iter_mut().skip(MAC1_AT).zip(mac) {
            *place = byte;
        }
    }
    datagram
}

//= https://www.wireguard.com/papers/wireguard.pdf#subsection.5.4.4
fn mac1(covered: &[u8], gateway_key: &[u8; 32]) -> [u8; MAC_BYTES] {
    let key = Digest::chain_update(
        Digest::chain_update(Blake2s256::new(), MAC1_LABEL),
        gateway_key,
    );
    let key = Digest::finalize(key);
    let mac = <Blake2sMac<U16> as KeyInit>::new_from_slice(&key);
    match mac {
        Ok(mut mac) => {
            Update::update(&mut mac, covered);
            mac.finalize_fixed().into()
        }
        // A key of 32 bytes is one that BLAKE2s takes.
        Err(_) => [0; MAC_BYTES],
    }
}

#[cfg(test)]
mod tests {
    use boringtun::noise::rate_limiter::RateLimiter;
    use boringtun::noise::{Tunn, TunnResult};
    use x25519_dalek::PublicKey;

    use super::*;

    #[test]
    fn boringtun_refuses_the_wrong_mac_and_lets_the_right_one_through() {
        let key = [7; 32];
        let limiter = RateLimiter::new(&PublicKey::from(key), u64::MAX);
        let mut out = [0; 64];
        let mut passes = |kind| {
            let datagram = initiation(kind, &key);
            let verdict = limiter.verify_packet(None, &datagram, &mut out);
            !matches!(verdict, Err(TunnResult::Err(_)))
        };

        assert!(!passes(Kind::WrongMac));
        assert!(passes(Kind::Garbage));
        assert!(Tunn::parse_incoming_packet(&initiation(Kind::Garbage, &key)).is_ok());
    }
}
