//! The process from start to end: what is opened with which rights, in which order, and how it ends.
//!
//! Order: configuration; the state folder's lock; the kill-switch, before anything can fail; the image's trust file and
//! the kept state; device and sockets; then the rights are given up; then threads start.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::path::Path;

use netio::Tun;
use netio::privileges::{self, Capability, DropError, UserIds};
use netio::tun::TunError;
use netio::udp::UdpError;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing::info;
use trust::{Anchors, ClaimCode, DeviceFacts};
use x25519_dalek::PublicKey;

use crate::clock::Clock;
use crate::commands::Talk;
use crate::config::{self, Config, KillSwitch};
use crate::control::{Control, Inputs, Parts, attempt};
use crate::dns::{BindError, Dns, Listeners};
use crate::engine::{Engine, Wires};
use crate::enrol::{self, Exchanged};
use crate::exit::{Exit, Failure, OrExit, chain};
use crate::net::wan::Wan;
use crate::net::{NetError, Network, inside};
use crate::people;
use crate::relay::Relays;
use crate::state::{LockError, State, StateDir, StateError, WriteError};
use crate::status::socket;
use crate::status::{Condition, LastWords, Status, last_words_path};

/// What may wait for the control loop: more than it ever is behind.
const MAX_NEWS: usize = 64;
const MAX_REQUESTS: usize = 8;

/// Runs the agent.
pub(crate) fn run(config_path: &Path) -> Result<(), Failure> {
    let config = config::load(config_path)?;
    telemetry::init(telemetry::Format::detect(), config.log_level);
    if !privileges::is_root() {
        return Err(Failure::new(
            Exit::Permission,
            "the agent must be started as root: it makes an interface and routes, then becomes another user",
        ));
    }
    let state_dir = match StateDir::open(&config.state_dir) {
        Ok(state_dir) => state_dir,
        Err(error) => return Err(without_state_dir(&config, error)),
    };
    let last_words = open_last_words(&config)?;
    let result = start(&config, state_dir, last_words.clone());
    if let Err(failure) = &result {
        // The loop has said how it ended; this is for a start that failed, and harmless twice.
        let mut status = Status::new(&config, Condition::Error, Clock::with_floor(0).now());
        status.reason = Some(failure.to_string());
        last_words.say(&status);
    }
    // What does not go is replaced at the next start.
    let _ = std::fs::remove_file(&config.status_socket);
    result
}

/// A second agent touches nothing; any other trouble with the folder must not leave the router open.
fn without_state_dir(config: &Config, error: LockError) -> Failure {
    if !matches!(error, LockError::Taken)
        && config.kill_switch == KillSwitch::On
        && let Err(error) = Network::prepare(config)
    {
        eprintln!("error: the kill-switch could not be set: {error}");
    }
    lock_failure(error)
}

fn start(config: &Config, state_dir: StateDir, last_words: LastWords) -> Result<(), Failure> {
    let network = Network::prepare(config).map_err(network_failure)?;
    let opened = match open(config, &state_dir) {
        Ok(opened) => opened,
        Err(failure) => {
            if let Err(error) = network.undo() {
                eprintln!("error: the router's network could not be restored: {error}");
            }
            return Err(failure);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .or_exit(Exit::Io, "starting the event loop")?;
    runtime.block_on(serve(config, state_dir, network, opened, last_words))
}

/// What is opened with root's rights.
struct Opened {
    anchors: Anchors,
    state: State,
    wires: Wires,
    listeners: Listeners,
    status_socket: std::os::unix::net::UnixListener,
}

fn open(config: &Config, state_dir: &StateDir) -> Result<Opened, Failure> {
    let user = find_user(config)?;
    let opened = Opened {
        anchors: load_anchors(&config.trust_policy)?,
        state: state_dir.load().map_err(state_failure)?,
        wires: open_wires(config)?,
        listeners: Listeners::bind(&config.lan.dns_listen).map_err(dns_failure)?,
        status_socket: socket::bind(&config.status_socket).or_exit(
            Exit::Io,
            format!(
                "opening the status socket {}",
                config.status_socket.display()
            ),
        )?,
    };
    state_dir
        .give_to(user.uid.as_raw(), user.gid.as_raw())
        .or_exit(Exit::Io, "giving the state folder to the agent's user")?;
    // Marks, routes, addresses and the packet filter; everything else has been opened.
    privileges::drop_to(&config.user, &[Capability::NetAdmin])
        .or_exit(Exit::Permission, "giving up root's rights")?;
    Ok(opened)
}

fn open_wires(config: &Config) -> Result<Wires, Failure> {
    let name = config.tunnel.interface.as_str();
    let queues = Tun::open(name, config.tunnel.mtu, 1).map_err(|error| tun_failure(&error))?;
    let Some(tun) = queues.into_iter().next() else {
        return Err(Failure::new(Exit::Bug, "the TUN device has no queue"));
    };
    Wires::open(tun).map_err(|error| udp_failure(&error))
}

async fn serve(
    config: &Config,
    state_dir: StateDir,
    network: Network,
    opened: Opened,
    last_words: LastWords,
) -> Result<(), Failure> {
    let Opened {
        anchors,
        state,
        wires,
        listeners,
        status_socket,
    } = opened;
    let clock = Clock::with_floor(state.stored.clock_floor);
    let wan = Wan::open(config).or_exit(Exit::Io, "watching the router's network")?;
    let (news_sender, news) = mpsc::channel(MAX_NEWS);
    let (request_sender, requests) = mpsc::channel(MAX_REQUESTS);
    let inside = wires
        .local_addr()
        .or_exit(Exit::Io, "asking for the packet thread's own address")?;
    let engine = Engine::start(wires, &config.tunnel, news_sender)
        .or_exit(Exit::Io, "starting the packet thread")?;
    let dns = Dns::start(
        listeners,
        &config.dns,
        clock.clone(),
        inside::sockets(&config.lan.interfaces),
    )
    .or_exit(Exit::Io, "starting the resolver")?;
    let status_socket = tokio::net::UnixListener::from_std(status_socket)
        .or_exit(Exit::Io, "opening the status socket")?;
    let conversations = tokio::spawn(socket::serve(status_socket, request_sender));
    let stop = stop_signals().or_exit(Exit::Io, "listening to signals")?;
    info!(version = crate::cli::VERSION, user = config.user, "started");
    let config = config.clone();
    let parts = Parts {
        config,
        anchors,
        state_dir,
        state,
        network,
        wan,
        engine,
        relays: Relays::new(inside),
        dns,
        clock,
        last_words,
    };
    let result = Box::pin(Control::new(parts).run(Inputs {
        news,
        requests,
        stop,
    }))
    .await;
    conversations.abort();
    result
}

/// The task owns the signal handlers and ends with the process.
fn stop_signals() -> io::Result<mpsc::Receiver<()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let (sender, stop) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {
                    info!("hangup: nothing is read anew; restart the agent for another configuration");
                    continue;
                }
            }
            // A second signal while the first is being followed adds nothing.
            let _ = sender.try_send(());
        }
    });
    Ok(stop)
}

/// Enrols once, without the running agent: one exchange, its answer verified and kept.
pub(crate) fn enrol_once(config: &Config, code: ClaimCode, talk: &Talk) -> Result<(), Failure> {
    let state_dir = StateDir::open(&config.state_dir).map_err(lock_failure)?;
    let mut anchors = load_anchors(&config.trust_policy)?;
    let mut state = state_dir.load().map_err(state_failure)?;
    people::recall(&mut anchors, state.people.as_deref());
    state_dir.keep_claim(&code).map_err(state_failure)?;
    let now = Clock::with_floor(state.stored.clock_floor).now();
    let seen = (state.stored.fleet_size(), anchors.people.epoch());
    let mut applicant = attempt::applicant(&state.keys, Some(&code), seen);
    drop(code);
    let wg_pub = PublicKey::from(&applicant.tunnel.0).to_bytes();
    applicant.wish = attempt::wish(config, &state.psks, &wg_pub, now);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .or_exit(Exit::Io, "starting the event loop")?;
    talk.progress(&format!(
        "asking the provisioning server {}",
        config.provisioning.server
    ));
    let Exchanged {
        changes,
        bundle,
        agreed,
    } = runtime
        .block_on(enrol::exchange(&config.provisioning, &applicant))
        .map_err(|error| {
            if error.remedy() == enrol::Remedy::NewClaim
                && let Err(error) = state_dir.forget_claim()
            {
                talk.progress(&error.to_string());
            }
            talk.refused(attempt::exit_of(&error), &chain(&error))
        })?;
    people::follow(&mut anchors, &changes, now, |people| {
        state_dir.keep_people(people).map_err(|error| chain(&error))
    });
    let me = DeviceFacts {
        devid_hash: state.keys.devid_hash(),
        wg_pub,
    };
    let (verified, stored) = anchors
        .verify_bundle(&bundle, &me, &state.stored, now)
        .map_err(|error| {
            talk.refused(
                Exit::Unavailable,
                &format!("the provisioning server's answer is refused: {error}"),
            )
        })?;
    state.psks.add(&wg_pub, agreed);
    state_dir.keep_psks(&state.psks).map_err(state_failure)?;
    state_dir
        .keep_lease(&mut state.keys, &bundle.to_bytes(), &wg_pub, &stored)
        .map_err(state_failure)?;
    state_dir.forget_claim().map_err(state_failure)?;
    let lease = &verified.get().lease;
    let addresses: Vec<String> = lease.addresses.iter().map(ToString::to_string).collect();
    talk.done(&format!(
        "enrolled: {} until unix time {}; start the agent",
        addresses.join(", "),
        lease.not_after
    ));
    Ok(())
}

fn load_anchors(path: &Path) -> Result<Anchors, Failure> {
    let text = std::fs::read_to_string(path).or_exit(
        Exit::Config,
        format!(
            "trust-policy: the image's trust file {} cannot be read",
            path.display()
        ),
    )?;
    Anchors::parse(&text).or_exit(
        Exit::Config,
        format!("trust-policy: {} is not accepted", path.display()),
    )
}

fn find_user(config: &Config) -> Result<UserIds, Failure> {
    privileges::find_user(&config.user).map_err(|error| {
        let exit = match error {
            DropError::NoSuchUser(_) => Exit::Config,
            DropError::Threads | DropError::Refused { .. } | DropError::Lookup(_) => Exit::Io,
        };
        Failure::new(exit, format!("user: {}", chain(&error)))
    })
}

/// The file for the last words, made while the folder can be written, and given to the user that the agent becomes.
fn open_last_words(config: &Config) -> Result<LastWords, Failure> {
    let path = last_words_path(config);
    let doing = || format!("opening {}", path.display());
    if let Some(folder) = path.parent() {
        let is_new = !folder.exists();
        std::fs::create_dir_all(folder).or_exit(Exit::Io, doing())?;
        // So that the socket can be removed at the end; a folder that was there is somebody else's.
        if is_new && let Ok(user) = privileges::find_user(&config.user) {
            chown(folder, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
                .or_exit(Exit::Io, doing())?;
        }
    }
    let options = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .clone();
    let file: File = options.open(&path).or_exit(Exit::Io, doing())?;
    if let Ok(user) = privileges::find_user(&config.user) {
        chown(&path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
            .or_exit(Exit::Io, doing())?;
    }
    Ok(LastWords::new(file))
}

pub(crate) fn lock_failure(error: LockError) -> Failure {
    let exit = match &error {
        LockError::Taken => Exit::Failed,
        LockError::Permission(_) => Exit::Permission,
        LockError::Write(_) => Exit::CannotWrite,
    };
    Failure::of(exit, &error)
}

pub(crate) fn state_failure(error: StateError) -> Failure {
    let exit = match &error {
        StateError::Write {
            source: WriteError::Full(_) | WriteError::ReadOnly(_),
            ..
        } => Exit::CannotWrite,
        StateError::Write {
            source: WriteError::Io(_),
            ..
        }
        | StateError::Read { .. } => Exit::Io,
    };
    Failure::of(exit, &error)
}

pub(crate) fn network_failure(error: NetError) -> Failure {
    let exit = if error.is_permission() {
        Exit::Permission
    } else {
        Exit::Failed
    };
    Failure::new(
        exit,
        format!("the router's network cannot be set up: {}", chain(&error)),
    )
}

fn tun_failure(error: &TunError) -> Failure {
    let exit = match error {
        TunError::Permission => Exit::Permission,
        TunError::BadName(_) | TunError::BadMtu(_) => Exit::Config,
        TunError::BadQueues(_) => Exit::Bug,
        TunError::NoDriver | TunError::Busy(_) | TunError::Os { .. } => Exit::Io,
    };
    Failure::new(exit, chain(error))
}

fn udp_failure(error: &UdpError) -> Failure {
    let exit = match error {
        UdpError::Permission { .. } => Exit::Permission,
        UdpError::Busy(_) | UdpError::NoSuchAddress(_) | UdpError::Os { .. } => Exit::Io,
    };
    Failure::new(exit, chain(error))
}

fn dns_failure(error: BindError) -> Failure {
    let exit = match &error {
        BindError::Permission(_) => Exit::Permission,
        BindError::Busy(_) | BindError::Os { .. } => Exit::Io,
    };
    Failure::new(exit, format!("lan.dns-listen: {}", chain(&error)))
}
