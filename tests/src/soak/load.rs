//! What the home does: transfers both ways, each compared byte by byte and begun anew when it ends or breaks, and lookups.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::netns::Netns;
use crate::topology::{Lab, WEB};
use crate::zones::WILD_NAMES;

/// What every record of a transfer carries, for the observer to look for.
pub(super) const MARKER: &str = "culvert-soak-payload";
const PORT: u16 = 7;
/// Transfers each way at once.
const STREAMS: usize = 3;
const BLOCK_BYTES: usize = 16 * 1024;
/// 12 MiB, some 16 seconds.
const BLOCKS: u64 = 768;
/// Between two blocks: some 6 Mbit/s a transfer, so that a minute's capture is small.
const PACE: Duration = Duration::from_millis(20);
/// A transfer on which nothing moves for this long has broken; no outage is as long.
const PATIENCE: Duration = Duration::from_secs(30);
const NAMES: u64 = 60;
const LOOKUP_PAUSE: Duration = Duration::from_secs(1);
/// The first byte of a connection says which way it flows.
const UP: u8 = b'U';
const DOWN: u8 = b'D';

#[derive(Debug, Default)]
struct Counts {
    down: AtomicU64,
    up: AtomicU64,
    completed: AtomicU64,
    broken: AtomicU64,
    corrupt: AtomicU64,
    answered: AtomicU64,
    unanswered: AtomicU64,
    stop: AtomicBool,
}

/// What came of the home's wishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// Bytes that arrived in the home.
    pub down_bytes: u64,
    /// Bytes that arrived from the home.
    pub up_bytes: u64,
    /// Transfers of 12 MiB that ended as they should.
    pub completed: u64,
    /// Transfers that broke.
    pub broken: u64,
    /// Transfers with a wrong byte.
    pub corrupt: u64,
    /// Names that were found.
    pub lookups_answered: u64,
    /// Names that were not found within three seconds.
    pub lookups_unanswered: u64,
}

/// The running transfers and lookups.
#[derive(Debug)]
pub(super) struct Load {
    counts: Arc<Counts>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts the server, the transfers and the lookups.
    pub(super) fn start(lab: &Lab) -> Result<Self> {
        let counts = Arc::new(Counts::default());
        let address: SocketAddr = format!("{WEB}:{PORT}").parse()?;
        let listener = lab
            .internet
            .enter(|| TcpListener::bind(address).context("listening for the soak's transfers"))?;
        let serving = Arc::clone(&counts);
        // It ends with the process: it waits for connections that do not come any more.
        let _server = std::thread::spawn(move || serve(&listener, &serving));
        let mut threads = Vec::new();
        for (n, way) in [UP, DOWN].repeat(STREAMS).into_iter().enumerate() {
            let (home, counts) = (lab.home.clone(), Arc::clone(&counts));
            threads.push(std::thread::spawn(move || {
                let mut number = n as u64;
                while !counts.is_over() {
                    number += 1_000;
                    let result = client(&home, address, (way, number), &counts);
                    counts.note(result.as_ref().copied());
                }
            }));
        }
        let (home, asking) = (lab.home.clone(), Arc::clone(&counts));
        threads.push(std::thread::spawn(move || ask(&home, &asking)));
        Ok(Self { counts, threads })
    }

    /// What came so far.
    pub(super) fn moved(&self) -> Moved {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Moved {
            down_bytes: of(&self.counts.down),
            up_bytes: of(&self.counts.up),
            completed: of(&self.counts.completed),
            broken: of(&self.counts.broken),
            corrupt: of(&self.counts.corrupt),
            lookups_answered: of(&self.counts.answered),
            lookups_unanswered: of(&self.counts.unanswered),
        }
    }

    /// Tells the bytes that arrived in the home.
    pub(super) fn arrived(&self) -> impl Fn() -> u64 + use<> {
        let counts = Arc::clone(&self.counts);
        move || counts.down.load(Ordering::Relaxed)
    }

    /// Ends everything.
    pub(super) fn stop(&mut self) {
        self.counts.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic has been printed, and costs only a transfer.
            let _ = thread.join();
        }
    }
}

/// How a transfer ended that did not break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    Corrupt,
    /// The soak is over.
    Stopped,
}

impl Counts {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn note(&self, result: Result<End, &anyhow::Error>) {
        let count = match result {
            Ok(End::Whole) => &self.completed,
            Ok(End::Corrupt) => &self.corrupt,
            Ok(End::Stopped) => return,
            Err(_) if self.is_over() => return,
            Err(error) => {
                eprintln!("a transfer broke: {error:#}");
                &self.broken
            }
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// The bytes of one block of one transfer: no two records in any of them are the same.
fn block(transfer: u64, number: u64) -> Vec<u8> {
    let records =
        (0..BLOCK_BYTES / 64).map(|n| format!("{MARKER}{transfer:016x}{number:016x}{n:012x}"));
    records.collect::<String>().into_bytes()
}

fn client(
    home: &Netns,
    to: SocketAddr,
    (way, transfer): (u8, u64),
    counts: &Counts,
) -> Result<End> {
    let mut stream = home.enter(|| {
        TcpStream::connect_timeout(&to, PATIENCE).context("connecting the soak's transfer")
    })?;
    prepare(&stream)?;
    stream.write_all(&[&[way][..], &transfer.to_be_bytes()].concat())?;
    if way == DOWN {
        return drink(&mut stream, transfer, (&counts.down, counts));
    }
    if pour(&mut stream, transfer, counts)? == End::Stopped {
        return Ok(End::Stopped);
    }
    let mut verdict = [0];
    stream
        .read_exact(&mut verdict)
        .context("reading the verdict")?;
    Ok(if verdict == *b"y" {
        End::Whole
    } else {
        End::Corrupt
    })
}

fn serve(listener: &TcpListener, counts: &Arc<Counts>) {
    for stream in listener.incoming().map_while(Result::ok) {
        let counts = Arc::clone(counts);
        std::thread::spawn(move || {
            // What breaks here breaks at the client too, which counts it, but may be told less of the reason.
            if let Err(error) = answer(stream, &counts)
                && !counts.is_over()
            {
                eprintln!("the server's end of a transfer broke: {error:#}");
            }
        });
    }
}

fn answer(mut stream: TcpStream, counts: &Counts) -> Result<()> {
    prepare(&stream)?;
    let (mut way, mut transfer) = ([0], [0; 8]);
    stream.read_exact(&mut way)?;
    stream.read_exact(&mut transfer)?;
    let transfer = u64::from_be_bytes(transfer);
    if way == [DOWN] {
        pour(&mut stream, transfer, counts)?;
        return Ok(());
    }
    let end = drink(&mut stream, transfer, (&counts.up, counts))?;
    Ok(stream.write_all(if end == End::Whole { b"y" } else { b"n" })?)
}

fn prepare(stream: &TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream.set_write_timeout(Some(PATIENCE))?)
}

fn pour(stream: &mut TcpStream, transfer: u64, counts: &Counts) -> Result<End> {
    for number in 0..BLOCKS {
        if counts.is_over() {
            return Ok(End::Stopped);
        }
        stream
            .write_all(&block(transfer, number))
            .context("sending a block")?;
        std::thread::sleep(PACE);
    }
    stream
        .shutdown(Shutdown::Write)
        .context("ending a transfer")?;
    Ok(End::Whole)
}

fn drink(
    stream: &mut TcpStream,
    transfer: u64,
    (count, counts): (&AtomicU64, &Counts),
) -> Result<End> {
    let mut got = vec![0; BLOCK_BYTES];
    for number in 0..BLOCKS {
        let mut filled = 0;
        while filled < got.len() {
            if counts.is_over() {
                return Ok(End::Stopped);
            }
            let read = stream
                .read(&mut got[filled..])
                .context("receiving a block")?;
            ensure!(read > 0, "it ended early, in block {number}");
            filled += read;
            count.fetch_add(read as u64, Ordering::Relaxed);
        }
        if got != block(transfer, number) {
            return Ok(End::Corrupt);
        }
    }
    Ok(End::Whole)
}

/// Looks names up whose lifetime is over each time; they are few, so that the caches on the way soon stop growing.
fn ask(home: &Netns, counts: &Counts) {
    for n in 0_u64.. {
        if counts.is_over() {
            return;
        }
        let name = format!("soak{}.{WILD_NAMES}", n % NAMES);
        let said = home.output(&["dig", "+time=3", "+tries=1", "+short", &name, "A"]);
        let is_answered =
            said.is_ok_and(|said| said.status.success() && said.stdout.starts_with(b"2"));
        let count = if is_answered {
            &counts.answered
        } else {
            &counts.unanswered
        };
        count.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(LOOKUP_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_fills_its_bytes_and_differs_from_every_other() {
        let one = block(1, 2);

        assert_eq!(one.len(), BLOCK_BYTES);
        assert_ne!(one, block(1, 3));
        assert_ne!(one, block(2, 2));
        assert!(one.starts_with(MARKER.as_bytes()));
        assert_ne!(one[..64], one[64..128]);
    }
}
