//! Everything that needs root, done once and in one thread: keys read, files opened, ports bound,
//! interfaces made, packet filter set. What comes out is owned by the process that then gives root up.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use netio::clock::since_1970;
use netio::netlink::{Netlink, NetlinkError};
use netio::privileges::{self, Capability, DropError};
use netio::tun::TunError;
use netio::udp::UdpError;
use netio::{Tun, clock};
use rand_core::{OsRng, RngCore};
use rustls::ClientConfig;
use trust::Anchors;
use tunnel::edge::EdgeLimits;
use tunnel::{EdgeTunnel, Share};
use x25519_dalek::PublicKey;

use crate::accounting::Accounts;
use crate::config::{Config, Tunnel};
use crate::dns::Dns;
use crate::engine::{Lanes, WorkerIo, lanes};
use crate::exit::{Exit, Fault};
use crate::keyring::{self, Keyring};
use crate::keys::Keys;
use crate::leases::{Leases, MAX_DEVICES, Scope};
use crate::nat::{self, Forwarding};
use crate::peers::Peers;
use crate::pin;
use crate::relay::Relay;
use crate::sampling::{Networks, Volume};
use crate::status;

/// 1 January 2025: no clock that is right shows less.
const EARLIEST_S: u64 = 1_735_689_600;

/// What a gateway owns once it is set up.
pub(crate) struct Site {
    running: Running,
    /// To be taken back at the end.
    forwarding: Forwarding,
}

impl Site {
    /// Sets everything up, or leaves nothing behind.
    pub(crate) fn prepare(config: &Config) -> Result<Self, Fault> {
        check_clock(clock::unix_s())?;
        privileges::raise_descriptors();
        let keys = Keys::load(&config.state_dir)?;
        let anchors = load_anchors(&config.trust_policy)?;
        let tls = pin::client_config(&config.provisioning.spki_sha256)?;
        let status = status::bind(&config.status_socket)?;
        let metrics = config.metrics.map(bind_metrics).transpose()?;
        let scope = Scope {
            gateway: trust::key_id(&keys.identity.verifying_key().to_bytes()),
            wg_pub: PublicKey::from(&keys.tunnel).to_bytes(),
            inner: config.tunnel.addresses.clone(),
        };
        let peers = enter_state_dir(config, anchors, scope)?;
        let accounts = Accounts::load(Path::new("."));
        let sampling = config.sampling.as_ref();
        let networks = sampling.map(|sampling| Networks::load(&sampling.prefixes));
        let networks = networks.transpose()?.map(Arc::new);
        let sampling = sampling.map(|sampling| sampling.one_in).zip(networks);
        let workers = open_workers(&config.tunnel, sampling.as_ref(), &keys)?;
        let volume = sampling.map(|(one_in, networks)| Volume::new(one_in, &networks));
        let dns = config.dns.as_ref();
        let dns = dns.map(|dns| Dns::bind(dns, config.dns_relay.as_ref(), config.tunnel.workers));
        let dns = dns.transpose()?;
        let relay = config.relay.as_ref().map(Relay::bind).transpose()?;
        let forwarding = nat::set_up(config)?;
        let running = Running {
            keys,
            tls,
            peers,
            accounts,
            workers,
            volume,
            dns,
            relay,
            metrics,
            status,
        };
        Ok(Self {
            running,
            forwarding,
        })
    }

    /// What runs, and what is to be taken back when it has ended.
    pub(crate) fn split(self) -> (Running, Forwarding) {
        (self.running, self.forwarding)
    }
}

/// The parts of a [`Site`] that run.
pub(crate) struct Running {
    pub(crate) keys: Keys,
    pub(crate) tls: ClientConfig,
    pub(crate) peers: Peers,
    pub(crate) accounts: Accounts,
    pub(crate) workers: Workers,
    pub(crate) volume: Option<Volume>,
    pub(crate) dns: Option<Dns>,
    pub(crate) relay: Option<Relay>,
    pub(crate) metrics: Option<TcpListener>,
    pub(crate) status: UnixListener,
}

/// What the workers are made of.
pub(crate) struct Workers {
    pub(crate) parts: Vec<(EdgeTunnel, WorkerIo)>,
    /// Which worker has which peer.
    pub(crate) share: Share,
}

/// Becomes the configured user; only the rights to the interfaces and the packet filter stay.
pub(crate) fn give_up_root(config: &Config) -> Result<(), Fault> {
    if !privileges::is_root() {
        return Ok(());
    }
    privileges::drop_to(&config.user, &[Capability::NetAdmin])
        .map_err(|error| user_fault(&error))?;
    tracing::info!(user = config.user, "gave up root");
    Ok(())
}

fn user_fault(error: &DropError) -> Fault {
    match error {
        DropError::NoSuchUser(name) => Fault::new(
            Exit::Config,
            format!("user: there is no user named {name} on this system"),
        ),
        DropError::Threads => Fault::new(Exit::Bug, error.to_string()),
        DropError::Refused { .. } => Fault::new(Exit::Permission, error.to_string()),
        DropError::Lookup(source) => Fault::io("read the system's users", source),
    }
}

fn check_clock(now_s: u64) -> Result<(), Fault> {
    if now_s >= EARLIEST_S {
        return Ok(());
    }
    let year = 1970 + now_s / 31_556_952;
    Err(Fault::new(
        Exit::Config,
        format!(
            "this machine's clock says {year}; set it (an NTP service does) and start the gateway again"
        ),
    ))
}

fn load_anchors(file: &Path) -> Result<Anchors, Fault> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| Fault {
        exit: Exit::Config,
        ..Fault::io(format!("read trust-policy {shown}"), &error)
    })?;
    Anchors::parse(&text).map_err(|error| {
        Fault::new(
            Exit::Config,
            format!("trust-policy {shown} cannot be used: {error}"),
        )
    })
}

fn bind_metrics(address: SocketAddr) -> Result<TcpListener, Fault> {
    let binding = |error| Fault::io(format!("listen for metrics on {address}"), &error);
    let listener = TcpListener::bind(address).map_err(binding)?;
    listener.set_nonblocking(true).map_err(binding)?;
    Ok(listener)
}

/// Makes the state directory the working directory, so that its files stay within reach of a user who
/// could not walk there, and hands over what that user writes. Keys stay root's.
fn enter_state_dir(config: &Config, anchors: Anchors, scope: Scope) -> Result<Peers, Fault> {
    let directory = &config.state_dir;
    let using = |error| Fault::io(format!("use state-dir {}", directory.display()), &error);
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(using)?;
    std::env::set_current_dir(directory).map_err(using)?;
    let here = Path::new(".");
    let keyring = config.tunnel.post_quantum;
    let keyring = keyring.then(|| Keyring::load(here, clock::unix_s()));
    let leases = Leases::new(scope).with_keyring(keyring.transpose()?);
    let peers = Peers::restore(here, &config.provisioning.shards, anchors, leases)?;
    if privileges::is_root() {
        let user = privileges::find_user(&config.user).map_err(|error| user_fault(&error))?;
        let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
        std::os::unix::fs::chown(here, Some(uid), Some(gid)).map_err(using)?;
        for entry in std::fs::read_dir(here).map_err(using)? {
            let name = entry.map_err(using)?.file_name();
            let name = name.to_string_lossy();
            if is_ours(&name) {
                std::os::unix::fs::lchown(name.as_ref(), Some(uid), Some(gid)).map_err(using)?;
            }
        }
    }
    Ok(peers)
}

/// Whether the gateway writes a file of its state directory after it has become nobody.
fn is_ours(name: &str) -> bool {
    name.starts_with("shard-") || name.starts_with("accounting.") || name.starts_with(keyring::FILE)
}

fn open_workers(
    tunnel: &Tunnel,
    sampling: Option<&(NonZeroU32, Arc<Networks>)>,
    keys: &Keys,
) -> Result<Workers, Fault> {
    let count = tunnel.workers;
    let [v4, v6] = bind_tunnel(tunnel)?;
    let queues = open_interface(tunnel, count.into())?;
    let limits = EdgeLimits {
        max_peers: MAX_DEVICES,
        mtu: tunnel.mtu,
        ..EdgeLimits::default()
    };
    let inner: Vec<IpAddr> = tunnel.addresses.iter().map(IpNet::addr).collect();
    let dscp = tunnel.dscp;
    let shares: Vec<Share> = Share::split(count, OsRng.next_u64()).collect();
    let share = shares.first().cloned().unwrap_or_else(Share::whole);
    let (mut v4, mut v6) = (v4.into_iter(), v6.into_iter());
    let parts = queues.into_iter().zip(shares).map(|(tun, share)| {
        let private = keys.tunnel.clone();
        let mut tunnel =
            EdgeTunnel::for_worker(private, limits, share, since_1970(), Instant::now());
        tunnel.set_inner(inner.clone());
        tunnel.set_outer_tos(dscp);
        if let Some((one_in, _)) = sampling {
            tunnel.set_sampling(*one_in, OsRng.next_u64());
        }
        let io = WorkerIo {
            tun,
            v4: v4.next(),
            v6: v6.next(),
            networks: sampling.map(|(_, networks)| Arc::clone(networks)),
        };
        (tunnel, io)
    });
    Ok(Workers {
        parts: parts.collect(),
        share,
    })
}

/// The sockets of each family, one pair for each worker; none of a family that is not listened on.
fn bind_tunnel(tunnel: &Tunnel) -> Result<[Vec<Lanes>; 2], Fault> {
    let bind = |wanted: fn(&SocketAddr) -> bool| {
        let address = tunnel.listen.iter().find(|address| wanted(address));
        address.map_or(Ok(Vec::new()), |address| {
            lanes::bind(*address, tunnel.workers.into())
        })
    };
    let bound = bind(SocketAddr::is_ipv4).and_then(|v4| Ok([v4, bind(SocketAddr::is_ipv6)?]));
    bound.map_err(|error| match &error {
        UdpError::Busy(_) => Fault::new(Exit::Io, format!("tunnel.listen: {error}")),
        UdpError::Permission { .. } => {
            Fault::new(Exit::Permission, format!("tunnel.listen: {error}"))
        }
        UdpError::NoSuchAddress(_) => Fault::new(Exit::Config, format!("tunnel.listen: {error}")),
        UdpError::Os {
            what,
            address,
            source,
        } => Fault::io(format!("{what} on {address}"), source),
    })
}

fn open_interface(tunnel: &Tunnel, queues: usize) -> Result<Vec<Tun>, Fault> {
    let name = &tunnel.interface;
    let opened = Tun::open(name, tunnel.mtu, queues).map_err(|error| match &error {
        TunError::NoDriver | TunError::Busy(_) => Fault::new(Exit::Io, error.to_string()),
        TunError::Permission => Fault::new(Exit::Permission, error.to_string()),
        TunError::BadName(_) | TunError::BadQueues(_) | TunError::BadMtu(_) => {
            Fault::new(Exit::Config, error.to_string())
        }
        TunError::Os { what, source, .. } => {
            Fault::io(format!("finish {what} of interface {name}"), source)
        }
    })?;
    let addressing = |error: NetlinkError| netlink_fault(name, &error);
    let mut netlink = Netlink::open().map_err(addressing)?;
    let link = netlink.link(name).map_err(addressing)?;
    for address in &tunnel.addresses {
        netlink.add_address(link, *address).map_err(|error| {
            if error.is_unsupported_family() {
                let sentence =
                    format!("this kernel has no IPv6, so {address} cannot be in tunnel.addresses");
                Fault::new(Exit::Config, sentence)
            } else {
                netlink_fault(name, &error)
            }
        })?;
    }
    netlink.bring_up(link, tunnel.mtu).map_err(addressing)?;
    Ok(opened)
}

fn netlink_fault(interface: &str, error: &NetlinkError) -> Fault {
    let exit = if error.is_permission() {
        Exit::Permission
    } else {
        Exit::Io
    };
    Fault::new(
        exit,
        format!("interface {interface} cannot be set up: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_from_before_this_program_existed_is_refused_in_one_sentence() {
        let fault = check_clock(86_400).unwrap_err();

        assert_eq!(fault.exit, Exit::Config);
        assert!(
            fault
                .sentence
                .starts_with("this machine's clock says 1970; set it"),
            "{fault}"
        );
        assert_eq!(check_clock(EARLIEST_S), Ok(()));
    }

    #[test]
    fn a_missing_or_broken_trust_policy_is_a_configuration_fault_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("trust.policy");
        let missing = load_anchors(&file).unwrap_err();
        std::fs::write(&file, "epoch 0\n").unwrap();
        let broken = load_anchors(&file).unwrap_err();

        for fault in [missing, broken] {
            assert_eq!(fault.exit, Exit::Config);
            assert!(fault.sentence.contains("trust.policy"), "{fault}");
        }
    }
}
