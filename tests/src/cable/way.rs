//! The frames under way, and when each is due: no clock, no socket.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Quality;
use crate::dice::Dice;

/// Frames under way at once: 100 ms of a gigabit are 8,300.
const CAPACITY: usize = 131_072;

/// What became of a frame that entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entered {
    /// It comes out behind those before it.
    InOrder,
    /// It is held longer.
    Held,
    /// Chance took it.
    Lost,
    /// Too many wait for their turn at the limited rate.
    QueueFull,
    /// The cable holds no more.
    CableFull,
}

/// One way of a cable.
#[derive(Debug)]
pub(super) struct Way {
    quality: Quality,
    dice: Dice,
    /// When the last frame will have been sent at the limited rate.
    free_at: Option<Instant>,
    /// By the time when each is due, and then in the order of entry.
    frames: BTreeMap<(Instant, u64), Box<[u8]>>,
    entered: u64,
}

impl Way {
    pub(super) fn new(quality: Quality, number: u64) -> Self {
        Self {
            quality,
            dice: Dice::new(quality.seed.wrapping_mul(2).wrapping_add(number)),
            free_at: None,
            frames: BTreeMap::new(),
            entered: 0,
        }
    }

    pub(super) fn enter(&mut self, frame: &[u8], now: Instant) -> Entered {
        let Some(sent) = self.send(frame.len(), now) else {
            return Entered::QueueFull;
        };
        if self.dice.happens(self.quality.loss) {
            return Entered::Lost;
        }
        if self.frames.len() >= CAPACITY {
            return Entered::CableFull;
        }
        let (extra, entered) = if self.dice.happens(self.quality.reorder) {
            let share = 0.5 + self.dice.fraction() / 2.0;
            (self.quality.jitter.mul_f64(share), Entered::Held)
        } else {
            (Duration::ZERO, Entered::InOrder)
        };
        self.entered += 1;
        let due = sent + self.quality.delay + extra;
        self.frames.insert((due, self.entered), frame.into());
        entered
    }

    /// The next frame that is due, with the time when it was.
    pub(super) fn leave(&mut self, now: Instant) -> Option<(Instant, Box<[u8]>)> {
        let first = self.frames.first_entry()?;
        let (due, _) = *first.key();
        (due <= now).then(|| (due, first.remove()))
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.frames.keys().next().map(|(due, _)| *due)
    }

    /// When the frame's last bit is on the cable; none if its turn comes too late.
    fn send(&mut self, bytes: usize, now: Instant) -> Option<Instant> {
        let Some(rate) = self.quality.rate else {
            return Some(now);
        };
        let turn = self.free_at.map_or(now, |free| free.max(now));
        if turn - now > self.quality.queue {
            return None;
        }
        let sent = turn + Duration::from_secs_f64(bytes as f64 * 8.0 / rate.max(1) as f64);
        self.free_at = Some(sent);
        Some(sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn way(quality: Quality) -> (Way, Instant) {
        (Way::new(quality, 0), Instant::now())
    }

    #[test]
    fn a_frame_does_not_come_out_before_its_delay() {
        let (mut way, now) = way(Quality {
            delay: 40 * MS,
            ..Quality::default()
        });

        way.enter(b"frame", now);

        assert!(way.leave(now + 39 * MS).is_none());
        assert_eq!(way.next_due(), Some(now + 40 * MS));
        assert_eq!(&*way.leave(now + 40 * MS).unwrap().1, b"frame");
    }

    #[test]
    fn a_full_queue_drops_and_frees_again_at_its_rate() {
        let (mut way, now) = way(Quality {
            rate: Some(8_000_000),
            queue: 10 * MS,
            ..Quality::default()
        });

        // A thousand bytes are a millisecond: one is being sent, ten wait.
        let entered: Vec<Entered> = (0..12).map(|_| way.enter(&[0; 1_000], now)).collect();

        assert_eq!(entered[..11], [Entered::InOrder; 11]);
        assert_eq!(entered[11], Entered::QueueFull);
        assert_eq!(way.enter(&[0; 1_000], now + MS), Entered::InOrder);
    }

    #[test]
    fn the_same_seed_loses_the_same_frames_and_another_does_not() {
        let fates = |seed| {
            let (mut way, now) = way(Quality {
                loss: 0.5,
                seed,
                ..Quality::default()
            });
            (0..64).map(|_| way.enter(b"f", now)).collect::<Vec<_>>()
        };

        assert_eq!(fates(7), fates(7));
        assert_ne!(fates(7), fates(8));
    }

    #[test]
    fn a_held_frame_is_overtaken_and_the_others_keep_their_order() {
        let (mut way, now) = way(Quality {
            delay: 10 * MS,
            reorder: 0.1,
            jitter: 4 * MS,
            ..Quality::default()
        });
        let mut held = Vec::new();
        for n in 0..100_u8 {
            if way.enter(&[n], now + u32::from(n) * MS / 10) == Entered::Held {
                held.push(n);
            }
        }

        let out: Vec<u8> = std::iter::from_fn(|| way.leave(now + 100 * MS))
            .map(|(_, frame)| frame[0])
            .collect();

        let in_order: Vec<u8> = out.iter().copied().filter(|n| !held.contains(n)).collect();
        assert!(in_order.is_sorted(), "{in_order:?}");
        assert!(!out.is_sorted() && !held.is_empty(), "{out:?}");
        assert_eq!(out.len(), 100);
    }
}
