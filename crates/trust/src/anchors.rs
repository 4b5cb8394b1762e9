//! What a machine believes from the start: the trust file of its image.
//!
//! A text of one `epoch N` line, then two policies under `[fleet]` and `[authority]`. Empty lines and
//! lines that begin with `#` may stand anywhere.

use crate::lines::decimal;
use crate::policy::{Policy, PolicyError};

const MAX_FILE_BYTES: usize = 64 * 1024;

/// What is wrong with a trust file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnchorsError {
    #[error("the trust file is longer than {MAX_FILE_BYTES} bytes")]
    TooBig,
    #[error("line {line}: expected `epoch` and a number from 1, before the sections")]
    Epoch { line: usize },
    #[error("there is no line `epoch N`")]
    NoEpoch,
    #[error("line {line}: expected [fleet], then [authority], each once")]
    Sections { line: usize },
    #[error("section [{section}]: {error}")]
    Policy {
        section: &'static str,
        error: PolicyError,
    },
    #[error("section [{section}] names no log")]
    NoLog { section: &'static str },
    #[error(
        "section [{section}] asks for no cosignature: `quorum none` is not enough for a machine"
    )]
    NoQuorum { section: &'static str },
    #[error("the fleet log and the authority log share a key or a name")]
    SharedLog,
}

/// The policies of both logs, and the state of the authority that the image knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchors {
    pub fleet: Policy,
    pub authority: Policy,
    /// At least 1.
    pub authority_epoch: u64,
}

impl Anchors {
    pub fn parse(text: &str) -> Result<Self, AnchorsError> {
        if text.len() > MAX_FILE_BYTES {
            return Err(AnchorsError::TooBig);
        }
        let lines: Vec<(usize, &str)> = (1..).zip(text.split('\n')).collect();
        let headings: Vec<usize> = (0..)
            .zip(&lines)
            .filter(|(_, (_, line))| is_heading(line))
            .map(|(i, _)| i)
            .collect();
        let end = lines.len();
        let sections = match headings.as_slice() {
            [fleet, authority] => lines
                .get(..*fleet)
                .zip(lines.get(*fleet..*authority).and_then(|s| s.split_first()))
                .zip(lines.get(*authority..).and_then(|s| s.split_first())),
            _ => None,
        };
        let Some(((head, (fleet_name, fleet)), (authority_name, authority))) = sections else {
            let line = headings.get(2).copied().unwrap_or(end.saturating_sub(1));
            return Err(AnchorsError::Sections { line: line + 1 });
        };
        for ((line, found), expected) in [(fleet_name, "[fleet]"), (authority_name, "[authority]")]
        {
            if found.trim_matches([' ', '\t']) != expected {
                return Err(AnchorsError::Sections { line: *line });
            }
        }
        let anchors = Self {
            authority_epoch: parse_epoch(head)?,
            fleet: parse_section("fleet", fleet)?,
            authority: parse_section("authority", authority)?,
        };
        let shared = |log: &crate::vkey::Vkey| {
            let others = anchors.authority.logs();
            others
                .iter()
                .any(|other| other.key == log.key || other.name == log.name)
        };
        if anchors.fleet.logs().iter().any(shared) {
            return Err(AnchorsError::SharedLog);
        }
        Ok(anchors)
    }

    /// Writes a trust file; the policies are texts that `Policy::parse` accepts.
    pub fn compose(authority_epoch: u64, fleet: &str, authority: &str) -> String {
        let (fleet, authority) = (fleet.trim_end(), authority.trim_end());
        format!("epoch {authority_epoch}\n\n[fleet]\n{fleet}\n\n[authority]\n{authority}\n")
    }
}

fn is_heading(line: &str) -> bool {
    line.trim_start_matches([' ', '\t']).starts_with('[')
}

fn parse_epoch(head: &[(usize, &str)]) -> Result<u64, AnchorsError> {
    let mut epoch = None;
    for (line, text) in head {
        let text = text.trim_matches([' ', '\t']);
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let value = text
            .strip_prefix("epoch ")
            .and_then(decimal)
            .filter(|epoch| *epoch > 0);
        match (epoch, value) {
            (None, Some(value)) => epoch = Some(value),
            _ => return Err(AnchorsError::Epoch { line: *line }),
        }
    }
    epoch.ok_or(AnchorsError::NoEpoch)
}

fn parse_section(section: &'static str, lines: &[(usize, &str)]) -> Result<Policy, AnchorsError> {
    let policy = Policy::parse_lines(lines.iter().copied())
        .map_err(|error| AnchorsError::Policy { section, error })?;
    if policy.logs().is_empty() {
        return Err(AnchorsError::NoLog { section });
    }
    if !policy.asks_for_quorum() {
        return Err(AnchorsError::NoQuorum { section });
    }
    Ok(policy)
}
