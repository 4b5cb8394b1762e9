//! What the machine itself takes: a socket that sends back what comes, on the processor of those who are measured. Its times are the
//! kernel's, the processor's sleep and the neighbours' on the same host; no program can be under them. Over TCP the least that
//! any server does for a connection: it is accepted, read from once, written to once and closed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};

use super::processor::{self, MEASURED};
use crate::netns::Netns;

/// How long it goes on after it was told to end.
const LOOK: Duration = Duration::from_millis(50);

/// Echoes while it lives.
pub(super) struct Echo {
    pub(super) address: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    pub(super) fn start(netns: &Netns) -> Result<Self> {
        let bind = || UdpSocket::bind("127.0.0.1:0").context("binding the echo");
        let socket = netns.enter(bind)?;
        socket
            .set_read_timeout(Some(LOOK))
            .context("bounding the echo's wait")?;
        let address = socket.local_addr().context("asking for its address")?;
        let over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&over);
        let start = || Ok(thread::spawn(move || echo(&socket, &until)));
        let thread = Some(processor::on(MEASURED, start)?);
        Ok(Self {
            address,
            over,
            thread,
        })
    }
}

/// Accepts, echoes once and closes while it lives.
pub(super) struct TcpEcho {
    pub(super) address: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    netns: Netns,
}

impl TcpEcho {
    pub(super) fn start(netns: &Netns) -> Result<Self> {
        let bind = || TcpListener::bind("127.0.0.1:0").context("binding the echo");
        let listener = netns.enter(bind)?;
        let address = listener.local_addr().context("asking for its address")?;
        let over = Arc::new(AtomicBool::new(false));
        let (until, netns) = (Arc::clone(&over), netns.clone());
        let start = || Ok(thread::spawn(move || echo_each(&listener, &until)));
        let thread = Some(processor::on(MEASURED, start)?);
        Ok(Self {
            address,
            over,
            thread,
            netns,
        })
    }
}

impl Drop for TcpEcho {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // It waits for one more, who says nothing and leaves at once: it reads until then.
        let connect = || TcpStream::connect(self.address).context("ending the echo");
        drop(self.netns.enter(connect));
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

fn echo_each(listener: &TcpListener, over: &AtomicBool) {
    let mut buffer = [0; 2048];
    while !over.load(Ordering::Relaxed) {
        let Ok((mut stream, _)) = listener.accept() else {
            continue;
        };
        let read = stream.read(&mut buffer).unwrap_or_default();
        let _lost = stream.write_all(buffer.get(..read).unwrap_or_default());
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // A panic has been told on stderr.
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

fn echo(socket: &UdpSocket, over: &AtomicBool) {
    let mut buffer = [0; 2048];
    while !over.load(Ordering::Relaxed) {
        // Silence, for as long as it may last.
        let Ok((len, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let _lost = socket.send_to(buffer.get(..len).unwrap_or_default(), from);
    }
}
