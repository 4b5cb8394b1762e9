//! Words that may not stand in code, and remarks that may not stand beside it.

use super::{Problem, Rule};
use crate::source::Source;

const UNFINISHED: &[&str] = &["TODO", "FIXME", "XXX", "HACK"];

pub(super) fn check(source: &Source) -> Vec<Problem> {
    let mut problems = Vec::new();
    let unsafe_lives_here = source.path.starts_with("crates/netio/");
    for word in source.words() {
        let tested = source.is_test(word.line);
        let after = source
            .code()
            .get(word.at + word.text.len()..)
            .unwrap_or_default();
        let before = source.code().get(..word.at).unwrap_or_default();
        let (rule, what) = match word.text {
            "unsafe" if !unsafe_lives_here => (Rule::Unsafe, "only crates/netio may hold this"),
            "unwrap" if !tested && before.ends_with('.') && after.starts_with("()") => (
                Rule::Unwrap,
                "give the error a name, or `expect` with why it cannot happen",
            ),
            "sleep" if tested && after.starts_with('(') => (
                Rule::SleepInTest,
                "advance the clock, or wait for what is to be seen",
            ),
            "ignore" if before.ends_with("#[") => {
                (Rule::IgnoredTest, "a test runs or is not there")
            }
            _ => continue,
        };
        problems.push(Problem::new(
            rule,
            &source.path,
            word.line,
            format!("`{}`: {what}", word.text),
        ));
    }
    for (line, comment) in source.comment_lines() {
        let mut words = comment.split(|c: char| !c.is_alphanumeric());
        if let Some(word) = words.find(|word| UNFINISHED.contains(word)) {
            let what = format!("`{word}`: finish it, or open an issue");
            problems.push(Problem::new(Rule::UnfinishedWork, &source.path, line, what));
        }
    }
    problems
}
