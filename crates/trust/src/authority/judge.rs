//! Whether what people signed suffices.

use super::{Authority, AuthorityError, Rule};
use crate::cbor::DecodeError;
use crate::sshsig::{SshSig, SshSigError};
use crate::statement::{Approval, Kind, Proposal, Verdict};

/// Why a proposal has no effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the proposal cannot be read: {0}")]
    Malformed(#[from] DecodeError),
    #[error("the proposal is of authority epoch {got}, but it is {current}")]
    Epoch { current: u64, got: u64 },
    #[error("nobody may decide about `{0}`: there is no rule for it")]
    NoRule(Kind),
    #[error("an approval by {0} is of another proposal")]
    Foreign(String),
    #[error("{0} is nobody that the authority knows")]
    Unknown(String),
    #[error("a signature in the name of {person} is by a key that is not theirs")]
    KeyOfOthers { person: String },
    #[error("the signature of {person} does not count: {error}")]
    Signature { person: String, error: SshSigError },
    #[error("{0} has signed twice")]
    Twice(String),
    #[error("{0}, who is named as the proposer, has not signed it")]
    NotProposed(String),
    #[error("{deciders} have not approved it: {approved} of them did")]
    NoQuorum { deciders: String, approved: usize },
    #[error("it stands in the log since {logged}, and has an effect from {from} on; it is {now}")]
    TooEarly { logged: u64, from: u64, now: u64 },
    #[error("it begins at {not_before}, it is {now}")]
    NotYet { not_before: u64, now: u64 },
    #[error("it ended at {expires}, it is {now} at the earliest")]
    Expired { expires: u64, now: u64 },
    #[error("it would last for longer than the {most_s} seconds that are allowed")]
    TooLong { most_s: u64 },
    #[error("a proposal about `{0}` makes no new state of the authority")]
    NoState(Kind),
    #[error("the new state of the authority is refused: {0}")]
    State(#[from] AuthorityError),
    #[error("the new state of the authority has epoch {got} and not {wanted}")]
    StateEpoch { wanted: u64, got: u64 },
}

/// What a signature is for: one purpose for each verdict and kind, so that none can be taken for another.
#[must_use]
pub fn namespace(verdict: Verdict, kind: Kind) -> String {
    let verdict = match verdict {
        Verdict::Approve => "approve",
        Verdict::Reject => "reject",
        Verdict::Propose => "propose",
    };
    format!("{verdict}-{kind}@culvert")
}

impl Authority {
    /// The proposal, if it has its effect now: signed by enough people, long enough in the log (since `logged`, a sworn time), and
    /// within its time. All times are unix seconds. Every signature has to hold, also one that changes nothing: what does not is
    /// somebody's mistake, or worse.
    pub fn judge(
        &self,
        proposal: &[u8],
        signed: &[Approval],
        logged: u64,
        now: u64,
    ) -> Result<Proposal, Refused> {
        let (read, rule) = self.read(proposal)?;
        let people = signed
            .iter()
            .map(|one| self.person_of(one, proposal, &read));
        let people = people.collect::<Result<Vec<_>, _>>()?;
        let votes: Vec<_> = people.into_iter().zip(signed).collect();
        is_proposed(&read, &votes)?;
        self.approve(rule, &read, &votes)?;
        in_its_time(&read, rule, logged, now)?;
        Ok(read)
    }

    /// The state after this one: enough people of both have signed for it. Who changes keys signs with an old one and with a new one.
    pub fn succeed(
        &self,
        proposal: &[u8],
        signed: &[Approval],
        logged: u64,
        now: u64,
    ) -> Result<Self, Refused> {
        let (read, rule) = self.read(proposal)?;
        if read.kind != Kind::Authority {
            return Err(Refused::NoState(read.kind));
        }
        let next = self.next(&read)?;
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for one in signed {
            let of = |state: &Self| state.person_of(one, proposal, &read);
            let (old, new) = (of(self), of(&next));
            if new.is_err() {
                // Of neither: the reason is told by what holds now.
                before.push((old?, one));
                continue;
            }
            after.extend(new.map(|person| (person, one)));
            before.extend(old.map(|person| (person, one)));
        }
        is_proposed(&read, &before)?;
        self.approve(rule, &read, &before)?;
        let theirs = next.rule(read.kind).ok_or(Refused::NoRule(read.kind))?;
        next.approve(theirs, &read, &after)?;
        in_its_time(&read, rule, logged, now)?;
        Ok(next)
    }

    fn read(&self, proposal: &[u8]) -> Result<(Proposal, &Rule), Refused> {
        let read = Proposal::from_bytes(proposal)?;
        if read.authority_epoch != self.epoch {
            let (current, got) = (self.epoch, read.authority_epoch);
            return Err(Refused::Epoch { current, got });
        }
        let rule = self.rule(read.kind).ok_or(Refused::NoRule(read.kind))?;
        Ok((read, rule))
    }

    fn next(&self, read: &Proposal) -> Result<Self, Refused> {
        let text = std::str::from_utf8(&read.body).unwrap_or("");
        let next = Self::parse(text)?;
        let wanted = self.epoch.saturating_add(1);
        if next.epoch != wanted {
            let got = next.epoch;
            return Err(Refused::StateEpoch { wanted, got });
        }
        Ok(next)
    }

    /// Checks that those who are for it suffice. Who is against it is not for it, whatever else they signed.
    fn approve(
        &self,
        rule: &Rule,
        read: &Proposal,
        votes: &[(usize, &Approval)],
    ) -> Result<(), Refused> {
        let mut seen = Vec::new();
        for (person, one) in votes {
            if seen.contains(&(*person, one.verdict)) {
                return Err(Refused::Twice(one.person.clone()));
            }
            seen.push((*person, one.verdict));
        }
        let is_for = |person: usize| {
            let said = |verdict| seen.contains(&(person, verdict));
            let is_own = self.people.name(person) == read.proposer;
            let approves = match is_own {
                true => rule.self_approve && (said(Verdict::Approve) || said(Verdict::Propose)),
                false => said(Verdict::Approve),
            };
            approves && !said(Verdict::Reject)
        };
        if self.people.meets(rule.party, &is_for) {
            return Ok(());
        }
        let approved = self.people.ones().filter(|(person, _)| is_for(*person));
        Err(Refused::NoQuorum {
            deciders: self.deciders(rule).to_owned(),
            approved: approved.count(),
        })
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

/// Checks that who is named proposed it: else somebody could propose in another's name, and approve it themselves.
fn is_proposed(read: &Proposal, votes: &[(usize, &Approval)]) -> Result<(), Refused> {
    let is_theirs = |one: &Approval| one.verdict == Verdict::Propose && one.person == read.proposer;
    match votes.iter().any(|(_, one)| is_theirs(one)) {
        true => Ok(()),
        false => Err(Refused::NotProposed(read.proposer.clone())),
    }
}

fn in_its_time(read: &Proposal, rule: &Rule, logged: u64, now: u64) -> Result<(), Refused> {
    let from = logged.saturating_add(rule.min_delay_s);
    if now < from {
        return Err(Refused::TooEarly { logged, from, now });
    }
    let (not_before, expires) = (read.not_before, read.expires);
    if now < not_before {
        return Err(Refused::NotYet { not_before, now });
    }
    if expires != 0 && now >= expires {
        return Err(Refused::Expired { expires, now });
    }
    match rule.max_life_s {
        Some(most_s) if expires == 0 || expires.saturating_sub(not_before) > most_s => {
            Err(Refused::TooLong { most_s })
        }
        _ => Ok(()),
    }
}
