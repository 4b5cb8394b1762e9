//! A proposal, what was signed of it, and the state of the authority by which the judge of `trust` looks at both.

use std::path::Path;

use anyhow::Context;
use trust::{Activation, Anchors, Authority, Kind, Proof, Proposal, Refused, Standing};

use super::folder::{Claim, Folder, read_bounded};
use crate::failure::{Blame, Failure};

/// By what a proposal is judged.
#[derive(Debug)]
pub enum Holds {
    /// By nothing: it is only read.
    Unsaid,
    /// By itself: the first state of all.
    First,
    /// By the state that holds.
    State(Box<Authority>),
}

/// When it is judged, in unix seconds.
#[derive(Debug, Clone, Copy)]
pub struct When {
    /// Since when it stands in the log, if anything says so.
    pub logged: Option<u64>,
    pub now: u64,
}

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlook {
    Valid,
    /// Time's, or the log's.
    NotYet,
    /// Somebody's who has not signed.
    Short,
    /// Nobody's: it will never have its effect as it is.
    Invalid,
}

/// All of it.
#[derive(Debug)]
pub struct Case {
    pub folder: Folder,
    pub read: Proposal,
    pub holds: Holds,
    pub claims: Vec<Claim>,
    /// One for each claim; none where there is nothing to judge it by.
    pub standing: Option<Result<Standing, Refused>>,
}

impl Holds {
    /// The state in a file.
    pub fn of_file(path: &Path) -> anyhow::Result<Self> {
        let text = read_text(path)?;
        let state = Authority::parse(&text).map_err(|error| {
            let sentence = format!("{} is no state of the authority: {error}", path.display());
            Failure::new(Blame::Config, sentence)
        })?;
        Ok(Self::State(Box::new(state)))
    }

    /// The state that holds, where there is one.
    #[must_use]
    pub fn state(&self) -> Option<&Authority> {
        match self {
            Self::State(state) => Some(state),
            Self::Unsaid | Self::First => None,
        }
    }
}

impl Outlook {
    /// As programs read it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::NotYet => "not-yet",
            Self::Short => "short",
            Self::Invalid => "invalid",
        }
    }

    /// What a refusal means for those who wait.
    #[must_use]
    pub fn of(judged: &Result<(), Refused>) -> Self {
        match judged {
            Ok(()) => Self::Valid,
            Err(Refused::NotLogged | Refused::TooEarly { .. } | Refused::NotYet { .. }) => {
                Self::NotYet
            }
            Err(Refused::NoQuorum { .. } | Refused::NotProposed(_)) => Self::Short,
            Err(
                Refused::Malformed(_)
                | Refused::Epoch { .. }
                | Refused::NoRule(_)
                | Refused::Foreign(_)
                | Refused::Unknown(_)
                | Refused::KeyOfOthers { .. }
                | Refused::Signature { .. }
                | Refused::Twice(_)
                | Refused::Expired { .. }
                | Refused::TooLong { .. }
                | Refused::NoState(_)
                | Refused::State(_)
                | Refused::StateEpoch { .. },
            ) => Self::Invalid,
        }
    }
}

impl Case {
    /// Reads a folder and looks at it by what holds.
    pub fn open(path: &Path, holds: Holds) -> anyhow::Result<Self> {
        Self::of(Folder::open(path)?, holds)
    }

    /// The same for a folder that was read.
    pub fn of(folder: Folder, holds: Holds) -> anyhow::Result<Self> {
        let read = Proposal::from_bytes(&folder.proposal).map_err(|error| {
            let path = folder.path().display();
            Failure::new(Blame::Failed, format!("{path} holds no proposal: {error}"))
        })?;
        let claims = folder.claims(&read, holds.state());
        let approvals: Vec<_> = claims.iter().map(|claim| claim.approval.clone()).collect();
        let standing = match &holds {
            Holds::Unsaid => None,
            Holds::First => Some(Standing::of_first(&folder.proposal, &approvals)),
            Holds::State(state) => Some(Standing::of(state, &folder.proposal, &approvals)),
        };
        Ok(Self {
            folder,
            read,
            holds,
            claims,
            standing,
        })
    }

    /// The same with one more signature, which is not written down.
    pub fn with(self, armor: &str) -> anyhow::Result<Self> {
        let mut folder = self.folder;
        folder.add(armor)?;
        Self::of(folder, self.holds)
    }

    /// What the judge says; none where there is nothing to judge by.
    #[must_use]
    pub fn judge(&self, when: When) -> Option<Result<(), Refused>> {
        let standing = self.standing.as_ref()?;
        let judged = standing.as_ref().map_err(Clone::clone);
        Some(judged.and_then(|standing| standing.judge(when.logged, when.now)))
    }

    /// The first file that is no signature at all, of which the judge therefore does not hear.
    #[must_use]
    pub fn no_signature(&self) -> Option<String> {
        let mut files = self.folder.signatures.iter();
        files.find_map(|file| {
            let error = file.read.as_ref().err()?;
            Some(format!("{} is {error}; take it away", file.name))
        })
    }

    /// Since when the log's quorum has sworn that it stands there, by the proof in the folder.
    pub fn logged(&self, anchors: &Anchors) -> anyhow::Result<Option<u64>> {
        let Some(proof) = self.folder.proof()? else {
            return Ok(None);
        };
        let logged = Proof::parse(&proof).and_then(|proof| {
            anchors
                .authority
                .verify_proof(&proof, &self.folder.proposal)
        });
        let logged = logged.context("the proof in the folder does not hold")?;
        Ok(Some(logged.sworn.since))
    }

    /// What machines are shown: the proposal with all that was signed, and the proof.
    pub fn activation(&self) -> anyhow::Result<Vec<u8>> {
        let approvals = self.claims.iter().map(|claim| claim.approval.clone());
        let activation = Activation {
            proposal: self.folder.proposal.clone(),
            approvals: approvals.collect(),
            proof: self.folder.proof()?.unwrap_or_default(),
        };
        let bytes = activation.to_bytes();
        Activation::from_bytes(&bytes).context("this is more than an activation holds")?;
        Ok(bytes)
    }

    /// The text of the state that is proposed, where it is about one.
    #[must_use]
    pub fn proposed_text(&self) -> Option<&str> {
        let is_state = self.read.kind == Kind::Authority;
        std::str::from_utf8(&self.read.body)
            .ok()
            .filter(|_| is_state)
    }
}

/// Reads a text that cannot be long.
pub fn read_text(path: &Path) -> anyhow::Result<String> {
    let text = String::from_utf8(read_bounded(path)?);
    text.with_context(|| format!("{} is no text", path.display()))
}
