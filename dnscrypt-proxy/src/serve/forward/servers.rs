//! Whom questions go to: zones with their servers, how these have fared, and the ports from which each is asked.

use std::collections::HashMap;
use std::net::SocketAddr;

use hickory_proto::rr::{Name, RecordType};
use hickory_proto::serialize::binary::BinEncodable as _;
use rand_core::RngCore;

use super::Zone;
use crate::proto::message::Query;

/// Ports that are open towards a server at the same time, for each worker.
const PORTS: usize = 16;
/// A port is left for a new one after so many times that it was drawn,
const MAX_DRAWS: u32 = 512;
/// or after that time.
const MAX_AGE_MS: u64 = 60_000;
/// Failures in a row that are taken for bad luck.
const LUCK: u32 = 2;
/// How long a server that does not answer is asked last, doubled with each time more that it does not.
const SHUN_MS: u64 = 1_000;
const MAX_SHUN_MS: u64 = 60_000;

/// All zones and servers.
#[derive(Debug)]
pub(super) struct Zones {
    /// The servers of each, in the order of the configuration.
    zones: Vec<Vec<usize>>,
    /// By name as in a question, in lower case.
    by_name: HashMap<Box<[u8]>, usize>,
    servers: Vec<Server>,
    retired: Vec<u32>,
}

/// A server, as one worker knows it.
#[derive(Debug)]
pub(super) struct Server {
    address: SocketAddr,
    ports: Vec<PortUse>,
    /// The port of this turn's questions.
    drawn: Option<u32>,
    failures: u32,
    shunned_until_ms: u64,
}

/// How much a port has been used.
#[derive(Clone, Copy, Debug)]
pub(super) struct PortUse {
    number: u32,
    draws: u32,
    opened_at_ms: u64,
}

impl Zones {
    pub(super) fn new(zones: &[Zone]) -> Self {
        let mut servers: Vec<Server> = Vec::new();
        let mut known = |address: SocketAddr| {
            let at = servers.iter().position(|server| server.address == address);
            at.unwrap_or_else(|| {
                servers.push(Server::new(address));
                servers.len() - 1
            })
        };
        let by_name = zones.iter().zip(0..);
        let by_name = by_name
            .map(|(zone, at)| (zone.suffix.clone(), at))
            .collect();
        let of_zone = |zone: &Zone| zone.servers.iter().map(|server| known(*server)).collect();
        Self {
            zones: zones.iter().map(of_zone).collect(),
            by_name,
            servers,
            retired: Vec::new(),
        }
    }

    /// The zone whose servers a question is for.
    pub(super) fn of(&self, asked: &Query) -> Option<usize> {
        // These are refused, by whom the others are for.
        let is_served = !matches!(
            asked.qtype,
            RecordType::AXFR | RecordType::IXFR | RecordType::ANY | RecordType::OPT
        );
        if !is_served || !asked.is_ordinary() {
            return None;
        }
        let question = asked.question();
        let name = question.get(..question.len().saturating_sub(4))?;
        self.around(&name.to_ascii_lowercase())
    }

    /// Whether a name is for the servers of a zone, and not of one below it.
    pub(super) fn has(&self, zone: usize, name: &Name) -> bool {
        let name = name.to_lowercase().to_bytes();
        name.is_ok_and(|name| self.around(&name) == Some(zone))
    }

    /// The longest zone that a name is in, if servers are asked for it.
    fn around(&self, name: &[u8]) -> Option<usize> {
        let mut suffixes = std::iter::successors(Some(name), |name| {
            let (len, rest) = name.split_first()?;
            rest.get(usize::from(*len)..)
                .filter(|rest| !rest.is_empty())
        });
        let found = suffixes.find_map(|suffix| self.by_name.get(suffix).copied());
        found.filter(|zone| self.servers_of(*zone) > 0)
    }

    pub(super) fn servers_of(&self, zone: usize) -> usize {
        self.zones.get(zone).map_or(0, Vec::len)
    }

    /// The server for a question that was asked so many times before.
    pub(super) fn choose(&mut self, zone: usize, tries: usize, now_ms: u64) -> Option<&mut Server> {
        let of_zone = self.zones.get(zone)?;
        let shunned_for = |at: &usize| {
            let server = self.servers.get(*at);
            server.map_or(0, |server| server.shunned_until_ms.saturating_sub(now_ms))
        };
        let chosen = if of_zone.len() == 1 {
            of_zone.first().copied()
        } else {
            let mut ordered = of_zone.clone();
            ordered.sort_by_key(shunned_for);
            ordered.get(tries % ordered.len()).copied()
        };
        self.servers.get_mut(chosen?)
    }

    pub(super) fn answered(&mut self, server: usize) {
        if let Some(server) = self.servers.get_mut(server) {
            server.failures = 0;
            server.shunned_until_ms = 0;
        }
    }

    pub(super) fn timed_out(&mut self, server: usize, now_ms: u64) {
        let Some(server) = self.servers.get_mut(server) else {
            return;
        };
        // Those of one crowd are one failure.
        if now_ms < server.shunned_until_ms {
            return;
        }
        server.failures = server.failures.saturating_add(1);
        if let Some(times) = server.failures.checked_sub(LUCK) {
            let shun_ms = SHUN_MS.checked_shl(times.min(8)).unwrap_or(MAX_SHUN_MS);
            server.shunned_until_ms = now_ms + shun_ms.min(MAX_SHUN_MS);
        }
    }

    /// Servers that want another port; those that were used enough are retired.
    pub(super) fn wanted_ports(&mut self, now_ms: u64) -> Vec<(usize, SocketAddr)> {
        let mut wanted = Vec::new();
        for (at, server) in self.servers.iter_mut().enumerate() {
            let is_used_up = |port: &PortUse| {
                port.draws >= MAX_DRAWS || now_ms.saturating_sub(port.opened_at_ms) >= MAX_AGE_MS
            };
            // One at a time, so that there are always enough to draw from.
            if let Some(place) = server.ports.iter().position(is_used_up) {
                self.retired.push(server.ports.swap_remove(place).number);
            }
            let missing = PORTS.saturating_sub(server.ports.len());
            wanted.extend(std::iter::repeat_n((at, server.address), missing));
        }
        wanted
    }

    pub(super) fn opened(&mut self, server: usize, number: u32, now_ms: u64) {
        if let Some(server) = self.servers.get_mut(server) {
            server.ports.push(PortUse {
                number,
                draws: 0,
                opened_at_ms: now_ms,
            });
        }
    }

    /// Ports that nothing more is asked from.
    pub(super) fn retired(&self) -> Vec<u32> {
        self.retired.clone()
    }

    pub(super) fn closed(&mut self, number: u32) {
        self.retired.retain(|retired| *retired != number);
    }

    /// Nothing more is asked from a port, and it is gone.
    pub(super) fn retire(&mut self, server: usize, number: u32) {
        self.closed(number);
        if let Some(server) = self.servers.get_mut(server) {
            server.ports.retain(|port| port.number != number);
            server.drawn = server.drawn.filter(|drawn| *drawn != number);
        }
    }

    /// A port that was drawn in this turn.
    pub(super) fn take_drawn(&mut self) -> Option<u32> {
        self.servers
            .iter_mut()
            .find_map(|server| server.drawn.take())
    }
}

impl Server {
    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            ports: Vec::new(),
            drawn: None,
            failures: 0,
            shunned_until_ms: 0,
        }
    }

    /// The port to ask from. It is drawn once a turn, so that a turn's questions leave in one call: for whoever guesses at
    /// one question, its port is as unknown as if it had been drawn for it alone.
    pub(super) fn draw(&mut self, random: &mut impl RngCore) -> Option<u32> {
        if let Some(drawn) = self.drawn {
            return Some(drawn);
        }
        let at = usize::try_from(random.next_u32()).unwrap_or_default();
        let place = at.checked_rem(self.ports.len())?;
        let port = self.ports.get_mut(place)?;
        port.draws += 1;
        self.drawn = Some(port.number);
        self.drawn
    }
}
