//! The sockets of all workers on one port. Each worker has two: one for packets and one for initiations, so that a flood of
//! these fills a buffer of its own. The kernel steers by what the datagram says: the receiver index, which this gateway
//! chose, has the worker in it; an initiation, which names nobody, goes by its sender's address.

use std::net::SocketAddr;

use netio::udp::steering::{Choice, Lane, Rule};
use netio::udp::{Offload, UdpError};
use netio::{Udp, UdpOptions};
use tunnel::share::{WORKER_BYTE, WORKER_MASK};

/// First bytes of WireGuard messages (whitepaper section 5.4): an initiation, and its response, whose receiver index comes
/// after the sender's.
pub(super) const INITIATION: u8 = 1;
const RESPONSE: u8 = 2;
/// Where the receiver index is: in a response, and in everything else that has one.
const INDEX_OF_RESPONSE: u8 = 8;
const INDEX: u8 = 4;
/// What packets may wait in while a worker is kept from its processor: 15 ms at 5 Gb/s at the least, since the kernel, which doubles
/// this, counts up to three times the bytes of a run.
const DATA_BUFFER_BYTES: usize = 16 << 20;
/// The kernel counts about 2 KB for an initiation: more of them than are answered in half a second are not worth keeping.
const HANDSHAKE_BUFFER_BYTES: usize = 1 << 20;

/// One worker's sockets on a port.
#[derive(Debug)]
pub struct Lanes {
    /// For everything that belongs to a session, and for sending.
    pub data: Udp,
    /// For initiations.
    pub handshakes: Udp,
}

/// Binds the sockets of `workers` workers to `address`.
pub(crate) fn bind(address: SocketAddr, workers: u16) -> Result<Vec<Lanes>, UdpError> {
    let data = UdpOptions {
        reuse_port: true,
        buffer_bytes: DATA_BUFFER_BYTES,
        ..UdpOptions::default()
    };
    let handshakes = UdpOptions {
        buffer_bytes: HANDSHAKE_BUFFER_BYTES,
        // One at a time: a run of many would hold packets up.
        offload: Offload::Never,
        ..data.clone()
    };
    refuse_a_busy_port(address)?;
    let mut bound = Vec::new();
    let mut address = address;
    for options in [&data, &handshakes] {
        for _ in 0..workers {
            let socket = Udp::bind(address, options)?;
            // With port 0, the first socket's port is everybody's.
            address = socket.local_addr().unwrap_or(address);
            bound.push(socket);
        }
    }
    if let Some(first) = bound.first()
        && let Err(error) = steer(first, workers)
    {
        tracing::warn!(%error, "this kernel does not steer datagrams; workers hand them to each other, which is slower");
    }
    let handshakes = bound.split_off(workers.into());
    let pairs = bound.into_iter().zip(handshakes);
    Ok(pairs
        .map(|(data, handshakes)| Lanes { data, handshakes })
        .collect())
}

/// Sockets that share a port would share it with another gateway's, too, and take each other's datagrams.
fn refuse_a_busy_port(address: SocketAddr) -> Result<(), UdpError> {
    Udp::bind(address, &UdpOptions::default()).map(drop)
}

fn steer(socket: &Udp, workers: u16) -> std::io::Result<()> {
    let by_index = |offset| Lane {
        first: 0,
        count: workers,
        choice: Choice::Byte {
            offset: offset + WORKER_BYTE,
            mask: WORKER_MASK,
        },
    };
    let rules = [
        Rule {
            first_byte: INITIATION,
            lane: Lane {
                first: workers,
                count: workers,
                choice: Choice::Source,
            },
        },
        Rule {
            first_byte: RESPONSE,
            lane: by_index(INDEX_OF_RESPONSE),
        },
    ];
    socket.steer(&rules, by_index(INDEX))
}

#[cfg(test)]
mod tests {
    use netio::RecvBuffer;
    use netio::udp::Sent;

    use super::*;

    #[test]
    fn a_port_that_another_gateway_has_is_busy_although_its_sockets_would_share_it() {
        let first = bind("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        let address = first[0].data.local_addr().unwrap();

        assert!(matches!(bind(address, 2), Err(UdpError::Busy(_))));
    }

    #[test]
    fn initiations_have_sockets_of_their_own_and_the_rest_goes_to_the_worker_in_its_index() {
        let lanes = bind("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let address = lanes[0].data.local_addr().unwrap();
        let sender = Udp::bind("127.0.0.1:0".parse().unwrap(), &UdpOptions::default()).unwrap();
        let send = |kind: u8, at: usize, worker: u8| {
            let mut datagram = [0xff; 148];
            datagram[0] = kind;
            datagram[at] = 0xc0 | worker;
            assert!(matches!(sender.send(address, &datagram, 148), Sent::Yes));
        };
        for worker in 0..3 {
            for (kind, at) in [(2, 9), (3, 5), (4, 5)] {
                send(kind, at, worker);
            }
            send(INITIATION, 5, worker);
        }

        let waiting = |socket: &Udp| {
            let mut buffer = RecvBuffer::new();
            std::iter::from_fn(|| {
                let received = socket.recv(&mut buffer).unwrap()?;
                Some(received.datagrams().count())
            })
            .sum()
        };
        let data: Vec<usize> = lanes.iter().map(|lanes| waiting(&lanes.data)).collect();
        let handshakes: usize = lanes.iter().map(|lanes| waiting(&lanes.handshakes)).sum();
        assert_eq!((data, handshakes), (vec![3, 3, 3], 3));
    }
}
