//! A session: two keys, a counter, and the window that a packet passes once.

use std::time::Instant;

use super::cipher::{SessionKey, TAG_BYTES};
use super::handshake::Secrets;
use crate::dropped::Dropped;

/// Type, receiver index, counter.
pub(crate) const HEADER_BYTES: usize = 16;
/// What a data message adds to a packet.
pub(crate) const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;
/// A data message's first bytes.
const DATA: [u8; 4] = [4, 0, 0, 0];
/// Counters from here on are neither used nor taken (whitepaper, section 6.1, less the window).
const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
/// Packets that may come this much later than the newest still pass.
const WINDOW_WORDS: usize = 32;
const WINDOW: u64 = WINDOW_WORDS as u64 * 64;

pub(super) struct Session {
    index: u32,
    peer_index: u32,
    seal: SessionKey,
    open: SessionKey,
    sent: u64,
    window: Window,
    since: Instant,
}

impl Session {
    pub(super) fn new(secrets: Secrets, now: Instant) -> Self {
        let Secrets {
            index,
            peer_index,
            seal,
            open,
        } = secrets;
        Self {
            index,
            peer_index,
            seal,
            open,
            sent: 0,
            window: Window::default(),
            since: now,
        }
    }

    /// What the peer names it by.
    pub(super) fn index(&self) -> u32 {
        self.index
    }

    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// Seals what is in `room` between the places of header and tag.
    pub(super) fn seal(&mut self, room: &mut [u8]) -> Result<(), Dropped> {
        if self.sent >= REJECT_AFTER_MESSAGES {
            return Err(Dropped::NoSession);
        }
        let (header, data) = room
            .split_first_chunk_mut::<HEADER_BYTES>()
            .ok_or(Dropped::TooBig)?;
        let (data, tag) = data.split_last_chunk_mut().ok_or(Dropped::TooBig)?;
        header[..4].copy_from_slice(&DATA);
        header[4..8].copy_from_slice(&self.peer_index.to_le_bytes());
        header[8..].copy_from_slice(&self.sent.to_le_bytes());
        // Counted before it is used: whatever happens, no counter is used twice.
        let counter = self.sent;
        self.sent += 1;
        *tag = self.seal.seal(counter, data)?;
        Ok(())
    }

    /// Opens `datagram` into `buf`, which is as long.
    pub(super) fn open<'b>(
        &mut self,
        datagram: &[u8],
        buf: &'b mut [u8],
    ) -> Result<&'b mut [u8], Dropped> {
        let (header, sealed) = datagram
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or(Dropped::Malformed)?;
        let counter = header.last_chunk().ok_or(Dropped::Malformed)?;
        let counter = u64::from_le_bytes(*counter);
        if !self.window.takes(counter) {
            return Err(Dropped::Replayed);
        }
        let buf = buf.get_mut(..sealed.len()).ok_or(Dropped::TooBig)?;
        buf.copy_from_slice(sealed);
        let packet = self.open.open(counter, buf)?;
        self.window.mark(counter);
        Ok(packet)
    }
}

/// Which of the last counters were seen (RFC 6479): a ring of words, of which those between the old and the new newest are
/// cleared as it moves on.
#[derive(Default)]
struct Window {
    /// One more than the newest.
    end: u64,
    seen: [u64; WINDOW_WORDS],
}

impl Window {
    fn takes(&self, counter: u64) -> bool {
        if counter >= REJECT_AFTER_MESSAGES {
            return false;
        }
        if counter >= self.end {
            return true;
        }
        let (word, bit) = Self::place(counter);
        // The word that the newest is in is only partly in use: nothing older than the words after it.
        let is_recent = self.end - counter <= WINDOW - 64;
        is_recent && self.seen.get(word).is_some_and(|seen| seen & bit == 0)
    }

    /// Marks a counter that was taken and was authentic.
    fn mark(&mut self, counter: u64) {
        if counter >= self.end {
            let newest = self.end.saturating_sub(1) / 64;
            let words = (counter / 64 - newest).min(WINDOW_WORDS as u64);
            for word in 1..=words {
                let at = ((newest + word) % WINDOW_WORDS as u64) as usize;
                if let Some(seen) = self.seen.get_mut(at) {
                    *seen = 0;
                }
            }
            self.end = counter + 1;
        }
        let (word, bit) = Self::place(counter);
        if let Some(seen) = self.seen.get_mut(word) {
            *seen |= bit;
        }
    }

    fn place(counter: u64) -> (usize, u64) {
        let word = counter / 64 % WINDOW_WORDS as u64;
        (word as usize, 1 << (counter % 64))
    }
}

#[cfg(test)]
mod tests;
