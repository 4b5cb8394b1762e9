//! One table of the file being read: takes keys out, notes what is wrong, and at the end what nobody took.

use std::fmt::Display;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Mistake, list};

/// A table, its place in the file, and where mistakes are noted.
pub(super) struct Section<'a> {
    path: String,
    table: DeTable<'a>,
    known: Vec<&'static str>,
    mistakes: &'a mut Vec<Mistake>,
}

impl<'a> Section<'a> {
    pub(super) fn root(table: DeTable<'a>, mistakes: &'a mut Vec<Mistake>) -> Self {
        Self {
            path: String::new(),
            table,
            known: Vec::new(),
            mistakes,
        }
    }

    /// Reads a key that must be there.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        accepted: &'static str,
        parse: impl FnOnce(&DeValue<'_>) -> Option<T>,
    ) -> Option<T> {
        self.known.push(key);
        match self.table.remove(key) {
            Some(value) => self.check(key, accepted, value.get_ref(), parse),
            None => {
                self.mistake(key, "is missing".to_owned(), accepted);
                None
            }
        }
    }

    /// Reads a key that may be left out.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        accepted: &'static str,
        default: T,
        parse: impl FnOnce(&DeValue<'_>) -> Option<T>,
    ) -> Option<T> {
        self.known.push(key);
        match self.table.remove(key) {
            Some(value) => self.check(key, accepted, value.get_ref(), parse),
            None => Some(default),
        }
    }

    /// Reads a list of up to `most` texts that may be left out; of each wrong one its place is told, and the reason.
    pub(super) fn texts<T: FromStr<Err: Display>>(
        &mut self,
        key: &'static str,
        accepted: &'static str,
        most: usize,
    ) -> Option<Vec<T>> {
        let given = self.optional(key, accepted, Vec::new(), |value| {
            list(value, most, |item| item.as_str().map(str::to_owned))
        });
        let mut read = |(at, text): (usize, &String)| {
            let told =
                |why: T::Err| self.mistake(&format!("{key}[{at}]"), why.to_string(), accepted);
            text.parse().map_err(told).ok()
        };
        let values: Vec<Option<T>> = given?.iter().enumerate().map(&mut read).collect();
        values.into_iter().collect()
    }

    /// Reads a table within; one that is left out is read as an empty one.
    pub(super) fn section<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> Option<T>,
    ) -> Option<T> {
        self.known.push(key);
        let table = match self.table.remove(key).map(Spanned::into_inner) {
            None => DeTable::new(),
            Some(DeValue::Table(table)) => table,
            Some(_) => {
                self.mistake(key, "is not a section".to_owned(), "[section]");
                return None;
            }
        };
        let mut section = Section {
            path: format!("{}{key}.", self.path),
            table,
            known: Vec::new(),
            mistakes: self.mistakes,
        };
        let value = read(&mut section);
        section.finish();
        value
    }

    /// Notes the keys that nobody asked for.
    pub(super) fn finish(self) {
        for key in self.table.keys() {
            let known = self.known.join(", ");
            self.mistakes.push(Mistake {
                key: format!("{}{}", self.path, key.get_ref()),
                wrong: format!("is not a key; the keys here are {known}"),
                accepted: "nothing",
            });
        }
    }

    pub(super) fn mistake(&mut self, key: &str, wrong: String, accepted: &'static str) {
        self.mistakes.push(Mistake {
            key: format!("{}{key}", self.path),
            wrong,
            accepted,
        });
    }

    fn check<T>(
        &mut self,
        key: &str,
        accepted: &'static str,
        value: &DeValue<'_>,
        parse: impl FnOnce(&DeValue<'_>) -> Option<T>,
    ) -> Option<T> {
        let parsed = parse(value);
        if parsed.is_none() {
            self.mistake(key, format!("is {}", shown(value)), accepted);
        }
        parsed
    }
}

/// A wrong value as it is shown: short, on one line.
fn shown(value: &DeValue<'_>) -> String {
    const MOST: usize = 60;
    let text = match value {
        DeValue::String(text) => format!("\"{}\"", text.escape_default()),
        DeValue::Integer(number) => number.as_str().to_owned(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| shown(item.get_ref())).collect();
            format!("[{}]", items.join(", "))
        }
        DeValue::Table(_) => "a section".to_owned(),
    };
    match text.char_indices().nth(MOST) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}
