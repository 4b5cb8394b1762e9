//! The time that clients of unknown keys may have. Anybody can make packets that want a key agreement, which
//! takes as long as ten queries whose key is known, and whether it was worth it shows afterwards.
//!
//! They wait in queues of their own, the homes before everybody else, served when those who are known have been. While these have work,
//! strangers get a quarter of the time; while they have none, all of it, in turns so short that the next known packet hardly waits.

use std::collections::VecDeque;
use std::time::Duration;

use crate::listen::Class;

/// Packets that wait, of homes and of others each; the newest is dropped when there are more.
pub(super) const QUEUE: usize = 1024;
/// One part of a busy worker's time for strangers in so many for everybody else.
const PARTS: i64 = 3;
/// The longest that strangers keep a packet waiting whose key is known: ten key agreements.
const TURN: Duration = Duration::from_micros(500);

/// What waits, and the time there is for it.
#[derive(Debug)]
pub(super) struct Strangers<P> {
    homes: VecDeque<P>,
    others: VecDeque<P>,
    /// May be owed: an agreement is not cut short.
    left_ns: i64,
}

/// There is no room for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl<P> Strangers<P> {
    pub(super) fn new() -> Self {
        Self {
            homes: VecDeque::new(),
            others: VecDeque::new(),
            left_ns: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.homes.is_empty() && self.others.is_empty()
    }

    pub(super) fn push(&mut self, packet: P, class: Class) -> Result<(), Full> {
        let queue = match class {
            Class::Home => &mut self.homes,
            Class::Stranger => &mut self.others,
        };
        if queue.len() >= QUEUE {
            return Err(Full);
        }
        queue.push_back(packet);
        Ok(())
    }

    /// Begins a turn, before which those who are known took so much time; zero: they had no work.
    pub(super) fn begin(&mut self, busy: Duration) {
        let turn = nanos(TURN);
        let earned = if busy.is_zero() {
            turn
        } else {
            nanos(busy) / PARTS
        };
        self.left_ns = self.left_ns.saturating_add(earned).min(turn);
    }

    /// The next one, as long as there is time.
    pub(super) fn next(&mut self) -> Option<P> {
        if self.left_ns <= 0 {
            return None;
        }
        self.homes.pop_front().or_else(|| self.others.pop_front())
    }

    /// So much was spent on the one that was given out.
    pub(super) fn spent(&mut self, time: Duration) {
        self.left_ns = self.left_ns.saturating_sub(nanos(time));
    }
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGREEMENT: Duration = Duration::from_micros(50);

    /// How many strangers have their turn.
    fn turn(strangers: &mut Strangers<u32>, busy: Duration) -> usize {
        strangers.begin(busy);
        let mut served = 0;
        while strangers.next().is_some() {
            strangers.spent(AGREEMENT);
            served += 1;
        }
        served
    }

    fn crowd() -> Strangers<u32> {
        let mut strangers = Strangers::new();
        for n in 0..QUEUE {
            strangers.push(n as u32, Class::Stranger).unwrap();
        }
        strangers
    }

    #[test]
    fn one_beyond_the_queue_is_refused_and_those_before_it_keep_their_places() {
        let mut strangers = crowd();

        assert_eq!(strangers.push(7_777, Class::Stranger), Err(Full));

        strangers.begin(Duration::ZERO);
        assert_eq!(strangers.next(), Some(0));
        assert_eq!(strangers.push(8_888, Class::Stranger), Ok(()));
    }

    #[test]
    fn a_home_with_a_new_key_waits_behind_no_stranger() {
        let mut strangers = crowd();

        assert_eq!(strangers.push(7_777, Class::Home), Ok(()));

        strangers.begin(Duration::ZERO);
        assert_eq!(strangers.next(), Some(7_777));
        assert_eq!(strangers.next(), Some(0));
    }

    #[test]
    fn without_a_turn_nobody_is_served() {
        let mut strangers = crowd();

        assert_eq!(strangers.next(), None);
    }

    #[test]
    fn a_busy_worker_gives_strangers_a_quarter_of_its_time_and_no_more() {
        let mut strangers = crowd();
        let busy = Duration::from_micros(30);
        let turns = 1_000;

        let served: usize = (0..turns).map(|_| turn(&mut strangers, busy)).sum();

        let theirs = AGREEMENT * u32::try_from(served).unwrap();
        let allowed = busy * turns / 3;
        assert!(theirs <= allowed + AGREEMENT, "{theirs:?} of {allowed:?}");
        assert!(theirs + AGREEMENT >= allowed, "{theirs:?} of {allowed:?}");
    }

    #[test]
    fn an_idle_worker_serves_them_in_turns_of_bounded_length() {
        let mut strangers = crowd();

        for _ in 0..20 {
            let served = u32::try_from(turn(&mut strangers, Duration::ZERO)).unwrap();
            assert!(served >= 9);
            assert!(AGREEMENT * served < TURN + AGREEMENT);
        }
    }

    #[test]
    fn time_that_was_not_used_is_not_saved_up() {
        let mut strangers = Strangers::new();
        for _ in 0..1_000 {
            turn(&mut strangers, Duration::from_millis(10));
        }
        for n in 0..QUEUE {
            strangers.push(n as u32, Class::Stranger).unwrap();
        }

        let served = turn(&mut strangers, Duration::from_micros(1));

        assert!(AGREEMENT * u32::try_from(served).unwrap() <= TURN + AGREEMENT);
    }
}
