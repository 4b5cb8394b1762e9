//! How a proposal stands: what each signature does for it, what is missing, and whether that suffices.
//!
//! People are shown this before they sign, and the judge decides by it, so that the two cannot differ.

use super::judge::{Refused, namespace};
use super::{Authority, Rule};
use crate::parties::Decider;
use crate::sshsig::SshSig;
use crate::statement::{Approval, Kind, Proposal, Verdict};

/// What a signature that holds does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// A vote for it.
    For,
    /// The word of who is named as the proposer; no vote.
    Proposes,
    /// Its person is not for it, whatever else they signed.
    Against,
    /// Nothing: the proposer's own approval, where the rule has no `self-approve`.
    Own,
    /// Nothing: the rule is not for this person.
    NoDecider,
    /// Nothing: the person has rejected it too.
    Withdrawn,
    /// Nothing: somebody else is named as the proposer.
    NotTheirs,
}

/// What the signatures are worth by one state of the authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Of the state.
    pub epoch: u64,
    pub rule: Rule,
    /// Who has to be for it, and who is.
    pub decider: Decider,
    /// What each signature does, in the order of the signatures.
    pub effects: Vec<Result<Effect, Refused>>,
    /// Whether who is named as the proposer has signed it.
    is_proposed: bool,
}

/// How a proposal stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    proposal: Proposal,
    now: Tally,
    /// By the state that it proposes.
    then: Option<Tally>,
    state: Option<Authority>,
    /// The first state of all: there is no log yet in which it could stand.
    is_first: bool,
}

impl Standing {
    /// By the state that holds, and where the proposal is a new state, by that one too. What was proposed under an earlier state is
    /// judged by the one that holds: it needs enough of those who are people now. A change of states is of the one that holds.
    pub fn of(
        authority: &Authority,
        proposal: &[u8],
        signed: &[Approval],
    ) -> Result<Self, Refused> {
        let read = Proposal::from_bytes(proposal)?;
        let (current, got) = (authority.epoch, read.authority_epoch);
        let earliest = if read.kind == Kind::Authority {
            current
        } else {
            1
        };
        if !(earliest..=current).contains(&got) {
            return Err(Refused::Epoch { current, got });
        }
        let now = Tally::of(authority, proposal, &read, signed)?;
        let (mut then, mut state) = (None, None);
        if read.kind == Kind::Authority {
            let next = proposed_state(&read, authority.epoch.saturating_add(1))?;
            then = Some(Tally::of(&next, proposal, &read, signed)?);
            state = Some(next);
        }
        Ok(Self {
            proposal: read,
            now,
            then,
            state,
            is_first: false,
        })
    }

    /// Of the first state of all, by itself alone: whoever believes it knows its hash from elsewhere. It is of epoch 1, its proposal
    /// of epoch 0, which no state has.
    pub fn of_first(proposal: &[u8], signed: &[Approval]) -> Result<Self, Refused> {
        let read = Proposal::from_bytes(proposal)?;
        if read.kind != Kind::Authority {
            return Err(Refused::NoState(read.kind));
        }
        if read.authority_epoch != 0 {
            let got = read.authority_epoch;
            return Err(Refused::Epoch { current: 0, got });
        }
        let first = proposed_state(&read, 1)?;
        Ok(Self {
            now: Tally::of(&first, proposal, &read, signed)?,
            proposal: read,
            then: None,
            state: Some(first),
            is_first: true,
        })
    }

    #[must_use]
    pub fn proposal(&self) -> &Proposal {
        &self.proposal
    }

    #[must_use]
    pub fn into_proposal(self) -> Proposal {
        self.proposal
    }

    /// By the state that holds; by itself, for the first of all.
    #[must_use]
    pub fn now(&self) -> &Tally {
        &self.now
    }

    /// By the state that is proposed, where one is.
    #[must_use]
    pub fn then(&self) -> Option<&Tally> {
        self.then.as_ref()
    }

    /// The state that is proposed, where one is; it holds once [`Standing::judge`] says so.
    #[must_use]
    pub fn state(&self) -> Option<&Authority> {
        self.state.as_ref()
    }

    pub(super) fn into_state(self) -> Option<Authority> {
        self.state
    }

    /// Whether who is named as the proposer has signed it.
    #[must_use]
    pub fn is_proposed(&self) -> bool {
        self.now.is_proposed
    }

    /// From when on it can have its effect, if it is in the log since `logged`.
    #[must_use]
    pub fn ripe_at(&self, logged: u64) -> u64 {
        let delay_s = if self.is_first {
            0
        } else {
            self.now.rule.min_delay_s
        };
        logged.saturating_add(delay_s).max(self.proposal.not_before)
    }

    /// Why the signature at this place stops the whole, if it does. One by either state's people is good in a change of states: who
    /// changes keys signs with an old one and with a new one.
    #[must_use]
    pub fn stopped_by(&self, at: usize) -> Option<&Refused> {
        let now = self.now.effects.get(at)?.as_ref().err();
        let Some(then) = &self.then else { return now };
        let then = then.effects.get(at)?.as_ref().err();
        match (now, then) {
            (Some(twice @ Refused::Twice(_)), _) | (_, Some(twice @ Refused::Twice(_))) => {
                Some(twice)
            }
            (Some(now), Some(_)) => Some(now),
            (Some(_) | None, None) | (None, Some(_)) => None,
        }
    }

    /// Whether it has its effect now. It stands in the log since `logged`, a sworn time, if anything shows that.
    pub fn judge(&self, logged: Option<u64>, now: u64) -> Result<(), Refused> {
        for at in 0..self.now.effects.len() {
            if let Some(refused) = self.stopped_by(at) {
                return Err(refused.clone());
            }
        }
        // What can never be right is told before what people and time will mend.
        self.is_brief_enough()?;
        if !self.is_proposed() {
            return Err(Refused::NotProposed(self.proposal.proposer.clone()));
        }
        self.now.suffices()?;
        if let Some(then) = &self.then {
            then.suffices()?;
        }
        self.is_in_time(logged, now)
    }

    fn is_brief_enough(&self) -> Result<(), Refused> {
        let (not_before, expires) = (self.proposal.not_before, self.proposal.expires);
        match self.now.rule.max_life_s {
            Some(most_s) if expires == 0 || expires.saturating_sub(not_before) > most_s => {
                Err(Refused::TooLong { most_s })
            }
            _ => Ok(()),
        }
    }

    fn is_in_time(&self, logged: Option<u64>, now: u64) -> Result<(), Refused> {
        let (not_before, expires) = (self.proposal.not_before, self.proposal.expires);
        if expires != 0 && now >= expires {
            return Err(Refused::Expired { expires, now });
        }
        if !self.is_first {
            let logged = logged.ok_or(Refused::NotLogged)?;
            let from = logged.saturating_add(self.now.rule.min_delay_s);
            if now < from {
                return Err(Refused::TooEarly { logged, from, now });
            }
        }
        match now < not_before {
            true => Err(Refused::NotYet { not_before, now }),
            false => Ok(()),
        }
    }
}

impl Tally {
    fn of(
        state: &Authority,
        proposal: &[u8],
        read: &Proposal,
        signed: &[Approval],
    ) -> Result<Self, Refused> {
        let rule = state.rule(read.kind).ok_or(Refused::NoRule(read.kind))?;
        let mut votes: Vec<(usize, Verdict)> = Vec::new();
        let mut people = Vec::with_capacity(signed.len());
        for one in signed {
            let person = state.person_of(one, proposal, read);
            let person = person.and_then(|person| match votes.contains(&(person, one.verdict)) {
                true => Err(Refused::Twice(one.person.clone())),
                false => Ok(person),
            });
            if let Ok(person) = &person {
                votes.push((*person, one.verdict));
            }
            people.push(person);
        }
        let effect = |person, verdict| state.effect(rule, read, &votes, (person, verdict));
        let is_for = |person: usize| {
            let of_them = |(whose, _): &&(usize, Verdict)| *whose == person;
            let mut theirs = votes.iter().filter(of_them);
            theirs.any(|(_, verdict)| effect(person, *verdict) == Effect::For)
        };
        let is_theirs = |person: usize| state.people.name(person) == read.proposer;
        Ok(Self {
            epoch: state.epoch,
            rule: rule.clone(),
            decider: state.people.decider(rule.party, &is_for),
            effects: people
                .into_iter()
                .zip(signed)
                .map(|(person, one)| person.map(|person| effect(person, one.verdict)))
                .collect(),
            is_proposed: votes
                .iter()
                .any(|(person, verdict)| *verdict == Verdict::Propose && is_theirs(*person)),
        })
    }

    /// Checks that those who are for it suffice.
    fn suffices(&self) -> Result<(), Refused> {
        match self.decider.is_met {
            true => Ok(()),
            false => Err(Refused::NoQuorum {
                deciders: self.decider.name.clone(),
                approved: self.decider.people().filter(|one| one.is_met).count(),
            }),
        }
    }
}

impl Authority {
    /// What a signature that holds does, beside all the others.
    fn effect(
        &self,
        rule: &Rule,
        read: &Proposal,
        votes: &[(usize, Verdict)],
        (person, verdict): (usize, Verdict),
    ) -> Effect {
        let is_own = self.people.name(person) == read.proposer;
        let is_below = self.people.is_below(rule.party, person);
        match (verdict, is_own) {
            (Verdict::Reject, _) => Effect::Against,
            (Verdict::Propose, false) => Effect::NotTheirs,
            (Verdict::Propose, true) if !(rule.self_approve && is_below) => Effect::Proposes,
            (Verdict::Approve, true) if !rule.self_approve => Effect::Own,
            (Verdict::Approve, _) if !is_below => Effect::NoDecider,
            _ if votes.contains(&(person, Verdict::Reject)) => Effect::Withdrawn,
            _ => Effect::For,
        }
    }

    /// Whose signature it is, once it holds.
    fn person_of(
        &self,
        one: &Approval,
        proposal: &[u8],
        read: &Proposal,
    ) -> Result<usize, Refused> {
        let person = || one.person.clone();
        if one.proposal_id != Proposal::id(proposal) {
            return Err(Refused::Foreign(person()));
        }
        let mut people = self.people.ones();
        let known = people.find(|(at, _)| self.people.name(*at) == one.person);
        let (at, keys) = known.ok_or_else(|| Refused::Unknown(person()))?;
        let refused = |error| Refused::Signature {
            person: person(),
            error,
        };
        let signature = SshSig::from_bytes(&one.sshsig).map_err(refused)?;
        if !keys.contains(signature.key()) {
            return Err(Refused::KeyOfOthers { person: person() });
        }
        let purpose = namespace(one.verdict, read.kind);
        signature.verify(&purpose, proposal).map_err(refused)?;
        Ok(at)
    }
}

/// The state in the body, which has to be of this epoch.
fn proposed_state(read: &Proposal, wanted: u64) -> Result<Authority, Refused> {
    let text = std::str::from_utf8(&read.body).unwrap_or("");
    let next = Authority::parse(text)?;
    match next.epoch {
        got if got == wanted => Ok(next),
        got => Err(Refused::StateEpoch { wanted, got }),
    }
}
