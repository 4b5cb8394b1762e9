//! Words, bodies and test modules of blanked code.

/// One word of the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word<'a> {
    pub(crate) text: &'a str,
    /// Byte offset of its first letter.
    pub(crate) at: usize,
    /// Counted from 1.
    pub(crate) line: usize,
}

/// One function that has a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Function<'a> {
    pub(crate) name: &'a str,
    /// From the line with `fn` to the line with the last brace.
    pub(crate) lines: std::ops::RangeInclusive<usize>,
}

/// Splits blanked code into words.
pub(super) fn words(code: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut line = 1;
    let mut start = None;
    for (at, c) in code.char_indices().chain([(code.len(), '\n')]) {
        let inside = c.is_alphanumeric() || c == '_';
        match (inside, start) {
            (true, None) => start = Some(at),
            (false, Some(from)) => {
                if let Some(text) = code.get(from..at) {
                    words.push(Word {
                        text,
                        at: from,
                        line,
                    });
                }
                start = None;
            }
            (true, Some(_)) | (false, None) => {}
        }
        if c == '\n' {
            line += 1;
        }
    }
    words
}

/// Finds every function that has a body.
pub(super) fn functions(code: &str) -> Vec<Function<'_>> {
    let words = words(code);
    let mut found = Vec::new();
    for pair in words.windows(2) {
        let [keyword, name] = pair else { continue };
        let gap = code
            .get(keyword.at + keyword.text.len()..name.at)
            .unwrap_or_default();
        if keyword.text != "fn" || !gap.trim().is_empty() {
            continue;
        }
        if let Some(end) = body_end(code, name.at) {
            let last = line_of(code, end);
            found.push(Function {
                name: name.text,
                lines: keyword.line..=last,
            });
        }
    }
    found
}

/// Marks the lines of `#[cfg(test)]` items; a file of tests is test code from end to end.
pub(super) fn test_lines(path: &str, code: &str) -> Vec<bool> {
    let count = code.lines().count();
    let whole =
        path.ends_with("/tests.rs") || path.contains("/tests/") && !path.starts_with("tests/src/");
    let mut marks = vec![whole; count];
    for (at, found) in code.match_indices("#[cfg(test)]") {
        let after = at + found.len();
        let end = body_end(code, after).unwrap_or(after);
        let (from, to) = (line_of(code, at), line_of(code, end));
        for mark in marks.iter_mut().take(to).skip(from - 1) {
            *mark = true;
        }
    }
    marks
}

/// The files that a module declares for tests alone, by `#[cfg(test)] mod name;`.
pub(super) fn test_files(path: &str, code: &str) -> Vec<String> {
    let stem = path.strip_suffix(".rs").unwrap_or(path);
    let folder = match stem.rsplit_once('/') {
        Some((folder, "lib" | "main" | "mod")) => folder,
        Some(_) | None => stem,
    };
    let declared = code
        .match_indices("#[cfg(test)]")
        .filter_map(|(at, found)| {
            let after = code.get(at + found.len()..)?.trim_start();
            let item = after.strip_prefix("pub(crate) ").unwrap_or(after);
            let name = item.strip_prefix("mod ")?.split_once(';')?.0.trim();
            name.chars()
                .all(|c| c.is_alphanumeric() || c == '_')
                .then(|| format!("{folder}/{name}.rs"))
        });
    declared.collect()
}

/// Where the body ends that begins after `from`; none when a semicolon comes first.
pub(super) fn body_end(code: &str, from: usize) -> Option<usize> {
    let mut depth = 0_usize;
    let mut brackets = 0_usize;
    for (offset, c) in code.get(from..)?.char_indices() {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets = brackets.saturating_sub(1),
            ';' if depth == 0 && brackets == 0 => return None,
            '{' => depth += 1,
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 && brackets == 0 {
                    return Some(from + offset);
                }
            }
            _ => {}
        }
    }
    None
}

fn line_of(code: &str, at: usize) -> usize {
    code.bytes().take(at).filter(|b| *b == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_reaches_from_its_keyword_to_its_last_brace() {
        let code = "pub fn one(x: [u8; 2]) -> u8 {\n    if x { y } else { z }\n}\nfn two();\nfn three() {}\n";

        let found = functions(code);

        assert_eq!(found.len(), 2);
        assert_eq!((found[0].name, &found[0].lines), ("one", &(1..=3)));
        assert_eq!((found[1].name, &found[1].lines), ("three", &(5..=5)));
    }

    #[test]
    fn a_function_type_is_no_function() {
        assert!(functions("type F = fn(u8) -> u8; struct S { f: fn(u8) }").is_empty());
    }

    #[test]
    fn a_test_module_is_test_code_and_what_stands_around_it_is_not() {
        let marks = test_lines(
            "x/src/a.rs",
            "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n",
        );

        assert_eq!(marks, [false, true, true, true, true, false]);
    }

    #[test]
    fn files_of_tests_are_test_code_and_the_lab_is_not() {
        assert_eq!(
            test_lines("crates/trust/tests/vectors.rs", "fn a() {}\n"),
            [true]
        );
        assert_eq!(
            test_lines("crates/trust/src/note/tests.rs", "fn a() {}\n"),
            [true]
        );
        assert_eq!(test_lines("tests/tests/interop.rs", "fn a() {}\n"), [true]);
        assert_eq!(test_lines("tests/src/netns.rs", "fn a() {}\n"), [false]);
    }

    #[test]
    fn a_declared_test_file_marks_only_its_declaration() {
        let marks = test_lines("x/src/a.rs", "#[cfg(test)]\nmod tests;\nfn c() {}\n");

        assert_eq!(marks, [true, false, false]);
    }

    #[test]
    fn files_declared_for_tests_are_found_beside_their_declaration() {
        let code = "#[cfg(test)]\nmod vectors;\nmod real;\n#[cfg(test)]\nmod tests { mod x; }\n";

        assert_eq!(test_files("a/src/lib.rs", code), ["a/src/vectors.rs"]);
        assert_eq!(
            test_files("a/src/proto.rs", code),
            ["a/src/proto/vectors.rs"]
        );
    }

    #[test]
    fn words_know_their_lines() {
        let found: Vec<_> = words("ab c\n d_1")
            .into_iter()
            .map(|w| (w.text, w.line))
            .collect();

        assert_eq!(found, [("ab", 1), ("c", 1), ("d_1", 2)]);
    }
}
