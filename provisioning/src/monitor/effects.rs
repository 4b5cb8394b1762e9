//! Which proposals have their effect, and whether the people signed for it: what routers judge before they take a gateway, for everybody to see.

use std::path::Path;

use trust::{
    Approval, Authority, GatewayRecord, Kind as About, Proposal, Refused, Standing, Verdict,
};

use super::book::Entry;
use super::{Finding, Kind, Monitor};
use crate::failure::sentence;
use crate::log::Log;
use crate::people::case::Outlook;
use crate::people::folder::Folder;

/// What the signatures of an entry come to.
enum Judged {
    /// It has its effect; a new state of the people, where it is one.
    Holds(Option<Box<Authority>>),
    /// It was decided by people whom the trust file knows nothing of any more.
    Before,
    /// It has none yet.
    NotYet,
    Refused(Refused),
}

impl Monitor {
    /// Asks for the signatures of what has no effect yet. States of the people come first: they decide who signs the others.
    pub(super) async fn look_at_effects(
        &mut self,
        now: u64,
        found: &mut Vec<Finding>,
    ) -> anyhow::Result<()> {
        let mut open = Vec::new();
        for index in 0..self.authority.tree.size() {
            let entry = self.book.entry(index)?;
            if !entry.is_decided
                && let Ok(read) = Proposal::from_bytes(&entry.bytes)
            {
                open.push((entry, read));
            }
        }
        open.sort_by_key(|(entry, read)| (read.kind != About::Authority, entry.index));
        for (entry, read) in open {
            if let Some((kind, sentence)) = self.look_at_effect(&entry, &read, now).await? {
                let log = Log::Authority;
                found.push(Finding {
                    kind,
                    log,
                    sentence,
                });
            }
        }
        Ok(())
    }

    async fn look_at_effect(
        &mut self,
        entry: &Entry,
        read: &Proposal,
        now: u64,
    ) -> anyhow::Result<Option<(Kind, String)>> {
        let (index, about) = (entry.index, about(read));
        let path = format!("/v1/authority/entries/{index}/signatures");
        let signatures = match self.source.get(&path).await {
            Ok(Some(signatures)) => signatures,
            Ok(None) => return Ok(None),
            Err(error) => return Ok(Some((Kind::Unreachable, sentence(&error)))),
        };
        let not_approved = |why: &str| {
            let sentence = format!(
                "entry {index} of the authority log, {about}, has its effect for the server, and the people's word does not suffice: {why}"
            );
            Ok(Some((Kind::NotApproved, sentence)))
        };
        let folder = match signed(&entry.bytes, &signatures) {
            Ok(folder) => folder,
            Err(error) => return not_approved(&sentence(&error)),
        };
        match self.judge(entry, read, &folder, now) {
            Judged::Holds(state) => {
                if let Some(state) = state {
                    self.book.keep_people(&state)?;
                    self.people.push(*state);
                }
                self.book.keep_decided(index, &signatures)?;
                Ok(Some((
                    Kind::Decided,
                    format!(
                        "entry {index} of the authority log, {about}, has its effect: {}",
                        self.signers(read, &folder)
                    ),
                )))
            }
            Judged::Before => {
                self.book.keep_decided(index, &signatures)?;
                Ok(Some((
                    Kind::Decided,
                    format!(
                        "entry {index} of the authority log, {about}, was decided before the trust file's people"
                    ),
                )))
            }
            Judged::NotYet => Ok(None),
            Judged::Refused(refused) => not_approved(&refused.to_string()),
        }
    }

    /// By the people at whose time it was proposed, or by those who came after: the server keeps the signatures that still are somebody's.
    fn judge(&self, entry: &Entry, read: &Proposal, folder: &Folder, now: u64) -> Judged {
        let first = self.people.first().map_or(1, Authority::epoch);
        if read.kind == About::Authority && read.authority_epoch < first {
            return match read.authority_epoch {
                0 if first == 1 => self.judge_first(entry, folder, read),
                _ => Judged::Before,
            };
        }
        let mut last = Judged::NotYet;
        for state in self
            .people
            .iter()
            .filter(|state| state.epoch() >= read.authority_epoch)
        {
            let approvals = approvals(folder, read, Some(state));
            let judged = if read.kind == About::Authority {
                let next = state.succeed(&entry.bytes, &approvals, entry.since, now);
                next.map(|next| Some(Box::new(next)))
            } else {
                let holds = state.judge(&entry.bytes, &approvals, entry.since, now);
                holds.map(|_| None)
            };
            last = match judged {
                Ok(state) => return Judged::Holds(state),
                Err(refused) => match Outlook::of(&Err(refused.clone())) {
                    Outlook::NotYet => return Judged::NotYet,
                    Outlook::Valid | Outlook::Short | Outlook::Invalid => Judged::Refused(refused),
                },
            };
            if read.kind == About::Authority {
                break;
            }
        }
        last
    }

    /// The first state of all is the trust file's, or no router ever believed it.
    fn judge_first(&self, entry: &Entry, folder: &Folder, read: &Proposal) -> Judged {
        match Standing::of_first(&entry.bytes, &approvals(folder, read, None)) {
            Ok(standing) => match (standing.state(), self.people.first()) {
                (Some(state), Some(first)) if state.id() == first.id() => Judged::Holds(None),
                _ => Judged::Refused(Refused::Unknown("whoever signed it".to_owned())),
            },
            Err(refused) => Judged::Refused(refused),
        }
    }

    fn signers(&self, read: &Proposal, folder: &Folder) -> String {
        let mut names: Vec<String> = Vec::new();
        for approval in approvals(folder, read, self.people.last()) {
            let does = match approval.verdict {
                Verdict::Propose => "proposed",
                Verdict::Approve => "approved",
                Verdict::Reject => "rejected",
            };
            let name = format!("{} {does}", approval.person);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names.join(", ")
    }
}

/// What a proposal is about, in a few words.
pub(super) fn about(read: &Proposal) -> String {
    let record = GatewayRecord::from_bytes(&read.body).ok();
    match record.filter(|_| read.kind == About::Gateway) {
        Some(record) => format!("the gateway {}", record.name),
        None => format!("`{}`", read.kind),
    }
}

/// The signatures that a server shows, beside the bytes that they are of.
fn signed(proposal: &[u8], signatures: &[u8]) -> anyhow::Result<Folder> {
    const BEGIN: &str = "-----BEGIN";
    let mut folder = Folder::unwritten(Path::new("/nonexistent"), proposal)?;
    let text = std::str::from_utf8(signatures)?;
    for armor in text.split(BEGIN).skip(1) {
        folder.add(&format!("{BEGIN}{armor}"))?;
    }
    Ok(folder)
}

fn approvals(folder: &Folder, read: &Proposal, holds: Option<&Authority>) -> Vec<Approval> {
    let claims = folder.claims(read, holds).into_iter();
    claims.map(|claim| claim.approval).collect()
}
