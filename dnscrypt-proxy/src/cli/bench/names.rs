//! What is asked: names that are given, over and over, or made up, each once.

use std::path::Path;
use std::str::FromStr as _;

use hickory_proto::rr::RecordType;
use rand_core::{OsRng, RngCore as _};

use crate::cli::exit::{Failure, USAGE};
use crate::cli::query::question;
use crate::proto::message;

const UDP_SIZE: u16 = 1232;
/// A file with more is a mistake.
const MAX_NAMES: usize = 1_000_000;

/// Where lookups come from.
#[derive(Debug)]
pub(super) enum Names {
    /// One after the other, and again.
    Given(Vec<Vec<u8>>),
    /// A label that nobody has asked for below a zone.
    MadeUp {
        zone: String,
        rtype: RecordType,
        run: u32,
    },
}

impl Names {
    pub(super) fn given(names: &[String], rtype: RecordType) -> Result<Self, Failure> {
        let names = names.iter().map(|name| question(name, rtype));
        Ok(Self::Given(names.collect::<Result<_, _>>()?))
    }

    /// A name on each line, its type behind it if it is another one; lines with # in front are comments.
    pub(super) fn read(path: &Path, rtype: RecordType) -> Result<Self, Failure> {
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::io(&format!("cannot read {shown}"), &error))?;
        let names = of_text(&text, rtype).map_err(|failure| {
            Failure::new(failure.code, format!("{shown}: {}", failure.message))
        })?;
        Ok(Self::Given(names))
    }

    pub(super) fn made_up(zone: &str, rtype: RecordType) -> Result<Self, Failure> {
        let names = Self::MadeUp {
            zone: zone.trim_matches('.').to_owned(),
            rtype,
            run: OsRng.next_u32(),
        };
        // The longest of all.
        names.message(u64::MAX, 0).ok_or_else(|| {
            Failure::new(
                USAGE,
                format!("{zone:?} leaves no room for a label, or is not a DNS name"),
            )
        })?;
        Ok(names)
    }

    /// The question of a number, under an id.
    pub(super) fn message(&self, number: u64, id: u16) -> Option<Vec<u8>> {
        match self {
            Self::Given(names) => {
                let at = usize::try_from(number % names.len().max(1) as u64).ok()?;
                let mut message = names.get(at)?.clone();
                message.get_mut(..2)?.copy_from_slice(&id.to_be_bytes());
                Some(message)
            }
            Self::MadeUp { zone, rtype, run } => {
                let name = format!("x{run:08x}{number:x}.{zone}");
                message::query(id, &name, *rtype, UDP_SIZE).ok()
            }
        }
    }
}

fn of_text(text: &str, rtype: RecordType) -> Result<Vec<Vec<u8>>, Failure> {
    let mut names = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let mut words = line.split_whitespace();
        let Some(name) = words.next().filter(|name| !name.starts_with('#')) else {
            continue;
        };
        let wrong = |why: &str| Failure::new(USAGE, format!("line {number}: {why}"));
        let rtype = match words.next() {
            Some(word) => RecordType::from_str(&word.to_ascii_uppercase())
                .map_err(|_| wrong(&format!("{word} is not a record type")))?,
            None => rtype,
        };
        names.push(question(name, rtype).map_err(|failure| wrong(&failure.message))?);
        if names.len() > MAX_NAMES {
            return Err(wrong(&format!("more than {MAX_NAMES} names")));
        }
    }
    if names.is_empty() {
        return Err(Failure::new(USAGE, "it holds no name"));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::message::Query;

    #[test]
    fn a_file_with_a_mistake_is_refused_with_the_line() {
        for (text, why) in [
            (
                "a.example\nb.example LOUD\n",
                "line 2: LOUD is not a record type",
            ),
            ("\n..\n", "line 2: \"..\" is not a DNS name"),
            ("# nothing\n\n", "it holds no name"),
        ] {
            assert_eq!(of_text(text, RecordType::A).unwrap_err().message, why);
        }
    }

    #[test]
    fn given_names_are_asked_in_turn_with_their_types_and_the_id_of_the_moment() {
        let names = of_text("# list\na.example\nb.example aaaa\n", RecordType::A).unwrap();
        let names = Names::Given(names);

        let read = |number, id| Query::read(&names.message(number, id).unwrap()).unwrap();

        assert_eq!((read(0, 7).qtype, read(0, 7).id), (RecordType::A, 7));
        assert_eq!((read(1, 8).qtype, read(1, 8).id), (RecordType::AAAA, 8));
        assert_eq!(read(2, 9).question(), read(0, 9).question());
    }

    #[test]
    fn made_up_names_are_asked_once() {
        let names = Names::made_up("example.", RecordType::A).unwrap();

        let first = Query::read(&names.message(1, 0).unwrap()).unwrap();
        let second = Query::read(&names.message(2, 0).unwrap()).unwrap();

        assert_ne!(first.question(), second.question());
        assert!(first.question().ends_with(b"\x07example\0\0\x01\0\x01"));
        for labels in [45, 46, 50] {
            let zone = "long.".repeat(labels);
            let has_room = Names::made_up(&zone, RecordType::A).is_ok();
            assert_eq!(has_room, labels == 45, "the last label is 26 bytes long");
        }
    }
}
