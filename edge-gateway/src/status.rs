//! The Unix socket of a running gateway and what is said over it: one request line, one line of JSON
//! back. `status` shows the same words that stand in the log, also when the gateway could not start.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use telemetry::watch::bytes;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::accounting::Bytes;
use crate::exit::{Exit, Fault};

mod device;
mod dns;
mod doors;

pub(crate) use device::DeviceStatus;
pub(crate) use dns::{DnsStatus, RelayedStatus};
pub(crate) use doors::DoorsStatus;

const MAX_REQUEST_BYTES: u64 = 64;
/// A fleet's leases at about 150 bytes each.
const MAX_ANSWER_BYTES: u64 = 64 * 1024 * 1024;
const MAX_CONNECTIONS: usize = 8;
/// A local program has no reason to be slow.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than any drain may take.
const DRAIN_WAIT: Duration = Duration::from_secs(630);
/// How often a drain tells how far it is.
const PROGRESS_PERIOD: Duration = Duration::from_millis(500);

/// How a gateway is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// `running` or `draining`.
    pub state: State,
    /// Unix time of the last change of state.
    pub since: u64,
    /// What an operator should look at, one sentence each.
    pub warnings: Vec<String>,
    /// The program's version.
    pub version: String,
    /// The gateway's id.
    pub id: String,
    /// Devices with a lease and those with a session.
    pub peers: PeersStatus,
    /// Each shard's stream.
    pub shards: Vec<ShardStatus>,
    /// Traffic since the start.
    pub tunnel: TunnelStatus,
    /// Lookups since the start; none where no resolver is configured.
    pub dns: Option<DnsStatus>,
    /// Lookups over TLS, HTTPS and QUIC; none where no doors are configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doors: Option<DoorsStatus>,
    /// Routers whose datagrams come inside HTTP; none where no relay is configured.
    #[serde(default)]
    pub relay: Option<RelayStatus>,
    /// Bytes per device, earlier runs included; only when asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leases: Option<BTreeMap<String, Bytes>>,
}

/// Sessions of the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RelayStatus {
    /// At this moment.
    pub open: u64,
    /// Over HTTP/3 since the start.
    pub quic: u64,
    /// Over TLS since the start.
    pub tls: u64,
    /// Refused since the start.
    pub refused: u64,
}

/// What a gateway does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// It carries packets and admits routers.
    Running,
    /// It carries packets for a little longer and admits nobody.
    Draining,
}

/// Counts of peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PeersStatus {
    /// With a lease.
    pub leased: usize,
    /// With a session or a handshake.
    pub awake: usize,
    /// Whose packets come and go by this gateway.
    #[serde(default)]
    pub active: usize,
    /// With a lease and a post-quantum pre-shared key.
    #[serde(default)]
    pub post_quantum: usize,
}

/// How far a drain is; a line of JSON each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Always `draining`.
    pub state: State,
    /// Routers that are still carried here.
    pub active: usize,
    /// Those of them that have another gateway, and are told to go there.
    pub movable: usize,
    /// How long it may last yet.
    pub left_s: u64,
}

/// One shard's stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShardStatus {
    /// Its number.
    pub shard: u32,
    /// Place in the stream.
    pub next: u64,
    /// Seconds since provisioning last answered; none if it never did.
    pub last_contact_s: Option<u64>,
    /// Why it does not answer.
    pub error: Option<String>,
}

/// Traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TunnelStatus {
    /// Bytes of inner packets from the routers.
    pub rx_bytes: u64,
    /// Bytes of inner packets to the routers.
    pub tx_bytes: u64,
    /// Bits per second from the routers; only while it is watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rx_bits_per_s: Option<u64>,
    /// Bits per second to the routers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tx_bits_per_s: Option<u64>,
    /// Sessions that came to be.
    pub handshakes: u64,
    /// What the TUN device counts, held against the leases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceStatus>,
    /// Drops, by reason; reasons that never happened are left out.
    pub dropped: BTreeMap<String, u64>,
    /// Each worker's part of it.
    #[serde(default)]
    pub workers: Vec<WorkerStatus>,
}

/// One worker's part of the traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WorkerStatus {
    /// Peers with a lease.
    pub leased: usize,
    /// Those with a session or a handshake.
    pub awake: usize,
    /// Bytes of inner packets from the routers.
    pub rx_bytes: u64,
    /// Bytes of inner packets to the routers.
    pub tx_bytes: u64,
    /// Packets from the routers.
    pub rx_packets: u64,
    /// Packets to the routers.
    pub tx_packets: u64,
    /// Sessions that came to be.
    pub handshakes: u64,
    /// What came here and was handed to the worker whose it is.
    pub handed_over: u64,
    /// Drops, by reason.
    pub dropped: BTreeMap<String, u64>,
}

/// What the socket asks of control.
#[derive(Debug)]
pub(crate) enum Ask {
    /// The status, as JSON.
    Status {
        /// Whether bytes per device are wanted, too.
        leases: bool,
        /// Where to.
        reply: oneshot::Sender<String>,
    },
    /// Begin to drain.
    Drain,
    /// How far the drain is.
    Progress(oneshot::Sender<Progress>),
}

/// Binds the socket, in the place of a dead gateway's.
pub(crate) fn bind(path: &Path) -> Result<UnixListener, Fault> {
    let binding = |error| Fault::io(format!("make the status socket {}", path.display()), &error);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(binding)?;
    }
    if UnixStream::connect(path).is_ok() {
        let shown = path.display();
        return Err(Fault::new(
            Exit::Io,
            format!(
                "another gateway answers on {shown}; stop it or give this one its own status-socket"
            ),
        ));
    }
    match std::fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_socket() => {
            std::fs::remove_file(path).map_err(binding)?;
        }
        // Somebody's file.
        Ok(_) => return Err(binding(std::io::ErrorKind::AlreadyExists.into())),
        // What is wrong with the path is said when it is bound.
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(binding)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(binding)?;
    listener.set_nonblocking(true).map_err(binding)?;
    Ok(listener)
}

/// Answers on the socket until dropped. Owns the listener and its connections, all short.
pub(crate) async fn serve(listener: UnixListener, asks: mpsc::Sender<Ask>) -> std::io::Error {
    let listener = match tokio::net::UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return error,
    };
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(exchange(stream, asks.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "the status socket cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn exchange(stream: tokio::net::UnixStream, asks: mpsc::Sender<Ask>) {
    let answered = tokio::time::timeout(EXCHANGE_TIMEOUT, answer(stream, &asks)).await;
    if let Ok(Some(draining)) = answered {
        tell_progress(draining, &asks).await;
    }
}

/// Says how far the drain is, as long as somebody listens, and holds the connection open to the end of the process: that
/// is how `drain` learns of it.
async fn tell_progress(mut stream: tokio::net::UnixStream, asks: &mpsc::Sender<Ask>) {
    let mut period = tokio::time::interval(PROGRESS_PERIOD);
    let end = tokio::time::Instant::now() + DRAIN_WAIT;
    while tokio::time::Instant::now() < end {
        period.tick().await;
        let (reply, told) = oneshot::channel();
        let asked = asks.send(Ask::Progress(reply)).await.is_ok();
        let Some(progress) = told.await.ok().filter(|_| asked) else {
            break;
        };
        let line = serde_json::to_string(&progress).unwrap_or_default();
        if stream
            .write_all(format!("{line}\n").as_bytes())
            .await
            .is_err()
        {
            return;
        }
    }
    tokio::time::sleep_until(end).await;
}

/// Answers one request; gives the stream back if its other end waits for the drain to finish.
async fn answer(
    stream: tokio::net::UnixStream,
    asks: &mpsc::Sender<Ask>,
) -> Option<tokio::net::UnixStream> {
    let mut reader = tokio::io::BufReader::new(stream);
    let mut request = String::new();
    (&mut reader)
        .take(MAX_REQUEST_BYTES)
        .read_line(&mut request)
        .await
        .ok()?;
    let mut stream = reader.into_inner();
    match request.trim_end() {
        wanted @ ("status" | "leases") => {
            let (reply, told) = oneshot::channel();
            asks.send(Ask::Status {
                leases: wanted == "leases",
                reply,
            })
            .await
            .ok()?;
            let status = told.await.ok()?;
            stream
                .write_all(format!("{status}\n").as_bytes())
                .await
                .ok()?;
            None
        }
        "drain" => {
            asks.send(Ask::Drain).await.ok()?;
            Some(stream)
        }
        _ => {
            stream
                .write_all(b"{\"error\":\"accepted: status, leases, drain\"}\n")
                .await
                .ok()?;
            None
        }
    }
}

/// Asks the gateway behind a socket; its line, or why there is none.
pub(crate) fn ask(socket: &Path, request: &str) -> Result<String, Fault> {
    let mut stream = connect(socket)?;
    let talking = |error| Fault {
        exit: Exit::Unavailable,
        ..Fault::io("talk to the gateway", &error)
    };
    stream
        .set_read_timeout(Some(EXCHANGE_TIMEOUT))
        .map_err(talking)?;
    stream
        .write_all(format!("{request}\n").as_bytes())
        .map_err(talking)?;
    let mut line = String::new();
    BufReader::new(stream.take(MAX_ANSWER_BYTES))
        .read_line(&mut line)
        .map_err(talking)?;
    Ok(line.trim_end().to_owned())
}

/// Asks the gateway to drain and waits until it has ended; what it said last, each word of it told to `progress`.
pub(crate) fn drain(socket: &Path, progress: impl Fn(&Progress)) -> Result<Progress, Fault> {
    let mut stream = connect(socket)?;
    let talking = |error| Fault {
        exit: Exit::Unavailable,
        ..Fault::io("talk to the gateway", &error)
    };
    stream.set_read_timeout(Some(DRAIN_WAIT)).map_err(talking)?;
    stream.write_all(b"drain\n").map_err(talking)?;
    let mut last = None;
    // A gateway that ends closes the connection, one way or the other.
    let lines = BufReader::new(stream.take(MAX_ANSWER_BYTES)).lines();
    for line in lines.map_while(Result::ok) {
        if let Ok(told) = serde_json::from_str(&line) {
            progress(&told);
            last = Some(told);
        }
    }
    last.ok_or_else(|| Fault::new(Exit::Unavailable, "the gateway did not begin to drain"))
}

fn connect(socket: &Path) -> Result<UnixStream, Fault> {
    UnixStream::connect(socket).map_err(|error| {
        if error.kind() == std::io::ErrorKind::PermissionDenied {
            return Fault::io(format!("ask the gateway on {}", socket.display()), &error);
        }
        let why = match std::fs::read_to_string(failure_file(socket)) {
            Ok(sentence) => format!("it stopped because: {}", sentence.trim_end()),
            Err(_) => format!("nothing answers on {}", socket.display()),
        };
        Fault::new(
            Exit::Unavailable,
            format!("the gateway is not running; {why}"),
        )
    })
}

/// Where the reason of the last end stands for `status` to find.
pub(crate) fn failure_file(socket: &Path) -> PathBuf {
    socket.with_extension("failed")
}

impl Status {
    /// The status in words.
    pub(crate) fn in_words(&self) -> String {
        let state = match self.state {
            State::Running => "running",
            State::Draining => "draining: no new routers are admitted, and those that can move on",
        };
        let mut lines = vec![
            format!("gateway    {state}"),
            format!("id         {}", self.id),
            format!(
                "routers    {} leased, {} connected, {} active here, {} with a post-quantum key",
                self.peers.leased, self.peers.awake, self.peers.active, self.peers.post_quantum
            ),
            format!(
                "traffic    {} from routers, {} to routers, {} sessions",
                bytes(self.tunnel.rx_bytes),
                bytes(self.tunnel.tx_bytes),
                self.tunnel.handshakes
            ),
        ];
        lines.extend(self.tunnel.device.iter().map(DeviceStatus::in_words));
        if !self.tunnel.dropped.is_empty() {
            lines.push(format!("dropped    {}", counts(&self.tunnel.dropped)));
        }
        lines.extend(self.worker_lines());
        match &self.dns {
            Some(dns) => lines.extend(dns.lines()),
            None => lines.push("lookups    no resolver configured".to_owned()),
        }
        lines.extend(self.doors.iter().map(DoorsStatus::in_words));
        if let Some(relay) = &self.relay {
            lines.push(format!(
                "relay      {} routers now; {} over QUIC and {} over TLS so far, {} refused",
                relay.open, relay.quic, relay.tls, relay.refused
            ));
        }
        for shard in &self.shards {
            let contact = match shard.last_contact_s {
                Some(seconds) => format!("last answer {seconds} s ago"),
                None => "no answer yet".to_owned(),
            };
            lines.push(format!(
                "shard {:<4} at {}, {contact}",
                shard.shard, shard.next
            ));
        }
        lines.extend(
            self.warnings
                .iter()
                .map(|warning| format!("warning    {warning}")),
        );
        for (device, bytes) in self.leases.iter().flatten() {
            lines.push(format!("{device} {} {}", bytes.rx_bytes, bytes.tx_bytes));
        }
        lines.join("\n")
    }
}

impl Status {
    /// A line each, where there are several.
    fn worker_lines(&self) -> impl Iterator<Item = String> {
        let workers = &self.tunnel.workers;
        let shown = workers.iter().enumerate().filter(|_| workers.len() > 1);
        shown.map(|(number, worker)| {
            format!(
                "worker {number:<3} {} of {} routers connected, {} and {}, {} handed over",
                worker.awake,
                worker.leased,
                bytes(worker.rx_bytes),
                bytes(worker.tx_bytes),
                worker.handed_over
            )
        })
    }
}

fn counts(counts: &BTreeMap<String, u64>) -> String {
    counts
        .iter()
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_that_could_not_start_is_explained_by_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("gateway.sock");
        let silent = ask(&socket, "status").unwrap_err();
        std::fs::write(failure_file(&socket), "the port is taken\n").unwrap();
        let explained = ask(&socket, "status").unwrap_err();

        assert_eq!(
            (silent.exit, explained.exit),
            (Exit::Unavailable, Exit::Unavailable)
        );
        assert!(silent.sentence.contains("nothing answers on"), "{silent}");
        assert_eq!(
            explained.sentence,
            "the gateway is not running; it stopped because: the port is taken"
        );
    }

    #[test]
    fn a_dead_gateways_socket_is_replaced_and_a_living_ones_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/gateway.sock");
        drop(bind(&path).unwrap());

        let living = bind(&path).unwrap();
        let fault = bind(&path).unwrap_err();

        assert!(
            fault.sentence.starts_with("another gateway answers on"),
            "{fault}"
        );
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        drop(living);
    }

    #[test]
    fn a_file_in_the_sockets_place_is_left_and_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes");
        std::fs::write(&path, "precious").unwrap();

        let fault = bind(&path).unwrap_err();

        assert_eq!(fault.exit, Exit::Io);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn an_unknown_request_is_answered_with_the_known_ones() {
        let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
        let (asks, mut inbox) = mpsc::channel(1);
        let answering = tokio::spawn(async move { answer(theirs, &asks).await.is_some() });
        let mut ours = tokio::io::BufReader::new(ours);
        ours.get_mut().write_all(b"reboot\n").await.unwrap();
        let mut line = String::new();
        ours.read_line(&mut line).await.unwrap();

        assert_eq!(line, "{\"error\":\"accepted: status, leases, drain\"}\n");
        assert!(!answering.await.unwrap());
        assert!(inbox.recv().await.is_none(), "nothing was asked of control");
    }
}
