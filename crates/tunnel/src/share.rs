//! How the workers of one gateway divide its peers: by the peer's key, and so that everything that the gateway's own
//! messages make a peer send back names the worker (a receiver index has it).

use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// The bits of a slot that say whose it is.
pub(crate) const WORKER_BITS: u32 = 6;
/// The most workers of one gateway.
pub const MAX_WORKERS: u8 = 1 << WORKER_BITS;
/// Byte of a datagram's receiver index that has the worker, in its lower [`WORKER_BITS`]: the second, since the index is
/// little endian and its lowest byte is the session's.
pub const WORKER_BYTE: u8 = 1;
/// These bits.
pub const WORKER_MASK: u8 = MAX_WORKERS - 1;

/// One worker's part of a gateway.
#[derive(Clone, Debug)]
pub struct Share {
    worker: u8,
    workers: u8,
    seed: u64,
    /// Handshake messages that cost work and came to nothing. The one thing that all workers write: where many arrive,
    /// others find that they are nobody's, and all must ask for cookies.
    wasted: Arc<AtomicU32>,
}

impl Share {
    /// All of it.
    #[must_use]
    pub fn whole() -> Self {
        Self {
            worker: 0,
            workers: 1,
            seed: 0,
            wasted: Arc::default(),
        }
    }

    /// The parts of `workers`, at least one and at most [`MAX_WORKERS`]. The seed is secret: who knows it can make keys
    /// that all fall to one worker.
    pub fn split(workers: u8, seed: u64) -> impl Iterator<Item = Self> {
        let workers = workers.clamp(1, MAX_WORKERS);
        let wasted = Arc::default();
        (0..workers).map(move |worker| Self {
            worker,
            workers,
            seed,
            wasted: Arc::clone(&wasted),
        })
    }

    /// The worker whose part this is.
    #[must_use]
    pub fn worker(&self) -> u8 {
        self.worker
    }

    /// The worker that has the peer with this key.
    #[must_use]
    pub fn owner(&self, public: &[u8; 32]) -> u8 {
        if self.workers == 1 {
            return 0;
        }
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.seed);
        hasher.write(public);
        u8::try_from(hasher.finish() % u64::from(self.workers)).unwrap_or(0)
    }

    pub(crate) fn workers(&self) -> u8 {
        self.workers
    }

    pub(crate) fn wasted(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.wasted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_workers_agree_on_a_keys_owner_and_each_has_about_as_many() {
        let shares: Vec<Share> = Share::split(8, 7).collect();
        let mut counts = [0; 8];
        for n in 0..8_000_u32 {
            let mut public = [0; 32];
            public[..4].copy_from_slice(&n.to_le_bytes());
            let owner = shares[0].owner(&public);
            assert!(shares.iter().all(|share| share.owner(&public) == owner));
            counts[usize::from(owner)] += 1;
        }

        assert!(
            counts.iter().all(|n| (900..1_100).contains(n)),
            "{counts:?}"
        );
    }
}
