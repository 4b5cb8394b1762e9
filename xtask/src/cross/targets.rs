//! `cross/targets.toml`: each router's processor, its compiler's words for it, its emulator and its budget.

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::workspace::Workspace;

/// One processor.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Target {
    pub(crate) name: String,
    /// Rust's name for it.
    pub(crate) triple: String,
    /// Zig's name for it.
    pub(crate) zig: String,
    /// The processor, as zig's C compiler wants to hear it.
    #[serde(default)]
    pub(crate) c_flags: String,
    /// The emulator and its arguments.
    pub(crate) run: Vec<String>,
    /// What takes out of the agent what the linker keeps and no router loads, where there is such.
    pub(crate) strip: Option<String>,
    /// Whether there is room for QUIC (docs/decisions/0010-quic-where-it-fits.md); TLS is the way round blocked UDP everywhere.
    #[serde(default)]
    pub(crate) quic: bool,
    /// The most that the stripped agent may weigh.
    pub(crate) budget_bytes: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    target: Vec<Target>,
}

pub(super) fn find(workspace: &Workspace, name: &str) -> Result<Target> {
    choose(&workspace.read("cross/targets.toml")?, name)
}

fn choose(text: &str, name: &str) -> Result<Target> {
    let file: File = toml::from_str(text).context("reading cross/targets.toml")?;
    let known: Vec<_> = file.target.iter().map(|t| t.name.clone()).collect();
    let wanted = file.target.into_iter().find(|t| t.name == name);
    wanted.with_context(|| {
        format!(
            "no target `{name}`; cross/targets.toml has: {}",
            known.join(", ")
        )
    })
}

impl Target {
    /// The triple as the cc crate writes it in a variable's name.
    pub(super) fn lower(&self) -> String {
        self.triple.replace('-', "_")
    }

    /// The triple as cargo writes it in a variable's name.
    pub(super) fn upper(&self) -> String {
        self.lower().to_uppercase()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = include_str!("../../../cross/targets.toml");

    #[test]
    fn an_unknown_target_is_answered_with_the_known_ones() {
        let error = choose(FILE, "vax").unwrap_err().to_string();

        assert!(
            error.contains("`vax`") && error.contains("mipsel"),
            "{error}"
        );
    }

    #[test]
    fn a_key_that_nothing_reads_is_refused() {
        assert!(choose(&FILE.replace("zig =", "zag ="), "mipsel").is_err());
    }

    #[test]
    fn mipsel_is_held_to_two_million_bytes() {
        let target = choose(FILE, "mipsel").unwrap();

        assert_eq!(target.budget_bytes, 2_000_000);
        assert_eq!(target.upper(), "MIPSEL_UNKNOWN_LINUX_MUSL");
    }
}
