//! The server's TLS identity: one Ed25519 key, pinned by its SPKI in every image, in a self-signed
//! certificate that nobody has to trust. TLS 1.3 only, aws-lc-rs, post-quantum key exchange preferred.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Context;
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ED25519, PublicKeyData};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::crypto::aws_lc_rs::kx_group::{SECP256R1, X25519, X25519MLKEM768};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::failure::{Blame, Failure};

/// SHA-256 of a SubjectPublicKeyInfo, as images carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spki([u8; 32]);

impl fmt::Display for Spki {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// The server's key and certificate.
pub struct TlsIdentity {
    /// PKCS #8.
    pub(crate) key_pem: Zeroizing<String>,
    pub(crate) certificate_pem: String,
    /// What clients pin.
    pub spki: Spki,
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsIdentity({}, secret)", self.spki)
    }
}

impl TlsIdentity {
    /// Makes a key and a certificate that names the server's address.
    pub fn generate(address: IpAddr) -> anyhow::Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ED25519).context("cannot make a TLS key")?;
        let mut params = CertificateParams::new([address.to_string()])?;
        params
            .distinguished_name
            .push(DnType::CommonName, "culvert provisioning");
        let certificate = params
            .self_signed(&key)
            .context("cannot make a certificate")?;
        Ok(Self {
            key_pem: Zeroizing::new(key.serialize_pem()),
            certificate_pem: certificate.pem(),
            spki: spki_of(&key),
        })
    }

    /// Reads what `generate` made.
    pub(crate) fn from_pem(key_pem: &Zeroizing<String>, certificate: &str) -> anyhow::Result<Self> {
        let key = KeyPair::from_pem(key_pem).map_err(|_| {
            let sentence = "server.key is not a private key in PEM; restore it from a backup";
            Failure::new(Blame::Config, sentence)
        })?;
        Ok(Self {
            key_pem: key_pem.clone(),
            certificate_pem: certificate.to_owned(),
            spki: spki_of(&key),
        })
    }

    /// The configuration of the API's listener.
    pub(crate) fn server_config(&self) -> anyhow::Result<Arc<ServerConfig>> {
        let mut provider = aws_lc_rs::default_provider();
        provider.kx_groups = vec![X25519MLKEM768, X25519, SECP256R1];
        let certificate = CertificateDer::from_pem_slice(self.certificate_pem.as_bytes())
            .context("server.crt is not a certificate in PEM")?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())
            .context("server.key is not a private key in PEM")?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .context("server.crt does not belong to server.key")?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A resumed session would bind proofs to a ticket; a full handshake once a day costs nothing.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(Arc::new(config))
    }
}

fn spki_of(key: &KeyPair) -> Spki {
    Spki(Sha256::digest(key.subject_public_key_info()).into())
}
