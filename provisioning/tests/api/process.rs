//! The binary itself: exit codes, signals, kill -9, a full disk, and the command line beside a running server.

use std::ffi::OsStr;
use std::fmt::Debug;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use provisioning::clock::unix_now;
use provisioning::datadir::DataDir;
use serde_json::Value;
use tempfile::TempDir;
use trust::{ClaimCode, LeaseBundle};

use crate::rig::{self, Client, Device, Gateway};

const PROGRAM: &str = env!("CARGO_BIN_EXE_provisioning");

/// A data directory that the command line made, and its configuration.
struct Site {
    scratch: TempDir,
}

impl Site {
    fn new() -> Self {
        let site = Self {
            scratch: rig::scratch(),
        };
        site.ok(&site.init("office"));
        site.configure("127.0.0.1:0");
        site
    }

    fn data(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    fn config(&self) -> PathBuf {
        self.scratch.path().join("provisioning.toml")
    }

    fn configure(&self, listen: &str) {
        let text = format!(
            "listen = [\"{listen}\"]\ndata-dir = {:?}\n[[pool]]\npop = \"pop1\"\nshard = 1\n\
             v4 = \"10.64.0.0/16\"\nv6 = \"fd64::/48\"\n",
            self.data()
        );
        fs::write(self.config(), text).unwrap();
    }

    fn command(&self, args: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("--data-dir").arg(self.data()).args(args);
        command
    }

    fn run(&self, args: &[impl AsRef<OsStr>]) -> Output {
        self.command(args).output().unwrap()
    }

    fn ok(&self, args: &[impl AsRef<OsStr> + Debug]) -> String {
        let output = self.run(args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[args, &["--json"]].concat())).unwrap()
    }

    /// The command that makes it.
    fn init(&self, name: &'static str) -> [String; 7] {
        let genesis = self.scratch.path().join("genesis.activation");
        fs::write(&genesis, rig::genesis().to_bytes()).unwrap();
        let genesis = genesis.to_str().unwrap();
        let url = "https://127.0.0.1:8443";
        [
            "init",
            "--name",
            name,
            "--listen-url",
            url,
            "--genesis",
            genesis,
        ]
        .map(str::to_owned)
    }

    async fn add_gateway(&self, name: &'static str) {
        let (dir, gateway) = (self.dir(), Gateway::new(name, "pop1", 1));
        rig::add_gateway(&dir, &dir.store().await.unwrap(), &gateway).await;
    }

    fn claim(&self) -> ClaimCode {
        self.json(&["claim", "new"])["code"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap()
    }

    fn serve(&self) -> Serving {
        let config = self.config();
        Serving::wait(self.command(&["serve", "--config", config.to_str().unwrap()]))
    }

    fn dir(&self) -> DataDir {
        DataDir::new(self.data())
    }
}

/// A running server, killed when dropped.
struct Serving {
    child: Child,
    addr: SocketAddr,
    stderr: BufReader<std::process::ChildStderr>,
}

impl Serving {
    fn wait(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut log = String::new();
        let addr = loop {
            let mut line = String::new();
            assert!(
                stderr.read_line(&mut line).unwrap() > 0,
                "it did not start: {log}"
            );
            if let Some((_, addr)) = line.trim_end().rsplit_once("listening address=") {
                break addr.parse().unwrap();
            }
            log.push_str(&line);
        };
        Self {
            child,
            addr,
            stderr,
        }
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([name, &id])
                .status()
                .unwrap()
                .success()
        );
    }

    fn end(mut self) -> (Option<i32>, String) {
        let mut log = String::new();
        self.stderr.read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap().code(), log)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn failure(output: &Output) -> (i32, String) {
    assert!(
        output.stdout.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    let sentence = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(sentence.trim_end().lines().count(), 1, "{sentence}");
    (output.status.code().unwrap(), sentence)
}

fn assert_fails(output: &Output, code: i32, words: &str) {
    let (got, sentence) = failure(output);
    assert_eq!(got, code, "{sentence}");
    assert!(
        sentence.starts_with("error: ") && sentence.contains(words),
        "{sentence}"
    );
}

#[test]
fn a_data_directory_that_is_none_is_named_with_what_to_do() {
    let site = Site {
        scratch: rig::scratch(),
    };
    site.configure("127.0.0.1:0");

    assert_fails(&site.run(&["status"]), 78, "init");
    assert_fails(&site.run(&["claim", "new"]), 78, "init");
    assert_fails(
        &site.run(&["serve", "--config", site.config().to_str().unwrap()]),
        78,
        "init",
    );
}

#[test]
fn init_does_not_touch_a_directory_that_holds_something() {
    let site = Site::new();
    let before = fs::read(site.data().join("log-fleet.key")).unwrap();

    let again = site.run(&site.init("other"));

    assert_fails(&again, 1, "is not empty");
    assert_eq!(fs::read(site.data().join("log-fleet.key")).unwrap(), before);
}

#[test]
fn a_damaged_key_and_an_exposed_key_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let site = Site::new();
    let key = site.data().join("cosigner.key");
    let config = site.config();
    let serve = ["serve", "--config", config.to_str().unwrap()];
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert_fails(&site.run(&serve), 77, "chmod 600");

    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&key, "short").unwrap();
    assert_fails(&site.run(&serve), 78, "cosigner.key");
}

#[test]
fn a_file_that_is_no_database_is_named() {
    let site = Site::new();
    fs::write(site.data().join("culvert.db"), [0x5a; 8192]).unwrap();

    let (code, sentence) = failure(&site.run(&["status"]));

    assert_eq!(code, 74, "{sentence}");
    assert!(sentence.contains("culvert.db"), "{sentence}");
}

#[test]
fn a_busy_port_is_named() {
    let site = Site::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    site.configure(&addr);

    let output = site.run(&["serve", "--config", site.config().to_str().unwrap()]);

    assert_fails(&output, 74, &addr);
}

#[test]
fn a_wrong_configuration_is_told_whole_and_a_missing_one_too() {
    let site = Site::new();
    fs::write(site.config(), "listen = [1]\ncolour = 2\n").unwrap();
    let config = site.config();

    let checked = site.run(&["check-config", config.to_str().unwrap()]);
    let served = site.run(&["serve", "--config", config.to_str().unwrap()]);
    let missing = site.run(&["check-config", "/nonexistent/provisioning.toml"]);

    for output in [checked, served] {
        assert_eq!(output.status.code(), Some(78));
        let text = String::from_utf8(output.stderr).unwrap();
        let keys: Vec<_> = text
            .lines()
            .filter_map(|line| line.split(':').next())
            .collect();
        assert_eq!(keys, ["colour", "listen[0]", "pool"]);
    }
    assert_fails(&missing, 74, "/nonexistent/provisioning.toml");
}

#[test]
fn a_pool_that_gave_out_addresses_must_stay_what_it_was() {
    let site = Site::new();
    drop(site.serve());
    let text = fs::read_to_string(site.config()).unwrap();
    fs::write(site.config(), text.replace("10.64.", "10.99.")).unwrap();

    let output = site.run(&["serve", "--config", site.config().to_str().unwrap()]);

    assert_fails(&output, 78, "shard 1 gave out addresses of 10.64.0.0/16");
}

#[test]
fn the_command_line_refuses_what_it_cannot_mean() {
    let site = Site::new();
    for args in [
        &["claim", "new", "--slot", "anna@example.org"][..],
        &["claim", "new", "--days", "0"],
        &["device", "revoke", "abcdef"],
        &["gateway", "add"],
        &["init", "--name", "x", "--listen-url", "https://127.0.0.1:1"],
        &["frobnicate"],
        &[],
    ] {
        assert_eq!(site.run(args).status.code(), Some(64), "{args:?}");
    }
    assert_fails(
        &site.run(&["device", "show", "abcdef"]),
        1,
        "no device abcdef",
    );
}

#[test]
fn init_warns_of_witnesses_who_cannot_keep_a_thief_from_two_histories() {
    for (threshold, shared) in [("any", 0), ("2", 1), ("all", 3)] {
        let site = Site {
            scratch: rig::scratch(),
        };
        let mut lines = String::new();
        for (name, n) in [("w1", 1), ("w2", 2), ("w3", 3)] {
            let witness = trust::Cosigner::from_seed(name, &[n; 32]).unwrap();
            lines += &format!("witness {name} {} http://127.0.0.1:1/\n", witness.vkey());
        }
        lines += &format!("group outside {threshold} w1 w2 w3\n");
        lines += "group enough all office outside\nquorum enough\n";
        let file = site.scratch.path().join("witnesses");
        fs::write(&file, lines).unwrap();
        let mut init = site.init("office").to_vec();
        init.extend(["--witnesses", file.to_str().unwrap(), "--json"].map(str::to_owned));

        let output = site.run(&init);

        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(said["shared_witnesses"], shared, "{threshold}");
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(told.contains("warning: two quorums"), shared == 0, "{told}");
    }
}

#[test]
fn openapi_prints_the_documents_of_server_and_witness() {
    let site = Site {
        scratch: rig::scratch(),
    };

    for words in [&["openapi"][..], &["witness", "openapi"]] {
        let document: Value = serde_json::from_str(&site.ok(words)).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
    }
}

#[tokio::test]
async fn operators_work_beside_a_running_server_and_no_code_or_address_is_in_its_log() {
    let site = Site::new();
    let serving = site.serve();
    site.add_gateway("gw1").await;
    let claim = site.claim();
    let (mut device, thief) = (Device::new(), Device::new());
    let mut client = Client::connect(serving.addr, &site.dir()).await.unwrap();

    let answer = client.enrol(&device, Some(&claim)).await;
    let anchors = site.dir().anchors().unwrap();
    device.accept(&anchors, &answer.body).unwrap();
    assert_eq!(client.enrol(&thief, Some(&claim)).await.status, 403);

    let id = hex::encode(device.id());
    assert_eq!(site.json(&["device", "list"])[0]["device"], id);
    assert_eq!(site.json(&["claim", "list"])[0]["device"], id);
    assert_eq!(
        site.json(&["alerts", "list"])[0]["device"],
        hex::encode(thief.id())
    );
    assert_eq!(site.json(&["gateway", "list"])[0]["inner"][1], "fd64::1");
    let shown = site.json(&["device", "show", &id[..8]]);
    assert_eq!(shown["lease"]["addresses"][0], "10.64.0.16/32");
    site.ok(&["device", "revoke", &id[..8], "--reason", "lost"]);
    assert_fails(
        &site.run(&["device", "revoke", &id, "--reason", "lost"]),
        1,
        "revoked before",
    );
    assert_eq!(client.enrol(&device, None).await.code(), "device-revoked");
    let replayed = site.json(&["log", "verify"]);
    assert_eq!(
        (&replayed["leases"], &replayed["revocations"]),
        (&1.into(), &1.into())
    );
    assert_eq!(site.json(&["status"])["alerts"], 1);

    drop(client);
    serving.signal("-TERM");
    let (code, log) = serving.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("a second device proved a claim code"), "{log}");
    let secrets = [
        claim.to_string(),
        "127.0.0.1".to_owned(),
        id,
        hex::encode(thief.id()),
    ];
    for secret in secrets {
        assert!(!log.contains(&secret), "{secret} in {log}");
    }
}

#[tokio::test]
async fn what_was_acknowledged_before_a_kill_is_there_after_it() {
    let site = Site::new();
    site.add_gateway("gw1").await;
    let mut held: Vec<(Device, ClaimCode, Vec<u8>)> = Vec::new();
    for _ in 0..5 {
        let serving = site.serve();
        let mut client = Client::connect(serving.addr, &site.dir()).await.unwrap();
        for (device, claim, lease) in &held {
            let again = client.enrol(device, Some(claim)).await;
            assert_eq!(&LeaseBundle::from_bytes(&again.body).unwrap().lease, lease);
        }
        let (device, claim) = (Device::new(), site.claim());
        let answer = client.enrol(&device, Some(&claim)).await;
        let lease = LeaseBundle::from_bytes(&answer.body).unwrap().lease;
        held.push((device, claim, lease));
        let (late, late_claim) = (Device::new(), site.claim());
        let challenge = client.challenge().await.unwrap();
        let request = late
            .answer(Some(&late_claim), &challenge, &client.exporter)
            .to_bytes();
        let asking = client.post("/v1/enrol", &request);
        // One more is under way when the process dies; whether it was written is open.
        let (_, ()) = tokio::join!(asking, async { serving.signal("-KILL") });
    }

    let replayed = site.json(&["log", "verify"]);
    assert!(replayed["leases"].as_u64().unwrap() >= 5, "{replayed}");
}

#[tokio::test]
async fn a_full_disk_refuses_newcomers_clearly_and_the_server_lives_on() {
    let uid = Command::new("id").arg("-u").output().unwrap().stdout;
    if uid != b"0\n" {
        eprintln!("SKIPPED: a small file system can be mounted by root only");
        return;
    }
    let site = Site::new();
    site.add_gateway("gw1").await;
    let claims: Vec<ClaimCode> = (0..60).map(|_| site.claim()).collect();
    let copy = site.scratch.path().join("copy");
    fs::rename(site.data(), &copy).unwrap();
    fs::create_dir(site.data()).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=512k,mode=700 tmpfs {data} && cp -a {copy}/. {data}/ && \
         exec {PROGRAM} serve --config {config}",
        data = site.data().display(),
        copy = copy.display(),
        config = site.config().display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]);
    let serving = Serving::wait(command);
    let dir = DataDir::new(&copy);

    let mut last = (0, String::new());
    for claim in &claims {
        let mut client = Client::connect(serving.addr, &dir).await.unwrap();
        let answer = client.enrol(&Device::new(), Some(claim)).await;
        if answer.status != 200 {
            last = answer.problem();
            break;
        }
    }

    let mut client = Client::connect(serving.addr, &dir).await.unwrap();
    assert_eq!(client.get("/v1/log/fleet/checkpoint").await.status, 200);
    drop(client);
    serving.signal("-TERM");
    let (code, log) = serving.end();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(last, (503, "storage-full".to_owned()), "{log}");
    assert!(log.contains("the disk is full"), "{log}");
}

#[test]
fn the_clock_of_the_log_must_not_be_ahead_of_the_machine() {
    // A server that signed in the future must not start on a clock that went back.
    let site = Site {
        scratch: rig::scratch(),
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let url = "https://127.0.0.1:8443".parse().unwrap();
    let tomorrow = unix_now() + rig::DAY_S;
    runtime
        .block_on(
            site.dir()
                .create(("office", &url), (&rig::genesis(), None), tomorrow),
        )
        .unwrap();
    site.configure("127.0.0.1:0");

    let output = site.run(&["serve", "--config", site.config().to_str().unwrap()]);

    assert_fails(&output, 1, "set the clock");
}

#[test]
fn the_sample_configuration_is_in_order() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/config/provisioning.toml");
    let site = Site {
        scratch: rig::scratch(),
    };

    assert!(
        site.ok(&["check-config", sample.to_str().unwrap()])
            .contains("in order")
    );
}
