//! The relay's certificate: from files, as any web server's.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ParsedCertificate;
use sha2::{Digest, Sha256};

use crate::config;
use crate::exit::{Exit, Fault};

/// The configurations of both carriers.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    pub(super) quic: Arc<ServerConfig>,
    pub(super) tcp: Arc<ServerConfig>,
}

impl Tls {
    pub(super) fn load(config: &config::Relay) -> Result<Self, Fault> {
        let server = |protocol: &[u8]| -> Result<Arc<ServerConfig>, Fault> {
            let wrong = |error| wrong(&config.certificate_file, &error);
            let mut server =
                ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                    .with_protocol_versions(&[&rustls::version::TLS13])
                    .map_err(wrong)?
                    .with_no_client_auth()
                    .with_single_cert(chain(&config.certificate_file)?, key(&config.key_file)?)
                    .map_err(wrong)?;
            server.alpn_protocols = vec![protocol.to_vec()];
            Ok(Arc::new(server))
        };
        Ok(Self {
            quic: server(b"h3")?,
            tcp: server(b"http/1.1")?,
        })
    }
}

/// SHA-256 of the public key that the relay shows, by which routers know it.
pub(super) fn pin(certificate_file: &Path) -> Result<[u8; 32], Fault> {
    let chain = chain(certificate_file)?;
    let Some(certificate) = chain.first() else {
        return Err(wrong(certificate_file, &"it holds no certificate"));
    };
    let parsed = ParsedCertificate::try_from(certificate)
        .map_err(|error| wrong(certificate_file, &error))?;
    Ok(Sha256::digest(parsed.subject_public_key_info()).into())
}

fn chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, Fault> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| wrong(file, &error))
}

fn key(file: &Path) -> Result<PrivateKeyDer<'static>, Fault> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| wrong(file, &error))
}

fn wrong(file: &Path, error: &dyn Display) -> Fault {
    Fault::new(
        Exit::Config,
        format!("relay: {} cannot be used: {error}", file.display()),
    )
}
