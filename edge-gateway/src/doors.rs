//! The resolver for devices that do not speak DNSCrypt: DNS over TLS (RFC 7858), over HTTPS (RFC 8484) and over QUIC
//! (RFC 9250), on the gateway's inner addresses. A device finds them by DDR (`designation`) or is told their name.
//!
//! Every connection has a place, an idle time and a number of exchanges after which it ends; every question has a place
//! among those that wait for the resolver. Tasks own their connections and end with them.
//!
//! Read in this order: `front` (what all doors ask), `tls`, `http` (what a request means), `http2`, `quic`.

mod front;
mod http;
mod http2;
mod quic;
mod tls;

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use dnscrypt_proxy::listen::{Homes, Rate};
use dnscrypt_proxy::serve::{Begun, TlsDoor};
use quinn::Connection;
use rustls::ServerConfig;
use rustls::pki_types::ServerName;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::answers::Answers;
use crate::certificate::Certificate;
use crate::config;
use crate::exit::{Exit, Fault};
use crate::places::{Limits, over_begun_tls, over_quic, over_tls};
pub(crate) use front::Figures;
use front::Front;
pub(crate) use http::PATH;

/// Who asks nothing for so long is gone, or comes again with a new connection.
const IDLE: Duration = Duration::from_secs(30);
/// How long a question may take to arrive once it has begun, and an answer to be taken.
const EXCHANGE: Duration = Duration::from_secs(10);
/// What one connection may ask; nobody keeps one for ever.
const EXCHANGES: usize = 10_000;
/// Questions of one connection that are on their way at once.
const AT_ONCE: usize = 32;

/// What was opened as root.
pub(crate) struct Doors {
    tls: Vec<TcpListener>,
    https: Vec<(TcpListener, UdpSocket)>,
    /// What comes to DNSCrypt's port and is TLS, and where DNSCrypt leaves it.
    shared: Option<(TlsDoor, mpsc::Receiver<Begun>)>,
    quic: Vec<UdpSocket>,
    certificate: Arc<Certificate>,
    max_connections: usize,
    max_per_source: usize,
    homes: Homes,
    figures: Arc<Figures>,
}

impl Doors {
    /// Reads the certificate and takes the ports.
    pub(crate) fn bind(config: &config::Doors, homes: &Homes) -> Result<Self, Fault> {
        let files = (&*config.certificate_file, &*config.key_file);
        let name = ServerName::try_from(config.name.clone())
            .map_err(|error| Fault::new(Exit::Config, format!("dns.doors.name: {error}")))?;
        let certificate = Certificate::load("dns.doors", files)?.named(name)?;
        Ok(Self {
            tls: config.tls.iter().map(tcp).collect::<Result<_, _>>()?,
            https: (config.https.iter())
                .map(|address| Ok((tcp(address)?, udp(address)?)))
                .collect::<Result<_, _>>()?,
            shared: (!config.shared.is_empty()).then(|| TlsDoor::open(config.shared.clone())),
            quic: config.quic.iter().map(udp).collect::<Result<_, _>>()?,
            certificate: Arc::new(certificate),
            max_connections: config.max_connections as usize,
            max_per_source: config.max_per_source as usize,
            homes: homes.clone(),
            figures: Arc::default(),
        })
    }

    /// Where DNSCrypt leaves connections that speak TLS, if it shares a port.
    pub(crate) fn shared(&self) -> Option<TlsDoor> {
        self.shared.as_ref().map(|(door, _)| door.clone())
    }

    /// What is counted.
    pub(crate) fn figures(&self) -> Arc<Figures> {
        Arc::clone(&self.figures)
    }

    /// Serves until a socket is gone.
    pub(crate) async fn serve(self, answers: Answers, rate: Option<Rate>) -> Fault {
        let speaking = |protocol: &[u8]| self.certificate.server(&[protocol]);
        let protocols = [
            speaking(b"dot"),
            speaking(b"h2"),
            speaking(b"h3"),
            speaking(b"doq"),
        ];
        let [Ok(dot), Ok(h2), Ok(h3), Ok(doq)] = protocols else {
            return Fault::new(Exit::Bug, "TLS cannot be set up for dns.doors");
        };
        let figures = Arc::clone(&self.figures);
        let front = Arc::new(Front::new(answers, rate, &self.homes, figures));
        let refused = &self.figures.refused;
        let most = (self.max_connections, self.max_per_source);
        let limits = || Limits::new(most, &self.homes, refused);
        let (over_tcp, over_udp) = (limits(), limits());
        let mut listeners = JoinSet::new();
        for listener in self.tls {
            let front = Arc::clone(&front);
            let serving = over_tls(listener, Arc::clone(&dot), Arc::clone(&over_tcp), {
                move |stream, from| tls::converse(stream, from, Arc::clone(&front))
            });
            listeners.spawn(async { unusable(&serving.await) });
        }
        for (listener, socket) in self.https {
            let (front, other) = (Arc::clone(&front), Arc::clone(&front));
            let serving = over_tls(listener, Arc::clone(&h2), Arc::clone(&over_tcp), {
                move |stream, from| http2::converse(stream, from, Arc::clone(&front))
            });
            listeners.spawn(async { unusable(&serving.await) });
            let serve = move |connection| quic::converse_http(connection, Arc::clone(&other));
            listeners.spawn(over_datagrams(
                socket,
                Arc::clone(&h3),
                Arc::clone(&over_udp),
                serve,
            ));
        }
        if let Some((_, begun)) = self.shared {
            let front = Arc::clone(&front);
            let serving = over_begun_tls(begun, Arc::clone(&h2), Arc::clone(&over_tcp), {
                move |stream, from| http2::converse(stream, from, Arc::clone(&front))
            });
            listeners.spawn(async {
                serving.await;
                Fault::new(Exit::Bug, "DNSCrypt hands no connections over any more")
            });
        }
        for socket in self.quic {
            let front = Arc::clone(&front);
            let serve = move |connection| quic::converse(connection, Arc::clone(&front));
            listeners.spawn(over_datagrams(
                socket,
                Arc::clone(&doq),
                Arc::clone(&over_udp),
                serve,
            ));
        }
        let certificate = self.certificate;
        listeners.spawn(async move { certificate.follow().await });
        match listeners.join_next().await {
            Some(Ok(fault)) => fault,
            Some(Err(_)) | None => Fault::new(Exit::Bug, "a door of the resolver ended"),
        }
    }
}

/// Serves one socket of QUIC until it is gone.
async fn over_datagrams<S, F>(
    socket: UdpSocket,
    tls: Arc<ServerConfig>,
    limits: Arc<Limits>,
    serve: S,
) -> Fault
where
    S: Fn(Connection) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send,
{
    match quic::open(socket, tls) {
        Ok(endpoint) => over_quic(endpoint, limits, serve).await,
        Err(fault) => return fault,
    }
    Fault::new(Exit::Bug, "a QUIC endpoint of dns.doors was closed")
}

fn unusable(error: &std::io::Error) -> Fault {
    Fault::io("use a socket of dns.doors", error)
}

fn tcp(address: &SocketAddr) -> Result<TcpListener, Fault> {
    let failed = |error| Fault::io(format!("listen for dns.doors on {address}"), &error);
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

fn udp(address: &SocketAddr) -> Result<UdpSocket, Fault> {
    let failed = |error| Fault::io(format!("listen for dns.doors on {address}"), &error);
    UdpSocket::bind(address).map_err(failed)
}

#[cfg(test)]
mod tests;
