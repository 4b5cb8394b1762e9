//! One in N packets drawn for statistics. What is drawn is a length and the address on the internet's side: whose packet it was
//! is not known to who counts.
//!
//! Of every N packets that pass, one is drawn, at a place that is random anew each time: traffic with a rhythm of its own
//! is not mistaken, and every packet has the same chance, so N times the drawn bytes is an unbiased estimate of all.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::num::NonZeroU32;

use crate::timers::Jitter;

/// What may wait to be counted; more than one turn of a worker can draw at one in a hundred.
const MAX_DRAWN: usize = 4_096;

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// To the internet.
    FromRouter,
    /// From the internet.
    ToRouter,
}

/// All that is known of a packet that was drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// Which way it goes.
    pub direction: Direction,
    /// The address on the internet's side, never a leased one.
    pub remote: IpAddr,
    /// The packet's length.
    pub bytes: usize,
}

/// Draws the packets of one worker.
#[derive(Debug)]
pub(crate) struct Sampler {
    one_in: NonZeroU32,
    random: Jitter,
    /// Packets that pass before the next that is drawn.
    left: u32,
    /// Packets after it that belong to the same N.
    rest: u32,
    drawn: VecDeque<Drawn>,
}

impl Sampler {
    /// Draws one packet in so many; the seed is to be random.
    pub(crate) fn new(one_in: NonZeroU32, seed: u64) -> Self {
        let mut sampler = Self {
            one_in,
            random: Jitter(seed),
            left: 0,
            rest: 0,
            drawn: VecDeque::new(),
        };
        sampler.choose();
        sampler
    }

    /// Lets one packet pass; whether it is the one.
    pub(crate) fn draws(&mut self) -> bool {
        if self.left > 0 {
            self.left -= 1;
            return false;
        }
        self.choose();
        true
    }

    /// Lets several pass if none of them is drawn, or else does nothing; whether they passed.
    pub(crate) fn passes(&mut self, packets: usize) -> bool {
        let left = u32::try_from(packets)
            .ok()
            .and_then(|packets| self.left.checked_sub(packets));
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }

    pub(crate) fn note(&mut self, drawn: Drawn) {
        if self.drawn.len() < MAX_DRAWN {
            self.drawn.push_back(drawn);
        }
    }

    pub(crate) fn poll(&mut self) -> Option<Drawn> {
        self.drawn.pop_front()
    }

    /// Chooses a place among the next N.
    fn choose(&mut self) {
        let one_in = self.one_in.get();
        // A number scaled to a place; the bias is below one in a thousand even at a million.
        let place = ((u64::from(self.random.number()) * u64::from(one_in)) >> 32) as u32;
        self.left = self.rest + place;
        self.rest = one_in - 1 - place;
    }
}

#[cfg(test)]
mod tests;
