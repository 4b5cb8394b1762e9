//! Agents of other hands, as Debian has them: OpenSSH's (openssh-client) and GnuPG's (gpg, gpg-agent).

use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ed25519_dalek::SigningKey;

/// Whether a key asks before each signature, as a token does that wants to be touched, and what becomes of that.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Touch {
    Never,
    Refused,
    /// It comes when the test says so ([`OpenSsh::touch`]).
    Awaited,
}

/// OpenSSH's agent, ended with the test.
pub(crate) struct OpenSsh {
    child: Child,
    dir: tempfile::TempDir,
    touch: Touch,
}

impl OpenSsh {
    pub(crate) fn start(touch: Touch) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let question = dir.path().join("question");
        let finger = dir.path().join("finger");
        succeed(Command::new("mkfifo").arg(&finger));
        // It says yes when something comes through the pipe, and does not outlive a test that fails.
        let script = match touch {
            Touch::Never | Touch::Refused => "exit 1".to_owned(),
            Touch::Awaited => format!("exec timeout 60 cat {}", finger.display()),
        };
        fs::write(&question, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&question, fs::Permissions::from_mode(0o700)).unwrap();
        let mut child = Command::new("ssh-agent")
            .arg("-D")
            .arg("-a")
            .arg(dir.path().join("socket"))
            .env("SSH_ASKPASS", &question)
            .env("SSH_ASKPASS_REQUIRE", "force")
            .stdout(Stdio::piped())
            .spawn()
            .expect("`cargo xtask setup` installs openssh-client of Debian");
        let mut line = String::new();
        let said = child.stdout.take().unwrap();
        BufReader::new(said).read_line(&mut line).unwrap();
        assert!(line.contains("SSH_AUTH_SOCK"), "it listens now: {line}");
        Self { child, dir, touch }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    /// Makes a key, as the README has it, and tells its secret: what the agent signs can be signed here too.
    pub(crate) fn new_key(&self, name: &str) -> SigningKey {
        let file = self.dir.path().join(name);
        self.make_key("ed25519", &file, name);
        secret_of(&file)
    }

    pub(crate) fn add_rsa_key(&self) {
        self.make_key("rsa", &self.dir.path().join("rsa"), "rsa");
    }

    /// Touches the token: waits until it is asked to.
    pub(crate) fn touch(&self) {
        let finger = self.dir.path().join("finger");
        let mut finger = OpenOptions::new().write(true).open(finger).unwrap();
        finger.write_all(b"yes\n").unwrap();
    }

    fn make_key(&self, kind: &str, file: &Path, comment: &str) {
        let make = ["-q", "-t", kind, "-N", "", "-C", comment, "-f"];
        succeed(Command::new("ssh-keygen").args(make).arg(file));
        let mut add = Command::new("ssh-add");
        add.arg("-q").env("SSH_AUTH_SOCK", self.socket());
        if self.touch != Touch::Never {
            add.arg("-c");
        }
        succeed(add.arg(file));
    }
}

impl Drop for OpenSsh {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// GnuPG's agent with a key in its own store, ended with the test.
pub(crate) struct GnuPg {
    home: tempfile::TempDir,
}

impl GnuPg {
    pub(crate) fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("gpg-agent.conf"), "enable-ssh-support\n").unwrap();
        let gnupg = Self { home };
        // The first command that wants an agent starts it.
        let make = ["-q", "--batch", "--passphrase", "", "--quick-gen-key"];
        let made = ["provider", "ed25519", "auth", "never"];
        gnupg.run("gpg", &[&make[..], &made].concat());
        let keys = gnupg.run("gpg", &["--with-colons", "--with-keygrip", "-K"]);
        let grip = keys.lines().find_map(|line| line.strip_prefix("grp:"));
        let grip = grip.unwrap().trim_matches(':');
        fs::write(gnupg.home.path().join("sshcontrol"), format!("{grip}\n")).unwrap();
        gnupg
    }

    pub(crate) fn socket(&self) -> PathBuf {
        let said = self.run("gpgconf", &["--list-dirs", "agent-ssh-socket"]);
        said.trim().into()
    }

    fn run(&self, program: &str, args: &[&str]) -> String {
        let mut command = Command::new(program);
        succeed(command.args(args).env("GNUPGHOME", self.home.path()))
    }
}

impl Drop for GnuPg {
    fn drop(&mut self) {
        // It ends by itself when its folder is gone, but later.
        self.run("gpgconf", &["--kill", "gpg-agent"]);
    }
}

/// The seed stands before the public key, in a key file without a passphrase.
fn secret_of(file: &Path) -> SigningKey {
    let line = fs::read_to_string(file.with_extension("pub")).unwrap();
    let blob = decode(line.split_whitespace().nth(1).unwrap());
    let public = &blob[blob.len() - 32..];
    let text = fs::read_to_string(file).unwrap();
    let whole = decode(
        &text
            .lines()
            .filter(|l| !l.starts_with('-'))
            .collect::<String>(),
    );
    let at = whole
        .windows(32)
        .rposition(|bytes| bytes == public)
        .unwrap();
    let key = SigningKey::from_bytes(whole[at - 32..at].try_into().unwrap());
    assert_eq!(key.verifying_key().as_bytes(), public);
    key
}

fn decode(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD
        .decode(text)
        .unwrap()
}

fn succeed(command: &mut Command) -> String {
    let output = command.output();
    let output =
        output.expect("`cargo xtask setup` installs openssh-client, gpg and gpg-agent of Debian");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}
