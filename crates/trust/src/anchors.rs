//! What a machine believes from the start: the trust file of its image.
//!
//! A text of three sections: the policies of the logs under `[fleet]` and `[authority]`, then under `[people]`, to the end of the
//! file, the text of a state of the authority. Empty lines and lines that begin with `#` may stand anywhere.

use crate::authority::{Authority, AuthorityError};
use crate::policy::{Policy, PolicyError};

const MAX_FILE_BYTES: usize = 64 * 1024;
const FLEET: &str = "[fleet]";
const AUTHORITY: &str = "[authority]";
const PEOPLE: &str = "[people]";

/// What is wrong with a trust file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnchorsError {
    #[error("the trust file is longer than {MAX_FILE_BYTES} bytes")]
    TooBig,
    #[error(
        "line {line}: expected {FLEET}, then {AUTHORITY}, then {PEOPLE}, each once, and nothing before them"
    )]
    Sections { line: usize },
    #[error("section [{section}]: {error}")]
    Policy {
        section: &'static str,
        error: PolicyError,
    },
    #[error("section {PEOPLE}: {0}")]
    People(AuthorityError),
    #[error("section [{section}] names no log")]
    NoLog { section: &'static str },
    #[error(
        "section [{section}] asks for no cosignature: `quorum none` is not enough for a machine"
    )]
    NoQuorum { section: &'static str },
    #[error("the fleet log and the authority log share a key or a name")]
    SharedLog,
}

/// The policies of both logs, and the people who together decide what matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchors {
    pub fleet: Policy,
    pub authority: Policy,
    pub people: Authority,
}

impl Anchors {
    pub fn parse(text: &str) -> Result<Self, AnchorsError> {
        if text.len() > MAX_FILE_BYTES {
            return Err(AnchorsError::TooBig);
        }
        let mut sections = Sections::default();
        let mut rest = text;
        for line in 1.. {
            let (one, after) = match rest.split_once('\n') {
                Some((one, after)) => (one, Some(after)),
                None => (rest, None),
            };
            let is_last = sections.line(line, one)?;
            match after {
                Some(after) if is_last => return sections.anchors((line, after)),
                Some(after) => rest = after,
                None => return Err(AnchorsError::Sections { line }),
            }
        }
        Err(AnchorsError::TooBig)
    }

    /// Writes a trust file; the policies are texts that `Policy::parse` accepts, the people one that `Authority::parse` does, which
    /// stays as it is to the byte.
    pub fn compose(fleet: &str, authority: &str, people: &str) -> String {
        let (fleet, authority) = (fleet.trim_end(), authority.trim_end());
        format!("{FLEET}\n{fleet}\n\n{AUTHORITY}\n{authority}\n\n{PEOPLE}\n{people}")
    }
}

/// The lines of the policies, while the file is read.
#[derive(Default)]
struct Sections<'a> {
    fleet: Option<Vec<(usize, &'a str)>>,
    authority: Option<Vec<(usize, &'a str)>>,
}

impl<'a> Sections<'a> {
    /// Takes a line; whether the people come after it.
    fn line(&mut self, line: usize, text: &'a str) -> Result<bool, AnchorsError> {
        let word = text.trim_matches([' ', '\t']);
        let is_heading = word.starts_with('[');
        match (&mut self.fleet, &mut self.authority) {
            (None, None) if word == FLEET => self.fleet = Some(Vec::new()),
            (None, None) if word.is_empty() || word.starts_with('#') => {}
            (Some(_), None) if word == AUTHORITY => self.authority = Some(Vec::new()),
            (Some(_), Some(_)) if word == PEOPLE => return Ok(true),
            (Some(_), Some(lines)) | (Some(lines), None) if !is_heading => lines.push((line, text)),
            _ => return Err(AnchorsError::Sections { line }),
        }
        Ok(false)
    }

    fn anchors(self, (heading, people): (usize, &str)) -> Result<Anchors, AnchorsError> {
        let people = Authority::parse(people).map_err(|error| {
            let line = heading + error.line;
            AnchorsError::People(AuthorityError { line, ..error })
        })?;
        let anchors = Anchors {
            fleet: parse_section("fleet", &self.fleet.unwrap_or_default())?,
            authority: parse_section("authority", &self.authority.unwrap_or_default())?,
            people,
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
