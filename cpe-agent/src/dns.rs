//! The home's lookups: sockets on the LAN's addresses, answered by the stub, asked of the lease's resolvers inside the
//! tunnel and, but for zones of the home's own servers, of nobody else.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use dnscrypt_proxy::listen::Sockets;
use dnscrypt_proxy::policy::{self, Aaaa};
use dnscrypt_proxy::proto::cert::{Policy, PostQuantum, System};
use dnscrypt_proxy::stub::{Stub, StubConfig};
use dnscrypt_proxy::upstream::{Route, Settings, SocketFactory, Upstream};
use dnscrypt_proxy::{DnsCryptStamp, Stamp};
use ipnet::IpNet;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
    sockopt,
};
use tokio::task::JoinHandle;
use tracing::warn;

use crate::clock::Clock;
use crate::config::{self, FilterAaaa};
use crate::status::DnsStatus;

/// What stamps of relays begin with: the upper bits of 0x81 in base64.
const RELAY_STAMPS: &str = "sdns://g";
/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// A socket for the LAN's lookups could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    /// Somebody else answers there.
    #[error(
        "{0} is in use: stop the other resolver (dnsmasq, unbound…) or move it to another port"
    )]
    Busy(SocketAddr),
    /// A low port without the right.
    #[error("no right to answer lookups on {0}: run as root")]
    Permission(SocketAddr),
    /// Another reason.
    #[error("lookups cannot be answered on {address}")]
    Os {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Bound sockets of the LAN's side, not served yet.
pub(crate) struct Listeners {
    udp: Vec<OwnedFd>,
    tcp: Vec<OwnedFd>,
}

impl Listeners {
    /// Binds every address for UDP and TCP; an address need not be on an interface yet, as at boot.
    pub(crate) fn bind(addresses: &[SocketAddr]) -> Result<Self, BindError> {
        let open = |kind| {
            addresses
                .iter()
                .map(move |address| bind_one(*address, kind))
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            udp: open(SockType::Datagram)?,
            tcp: open(SockType::Stream)?,
        })
    }

    fn into_tokio(self) -> io::Result<Sockets> {
        let udp = self
            .udp
            .into_iter()
            .map(|fd| tokio::net::UdpSocket::from_std(fd.into()));
        let tcp = self
            .tcp
            .into_iter()
            .map(|fd| tokio::net::TcpListener::from_std(fd.into()));
        Ok(Sockets {
            udp: udp.collect::<io::Result<_>>()?,
            tcp: tcp.collect::<io::Result<_>>()?,
        })
    }
}

fn bind_one(address: SocketAddr, kind: SockType) -> Result<OwnedFd, BindError> {
    open_bound(address, kind).map_err(|errno| {
        if errno == Errno::EADDRINUSE {
            BindError::Busy(address)
        } else if matches!(errno, Errno::EACCES | Errno::EPERM) {
            BindError::Permission(address)
        } else {
            BindError::Os {
                address,
                source: errno.into(),
            }
        }
    })
}

fn open_bound(address: SocketAddr, kind: SockType) -> nix::Result<OwnedFd> {
    let family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let fd = socket(
        family,
        kind,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    if address.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    // Also for IPv6 sockets: the kernel keeps one flag for both. An IPv6 address is not there for its first second.
    setsockopt(&fd, sockopt::IpFreebind, &true)?;
    if kind == SockType::Stream {
        // Connections of an agent that was killed may still be closing.
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    if kind == SockType::Stream {
        listen(&fd, Backlog::new(BACKLOG)?)?;
    }
    Ok(fd)
}

/// The running stub. Its task owns the LAN's sockets; aborting it loses the lookups in flight, which clients repeat.
pub(crate) struct Dns {
    stub: Arc<Stub>,
    filter_aaaa: FilterAaaa,
    post_quantum: PostQuantum,
    task: JoinHandle<()>,
}

impl Dns {
    /// Answers on the sockets from now on; without resolvers the answer is that there is none. `inside` makes the sockets to servers of
    /// the home's own.
    pub(crate) fn start(
        listeners: Listeners,
        config: &config::Dns,
        clock: Clock,
        inside: SocketFactory,
    ) -> io::Result<Self> {
        let settings = Settings {
            policy: Policy {
                post_quantum: config.post_quantum,
                ..Policy::default()
            },
            clock: Arc::new(move || clock.now()),
            inside,
            ..Settings::default()
        };
        let mut rules = config.rules.clone();
        if config.filter_aaaa == FilterAaaa::On {
            rules.aaaa = Aaaa::Denied;
        }
        let policy = policy::Policy::new(rules);
        let upstream = Upstream::new(Vec::new(), settings);
        let stub = Stub::with_policy(upstream, policy, StubConfig::default());
        let sockets = listeners.into_tokio()?;
        let serving = Arc::clone(&stub);
        let task = tokio::spawn(async move {
            if sockets.udp.is_empty() {
                return;
            }
            let stopped = serving.listen(sockets).await;
            warn!(error = %stopped, "lookups are not answered any more");
        });
        Ok(Self {
            stub,
            filter_aaaa: config.filter_aaaa,
            post_quantum: config.post_quantum,
            task,
        })
    }

    /// Asks these resolvers from now on: through the relays that are named among them, if any are, and then in no other way.
    pub(crate) fn use_stamps(&self, stamps: &[String]) {
        let (resolvers, route) = read_stamps(stamps);
        self.stub.upstream().set_resolvers(resolvers, &route);
    }

    /// A lease is in use: names have IPv6 addresses only where it has one, if that was left to it.
    pub(crate) fn use_addresses(&self, addresses: &[IpNet]) {
        if self.filter_aaaa == FilterAaaa::Auto {
            let has_ipv6 = addresses.iter().any(|net| matches!(net, IpNet::V6(_)));
            let aaaa = if has_ipv6 { Aaaa::Asked } else { Aaaa::Denied };
            self.stub.policy().set_aaaa(aaaa);
        }
    }

    /// These are the gateways' own addresses inside the tunnel, which names may have.
    pub(crate) fn use_gateways(&self, addresses: impl Iterator<Item = IpAddr>) {
        self.stub.policy().set_gateways(addresses.collect());
    }

    /// The way to the resolvers is new: nothing is held against them.
    pub(crate) fn network_changed(&self) {
        self.stub.upstream().network_changed();
    }

    /// What is counted.
    pub(crate) fn counters(&self) -> DnsStatus {
        let figures = self.stub.figures();
        let dropped = self.stub.counters().all_dropped();
        let health = self.stub.upstream().health();
        let systems = health
            .iter()
            .filter_map(|health| Some(health.certificate.as_ref()?.system));
        DnsStatus {
            queries: figures.queries as u64,
            forwarded: figures.forwarded as u64,
            cache_hits: figures.cache_hits as u64,
            failed: figures.failed as u64,
            own: figures.policy.own as u64,
            blocked: figures.policy.blocked as u64,
            rebinding: figures.policy.rebinding as u64,
            post_quantum_policy: self.post_quantum.as_str(),
            post_quantum: systems.map(|system| system == System::XWing).min(),
            dropped: dropped
                .filter(|(_, count)| *count > 0)
                .map(|(reason, count)| (reason.as_label(), count as u64))
                .collect(),
        }
    }
}

/// Whether a stamp is a relay's. One that cannot be read is one all the same: without it nothing may go straight.
pub(crate) fn is_relay(stamp: &str) -> bool {
    // As stamps are read.
    stamp.trim_start().starts_with(RELAY_STAMPS)
}

fn read_stamps(stamps: &[String]) -> (Vec<DnsCryptStamp>, Route) {
    let (mut resolvers, mut relays) = (Vec::new(), Vec::new());
    for text in stamps {
        match text.parse() {
            Ok(Stamp::DnsCrypt(stamp)) => resolvers.push(stamp),
            Ok(Stamp::DnsCryptRelay { addr }) => relays.push(addr),
            Ok(other) => {
                let kind = other.kind_name();
                warn!(kind, "a resolver of the lease cannot be used");
            }
            Err(error) => warn!(%error, "a resolver of the lease cannot be used"),
        }
    }
    let route = if stamps.iter().any(|text| is_relay(text)) {
        Route::Relays(relays)
    } else {
        Route::Direct
    };
    (resolvers, route)
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests;
