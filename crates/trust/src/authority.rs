//! The state of the authority: who the people are, which of them together may do what, and the judge of what they signed.
//!
//! A text of lines, so that whoever signs it can read it; the body of an `authority` proposal is this text. Empty lines and lines
//! that begin with `#` may stand anywhere.
//!
//! ```text
//! epoch 4
//! person alice ssh-ed25519 AAAAC3…
//! person alice sk-ssh-ed25519@openssh.com AAAAGn…
//! person bob sk-ssh-ed25519@openssh.com AAAAGn…
//! group noc 2 alice bob
//! rule gateway noc min-delay 3600
//! rule authority noc min-delay 86400
//! ```

mod judge;
mod standing;

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

pub use judge::{Refused, namespace};
pub use standing::{Effect, Standing, Tally};

use crate::lines::decimal;
use crate::parties::{Decider, Parties, PartyProblem};
use crate::policy::{PolicyProblem, words};
use crate::sshsig::{SshKey, SshSigError};
use crate::statement::Kind;

const MAX_BYTES: usize = 15 * 1024;
const MAX_KEYS: usize = 8;
/// One person may do what break-glass does, and for an hour at most.
const MAX_BREAK_GLASS_S: u64 = 3_600;

/// What is wrong with the text, and in which line (counted from 1; 0 for the text as a whole).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct AuthorityError {
    pub line: usize,
    pub problem: AuthorityProblem,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityProblem {
    #[error("the state of the authority is longer than {MAX_BYTES} bytes, or no UTF-8")]
    NoText,
    #[error(transparent)]
    Line(PolicyProblem),
    #[error(transparent)]
    Party(#[from] PartyProblem),
    #[error("the first line is `epoch` and a number from 1, and no other line is")]
    Epoch,
    #[error("unknown word; accepted: epoch, person, group, rule")]
    UnknownWord,
    #[error("accepted: {0}")]
    Form(&'static str),
    #[error("{0}")]
    Key(#[from] SshSigError),
    #[error("the same key is in two lines")]
    DuplicateKey,
    #[error("a person has at most {MAX_KEYS} keys")]
    TooManyKeys,
    #[error("`{0}` is no kind of proposal")]
    UnknownKind(String),
    #[error("there are two rules for `{0}`")]
    TwoRules(Kind),
    #[error("somebody is in the rule twice, and would have two votes")]
    TwoVotes,
    #[error("break-glass has a max-life of at most {MAX_BREAK_GLASS_S} seconds")]
    BreakGlass,
    #[error("there is no rule for `authority`: nobody could ever change this")]
    Unchangeable,
}

/// Who may decide one kind of proposal, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    party: usize,
    /// For so long a proposal stands in the log before it has an effect, so that others can object; seconds.
    pub min_delay_s: u64,
    /// An effect lasts no longer; seconds.
    pub max_life_s: Option<u64>,
    /// Whether who proposes is one of those who approve.
    pub self_approve: bool,
}

/// The people, their groups and the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    epoch: u64,
    people: Parties<Vec<SshKey>>,
    rules: BTreeMap<Kind, Rule>,
    text: String,
    id: [u8; 32],
}

impl Authority {
    pub fn parse(text: &str) -> Result<Self, AuthorityError> {
        let whole = |problem| AuthorityError { line: 0, problem };
        if text.len() > MAX_BYTES {
            return Err(whole(AuthorityProblem::NoText));
        }
        let mut draft = Draft::default();
        for (line, text) in (1..).zip(text.split('\n')) {
            draft
                .line(text)
                .map_err(|problem| AuthorityError { line, problem })?;
        }
        if !draft.rules.contains_key(&Kind::Authority) {
            return Err(whole(AuthorityProblem::Unchangeable));
        }
        Ok(Self {
            epoch: draft.epoch.ok_or_else(|| whole(AuthorityProblem::Epoch))?,
            people: draft.people,
            rules: draft.rules,
            id: Sha256::digest(text).into(),
            text: text.to_owned(),
        })
    }

    /// How often it has changed, from 1.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The text, as people read and signed it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// SHA-256 of the text.
    #[must_use]
    pub fn id(&self) -> &[u8; 32] {
        &self.id
    }

    /// Who may decide a kind; nobody, where there is no rule.
    #[must_use]
    pub fn rule(&self, kind: Kind) -> Option<&Rule> {
        self.rules.get(&kind)
    }

    /// All rules, each with who decides.
    pub fn rules(&self) -> impl Iterator<Item = (Kind, &Rule, Decider)> {
        let nobody = |_| false;
        self.rules.iter().map(move |(kind, rule)| {
            let decider = self.people.decider(rule.party, &nobody);
            (*kind, rule, decider)
        })
    }

    /// Whose key it is.
    #[must_use]
    pub fn person_with(&self, key: &SshKey) -> Option<&str> {
        let (at, _) = self.people.ones().find(|(_, keys)| keys.contains(key))?;
        Some(self.people.name(at))
    }
}

/// The state while its lines are read.
#[derive(Default)]
struct Draft {
    epoch: Option<u64>,
    people: Parties<Vec<SshKey>>,
    rules: BTreeMap<Kind, Rule>,
}

impl Draft {
    fn line(&mut self, text: &str) -> Result<(), AuthorityProblem> {
        let words = words(text).map_err(AuthorityProblem::Line)?;
        match (words.as_slice(), self.epoch) {
            ([], _) => Ok(()),
            (["epoch", number], None) => {
                let epoch = decimal(number).filter(|epoch| *epoch > 0);
                self.epoch = Some(epoch.ok_or(AuthorityProblem::Epoch)?);
                Ok(())
            }
            (["epoch", ..], _) | (_, None) => Err(AuthorityProblem::Epoch),
            (["person", name, kind, key, ..], _) => self.person(name, &format!("{kind} {key}")),
            (["person", ..], _) => Err(AuthorityProblem::Form("person NAME KEY-TYPE KEY")),
            (["group", name, threshold, members @ ..], _) if !members.is_empty() => {
                self.people.group(name, threshold, members)?;
                Ok(())
            }
            (["group", ..], _) => Err(AuthorityProblem::Form("group NAME THRESHOLD MEMBER…")),
            (["rule", kind, party, conditions @ ..], _) => self.rule(kind, party, conditions),
            (["rule", ..], _) => Err(AuthorityProblem::Form("rule KIND PERSON-OR-GROUP …")),
            _ => Err(AuthorityProblem::UnknownWord),
        }
    }

    fn person(&mut self, name: &str, key: &str) -> Result<(), AuthorityProblem> {
        let key: SshKey = key.parse()?;
        let is_known = |keys: &[SshKey]| keys.iter().any(|known| known.point() == key.point());
        if self.people.ones().any(|(_, keys)| is_known(keys)) {
            return Err(AuthorityProblem::DuplicateKey);
        }
        let Ok(person) = self.people.find(name) else {
            return Ok(self.people.define(name, vec![key])?);
        };
        // A group of this name is no person.
        let keys = self.people.one_mut(person);
        let keys = keys.ok_or(PartyProblem::NameTaken)?;
        if keys.len() == MAX_KEYS {
            return Err(AuthorityProblem::TooManyKeys);
        }
        keys.push(key);
        Ok(())
    }

    fn rule(
        &mut self,
        kind: &str,
        party: &str,
        conditions: &[&str],
    ) -> Result<(), AuthorityProblem> {
        let known = Kind::ALL.into_iter().find(|known| known.as_str() == kind);
        let kind = known.ok_or_else(|| AuthorityProblem::UnknownKind(kind.to_owned()))?;
        let mut rule = Rule {
            party: self.people.find(party)?,
            min_delay_s: 0,
            max_life_s: None,
            self_approve: false,
        };
        rule.conditions(conditions)?;
        if !self.people.counts_each_once(rule.party) {
            return Err(AuthorityProblem::TwoVotes);
        }
        let is_brief = rule
            .max_life_s
            .is_some_and(|life| life <= MAX_BREAK_GLASS_S);
        if kind == Kind::BreakGlass && !is_brief {
            return Err(AuthorityProblem::BreakGlass);
        }
        match self.rules.insert(kind, rule) {
            Some(_) => Err(AuthorityProblem::TwoRules(kind)),
            None => Ok(()),
        }
    }
}

impl Rule {
    /// In this order, each once at most.
    fn conditions(&mut self, words: &[&str]) -> Result<(), AuthorityProblem> {
        const FORM: AuthorityProblem = AuthorityProblem::Form(
            "rule KIND PERSON-OR-GROUP [min-delay SECONDS] [max-life SECONDS] [self-approve]",
        );
        let mut rest = words;
        if let ["min-delay", seconds, after @ ..] = rest {
            self.min_delay_s = decimal(seconds).ok_or(FORM)?;
            rest = after;
        }
        if let ["max-life", seconds, after @ ..] = rest {
            self.max_life_s = Some(decimal(seconds).filter(|life| *life > 0).ok_or(FORM)?);
            rest = after;
        }
        if let ["self-approve", after @ ..] = rest {
            self.self_approve = true;
            rest = after;
        }
        match rest {
            [] => Ok(()),
            _ => Err(FORM),
        }
    }
}
