//! The socket of one session to this machine's WireGuard listener.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::Door;
use crate::places::count;

/// WireGuard keeps a session for three minutes; who says nothing for longer is gone.
const IDLE: Duration = Duration::from_secs(180);
/// How often that is looked at.
const IDLE_TICK: Duration = Duration::from_secs(45);
/// The longest datagram, and room to see that it was longer.
pub(super) const DATAGRAM_BYTES: usize = 65_536;

/// One router's way to WireGuard.
pub(super) struct Inside<'d> {
    udp: UdpSocket,
    door: &'d Door,
    moved: AtomicU64,
}

impl<'d> Inside<'d> {
    /// A socket whose address is the router's in disguise: WireGuard's limits by source hold for each of them.
    pub(super) async fn open(door: &'d Door, from: SocketAddr) -> io::Result<Self> {
        let own: IpAddr = match door.inside {
            SocketAddr::V4(_) => loopback_of(from.ip()).into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        let udp = UdpSocket::bind((own, 0)).await?;
        udp.connect(door.inside).await?;
        Ok(Self {
            udp,
            door,
            moved: AtomicU64::new(0),
        })
    }

    /// Gives a router's datagram to WireGuard; what the kernel does not take is lost, as on any wire.
    pub(super) fn give(&self, datagram: &[u8]) {
        if self.udp.try_send(datagram).is_ok() {
            self.moved.fetch_add(1, Ordering::Relaxed);
            count(&self.door.figures.from_routers_bytes, datagram.len());
        }
    }

    /// The next datagram of WireGuard for the router.
    pub(super) async fn take(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.udp.recv(buffer).await {
                Ok(length) => {
                    self.took(length);
                    return Ok(length);
                }
                // WireGuard is being restarted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The same without waiting.
    pub(super) fn take_now(&self, buffer: &mut [u8]) -> Option<usize> {
        let length = self.udp.try_recv(buffer).ok()?;
        self.took(length);
        Some(length)
    }

    fn took(&self, length: usize) {
        self.moved.fetch_add(1, Ordering::Relaxed);
        count(&self.door.figures.to_routers_bytes, length);
    }

    /// Returns once nothing has moved for [`IDLE`].
    pub(super) async fn idle(&self) {
        let mut ticks = ticks();
        let (mut seen, mut silent) = (0, Duration::ZERO);
        loop {
            ticks.tick().await;
            let moved = self.moved.load(Ordering::Relaxed);
            silent = if moved == seen {
                silent + IDLE_TICK
            } else {
                Duration::ZERO
            };
            seen = moved;
            if silent >= IDLE {
                return;
            }
        }
    }
}

fn ticks() -> Interval {
    let mut ticks = interval(IDLE_TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// An address of 127.64.0.0/10 for each source, by a hash that nobody outside can choose.
fn loopback_of(source: IpAddr) -> Ipv4Addr {
    static HASH: OnceLock<RandomState> = OnceLock::new();
    let hash = HASH.get_or_init(RandomState::new).hash_one(source);
    let [a, b, c, ..] = hash.to_ne_bytes();
    Ipv4Addr::new(127, 64 | (a & 0x3f), b, c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_keeps_its_loopback_address_and_others_have_others() {
        let of = |text: &str| loopback_of(text.parse().unwrap());

        assert_eq!(of("192.0.2.1"), of("192.0.2.1"));
        let sources: std::collections::BTreeSet<_> =
            (0..100).map(|n| of(&format!("192.0.2.{n}"))).collect();
        assert!(sources.len() > 90);
        assert!(sources.iter().all(|address| address.is_loopback()));
    }
}
