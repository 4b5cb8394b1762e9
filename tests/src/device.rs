//! A device that can only enrol: its tunnel key may then serve any WireGuard program, and it enrols in milliseconds.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use rand_core::{OsRng, RngCore};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use trust::{ClaimCode, EnrolReq, Lease, LeaseBundle, ServerChallenge};
use x25519_dalek::StaticSecret;

const EXPORTER_LABEL: &str = "EXPORTER-Culvert-v1";
const TIMEOUT: Duration = Duration::from_secs(10);

/// Keys of a device, made anew.
pub struct Device {
    identity: SigningKey,
    tunnel: StaticSecret,
}

/// How an enrolment was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// With a lease, here as the bytes that were logged.
    Leased(Vec<u8>),
    /// With a refusal: HTTP status and problem code.
    Refused(u16, String),
}

impl Default for Device {
    fn default() -> Self {
        let mut seed = [0; 32];
        OsRng.fill_bytes(&mut seed);
        Self {
            identity: SigningKey::from_bytes(&seed),
            tunnel: StaticSecret::random_from_rng(OsRng),
        }
    }
}

impl Device {
    /// The tunnel's private key in base64, as `wg` reads it.
    pub fn wireguard_private(&self) -> String {
        STANDARD.encode(self.tunnel.to_bytes())
    }

    /// The device's id in hex, as `provisioning device list` shows it.
    pub fn id(&self) -> String {
        trust::key_id(&self.identity.verifying_key().to_bytes())
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect()
    }

    /// One enrolment over one connection; an error is a connection that did not hold.
    pub fn enrol(&self, server: SocketAddr, claim: Option<&str>) -> Result<Answer> {
        let claim: Option<ClaimCode> = claim
            .map(str::parse)
            .transpose()
            .context("reading the claim code")?;
        let tcp = TcpStream::connect_timeout(&server, TIMEOUT).context("connecting")?;
        tcp.set_read_timeout(Some(TIMEOUT))
            .context("setting a timeout")?;
        tcp.set_nodelay(true).context("setting no delay")?;
        let tls = ClientConnection::new(Arc::new(config()?), ServerName::from(server.ip()))
            .context("starting TLS")?;
        let mut stream = StreamOwned::new(tls, tcp);
        let (status, body) = request(&mut stream, "/v1/enrol/challenge", &[])?;
        if status != 200 {
            bail!("no challenge: {status} {}", String::from_utf8_lossy(&body));
        }
        let exporter = stream
            .conn
            .export_keying_material([0; 32], EXPORTER_LABEL.as_bytes(), Some(&[]))
            .context("exporting from TLS")?;
        let challenge = ServerChallenge::from_bytes(&body).context("reading the challenge")?;
        let enrol = EnrolReq::build(
            &self.identity,
            &self.tunnel,
            claim.as_ref(),
            &challenge,
            &exporter,
            0,
        )
        .context("building the request")?;
        let (status, body) = request(&mut stream, "/v1/enrol", &enrol.to_bytes())?;
        if status != 200 {
            let problem: serde_json::Value =
                serde_json::from_slice(&body).context("reading the problem")?;
            return Ok(Answer::Refused(
                status,
                problem["code"].as_str().unwrap_or_default().to_owned(),
            ));
        }
        let bundle = LeaseBundle::from_bytes(&body).context("reading the bundle")?;
        Ok(Answer::Leased(bundle.lease))
    }
}

/// Reads a lease's bytes.
pub fn read_lease(bytes: &[u8]) -> Result<Lease> {
    Lease::from_bytes(bytes).context("reading a lease")
}

fn request(stream: &mut (impl Read + Write), path: &str, body: &[u8]) -> Result<(u16, Vec<u8>)> {
    let mut message = format!(
        "POST {path} HTTP/1.1\r\nHost: provisioning\r\nContent-Type: application/cbor\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    message.extend(body);
    stream.write_all(&message).context("sending a request")?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(whole) = whole_answer(&answer)? {
            return Ok(whole);
        }
        let got = stream.read(&mut buffer).context("reading an answer")?;
        if got == 0 {
            bail!("the connection ended inside an answer");
        }
        answer.extend(buffer.iter().take(got));
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
