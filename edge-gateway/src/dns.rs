//! DNSCrypt on the gateway's inner addresses: the server of `dnscrypt-proxy` in front of [`Resolver`].
//! Only leased routers reach it: the addresses exist inside the tunnel alone and the packet filter sees
//! to it. Nothing here looks into a query.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dnscrypt_proxy::certs::{Certs, Rotation, read_provider_key};
use dnscrypt_proxy::listen::{Limits, Sockets};
use dnscrypt_proxy::proto::stamp::Props;
use dnscrypt_proxy::serve::Server;
use dnscrypt_proxy::{Counters, DnsCryptStamp, clock};

use crate::config::{self, Certificates};
use crate::exit::{Exit, Fault};
use crate::resolver::{Outcome, Resolver};

/// Everything bound and loaded, not yet answering.
pub(crate) struct Dns {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
    certs: Certs,
    resolver: Resolver,
    provider_name: String,
    figures: Arc<Figures>,
}

/// What happened to lookups, by outcome only.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    outcomes: [AtomicU64; Outcome::ALL.len()],
    /// The DNSCrypt server's own counts.
    pub server: Arc<Counters>,
}

impl Figures {
    fn count(&self, outcome: Outcome) {
        if let Some(count) = self.outcomes.get(outcome as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lookups by outcome.
    pub(crate) fn outcomes(&self) -> impl Iterator<Item = (Outcome, u64)> + '_ {
        let counts = self
            .outcomes
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        Outcome::ALL.into_iter().zip(counts)
    }
}

impl Dns {
    /// Binds the sockets and loads certificates and trust anchors, while the process may.
    pub(crate) fn bind(dns: &config::Dns) -> Result<Self, Fault> {
        let mut udp = Vec::new();
        let mut tcp = Vec::new();
        for address in &dns.listen {
            let binding = |error| Fault::io(format!("listen for DNSCrypt on {address}"), &error);
            let socket = UdpSocket::bind(address).map_err(binding)?;
            let listener = TcpListener::bind(address).map_err(binding)?;
            socket.set_nonblocking(true).map_err(binding)?;
            listener.set_nonblocking(true).map_err(binding)?;
            udp.push(socket);
            tcp.push(listener);
        }
        Ok(Self {
            udp,
            tcp,
            certs: certs(dns)?,
            resolver: Resolver::new(dns)?,
            provider_name: dns.provider_name.clone(),
            figures: Arc::default(),
        })
    }

    /// Counts, shared with the running server.
    pub(crate) fn figures(&self) -> Arc<Figures> {
        Arc::clone(&self.figures)
    }

    /// Answers until dropped; returns only if it cannot go on.
    pub(crate) async fn serve(self) -> Fault {
        let stopped =
            |what: &str| Fault::new(Exit::Bug, format!("the DNSCrypt server stopped: {what}"));
        let sockets = match sockets(self.udp, self.tcp) {
            Ok(sockets) => sockets,
            Err(error) => return Fault::io("use the DNSCrypt sockets", &error),
        };
        let server = Server {
            provider_name: self.provider_name,
            keyring: self.certs.keyring(),
            limits: Limits::SERVER,
            counters: Arc::clone(&self.figures.server),
            clock: clock::system(),
        };
        let (resolver, figures) = (Arc::new(self.resolver), self.figures);
        let answering = server.serve(sockets, move |query| {
            let (resolver, figures) = (Arc::clone(&resolver), Arc::clone(&figures));
            async move {
                let (answer, outcome) = resolver.answer(&query.message).await;
                figures.count(outcome);
                answer
            }
        });
        tokio::select! {
            error = answering => stopped(&error.to_string()),
            () = self.certs.keep_fresh() => stopped("certificates are no longer renewed"),
        }
    }
}

fn sockets(udp: Vec<UdpSocket>, tcp: Vec<TcpListener>) -> std::io::Result<Sockets> {
    Ok(Sockets {
        udp: udp
            .into_iter()
            .map(tokio::net::UdpSocket::from_std)
            .collect::<Result<_, _>>()?,
        tcp: tcp
            .into_iter()
            .map(tokio::net::TcpListener::from_std)
            .collect::<Result<_, _>>()?,
    })
}

fn certs(dns: &config::Dns) -> Result<Certs, Fault> {
    match &dns.certificates {
        Certificates::ProviderKey(file) => {
            let unusable = |reason: String| {
                Fault::new(
                    Exit::Config,
                    format!("dns.provider-key-file cannot be used: {reason}"),
                )
            };
            let key = read_provider_key(file).map_err(|error| unusable(error.to_string()))?;
            Certs::signing(key, Rotation::default(), clock::system())
                .map_err(|error| unusable(error.to_string()))
        }
        Certificates::Directory(directory) => {
            Certs::directory(directory, clock::system()).map_err(|error| {
                Fault::new(
                    Exit::Config,
                    format!("dns.certificates-dir cannot be used: {error}"),
                )
            })
        }
    }
}

/// The stamp by which routers find one of the listening addresses.
pub(crate) fn stamp(dns: &config::Dns, address: SocketAddr) -> Result<String, Fault> {
    let promised = Props::NO_LOG | Props::NO_FILTER | if dns.dnssec { Props::DNSSEC } else { 0 };
    let stamp = DnsCryptStamp {
        props: Props(promised),
        addr: address,
        provider_key: certs(dns)?.provider_public(),
        provider_name: dns.provider_name.clone(),
    };
    Ok(stamp.to_string())
}
