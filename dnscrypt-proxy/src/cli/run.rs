//! `culvert-dns run`: the stub on this machine's own addresses.

use std::io;
use std::net::SocketAddr;

use netio::supervisor::{self, Inherited};
use telemetry::{Format, Level};
use tokio::net::{TcpListener, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};

use super::RunArgs;
use super::config::{self, Config};
use super::exit::{BUG, CONFIG, Failure, IO, PERMISSION, USAGE};
use super::policy;
use super::query::runtime;
use super::status::Page;
use crate::listen::{Limits, Sockets};
use crate::policy::{Policy, Rules};
use crate::stub::{Stub, StubConfig};
use crate::upstream::{KeyPolicy, Settings, Upstream};

pub(super) fn run(args: RunArgs) -> Result<String, Failure> {
    // Before anything is opened.
    let inherited = supervisor::sockets().map_err(|error| Failure::new(IO, error.to_string()))?;
    let config = match &args.config {
        Some(file) => config::load(file)?,
        None => from_args(args, &inherited)?,
    };
    if config.listen.is_empty() && inherited.is_empty() {
        let message = "listen: is empty, and systemd handed no sockets over; accepted: addresses, or to be started by a .socket unit";
        return Err(Failure::new(CONFIG, message));
    }
    telemetry::init(Format::detect(), config.level);
    // One thread: lookups hardly wait for the processor, and each further one would hold memory of its own.
    runtime()?.block_on(serve(config, inherited))
}

fn from_args(args: RunArgs, inherited: &Inherited) -> Result<Config, Failure> {
    if args.listen.is_empty() && inherited.is_empty() || args.stamp.is_empty() {
        let message = "give --config FILE, or --listen IP:PORT and --stamp STAMP (see culvert-dns run --help)";
        return Err(Failure::new(USAGE, message));
    }
    Ok(Config {
        listen: args.listen,
        route: args.route.route(),
        stamps: args.stamp,
        prefer: args.prefer,
        keys: if args.ephemeral_keys {
            KeyPolicy::PerQuery
        } else {
            KeyPolicy::PerNetwork
        },
        policy: args.policy.policy(),
        cache_bytes: args.cache_kib.saturating_mul(1024),
        status_socket: args.status_socket,
        rules: policy::without_a_file(),
        level: Level::INFO,
    })
}

async fn serve(config: Config, inherited: Inherited) -> Result<String, Failure> {
    let sockets = sockets(&config.listen, inherited).await?;
    refuse_loops(&config.rules, &sockets)?;
    let status = config.status_socket.as_deref().map(Page::open);
    let status = status.transpose()?;
    let settings = Settings {
        keys: config.keys,
        prefer: config.prefer,
        policy: config.policy,
        ..Settings::default()
    };
    let upstream = Upstream::new(Vec::new(), settings);
    upstream.set_resolvers(config.stamps, &config.route);
    let stub_config = StubConfig {
        cache_bytes: config.cache_bytes,
        limits: Limits {
            in_flight: 4096,
            udp_batch: Limits::SERVER.udp_batch,
            ..Limits::ROUTER
        },
    };
    let policy = Policy::new(config.rules);
    // What is blocked is blocked from the first question on.
    policy.settle();
    let stub = Stub::with_policy(upstream, policy, stub_config);
    let signal_failure = |error| Failure::new(IO, format!("cannot wait for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(signal_failure)?;
    for socket in &sockets.udp {
        let address = socket.local_addr().ok();
        tracing::info!(address = address.map(tracing::field::display), "answering");
    }
    tell("READY=1");
    let ended = tokio::select! {
        () = warm(stub.upstream()) => Ok(String::new()),
        () = told(status.as_ref(), &stub, stub_config.cache_bytes) => Ok(String::new()),
        stopped = stub.listen(sockets) => Err(Failure::new(BUG, stopped.to_string())),
        _ = terminate.recv() => Ok(String::new()),
        _ = tokio::signal::ctrl_c() => Ok(String::new()),
    };
    tell("STOPPING=1");
    ended
}

/// Those that systemd handed over, and those of the configuration.
async fn sockets(listen: &[SocketAddr], inherited: Inherited) -> Result<Sockets, Failure> {
    let Inherited { udp, tcp } = inherited;
    let unusable = |error| {
        Failure::new(
            IO,
            format!("cannot use a socket that systemd handed over: {error}"),
        )
    };
    let udp: io::Result<_> = udp.into_iter().map(UdpSocket::from_std).collect();
    let tcp: io::Result<_> = tcp.into_iter().map(TcpListener::from_std).collect();
    let mut sockets = Sockets {
        udp: udp.map_err(unusable)?,
        tcp: tcp.map_err(unusable)?,
    };
    for address in listen {
        let udp = UdpSocket::bind(address).await;
        let tcp = TcpListener::bind(address).await;
        let failure = |error| bind_failure(*address, &error);
        sockets.udp.push(udp.map_err(failure)?);
        sockets.tcp.push(tcp.map_err(failure)?);
    }
    Ok(sockets)
}

/// What systemd handed over is known here alone.
fn refuse_loops(rules: &Rules, sockets: &Sockets) -> Result<(), Failure> {
    let listen: Vec<_> = (sockets.udp.iter())
        .filter_map(|socket| socket.local_addr().ok())
        .collect();
    match rules.wrong_forwards(&listen, config::is_own).next() {
        Some(wrong) => Err(Failure::new(CONFIG, format!("policy.forward: {wrong}"))),
        None => Ok(()),
    }
}

/// Systemd, if it is there to hear it.
fn tell(state: &str) {
    if let Err(error) = supervisor::tell(state) {
        tracing::warn!(%error, "systemd cannot be told {state}");
    }
}

/// Answers those who ask for the status; never ends.
async fn told(page: Option<&Page>, stub: &Stub, cache_bytes: usize) {
    match page {
        Some(page) => page.tell(stub, cache_bytes).await,
        None => std::future::pending().await,
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
