//! Places for those who wait for an answer, or hold what there is a bounded number of: so many and no more, and however long somebody holds
//! theirs, none that is alone or among a few takes them all.

use std::collections::HashMap;
use std::net::IpAddr;

use super::Homes;
use super::homes::HOME_BITS;

/// So many anybody may have while there are any.
const FEW: usize = 8;
/// And more than these, as many as this part of those that are free: one source has a fifth of all at most, and ten leave a tenth to others.
const PART_OF_FREE: usize = 4;
/// Strangers have this part of all.
const PART_OF_STRANGERS: usize = 4;

/// Who waits: the homes have three quarters of the places for themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// One of the gateway's homes.
    Home,
    /// Anybody else.
    Stranger,
}

/// Whose a place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// What they are.
    pub class: Class,
    pub(crate) home: IpAddr,
}

impl Holder {
    /// Who asks from an address. Without networks of homes everybody is one.
    #[must_use]
    pub fn of(homes: &Homes, address: IpAddr) -> Self {
        let is_home = homes.is_empty() || homes.hold(address);
        Self {
            class: if is_home {
                Class::Home
            } else {
                Class::Stranger
            },
            home: homes.of(address, HOME_BITS),
        }
    }
}

/// The places, and how many each source has of them while it has any.
#[derive(Debug)]
pub struct Places {
    most: usize,
    /// Of one source, whatever is free.
    each: usize,
    pub(crate) taken: usize,
    pub(crate) strangers: usize,
    held: HashMap<IpAddr, usize>,
}

impl Places {
    /// So many, all free.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self::bounded(most, usize::MAX)
    }

    /// The same, of which no source has more than so many, however many are free.
    #[must_use]
    pub fn bounded(most: usize, each: usize) -> Self {
        Self {
            most,
            each,
            taken: 0,
            strangers: 0,
            held: HashMap::new(),
        }
    }

    /// Takes a place; false: there is none for this one.
    #[must_use]
    pub fn take(&mut self, holder: Holder) -> bool {
        self.take_many(holder, 1)
    }

    /// Takes several at once, or none of them.
    #[must_use]
    pub fn take_many(&mut self, holder: Holder, several: usize) -> bool {
        let free = self.most.saturating_sub(self.taken);
        let is_stranger = holder.class == Class::Stranger;
        let of_strangers = self.most.div_ceil(PART_OF_STRANGERS);
        let own = self.held.get(&holder.home).copied().unwrap_or(0);
        if several > free
            || is_stranger && self.strangers + several > of_strangers
            || own + several > FEW.max(free / PART_OF_FREE).min(self.each)
        {
            return false;
        }
        self.taken += several;
        self.strangers += if is_stranger { several } else { 0 };
        self.held.insert(holder.home, own + several);
        true
    }

    /// Gives back a place that was taken.
    pub fn give_back(&mut self, holder: Holder) {
        self.give_back_many(holder, 1);
    }

    /// Gives back several that were taken.
    pub fn give_back_many(&mut self, holder: Holder, several: usize) {
        let Some(own) = self.held.get_mut(&holder.home) else {
            return;
        };
        *own = own.saturating_sub(several);
        if *own == 0 {
            self.held.remove(&holder.home);
        }
        self.taken = self.taken.saturating_sub(several);
        if holder.class == Class::Stranger {
            self.strangers = self.strangers.saturating_sub(several);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn homes() -> Homes {
        Homes::within([([10, 64, 0, 1].into(), 16)])
    }

    fn home(n: u32) -> Holder {
        let address = u32::from(Ipv4Addr::new(10, 64, 0, 16)) + n;
        Holder::of(&homes(), Ipv4Addr::from(address).into())
    }

    fn stranger(address: &str) -> Holder {
        Holder::of(&homes(), address.parse().unwrap())
    }

    fn taken(places: &mut Places, holder: Holder) -> usize {
        (0..10_000).take_while(|_| places.take(holder)).count()
    }

    #[test]
    fn one_that_takes_what_it_gets_leaves_four_fifths_and_ten_leave_a_tenth() {
        let mut places = Places::new(2_048);

        assert_eq!(taken(&mut places, home(0)), 409);
        let rest: usize = (1..10).map(|n| taken(&mut places, home(n))).sum();

        let free = 2_048 - 409 - rest;
        assert!((215..=225).contains(&free), "{free}");
        assert!(taken(&mut places, home(10)) > 40);
    }

    #[test]
    fn any_number_of_them_leaves_a_few_to_whoever_has_none_until_all_are_taken() {
        let mut places = Places::new(64);
        let all: usize = (0..20).map(|n| taken(&mut places, home(n))).sum();
        assert_eq!(all, 64);

        assert!(!places.take(home(30)));
        places.give_back(home(0));
        assert!(places.take(home(30)));
    }

    #[test]
    fn strangers_have_a_quarter_of_all_and_a_network_of_theirs_is_one_of_them() {
        let mut places = Places::new(2_048);
        let first = taken(&mut places, stranger("2001:db8::1"));
        assert_eq!(taken(&mut places, stranger("2001:db8::2")), 0);

        let rest: usize = (0..=255)
            .map(|n| taken(&mut places, stranger(&format!("203.0.113.{n}"))))
            .sum();

        assert_eq!((first, rest), (409, 103));
        assert!(places.take(home(0)));
    }

    #[test]
    fn several_are_taken_together_or_not_at_all_and_count_as_many() {
        let mut places = Places::new(64);

        assert!(!places.take_many(home(0), 17));
        assert!(places.take_many(home(0), 16));
        assert!(!places.take_many(home(1), 13));
        assert!(places.take_many(home(1), 12));
        places.give_back_many(home(0), 16);

        assert_eq!(places.taken, 12);
        assert!(places.take_many(home(2), 13));
    }

    #[test]
    fn what_is_given_back_is_free_and_nothing_is_kept_of_who_had_it() {
        let mut places = Places::new(16);
        let holders = [home(0), home(1), stranger("203.0.113.7")];
        for _ in 0..100 {
            for holder in holders {
                assert!(places.take(holder));
            }
            holders.into_iter().for_each(|it| places.give_back(it));
        }
        // Nobody's: it was never taken.
        places.give_back(home(5));

        assert_eq!((places.taken, places.strangers), (0, 0));
        assert!(places.held.is_empty());
    }
}
