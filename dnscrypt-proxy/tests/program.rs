//! `culvert-dns` as it is started: by hand, by systemd, and asked how it is doing.

#![expect(clippy::unwrap_used, reason = "a test rig that fails should say where")]

#[path = "servers/empty.rs"]
mod empty;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use dnscrypt_proxy::certs::{Certs, Rotation};
use dnscrypt_proxy::clock;
use dnscrypt_proxy::proto::message;
use dnscrypt_proxy::proto::stamp::{DnsCryptStamp, Props};
use ed25519_dalek::SigningKey;
use hickory_proto::rr::RecordType;
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_culvert-dns");
const PROVIDER: &str = "2.dnscrypt-cert.program.example";
const PATIENCE: Duration = Duration::from_secs(20);
/// Hands stdin and stdout over as the third and fourth descriptor, as `sd_listen_fds(3)` has them.
const AS_SYSTEMD: &str =
    "exec 3<&0 4<&1 0</dev/null 1>/dev/null; LISTEN_PID=$$ LISTEN_FDS=2 exec \"$@\"";

fn run(args: &[&str]) -> Output {
    Command::new(PROGRAM).args(args).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stamp(addr: SocketAddr) -> DnsCryptStamp {
    DnsCryptStamp {
        props: Props::default(),
        addr,
        provider_key: SigningKey::from_bytes(&[7; 32]).verifying_key().to_bytes(),
        provider_name: PROVIDER.to_owned(),
    }
}

/// Of a port where nobody answers.
fn nobody() -> String {
    stamp("127.0.0.1:9".parse().unwrap()).to_string()
}

/// A stub that runs, ended with the test.
struct Running {
    child: Child,
    notices: UnixDatagram,
    status: PathBuf,
    _dir: tempfile::TempDir,
}

impl Running {
    /// Starts it, told where systemd listens, and waits until it is ready.
    fn start(prepare: impl FnOnce(&Path) -> Command) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (status, notify) = (dir.path().join("status"), dir.path().join("notify"));
        let notices = UnixDatagram::bind(&notify).unwrap();
        notices.set_read_timeout(Some(PATIENCE)).unwrap();
        let child = prepare(&status)
            .env("NOTIFY_SOCKET", &notify)
            .spawn()
            .unwrap();
        Self {
            child,
            notices,
            status,
            _dir: dir,
        }
    }

    fn notice(&self) -> String {
        let mut buffer = [0; 64];
        let len = self.notices.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    }

    fn status(&self) -> Value {
        let path = self.status.to_str().unwrap();
        let output = run(&["status", "--json", "--socket", path]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn terminate(&mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(&pid).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn question() -> Vec<u8> {
    message::query(77, "a.example", RecordType::A, 1232).unwrap()
}

fn over_udp(to: SocketAddr) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(&question(), to).unwrap();
    let mut answer = vec![0; 2_000];
    let len = socket.recv(&mut answer).unwrap();
    answer.truncate(len);
    answer
}

fn over_tcp(to: SocketAddr) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let query = question();
    let len = u16::try_from(query.len()).unwrap().to_be_bytes();
    stream.write_all(&[&len[..], &query].concat()).unwrap();
    let mut len = [0; 2];
    stream.read_exact(&mut len).unwrap();
    let mut answer = vec![0; u16::from_be_bytes(len).into()];
    stream.read_exact(&mut answer).unwrap();
    answer
}

fn is_refusal_of_ours(answer: &[u8]) -> bool {
    message::check_response(answer, &question()).is_ok() && message::rcode_low(answer) == 2
}

#[test]
fn a_status_of_nobody_ends_with_69_and_says_how_to_have_one() {
    let output = run(&["status", "--socket", "/nonexistent/status"]);

    assert_eq!(output.status.code(), Some(69));
    assert!(
        said(&output).contains("--status-socket"),
        "{}",
        said(&output)
    );
}

#[test]
fn without_addresses_and_without_systemd_it_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("culvert-dns.toml");
    std::fs::write(&file, format!("listen = []\nstamps = [\"{}\"]\n", nobody())).unwrap();

    let output = run(&["run", "--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(78));
    assert!(
        said(&output).contains("listen: is empty"),
        "{}",
        said(&output)
    );
    assert_eq!(run(&["run", "--stamp", &nobody()]).status.code(), Some(64));
}

#[test]
fn sockets_of_another_process_are_not_taken() {
    let output = Command::new(PROGRAM)
        .args(["run", "--stamp", &nobody()])
        .envs([("LISTEN_PID", "1"), ("LISTEN_FDS", "2")])
        .output()
        .unwrap();

    assert_eq!(output.status.code(), Some(64), "{}", said(&output));
}

#[test]
fn mistakes_of_a_configuration_are_told_as_one_object_too() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("culvert-dns.toml");
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let output = run(&["check-config", "--json", file.to_str().unwrap()]);
        let object: Value = serde_json::from_slice(&output.stdout).unwrap();
        let told = object["mistakes"].as_array().unwrap().clone();
        assert_eq!(object["ok"], told.is_empty());
        assert!(
            told.iter()
                .all(|mistake| said(&output).contains(mistake.as_str().unwrap()))
        );
        (output.status.code(), told)
    };

    let (code, told) = check("listen = [5]\ncolour = 1\n");
    assert_eq!((code, told.len()), (Some(78), 3), "{told:?}");
    assert!(
        told[0]
            .as_str()
            .unwrap()
            .starts_with("listen[0]: not a text; accepted: ")
    );
    let (code, told) = check("listen = [");
    assert_eq!((code, told.len()), (Some(78), 1), "{told:?}");

    let right = format!("listen = []\nstamps = [{:?}]\n", nobody());
    assert_eq!(check(&right), (Some(0), Vec::new()));
    std::fs::remove_file(&file).unwrap();
    let output = run(&["check-config", "--json", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(74));
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(
        object["mistakes"][0]
            .as_str()
            .unwrap()
            .starts_with("cannot read "),
        "{object}"
    );
}

#[test]
fn a_zone_that_is_forwarded_to_a_socket_of_systemd_does_not_go_round() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("culvert-dns.toml");
    let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = format!("127.0.0.1:{}", udp.local_addr().unwrap().port());
    let stamp = nobody();
    let text = format!("listen = []\nstamps = [{stamp:?}]\n[policy]\nforward = [\"lan {own}\"]\n");
    std::fs::write(&file, text).unwrap();

    let output = Command::new("bash")
        .args(["-c", AS_SYSTEMD, "-", PROGRAM, "run", "--config"])
        .arg(file)
        .stdin(Stdio::from(OwnedFd::from(udp)))
        .stdout(Stdio::from(OwnedFd::from(tcp)))
        .output()
        .unwrap();

    assert_eq!(output.status.code(), Some(78), "{}", said(&output));
    let told = format!("policy.forward: {own} is where this program listens");
    assert!(said(&output).contains(&told), "{}", said(&output));
}

#[test]
fn sockets_of_systemd_are_served_and_it_hears_of_start_and_end() {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let (udp_at, tcp_at) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
    let mut running = Running::start(|status| {
        let mut command = Command::new("bash");
        command
            .args(["-c", AS_SYSTEMD, "-", PROGRAM, "run", "--stamp", &nobody()])
            .arg("--status-socket")
            .arg(status)
            .stdin(Stdio::from(OwnedFd::from(udp)))
            .stdout(Stdio::from(OwnedFd::from(tcp)));
        command
    });

    assert_eq!(running.notice(), "READY=1");
    assert!(is_refusal_of_ours(&over_udp(udp_at)));
    assert!(is_refusal_of_ours(&over_tcp(tcp_at)));
    let status = running.status();
    assert_eq!(
        (&status["queries"], &status["tcp_queries"]),
        (&2.into(), &1.into())
    );
    assert_eq!(
        status["failed"], 1,
        "the second one failed with the first: {status}"
    );
    assert!(!status.to_string().contains("a.example"), "{status}");

    assert_eq!(running.terminate(), Some(0));
    assert_eq!(running.notice(), "STOPPING=1");
    assert!(!running.status.exists());
}

#[test]
fn systemds_own_tool_starts_it_with_the_first_lookup() {
    let free = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut running = Running::start(|status| {
        let mut command = Command::new("systemd-socket-activate");
        command.args([
            "--datagram",
            "--setenv=NOTIFY_SOCKET",
            "--listen",
            &free.to_string(),
        ]);
        command.args([PROGRAM, "run", "--stamp", &nobody(), "--status-socket"]);
        command.arg(status);
        command
    });
    let deadline = Instant::now() + PATIENCE;
    while !is_bound(free) {
        let ended = running.child.try_wait().unwrap();
        assert!(ended.is_none(), "it ended before it listened: {ended:?}");
        assert!(Instant::now() < deadline, "it does not listen");
        std::thread::yield_now();
    }

    assert!(is_refusal_of_ours(&over_udp(free)));
    assert_eq!(running.notice(), "READY=1");
    assert_eq!(running.status()["queries"], 1);
}

/// Looked up in the kernel's table: a probe by bind would take the port from the one that is about to bind it.
fn is_bound(address: SocketAddr) -> bool {
    let sockets = std::fs::read_to_string("/proc/net/udp").unwrap();
    sockets.contains(&format!("0100007F:{:04X} ", address.port()))
}

#[test]
fn the_status_socket_of_one_that_runs_is_not_taken_and_that_of_a_dead_one_is() {
    let start = |status: &Path| {
        let mut command = Command::new(PROGRAM);
        command.args([
            "run",
            "--listen",
            "127.0.0.1:0",
            "--stamp",
            &nobody(),
            "--status-socket",
        ]);
        command.arg(status);
        command
    };
    let mut first = Running::start(start);
    assert_eq!(first.notice(), "READY=1");

    let second = start(&first.status).output().unwrap();
    assert_eq!(second.status.code(), Some(74));
    assert!(
        said(&second).contains("another program"),
        "{}",
        said(&second)
    );
    assert_eq!(first.status()["queries"], 0);

    first.child.kill().unwrap();
    first.child.wait().unwrap();
    let mut third = start(&first.status);
    let mut third = third
        .env("NOTIFY_SOCKET", first.status.with_file_name("notify"))
        .spawn()
        .unwrap();
    assert_eq!(first.notice(), "READY=1");
    assert_eq!(first.status()["queries"], 0);
    third.kill().unwrap();
    third.wait().unwrap();
}

#[test]
fn a_file_in_the_place_of_the_status_socket_survives_and_is_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("notes");
    std::fs::write(&file, "precious").unwrap();

    // One that starts all the same does not end.
    let output = Command::new("timeout")
        .args(["10", PROGRAM, "run", "--listen", "127.0.0.1:0"])
        .args(["--stamp", &nobody(), "--status-socket"])
        .arg(&file)
        .output()
        .unwrap();

    assert_eq!(output.status.code(), Some(74), "{}", said(&output));
    assert!(said(&output).contains("no socket"), "{}", said(&output));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
}

/// A DNSCrypt server that answers everything with nothing, and its stamp.
async fn server() -> (tokio::task::JoinHandle<()>, String) {
    let certs = Certs::signing(
        SigningKey::from_bytes(&[7; 32]),
        Rotation::default(),
        clock::system(),
    );
    let (addr, task) = empty::serve(certs.unwrap(), PROVIDER).await;
    (task, stamp(addr).to_string())
}

/// Beside the server, which has another thread of the run time.
fn bench(args: Vec<String>) -> Output {
    tokio::task::block_in_place(|| {
        let mut command = Command::new(PROGRAM);
        command
            .arg("bench")
            .args(args)
            .arg("--json")
            .output()
            .unwrap()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bench_that_nobody_answers_ends_with_69_and_a_fast_one_of_a_strangers_server_does_not_begin()
 {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().to_string();

    let of_nobody = bench(vec![silent, "--duration-s=1".to_owned()]);
    assert_eq!(of_nobody.status.code(), Some(69), "{}", said(&of_nobody));
    let of_stranger = bench(vec!["192.0.2.1:53".to_owned(), "--rate=2000".to_owned()]);
    assert_eq!(of_stranger.status.code(), Some(64));
    assert!(
        said(&of_stranger).contains("--own-server"),
        "{}",
        said(&of_stranger)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bench_counts_every_lookup_over_udp_and_tcp_under_both_kinds_of_certificate() {
    let (_server, stamp) = server().await;

    for (transport, kind, sealing) in [
        ("udp", "off", "classical"),
        ("udp", "required", "post-quantum"),
        ("tcp", "off", "classical"),
        ("tcp", "required", "post-quantum"),
    ] {
        let mut args = vec![
            stamp.clone(),
            "--rate=200".to_owned(),
            "--duration-s=1".to_owned(),
        ];
        args.extend([
            "--post-quantum".to_owned(),
            kind.to_owned(),
            "--random-under=example".to_owned(),
        ]);
        if transport == "tcp" {
            args.extend(["--tcp".to_owned(), "--in-flight=8".to_owned()]);
        }

        let output = bench(args);

        let told = || format!("{transport} {kind}: {}", said(&output));
        assert_eq!(output.status.code(), Some(0), "{}", told());
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["sealing"], sealing);
        let count = |key: &str| report[key].as_u64().unwrap();
        assert_eq!(count("sent"), count("answered") + count("lost"), "{report}");
        assert!(count("answered") > 100, "{report}");
        assert_eq!(report["rcodes"]["NOERROR"], report["answered"]);
        assert!(report["ms"]["p50"].as_f64() <= report["ms"]["p99"].as_f64());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bench_counts_the_longest_answers_of_a_plain_server() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut len = [0; 2];
            stream.read_exact(&mut len).unwrap();
            let mut query = vec![0; u16::from_be_bytes(len).into()];
            stream.read_exact(&mut query).unwrap();
            let query = message::Query::read(&query).unwrap();
            let answer = query.answer_txt(&[&[7; 60_000]], 1);
            let len = u16::try_from(answer.len()).unwrap().to_be_bytes();
            stream.write_all(&[&len[..], &answer].concat()).unwrap();
        }
    });

    let mut args = vec![server, "--tcp".to_owned(), "--in-flight=1".to_owned()];
    args.extend(["--rate=20".to_owned(), "--duration-s=1".to_owned()]);
    let output = bench(args);

    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["answered"].as_u64() > Some(0), "{report}");
    assert_eq!(report["lost"], 0, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bench_at_the_limit_asks_as_fast_as_answers_come() {
    let (_server, stamp) = server().await;

    let args = [stamp, "--saturate".to_owned(), "--duration-s=1".to_owned()];
    let output = bench(args.to_vec());

    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["answered"].as_u64() > Some(1_000), "{report}");
    assert_eq!(report["withheld"], 0);
}
