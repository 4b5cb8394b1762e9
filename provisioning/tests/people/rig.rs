//! People with keys, in one folder, who type commands.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_provisioning");
/// Of Debian's openssh-tests, which `cargo xtask setup` unpacks; another place is named by the variable.
const SK_DUMMY: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../target/openssh-tests/usr/lib/openssh/regress/misc/sk-dummy/sk-dummy.so"
);
const SK_VARIABLE: &str = "CULVERT_SK_DUMMY";

/// The token without hardware.
pub(crate) fn sk_dummy() -> PathBuf {
    let named = std::env::var_os(SK_VARIABLE).map_or_else(|| SK_DUMMY.into(), PathBuf::from);
    assert!(
        named.exists(),
        "{} is missing: `cargo xtask setup` unpacks it; or name the sk-dummy.so of openssh-tests by {SK_VARIABLE}",
        named.display()
    );
    named
}

/// Alice, bob and carol have keys in files, alice two of them; dan's is on a token, and so is erin's, which signs without a touch.
pub(crate) struct People {
    scratch: TempDir,
}

pub(crate) const GATEWAY: &[&str] = &[
    "--name",
    "gw1",
    "--ed25519",
    "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
    "--wg",
    "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=",
    "--endpoint",
    "198.51.100.1:51820",
    "--pop",
    "pop1",
    "--shard",
    "1",
    "--inner",
    "10.64.0.1",
    "--dns",
    "sdns://AQ",
];

pub(crate) const RULES: &str = "rule gateway noc min-delay 3600\nrule authority noc min-delay 60\n";

/// A command for the server in the folder `office`.
pub(crate) fn at_office<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [&["--data-dir", "office"], args].concat()
}

impl People {
    pub(crate) fn new() -> Self {
        let people = Self {
            scratch: TempDir::new().unwrap(),
        };
        for key in ["alice", "alice2", "bob", "carol", "mallory"] {
            people.keygen(&["-t", "ed25519", "-f", key]);
        }
        let token = sk_dummy();
        let token = ["-t", "ed25519-sk", "-w", token.to_str().unwrap()];
        people.keygen(&[&token[..], &["-f", "dan"]].concat());
        people.keygen(&[&token[..], &["-O", "no-touch-required", "-f", "erin"]].concat());
        people.state("state", 1, RULES);
        people
    }

    fn keygen(&self, args: &[&str]) {
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-N", "", "-C", ""]).args(args);
        let made = command.current_dir(self.path("")).status().unwrap();
        assert!(made.success(), "{args:?}");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    /// Writes a state of the authority with everybody in it but mallory; noc is two of alice, bob, dan and erin.
    pub(crate) fn state(&self, file: &str, epoch: u64, rules: &str) {
        let mut text = format!("epoch {epoch}\n");
        let keys = ["alice", "alice2", "bob", "carol", "dan", "erin"];
        for (person, key) in keys.map(|key| (key.trim_end_matches('2'), key)) {
            let line = String::from_utf8(self.read(&format!("{key}.pub"))).unwrap();
            text.push_str(&format!("person {person} {}\n", line.trim()));
        }
        text.push_str("group noc 2 alice bob dan erin\n");
        text.push_str(rules);
        fs::write(self.path(file), text).unwrap();
    }

    /// Makes a server for these people, whose first state has these rules.
    pub(crate) fn office(&self, rules: &str) {
        self.state("state", 1, rules);
        let genesis = ["propose", "genesis", "first", "--state", "state"];
        self.ok(&[&genesis[..], &["--key", "alice"]].concat());
        for key in ["bob", "dan"] {
            self.ok(&["approve", "first", "--genesis", "--key", key]);
        }
        let out = ["--genesis", "--out", "first.activation"];
        self.ok(&[&["activate", "first"], &out[..]].concat());
        let init = ["init", "--name", "office", "--genesis", "first.activation"];
        let url = ["--listen-url", "https://127.0.0.1:8443"];
        self.ok(&at_office(&[init.as_slice(), &url].concat()));
    }

    /// Types a command, and says yes.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.run_saying("yes\n", args)
    }

    pub(crate) fn run_saying(&self, said: &str, args: &[&str]) -> Output {
        self.typed(said, &[], args)
    }

    /// The same with more in the environment.
    pub(crate) fn run_with(&self, more: &[(&str, &Path)], args: &[&str]) -> Output {
        self.typed("yes\n", more, args)
    }

    fn typed(&self, said: &str, more: &[(&str, &Path)], args: &[&str]) -> Output {
        let mut command = Command::new(PROGRAM);
        command.args(args).current_dir(self.path(""));
        command.env("SSH_SK_PROVIDER", sk_dummy());
        command
            .env_remove("SSH_AUTH_SOCK")
            .envs(more.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        // A command that asks nothing may have ended already.
        let _unheard = child.stdin.take().unwrap().write_all(said.as_bytes());
        child.wait_with_output().unwrap()
    }

    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {told}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let output = self.run(&[args, &["--json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Types a command that fails, with this exit code and these words in its last line.
    #[track_caller]
    pub(crate) fn fails(&self, args: &[&str], code: i32, words: &str) {
        let output = self.run(args);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let last = told.trim_end().lines().last().unwrap_or_default();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {told}");
        assert!(last.contains(words), "{args:?}: {last}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }

    /// Carol, who has no vote, proposes a gateway.
    pub(crate) fn propose_gateway(&self, folder: &str) {
        self.propose_gateway_by("carol", folder);
    }

    pub(crate) fn propose_gateway_by(&self, key: &str, folder: &str) {
        let args = ["propose", "gateway", folder, "--authority", "state"];
        self.ok(&[&args[..], &["--key", key], GATEWAY].concat());
    }

    #[track_caller]
    pub(crate) fn approve(&self, folder: &str, key: &str) {
        self.ok(&["approve", folder, "--authority", "state", "--key", key]);
    }

    /// What ssh-keygen makes of some bytes, as a file.
    pub(crate) fn sign(&self, key: &str, purpose: &str, bytes: &[u8], file: &str) {
        let mut child = Command::new("ssh-keygen")
            .args(["-q", "-Y", "sign", "-n", purpose, "-f", key])
            .current_dir(self.path(""))
            .env("SSH_SK_PROVIDER", sk_dummy())
            .stdin(Stdio::piped())
            .stdout(fs::File::create(self.path(file)).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        assert!(child.wait().unwrap().success());
    }

    pub(crate) fn signatures(&self, folder: &str) -> usize {
        let files = fs::read_dir(self.path(folder)).unwrap();
        let is_one = |path: &Path| path.extension().is_some_and(|end| end == "sig");
        files
            .filter(|file| is_one(&file.as_ref().unwrap().path()))
            .count()
    }
}

/// OpenSSH's agent, which ends with this.
pub(crate) struct Agent {
    child: Child,
    pub(crate) socket: PathBuf,
}

impl Agent {
    pub(crate) fn start(people: &People) -> Self {
        let socket = people.path("agent");
        let mut command = Command::new("ssh-agent");
        command.arg("-D").arg("-a").arg(&socket);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let said = child.stdout.take().unwrap();
        BufReader::new(said).read_line(&mut line).unwrap();
        assert!(line.contains("SSH_AUTH_SOCK"), "it listens now: {line}");
        Self { child, socket }
    }

    pub(crate) fn add(&self, people: &People, key: &str) {
        let mut command = Command::new("ssh-add");
        command.arg("-q").arg(key).current_dir(people.path(""));
        let added = command.env("SSH_AUTH_SOCK", &self.socket).status();
        assert!(added.unwrap().success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It has ended by itself, or does now.
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}
