//! Sockets that others send to: one loop per socket, shared by the LAN stub and the DNSCrypt server.
//!
//! Each loop owns its socket and the tasks that answer for it; dropping the future of [`run`] ends all of
//! them and closes the sockets. Everything is bounded: what is too much is counted and dropped.

pub(crate) mod homes;
mod places;

use std::collections::HashMap;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use netio::Udp;
use netio::udp::Batch;
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader, Interest,
};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::proto::dropped::{Counted, Counters, Dropped};
use crate::proto::{MAX_QUERY, Transport};

pub use homes::Homes;
pub use places::{Class, GivenUp, Holder, Seat, Seats};
pub(crate) use places::{Places, Ticket};

/// How long a TCP peer may take to send a whole query, idle time before it included.
const TCP_READ: Duration = Duration::from_secs(10);
/// How long a TCP peer may take to accept an answer.
const TCP_WRITE: Duration = Duration::from_secs(5);
/// Most queries are shorter; longer ones are read in parts.
const TCP_BUFFER: usize = 600;
/// How many queries one connection may carry.
const TCP_EXCHANGES: usize = 128;
/// After an error of the socket itself, so that a broken one does not spin.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Bound sockets, given by the caller.
#[derive(Debug, Default)]
pub struct Sockets {
    /// Each gets its own loop.
    pub udp: Vec<UdpSocket>,
    /// Likewise.
    pub tcp: Vec<TcpListener>,
}

/// What a listener lets in at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Queries over UDP that wait for an answer, per socket.
    pub in_flight: usize,
    /// Queries over UDP that a stub takes from a socket at a time; each has a place as long as the longest query.
    pub udp_batch: usize,
    /// TCP connections, per listener.
    pub tcp_connections: usize,
    /// TCP connections of one address, per listener.
    pub tcp_per_source: usize,
    /// What one source may ask of a server's workers; `None`: as much as it likes.
    pub rate: Option<Rate>,
}

/// What one source may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Queries a second on average, up to 10,000.
    pub per_second: NonZeroU32,
    /// Queries at once.
    pub burst: NonZeroU32,
}

/// What each socket of a loaded router keeps for the queries that come.
const _: () = assert!(Limits::ROUTER.udp_batch * (MAX_QUERY + 1) <= 66_000);

impl Limits {
    /// What suits a home.
    pub const ROUTER: Self = Self {
        in_flight: 256,
        udp_batch: 16,
        tcp_connections: 32,
        tcp_per_source: 8,
        rate: None,
    };
    /// What suits a server.
    pub const SERVER: Self = Self {
        in_flight: 8192,
        udp_batch: 64,
        tcp_connections: 1024,
        tcp_per_source: 32,
        rate: None,
    };

    /// Whether one more may wait, beside so many that do, and so many of the same source: no source has more than a quarter of the
    /// places once half of them are taken, so that one that asks what nobody answers leaves room to all others.
    fn has_place(&self, under_way: usize, of_source: usize) -> bool {
        let is_much = of_source >= self.in_flight / 4;
        under_way < self.in_flight && !(is_much && under_way > self.in_flight / 2)
    }
}

/// A packet that arrived.
#[derive(Debug)]
pub(crate) struct Packet<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) source: SocketAddr,
    pub(crate) transport: Transport,
}

/// What becomes of a packet.
pub(crate) enum Step {
    /// This is sent back at once.
    Answer(Vec<u8>),
    /// The answer comes later.
    Wait(Pin<Box<dyn Future<Output = Result<Vec<u8>, Dropped>> + Send>>),
    /// Nothing.
    Drop(Dropped),
}

/// What answers packets: the stub for plain DNS, the server for DNSCrypt.
pub(crate) trait Service: Send + Sync + 'static {
    /// What one socket's loop keeps for itself.
    type Local: Send;

    fn local(&self) -> Self::Local;
    /// Decides without waiting.
    fn begin(self: &Arc<Self>, local: &mut Self::Local, packet: Packet<'_>) -> Step;
    fn counters(&self) -> &Counters;
}

/// A listening loop ended, which it never should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a listening loop ended unexpectedly")]
pub struct Stopped;

/// Answers on all sockets, until dropped.
pub(crate) async fn run<S: Service>(service: Arc<S>, sockets: Sockets, limits: Limits) -> Stopped {
    let mut loops = JoinSet::new();
    for socket in sockets.udp {
        loops.spawn(udp_loop(Arc::clone(&service), Arc::new(socket), limits));
    }
    for listener in sockets.tcp {
        loops.spawn(tcp_loop(Arc::clone(&service), listener, limits));
    }
    loops.join_next().await;
    Stopped
}

async fn udp_loop<S: Service>(service: Arc<S>, socket: Arc<UdpSocket>, limits: Limits) {
    let batches = match socket.as_fd().try_clone_to_owned() {
        Ok(same) => Udp::of(same.into()),
        Err(error) => {
            tracing::error!(%error, "no descriptor is left for a listening socket");
            return;
        }
    };
    let mut local = service.local();
    let mut tasks = JoinSet::new();
    let mut per_source = HashMap::new();
    // One byte more than the longest query: what fills it is too long.
    let mut batch = Batch::with_places(limits.udp_batch, MAX_QUERY + 1);
    let mut answers = Vec::new();
    loop {
        if let Err(error) = receive(&socket, &batches, &mut batch).await {
            tracing::debug!(%error, "udp receive failed");
            tokio::time::sleep(ERROR_PAUSE).await;
            continue;
        }
        while let Some(ended) = tasks.try_join_next() {
            release(&mut per_source, ended.ok());
        }
        for (source, bytes) in batch.iter() {
            let packet = Packet {
                bytes,
                source,
                transport: Transport::Udp,
            };
            match service.begin(&mut local, packet) {
                Step::Answer(answer) => answers.push((source, answer)),
                Step::Drop(reason) => service.counters().drop_packet(reason),
                Step::Wait(answer) => {
                    let of_source = per_source.get(&source.ip()).copied().unwrap_or(0);
                    if !limits.has_place(tasks.len(), of_source) {
                        service.counters().drop_packet(Dropped::Overloaded);
                        continue;
                    }
                    per_source.insert(source.ip(), of_source + 1);
                    let (service, socket) = (Arc::clone(&service), Arc::clone(&socket));
                    tasks.spawn(async move {
                        match answer.await {
                            Ok(answer) => send(service.counters(), &socket, &answer, source).await,
                            Err(reason) => service.counters().drop_packet(reason),
                        }
                        source.ip()
                    });
                }
            }
        }
        if !answers.is_empty() {
            let sent = batches.send_batch(&answers);
            service.counters().count_many(Counted::Answer, sent);
            for _ in sent..answers.len() {
                service.counters().drop_packet(Dropped::SendFailed);
            }
            answers.clear();
        }
        // Those whom the others wait for have their turn between two full batches, too.
        tokio::task::yield_now().await;
    }
}

/// Waits for datagrams, and takes up to a batch of them.
async fn receive(socket: &UdpSocket, batches: &Udp, batch: &mut Batch) -> io::Result<()> {
    loop {
        socket.readable().await?;
        let mut got = 0;
        let tried = socket.try_io(Interest::READABLE, || {
            got = batches.recv_batch(batch)?;
            // What comes after the last of a batch that is not full is told anew.
            if !batch.is_full() {
                return Err(ErrorKind::WouldBlock.into());
            }
            Ok(())
        });
        match tried {
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
            _ if got > 0 => return Ok(()),
            _ => {}
        }
    }
}

async fn send(counters: &Counters, socket: &UdpSocket, answer: &[u8], to: SocketAddr) {
    match socket.send_to(answer, to).await {
        Ok(_) => counters.count(Counted::Answer),
        Err(_) => counters.drop_packet(Dropped::SendFailed),
    }
}

async fn tcp_loop<S: Service>(service: Arc<S>, listener: TcpListener, limits: Limits) {
    let mut connections: JoinSet<IpAddr> = JoinSet::new();
    let mut per_source: HashMap<IpAddr, usize> = HashMap::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                release(&mut per_source, ended.ok());
                continue;
            }
        };
        let (stream, source) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "tcp accept failed");
                tokio::time::sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        while let Some(ended) = connections.try_join_next() {
            release(&mut per_source, ended.ok());
        }
        let of_source = per_source.get(&source.ip()).copied().unwrap_or(0);
        if connections.len() >= limits.tcp_connections || of_source >= limits.tcp_per_source {
            service.counters().drop_packet(Dropped::TooManyConnections);
            continue;
        }
        per_source.insert(source.ip(), of_source + 1);
        let service = Arc::clone(&service);
        connections.spawn(async move {
            if let Err(reason) = connection(&service, stream, source).await {
                service.counters().drop_packet(reason);
            }
            source.ip()
        });
    }
}

fn release(per_source: &mut HashMap<IpAddr, usize>, ended: Option<IpAddr>) {
    let Some(ip) = ended else { return };
    if let Some(count) = per_source.get_mut(&ip) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            per_source.remove(&ip);
        }
    }
}

/// Serves one connection, one query after the other.
async fn connection<S: Service>(
    service: &Arc<S>,
    stream: TcpStream,
    source: SocketAddr,
) -> Result<(), Dropped> {
    // Length and message mostly come together.
    let mut stream = BufReader::with_capacity(TCP_BUFFER, stream);
    let mut local = service.local();
    for _ in 0..TCP_EXCHANGES {
        let read = timeout(TCP_READ, read_frame(&mut stream, MAX_QUERY)).await;
        let Some(bytes) = read.map_err(|_| Dropped::TimedOut)?? else {
            return Ok(());
        };
        let packet = Packet {
            bytes: &bytes,
            source,
            transport: Transport::Tcp,
        };
        let answer = match service.begin(&mut local, packet) {
            Step::Answer(answer) => answer,
            Step::Wait(answer) => answer.await?,
            Step::Drop(reason) => return Err(reason),
        };
        let written = timeout(TCP_WRITE, write_frame(&mut stream, &answer)).await;
        written.map_err(|_| Dropped::TimedOut)??;
        service.counters().count(Counted::Answer);
    }
    Ok(())
}

/// Reads one length-prefixed message; `None` when the other side closed between two of them.
pub async fn read_frame(
    stream: &mut (impl AsyncRead + Unpin),
    max: usize,
) -> Result<Option<Vec<u8>>, Dropped> {
    let mut prefix = [0; 2];
    match stream.read(&mut prefix).await {
        Ok(0) | Err(_) => return Ok(None),
        Ok(1) => {
            let (_, second) = prefix.split_at_mut(1);
            stream
                .read_exact(second)
                .await
                .map_err(|_| Dropped::TooShort)?;
        }
        Ok(_) => {}
    }
    let len = usize::from(u16::from_be_bytes(prefix));
    if len > max {
        return Err(Dropped::TooLong);
    }
    let mut message = vec![0; len];
    stream
        .read_exact(&mut message)
        .await
        .map_err(|_| Dropped::TooShort)?;
    Ok(Some(message))
}

/// Writes one length-prefixed message.
pub async fn write_frame(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &[u8],
) -> Result<(), Dropped> {
    let len = u16::try_from(message.len()).map_err(|_| Dropped::TooLong)?;
    let mut frame = Vec::with_capacity(2 + message.len());
    frame.extend_from_slice(&len.to_be_bytes());
    frame.extend_from_slice(message);
    stream
        .write_all(&frame)
        .await
        .map_err(|_| Dropped::SendFailed)
}
