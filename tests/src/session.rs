//! A TLS connection to provisioning with just enough HTTP, and the bytes that bind signatures to it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

const EXPORTER_LABEL: &str = "EXPORTER-Culvert-v1";
/// A long poll of a shard's stream ends well within it.
const TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) struct Session {
    stream: StreamOwned<ClientConnection, TcpStream>,
}

impl Session {
    pub(crate) fn open(server: SocketAddr) -> Result<Self> {
        let tcp = TcpStream::connect_timeout(&server, TIMEOUT).context("connecting")?;
        tcp.set_read_timeout(Some(TIMEOUT))
            .context("setting a timeout")?;
        tcp.set_nodelay(true).context("setting no delay")?;
        let tls = ClientConnection::new(Arc::new(config()?), ServerName::from(server.ip()))
            .context("starting TLS")?;
        Ok(Self {
            stream: StreamOwned::new(tls, tcp),
        })
    }

    /// What both ends of this connection know and nobody else; there once something was read.
    pub(crate) fn exporter(&self) -> Result<[u8; 32]> {
        self.stream
            .conn
            .export_keying_material([0; 32], EXPORTER_LABEL.as_bytes(), Some(&[]))
            .context("exporting from TLS")
    }

    pub(crate) fn post(&mut self, path: &str, body: &[u8]) -> Result<(u16, Vec<u8>)> {
        self.request("POST", path, "Content-Type: application/cbor\r\n", body)
    }

    pub(crate) fn get(&mut self, path: &str, header: &str) -> Result<(u16, Vec<u8>)> {
        self.request("GET", path, header, &[])
    }

    fn request(
        &mut self,
        verb: &str,
        path: &str,
        header: &str,
        body: &[u8],
    ) -> Result<(u16, Vec<u8>)> {
        let mut message = format!(
            "{verb} {path} HTTP/1.1\r\nHost: provisioning\r\n{header}Content-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        message.extend(body);
        self.pass_on(&message)?;
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            if let Some(whole) = whole_answer(&answer)? {
                return Ok(whole);
            }
            let got = self.stream.read(&mut buffer).context("reading an answer")?;
            if got == 0 {
                bail!("the connection ended inside an answer");
            }
            answer.extend(buffer.iter().take(got));
        }
    }

    /// Sends bytes as they are.
    pub(crate) fn pass_on(&mut self, message: &[u8]) -> Result<()> {
        self.stream.write_all(message).context("sending a request")
    }

    /// Gives all that the server says until it ends the connection.
    pub(crate) fn rest(&mut self) -> Result<Vec<u8>> {
        let mut rest = Vec::new();
        self.stream
            .read_to_end(&mut rest)
            .context("reading an answer")?;
        Ok(rest)
    }
}

/// Status and body, once all of them are there. The server sends lengths, never chunks.
fn whole_answer(bytes: &[u8]) -> Result<Option<(u16, Vec<u8>)>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let (head, body) = bytes
        .split_at_checked(end + 4)
        .context("an answer without a body")?;
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|word| word.parse().ok())
        .context("an answer without a status")?;
    let length: usize = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .and_then(|value| value.trim().parse().ok())
        .context("an answer without a length")?;
    Ok(body.get(..length).map(|body| (status, body.to_vec())))
}

fn config() -> Result<ClientConfig> {
    let provider = rustls::crypto::ring::default_provider();
    let anyone = Anyone(provider.signature_verification_algorithms);
    Ok(ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("choosing TLS 1.3")?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(anyone))
        .with_no_client_auth())
}

/// Whoever answers in the lab is the server; that a router looks closer is the agent's tests' concern.
#[derive(Debug)]
struct Anyone(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
