//! The pure crates: time and randomness come in as arguments, and nothing reaches the system.

use super::{Problem, Rule};
use crate::source::Source;

/// Where no clock, socket, thread, file or environment may be asked. The last ones are whole modules.
const PURE: &[&str] = &["crates/trust/src/", "crates/tunnel/src/"];

/// The parts of `dnscrypt-proxy` that know the protocol alone.
const PURE_DNSCRYPT: &[&str] = &["stamp", "cert", "seal", "padding", "client", "server"];

const BANNED: &[(&str, &str)] = &[
    ("Instant::now", "the caller says what time it is"),
    ("SystemTime", "the caller says what time it is"),
    ("UdpSocket", "the shell owns the sockets"),
    ("TcpStream", "the shell owns the sockets"),
    ("TcpListener", "the shell owns the sockets"),
    ("std::thread", "the shell owns the threads"),
    ("tokio", "the shell owns the run time"),
    ("std::fs", "the shell reads and writes"),
    ("std::env", "configuration comes in as arguments"),
    ("std::process", "the shell talks to the system"),
    ("println", "what happened is returned"),
    ("eprintln", "what happened is returned"),
];

pub(super) fn check(source: &Source) -> Vec<Problem> {
    if !is_pure(&source.path) {
        return Vec::new();
    }
    let mut problems = Vec::new();
    for (line, code) in source
        .code_lines()
        .filter(|(line, _)| !source.is_test(*line))
    {
        for (name, why) in BANNED {
            if holds_word(code, name) {
                let what = format!("`{name}` in a pure crate: {why}");
                problems.push(Problem::new(Rule::PureCrate, &source.path, line, what));
            }
        }
    }
    problems
}

fn is_pure(path: &str) -> bool {
    if PURE.iter().any(|folder| path.starts_with(folder)) {
        return true;
    }
    let Some(inside) = path.strip_prefix("dnscrypt-proxy/src/") else {
        return false;
    };
    let inside = inside.strip_prefix("proto/").unwrap_or(inside);
    let module = inside.split(['/', '.']).next().unwrap_or_default();
    PURE_DNSCRYPT.contains(&module)
}

/// Whether `name` stands in `code` as a word of its own.
fn holds_word(code: &str, name: &str) -> bool {
    let joins = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(name).any(|(at, found)| {
        let before = code.get(..at).and_then(|c| c.chars().next_back());
        let after = code.get(at + found.len()..).and_then(|c| c.chars().next());
        !before.is_some_and(joins) && !after.is_some_and(joins)
    })
}
