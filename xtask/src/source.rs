//! Rust source as the checks see it: the same text with comments and literals blanked, so that a word in a
//! sentence is never taken for code.

mod blank;
mod shape;

pub(crate) use shape::{Function, Word};

/// One file of Rust source.
#[derive(Debug)]
pub(crate) struct Source {
    /// Relative to the repository's root.
    pub(crate) path: String,
    /// As it stands in the file.
    pub(crate) text: String,
    /// The same length and lines, with comments, strings and characters blanked.
    code: String,
    /// The same length and lines, with everything but comments blanked.
    comments: String,
    in_tests: Vec<bool>,
}

impl Source {
    pub(crate) fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        let (path, text) = (path.into(), text.into());
        let (code, comments) = blank::split(&text);
        let in_tests = shape::test_lines(&path, &code);
        Self {
            path,
            text,
            code,
            comments,
            in_tests,
        }
    }

    /// The same file, of which another one says that it is there for tests alone.
    pub(crate) fn all_tests(mut self) -> Self {
        self.in_tests.fill(true);
        self
    }

    /// The files that this one declares for tests alone.
    pub(crate) fn test_files(&self) -> Vec<String> {
        shape::test_files(&self.path, &self.code)
    }

    /// Lines of code with their numbers, from 1; blank lines and comments are left out.
    pub(crate) fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        // A line of a long literal is code as well, although nothing of it is left in `code`.
        self.code
            .lines()
            .zip(self.text.lines())
            .zip(self.comments.lines())
            .enumerate()
            .filter_map(|(index, ((code, text), comment))| {
                let only_comment = code.trim().is_empty() && !comment.trim().is_empty();
                (!text.trim().is_empty() && !only_comment).then_some((index + 1, code))
            })
    }

    /// Comments, line by line, with their numbers.
    pub(crate) fn comment_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.comments
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty())
            .map(|(i, line)| (i + 1, line))
    }

    /// The words of the code, in order.
    pub(crate) fn words(&self) -> Vec<Word<'_>> {
        shape::words(&self.code)
    }

    /// Every function that has a body.
    pub(crate) fn functions(&self) -> Vec<Function<'_>> {
        shape::functions(&self.code)
    }

    /// Blanked code, for looking at what stands around a word.
    pub(crate) fn code(&self) -> &str {
        &self.code
    }

    /// Where the next body after a byte begins and ends, if one does before a semicolon.
    pub(crate) fn body_after(&self, at: usize) -> Option<(usize, usize)> {
        let end = shape::body_end(&self.code, at)?;
        let start = self.code.get(at..end)?.find('{')? + at;
        Some((start, end))
    }

    /// Whether a line, counted from 1, is test code.
    pub(crate) fn is_test(&self, line: usize) -> bool {
        line.checked_sub(1)
            .and_then(|index| self.in_tests.get(index))
            .copied()
            .unwrap_or(false)
    }
}
