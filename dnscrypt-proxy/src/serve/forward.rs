//! Asks other resolvers for one worker, within its thread: no task, no lock, a system call for all that leaves in a turn.
//! Ports are connected sockets, so that the kernel drops what others than the server send; they are drawn for each
//! turn, and left for new ones after some use. What datagrams cannot carry or cannot be trusted with goes the other way.
//!
//! `questions` decides, without sockets or clocks; `verdict` reads answers; `servers` knows whom to ask.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use hickory_proto::rr::RecordType;
use netio::poll::Interest;
use netio::udp::{Batch, Offload};
use netio::{Poller, Udp, UdpOptions};

use super::Heard;
use super::clerk::Ask;
use super::randomness::Page;
use crate::proto::message::OUR_UDP_SIZE;

mod counts;
mod questions;
mod servers;
mod verdict;

pub use counts::{Event, Events};
use questions::Questions;
use servers::Zones;

/// Tokens of its ports; below are the worker's datagrams, above its listeners and connections.
const FIRST_PORT: u32 = 1 << 20;
const LAST_PORT: u32 = 1 << 29;
/// A server to which there is no way, or no descriptor, is left alone for so long.
const UNREACHABLE_MS: u64 = 1_000;
/// The kernel's buffer of each port: some hundred answers.
const BUFFER_BYTES: usize = 512 << 10;

/// Whom the workers ask by themselves; all other questions go to the server's handler.
#[derive(Clone, Debug)]
pub struct Forwarding {
    /// Zones and their servers; the longest name that fits a question counts.
    pub zones: Vec<Zone>,
    /// Types of records that are for the handler wherever they are asked for: it makes more of the answers.
    pub left: Vec<RecordType>,
    /// What happened.
    pub events: Arc<Events>,
}

/// A zone whose questions go to certain servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Its name as in a question: labels with their lengths, in lower case. The root's (one zero) is above all.
    pub suffix: Box<[u8]>,
    /// Resolvers, the preferred one first. None: what is under this name is for the handler.
    pub servers: Vec<SocketAddr>,
}

/// One worker's part.
pub(super) struct Forwarder {
    questions: Questions<Page>,
    left: Vec<RecordType>,
    ports: HashMap<u32, Udp>,
    next_port: u32,
    batch: Batch,
    /// Servers without a way to them, and until when nobody tries.
    unreachable: HashMap<usize, u64>,
}

impl Forwarder {
    pub(super) fn new(forwarding: &Forwarding) -> Self {
        let zones = Zones::new(&forwarding.zones);
        Self {
            questions: Questions::new(zones, Arc::clone(&forwarding.events), Page::new()),
            left: forwarding.left.clone(),
            ports: HashMap::new(),
            next_port: FIRST_PORT,
            // One byte more than is asked for: what fills it is too long, and cut.
            batch: Batch::new(usize::from(OUR_UDP_SIZE) + 1),
            unreachable: HashMap::new(),
        }
    }

    /// Whether a token of the poller is one of its ports'.
    pub(super) fn has(token: u32) -> bool {
        (FIRST_PORT..=LAST_PORT).contains(&token)
    }

    /// Takes a question, or gives it back.
    #[expect(
        clippy::result_large_err,
        reason = "the question goes on in another way"
    )]
    pub(super) fn ask(&mut self, ask: Ask, now_ms: u64) -> Result<(), Ask> {
        if self.left.contains(&ask.asked.qtype) {
            return Err(ask);
        }
        self.questions.ask(ask, now_ms)
    }

    /// Ends a question, if it is asked here.
    pub(super) fn give_up(&mut self, number: u64) {
        self.questions.give_up(number);
    }

    /// Reads what came on a port.
    pub(super) fn receive(&mut self, token: u32, now_ms: u64) {
        let Some(socket) = self.ports.get(&token) else {
            return;
        };
        match socket.recv_batch(&mut self.batch) {
            Ok(_) => {}
            Err(error) => {
                // Its questions will be asked again from others.
                tracing::debug!(%error, "a port of the forwarder cannot be read");
                return self.close(token);
            }
        }
        for (_, datagram) in self.batch.iter() {
            self.questions.handle_datagram(token, datagram, now_ms);
        }
    }

    /// Looks at what is overdue.
    pub(super) fn handle_timeout(&mut self, now_ms: u64) {
        self.questions.handle_timeout(now_ms);
    }

    /// When something will be overdue.
    pub(super) fn poll_timeout(&self) -> Option<u64> {
        self.questions.poll_timeout()
    }

    /// Answers, by the numbers of their questions.
    pub(super) fn answers(&mut self) -> Vec<(u64, Heard)> {
        std::mem::take(&mut self.questions.out.answers)
    }

    /// Questions that have to be asked over TCP.
    pub(super) fn elsewhere(&mut self) -> Vec<Ask> {
        std::mem::take(&mut self.questions.out.elsewhere)
    }

    /// Sends what was made in this turn, and sees to the ports.
    pub(super) fn flush(&mut self, poller: &Poller, now_ms: u64) {
        while let Some((number, datagrams)) = self.questions.poll_transmit() {
            if let Some(socket) = self.ports.get(&number) {
                // What the kernel does not take is lost as on the wire, and asked again.
                let _sent = socket.send_batch_to_peer(&datagrams);
            }
        }
        for number in std::mem::take(&mut self.questions.out.closed) {
            self.ports.remove(&number);
        }
        self.renew_ports(poller, now_ms);
    }

    /// Opens the ports that are missing; without descriptors for them there are fewer to draw from.
    pub(super) fn renew_ports(&mut self, poller: &Poller, now_ms: u64) {
        self.unreachable.retain(|_, until_ms| now_ms < *until_ms);
        for (server, address) in self.questions.wanted_ports(now_ms) {
            if self.unreachable.contains_key(&server) {
                continue;
            }
            let opened = Udp::connected(address, &options())
                .map_err(|error| error.to_string())
                .and_then(|socket| {
                    let added = poller.add(&socket, self.next_port, Interest::Readable);
                    added.map(|()| socket).map_err(|error| error.to_string())
                });
            match opened {
                Ok(socket) => {
                    self.ports.insert(self.next_port, socket);
                    self.questions.port_opened(server, self.next_port, now_ms);
                    self.next_port = match self.next_port {
                        LAST_PORT => FIRST_PORT,
                        port => port + 1,
                    };
                }
                Err(error) => {
                    tracing::debug!(error, "the forwarder gets no port");
                    self.unreachable.insert(server, now_ms + UNREACHABLE_MS);
                }
            }
        }
    }

    fn close(&mut self, number: u32) {
        self.ports.remove(&number);
        self.questions.port_failed(number);
    }
}

fn options() -> UdpOptions {
    UdpOptions {
        buffer_bytes: BUFFER_BYTES,
        offload: Offload::Sending,
        ..UdpOptions::default()
    }
}

#[cfg(test)]
mod tests;
