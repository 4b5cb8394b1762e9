//! What control asks of a worker, some at a time: packets come before the rest.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use trust::BitRate;
use tunnel::edge::{PeerConfig, UpsertError};
use tunnel::rate::Rates;
use tunnel::{Psk, Traffic};

use super::super::{Away, Books, Command, PeerTraffic, Totals};
use super::{Admission, Engine, Next};
use crate::leases::Admitted;

/// Commands obeyed before packets have their turn: at a few microseconds each, a hundred thousand leases stream in
/// without a packet waiting for a millisecond.
const COMMANDS_PER_TURN: usize = 64;
/// Places of the table gone through in one command, for the same reason.
const PLACES_PER_COMMAND: u32 = 1_024;
/// A lease further away than this is renewed long before.
const LONGEST_LEASE: Duration = Duration::from_secs(400 * 24 * 3600);
/// Counters of removed peers that nobody has fetched yet.
const MAX_ENDED: usize = 65_536;

impl Engine {
    /// Takes some of the commands that wait; packets come before the rest.
    pub(super) fn obey(&mut self, now: Instant) -> Next {
        for _ in 0..COMMANDS_PER_TURN {
            match self.inbox.try_recv() {
                Ok(Command::Admit(admitted, lasts)) => self.admit(admitted, lasts, now),
                Ok(Command::Remove { device, wg_pub }) => self.remove(device, &wg_pub, now),
                Ok(Command::Route(Away { wg_pub, addresses })) => {
                    self.tunnel.route_elsewhere(&wg_pub, &addresses);
                }
                Ok(Command::Unroute(Away { wg_pub, addresses })) => {
                    self.tunnel.unroute_elsewhere(&wg_pub, &addresses);
                }
                Ok(Command::Totals(reply)) => {
                    // Who asked may have given up.
                    let _unheard = reply.send(self.tell_totals());
                }
                Ok(Command::PeerTraffic(from, reply)) => {
                    // As above.
                    let _unheard = reply.send(self.tell_traffic(from));
                }
                Ok(Command::StopAdmitting) => {
                    self.admission = Admission::Closed;
                    self.tunnel.drain(now);
                }
                Ok(Command::Stop) | Err(mpsc::error::TryRecvError::Disconnected) => {
                    return Next::Stop;
                }
                Err(mpsc::error::TryRecvError::Empty) => return Next::Go,
            }
        }
        // Nobody else would wake us for what is left; that it could not be written means that it is set already.
        let _woken = self.io.waker.wake();
        Next::Go
    }

    fn admit(&mut self, admitted: Admitted, lasts: Duration, now: Instant) {
        let config = PeerConfig {
            id: admitted.device,
            public: admitted.wg_pub,
            psk: admitted.psk.map(|psk| Psk::from(*psk.as_bytes())),
            allowed: admitted.addresses,
            not_after: now + lasts.min(LONGEST_LEASE),
            rates: Rates {
                to_router: admitted.limits.down.map(BitRate::bits_per_s),
                from_router: admitted.limits.up.map(BitRate::bits_per_s),
            },
        };
        if let Err(error) = self.tunnel.upsert_peer(config, now) {
            self.totals.not_admitted += 1;
            // The error's own words have the customer's address in them.
            let cause = match error {
                UpsertError::Full { .. } => "the table of peers is full",
                UpsertError::AddressTaken { .. } => "another device has its address",
                UpsertError::KeyTaken { .. } => "another device has its tunnel key",
            };
            tracing::warn!(cause, "a verified lease cannot be used");
        }
        while let Some((device, traffic)) = self.tunnel.poll_displaced() {
            self.settle(device, traffic);
        }
    }

    fn remove(&mut self, device: [u8; 32], wg_pub: &[u8; 32], now: Instant) {
        if let Some(last) = self.tunnel.remove_peer(wg_pub, now) {
            self.settle(device, last.traffic);
        }
    }

    /// Keeps what a peer that is gone carried until control asks.
    fn settle(&mut self, device: [u8; 32], traffic: Traffic) {
        if self.totals.ended.len() < MAX_ENDED {
            self.totals.ended.push((device, traffic));
        } else {
            self.totals.ended_others = self.totals.ended_others.plus(traffic);
        }
    }

    fn tell_traffic(&self, from: u32) -> PeerTraffic {
        let to = from.saturating_add(PLACES_PER_COMMAND);
        PeerTraffic {
            peers: self.tunnel.traffic_at(from..to).collect(),
            next: (to < self.tunnel.places()).then_some(to),
        }
    }

    fn tell_totals(&mut self) -> Totals {
        let tally = std::mem::take(&mut self.totals.tally);
        let ended = std::mem::take(&mut self.totals.ended);
        let ended_others = std::mem::take(&mut self.totals.ended_others);
        let inside = self
            .tunnel
            .dropped()
            .iter()
            .map(|(reason, count)| (reason.as_label(), count));
        let around = [
            ("handover_full", self.post.lost()),
            ("udp_overflow", self.io.overflowed(|lanes| &lanes.data)),
            (
                "handshakes_overflow",
                self.io.overflowed(|lanes| &lanes.handshakes),
            ),
        ];
        let dropped = inside.chain(self.io_dropped.iter()).chain(around).collect();
        let traffic = self.tunnel.traffic();
        Totals {
            handed_over: self.post.handed_over(),
            rx_packets: traffic.rx_packets,
            tx_packets: traffic.tx_packets,
            books: Books {
                headers: self.tunnel.header_bytes(),
                ledger: self.tunnel.ledger(),
                not_written: self.io_dropped.tun_bytes,
                not_handed_over: self.post.lost_bytes(),
            },
            rx_bytes: traffic.rx_bytes,
            tx_bytes: traffic.tx_bytes,
            peers: self.tunnel.peer_count(),
            awake: self.tunnel.awake_count(),
            carried: self.tunnel.carried(),
            handshakes: self.tunnel.handshakes(),
            dropped,
            ended,
            ended_others,
            tally,
            ..self.totals.clone()
        }
    }
}
