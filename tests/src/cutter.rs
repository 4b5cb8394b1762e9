//! A TCP proxy that counts bytes and cuts the connection after a given one.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{JoinHandle, spawn};

use anyhow::{Context, Result};

use crate::netns::Netns;

/// Which way the counted bytes flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    ToServer,
    /// From the server.
    ToClient,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    limits: [AtomicU64; 2],
    passed: [AtomicU64; 2],
    live: AtomicUsize,
}

/// The running proxy. It forwards everything until told to cut.
#[derive(Debug)]
pub struct Cutter {
    address: SocketAddr,
    shared: Arc<Shared>,
    netns: Netns,
    acceptor: Option<JoinHandle<()>>,
}

impl Cutter {
    /// Listens inside a namespace and forwards to `server`.
    pub fn start(netns: &Netns, listen: SocketAddr, server: SocketAddr) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        shared.pass_everything();
        let theirs = Arc::clone(&shared);
        // The thread that accepts is born inside the namespace, and so are the sockets that it makes.
        let (address, acceptor) = netns.enter(move || {
            let listener = TcpListener::bind(listen).context("binding the cutting proxy")?;
            let address = listener
                .local_addr()
                .context("asking for the proxy's address")?;
            Ok((address, spawn(move || accept(&listener, server, &theirs))))
        })?;
        Ok(Self {
            address,
            shared,
            netns: netns.clone(),
            acceptor: Some(acceptor),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets `bytes` pass in one direction of each coming connection, then cuts both.
    pub fn cut_after(&self, direction: Direction, bytes: u64) {
        self.shared.pass_everything();
        self.shared.limits[direction as usize].store(bytes, Ordering::SeqCst);
        self.forget();
    }

    /// Cuts nothing from here on.
    pub fn pass(&self) {
        self.shared.pass_everything();
        self.forget();
    }

    /// Bytes that passed since the last setting.
    pub fn passed(&self, direction: Direction) -> u64 {
        self.shared.passed[direction as usize].load(Ordering::SeqCst)
    }

    /// Connections that are still being forwarded.
    pub fn live(&self) -> usize {
        self.shared.live.load(Ordering::SeqCst)
    }

    fn forget(&self) {
        for count in &self.shared.passed {
            count.store(0, Ordering::SeqCst);
        }
    }
}

impl Shared {
    fn pass_everything(&self) {
        for limit in &self.limits {
            limit.store(u64::MAX, Ordering::SeqCst);
        }
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let address = self.address;
        // A last connection wakes the acceptor, which then sees that it is to stop.
        let woken = self
            .netns
            .enter(move || Ok(TcpStream::connect(address).is_ok()));
        if let (Ok(true), Some(acceptor)) = (woken, self.acceptor.take()) {
            // A panic of the acceptor has already been printed.
            let _ = acceptor.join();
        }
    }
}

fn accept(listener: &TcpListener, server: SocketAddr, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let (Ok(client), Ok(server)) = (client, TcpStream::connect(server)) else {
            continue;
        };
        for stream in [&client, &server] {
            // Without it a cut shows later than it happens; nothing breaks.
            let _ = stream.set_nodelay(true);
        }
        let (Ok(client_read), Ok(server_read)) = (client.try_clone(), server.try_clone()) else {
            continue;
        };
        shared.live.fetch_add(2, Ordering::SeqCst);
        for (from, to, direction) in [
            (client_read, server, Direction::ToServer),
            (server_read, client, Direction::ToClient),
        ] {
            let shared = Arc::clone(shared);
            spawn(move || {
                forward(from, to, &shared, direction);
                shared.live.fetch_sub(1, Ordering::SeqCst);
            });
        }
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, shared: &Shared, direction: Direction) {
    let limit = shared.limits[direction as usize].load(Ordering::SeqCst);
    let passed = &shared.passed[direction as usize];
    let mut left = limit;
    let mut buffer = [0; 4096];
    while left > 0 {
        let room = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let Ok(got @ 1..) = from.read(&mut buffer[..room]) else {
            break;
        };
        if to.write_all(&buffer[..got]).is_err() {
            break;
        }
        let got = u64::try_from(got).unwrap_or(u64::MAX);
        left = left.saturating_sub(got);
        passed.fetch_add(got, Ordering::SeqCst);
    }
    // A peer that is already gone cannot be shut down again.
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
