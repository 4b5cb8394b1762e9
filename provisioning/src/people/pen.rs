//! `ssh-keygen` as the hand that signs: a key in a file, in an agent or on a token. Culvert never sees a private key.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use trust::SshKey;

use super::folder::read_bounded;
use crate::failure::{Blame, Failure};

const PROGRAM: &str = "ssh-keygen";

/// The public half of a key that the user names, as the file with the private or with the public half.
pub fn public_key(key: &Path) -> anyhow::Result<SshKey> {
    let public = match key.extension().is_some_and(|end| end == "pub") {
        true => key.to_owned(),
        false => {
            let mut name = OsString::from(key);
            name.push(".pub");
            PathBuf::from(name)
        }
    };
    let advice = || {
        format!(
            "--key is the key's file, with its public half in {} beside it (`ssh-keygen -y` writes one)",
            public.display()
        )
    };
    let line = String::from_utf8(read_bounded(&public).with_context(advice)?);
    let line = line.with_context(advice)?;
    line.parse().with_context(advice)
}

/// Has the key sign these bytes for this purpose. `ssh-keygen` itself asks for a passphrase, a PIN or a touch.
pub fn sign(key: &Path, purpose: &str, bytes: &[u8]) -> anyhow::Result<String> {
    let spawned = Command::new(PROGRAM)
        .args(["-q", "-Y", "sign", "-n", purpose, "-f"])
        .arg(key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let sentence = "there is no ssh-keygen here (Debian: openssh-client); sign on another machine and hand in --signature";
            return Err(Failure::new(Blame::Failed, sentence).into());
        }
        other => other.context("cannot run ssh-keygen")?,
    };
    let written = match child.stdin.take() {
        Some(mut stdin) => stdin.write_all(bytes),
        None => Ok(()),
    };
    let output = child.wait_with_output().context("ssh-keygen")?;
    if !output.status.success() {
        let sentence = format!(
            "ssh-keygen has not signed with {}; it says why above",
            key.display()
        );
        return Err(Failure::new(Blame::Failed, sentence).into());
    }
    written.context("ssh-keygen did not take the proposal")?;
    String::from_utf8(output.stdout).context("ssh-keygen wrote no signature")
}
