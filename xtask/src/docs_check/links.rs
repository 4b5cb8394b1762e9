//! Links between files of the repository.

use std::path::Path;

/// Every relative link of a document that leads to no file.
pub(super) fn check(root: &Path, file: &str, text: &str) -> Vec<String> {
    let folder = root.join(file).parent().unwrap_or(root).to_owned();
    let mut problems = Vec::new();
    let mut in_code = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for target in targets(line) {
            let path = target.split('#').next().unwrap_or_default();
            if !path.is_empty() && !is_elsewhere(path) && !folder.join(path).exists() {
                problems.push(format!(
                    "{file}:{}: link to {path}, which is not there",
                    index + 1
                ));
            }
        }
    }
    problems
}

/// What stands in the round brackets of `[text](target)`.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("](").filter_map(move |(at, opening)| {
        let rest = line.get(at + opening.len()..)?;
        let target = rest.split(')').next()?;
        Some(target.split_whitespace().next().unwrap_or_default())
    })
}

fn is_elsewhere(target: &str) -> bool {
    target.contains("://") || target.starts_with("mailto:")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_in_xtask(text: &str) -> Vec<String> {
        check(Path::new(env!("CARGO_MANIFEST_DIR")), "src/x.md", text)
    }

    #[test]
    fn a_link_to_nothing_is_told_with_its_line() {
        assert_eq!(
            check_in_xtask("\nsee [that](gone.md#part)\n"),
            ["src/x.md:2: link to gone.md, which is not there"]
        );
    }

    #[test]
    fn the_second_link_of_a_line_counts_too() {
        assert_eq!(
            check_in_xtask("[a](main.rs) and ![b](gone.svg \"title\")\n").len(),
            1
        );
    }

    #[test]
    fn links_that_resolve_are_silent() {
        assert!(
            check_in_xtask(
                "[a](main.rs) [b](../Cargo.toml#x) [c](#here) [d](https://example.org/x)\n"
            )
            .is_empty()
        );
    }

    #[test]
    fn code_is_no_link() {
        assert!(check_in_xtask("```\nv[0](gone)\n```\n").is_empty());
    }
}
