//! Garbage that a server cannot tell from a new client's first lookup before it has done the work: the magic of a
//! certificate in use, behind it keys or ciphertexts that are new in every packet, behind them nothing that opens.

use std::io::IoSlice;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};
use rand_core::{OsRng, RngCore};

use super::load::bound;
use super::servers::Server;

/// Packets of each kind a second.
pub(super) const CLASSICAL_PER_S: u32 = 20_000;
pub(super) const POST_QUANTUM_PER_S: u32 = 4_000;
const CLASSICAL_BYTES: usize = 256;
const POST_QUANTUM_BYTES: usize = 1_232;
const MAGIC: usize = 8;
/// Packets of one system call: what is due of 20,000 a second within 1.6 ms.
const RUN: u32 = 32;
/// Fewer than this wait until there are more.
const LEAST: u32 = 8;

/// A crowd of nobody's clients; empty by default.
#[derive(Default)]
pub(super) struct Strangers {
    kinds: Vec<Kind>,
}

struct Kind {
    socket: UdpSocket,
    packets: Vec<Vec<u8>>,
    per_s: u32,
    sent: u32,
}

impl Strangers {
    /// Both kinds at once, as far as the server has certificates for them.
    pub(super) fn at(server: &Server) -> Result<Self> {
        let kind = |magic, bytes, per_s| Kind::new(server, magic, bytes, per_s);
        let classical = kind(&server.classical.magic, CLASSICAL_BYTES, CLASSICAL_PER_S)?;
        let post_quantum = server
            .post_quantum
            .as_ref()
            .map(|cert| kind(&cert.magic, POST_QUANTUM_BYTES, POST_QUANTUM_PER_S))
            .transpose()?;
        Ok(Self {
            kinds: [classical].into_iter().chain(post_quantum).collect(),
        })
    }

    /// Sends what is due after so long.
    pub(super) fn send_due(&mut self, gone: Duration) -> Result<()> {
        for kind in &mut self.kinds {
            let due = (gone.as_secs_f64() * f64::from(kind.per_s)) as u32;
            let count = due.saturating_sub(kind.sent).min(RUN);
            if count < LEAST {
                continue;
            }
            let packets: Vec<_> = (kind.sent..kind.sent + count)
                .filter_map(|n| kind.packets.get(n as usize % kind.packets.len()))
                .map(|packet| [IoSlice::new(packet)])
                .collect();
            let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(packets.len(), None);
            let (fd, to) = (kind.socket.as_raw_fd(), vec![None; packets.len()]);
            kind.sent += match sendmmsg(fd, &mut headers, &packets, &to, [], MsgFlags::empty()) {
                Ok(taken) => u32::try_from(taken.count())?,
                // What there is no room for is due again.
                Err(Errno::EAGAIN) => 0,
                Err(error) => return Err(error).context("sending garbage"),
            };
        }
        Ok(())
    }

    /// Packets that the kernel took so far.
    pub(super) fn sent(&self) -> u32 {
        self.kinds.iter().map(|kind| kind.sent).sum()
    }
}

impl Kind {
    /// Two seconds' worth of packets: a server keeps no key that opened nothing, so that they are new to it again.
    fn new(server: &Server, magic: &[u8; MAGIC], bytes: usize, per_s: u32) -> Result<Self> {
        let packets = (0..per_s * 2).map(|_| {
            let mut packet = vec![0; bytes];
            OsRng.fill_bytes(&mut packet);
            packet.splice(..MAGIC, magic.iter().copied());
            packet
        });
        Ok(Self {
            socket: server.netns.enter(|| bound(server.address))?,
            packets: packets.collect(),
            per_s,
            sent: 0,
        })
    }
}
