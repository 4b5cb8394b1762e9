//! Parties by name, and groups of them with a threshold: the lines that the policies of logs and the state of the authority share
//! (<https://c2sp.org/tlog-policy>).

use crate::lines::decimal;

/// Room for more than the 32 of each that the format asks for.
pub(crate) const MAX_DEFINITIONS: usize = 64;
/// A word that stands for nobody.
pub(crate) const NOBODY: &str = "none";

/// What is wrong with a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PartyProblem {
    #[error("the name is defined twice, or is `none`")]
    NameTaken,
    #[error("the name is not defined in a line above")]
    UnknownName,
    #[error("a party can be a member only once")]
    MemberTwice,
    #[error("a threshold is `any`, `all`, or a number from 1 to the number of members")]
    Threshold,
    #[error("more than {MAX_DEFINITIONS} lines of one sort")]
    TooMany,
}

/// All of them, in the order of their definitions: members stand above their group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parties<L>(Vec<Party<L>>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Party<L> {
    name: String,
    role: Role<L>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Role<L> {
    One(L),
    Group {
        threshold: usize,
        members: Vec<usize>,
    },
}

/// A person or a group that decides, and whether it is for something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decider {
    pub name: String,
    pub is_met: bool,
    /// How many of whom; none for a person.
    pub group: Option<(usize, Vec<Self>)>,
}

impl Decider {
    /// Everybody that it is about.
    #[must_use]
    pub fn people(&self) -> Box<dyn Iterator<Item = &Self> + '_> {
        match &self.group {
            None => Box::new(std::iter::once(self)),
            Some((_, members)) => Box::new(members.iter().flat_map(Self::people)),
        }
    }
}

impl<L> Default for Parties<L> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<L> Parties<L> {
    pub(crate) fn find(&self, name: &str) -> Result<usize, PartyProblem> {
        let found = self.0.iter().position(|party| party.name == name);
        found.ok_or(PartyProblem::UnknownName)
    }

    pub(crate) fn name(&self, party: usize) -> &str {
        self.0.get(party).map_or("", |party| &party.name)
    }

    /// Those that are no groups, with their numbers.
    pub(crate) fn ones(&self) -> impl Iterator<Item = (usize, &L)> {
        self.0
            .iter()
            .enumerate()
            .filter_map(|(at, party)| match &party.role {
                Role::One(one) => Some((at, one)),
                Role::Group { .. } => None,
            })
    }

    pub(crate) fn one_mut(&mut self, party: usize) -> Option<&mut L> {
        match &mut self.0.get_mut(party)?.role {
            Role::One(one) => Some(one),
            Role::Group { .. } => None,
        }
    }

    pub(crate) fn define(&mut self, name: &str, one: L) -> Result<(), PartyProblem> {
        self.add(name, Role::One(one))
    }

    /// Defines a group of parties that are defined, each named once; gives its members.
    pub(crate) fn group(
        &mut self,
        name: &str,
        threshold: &str,
        names: &[&str],
    ) -> Result<Vec<usize>, PartyProblem> {
        let threshold = match threshold {
            "any" => 1,
            "all" => names.len(),
            number => usize::try_from(decimal(number).unwrap_or(0)).unwrap_or(0),
        };
        if threshold == 0 || threshold > names.len() {
            return Err(PartyProblem::Threshold);
        }
        let mut members = Vec::with_capacity(names.len());
        for name in names {
            let member = self.find(name)?;
            if members.contains(&member) {
                return Err(PartyProblem::MemberTwice);
            }
            members.push(member);
        }
        let all = members.clone();
        self.add(name, Role::Group { threshold, members })?;
        Ok(all)
    }

    /// Whether a party is met, when `holds` tells it of those that are no groups.
    pub(crate) fn meets(&self, party: usize, holds: &impl Fn(usize) -> bool) -> bool {
        match self.0.get(party).map(|party| &party.role) {
            Some(Role::One(_)) => holds(party),
            Some(Role::Group { threshold, members }) => {
                let met = members.iter().filter(|member| self.meets(**member, holds));
                met.count() >= *threshold
            }
            None => false,
        }
    }

    /// How many of those that count any two sets share that each meet a party by themselves; parties below it stand in one group each.
    pub(crate) fn overlap(&self, party: usize, counts: &impl Fn(usize) -> bool) -> usize {
        match self.0.get(party).map(|party| &party.role) {
            Some(Role::One(_)) => usize::from(counts(party)),
            Some(Role::Group { threshold, members }) => {
                // Two that leave out as many as they may, and never the same ones.
                let both = (2 * threshold).saturating_sub(members.len());
                let each = members.iter().map(|member| self.overlap(*member, counts));
                let mut each: Vec<usize> = each.collect();
                each.sort_unstable();
                each.into_iter().take(both).sum()
            }
            None => 0,
        }
    }

    /// A party with all that is below it, when `holds` tells it of those that are no groups.
    pub(crate) fn decider(&self, party: usize, holds: &impl Fn(usize) -> bool) -> Decider {
        let below = |members: &[usize]| -> Vec<Decider> {
            let members = members.iter();
            members.map(|member| self.decider(*member, holds)).collect()
        };
        let role = self.0.get(party).map(|party| &party.role);
        Decider {
            name: self.name(party).to_owned(),
            is_met: self.meets(party, holds),
            group: match role {
                Some(Role::Group { threshold, members }) => Some((*threshold, below(members))),
                Some(Role::One(_)) | None => None,
            },
        }
    }

    /// Whether `one` is this party, or a member of it through whichever groups.
    pub(crate) fn is_below(&self, party: usize, one: usize) -> bool {
        match self.0.get(party).map(|party| &party.role) {
            Some(Role::Group { members, .. }) => {
                members.iter().any(|member| self.is_below(*member, one))
            }
            Some(Role::One(_)) | None => party == one,
        }
    }

    /// Whether no party is below another one twice, so that each has one vote in it.
    pub(crate) fn counts_each_once(&self, party: usize) -> bool {
        let mut seen = vec![false; self.0.len()];
        self.visit_once(party, &mut seen)
    }

    fn visit_once(&self, party: usize, seen: &mut [bool]) -> bool {
        // Members stand above their group, so that this ends; twice the same ends it too.
        match seen.get_mut(party) {
            Some(seen) if !*seen => *seen = true,
            _ => return false,
        }
        match self.0.get(party).map(|party| &party.role) {
            Some(Role::Group { members, .. }) => {
                members.iter().all(|member| self.visit_once(*member, seen))
            }
            Some(Role::One(_)) => true,
            None => false,
        }
    }

    fn add(&mut self, name: &str, role: Role<L>) -> Result<(), PartyProblem> {
        if name == NOBODY || self.find(name).is_ok() {
            return Err(PartyProblem::NameTaken);
        }
        if self.0.len() == 2 * MAX_DEFINITIONS {
            return Err(PartyProblem::TooMany);
        }
        self.0.push(Party {
            name: name.to_owned(),
            role,
        });
        Ok(())
    }
}
