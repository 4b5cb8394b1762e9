//! What lands at a worker and is another's. Every worker has a box of bounded size; a full one loses what is put into it,
//! and that is counted. Buffers go around: who has read a letter keeps its paper for the next that comes to it.

use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;
use netio::Waker;
use tunnel::Initiator;
use tunnel::edge::Elsewhere;
use tunnel::offload::VNET_BYTES;

/// Letters that wait for one worker; each at most a frame of 64 KB.
const MAX_LETTERS: usize = 256;
/// Buffers that a box keeps.
const MAX_SPARE: usize = 64;

/// What a letter holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A frame of the TUN device.
    Frame,
    /// A datagram.
    Datagram {
        /// Who sent it.
        from: SocketAddr,
        /// Its outer header's TOS byte.
        tos: u8,
    },
    /// An initiation that has been checked.
    Initiation {
        /// Who sent it.
        from: SocketAddr,
        /// What was found out of it.
        initiator: Box<Initiator>,
    },
}

impl Kind {
    pub(super) fn of_datagram(elsewhere: Elsewhere, from: SocketAddr, tos: u8) -> Self {
        match elsewhere.initiator {
            Some(initiator) => Self::Initiation { from, initiator },
            None => Self::Datagram { from, tos },
        }
    }
}

/// What one worker tells another.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) kind: Kind,
    pub(super) bytes: Vec<u8>,
}

/// Where a worker's letters wait.
#[derive(Debug)]
struct Letterbox {
    letters: ArrayQueue<Letter>,
    spare: ArrayQueue<Vec<u8>>,
    waker: Waker,
}

/// One worker's place among all.
#[derive(Debug)]
pub(super) struct Post {
    number: usize,
    boxes: Arc<[Letterbox]>,
    /// The workers to be woken at the end of the turn, a bit each.
    to_wake: u64,
    handed_over: u64,
    lost: u64,
    /// Bytes of the TUN device's frames among them.
    lost_bytes: u64,
}

impl Post {
    /// The places of workers with these wakers, in their order.
    pub(super) fn offices(wakers: impl Iterator<Item = Waker>) -> Vec<Self> {
        let boxes: Arc<[Letterbox]> = wakers
            .map(|waker| Letterbox {
                letters: ArrayQueue::new(MAX_LETTERS),
                spare: ArrayQueue::new(MAX_SPARE),
                waker,
            })
            .collect();
        let office = |number| Self {
            number,
            boxes: Arc::clone(&boxes),
            to_wake: 0,
            handed_over: 0,
            lost: 0,
            lost_bytes: 0,
        };
        (0..boxes.len()).map(office).collect()
    }

    /// Puts a copy of `bytes` into the box of `worker`, which is woken with [`Post::wake`].
    pub(super) fn hand_over(&mut self, worker: u8, kind: Kind, bytes: &[u8]) {
        let Some(to) = self.boxes.get(usize::from(worker)) else {
            self.lose(&kind, bytes);
            return;
        };
        // Checked first: where the box is full, nothing is copied.
        if to.letters.is_full() {
            self.lose(&kind, bytes);
            return;
        }
        let mut paper = to.spare.pop().unwrap_or_default();
        paper.clear();
        paper.extend_from_slice(bytes);
        let letter = Letter { kind, bytes: paper };
        match to.letters.push(letter) {
            Ok(()) => {
                self.handed_over += 1;
                self.to_wake |= 1 << worker;
            }
            Err(Letter { kind, bytes }) => self.lose(&kind, &bytes),
        }
    }

    /// Counts what does not reach the worker whose it is.
    pub(super) fn lose(&mut self, kind: &Kind, bytes: &[u8]) {
        self.lost += 1;
        if matches!(kind, Kind::Frame) {
            self.lost_bytes += bytes.len().saturating_sub(VNET_BYTES) as u64;
        }
    }

    /// Wakes who has got something.
    pub(super) fn wake(&mut self) {
        let mut to_wake = std::mem::take(&mut self.to_wake);
        while to_wake != 0 {
            let number = to_wake.trailing_zeros();
            to_wake &= to_wake - 1;
            if let Some(to) = self.boxes.get(number as usize) {
                // A waker fails only when its worker has ended, and then nobody waits for this.
                let _woken = to.waker.wake();
            }
        }
    }

    /// The next letter for this worker.
    pub(super) fn take(&self) -> Option<Letter> {
        self.boxes.get(self.number)?.letters.pop()
    }

    pub(super) fn has_letters(&self) -> bool {
        let own = self.boxes.get(self.number);
        own.is_some_and(|own| !own.letters.is_empty())
    }

    /// Keeps a letter's paper for the next.
    pub(super) fn give_back(&self, paper: Vec<u8>) {
        if let Some(own) = self.boxes.get(self.number) {
            // Enough are kept already.
            let _dropped = own.spare.push(paper);
        }
    }

    pub(super) fn handed_over(&self) -> u64 {
        self.handed_over
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    pub(super) fn lost_bytes(&self) -> u64 {
        self.lost_bytes
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use netio::Poller;
    use netio::poll::Ready;

    use super::*;

    fn two() -> (Post, Post, Poller) {
        let pollers = [Poller::new().unwrap(), Poller::new().unwrap()];
        let offices = Post::offices(pollers.iter().map(Poller::waker));
        let [_, second] = pollers;
        let [one, two] = <[Post; 2]>::try_from(offices).unwrap();
        (one, two, second)
    }

    #[test]
    fn a_full_box_and_a_worker_that_is_not_there_lose_letters_which_are_counted() {
        let (mut one, two, _poller) = two();
        for _ in 0..MAX_LETTERS + 3 {
            one.hand_over(1, Kind::Frame, b"frame");
        }
        one.hand_over(7, Kind::Frame, b"frame");

        assert_eq!((one.handed_over(), one.lost()), (MAX_LETTERS as u64, 4));
        assert_eq!(std::iter::from_fn(|| two.take()).count(), MAX_LETTERS);
    }

    #[test]
    fn a_letter_arrives_as_it_was_and_its_reader_is_woken_once_for_many() {
        let (mut one, two, mut poller) = two();
        let from = "192.0.2.1:7".parse().unwrap();
        let kind = Kind::Datagram { from, tos: 3 };
        one.hand_over(1, kind.clone(), b"first");
        one.hand_over(1, Kind::Frame, b"second");
        one.wake();

        let woken: Vec<_> = poller.wait(Some(Duration::ZERO)).unwrap().collect();
        assert_eq!(woken, [Ready::Woken]);
        let letter = two.take().unwrap();
        assert_eq!((letter.kind, &*letter.bytes), (kind, &b"first"[..]));
        let paper = letter.bytes.as_ptr();
        two.give_back(letter.bytes);
        assert_eq!(two.take().unwrap().bytes, b"second");
        assert!(!two.has_letters() && one.take().is_none());

        one.hand_over(1, Kind::Frame, b"third");
        assert_eq!(two.take().unwrap().bytes.as_ptr(), paper);
    }
}
