//! Bytes in bulk over TCP, compared one by one, and what an interface counted meanwhile.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::netns::Netns;
use crate::wait::wait_until;

const LIMIT: Duration = Duration::from_secs(90);

/// A listener that gives a payload to one caller, or takes it from one.
#[derive(Debug)]
pub struct Bulk {
    listener: TcpListener,
    payload: Vec<u8>,
    /// Where it listens.
    pub port: u16,
}

impl Bulk {
    /// Listens in a namespace, with a payload of so many bytes that no two segments share.
    pub fn listen(netns: &Netns, address: &str, bytes: usize) -> Result<Self> {
        let listener = netns.enter(|| {
            let listener = TcpListener::bind((address, 0)).context("listening")?;
            listener
                .set_nonblocking(true)
                .context("making the listener not wait")?;
            Ok(listener)
        })?;
        let port = listener.local_addr().context("asking for the port")?.port();
        Ok(Self {
            listener,
            payload: payload(bytes),
            port,
        })
    }

    /// Gives the next caller the payload while `caller` runs, which gives back what arrived.
    pub fn give<T: Send>(&self, caller: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.beside(caller, |mut stream| {
            stream.write_all(&self.payload).context("giving")
        })
        .map(|(said, ())| said)
    }

    /// Takes from the next caller while `caller` runs, and fails unless it is the payload.
    pub fn take<T: Send>(&self, caller: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let (said, arrived) = self.beside(caller, |mut stream| {
            let mut arrived = vec![0; self.payload.len()];
            stream.read_exact(&mut arrived).context("taking")?;
            Ok(arrived)
        })?;
        self.compare(&arrived)?;
        Ok(said)
    }

    /// Fails unless these bytes are the payload.
    pub fn compare(&self, arrived: &[u8]) -> Result<()> {
        ensure!(
            arrived.len() == self.payload.len(),
            "{} bytes arrived of {}",
            arrived.len(),
            self.payload.len()
        );
        let differs = arrived.iter().zip(&self.payload).position(|(a, b)| a != b);
        ensure!(differs.is_none(), "byte {differs:?} arrived changed");
        Ok(())
    }

    /// Calls an address of its own from another namespace, takes the payload and checks it.
    pub fn fetch(&self, netns: &Netns, address: &str) -> Result<()> {
        let arrived = self.give(|| {
            netns.enter(|| {
                let mut arrived = Vec::new();
                let mut stream = call(address, self.port)?;
                stream.read_to_end(&mut arrived).context("fetching")?;
                Ok(arrived)
            })
        })?;
        self.compare(&arrived)
    }

    /// Calls an address of its own from another namespace and gives it the payload.
    pub fn send(&self, netns: &Netns, address: &str) -> Result<()> {
        self.take(|| {
            netns.enter(|| {
                let mut stream = call(address, self.port)?;
                stream.write_all(&self.payload).context("sending")?;
                // The other end closes once it has everything.
                stream
                    .read(&mut [0])
                    .map(drop)
                    .context("waiting for the end")
            })
        })
    }

    fn beside<T: Send, U: Send>(
        &self,
        caller: impl FnOnce() -> Result<T> + Send,
        serve: impl FnOnce(TcpStream) -> Result<U> + Send,
    ) -> Result<(T, U)> {
        std::thread::scope(|scope| {
            let served = scope.spawn(|| serve(self.accept()?));
            let said = caller();
            let served = match served.join() {
                Ok(served) => served,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            Ok((said?, served?))
        })
    }

    fn accept(&self) -> Result<TcpStream> {
        let stream = wait_until("somebody calls", LIMIT, || match self.listener.accept() {
            Ok((stream, _)) => Ok(Some(stream)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error).context("accepting"),
        })?;
        stream.set_nonblocking(false).context("letting it wait")?;
        bounded(stream)
    }
}

fn call(address: &str, port: u16) -> Result<TcpStream> {
    bounded(TcpStream::connect((address, port)).context("calling")?)
}

fn bounded(stream: TcpStream) -> Result<TcpStream> {
    stream
        .set_read_timeout(Some(LIMIT))
        .and_then(|()| stream.set_write_timeout(Some(LIMIT)))
        .context("bounding a stream")?;
    Ok(stream)
}

/// The same bytes each time, from a linear congruential generator (Knuth's constants for 64 bits).
fn payload(bytes: usize) -> Vec<u8> {
    let mut state: u64 = 0;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..bytes).map(|_| next()).collect()
}

/// What an interface counted: a joined or not yet cut packet is one.
#[derive(Debug, Clone, Copy)]
pub struct Frames {
    /// Frames that came in.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Frames that went out.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
}

impl Frames {
    /// What an interface counted up to this moment.
    pub fn of(netns: &Netns, interface: &str) -> Result<Self> {
        let figure = |name: &str| -> Result<u64> {
            let path = format!("/sys/class/net/{interface}/statistics/{name}");
            let said = netns.run(&["cat", &path])?;
            said.trim().parse().context("a counter that is no number")
        };
        Ok(Self {
            received: figure("rx_packets")?,
            received_bytes: figure("rx_bytes")?,
            sent: figure("tx_packets")?,
            sent_bytes: figure("tx_bytes")?,
        })
    }

    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            received: self.received - earlier.received,
            received_bytes: self.received_bytes - earlier.received_bytes,
            sent: self.sent - earlier.sent,
            sent_bytes: self.sent_bytes - earlier.sent_bytes,
        }
    }

    /// Bytes of an average frame that came in.
    #[must_use]
    pub fn mean_received(self) -> u64 {
        self.received_bytes / self.received.max(1)
    }

    /// Bytes of an average frame that went out.
    #[must_use]
    pub fn mean_sent(self) -> u64 {
        self.sent_bytes / self.sent.max(1)
    }
}
