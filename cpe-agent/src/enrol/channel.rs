//! The connection to the provisioning server: a marked TCP socket, TLS 1.3, the server known by its key alone.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::ExchangeError;
use super::pin::Pins;
use super::provider::provider;
use crate::config::Provisioning;
use crate::net::MARK;

/// A TCP handshake takes a few round trips at most, also over satellites.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A slow router needs most of a second for the key exchange.
const TLS_TIMEOUT: Duration = Duration::from_secs(10);

//= https://www.rfc-editor.org/rfc/rfc9266#section-4.1 — the same construction, with a label of our own.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-Culvert-v1";

/// An open connection, and the bytes that bind signatures to it.
pub(super) struct Channel {
    pub(super) stream: TlsStream<TcpStream>,
    pub(super) exporter: [u8; 32],
}

pub(super) async fn open(provisioning: &Provisioning) -> Result<Channel, ExchangeError> {
    let server = provisioning.server;
    let tcp = match timeout(CONNECT_TIMEOUT, connect(server)).await {
        Ok(Ok(tcp)) => tcp,
        Ok(Err(source)) => return Err(ExchangeError::Unreachable { server, source }),
        Err(_) => return Err(ExchangeError::Silent("connecting")),
    };
    let connector = TlsConnector::from(Arc::new(tls_config(provisioning)?));
    let handshake = connector.connect(ServerName::from(server.ip()), tcp);
    let stream = match timeout(TLS_TIMEOUT, Box::pin(handshake)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if is_wrong_key(&error) => return Err(ExchangeError::WrongServer(server)),
        Ok(Err(error)) => return Err(ExchangeError::Tls(error)),
        Err(_) => return Err(ExchangeError::Silent("setting up TLS")),
    };
    let exporter = stream
        .get_ref()
        .1
        .export_keying_material([0; 32], EXPORTER_LABEL, Some(&[]));
    let exporter = exporter.map_err(|error| ExchangeError::Tls(io::Error::other(error)))?;
    Ok(Channel { stream, exporter })
}

async fn connect(server: SocketAddr) -> io::Result<TcpStream> {
    let socket = match server {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Lets it past the kill-switch and the tunnel's routing.
    setsockopt(&socket, sockopt::Mark, &MARK)?;
    let stream = socket.connect(server).await?;
    // Two small questions, each awaited: waiting to fill a packet only costs time.
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn tls_config(provisioning: &Provisioning) -> Result<ClientConfig, ExchangeError> {
    let provider = Arc::new(provider());
    let pins = Pins::new(&provisioning.pins);
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| ExchangeError::Tls(io::Error::other(error)))?;
    let mut config = builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pins))
        .with_no_client_auth();
    // One connection a day: a ticket would only link them.
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

fn is_wrong_key(error: &io::Error) -> bool {
    let tls = error
        .get_ref()
        .and_then(|source| source.downcast_ref::<rustls::Error>());
    matches!(
        tls,
        Some(rustls::Error::InvalidCertificate(
            CertificateError::ApplicationVerificationFailure
        ))
    )
}
