//! What files are called, and what a crate's root may hold.

use std::path::Path;

use super::{Problem, Rule};
use crate::source::Source;

const BANNED: &[&str] = &[
    "util", "utils", "common", "helper", "helpers", "misc", "manager", "managers", "shared",
    "stuff", "mod",
];

const ITEMS: &[&str] = &[
    "fn",
    "struct",
    "enum",
    "trait",
    "impl",
    "static",
    "macro_rules",
];

pub(super) fn check(source: &Source) -> Vec<Problem> {
    let mut problems = Vec::new();
    let path = Path::new(&source.path);
    for part in path
        .with_extension("")
        .components()
        .map(|c| c.as_os_str().to_string_lossy().into_owned())
    {
        if BANNED.contains(&part.as_str()) {
            let what = format!("`{part}` says nothing; name the file by what lives in it");
            problems.push(Problem::new(Rule::ModuleName, &source.path, 1, what));
        }
    }
    problems.extend(inline_modules(source));
    if source.path.contains("src/") && !source.text.starts_with("//!") && !source.is_test(1) {
        let what = "begins without `//!`: what lives here, and what never does";
        problems.push(Problem::new(Rule::ModuleDoc, &source.path, 1, what));
    }
    if source.path.ends_with("src/lib.rs") {
        problems.extend(root_items(source));
    }
    problems
}

fn inline_modules(source: &Source) -> impl Iterator<Item = Problem> {
    let words = source.words();
    let named: Vec<_> = words
        .windows(2)
        .filter_map(|pair| match pair {
            [keyword, name] if keyword.text == "mod" && BANNED.contains(&name.text) => Some(*name),
            _ => None,
        })
        .collect();
    named.into_iter().map(|name| {
        let what = format!(
            "module `{}` says nothing; name it by what lives in it",
            name.text
        );
        Problem::new(Rule::ModuleName, &source.path, name.line, what)
    })
}

fn root_items(source: &Source) -> Vec<Problem> {
    source
        .words()
        .iter()
        .filter(|word| ITEMS.contains(&word.text) && !source.is_test(word.line))
        .map(|word| {
            let what = format!(
                "`{}` in lib.rs, which holds the doc, `mod` lines and re-exports alone",
                word.text
            );
            Problem::new(Rule::LibHoldsNoCode, &source.path, word.line, what)
        })
        .collect()
}
