//! Rule sets for the kernel's packet filter, handed as text to `nft` on its standard input.

use std::io::{self, Write};
use std::process::{Child, Command, Stdio};

/// Why a rule set did not take effect. `nft` applies a text whole or not at all.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The program is not installed.
    #[error("the program `nft` is missing: install the package nftables")]
    Missing,
    /// It could not be started or spoken to.
    #[error("`nft` could not be run")]
    Run(#[source] io::Error),
    /// It refused the rule set.
    #[error("`nft` refused the rules: {0}")]
    Refused(String),
}

/// The family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableFamily {
    /// IPv4 and IPv6 in one.
    Inet,
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
}

impl TableFamily {
    fn as_str(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
        }
    }
}

/// Applies a rule set in one transaction.
pub fn apply(ruleset: &str) -> Result<(), NftError> {
    let mut child = start()?;
    let written = match child.stdin.take() {
        Some(mut stdin) => stdin.write_all(ruleset.as_bytes()),
        None => Ok(()),
    };
    let output = child.wait_with_output().map_err(NftError::Run)?;
    if !output.status.success() {
        return Err(NftError::Refused(first_line(&output.stderr)));
    }
    written.map_err(NftError::Run)
}

/// Deletes a table with all that is in it; a table that is not there is fine.
pub fn delete_table(family: TableFamily, name: &str) -> Result<(), NftError> {
    let family = family.as_str();
    // Adding first makes the deletion succeed in either case, also for versions of nft without `destroy`.
    apply(&format!(
        "add table {family} {name}\ndelete table {family} {name}\n"
    ))
}

/// A router's service manager may start us with a bare environment: where Debian and OpenWrt keep the program.
const WELL_KNOWN: [&str; 2] = ["/usr/sbin/nft", "/sbin/nft"];

fn start() -> Result<Child, NftError> {
    for program in std::iter::once("nft").chain(WELL_KNOWN) {
        let spawned = Command::new(program)
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        match spawned {
            Ok(child) => return Ok(child),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(NftError::Run(error)),
        }
    }
    Err(NftError::Missing)
}

fn first_line(stderr: &[u8]) -> String {
    String::from_utf8_lossy(stderr)
        .lines()
        .next()
        .unwrap_or("it gave no reason")
        .to_owned()
}
