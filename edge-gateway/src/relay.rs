//! The gateway's relay: WireGuard's datagrams inside HTTP (RFC 9298), over HTTP/3 and, where no UDP passes at all, over
//! TLS, for routers whose network blocks or throttles the WireGuard port.
//!
//! A session is a UDP socket to this machine's own WireGuard listener and nothing else, so that nobody needs to prove
//! anything to the relay: what is inside proves itself to WireGuard. Whoever asks for anything else meets an ordinary
//! web server. Tasks own their connections and end with them; aborting one is like a cut cable.
//!
//! Read in this order: `limits`, `site` (what a browser sees), `tls`, `inside` (the socket to WireGuard), `quic`, `tcp`.

mod inside;
mod limits;
mod quic;
mod site;
mod tcp;
mod tls;

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::sync::Arc;

use hyper::Method;
use masque::Target;
use tokio::task::JoinSet;

use crate::config;
use crate::exit::Fault;
pub(crate) use limits::Figures;
use limits::{Limits, Place, count};
use site::{Page, Site};
use tls::Tls;

/// Connections at a time of each carrier, with or without a session, if the sessions do not want more; each is some tens of
/// kilobytes.
const LEAST_CONNECTIONS: usize = 8_192;

/// What was opened as root.
pub(crate) struct Relay {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
    tls: Tls,
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
        let tls = Tls::load(config)?;
        let page = config
            .page_file
            .as_ref()
            .map(std::fs::read)
            .transpose()
            .map_err(|error| Fault::io("read relay.page-file", &error))?;
        let mut relay = Self {
            udp: Vec::new(),
            tcp: Vec::new(),
            tls,
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
        let certificate = self.tls.certificate;
        listeners.spawn(async move { certificate.follow().await });
        for udp in self.udp {
            let (tls, door) = (Arc::clone(&self.tls.quic), Arc::clone(&self.door));
            listeners.spawn(quic::serve(udp, tls, door));
        }
        for tcp in self.tcp {
            let (tls, door) = (Arc::clone(&self.tls.tcp), Arc::clone(&self.door));
            listeners.spawn(tcp::serve(tcp, tls, door));
        }
        match listeners.join_next().await {
            Some(Ok(fault)) => fault,
            Some(Err(_)) | None => Fault::new(crate::exit::Exit::Bug, "the relay ended"),
        }
    }
}

/// SHA-256 of the public key of the relay's certificate.
pub(crate) fn pin(certificate_file: &Path) -> Result<[u8; 32], Fault> {
    tls::pin(certificate_file)
}

impl Door {
    fn new(config: &config::Relay, page: Option<Vec<u8>>) -> Self {
        let sessions = config.max_sessions as usize;
        let per_source = config.max_per_source as usize;
        // Whoever moves to a new connection has the old one for a while.
        let connections = || Limits::new(LEAST_CONNECTIONS.max(2 * sessions), 2 * per_source);
        Self {
            targets: config.targets.clone(),
            inside: config.inside,
            limits: Limits::new(sessions, per_source),
            quic: connections(),
            tcp: connections(),
            figures: Arc::default(),
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
            None => {
                count(&self.figures.refused_full, 1);
                Decision::Show(self.site.busy())
            }
        }
    }

    /// A place for one more connection, of a source that has shown that it is where it says.
    fn let_in(&self, carrier: &Arc<Limits>, from: SocketAddr) -> Option<Place> {
        let place = carrier.enter(from.ip());
        if place.is_none() {
            count(&self.figures.refused_connections, 1);
        }
        place
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
