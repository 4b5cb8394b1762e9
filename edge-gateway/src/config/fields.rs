//! Reading one table of the configuration file key by key, while gathering every mistake. A key that
//! nobody asked for is a mistake, too.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use toml::{Table, Value};
use tunnel::offload::ecn::OuterTos;

/// One wrong key: `key.path: what is wrong; accepted: …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    key: String,
    wrong: String,
    accepted: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}; accepted: {}",
            self.key, self.wrong, self.accepted
        )
    }
}

/// One table being read.
pub(super) struct Fields<'m> {
    path: Cow<'static, str>,
    table: Table,
    asked: Vec<&'static str>,
    mistakes: &'m mut Vec<Mistake>,
}

impl<'m> Fields<'m> {
    pub(super) fn new(
        path: impl Into<Cow<'static, str>>,
        table: Table,
        mistakes: &'m mut Vec<Mistake>,
    ) -> Self {
        Self {
            path: path.into(),
            table,
            asked: Vec::new(),
            mistakes,
        }
    }

    /// Takes a sub-table out; `None` when it is not there or is something else.
    pub(super) fn section(&mut self, key: &'static str) -> Option<Table> {
        let value = self.take(key)?;
        if let Value::Table(table) = value {
            return Some(table);
        }
        self.wrong(key, format!("is {}", kind(&value)), "a table");
        None
    }

    /// Takes the tables of one name out; what is something else is noted.
    pub(super) fn sections(&mut self, key: &'static str, accepted: &str) -> Vec<Table> {
        let Some(value) = self.take(key) else {
            return Vec::new();
        };
        let Value::Array(items) = value else {
            self.wrong(key, format!("is {}", kind(&value)), accepted);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in items {
            if let Value::Table(table) = item {
                tables.push(table);
            } else {
                self.wrong(key, format!("holds {}", kind(&item)), accepted);
            }
        }
        tables
    }

    /// A text, parsed by `FromStr`.
    pub(super) fn parsed<T: FromStr>(&mut self, key: &'static str, accepted: &str) -> Option<T> {
        let value = self.take(key)?;
        self.parse_value(key, &value, accepted)
    }

    /// A list of texts, each parsed; a single text is not a list.
    pub(super) fn list<T: FromStr>(&mut self, key: &'static str, accepted: &str) -> Vec<T> {
        let Some(value) = self.take(key) else {
            return Vec::new();
        };
        let Value::Array(items) = value else {
            self.wrong(
                key,
                format!("is {}", kind(&value)),
                &format!("a list of {accepted}"),
            );
            return Vec::new();
        };
        items
            .iter()
            .filter_map(|item| self.parse_value(key, item, accepted))
            .collect()
    }

    /// A whole number within bounds.
    pub(super) fn number(&mut self, key: &'static str, min: u32, max: u32) -> Option<u32> {
        let value = self.take(key)?;
        self.number_value(key, &value, min, max)
    }

    /// A list of whole numbers within bounds.
    pub(super) fn numbers(&mut self, key: &'static str, min: u32, max: u32) -> Vec<u32> {
        let Some(value) = self.take(key) else {
            return Vec::new();
        };
        let Value::Array(items) = value else {
            let accepted = format!("a list of whole numbers from {min} to {max}");
            self.wrong(key, format!("is {}", kind(&value)), &accepted);
            return Vec::new();
        };
        items
            .iter()
            .filter_map(|item| self.number_value(key, item, min, max))
            .collect()
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        let value = self.take(key)?;
        if value.as_bool().is_none() {
            self.wrong(key, format!("is {}", kind(&value)), "true or false");
        }
        value.as_bool()
    }

    /// Which class of service the outer header shows.
    pub(super) fn class(&mut self, key: &'static str) -> Option<OuterTos> {
        let value = self.take(key)?;
        let fixed = || {
            u8::try_from(value.as_integer()?)
                .ok()
                .filter(|class| *class < 64)
        };
        let class = match value.as_str() {
            Some("zero") => Some(OuterTos::Zero),
            Some("copy") => Some(OuterTos::Copy),
            _ => fixed().map(OuterTos::Fixed),
        };
        if class.is_none() {
            let number = value.as_integer().map(|number| number.to_string());
            let said = number.or_else(|| Some(format!("`{}`", value.as_str()?)));
            let wrong = format!("is {}", said.as_deref().unwrap_or(kind(&value)));
            self.wrong(key, wrong, "\"zero\", \"copy\", or 0 to 63");
        }
        class
    }

    /// Notes that a key that must be there is not.
    pub(super) fn missing(&mut self, key: &'static str, accepted: &str) {
        if !self.noted(key) {
            self.wrong(key, "is missing".to_owned(), accepted);
        }
    }

    /// Notes a mistake about a key.
    pub(super) fn wrong(&mut self, key: &str, wrong: String, accepted: &str) {
        let key = self.full(key);
        self.mistakes.push(Mistake {
            key,
            wrong,
            accepted: accepted.to_owned(),
        });
    }

    /// Notes the keys that nobody asked for.
    pub(super) fn finish(mut self) {
        let accepted = self.asked.join(", ");
        for key in std::mem::take(&mut self.table).keys() {
            self.wrong(key, "is not a key of this table".to_owned(), &accepted);
        }
    }

    fn noted(&self, key: &str) -> bool {
        let key = self.full(key);
        self.mistakes.iter().any(|mistake| mistake.key == key)
    }

    fn full(&self, key: &str) -> String {
        match &*self.path {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        }
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.asked.push(key);
        self.table.remove(key)
    }

    fn parse_value<T: FromStr>(&mut self, key: &str, value: &Value, accepted: &str) -> Option<T> {
        let Value::String(text) = value else {
            self.wrong(key, format!("is {}", kind(value)), accepted);
            return None;
        };
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.wrong(key, format!("`{text}` cannot be read"), accepted);
        }
        parsed
    }

    fn number_value(&mut self, key: &str, value: &Value, min: u32, max: u32) -> Option<u32> {
        let integer = value.as_integer();
        let number = integer
            .and_then(|number| u32::try_from(number).ok())
            .filter(|number| (min..=max).contains(number));
        if number.is_none() {
            let wrong = integer.map_or_else(|| kind(value).to_owned(), |number| number.to_string());
            let accepted = format!("a whole number from {min} to {max}");
            self.wrong(key, format!("is {wrong}"), &accepted);
        }
        number
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number with a fraction",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}
