//! Which packets are drawn for statistics, and what may be known of them.

use std::net::IpAddr;
use std::num::NonZeroU32;

use super::EdgeTunnel;
use crate::offload::segment::Segments;
use crate::sample::{Direction, Drawn, Sampler};

/// All that a gateway pays that draws none.
const _: () = assert!(size_of::<Option<Box<Sampler>>>() == size_of::<usize>());

impl EdgeTunnel {
    /// Draws one packet in so many from now on; the seed is to be random.
    pub fn set_sampling(&mut self, one_in: NonZeroU32, seed: u64) {
        self.sampler = Some(Box::new(Sampler::new(one_in, seed)));
    }

    /// The next packet that was drawn.
    pub fn poll_drawn(&mut self) -> Option<Drawn> {
        self.sampler.as_mut()?.poll()
    }

    /// The packets of a frame pass, to or from an address on the internet's side.
    pub(super) fn sample(&mut self, direction: Direction, remote: IpAddr, packets: &Segments<'_>) {
        let Some(sampler) = &mut self.sampler else {
            return;
        };
        if sampler.passes(packets.count()) {
            return;
        }
        // What goes from home to home, or to the gateway itself, is in no statistics.
        let is_inner = self.peers.routes.lookup(remote).is_some() || self.duty.serves(remote);
        for bytes in packets.lengths() {
            if sampler.draws() && !is_inner {
                sampler.note(Drawn {
                    direction,
                    remote,
                    bytes,
                });
            }
        }
    }
}
