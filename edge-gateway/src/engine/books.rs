//! One worker's figures of what the TUN device and the leases do not count alike.

use tunnel::{HeaderBytes, Ledger};

/// With nothing under way, and over all workers: the device received what the leases sent and what we told the internet, less
/// what joining spared, what overflowed and what the device did not take. It sent what the leases received, with what was lost and what waits, less
/// what cutting added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Headers that joining spared the device and cutting added.
    pub headers: HeaderBytes,
    /// What the tunnel itself had to leave out.
    pub ledger: Ledger,
    /// Bytes of frames that the device did not take.
    pub not_written: u64,
    /// Bytes of frames that were read at a worker and did not reach the one whose they are.
    pub not_handed_over: u64,
}

impl Books {
    /// Adds another worker's figures.
    pub fn add(&mut self, other: Self) {
        self.headers.spared += other.headers.spared;
        self.headers.added += other.headers.added;
        self.ledger.lost += other.ledger.lost;
        self.ledger.waiting += other.ledger.waiting;
        self.ledger.overflowed += other.ledger.overflowed;
        self.ledger.told += other.ledger.told;
        self.ledger.answered = self.ledger.answered.plus(other.ledger.answered);
        self.not_written += other.not_written;
        self.not_handed_over += other.not_handed_over;
    }

    /// What the device is to have received when peers sent `bytes`.
    #[must_use]
    pub fn device_rx(&self, bytes: u64) -> u64 {
        let absent = self.headers.spared + self.ledger.overflowed + self.not_written;
        (bytes + self.ledger.told).saturating_sub(absent)
    }

    /// What the device is to have sent when peers received `bytes`.
    #[must_use]
    pub fn device_tx(&self, bytes: u64) -> u64 {
        (bytes + self.ledger.lost + self.ledger.waiting + self.not_handed_over)
            .saturating_sub(self.headers.added)
    }
}
