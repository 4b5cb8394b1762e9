//! The gateway's relay: WireGuard's datagrams inside HTTP (RFC 9298), over HTTP/3 and, where no UDP passes at all, over
//! TLS, for routers whose network blocks or throttles the WireGuard port.
//!
//! A session is a UDP socket to this machine's own WireGuard listener and nothing else, so that nobody needs to prove
//! anything to the relay: what is inside proves itself to WireGuard. Whoever asks for anything else meets an ordinary
//! web server. Tasks own their connections and end with them; aborting one is like a cut cable.
//!
//! Read in this order: `site` (what a browser sees), `inside` (the socket to WireGuard), `quic`, `tcp`.

mod inside;
mod quic;
mod site;
mod tcp;

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use hyper::Method;
use masque::Target;
use tokio::task::JoinSet;

use crate::certificate::Certificate;
use crate::config;
use crate::exit::Fault;
use crate::places::{Limits, Place, count};
use site::{Page, Site};

/// Connections at a time of each carrier, with or without a session, if the sessions do not want more; each is some tens of
/// kilobytes.
const LEAST_CONNECTIONS: usize = 8_192;

/// What the relay has done since it was started.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) quic_sessions: AtomicU64,
    pub(crate) tls_sessions: AtomicU64,
    pub(crate) quic_open: AtomicU64,
    pub(crate) tls_open: AtomicU64,
    pub(crate) from_routers_bytes: AtomicU64,
    pub(crate) to_routers_bytes: AtomicU64,
    pub(crate) refused_target: AtomicU64,
    pub(crate) refused_full: Arc<AtomicU64>,
    pub(crate) refused_connections: Arc<AtomicU64>,
    /// Questions of those who took it for a web server.
    pub(crate) pages: AtomicU64,
}

/// What was opened as root.
pub(crate) struct Relay {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
    certificate: Arc<Certificate>,
    door: Arc<Door>,
}

/// What every request is judged by.
struct Door {
    targets: Vec<SocketAddr>,
    inside: SocketAddr,
    limits: Arc<Limits>,
    /// Of connections, whatever they are for. One carrier's crowd takes nothing from the other.
    quic: Arc<Limits>,
    tcp: Arc<Limits>,
    figures: Arc<Figures>,
    site: Site,
}

/// What a request gets.
enum Decision {
    /// To be carried, from this place.
    Carry(Place),
    /// A page like any web server's.
    Show(Page),
}

impl Relay {
    /// Reads the certificate and takes the ports.
    pub(crate) fn bind(config: &config::Relay) -> Result<Self, Fault> {
        let files = (&*config.certificate_file, &*config.key_file);
        let certificate = Arc::new(Certificate::load("relay", files)?);
        let page = config
            .page_file
            .as_ref()
            .map(std::fs::read)
            .transpose()
            .map_err(|error| Fault::io("read relay.page-file", &error))?;
        let mut relay = Self {
            udp: Vec::new(),
            tcp: Vec::new(),
            certificate,
            door: Arc::new(Door::new(config, page)),
        };
        for address in &config.listen {
            let failed = |error| Fault::io(format!("listen for the relay on {address}"), &error);
            let udp = UdpSocket::bind(address).map_err(failed)?;
            let tcp = TcpListener::bind(address).map_err(failed)?;
            tcp.set_nonblocking(true).map_err(failed)?;
            relay.udp.push(udp);
            relay.tcp.push(tcp);
        }
        Ok(relay)
    }

    /// What is counted.
    pub(crate) fn figures(&self) -> Arc<Figures> {
        Arc::clone(&self.door.figures)
    }

    /// Serves until a socket is gone.
    pub(crate) async fn serve(self) -> Fault {
        let mut listeners = JoinSet::new();
        let speaking = |protocol: &[u8]| self.certificate.server(&[protocol]);
        let (quic, tls) = match (speaking(b"h3"), speaking(b"http/1.1")) {
            (Ok(quic), Ok(tls)) => (quic, tls),
            (Err(fault), _) | (_, Err(fault)) => return fault,
        };
        for udp in self.udp {
            let (tls, door) = (Arc::clone(&quic), Arc::clone(&self.door));
            listeners.spawn(quic::serve(udp, tls, door));
        }
        for tcp in self.tcp {
            let (tls, door) = (Arc::clone(&tls), Arc::clone(&self.door));
            listeners.spawn(tcp::serve(tcp, tls, door));
        }
        let certificate = self.certificate;
        listeners.spawn(async move { certificate.follow().await });
        match listeners.join_next().await {
            Some(Ok(fault)) => fault,
            Some(Err(_)) | None => Fault::new(crate::exit::Exit::Bug, "the relay ended"),
        }
    }
}

impl Door {
    fn new(config: &config::Relay, page: Option<Vec<u8>>) -> Self {
        let sessions = config.max_sessions as usize;
        let per_source = config.max_per_source as usize;
        // Whoever moves to a new connection has the old one for a while.
        let figures = Figures::default();
        let refused = &figures.refused_connections;
        let max = LEAST_CONNECTIONS.max(2 * sessions);
        let connections = || Limits::kept((max, 2 * per_source), refused);
        Self {
            targets: config.targets.clone(),
            inside: config.inside,
            limits: Limits::kept((sessions, per_source), &figures.refused_full),
            quic: connections(),
            tcp: connections(),
            figures: Arc::new(figures),
            site: Site::new(page),
        }
    }

    /// Judges a request; `is_connect_udp` is whether its method and protocol ask for UDP.
    fn decide(
        &self,
        is_connect_udp: IsConnectUdp,
        method: &Method,
        path: &str,
        from: SocketAddr,
    ) -> Decision {
        if is_connect_udp == IsConnectUdp::No {
            count(&self.figures.pages, 1);
            return Decision::Show(self.site.answer(method, path));
        }
        let target = Target::from_path(path).filter(|target| self.targets.contains(&target.0));
        if target.is_none() {
            count(&self.figures.refused_target, 1);
            // Who guesses learns no more than at any other path.
            return Decision::Show(self.site.answer(&Method::GET, path));
        }
        match self.limits.enter(from.ip()) {
            Some(place) => Decision::Carry(place),
            None => Decision::Show(self.site.busy()),
        }
    }
}

/// Whether a request is one for UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IsConnectUdp {
    Yes,
    No,
}

#[cfg(test)]
mod tests;
