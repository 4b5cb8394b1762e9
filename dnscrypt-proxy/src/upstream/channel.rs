//! One UDP socket on one way to a resolver, shared by all queries in flight. A reader task owns the receiving
//! side and hands each packet to whoever waits for its nonce; it ends when the channel is dropped.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::way::Way;
use crate::proto::MAX_QUERY;
use crate::proto::client::{ClientNonce, answered_nonce};

/// Queries that may wait at the same time.
const MAX_WAITING: usize = 8192;
/// Packets with the right nonce that are kept per query: the true one may come behind forged ones.
const PER_QUERY: usize = 4;
/// After an error of the socket (an ICMP refusal, mostly), so that a persistent one does not spin.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

// Contended by the reader and by queries that begin or end, each for one map operation.
type Waiting = Arc<Mutex<HashMap<ClientNonce, mpsc::Sender<Vec<u8>>>>>;

pub(super) struct Channel {
    socket: Arc<UdpSocket>,
    way: Way,
    waiting: Waiting,
    reader: JoinHandle<()>,
}

impl Channel {
    pub(super) fn new(socket: UdpSocket, way: Way) -> Self {
        let socket = Arc::new(socket);
        let waiting = Waiting::default();
        let reader = tokio::spawn(read(Arc::clone(&socket), Arc::clone(&waiting)));
        Self {
            socket,
            way,
            waiting,
            reader,
        }
    }

    pub(super) fn way(&self) -> Way {
        self.way
    }

    /// Begins to wait for answers to a nonce.
    pub(super) fn expect(&self, nonce: ClientNonce) -> io::Result<Expected> {
        let (sender, packets) = mpsc::channel(PER_QUERY);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= MAX_WAITING {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "too many queries wait for this resolver",
            ));
        }
        waiting.insert(nonce, sender);
        Ok(Expected {
            nonce,
            packets,
            waiting: Arc::clone(&self.waiting),
        })
    }

    pub(super) async fn send(&self, packet: &[u8]) -> io::Result<()> {
        let packet = self.way.dress(packet);
        match self.socket.send(&packet).await {
            // The refusal of an earlier packet, reported late: this one was not sent.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                self.socket.send(&packet).await.map(drop)
            }
            sent => sent.map(drop),
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// A query that waits; it stops waiting when dropped.
pub(super) struct Expected {
    nonce: ClientNonce,
    packets: mpsc::Receiver<Vec<u8>>,
    waiting: Waiting,
}

impl Expected {
    pub(super) fn nonce(&self) -> &ClientNonce {
        &self.nonce
    }

    /// The next packet that claims to answer.
    pub(super) async fn next(&mut self) -> Option<Vec<u8>> {
        self.packets.recv().await
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.remove(&self.nonce);
    }
}

async fn read(socket: Arc<UdpSocket>, waiting: Waiting) {
    let mut buffer = vec![0; MAX_QUERY + 1];
    loop {
        let Ok(len) = socket.recv(&mut buffer).await else {
            tokio::time::sleep(ERROR_PAUSE).await;
            continue;
        };
        let packet = buffer.get(..len).unwrap_or_default();
        let Ok(nonce) = answered_nonce(packet) else {
            continue;
        };
        let waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(query) = waiting.get(&nonce) {
            // Full means that forged packets came faster than they could be refused; the query retries.
            let _ = query.try_send(packet.to_vec());
        }
    }
}
