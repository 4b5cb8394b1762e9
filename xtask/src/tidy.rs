//! The habits of the house that a program can hold. Each rule is a function from a file to its problems.

mod manifests;
mod names;
mod purity;
mod size;
mod text;
mod waivers;
mod words;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;

use anyhow::{Result, bail};

use crate::source::Source;
use crate::workspace::Workspace;

/// A rule's name, as `tidy.toml` writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Rule {
    FileLength,
    FunctionLength,
    ModuleName,
    ModuleDoc,
    LibHoldsNoCode,
    Unsafe,
    Unwrap,
    PureCrate,
    UnfinishedWork,
    IgnoredTest,
    SleepInTest,
    VersionOnce,
    MachinePath,
    RegistryHost,
    Waiver,
}

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    rule: Rule,
    file: String,
    line: usize,
    what: String,
}

/// Checks every file of the repository.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mut files = Vec::new();
    for file in workspace.files()? {
        // What is no text, such as a corpus of packets, has no habits.
        if let Ok(text) = workspace.read(&file) {
            files.push((file, text));
        }
    }
    let waivers = match workspace.read("tidy.toml") {
        Ok(text) => waivers::parse(&text)?,
        Err(_) => Vec::new(),
    };
    let problems = waivers::apply(&waivers, check(&files), waivers::today()?);
    for problem in &problems {
        eprintln!("{problem}");
    }
    if !problems.is_empty() {
        bail!("tidy: {} problems in {} files", problems.len(), files.len());
    }
    eprintln!("tidy: {} files, nothing to say", files.len());
    Ok(())
}

/// Everything that is wrong with these files, each a path and its text.
fn check(files: &[(String, String)]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut sources = Vec::new();
    for (file, text) in files {
        problems.extend(text::check(file, text));
        let path = Path::new(file);
        if path.file_name().is_some_and(|name| name == "Cargo.toml") {
            problems.extend(manifests::check(file, text));
        }
        if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(Source::new(file, text));
        }
    }
    let tests: Vec<String> = sources.iter().flat_map(Source::test_files).collect();
    for source in sources {
        let source = if tests.contains(&source.path) {
            source.all_tests()
        } else {
            source
        };
        problems.extend(size::check(&source));
        problems.extend(names::check(&source));
        problems.extend(words::check(&source));
        problems.extend(purity::check(&source));
    }
    problems
}

impl Problem {
    fn new(rule: Rule, file: &str, line: usize, what: impl Into<String>) -> Self {
        Self {
            rule,
            file: file.to_owned(),
            line,
            what: what.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {}: {}",
            self.file, self.line, self.rule, self.what
        )
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FileLength => "file-length",
            Self::FunctionLength => "function-length",
            Self::ModuleName => "module-name",
            Self::ModuleDoc => "module-doc",
            Self::LibHoldsNoCode => "lib-holds-no-code",
            Self::Unsafe => "unsafe",
            Self::Unwrap => "unwrap",
            Self::PureCrate => "pure-crate",
            Self::UnfinishedWork => "unfinished-work",
            Self::IgnoredTest => "ignored-test",
            Self::SleepInTest => "sleep-in-test",
            Self::VersionOnce => "version-once",
            Self::MachinePath => "machine-path",
            Self::RegistryHost => "registry-host",
            Self::Waiver => "waiver",
        })
    }
}
