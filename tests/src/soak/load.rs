//! Streams between the home and a server of the internet, both ways, begun anew whenever one breaks.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::netns::Netns;
use crate::topology::{Lab, WEB};

/// What every block carries, for the observer to look for.
pub(super) const MARKER: &str = "culvert-soak-payload";
const PORT: u16 = 7;
/// Streams each way.
const STREAMS: usize = 3;
const BLOCK_BYTES: usize = 16 * 1024;
/// Between two blocks: some 6 Mbit/s a stream, so that a minute's capture is small on a machine without netem.
const PACE: Duration = Duration::from_millis(20);
/// A stream on which nothing moves for this long is begun anew.
const PATIENCE: Duration = Duration::from_secs(5);
/// The first byte of a connection says which way it flows.
const UP: u8 = b'U';
const DOWN: u8 = b'D';

#[derive(Debug, Default)]
struct Counts {
    down: AtomicU64,
    up: AtomicU64,
    begun: AtomicU64,
    stop: AtomicBool,
}

/// The running streams.
#[derive(Debug)]
pub(super) struct Load {
    counts: Arc<Counts>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts the server and the streams.
    pub(super) fn start(lab: &Lab) -> Result<Self> {
        let counts = Arc::new(Counts::default());
        let address: SocketAddr = format!("{WEB}:{PORT}").parse()?;
        let listener = lab
            .internet
            .enter(|| TcpListener::bind(address).context("listening for the soak's streams"))?;
        let serving = Arc::clone(&counts);
        // It ends with the process: it waits for connections that do not come any more.
        let _server = std::thread::spawn(move || serve(&listener, &serving));
        let mut threads = Vec::new();
        for way in [UP, DOWN].repeat(STREAMS) {
            let (home, counts) = (lab.home.clone(), Arc::clone(&counts));
            threads.push(std::thread::spawn(move || {
                while !counts.stop.load(Ordering::Relaxed) {
                    counts.begun.fetch_add(1, Ordering::Relaxed);
                    // A stream that breaks is what the soak is about; the next one is begun.
                    let _ = client(&home, address, way, &counts);
                }
            }));
        }
        Ok(Self { counts, threads })
    }

    /// Bytes that arrived in the home.
    pub(super) fn down(&self) -> u64 {
        self.counts.down.load(Ordering::Relaxed)
    }

    /// Bytes that arrived from the home.
    pub(super) fn up(&self) -> u64 {
        self.counts.up.load(Ordering::Relaxed)
    }

    /// Streams begun, those after a break included.
    pub(super) fn begun(&self) -> u64 {
        self.counts.begun.load(Ordering::Relaxed)
    }

    /// Ends the streams.
    pub(super) fn stop(&mut self) {
        self.counts.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic has been printed, and costs only a stream.
            let _ = thread.join();
        }
    }
}

fn block() -> Vec<u8> {
    MARKER.bytes().cycle().take(BLOCK_BYTES).collect()
}

fn client(home: &Netns, to: SocketAddr, way: u8, counts: &Counts) -> Result<()> {
    let mut stream = home.enter(|| {
        TcpStream::connect_timeout(&to, PATIENCE).context("connecting the soak's stream")
    })?;
    prepare(&stream)?;
    stream.write_all(&[way])?;
    if way == UP {
        pour(&mut stream, &counts.stop)
    } else {
        drink(&mut stream, &counts.down, &counts.stop)
    }
}

fn serve(listener: &TcpListener, counts: &Arc<Counts>) {
    for stream in listener.incoming().map_while(Result::ok) {
        let counts = Arc::clone(counts);
        std::thread::spawn(move || {
            // As at the client.
            let _ = answer(stream, &counts);
        });
    }
}

fn answer(mut stream: TcpStream, counts: &Counts) -> Result<()> {
    prepare(&stream)?;
    let mut way = [0];
    stream.read_exact(&mut way)?;
    if way == [UP] {
        drink(&mut stream, &counts.up, &counts.stop)
    } else {
        pour(&mut stream, &counts.stop)
    }
}

fn prepare(stream: &TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream.set_write_timeout(Some(PATIENCE))?)
}

fn pour(stream: &mut TcpStream, stop: &AtomicBool) -> Result<()> {
    let block = block();
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(&block)?;
        std::thread::sleep(PACE);
    }
    Ok(())
}

fn drink(stream: &mut TcpStream, count: &AtomicU64, stop: &AtomicBool) -> Result<()> {
    let mut buffer = vec![0; BLOCK_BYTES];
    while !stop.load(Ordering::Relaxed) {
        let got = stream.read(&mut buffer)?;
        if got == 0 {
            break;
        }
        count.fetch_add(got as u64, Ordering::Relaxed);
    }
    Ok(())
}
