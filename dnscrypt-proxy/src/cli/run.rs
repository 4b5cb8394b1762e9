//! `culvert-dns run`: the stub on this machine's own addresses.

use std::io;
use std::net::SocketAddr;

use telemetry::{Format, Level};
use tokio::net::{TcpListener, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};

use super::RunArgs;
use super::config::{self, Config};
use super::exit::{BUG, Failure, IO, PERMISSION, USAGE};
use crate::listen::{Limits, Sockets};
use crate::stub::{Stub, StubConfig};
use crate::upstream::{KeyPolicy, Settings, Upstream};

pub(super) fn run(args: RunArgs) -> Result<String, Failure> {
    let config = match &args.config {
        Some(file) => config::load(file)?,
        None => from_args(args)?,
    };
    telemetry::init(Format::detect(), config.level);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(IO, format!("cannot start: {error}")))?;
    runtime.block_on(serve(config))
}

fn from_args(args: RunArgs) -> Result<Config, Failure> {
    if args.listen.is_empty() || args.stamp.is_empty() {
        let message = "give --config FILE, or --listen IP:PORT and --stamp STAMP (see culvert-dns run --help)";
        return Err(Failure::new(USAGE, message));
    }
    Ok(Config {
        listen: args.listen,
        stamps: args.stamp,
        keys: if args.ephemeral_keys {
            KeyPolicy::PerQuery
        } else {
            KeyPolicy::PerNetwork
        },
        policy: args.policy.policy(),
        cache_bytes: args.cache_kib.saturating_mul(1024),
        level: Level::INFO,
    })
}

async fn serve(config: Config) -> Result<String, Failure> {
    let mut sockets = Sockets::default();
    for address in &config.listen {
        let udp = UdpSocket::bind(address)
            .await
            .map_err(|error| bind_failure(*address, &error))?;
        let tcp = TcpListener::bind(address)
            .await
            .map_err(|error| bind_failure(*address, &error))?;
        sockets.udp.push(udp);
        sockets.tcp.push(tcp);
    }
    let settings = Settings {
        keys: config.keys,
        policy: config.policy,
        ..Settings::default()
    };
    let upstream = Upstream::new(config.stamps, settings);
    let stub_config = StubConfig {
        cache_bytes: config.cache_bytes,
        limits: Limits {
            in_flight: 4096,
            ..Limits::ROUTER
        },
    };
    let stub = Stub::new(upstream, stub_config);
    let signal_failure = |error| Failure::new(IO, format!("cannot wait for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(signal_failure)?;
    for address in &config.listen {
        tracing::info!(%address, "answering");
    }
    tokio::select! {
        () = warm(stub.upstream()) => Ok(String::new()),
        stopped = stub.listen(sockets) => Err(Failure::new(BUG, stopped.to_string())),
        _ = terminate.recv() => Ok(String::new()),
        _ = tokio::signal::ctrl_c() => Ok(String::new()),
    }
}

/// Gets the first certificate beside the first questions; never ends.
async fn warm(upstream: &Upstream) {
    if let Err(error) = upstream.warm().await {
        tracing::warn!(%error, "the first resolver cannot be asked yet");
    }
    std::future::pending().await
}

/// What commonly goes wrong, with the exit code and what to do.
const BIND_FAILURES: [(io::ErrorKind, u8, &str); 3] = [
    (
        io::ErrorKind::PermissionDenied,
        PERMISSION,
        "run it as root, or give it CAP_NET_BIND_SERVICE",
    ),
    (
        io::ErrorKind::AddrInUse,
        IO,
        "another program listens there: stop it, or listen elsewhere",
    ),
    (
        io::ErrorKind::AddrNotAvailable,
        IO,
        "this machine does not have that address",
    ),
];

fn bind_failure(address: SocketAddr, error: &io::Error) -> Failure {
    let known = BIND_FAILURES
        .iter()
        .find(|(kind, ..)| *kind == error.kind());
    let (code, hint) = known.map_or((IO, "it cannot be used"), |(_, code, hint)| (*code, *hint));
    Failure::new(code, format!("cannot listen on {address}: {error}; {hint}"))
}
