//! The TUN device's counters beside those of the leases, and what explains their difference.

use serde::{Deserialize, Serialize};
use telemetry::watch::bytes;

use crate::device::DeviceBytes;
use crate::engine::Totals;

/// Both, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeviceStatus {
    /// Bytes that the device counts as received, from the routers.
    pub rx_bytes: u64,
    /// Bytes that it counts as sent, to the routers.
    pub tx_bytes: u64,
    /// How much more it counts than what follows from `rx_bytes` of the leases: 0 when nothing is under way.
    pub rx_difference: i64,
    /// The same of `tx_bytes`.
    pub tx_difference: i64,
    /// Headers that joining packets spared it.
    pub joined_header_bytes: u64,
    /// Headers that cutting its frames added to what the leases count.
    pub cut_header_bytes: u64,
    /// Bytes from leases that it did not take, or for which there was no memory in front of it.
    pub refused_bytes: u64,
    /// Bytes that the gateway itself told the internet through it: what is too long for a router's path.
    pub told_bytes: u64,
    /// Bytes that it sent and that reached no router: every packet is among the drops.
    pub lost_bytes: u64,
    /// Bytes that it sent and that wait for a router's session.
    pub waiting_bytes: u64,
    /// Bytes that routers asked the gateway itself inside the tunnel; they belong to no lease and did not reach the device.
    pub asked_bytes: u64,
    /// Bytes that it answered.
    pub answered_bytes: u64,
}

impl DeviceStatus {
    pub(crate) fn new(device: DeviceBytes, totals: &Totals) -> Self {
        let books = &totals.books;
        let more = |counted: u64, expected: u64| counted.wrapping_sub(expected).cast_signed();
        Self {
            rx_bytes: device.rx,
            tx_bytes: device.tx,
            rx_difference: more(device.rx, books.device_rx(totals.rx_bytes)),
            tx_difference: more(device.tx, books.device_tx(totals.tx_bytes)),
            joined_header_bytes: books.headers.spared,
            cut_header_bytes: books.headers.added,
            refused_bytes: books.not_written + books.ledger.overflowed,
            told_bytes: books.ledger.told,
            lost_bytes: books.ledger.lost + books.not_handed_over,
            waiting_bytes: books.ledger.waiting,
            asked_bytes: books.ledger.answered.rx_bytes,
            answered_bytes: books.ledger.answered.tx_bytes,
        }
    }

    /// A line for people.
    pub(crate) fn in_words(&self) -> String {
        format!(
            "device     {} from routers, {} to routers; {} and {} bytes more than the leases explain",
            bytes(self.rx_bytes),
            bytes(self.tx_bytes),
            self.rx_difference,
            self.tx_difference
        )
    }
}

#[cfg(test)]
mod tests {
    use tunnel::{HeaderBytes, Ledger};

    use super::*;
    use crate::engine::Books;

    #[test]
    fn what_is_neither_in_the_leases_nor_in_the_books_is_shown_as_a_difference() {
        let totals = Totals {
            rx_bytes: 10_000,
            tx_bytes: 20_000,
            books: Books {
                headers: HeaderBytes {
                    spared: 400,
                    added: 800,
                },
                ledger: Ledger {
                    lost: 60,
                    waiting: 7,
                    overflowed: 5,
                    told: 3,
                    ..Ledger::default()
                },
                not_written: 95,
                not_handed_over: 33,
            },
            ..Totals::default()
        };
        let shown = |rx, tx| {
            let status = DeviceStatus::new(DeviceBytes { rx, tx }, &totals);
            (status.rx_difference, status.tx_difference)
        };

        assert_eq!(shown(9_503, 19_300), (0, 0));
        assert_eq!(shown(9_502, 19_301), (-1, 1));
    }
}
