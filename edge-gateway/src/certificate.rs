//! A certificate for TLS: from files, as any web server's, and followed when it is renewed.

use std::fmt::Display;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::client::verify_server_name;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig};
use sha2::{Digest, Sha256};

use crate::exit::{Exit, Fault};

/// How often the certificate's file is looked at: it is renewed some days before its end.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// What is shown to whoever connects: the file's certificates under the key of the start. Routers know the relay by that
/// key, so that a renewed certificate is one for the same key, and the key's file need not be readable any more.
#[derive(Debug)]
pub(crate) struct Certificate {
    /// The table of the configuration that names it.
    table: &'static str,
    file: PathBuf,
    /// What every certificate must be for; none: whatever it is for.
    name: Option<ServerName<'static>>,
    // Read by handshakes, written when the file has changed.
    shown: RwLock<Arc<CertifiedKey>>,
}

/// Whether a file is another one than before: its time, length and inode.
type Stamp = Option<(SystemTime, u64, u64)>;

impl Certificate {
    /// Reads a certificate and its key for the part of the gateway that `table` configures.
    pub(crate) fn load(
        table: &'static str,
        (certificate, key): (&Path, &Path),
    ) -> Result<Self, Fault> {
        let unusable = |error: &dyn Display| wrong(table, certificate, error);
        let private =
            PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(table, key, &error))?;
        let chain = chain(certificate).map_err(|error| unusable(&error))?;
        let provider = aws_lc_rs::default_provider();
        let certified =
            CertifiedKey::from_der(chain, private, &provider).map_err(|error| unusable(&error))?;
        Ok(Self {
            table,
            file: certificate.to_owned(),
            name: None,
            shown: RwLock::new(Arc::new(certified)),
        })
    }

    /// A server's side of TLS 1.3 that shows it and speaks these protocols.
    pub(crate) fn server(
        self: &Arc<Self>,
        protocols: &[&[u8]],
    ) -> Result<Arc<ServerConfig>, Fault> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| wrong(self.table, &self.file, &error))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Self>::clone(self));
        server.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Arc::new(server))
    }

    /// The same if it is for a name, whoever issued it; and so must be those that come after it.
    pub(crate) fn named(mut self, name: ServerName<'static>) -> Result<Self, Fault> {
        self.name = Some(name);
        self.check(&self.shown())?;
        Ok(self)
    }

    fn check(&self, shown: &CertifiedKey) -> Result<(), Fault> {
        let Some(name) = &self.name else {
            return Ok(());
        };
        let first = shown.cert.first().map(ParsedCertificate::try_from);
        if matches!(first, Some(Ok(parsed)) if verify_server_name(&parsed, name).is_ok()) {
            return Ok(());
        }
        let other = format!("it is not for {}", name.to_str());
        Err(wrong(self.table, &self.file, &other))
    }

    /// Follows the file for as long as it is shown.
    pub(crate) async fn follow(&self) -> Fault {
        let mut seen = self.stamp();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let stamp = self.stamp();
            if stamp == seen {
                continue;
            }
            seen = stamp;
            match self.reload() {
                Ok(()) => tracing::info!(table = self.table, "a renewed certificate is shown"),
                Err(fault) => {
                    tracing::warn!(error = %fault, "the certificate that was there is shown on");
                }
            }
        }
    }

    fn stamp(&self) -> Stamp {
        let file = std::fs::metadata(&self.file).ok()?;
        Some((file.modified().ok()?, file.len(), file.ino()))
    }

    /// Reads the file again; one that is torn, or for another key or name, changes nothing.
    pub(crate) fn reload(&self) -> Result<(), Fault> {
        let key = Arc::clone(&self.shown().key);
        let unusable = |error: &dyn Display| wrong(self.table, &self.file, error);
        let chain = chain(&self.file).map_err(|error| unusable(&error))?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(error) => return Err(unusable(&error)),
        }
        self.check(&certified)?;
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

/// SHA-256 of the public key that the relay's certificate shows, by which routers know it.
pub(crate) fn pin(certificate_file: &Path) -> Result<[u8; 32], Fault> {
    let unusable = |error: &dyn Display| wrong("relay", certificate_file, error);
    let chain = chain(certificate_file).map_err(|error| unusable(&error))?;
    let Some(certificate) = chain.first() else {
        return Err(unusable(&"it holds no certificate"));
    };
    let parsed = ParsedCertificate::try_from(certificate).map_err(|error| unusable(&error))?;
    Ok(Sha256::digest(parsed.subject_public_key_info()).into())
}

fn chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    CertificateDer::pem_file_iter(file).and_then(Iterator::collect)
}

fn wrong(table: &str, file: &Path, error: &dyn Display) -> Fault {
    Fault::new(
        Exit::Config,
        format!("{table}: {} cannot be used: {error}", file.display()),
    )
}
