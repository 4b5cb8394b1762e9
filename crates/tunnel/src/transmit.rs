//! What is to be sent: sealed datagrams side by side in one buffer, in runs that one `UDP_SEGMENT` call can send.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::dropped::Dropped;
use crate::stats::Traffic;

/// The most datagrams in a run: the kernel's `UDP_MAX_SEGMENTS` before Linux 6.9.
const MAX_SEGMENTS: usize = 64;

/// The most bytes in a run: the payload of the largest UDP datagram, less room for IP options.
const MAX_RUN_BYTES: usize = 65_000;

/// The most bytes that wait to be sent; what is sealed beyond them is dropped.
const MAX_BYTES: usize = 256 * 1024;

/// A run of datagrams to one destination, all of `segment` bytes but for the last, which may be shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit<'a> {
    /// Where to.
    pub to: SocketAddr,
    /// The datagrams, end to end.
    pub payload: &'a [u8],
    /// The length of each.
    pub segment: usize,
    /// The outer header's TOS or traffic class byte.
    pub tos: u8,
}

impl<'a> Transmit<'a> {
    /// The datagrams one by one.
    pub fn datagrams(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.payload.chunks(self.segment.max(1))
    }
}

/// The sealed datagrams that wait for `poll_transmit`; it grows to its high-water mark once and is reused.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    used: usize,
    runs: VecDeque<Run>,
    carried: Traffic,
    waiting: u64,
    given_up: u64,
}

#[derive(Debug)]
struct Run {
    to: SocketAddr,
    tos: u8,
    start: usize,
    end: usize,
    segment: usize,
}

impl Outbox {
    /// Room for one datagram of at most `len` bytes, to be followed by [`Outbox::commit`] if it is to be sent.
    pub(crate) fn reserve(&mut self, len: usize) -> Result<&mut [u8], Dropped> {
        if self.runs.is_empty() {
            self.used = 0;
        }
        let end = self.used + len;
        if end > MAX_BYTES {
            return Err(Dropped::QueueFull);
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes.get_mut(self.used..end).ok_or(Dropped::QueueFull)
    }

    /// Queues the first `len` bytes of what was reserved last.
    pub(crate) fn commit(&mut self, len: usize, to: SocketAddr, tos: u8) {
        let start = self.used;
        self.used = (start + len).min(self.bytes.len());
        match self.runs.back_mut() {
            Some(run) if run.takes(len, to, tos) => run.end = self.used,
            _ => self.runs.push_back(Run {
                to,
                tos,
                start,
                end: self.used,
                segment: len,
            }),
        }
    }

    /// Queues a copy of `datagram`, which carries nothing of the home's.
    pub(crate) fn push(&mut self, datagram: &[u8], to: SocketAddr) -> Result<(), Dropped> {
        self.reserve(datagram.len())?.copy_from_slice(datagram);
        self.commit(datagram.len(), to, 0);
        Ok(())
    }

    /// Counts an inner packet that a datagram carries.
    pub(crate) fn count_carried(&mut self, bytes: usize) {
        self.carried.count_sent(bytes);
    }

    /// The inner packets sealed so far.
    pub(crate) fn carried(&self) -> Traffic {
        self.carried
    }

    /// Counts an inner packet that waits for a session.
    pub(crate) fn note_waiting(&mut self, bytes: usize) {
        self.waiting += bytes as u64;
    }

    /// One that waits no longer.
    pub(crate) fn note_fetched(&mut self, bytes: usize) {
        self.waiting = self.waiting.saturating_sub(bytes as u64);
    }

    /// One that waited and cannot be sent.
    pub(crate) fn note_given_up(&mut self, bytes: usize) {
        self.given_up += bytes as u64;
    }

    /// Bytes of packets that wait, those of peers that are gone included.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting
    }

    /// Bytes of packets that waited in vain.
    pub(crate) fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Bytes of packets that were sealed, wait, or waited in vain: whatever else was to be sent is lost.
    pub(crate) fn settled(&self) -> u64 {
        self.carried.tx_bytes + self.waiting + self.given_up
    }

    /// The next run.
    pub(crate) fn poll(&mut self) -> Option<Transmit<'_>> {
        let run = self.runs.pop_front()?;
        let payload = self.bytes.get(run.start..run.end)?;
        Some(Transmit {
            to: run.to,
            payload,
            segment: run.segment,
            tos: run.tos,
        })
    }

    /// The next run to which nothing can be added. A run that is left waits at the front of the buffer for more.
    pub(crate) fn poll_full(&mut self) -> Option<Transmit<'_>> {
        let is_last = self.runs.len() == 1;
        let front = self.runs.front_mut()?;
        if is_last && front.takes(front.segment, front.to, front.tos) {
            self.bytes.copy_within(front.start..front.end, 0);
            self.used = front.end - front.start;
            (front.start, front.end) = (0, self.used);
            return None;
        }
        self.poll()
    }
}

impl Run {
    /// A run whose last datagram is shorter than the others is complete.
    fn takes(&self, len: usize, to: SocketAddr, tos: u8) -> bool {
        let bytes = self.end - self.start;
        self.to == to
            && self.tos == tos
            && len <= self.segment
            && bytes.is_multiple_of(self.segment)
            && bytes / self.segment < MAX_SEGMENTS
            && bytes + len <= MAX_RUN_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    fn runs_of(pushed: &[(usize, u16)]) -> Vec<(usize, usize, u16)> {
        let mut outbox = Outbox::default();
        for (len, port) in pushed {
            outbox.push(&vec![1; *len], to(*port)).unwrap();
        }
        let mut runs = Vec::new();
        while let Some(run) = outbox.poll() {
            runs.push((run.payload.len(), run.segment, run.to.port()));
        }
        runs
    }

    #[test]
    fn a_full_outbox_refuses_and_takes_again_when_drained() {
        let mut outbox = Outbox::default();
        let datagram = [0; 1_452];
        let taken = (0..1_000)
            .take_while(|_| outbox.push(&datagram, to(1)).is_ok())
            .count();

        assert_eq!(taken, MAX_BYTES / datagram.len());
        assert_eq!(outbox.push(&datagram, to(1)), Err(Dropped::QueueFull));

        while outbox.poll().is_some() {}
        assert_eq!(outbox.push(&datagram, to(1)), Ok(()));
    }

    #[test]
    fn equal_datagrams_make_one_run_that_a_shorter_one_ends() {
        assert_eq!(
            runs_of(&[(100, 1), (100, 1), (60, 1), (100, 1)]),
            [(260, 100, 1), (100, 100, 1)]
        );
    }

    #[test]
    fn a_longer_datagram_or_another_destination_starts_a_run() {
        assert_eq!(
            runs_of(&[(60, 1), (100, 1), (100, 2), (100, 1)]),
            [(60, 60, 1), (100, 100, 1), (100, 100, 2), (100, 100, 1)]
        );
    }

    #[test]
    fn a_congestion_mark_of_its_own_starts_a_run() {
        let mut outbox = Outbox::default();
        for tos in [0, 0, 1, 1, 0] {
            outbox.reserve(100).unwrap();
            outbox.commit(100, to(1), tos);
        }

        let runs = std::iter::from_fn(|| outbox.poll().map(|run| (run.payload.len(), run.tos)));
        assert_eq!(runs.collect::<Vec<_>>(), [(200, 0), (200, 1), (100, 0)]);
    }

    #[test]
    fn a_run_that_has_room_waits_for_what_fits_it_and_is_sent_with_it() {
        let mut outbox = Outbox::default();
        let push = |outbox: &mut Outbox, fill: u8, len: usize| {
            outbox.push(&vec![fill; len], to(1)).unwrap();
        };
        let full = |outbox: &mut Outbox| {
            let run = outbox.poll_full()?;
            Some((run.payload.len(), run.payload.first().copied()?))
        };
        assert_eq!(full(&mut outbox), None);
        for fill in 0..46 {
            push(&mut outbox, fill, 1_452);
        }

        assert_eq!(full(&mut outbox), Some((44 * 1_452, 0)));
        assert_eq!(full(&mut outbox), None);
        for fill in 46..89 {
            push(&mut outbox, fill, 1_452);
        }

        assert_eq!(full(&mut outbox), Some((44 * 1_452, 44)));
        assert_eq!(full(&mut outbox), None);
        push(&mut outbox, 89, 60);
        assert_eq!(full(&mut outbox), Some((1_452 + 60, 88)));
        push(&mut outbox, 90, 60);
        push(&mut outbox, 91, 70);
        assert_eq!(full(&mut outbox), Some((60, 90)));
        assert_eq!(full(&mut outbox), None);
        let rest = outbox.poll().map(|run| run.payload.to_vec());
        assert_eq!(rest, Some(vec![91; 70]));
    }

    #[test]
    fn a_run_stops_at_the_kernels_limits() {
        let small = runs_of(&[(40, 1); 65]);
        let large = runs_of(&[(1_452, 1); 50]);

        assert_eq!(small, [(64 * 40, 40, 1), (40, 40, 1)]);
        assert_eq!(large, [(44 * 1_452, 1_452, 1), (6 * 1_452, 1_452, 1)]);
    }
}
