//! Anchors: `path/file.rs::symbol` or `path/file.rs::Type::member`.

use crate::source::{Source, Word};

const DECLARES: &[&str] = &[
    "fn",
    "struct",
    "enum",
    "trait",
    "type",
    "const",
    "static",
    "mod",
    "macro_rules",
    "union",
];
const HOLDS_MEMBERS: &[&str] = &["struct", "enum", "trait", "impl", "mod"];

/// Every anchor of a document that leads nowhere; a document without any anchor is a problem too.
pub(super) fn check(file: &str, text: &str, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut found = 0;
    for (index, line) in text.lines().enumerate() {
        for anchor in anchors(line) {
            found += 1;
            if let Err(why) = resolve(anchor, &read) {
                let (path, symbol) = (anchor.path, anchor.symbol);
                problems.push(format!("{file}:{}: {path}::{symbol}: {why}", index + 1));
            }
        }
    }
    if found == 0 {
        problems.push(format!(
            "{file}: has no anchor of the form path/file.rs::symbol"
        ));
    }
    problems
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Anchor<'a> {
    path: &'a str,
    symbol: &'a str,
}

fn anchors(line: &str) -> impl Iterator<Item = Anchor<'_>> {
    line.split(|c: char| !(c.is_alphanumeric() || "_-./:".contains(c)))
        .filter_map(|word| {
            let (path, symbol) = word.split_once(".rs::")?;
            let path = word.get(..path.len() + 3)?;
            Some(Anchor {
                path,
                symbol: symbol.trim_end_matches([':', '.', '/', '-']),
            })
        })
}

fn resolve(anchor: Anchor<'_>, read: impl Fn(&str) -> Option<String>) -> Result<(), &'static str> {
    let text = read(anchor.path).ok_or("no such file")?;
    let source = Source::new(anchor.path, text);
    let words = source.words();
    let mut parts = anchor.symbol.split("::");
    let first = parts
        .next()
        .filter(|part| !part.is_empty())
        .ok_or("names no symbol")?;
    let held = match parts.next() {
        None => declared(&words, first),
        Some(member) => member_of(&source, &words, first, member),
    };
    if parts.next().is_some() {
        return Err("has more than two parts");
    }
    if held {
        Ok(())
    } else {
        Err("the file declares no such symbol")
    }
}

fn declared(words: &[Word<'_>], name: &str) -> bool {
    words.windows(2).any(|pair| match pair {
        [keyword, word] => DECLARES.contains(&keyword.text) && word.text == name,
        _ => false,
    })
}

/// Whether a function, variant, field or constant `member` stands in the body of something called `holder`.
fn member_of(source: &Source, words: &[Word<'_>], holder: &str, member: &str) -> bool {
    words.iter().any(|keyword| {
        if !HOLDS_MEMBERS.contains(&keyword.text) {
            return false;
        }
        let Some((from, to)) = source.body_after(keyword.at) else {
            return false;
        };
        let named = words
            .iter()
            .any(|w| w.at > keyword.at && w.at < from && w.text == holder);
        let inside: Vec<_> = words
            .iter()
            .filter(|w| w.at > from && w.at < to)
            .copied()
            .collect();
        let lists = matches!(keyword.text, "struct" | "enum");
        named && (declared(&inside, member) || lists && listed(source, &inside, member))
    })
}

/// Whether a name stands as a variant or field: first on its line, and followed by what follows a name.
fn listed(source: &Source, inside: &[Word<'_>], name: &str) -> bool {
    inside.iter().filter(|word| word.text == name).any(|word| {
        let before = source.code().get(..word.at).unwrap_or_default();
        let line_start = before.rsplit('\n').next().unwrap_or_default().trim();
        let after = source.code().get(word.at + word.text.len()..);
        let after = after.unwrap_or_default().trim_start();
        matches!(line_start, "" | "pub" | "pub(crate)" | "pub(super)")
            && after.starts_with([',', '(', '{', '}', ':', '='])
            && !after.starts_with("::")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str = "//! Doc with fn spoken.
pub struct Peers<T> {
    pub table: T,
}
enum Dropped {
    NotRouted,
    TooBig { by: u8 },
}
impl<T> Peers<T> {
    pub(crate) fn insert(&mut self) -> bool {
        helper();
        // fn commented
        true
    }
}
fn free() {}
const MAX: usize = 3;
";

    fn check_one(anchor: &str) -> Vec<String> {
        let text = format!("A packet enters `{anchor}`, and goes on.\n");
        check("docs/paths/packet.md", &text, |path| {
            (path == "a/src/b-c.rs").then(|| CODE.to_owned())
        })
    }

    #[test]
    fn an_anchor_to_a_missing_file_is_told() {
        assert_eq!(
            check_one("a/src/gone.rs::free"),
            ["docs/paths/packet.md:1: a/src/gone.rs::free: no such file"]
        );
    }

    #[test]
    fn an_anchor_to_a_missing_symbol_is_told() {
        for gone in [
            "gone",
            "helper",
            "spoken",
            "commented",
            "Peers::gone",
            "Peers::free",
            "Dropped::insert",
            "Peers::helper",
        ] {
            assert_eq!(
                check_one(&format!("a/src/b-c.rs::{gone}")).len(),
                1,
                "{gone}"
            );
        }
    }

    #[test]
    fn an_anchor_with_three_parts_or_none_is_told() {
        assert_eq!(check_one("a/src/b-c.rs::A::b::c").len(), 1);
        assert_eq!(check_one("a/src/b-c.rs::").len(), 1);
    }

    #[test]
    fn a_document_without_anchors_is_told() {
        assert_eq!(
            check("x.md", "words alone, and src/a.rs\n", |_| None).len(),
            1
        );
    }

    #[test]
    fn anchors_to_functions_types_constants_members_and_variants_resolve() {
        for there in [
            "free",
            "Peers",
            "MAX",
            "Dropped",
            "insert",
            "Peers::insert",
            "Peers::table",
            "Dropped::NotRouted",
            "Dropped::TooBig",
        ] {
            assert_eq!(
                check_one(&format!("a/src/b-c.rs::{there}")),
                Vec::<String>::new(),
                "{there}"
            );
        }
    }
}
