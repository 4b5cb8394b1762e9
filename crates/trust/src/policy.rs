//! Which logs and which quorum of witnesses a machine believes (<https://c2sp.org/tlog-policy>).
//!
//! The text is UTF-8 here, though the format would allow other octets in comments and names.

use crate::checkpoint::{SignedCheckpoint, cosignature_time, log_signature_holds};
use crate::parties::{MAX_DEFINITIONS, NOBODY, Parties, PartyProblem};
use crate::proof::{LoggedAt, Proof, ProofError, Sworn};
use crate::vkey::{ALG_COSIGNATURE, ALG_ED25519, Vkey, VkeyError};

const MAX_LINE_BYTES: usize = 8 * 1024;

/// What is wrong with a policy, and in which line (counted from 1; 0 for the text as a whole).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct PolicyError {
    pub line: usize,
    pub problem: PolicyProblem,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyProblem {
    #[error("control characters other than tab and newline are not allowed")]
    ControlCharacter,
    #[error("the line is too long")]
    LineTooLong,
    #[error("unknown word; accepted: log, witness, group, quorum")]
    UnknownWord,
    #[error("wrong number of words after `{0}`")]
    WordCount(&'static str),
    #[error("not a verifier key: {0}")]
    Vkey(#[from] VkeyError),
    #[error("a {what} needs a key of signature type {needed}, this one has {got}")]
    KeyType {
        what: &'static str,
        needed: u8,
        got: u8,
    },
    #[error("the same public key is in two lines")]
    DuplicateKey,
    #[error(transparent)]
    Party(#[from] PartyProblem),
    #[error("exactly one quorum line is needed")]
    OneQuorum,
}

/// Who cosigns, and where it is asked to, if anywhere: the submission prefix of <https://c2sp.org/tlog-witness>.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    pub vkey: Vkey,
    pub url: Option<String>,
}

/// A set of logs and a rule over witnesses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    logs: Vec<Vkey>,
    witnesses: Parties<Witness>,
    quorum: Quorum,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quorum {
    /// `quorum none`: the log's word suffices.
    NotAsked,
    Party(usize),
}

impl Policy {
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        Self::parse_lines((1..).zip(text.split('\n')))
    }

    /// Parses numbered lines, so that a section of a larger file reports that file's lines.
    pub(crate) fn parse_lines<'t>(
        lines: impl Iterator<Item = (usize, &'t str)>,
    ) -> Result<Self, PolicyError> {
        let mut draft = Draft::default();
        for (line, text) in lines {
            draft
                .line(text)
                .map_err(|problem| PolicyError { line, problem })?;
        }
        match draft.quorum {
            Some(quorum) => Ok(Self {
                logs: draft.logs,
                witnesses: draft.witnesses,
                quorum,
            }),
            None => Err(PolicyError {
                line: 0,
                problem: PolicyProblem::OneQuorum,
            }),
        }
    }

    pub fn logs(&self) -> &[Vkey] {
        &self.logs
    }

    /// All witnesses by the names that the policy gives them, in the order of their lines.
    pub fn witnesses(&self) -> impl Iterator<Item = (&str, &Witness)> {
        let named = |(at, witness)| (self.witnesses.name(at), witness);
        self.witnesses.ones().map(named)
    }

    /// Whether any cosignature is needed at all.
    pub fn asks_for_quorum(&self) -> bool {
        self.quorum != Quorum::NotAsked
    }

    /// How many of the witnesses that count any two quorums share, whichever these are. Who has the log's key and fewer of them than that
    /// makes no two histories that both have a quorum.
    pub fn overlap(&self, counts: impl Fn(&Witness) -> bool) -> usize {
        let Quorum::Party(quorum) = self.quorum else {
            return 0;
        };
        let counted: Vec<usize> = self
            .witnesses
            .ones()
            .filter_map(|(at, witness)| counts(witness).then_some(at))
            .collect();
        self.witnesses.overlap(quorum, &|at| counted.contains(&at))
    }

    /// Checks that the entry stands in a log of this policy under a checkpoint that its quorum saw.
    pub fn verify_proof(&self, proof: &Proof, entry: &[u8]) -> Result<LoggedAt, ProofError> {
        let sworn = self.verify_checkpoint(&proof.checkpoint)?;
        Ok(proof.verify_inclusion(entry, sworn)?)
    }

    /// Checks the signatures of a checkpoint and returns when a whole quorum has sworn to have seen it.
    pub fn verify_checkpoint(&self, signed: &SignedCheckpoint) -> Result<Sworn, ProofError> {
        self.verify_log(signed)?;
        let mut times = self.cosignature_times(signed)?;
        let Quorum::Party(quorum) = self.quorum else {
            return Ok(Sworn::default());
        };
        times.sort_unstable_by_key(|(_, time)| *time);
        let is_quorum = |of: &[(usize, u64)]| {
            let is_among = |witness| of.iter().any(|(at, _)| *at == witness);
            self.witnesses.meets(quorum, &is_among)
        };
        // The shortest beginning and the shortest end of them that are a quorum.
        let since = (1..=times.len()).find_map(|n| {
            let first = times.get(..n).filter(|first| is_quorum(first));
            Some(first?.last()?.1)
        });
        let reached = (0..times.len()).rev().find_map(|n| {
            let last = times.get(n..).filter(|last| is_quorum(last));
            Some(last?.first()?.1)
        });
        match (since, reached) {
            (Some(since), Some(reached)) => Ok(Sworn { since, reached }),
            _ => Err(ProofError::NoQuorum),
        }
    }

    fn verify_log(&self, signed: &SignedCheckpoint) -> Result<(), ProofError> {
        let origin = &signed.checkpoint().origin;
        let mut logs = self
            .logs
            .iter()
            .filter(|vkey| vkey.name == *origin)
            .peekable();
        if logs.peek().is_none() {
            return Err(ProofError::UnknownLog);
        }
        let mut signed_by_log = false;
        for vkey in logs {
            for bytes in signatures_of(vkey, signed) {
                if !log_signature_holds(vkey, signed.note().text(), bytes) {
                    return Err(ProofError::BadSignature {
                        name: vkey.name.clone(),
                    });
                }
                signed_by_log = true;
            }
        }
        if signed_by_log {
            Ok(())
        } else {
            Err(ProofError::NotSignedByLog)
        }
    }

    /// The latest time of each witness' cosignatures; a known key with a bad one is an error.
    fn cosignature_times(
        &self,
        signed: &SignedCheckpoint,
    ) -> Result<Vec<(usize, u64)>, ProofError> {
        let mut times = Vec::new();
        for (witness, Witness { vkey, .. }) in self.witnesses.ones() {
            let mut latest = None;
            for bytes in signatures_of(vkey, signed) {
                let time = cosignature_time(vkey, signed.note().text(), bytes);
                let time = time.ok_or_else(|| ProofError::BadSignature {
                    name: vkey.name.clone(),
                })?;
                latest = latest.max(Some(time));
            }
            times.extend(latest.map(|time| (witness, time)));
        }
        Ok(times)
    }
}

fn signatures_of<'s>(
    vkey: &'s Vkey,
    signed: &'s SignedCheckpoint,
) -> impl Iterator<Item = &'s [u8]> {
    let lines = signed.note().signatures().iter();
    lines
        .filter(|line| line.name == vkey.name && line.key_id == vkey.key_id)
        .map(|line| line.bytes.as_slice())
}

/// A policy while its lines are read.
#[derive(Default)]
struct Draft {
    logs: Vec<Vkey>,
    witnesses: Parties<Witness>,
    /// Which parties are members of a group already.
    members: Vec<usize>,
    quorum: Option<Quorum>,
}

impl Draft {
    fn line(&mut self, text: &str) -> Result<(), PolicyProblem> {
        let words = words(text)?;
        match words.as_slice() {
            [] => Ok(()),
            ["log", vkey] | ["log", vkey, _] => self.log(vkey),
            ["log", ..] => Err(PolicyProblem::WordCount("log")),
            ["witness", name, vkey] => self.witness(name, vkey, None),
            ["witness", name, vkey, url] => self.witness(name, vkey, Some(*url)),
            ["witness", ..] => Err(PolicyProblem::WordCount("witness")),
            ["group", name, threshold, members @ ..] if !members.is_empty() => {
                self.group(name, threshold, members)
            }
            ["group", ..] => Err(PolicyProblem::WordCount("group")),
            ["quorum", name] => self.quorum(name),
            ["quorum", ..] => Err(PolicyProblem::WordCount("quorum")),
            _ => Err(PolicyProblem::UnknownWord),
        }
    }

    fn log(&mut self, vkey: &str) -> Result<(), PolicyProblem> {
        let vkey = key_for("log", ALG_ED25519, vkey)?;
        if self.logs.iter().any(|known| known.key == vkey.key) {
            return Err(PolicyProblem::DuplicateKey);
        }
        if self.logs.len() == MAX_DEFINITIONS {
            return Err(PartyProblem::TooMany.into());
        }
        self.logs.push(vkey);
        Ok(())
    }

    fn witness(&mut self, name: &str, vkey: &str, url: Option<&str>) -> Result<(), PolicyProblem> {
        let vkey = key_for("witness", ALG_COSIGNATURE, vkey)?;
        let is_known = |(_, known): (_, &Witness)| known.vkey.key == vkey.key;
        if self.witnesses.ones().any(is_known) {
            return Err(PolicyProblem::DuplicateKey);
        }
        let url = url.map(str::to_owned);
        Ok(self.witnesses.define(name, Witness { vkey, url })?)
    }

    /// A party is a member of one group at most.
    fn group(&mut self, name: &str, threshold: &str, names: &[&str]) -> Result<(), PolicyProblem> {
        let members = self.witnesses.group(name, threshold, names)?;
        if members.iter().any(|member| self.members.contains(member)) {
            return Err(PartyProblem::MemberTwice.into());
        }
        self.members.extend(members);
        Ok(())
    }

    fn quorum(&mut self, name: &str) -> Result<(), PolicyProblem> {
        if self.quorum.is_some() {
            return Err(PolicyProblem::OneQuorum);
        }
        self.quorum = Some(match name {
            NOBODY => Quorum::NotAsked,
            name => Quorum::Party(self.witnesses.find(name)?),
        });
        Ok(())
    }
}

/// The words of a line; none of an empty one and of a comment.
pub(crate) fn words(text: &str) -> Result<Vec<&str>, PolicyProblem> {
    if text.len() > MAX_LINE_BYTES {
        return Err(PolicyProblem::LineTooLong);
    }
    if text.chars().any(|c| c.is_ascii_control() && c != '\t') {
        return Err(PolicyProblem::ControlCharacter);
    }
    let words = text.split([' ', '\t']).filter(|word| !word.is_empty());
    let words: Vec<&str> = words.collect();
    match words.first() {
        Some(first) if first.starts_with('#') => Ok(Vec::new()),
        _ => Ok(words),
    }
}

fn key_for(what: &'static str, needed: u8, text: &str) -> Result<Vkey, PolicyProblem> {
    let vkey: Vkey = text.parse()?;
    match vkey.alg {
        alg if alg == needed => Ok(vkey),
        got => Err(PolicyProblem::KeyType { what, needed, got }),
    }
}
