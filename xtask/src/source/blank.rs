//! Tells code, comments and literals apart, byte by byte.

/// Returns the text twice: as code without comments and literals, and as comments alone.
pub(super) fn split(text: &str) -> (String, String) {
    let mut code = Vec::with_capacity(text.len());
    let mut comments = Vec::with_capacity(text.len());
    let mut rest = text;
    let mut before = None;
    while let Some(first) = rest.chars().next() {
        let (kind, length) = next(rest, before);
        let (part, tail) = rest.split_at(length);
        copy(&mut code, part, kind == Kind::Code);
        copy(&mut comments, part, kind == Kind::Comment);
        before = if kind == Kind::Code {
            Some(first)
        } else {
            None
        };
        rest = tail;
    }
    (into_text(code), into_text(comments))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    Comment,
    Literal,
}

/// What the text begins with, and how many bytes of it belong together.
fn next(text: &str, before: Option<char>) -> (Kind, usize) {
    if text.starts_with("//") {
        return (Kind::Comment, text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return (Kind::Comment, block_comment(text));
    }
    let in_a_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if !in_a_word && let Some(length) = raw_string(text) {
        return (Kind::Literal, length);
    }
    if text.starts_with('"') {
        return (Kind::Literal, quoted(text, '"'));
    }
    if let Some(length) = character(text) {
        return (Kind::Literal, length);
    }
    (Kind::Code, text.chars().next().map_or(0, char::len_utf8))
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(rest) = text.get(at..) {
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            match rest.chars().next() {
                Some(c) => at += c.len_utf8(),
                None => break,
            }
        }
    }
    text.len()
}

/// `r"…"`, `r#"…"#` and the same with `b` or `c` before.
fn raw_string(text: &str) -> Option<usize> {
    let after = text
        .strip_prefix("br")
        .or_else(|| text.strip_prefix("cr"))
        .or_else(|| text.strip_prefix('r'))?;
    let hashes = after.bytes().take_while(|b| *b == b'#').count();
    let body = after.get(hashes..)?.strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let start = text.len() - body.len();
    Some(
        body.find(&end)
            .map_or(text.len(), |found| start + found + end.len()),
    )
}

/// A quoted literal from its first quote to its last, backslashes minded.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// A character literal; a lifetime is none.
fn character(text: &str) -> Option<usize> {
    let body = text.strip_prefix('\'')?;
    let first = body.chars().next()?;
    if first == '\\' {
        return Some(quoted(text, '\''));
    }
    let closed = body.get(first.len_utf8()..)?.starts_with('\'');
    (closed && first != '\'').then_some(first.len_utf8() + 2)
}

fn copy(into: &mut Vec<u8>, part: &str, kept: bool) {
    into.extend(
        part.bytes()
            .map(|b| if kept || b == b'\n' { b } else { b' ' }),
    );
}

fn into_text(bytes: Vec<u8>) -> String {
    // Characters are kept whole or blanked whole, so this never has to replace anything.
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        split(text).0
    }

    #[test]
    fn comments_are_blanked_and_kept_apart() {
        let (code, comments) = split("a(); // unsafe\n/* x /* y */ z */ b();");

        assert_eq!(code, "a();          \n                  b();");
        assert_eq!(comments, "     // unsafe\n/* x /* y */ z */     ");
    }

    #[test]
    fn strings_are_blanked_whatever_their_quotes() {
        assert_eq!(code(r#"f("a \" b", 1)"#), "f(        , 1)");
        assert_eq!(code(r###"f(r#"a " b"#, 1)"###), "f(          , 1)");
        assert_eq!(code("f(br\"//\")"), "f(      )");
    }

    #[test]
    fn a_name_that_ends_in_r_does_not_start_a_raw_string() {
        assert_eq!(code("for_r\"x\""), "for_r   ");
        assert_eq!(code("bar\"x\""), "bar   ");
    }

    #[test]
    fn characters_are_blanked_and_lifetimes_are_not() {
        assert_eq!(code("f('{', '\\'', b'}')"), "f(   ,     , b   )");
        assert_eq!(code("fn f<'a>(x: &'a str) {}"), "fn f<'a>(x: &'a str) {}");
    }

    #[test]
    fn lines_and_length_stay_as_they_are() {
        let text = "let s = \"ä\n\"; // ü\n";
        let (code, comments) = split(text);

        assert_eq!(code.len(), text.len());
        assert_eq!(comments.len(), text.len());
        assert_eq!(code.lines().count(), 2);
    }

    #[test]
    fn what_is_never_closed_ends_with_the_file() {
        assert_eq!(code("a \"b"), "a   ");
        assert_eq!(code("a /* b"), "a     ");
        assert_eq!(code("a r#\"b\""), "a      ");
    }
}
