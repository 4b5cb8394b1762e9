//! Sending packets to a server as fast as it takes them: what would only fill its socket's buffer is held back, so that
//! each is judged by the server and not dropped by the kernel.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use netio::udp::{MAX_BATCH, Offload};
use netio::{Udp, UdpOptions};

use super::spoil;
use crate::dice::Dice;
use crate::netns::Netns;

/// Ports that it comes from: the kernel spreads them over a server's workers.
const SOCKETS: usize = 8;
/// Bytes that wait in the server's sockets at most, as the kernel counts them, before the next batches are sent: with
/// these they fit into a usual buffer of 208 KiB.
const QUEUED: u64 = 32 << 10;
/// Batches between two looks at these.
const LOOK_EVERY: u64 = 2;
const PAUSE: Duration = Duration::from_micros(500);
const TCP_WAIT: Duration = Duration::from_millis(20);

/// Whom to attack.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) netns: &'a Netns,
    pub(super) address: SocketAddr,
    pub(super) pid: u32,
}

/// What waits in the server's UDP sockets, and what they dropped.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Queue {
    pub(super) bytes: u64,
    pub(super) dropped: u64,
}

impl Target<'_> {
    pub(super) fn queue(&self) -> Queue {
        let table = std::fs::read_to_string(format!("/proc/{}/net/udp", self.pid));
        let port = format!(":{:04X}", self.address.port());
        let mut queue = Queue::default();
        for line in table.unwrap_or_default().lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if fields.get(1).is_some_and(|local| local.ends_with(&port)) {
                let waiting = fields.get(4).and_then(|field| field.split(':').nth(1));
                queue.bytes += waiting.map_or(0, |hex| u64::from_str_radix(hex, 16).unwrap_or(0));
                queue.dropped += fields.last().map_or(0, |drops| drops.parse().unwrap_or(0));
            }
        }
        queue
    }
}

/// Sends packets until it is over.
pub(super) fn packets(
    target: Target<'_>,
    (sent, over): (&AtomicU64, &AtomicBool),
    mut make: impl FnMut() -> Result<Vec<u8>>,
) -> Result<()> {
    let options = UdpOptions {
        offload: Offload::Never,
        ..UdpOptions::default()
    };
    let sockets = target.netns.enter(|| {
        let any = "0.0.0.0:0".parse().context("an address")?;
        let sockets = (0..SOCKETS).map(|_| Udp::bind(any, &options).context("binding UDP"));
        sockets.collect::<Result<Vec<_>>>()
    })?;
    let mut batches = 0;
    for socket in sockets.iter().cycle() {
        if over.load(Ordering::Relaxed) {
            break;
        }
        batches += 1;
        while batches % LOOK_EVERY == 0
            && target.queue().bytes > QUEUED
            && !over.load(Ordering::Relaxed)
        {
            std::thread::sleep(PAUSE);
        }
        let batch = (0..MAX_BATCH).map(|_| Ok((target.address, make()?)));
        let left = socket.send_batch(&batch.collect::<Result<Vec<_>>>()?);
        sent.fetch_add(left as u64, Ordering::Relaxed);
    }
    Ok(())
}

/// The same over TCP, in frames that are not all what they say, until it is over.
pub(super) fn frames(
    target: Target<'_>,
    (sent, over): (&AtomicU64, &AtomicBool),
    mut dice: Dice,
    mut make: impl FnMut() -> Result<Vec<u8>>,
) -> Result<()> {
    while !over.load(Ordering::Relaxed) {
        let connected = target.netns.enter(|| {
            TcpStream::connect_timeout(&target.address, TCP_WAIT).context("connecting TCP")
        });
        let Ok(mut stream) = connected else {
            // Refused, for the number of its connections perhaps: at once as it may be, the next try is not.
            std::thread::sleep(TCP_WAIT);
            continue;
        };
        stream
            .set_read_timeout(Some(TCP_WAIT))
            .context("bounding a wait")?;
        for _ in 0..=dice.roll(4) {
            let packet = make()?;
            let len = u16::try_from(packet.len()).unwrap_or(u16::MAX);
            let told = match dice.roll(8) {
                0 => 0,
                1 => u16::MAX,
                2 => len.wrapping_add(1),
                3 => len / 2,
                _ => len,
            };
            let framed = [&told.to_be_bytes()[..], &packet].concat();
            let cut = match dice.roll(4) {
                0 => spoil::place(&mut dice, framed.len()),
                _ => framed.len(),
            };
            // A server may close at any of them.
            if stream
                .write_all(framed.get(..cut).unwrap_or_default())
                .is_err()
            {
                break;
            }
            sent.fetch_add(1, Ordering::Relaxed);
        }
        if dice.happens(0.5) {
            let _answered = stream.read(&mut [0; 512]);
        }
    }
    Ok(())
}
