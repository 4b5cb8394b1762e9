//! Versions stand in the root manifest alone.

use toml::{Table, Value};

use super::{Problem, Rule};

const SECTIONS: &[&str] = &["dependencies", "dev-dependencies", "build-dependencies"];

pub(super) fn check(file: &str, text: &str) -> Vec<Problem> {
    if file == "Cargo.toml" {
        return Vec::new();
    }
    let manifest: Table = match text.parse() {
        Ok(manifest) => manifest,
        Err(error) => {
            return vec![Problem::new(
                Rule::VersionOnce,
                file,
                1,
                format!("is not TOML: {error}"),
            )];
        }
    };
    let mut problems = Vec::new();
    check_sections(file, text, &manifest, &mut problems);
    let targets = manifest.get("target").and_then(Value::as_table);
    for target in targets
        .into_iter()
        .flat_map(Table::values)
        .filter_map(Value::as_table)
    {
        check_sections(file, text, target, &mut problems);
    }
    problems
}

fn check_sections(file: &str, text: &str, holder: &Table, problems: &mut Vec<Problem>) {
    for section in SECTIONS {
        let Some(dependencies) = holder.get(*section).and_then(Value::as_table) else {
            continue;
        };
        for (name, wanted) in dependencies {
            let from_elsewhere = ["version", "git"]
                .iter()
                .any(|key| wanted.get(key).is_some());
            if wanted.is_str() || from_elsewhere {
                let line = text
                    .lines()
                    .position(|line| line.trim_start().starts_with(name.as_str()));
                let what = format!(
                    "`{name}` names a version; the root manifest does, this one says `workspace = true`"
                );
                problems.push(Problem::new(
                    Rule::VersionOnce,
                    file,
                    line.map_or(1, |l| l + 1),
                    what,
                ));
            }
        }
    }
}
