//! The relay's shell: what [`judge`] lets through goes to its resolver over a UDP socket of its own, connected so that
//! the kernel takes answers of that resolver alone, and what [`Awaited`] accepts goes back.
//!
//! Workers hand packets over through a bounded queue and never wait for it; answers leave by the workers' sockets, and come
//! back to them for connections. Exchanges are bounded in all and by source. Nothing of a packet is kept, cached or written anywhere.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as PlainSocket};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use netio::Waker;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::WorkerSockets;
use super::clerk::{Place, Way};
use super::connections::Id;
use crate::listen::{Holder, Homes, Limits, Seat, Seats};
use crate::proto::dropped::{Counted, Counters, Dropped};
use crate::proto::relay::{Awaited, PREFIX, RelayPolicy, judge};
use crate::proto::{MAX_RESPONSE, Transport};

/// How long a resolver may take: as long as our own clients wait for an answer over TCP.
const WAIT: Duration = Duration::from_secs(3);
/// Packets of all workers that wait for the relay.
const QUEUE: usize = 1024;
/// Packets of the resolver's address that are not its answer, before its socket is given up.
const MAX_REFUSED: usize = 16;

/// A relay that is to be.
#[derive(Clone, Debug)]
pub struct Relaying {
    /// What it forwards.
    pub policy: RelayPolicy,
    /// Exchanges at a time.
    pub in_flight: usize,
    /// The same for one home: an address of the server's own networks, of others an IPv4 address or IPv6 /64.
    pub per_source: usize,
    /// What it has forwarded, and why it did not: apart from the server's own.
    pub counters: Arc<Counters>,
}

/// The relay.
#[derive(Debug)]
pub(super) struct Relay {
    relaying: Relaying,
    homes: Homes,
    seats: Seats,
}

impl Relay {
    pub(super) fn new(relaying: Relaying, homes: Homes) -> Arc<Self> {
        let seats = Seats::bounded(relaying.in_flight, relaying.per_source);
        Arc::new(Self {
            relaying,
            homes,
            seats,
        })
    }

    /// Judges a packet and finds room for its exchange. Nothing has been sent.
    pub(super) fn begin(
        self: &Arc<Self>,
        packet: &[u8],
        source: IpAddr,
        transport: Transport,
    ) -> Result<Exchange, Dropped> {
        let forward = judge(packet, &self.relaying.policy)?;
        let holder = Holder::of(&self.homes, source);
        let seat = self.seats.take(holder).ok_or(Dropped::Overloaded)?;
        let exchange = Exchange {
            target: forward.target,
            awaited: forward.awaited,
            inner: packet.get(PREFIX..).unwrap_or_default().to_vec(),
            relay: Arc::clone(self),
            seat,
        };
        self.counters().count(match transport {
            Transport::Udp => Counted::UdpQuery,
            Transport::Tcp => Counted::TcpQuery,
        });
        Ok(exchange)
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.relaying.counters
    }
}

/// One query on its way. Its socket is closed when it ends, however it does.
#[derive(Debug)]
pub(super) struct Exchange {
    target: SocketAddr,
    awaited: Awaited,
    inner: Vec<u8>,
    relay: Arc<Relay>,
    seat: Seat,
}

impl Exchange {
    /// The resolver's answer, which may go back as it is, unless the place is somebody else's before it comes.
    pub(super) async fn run(self) -> Result<Vec<u8>, Dropped> {
        let Self {
            target,
            awaited,
            inner,
            relay,
            seat,
        } = self;
        let exchange = async {
            let socket = connected(target).await?;
            let sent = socket.send(&inner).await;
            sent.map_err(|_| Dropped::SendFailed)?;
            let answer = timeout(WAIT, relay.answer(&socket, target, &awaited)).await;
            answer.map_err(|_| Dropped::Unanswered)?
        };
        seat.during(exchange)
            .await
            .unwrap_or(Err(Dropped::Overloaded))
    }
}

impl Relay {
    async fn answer(
        &self,
        socket: &UdpSocket,
        target: SocketAddr,
        awaited: &Awaited,
    ) -> Result<Vec<u8>, Dropped> {
        // One byte more than the longest answer: what fills it is too long.
        let mut buffer = vec![0; MAX_RESPONSE + 1];
        for _ in 0..MAX_REFUSED {
            let received = socket.recv(&mut buffer).await;
            let len = received.map_err(|_| Dropped::Unanswered)?;
            let packet = buffer.get(..len).unwrap_or_default();
            match awaited.accepts(target, packet) {
                Ok(()) => return Ok(packet.to_vec()),
                // Whoever forges them must not be able to end the wait with the first one.
                Err(reason) => self.counters().drop_packet(reason),
            }
        }
        Err(Dropped::Unanswered)
    }
}

/// A socket of a port that nobody can foresee.
async fn connected(target: SocketAddr) -> Result<UdpSocket, Dropped> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let failed = |_: io::Error| Dropped::SendFailed;
    let socket = UdpSocket::bind(any).await.map_err(failed)?;
    socket.connect(target).await.map_err(failed)?;
    // The policy names what the configuration knows; a machine talks to its other addresses by themselves.
    if socket.local_addr().map_err(failed)?.ip() == target.ip() {
        return Err(Dropped::RelayLoop);
    }
    Ok(socket)
}

/// A worker's door and box, where there is a relay.
pub(super) fn door(
    desk: Option<&mut Desk>,
    waker: &Waker,
    limits: Limits,
) -> (Option<Door>, Option<Receiver<Relayed>>) {
    desk.map(|desk| desk.door(waker.clone(), limits.tcp_connections))
        .unzip()
}

/// What comes back for a connection; nothing: it is to be closed.
pub(super) type Relayed = (Id, Option<Vec<u8>>);

/// Where a worker leaves packets for the relay.
#[derive(Clone, Debug)]
pub(super) struct Door {
    queue: mpsc::Sender<Left>,
    worker: usize,
    relay: Arc<Relay>,
}

/// There is no room for another packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

#[derive(Debug)]
struct Left {
    worker: usize,
    place: Place,
    packet: Vec<u8>,
}

impl Door {
    /// Never waits: what finds no room is refused.
    pub(super) fn hand_over(&self, place: Place, packet: &[u8]) -> Result<(), Full> {
        let left = Left {
            worker: self.worker,
            place,
            packet: packet.to_vec(),
        };
        self.queue.try_send(left).map_err(|_| {
            self.relay.counters().drop_packet(Dropped::Overloaded);
            Full
        })
    }
}

/// The relay's side of all doors.
pub(super) struct Desk {
    relay: Arc<Relay>,
    queue: mpsc::Receiver<Left>,
    /// Kept for the doors to come.
    doors: mpsc::Sender<Left>,
    ways: Ways,
}

/// The ways back: a second descriptor of each socket of a worker, and each worker's box for connections.
struct Ways {
    sockets: Vec<PlainSocket>,
    boxes: Vec<(SyncSender<Relayed>, Waker)>,
}

impl Desk {
    /// None without a relay. The sockets are those of one worker: the others' are bound to the same addresses.
    pub(super) fn open(
        relaying: Option<Relaying>,
        homes: &Homes,
        worker: Option<&WorkerSockets>,
    ) -> io::Result<Option<Self>> {
        let (Some(relaying), Some(worker)) = (relaying, worker) else {
            return Ok(None);
        };
        let sockets = worker.udp.iter().map(netio::Udp::to_wait_on);
        let (doors, queue) = mpsc::channel(QUEUE);
        Ok(Some(Self {
            relay: Relay::new(relaying, homes.clone()),
            queue,
            doors,
            ways: Ways {
                sockets: sockets.collect::<io::Result<_>>()?,
                boxes: Vec::new(),
            },
        }))
    }

    /// The next worker's door, and its box, which has room for so many connections as it may have.
    pub(super) fn door(&mut self, waker: Waker, room: usize) -> (Door, Receiver<Relayed>) {
        let (sender, relayed) = sync_channel(room.max(1));
        let door = Door {
            queue: self.doors.clone(),
            worker: self.ways.boxes.len(),
            relay: Arc::clone(&self.relay),
        };
        self.ways.boxes.push((sender, waker));
        (door, relayed)
    }

    /// Serves the doors until the workers are gone. Owns the exchanges: dropping it ends them and closes their sockets.
    pub(super) async fn serve(self) {
        let Self {
            relay,
            mut queue,
            doors,
            ways,
        } = self;
        drop(doors);
        let ways = Arc::new(ways);
        let mut exchanges = JoinSet::new();
        while let Some(left) = queue.recv().await {
            while exchanges.try_join_next().is_some() {}
            let Left {
                worker,
                place,
                packet,
            } = left;
            let begun = relay.begin(&packet, place.peer.ip(), place.transport());
            let (relay, ways) = (Arc::clone(&relay), Arc::clone(&ways));
            let give_back = move |answer: Result<Vec<u8>, Dropped>| match ways
                .give_back(worker, place, answer)
            {
                Ok(()) => relay.counters().count(Counted::Answer),
                Err(reason) => relay.counters().drop_packet(reason),
            };
            match begun {
                Ok(exchange) => {
                    exchanges.spawn(async move { give_back(exchange.run().await) });
                }
                Err(reason) => give_back(Err(reason)),
            }
        }
    }
}

impl Ways {
    /// A connection hears of a refusal, by its end; a datagram's sender does not.
    fn give_back(
        &self,
        worker: usize,
        place: Place,
        answer: Result<Vec<u8>, Dropped>,
    ) -> Result<(), Dropped> {
        match place.way {
            Way::Udp(socket) => {
                let socket = self.sockets.get(socket).ok_or(Dropped::SendFailed)?;
                // A full buffer is not waited for, as with every other answer over UDP.
                let sent = socket.send_to(&answer?, place.peer);
                sent.map(drop).map_err(|_| Dropped::SendFailed)
            }
            Way::Tcp(connection) => {
                let (sender, waker) = self.boxes.get(worker).ok_or(Dropped::SendFailed)?;
                let (answer, outcome) = match answer {
                    Ok(answer) => (Some(answer), Ok(())),
                    Err(reason) => (None, Err(reason)),
                };
                // There is room: a connection has one query at a time. Without the other end the worker is ending.
                let _ending = sender.try_send((connection, answer));
                let _woken = waker.wake();
                outcome
            }
        }
    }
}

#[cfg(test)]
mod tests;
