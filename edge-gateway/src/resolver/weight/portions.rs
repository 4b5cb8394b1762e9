//! Portions of a room, for what cannot be given up once it is held: who takes what they get leaves more to others the fuller it is.

use std::collections::HashMap;

use dnscrypt_proxy::listen::{Class, Holder};

/// So much anybody may have while there is any.
const FEW: usize = 8;
/// And more than that, as much as this part of what is free: one source has a fifth of all at most, and ten leave a tenth to others.
const PART_OF_FREE: usize = 4;
/// Strangers have this part of all.
const PART_OF_STRANGERS: usize = 4;

/// The room, and how much each source has of it while it has any.
#[derive(Debug)]
pub(super) struct Portions {
    most: usize,
    taken: usize,
    strangers: usize,
    held: HashMap<Holder, usize>,
}

impl Portions {
    /// So much, all free.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            taken: 0,
            strangers: 0,
            held: HashMap::new(),
        }
    }

    /// Takes so much, or nothing; false: there is no room for this one.
    #[must_use]
    pub(super) fn take(&mut self, holder: Holder, much: usize) -> bool {
        let free = self.most.saturating_sub(self.taken);
        let is_stranger = holder.class == Class::Stranger;
        let of_strangers = self.most.div_ceil(PART_OF_STRANGERS);
        let own = self.held.get(&holder).copied().unwrap_or(0);
        if much > free
            || is_stranger && self.strangers + much > of_strangers
            || own + much > FEW.max(free / PART_OF_FREE)
        {
            return false;
        }
        self.taken += much;
        self.strangers += if is_stranger { much } else { 0 };
        self.held.insert(holder, own + much);
        true
    }

    /// Gives back what was taken.
    pub(super) fn give_back(&mut self, holder: Holder, much: usize) {
        let Some(own) = self.held.get_mut(&holder) else {
            return;
        };
        *own = own.saturating_sub(much);
        if *own == 0 {
            self.held.remove(&holder);
        }
        self.taken = self.taken.saturating_sub(much);
        if holder.class == Class::Stranger {
            self.strangers = self.strangers.saturating_sub(much);
        }
    }
}

#[cfg(test)]
mod tests {
    use dnscrypt_proxy::listen::Homes;

    use super::*;

    fn of(address: &str) -> Holder {
        let homes = Homes::within([([10, 64, 0, 1].into(), 16)]);
        Holder::of(&homes, address.parse().unwrap())
    }

    fn home(n: u8) -> Holder {
        of(&format!("10.64.0.{}", 16 + n))
    }

    fn taken(room: &mut Portions, holder: Holder) -> usize {
        (0..10_000).take_while(|_| room.take(holder, 1)).count()
    }

    #[test]
    fn one_that_takes_what_it_gets_leaves_four_fifths_and_ten_leave_a_tenth() {
        let mut room = Portions::new(2_048);

        assert_eq!(taken(&mut room, home(0)), 409);
        let rest: usize = (1..10).map(|n| taken(&mut room, home(n))).sum();

        let free = 2_048 - 409 - rest;
        assert!((215..=225).contains(&free), "{free}");
        assert!(taken(&mut room, home(10)) > 40);
    }

    #[test]
    fn any_number_of_them_leaves_a_little_to_whoever_has_none_until_all_is_taken() {
        let mut room = Portions::new(64);
        let all: usize = (0..20).map(|n| taken(&mut room, home(n))).sum();
        assert_eq!(all, 64);

        assert!(!room.take(home(30), 1));
        room.give_back(home(0), 1);
        assert!(room.take(home(30), 1));
    }

    #[test]
    fn strangers_have_a_quarter_of_all_and_a_network_of_theirs_is_one_of_them() {
        let mut room = Portions::new(2_048);
        let first = taken(&mut room, of("2001:db8::1"));
        assert_eq!(taken(&mut room, of("2001:db8::2")), 0);

        let rest: usize = (0..=255)
            .map(|n| taken(&mut room, of(&format!("203.0.113.{n}"))))
            .sum();

        assert_eq!((first, rest), (409, 103));
        assert!(room.take(home(0), 1));
    }

    #[test]
    fn much_is_taken_together_or_not_at_all() {
        let mut room = Portions::new(64);

        assert!(!room.take(home(0), 17));
        assert!(room.take(home(0), 16));
        assert!(!room.take(home(1), 13));
        assert!(room.take(home(1), 12));
        room.give_back(home(0), 16);

        assert_eq!(room.taken, 12);
        assert!(room.take(home(2), 13));
    }

    #[test]
    fn what_is_given_back_is_free_and_nothing_is_kept_of_who_had_it() {
        let mut room = Portions::new(16);
        let holders = [home(0), home(1), of("203.0.113.7")];
        for _ in 0..100 {
            for holder in holders {
                assert!(room.take(holder, 1));
            }
            holders.into_iter().for_each(|it| room.give_back(it, 1));
        }
        // Nobody's: it was never taken.
        room.give_back(home(5), 1);

        assert_eq!((room.taken, room.strangers), (0, 0));
        assert!(room.held.is_empty());
    }
}
