//! TLS at a port of DNSCrypt. A connection that begins as TLS does is left, with what was read of it, for somebody else; the
//! worker has its place back at once and never waits. Here is no TLS.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use netio::tcp::Stream;
use tokio::sync::mpsc;

use super::connections::LONGEST;
use crate::proto::dropped::Dropped;

/// How every TLS connection begins: the record of a handshake, of a version 3.x (RFC 8446, section 5.1).
const TLS: [u8; 2] = [22, 3];
// No query begins so: as the length of one it would be too long.
const _: () = assert!(u16::from_be_bytes(TLS) as usize > LONGEST);
/// Connections of all workers that wait to be taken, which takes no handshake.
const QUEUE: usize = 256;

/// A connection that began as TLS does.
#[derive(Debug)]
pub struct Begun {
    /// What comes after the beginning. Its reads block until it is told not to.
    pub stream: TcpStream,
    /// Who is at its other end.
    pub source: SocketAddr,
    /// The beginning.
    pub read: Vec<u8>,
}

/// Where workers leave such connections.
#[derive(Clone, Debug)]
pub struct TlsDoor {
    /// TLS is spoken here and nowhere else.
    addresses: Arc<[SocketAddr]>,
    queue: mpsc::Sender<Begun>,
}

impl TlsDoor {
    /// For connections to these addresses, which wait at the other end.
    #[must_use]
    pub fn open(addresses: Vec<SocketAddr>) -> (Self, mpsc::Receiver<Begun>) {
        let (queue, begun) = mpsc::channel(QUEUE);
        let addresses = addresses.into();
        (Self { addresses, queue }, begun)
    }

    /// Room for a connection that began so, if that is TLS where it is spoken.
    pub(super) fn place(
        &self,
        stream: &Stream,
        read: &[u8],
    ) -> Result<mpsc::Permit<'_, Begun>, Dropped> {
        let asked = stream.local_addr();
        if !read.starts_with(&TLS) || !asked.is_ok_and(|asked| self.addresses.contains(&asked)) {
            return Err(Dropped::TooLong);
        }
        let place = self.queue.try_reserve();
        place.map_err(|_| Dropped::TooManyConnections)
    }
}
