//! What no file of any kind may hold: one machine's folders, one registry's hosts.

use super::{Problem, Rule};

// Written in halves, or this file would find itself.
const PATHS: &[&str] = &[
    concat!("/ro", "ot/"),
    concat!("/wo", "rk/"),
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
];

const HOSTS: &[&str] = &[
    concat!("py", "pi.org"),
    concat!("pythonho", "sted.org"),
    concat!("static.cra", "tes.io"),
    concat!("index.cra", "tes.io"),
    concat!("registry.np", "mjs"),
    concat!("deb.deb", "ian.org"),
    concat!("proxy.gol", "ang"),
];

pub(super) fn check(file: &str, text: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if let Some(path) = PATHS.iter().find(|path| begins_a_path(line, path)) {
            let what = format!("`{path}…` is a folder of one machine");
            problems.push(Problem::new(Rule::MachinePath, file, index + 1, what));
        }
        if let Some(host) = HOSTS.iter().find(|host| line.contains(**host)) {
            let what =
                format!("`{host}`: registries are reached through their clients' own settings");
            problems.push(Problem::new(Rule::RegistryHost, file, index + 1, what));
        }
    }
    problems
}

/// Whether a path starts at its root here, rather than going on from a folder before it.
fn begins_a_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line.get(..at).and_then(|l| l.chars().next_back());
        !before.is_some_and(|c| c.is_alphanumeric() || "_-.}$)".contains(c))
    })
}
