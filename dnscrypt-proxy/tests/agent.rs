//! `culvert-dns cert sign` with a key that an ssh agent has: OpenSSH's, GnuPG's, none, and agents that lie.

#![expect(clippy::unwrap_used, reason = "a test rig that fails should say where")]

#[path = "servers/empty.rs"]
mod empty;
#[path = "agent/lying.rs"]
mod lying;
#[path = "agent/real.rs"]
mod real;

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use dnscrypt_proxy::certs::{Certs, create_provider_key};
use dnscrypt_proxy::clock;
use dnscrypt_proxy::proto::cert::{SignedCert, System};
use dnscrypt_proxy::proto::stamp::{DnsCryptStamp, Props};
use ed25519_dalek::{Signer as _, SigningKey};
use lying::{LyingAgent, Reply};
use real::{GnuPg, OpenSsh, Touch};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_culvert-dns");
const PROVIDER: &str = "2.dnscrypt-cert.token.example";
const SIGNED_AT: usize = 72;
const SECRET: usize = 32;
const UNAVAILABLE: Option<i32> = Some(69);
const USAGE: Option<i32> = Some(64);

fn hex(bytes: &[u8]) -> String {
    hex::encode(bytes)
}

fn public(key: &SigningKey) -> String {
    hex(key.verifying_key().as_bytes())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Where certificates are written to, and how they are asked for.
struct Out {
    dir: tempfile::TempDir,
}

impl Out {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn certs(&self) -> PathBuf {
        self.dir.path().join("certs")
    }

    fn sign(&self, key: &str, socket: Option<&Path>) -> Command {
        self.sign_times(1, key, socket)
    }

    fn sign_times(&self, count: usize, key: &str, socket: Option<&Path>) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .args(["cert", "sign", "--agent-key", key])
            .args(["--count", &count.to_string(), "--out"])
            .arg(self.certs())
            .env_remove("SSH_AUTH_SOCK");
        if let Some(socket) = socket {
            command.env("SSH_AUTH_SOCK", socket);
        }
        command
    }

    /// The files that are certificates.
    fn files(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.certs()) else {
            return Vec::new();
        };
        let files = entries.map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files
            .filter(|file| file.extension() == Some(OsStr::new("cert")))
            .collect();
        files.sort();
        files
    }

    /// Fails as it should: with this code, words of this, and no certificate.
    fn must_fail(&self, command: &mut Command, code: Option<i32>, words: &str) -> String {
        let output = command.output().unwrap();
        let said = said(&output);
        assert_eq!(output.status.code(), code, "{said}");
        assert!(said.contains(words), "{said:?} has no {words:?}");
        assert_eq!(self.files(), [] as [PathBuf; 0], "{said}");
        assert!(output.stdout.is_empty());
        said
    }
}

#[test]
fn without_an_agent_it_says_how_to_name_one() {
    let out = Out::new();
    let key = public(&SigningKey::from_bytes(&[1; 32]));
    let nobody = out.dir.path().join("nobody");
    let dead = out.dir.path().join("dead");
    drop(UnixListener::bind(&dead).unwrap());

    out.must_fail(&mut out.sign(&key, None), USAGE, "--agent-socket");
    let empty = Some(Path::new(""));
    out.must_fail(&mut out.sign(&key, empty), USAGE, "--agent-socket");
    for socket in [&nobody, &dead] {
        let words = format!("no ssh agent answers at {}", socket.display());
        out.must_fail(&mut out.sign(&key, Some(socket)), UNAVAILABLE, &words);
    }
    let neither = ["cert", "sign", "--out", "certs"];
    let neither = Command::new(PROGRAM).args(neither).output().unwrap();
    assert_eq!(neither.status.code(), USAGE);
    assert!(said(&neither).contains("--provider-key <FILE>|--agent-key <HEX>"));
    let file = ["--provider-key", "f"];
    out.must_fail(
        out.sign(&key, None).args(file),
        USAGE,
        "cannot be used with",
    );
}

#[test]
fn digits_that_are_no_key_are_refused_before_any_agent_is_asked() {
    let out = Out::new();
    let weak = format!("01{}", "00".repeat(31));

    for bad in ["", "abcd", &"zz".repeat(32), &weak] {
        out.must_fail(&mut out.sign(bad, None), USAGE, "--agent-key");
    }
}

#[test]
fn an_agent_without_the_key_is_told_from_one_without_any() {
    let out = Out::new();
    let agent = OpenSsh::start(Touch::Never);
    let wanted = public(&SigningKey::from_bytes(&[1; 32]));
    let sign = || out.sign(&wanted, Some(&agent.socket()));

    out.must_fail(&mut sign(), UNAVAILABLE, "no Ed25519 key at all");
    let other = public(&agent.new_key("other"));
    let words = format!("has no key {wanted}: it has {other}");
    out.must_fail(&mut sign(), UNAVAILABLE, &words);
}

#[test]
fn a_key_that_its_owner_does_not_confirm_signs_nothing() {
    let out = Out::new();
    let agent = OpenSsh::start(Touch::Refused);
    let key = public(&agent.new_key("provider"));

    let said = out.must_fail(
        &mut out.sign(&key, Some(&agent.socket())),
        UNAVAILABLE,
        "signature 1 of 2, no certificate was written",
    );
    assert!(said.contains("refused to sign 52 bytes"), "{said}");
}

#[test]
fn a_question_that_nobody_answers_ends_in_time() {
    let out = Out::new();
    let agent = OpenSsh::start(Touch::Awaited);
    let key = public(&agent.new_key("provider"));
    let started = Instant::now();

    let mut sign = out.sign(&key, Some(&agent.socket()));
    let said = out.must_fail(
        sign.arg("--agent-wait-s=2"),
        UNAVAILABLE,
        "said nothing for 2 seconds",
    );

    assert!(said.contains("waiting for signature 1 of 2"), "{said}");
    assert!(started.elapsed() >= Duration::from_secs(2));
}

#[test]
fn a_lying_agent_gets_nothing_signed() {
    let key = SigningKey::from_bytes(&[1; 32]);
    let lies = [
        (Reply::ByAnotherKey, "that is not of key"),
        (Reply::OfOtherBytes, "that is not of key"),
        (Reply::AnotherAlgorithm, "no Ed25519 signature"),
        (Reply::Garbage, "none of the ssh agent protocol"),
        (Reply::TooShort, "none of the ssh agent protocol"),
        (Reply::HugeLength, "announces an answer of 4294967295 bytes"),
        (Reply::HugeInside, "none of the ssh agent protocol"),
        (Reply::Cut, "went away"),
        (Reply::Nothing, "went away"),
        (Reply::Silence, "said nothing for 1 seconds"),
        (Reply::HalfThenSilence, "said nothing for 1 seconds"),
    ];
    for (lie, words) in lies {
        let out = Out::new();
        let agent = LyingAgent::start(&out.dir.path().join("lying"), &key, [lie].into());

        let mut sign = out.sign(&public(&key), None);
        sign.arg("--agent-wait-s=1").arg("--agent-socket");
        let said = out.must_fail(sign.arg(agent.socket()), UNAVAILABLE, words);

        assert!(said.contains("signature 1 of 2"), "{lie:?}: {said}");
    }
}

#[test]
fn an_agent_that_lies_about_its_keys_is_refused() {
    let key = SigningKey::from_bytes(&[1; 32]);
    for (lie, words) in [
        (Reply::Garbage, "none of the ssh agent protocol"),
        (Reply::HugeLength, "announces an answer"),
        (Reply::Silence, "said nothing for 1 seconds"),
        (Reply::Refusal, "it refused"),
    ] {
        let out = Out::new();
        let agent = LyingAgent::about_keys(&out.dir.path().join("lying"), &key, lie);

        let mut sign = out.sign(&public(&key), Some(agent.socket()));
        out.must_fail(sign.arg("--agent-wait-s=1"), UNAVAILABLE, words);
    }
}

#[test]
fn a_token_that_is_taken_out_half_way_leaves_no_half_of_a_series() {
    let out = Out::new();
    let key = SigningKey::from_bytes(&[1; 32]);
    let replies = vec![Reply::Truth, Reply::Truth, Reply::Truth, Reply::Refusal];
    let agent = LyingAgent::start(&out.dir.path().join("token"), &key, replies);

    let mut sign = out.sign_times(2, &public(&key), Some(agent.socket()));
    let said = out.must_fail(&mut sign, UNAVAILABLE, "signature 4 of 4");

    assert!(said.contains("refused to sign 1248 bytes"), "{said}");
    assert!(!out.certs().join("provider.pub").exists());
}

#[test]
fn an_agents_keys_are_shown_with_their_comments() {
    let agent = OpenSsh::start(Touch::Never);
    let show = |more: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.args(["provider-key", "agent"]).args(more);
        command.env("SSH_AUTH_SOCK", agent.socket());
        command.output().unwrap()
    };

    assert_eq!(show(&[]).status.code(), Some(1));
    agent.add_rsa_key();
    assert!(said(&show(&[])).contains("ssh-add"), "{}", said(&show(&[])));
    let key = public(&agent.new_key("provider"));
    let shown = String::from_utf8(show(&[]).stdout).unwrap();
    assert_eq!(shown, format!("{key} provider\n"));
    let object: Value = serde_json::from_slice(&show(&["--json"]).stdout).unwrap();
    assert_eq!(object["keys"][0]["public_key"], key);
    assert_eq!(object["keys"].as_array().unwrap().len(), 1);
}

#[test]
fn an_agents_signatures_are_those_that_the_same_key_in_a_file_gives() {
    let out = Out::new();
    let agent = OpenSsh::start(Touch::Never);
    let key = agent.new_key("provider");

    let mut sign = out.sign_times(2, &public(&key), Some(&agent.socket()));
    let output = sign.arg("--json").output().unwrap();

    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(object["provider_key"], public(&key));
    let listed = fs::read_to_string(out.certs().join("provider.pub")).unwrap();
    assert_eq!(listed.trim(), public(&key));
    is_as_signed_by(&out.files(), &key, 2);
}

#[test]
fn whoever_has_to_touch_the_token_is_told_and_waited_for() {
    let out = Out::new();
    let agent = OpenSsh::start(Touch::Awaited);
    let key = agent.new_key("provider");

    let mut sign = out.sign(&public(&key), Some(&agent.socket()));
    let mut child = sign
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    for nth in [1, 2] {
        let line = lines.next().expect("it waits, and says so").unwrap();
        assert!(line.contains(&format!("signature {nth} of 2")), "{line}");
        assert!(line.contains("touch the token"), "{line}");
        agent.touch();
    }

    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(lines.next().is_none());
    is_as_signed_by(&out.files(), &key, 1);
}

#[test]
fn gnupgs_agent_signs_both_kinds_of_certificate() {
    let out = Out::new();
    let agent = GnuPg::start();
    let mut show = Command::new(PROGRAM);
    show.args(["provider-key", "agent", "--agent-socket"]);
    let shown = show.arg(agent.socket()).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let key = shown.split_whitespace().next().unwrap();

    let output = out.sign(key, Some(&agent.socket())).output().unwrap();

    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let key: [u8; 32] = hex::decode(key).unwrap().try_into().unwrap();
    assert_eq!(out.files().len(), 2);
    for file in out.files() {
        let bytes = fs::read(file).unwrap();
        let cert = SignedCert::parse(&bytes[..bytes.len() - SECRET]).unwrap();
        cert.verify(&key, clock::system()()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_take_certificates_of_a_token_also_where_it_took_over_from_a_file() {
    let out = Out::new();
    let old_file = out.dir.path().join("old.key");
    let old = create_provider_key(&old_file).unwrap();
    let agent = OpenSsh::start(Touch::Never);
    let new = agent.new_key("provider");
    let by_file = Command::new(PROGRAM)
        .args(["cert", "sign", "--count=1", "--provider-key"])
        .arg(&old_file)
        .arg("--out")
        .arg(out.certs())
        .output()
        .unwrap();
    assert_eq!(by_file.status.code(), Some(0), "{}", said(&by_file));
    let mut sign = out.sign(&public(&new), Some(&agent.socket()));
    assert_eq!(sign.output().unwrap().status.code(), Some(0));

    let certs = Certs::directory(out.certs(), clock::system()).unwrap();
    let (addr, _server) = empty::serve(certs, PROVIDER).await;

    for key in [&old, &new] {
        for kind in ["required", "off"] {
            let output = query(addr, key, kind);
            assert_eq!(output.status.code(), Some(0), "{kind}: {}", said(&output));
        }
    }
    let stranger = SigningKey::from_bytes(&[9; 32]);
    let output = query(addr, &stranger, "preferred");
    assert_eq!(output.status.code(), UNAVAILABLE, "{}", said(&output));
}

/// Each certificate is what the key itself would have made of the same short-term key.
fn is_as_signed_by(files: &[PathBuf], key: &SigningKey, times: usize) {
    let mut systems = Vec::new();
    for file in files {
        let bytes = fs::read(file).unwrap();
        let wire = &bytes[..bytes.len() - SECRET];
        let signature = key.sign(&wire[SIGNED_AT..]).to_bytes();
        assert_eq!(wire[8..SIGNED_AT], signature, "{}", file.display());
        systems.push(SignedCert::parse(wire).unwrap().claims().system);
    }
    let both = [System::XWing, System::XChaCha20Poly1305];
    assert_eq!(systems, both.repeat(times));
}

/// Beside the server, which has another thread of the run time.
fn query(addr: std::net::SocketAddr, key: &SigningKey, post_quantum: &str) -> Output {
    let stamp = DnsCryptStamp {
        props: Props::default(),
        addr,
        provider_key: key.verifying_key().to_bytes(),
        provider_name: PROVIDER.to_owned(),
    };
    tokio::task::block_in_place(|| {
        Command::new(PROGRAM)
            .args(["query", "a.example", "--stamp", &stamp.to_string()])
            .args(["--post-quantum", post_quantum])
            .output()
            .unwrap()
    })
}
