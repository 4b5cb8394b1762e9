//! The load over UDP: one thread and one socket, many datagrams in one system call.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use netio::poll::Interest;
use netio::udp::{Batch, MAX_BATCH, Offload};
use netio::{Poller, Udp, UdpOptions};

use super::plan::{Lookup, Opening, Pace, Plan, Progress, UDP};
use super::tally::Tally;
use crate::cli::exit::{Failure, IO};

/// A lookup that takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(2);
/// Lookups at a steady rate that may wait for their answers.
const MOST_WAITING: usize = 32_768;
const NAP: Duration = Duration::from_millis(1);

/// Runs the plan and gives what came of it, and how long it took.
pub(super) fn run(plan: &Plan) -> Result<(Tally, Duration), Failure> {
    let failed = |error: io::Error| Failure::io("sending lookups over UDP", &error);
    let local = match plan.server {
        SocketAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
        SocketAddr::V6(_) => SocketAddr::from(([0_u16; 8], 0)),
    };
    let options = UdpOptions {
        offload: Offload::Never,
        ..UdpOptions::default()
    };
    let socket = Udp::bind(local, &options).map_err(|error| Failure::new(IO, error.to_string()))?;
    let poller = Poller::new().map_err(failed)?;
    poller.add(&socket, 0, Interest::Readable).map_err(failed)?;
    let most = match plan.pace {
        Pace::PerSecond(_) => MOST_WAITING,
        Pace::Saturate => plan.in_flight,
    };
    let mut load = Load {
        plan,
        socket,
        poller,
        tally: Tally::default(),
        waiting: Waiting::new(most),
        outbox: Vec::new(),
        numbers: 0,
    };
    load.run().map_err(failed)
}

struct Load<'a> {
    plan: &'a Plan,
    socket: Udp,
    poller: Poller,
    tally: Tally,
    waiting: Waiting,
    outbox: Vec<(SocketAddr, Vec<u8>)>,
    numbers: u64,
}

impl Load<'_> {
    fn run(&mut self) -> io::Result<(Tally, Duration)> {
        let mut batch = Batch::new(self.plan.sealing.longest_answer());
        let began = Instant::now();
        let mut progress = Progress::new(began);
        loop {
            let now = Instant::now();
            let after = now.saturating_duration_since(began);
            let goes_on = self.plan.goes_on(after);
            if goes_on {
                self.send(after, now);
            } else if self.waiting.is_empty() {
                let lasted = after.min(self.plan.lasting);
                return Ok((std::mem::take(&mut self.tally), lasted));
            }
            self.receive(&mut batch)?;
            for lookup in self.waiting.expired(Instant::now()) {
                self.tally.lost += 1;
                self.plan.sealing.unanswered(&lookup);
            }
            progress.look(&self.tally, now);
            let is_behind = goes_on && self.next_due(began) <= Instant::now();
            if !is_behind || self.waiting.is_full() {
                let nap = self.nap(began, goes_on);
                self.poller.wait(Some(nap))?.for_each(drop);
            }
        }
    }

    fn next_due(&self, began: Instant) -> Instant {
        began + self.plan.pace.at(self.numbers)
    }

    fn nap(&self, began: Instant, goes_on: bool) -> Duration {
        if !goes_on || self.waiting.is_full() {
            return NAP;
        }
        let until = self
            .next_due(began)
            .saturating_duration_since(Instant::now());
        until.min(NAP)
    }

    /// Sends what is due, a batch at most.
    fn send(&mut self, after: Duration, now: Instant) {
        let due = self.plan.pace.due(after);
        while self.numbers < due && self.outbox.len() < MAX_BATCH {
            let Some(place) = self.waiting.place() else {
                if let Pace::PerSecond(_) = self.plan.pace {
                    self.tally.withheld += 1;
                    self.numbers += 1;
                    continue;
                }
                break;
            };
            let id = u16::try_from(place).unwrap_or_default();
            let message = self.plan.names.message(self.numbers, id);
            let lookup = message.and_then(|query| self.plan.sealing.dress(query, place, UDP));
            self.numbers += 1;
            let Some(mut lookup) = lookup else {
                self.waiting.leave(place);
                self.tally.withheld += 1;
                // As the next ones may be: the time is looked at before them.
                break;
            };
            let packet = match &lookup.open {
                // It is compared with the answer.
                Opening::Plain => lookup.packet.clone(),
                Opening::Sealed { .. } => std::mem::take(&mut lookup.packet),
            };
            self.outbox.push((self.plan.server, packet));
            self.waiting.put(place, lookup, now);
        }
        if self.outbox.is_empty() {
            return;
        }
        let sent = self.socket.send_batch(&self.outbox);
        let unsent = self.outbox.len() - sent;
        self.waiting.take_back(unsent);
        self.tally.sent += sent as u64;
        self.tally.withheld += unsent as u64;
        self.outbox.clear();
    }

    fn receive(&mut self, batch: &mut Batch) -> io::Result<()> {
        self.socket.recv_batch(batch)?;
        let now = Instant::now();
        let sealing = &self.plan.sealing;
        for (from, packet) in batch.iter() {
            let place = sealing.place_of(packet);
            let Some(place) = place.filter(|_| from == self.plan.server) else {
                continue;
            };
            let answer = self
                .waiting
                .get(place)
                .and_then(|(lookup, sent_at)| Some((sealing.open(lookup, packet)?, sent_at)));
            if let Some((answer, sent_at)) = answer {
                self.tally
                    .answer(&answer, now.saturating_duration_since(sent_at));
                self.waiting.end(place);
            }
        }
        Ok(())
    }
}

/// Lookups under way, by their place.
struct Waiting {
    places: Vec<Option<(Lookup, Instant)>>,
    /// The one that has been free for longest comes first: what is late finds nobody in its place.
    free: VecDeque<u32>,
    /// In the order of their sending; those that have ended meanwhile are still in it.
    order: VecDeque<(u32, Instant)>,
}

impl Waiting {
    /// Places for so many; an id of 16 bits names each.
    fn new(most: usize) -> Self {
        let most = u32::try_from(most.min(usize::from(u16::MAX))).unwrap_or(1);
        Self {
            places: (0..most).map(|_| None).collect(),
            free: (0..most).collect(),
            order: VecDeque::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.free.len() == self.places.len()
    }

    fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    fn place(&mut self) -> Option<u32> {
        self.free.pop_front()
    }

    fn leave(&mut self, place: u32) {
        self.free.push_back(place);
    }

    fn put(&mut self, place: u32, lookup: Lookup, now: Instant) {
        if let Some(slot) = self.places.get_mut(place as usize) {
            *slot = Some((lookup, now));
            self.order.push_back((place, now));
        }
    }

    fn get(&self, place: u32) -> Option<(&Lookup, Instant)> {
        let (lookup, at) = self.places.get(place as usize)?.as_ref()?;
        Some((lookup, *at))
    }

    fn end(&mut self, place: u32) -> Option<Lookup> {
        let (lookup, _) = self.places.get_mut(place as usize)?.take()?;
        self.leave(place);
        Some(lookup)
    }

    /// Forgets the last ones, which were not sent.
    fn take_back(&mut self, count: usize) {
        for _ in 0..count {
            if let Some((place, _)) = self.order.pop_back() {
                self.end(place);
            }
        }
    }

    /// Ends those that have waited too long.
    fn expired(&mut self, now: Instant) -> Vec<Lookup> {
        let mut expired = Vec::new();
        while let Some((place, at)) = self.order.front().copied() {
            let is_same = self.get(place).is_some_and(|(_, since)| since == at);
            if is_same && now.saturating_duration_since(at) < PATIENCE {
                break;
            }
            self.order.pop_front();
            if is_same {
                expired.extend(self.end(place));
            }
        }
        expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup() -> Lookup {
        Lookup {
            packet: Vec::new(),
            open: Opening::Plain,
        }
    }

    #[test]
    fn a_lookup_that_waits_too_long_is_lost_once_and_its_place_is_used_last() {
        let now = Instant::now();
        let mut waiting = Waiting::new(3);
        for _ in 0..2 {
            let place = waiting.place().unwrap();
            waiting.put(place, lookup(), now);
        }
        waiting.end(0);

        assert!(waiting.expired(now).is_empty());
        assert_eq!(waiting.expired(now + PATIENCE).len(), 1);
        assert!(waiting.expired(now + PATIENCE).is_empty());
        assert!(waiting.is_empty());
        let places: Vec<_> = (0..3).filter_map(|_| waiting.place()).collect();
        assert_eq!(places, [2, 0, 1]);
        assert!(waiting.is_full());
    }

    #[test]
    fn what_was_not_sent_waits_for_nothing() {
        let now = Instant::now();
        let mut waiting = Waiting::new(2);
        for _ in 0..2 {
            let place = waiting.place().unwrap();
            waiting.put(place, lookup(), now);
        }

        waiting.take_back(1);

        assert!(waiting.get(0).is_some() && waiting.get(1).is_none());
        assert_eq!(waiting.expired(now + PATIENCE).len(), 1);
    }
}
