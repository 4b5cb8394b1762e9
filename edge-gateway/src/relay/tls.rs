//! The relay's certificate: from files, as any web server's, and followed when it is renewed.

use std::fmt::Display;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig};
use sha2::{Digest, Sha256};

use crate::config;
use crate::exit::{Exit, Fault};

/// How often the certificate's file is looked at: it is renewed some days before its end.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// The configurations of both carriers.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    pub(super) quic: Arc<ServerConfig>,
    pub(super) tcp: Arc<ServerConfig>,
    pub(super) certificate: Arc<Certificate>,
}

impl Tls {
    pub(super) fn load(config: &config::Relay) -> Result<Self, Fault> {
        let certificate = Arc::new(Certificate::load(config)?);
        let server = |protocol: &[u8]| -> Result<Arc<ServerConfig>, Fault> {
            let mut server =
                ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                    .with_protocol_versions(&[&rustls::version::TLS13])
                    .map_err(|error| wrong(&config.certificate_file, &error))?
                    .with_no_client_auth()
                    .with_cert_resolver(Arc::<Certificate>::clone(&certificate));
            server.alpn_protocols = vec![protocol.to_vec()];
            Ok(Arc::new(server))
        };
        Ok(Self {
            quic: server(b"h3")?,
            tcp: server(b"http/1.1")?,
            certificate,
        })
    }
}

/// What is shown to whoever connects: the file's certificates under the key of the start. Routers know the relay by that
/// key, so that a renewed certificate is one for the same key, and the key's file need not be readable any more.
#[derive(Debug)]
pub(super) struct Certificate {
    file: PathBuf,
    // Read by handshakes, written when the file has changed.
    shown: RwLock<Arc<CertifiedKey>>,
}

/// Whether a file is another one than before: its time, length and inode.
type Stamp = Option<(SystemTime, u64, u64)>;

impl Certificate {
    fn load(config: &config::Relay) -> Result<Self, Fault> {
        let file = config.certificate_file.clone();
        let provider = aws_lc_rs::default_provider();
        let key = key(&config.key_file)?;
        let certified = CertifiedKey::from_der(chain(&file)?, key, &provider)
            .map_err(|error| wrong(&file, &error))?;
        Ok(Self {
            file,
            shown: RwLock::new(Arc::new(certified)),
        })
    }

    /// Follows the file for as long as the relay lives.
    pub(super) async fn follow(&self) -> Fault {
        let mut seen = self.stamp();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let stamp = self.stamp();
            if stamp == seen {
                continue;
            }
            seen = stamp;
            match self.reload() {
                Ok(()) => tracing::info!("the relay shows its renewed certificate"),
                Err(fault) => {
                    tracing::warn!(error = %fault, "the relay goes on with the certificate that it has");
                }
            }
        }
    }

    fn stamp(&self) -> Stamp {
        let file = std::fs::metadata(&self.file).ok()?;
        Some((file.modified().ok()?, file.len(), file.ino()))
    }

    /// Reads the file again; one that is torn, or for another key, changes nothing.
    pub(super) fn reload(&self) -> Result<(), Fault> {
        let key = Arc::clone(&self.shown().key);
        let certified = CertifiedKey::new(chain(&self.file)?, key);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(error) => return Err(wrong(&self.file, &error)),
        }
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(certified);
        Ok(())
    }

    fn shown(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.shown.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.shown())
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
