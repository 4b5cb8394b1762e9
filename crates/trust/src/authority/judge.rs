//! Whether what people signed suffices.

use super::standing::Standing;
use super::{Authority, AuthorityError};
use crate::cbor::DecodeError;
use crate::sshsig::SshSigError;
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
    #[error("nothing shows that it stands in the log")]
    NotLogged,
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
        let standing = Standing::of(self, proposal, signed)?;
        standing.judge(Some(logged), now)?;
        Ok(standing.into_proposal())
    }

    /// The state after this one: enough people of both have signed for it. Who changes keys signs with an old one and with a new one.
    pub fn succeed(
        &self,
        proposal: &[u8],
        signed: &[Approval],
        logged: u64,
        now: u64,
    ) -> Result<Self, Refused> {
        let standing = Standing::of(self, proposal, signed)?;
        let kind = standing.proposal().kind;
        if kind != Kind::Authority {
            return Err(Refused::NoState(kind));
        }
        standing.judge(Some(logged), now)?;
        standing.into_state().ok_or(Refused::NoState(kind))
    }
}
