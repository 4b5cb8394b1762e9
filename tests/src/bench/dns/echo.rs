//! What the machine itself takes: a socket that sends back what comes, on the processor of those who are measured. Its times are the
//! kernel's, the processor's sleep and the neighbours' on the same host; no program can be under them. Over TCP the least that
//! any server does for a connection: it is accepted, read from once, written to once and closed.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use netio::poll::{Interest, Ready};
use netio::tcp::Listener;
use netio::{Poller, Waker};

use super::processor::{self, MEASURED};
use crate::bench::probe::cpu_of_stat;
use crate::netns::Netns;

/// How long it goes on after it was told to end.
const LOOK: Duration = Duration::from_millis(50);

/// How long the kernel waits for the first byte of a connection.
const SILENCE: Duration = Duration::from_secs(10);

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

/// Accepts, echoes once and closes until it is ended. It keeps no connection to wait for, so that no server with the kernel's sockets does
/// less for one.
pub(super) struct TcpEcho {
    pub(super) address: SocketAddr,
    waker: Waker,
    thread: JoinHandle<Result<f64>>,
}

impl TcpEcho {
    pub(super) fn start(netns: &Netns) -> Result<Self> {
        let any = "127.0.0.1:0".parse()?;
        let bind = || Listener::bind(any, SILENCE).context("binding the echo");
        let listener = netns.enter(bind)?;
        let address = listener.local_addr().context("asking for its address")?;
        let mut poller = Poller::new().context("waiting for connections")?;
        poller.add(&listener, 0, Interest::Readable)?;
        let waker = poller.waker();
        let start = || Ok(thread::spawn(move || echo_each(&listener, &mut poller)));
        let thread = processor::on(MEASURED, start)?;
        Ok(Self {
            address,
            waker,
            thread,
        })
    }

    /// The seconds of a processor that it took.
    pub(super) fn end(self) -> Result<f64> {
        self.waker.wake().context("ending the echo")?;
        match self.thread.join() {
            Ok(seconds) => seconds,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

fn echo_each(listener: &Listener, poller: &mut Poller) -> Result<f64> {
    let mut buffer = [0; 2048];
    loop {
        let mut events = poller.wait(None).context("waiting for connections")?;
        if events.any(|event| matches!(event, Ready::Woken)) {
            return cpu_of_stat("/proc/thread-self/stat");
        }
        while let Some((stream, _)) = listener.accept().context("accepting")? {
            // The kernel shows who has asked already.
            let read = stream.recv(&mut buffer).ok().flatten().unwrap_or_default();
            let _lost = stream.send(buffer.get(..read).unwrap_or_default());
        }
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
