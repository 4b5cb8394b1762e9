//! How long a file and a function may be, in lines that hold code.

use super::{Problem, Rule};
use crate::source::Source;

const FILE_LINES: usize = 600;
const FUNCTION_LINES: usize = 70;

pub(super) fn check(source: &Source) -> Vec<Problem> {
    let lines: Vec<usize> = source.code_lines().map(|(line, _)| line).collect();
    let mut problems = Vec::new();
    if lines.len() > FILE_LINES {
        let what = format!(
            "{} lines of code; {FILE_LINES} is the most: move a noun to a file of its own",
            lines.len()
        );
        problems.push(Problem::new(Rule::FileLength, &source.path, 1, what));
    }
    for function in source.functions() {
        let length = lines
            .iter()
            .filter(|line| function.lines.contains(line))
            .count();
        if length > FUNCTION_LINES {
            let what = format!(
                "`{}` has {length} lines; {FUNCTION_LINES} is the most",
                function.name
            );
            problems.push(Problem::new(
                Rule::FunctionLength,
                &source.path,
                *function.lines.start(),
                what,
            ));
        }
    }
    problems
}
