//! Places: so many and no more of what there is a bounded number of. Where none is left, whoever has the most gives up the one that they had for
//! longest to somebody who has fewer still with it (max-min fairness): however many come together, and however long they hold what they have,
//! they leave their share to whoever comes next.

mod seats;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Homes;
use super::homes::HOME_BITS;

pub use seats::{GivenUp, Seat, Seats};

/// So many anybody may have.
const FEW: usize = 8;
/// More than these are this part of all at most: one source, and all strangers together.
const PART: usize = 4;
/// Who is in no home is counted with those around, since addresses cost nothing where networks do: a tunnel broker gives anybody a /48, which is
/// 65,536 homes of the internet, and less than a /24 of IPv4 is announced nowhere.
const V6_NETWORK_BITS: u32 = 48;
const V4_NETWORK_BITS: u32 = 24;

/// Who takes a place: the homes have three quarters of them for themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// One of the gateway's homes.
    Home,
    /// Anybody else.
    Stranger,
}

/// Whose a place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    /// What they are.
    pub class: Class,
    pub(crate) home: IpAddr,
    /// Who shares with them: a home within the gateway's networks does with nobody.
    pub(crate) network: IpAddr,
}

impl Holder {
    /// Who asks from an address. Without networks of homes everybody is one.
    #[must_use]
    pub fn of(homes: &Homes, address: IpAddr) -> Self {
        Self::by(homes, address, HOME_BITS)
    }

    /// The same where a home of the internet has a network this long.
    #[must_use]
    pub fn by(homes: &Homes, address: IpAddr, home_bits: u32) -> Self {
        let is_within = homes.hold(address);
        let home = homes.of(address, home_bits);
        Self {
            class: if is_within || homes.is_empty() {
                Class::Home
            } else {
                Class::Stranger
            },
            home,
            network: if is_within { home } else { network(home) },
        }
    }
}

fn network(home: IpAddr) -> IpAddr {
    match home {
        IpAddr::V4(v4) => {
            let rest = u32::BITS - V4_NETWORK_BITS;
            Ipv4Addr::from_bits(v4.to_bits() >> rest << rest).into()
        }
        IpAddr::V6(v6) => {
            let rest = u128::BITS - V6_NETWORK_BITS;
            Ipv6Addr::from_bits(v6.to_bits() >> rest << rest).into()
        }
    }
}

/// A place that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) holder: Holder,
    /// No other of the same places has it; a later one has a larger one.
    pub(crate) number: u64,
}

/// What taking one has come to.
#[derive(Debug)]
pub(crate) struct Taken<T> {
    pub(crate) ticket: Ticket,
    /// What somebody else had to give up for it.
    pub(crate) given_up: Option<(Ticket, T)>,
}

/// The places, and what each is for.
#[derive(Debug)]
pub(crate) struct Places<T> {
    most: usize,
    /// Of one source, however many are free.
    each: usize,
    /// Whether whoever has one keeps it, whoever else comes.
    is_kept: bool,
    pub(crate) taken: usize,
    pub(crate) strangers: usize,
    last: u64,
    /// What sources have, the oldest first.
    held: HashMap<IpAddr, BTreeMap<u64, T>>,
    networks: HashMap<(Class, IpAddr), Network>,
    /// Networks in the order of what they have, the homes' and the strangers'.
    by_count: [BTreeSet<(usize, IpAddr)>; 2],
}

/// What one network has.
#[derive(Debug, Default)]
struct Network {
    taken: usize,
    /// Its sources in the order of what they have.
    by_count: BTreeSet<(usize, IpAddr)>,
}

impl<T> Places<T> {
    /// So many, of which nobody has more than a quarter.
    #[must_use]
    pub(crate) fn new(most: usize) -> Self {
        Self::bounded(most, FEW.max(most / PART))
    }

    /// So many, of which no source has more than so many.
    #[must_use]
    pub(crate) fn bounded(most: usize, each: usize) -> Self {
        Self {
            most,
            each,
            is_kept: false,
            taken: 0,
            strangers: 0,
            last: 0,
            held: HashMap::new(),
            networks: HashMap::new(),
            by_count: [const { BTreeSet::new() }; 2],
        }
    }

    /// The same, but that nobody has to give one up.
    pub(crate) fn kept(self) -> Self {
        Self {
            is_kept: true,
            ..self
        }
    }

    /// How many there are.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// Takes a place for something.
    ///
    /// # Errors
    /// Gives it back where there is no place for this one.
    pub(crate) fn take(&mut self, holder: Holder, what: T) -> Result<Taken<T>, T> {
        let own = self.held.get(&holder.home).map_or(0, BTreeMap::len);
        if own >= self.each {
            return Err(what);
        }
        let is_stranger = holder.class == Class::Stranger;
        let no_more = is_stranger && self.strangers >= self.most.div_ceil(PART);
        let mut given_up = None;
        if no_more || self.taken >= self.most {
            let oldest = self.oldest_of_largest(holder, own);
            let Some(oldest) = oldest.filter(|_| !self.is_kept) else {
                return Err(what);
            };
            given_up = self.give_back(oldest).map(|what| (oldest, what));
        }
        self.last += 1;
        let ticket = Ticket {
            holder,
            number: self.last,
        };
        let held = self.held.entry(holder.home).or_default();
        held.insert(ticket.number, what);
        let own = held.len();
        self.count(holder, own - 1, own);
        Ok(Taken { ticket, given_up })
    }

    /// Gives back a place: what it was for, unless somebody else has it by now.
    pub(crate) fn give_back(&mut self, ticket: Ticket) -> Option<T> {
        let holder = ticket.holder;
        let held = self.held.get_mut(&holder.home)?;
        let what = held.remove(&ticket.number)?;
        let own = held.len();
        if own == 0 {
            self.held.remove(&holder.home);
        }
        self.count(holder, own + 1, own);
        Some(what)
    }

    /// What a place is for has been used: it counts as taken now.
    pub(crate) fn renew(&mut self, ticket: &mut Ticket) {
        let held = self.held.get_mut(&ticket.holder.home);
        if let Some(held) = held
            && let Some(what) = held.remove(&ticket.number)
        {
            self.last += 1;
            ticket.number = self.last;
            held.insert(ticket.number, what);
        }
    }

    /// Whose place one who has so many gets where none is left: that of the source that has the most in the network that has the most, or in its own.
    fn oldest_of_largest(&self, holder: Holder, own: usize) -> Option<Ticket> {
        let classes: &[Class] = match holder.class {
            Class::Home => &[Class::Home, Class::Stranger],
            Class::Stranger => &[Class::Stranger],
        };
        let largest = classes.iter().filter_map(|class| {
            let (taken, network) = self.by_count[*class as usize].last()?;
            Some((*taken, *class, *network))
        });
        let (taken, class, network) = largest.max_by_key(|(taken, ..)| *taken)?;
        let neighbours = self.networks.get(&(holder.class, holder.network));
        let is_larger = taken > neighbours.map_or(0, |own| own.taken) + 1;
        let (class, network) = if is_larger {
            (class, network)
        } else {
            (holder.class, holder.network)
        };
        let (has, home) = *self.networks.get(&(class, network))?.by_count.last()?;
        if !is_larger && has <= own + 1 {
            return None;
        }
        let (number, _) = self.held.get(&home)?.first_key_value()?;
        Some(Ticket {
            holder: Holder {
                class,
                home,
                network,
            },
            number: *number,
        })
    }

    /// Notes that a source has so many, after so many.
    fn count(&mut self, holder: Holder, before: usize, now: usize) {
        let Holder {
            class,
            home,
            network,
        } = holder;
        self.taken = self.taken + now - before;
        if class == Class::Stranger {
            self.strangers = self.strangers + now - before;
        }
        let theirs = self.networks.entry((class, network)).or_default();
        let all_before = theirs.taken;
        theirs.taken = theirs.taken + now - before;
        move_up(&mut theirs.by_count, home, (before, now));
        let all_now = theirs.taken;
        move_up(
            &mut self.by_count[class as usize],
            network,
            (all_before, all_now),
        );
        if all_now == 0 {
            self.networks.remove(&(class, network));
        }
    }
}

/// Moves one to where it stands with so many, after so many.
fn move_up(by_count: &mut BTreeSet<(usize, IpAddr)>, one: IpAddr, (before, now): (usize, usize)) {
    by_count.remove(&(before, one));
    if now > 0 {
        by_count.insert((now, one));
    }
}

#[cfg(test)]
mod tests;
