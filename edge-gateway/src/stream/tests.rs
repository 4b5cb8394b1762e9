use std::net::Ipv4Addr;

use http_body_util::Full;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use trust::ShardEntry;

use super::*;
use crate::config::Digest;

/// A TLS 1.3 server with a key of its own that answers every request alike, to signed connections only.
struct Server {
    url: ServerUrl,
    spki: Digest,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start(status: StatusCode, body: Vec<u8>) -> Self {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let certificate = rcgen::CertificateParams::default()
            .self_signed(&key)
            .unwrap();
        let spki =
            Digest(Sha256::digest(rcgen::PublicKeyData::subject_public_key_info(&key)).into());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from(certificate.der().to_vec())],
                PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )
            .unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let task = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                // A client that refuses us ends the handshake; the next one is welcome.
                if let Ok(stream) = acceptor.accept(tcp).await {
                    answer_all(stream, status, body.clone()).await;
                }
            }
        });
        Self {
            url: ServerUrl {
                host: "127.0.0.1".to_owned(),
                port,
            },
            spki,
            task,
        }
    }

    fn office(&self, pin: Digest) -> Office {
        let tls = pin::client_config(&[pin]).unwrap();
        Office::new(self.url.clone(), tls, SigningKey::from_bytes(&[5; 32]))
    }
}

async fn answer_all(
    stream: tokio_rustls::server::TlsStream<TcpStream>,
    status: StatusCode,
    body: Vec<u8>,
) {
    let exporter = stream
        .get_ref()
        .1
        .export_keying_material([0; 32], EXPORTER_LABEL.as_bytes(), Some(&[]))
        .unwrap();
    let service = service_fn(move |request: Request<Incoming>| {
        let proof = request
            .headers()
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let signer = proof.and_then(|proof| {
            proof
                .parse::<ChannelProof>()
                .ok()?
                .verify(ROLE, &exporter)
                .ok()
        });
        let ours = trust::key_id(&SigningKey::from_bytes(&[5; 32]).verifying_key().to_bytes());
        let mut response = Response::new(Full::new(Bytes::from(body.clone())));
        *response.status_mut() = if signer == Some(ours) {
            status
        } else {
            StatusCode::UNAUTHORIZED
        };
        async move { Ok::<_, std::convert::Infallible>(response) }
    });
    // How the client leaves is its own affair.
    let _left = server::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn page(shard: u32) -> ShardPage {
    let entry = ShardEntry::Lease {
        lease: vec![1, 2, 3],
        salt: [4; 32],
        proof: "proof\n".to_owned(),
    };
    ShardPage {
        shard,
        from: 0,
        next: 1,
        entries: vec![entry],
    }
}

async fn fetch(server: &Server) -> Result<ShardPage, StreamError> {
    let mut connection = server.office(server.spki).connect().await?;
    connection.page(1, 0, Duration::ZERO).await
}

#[tokio::test]
async fn a_server_with_another_key_is_told_nothing() {
    let server = Server::start(StatusCode::OK, page(1).to_bytes()).await;

    let refused = server
        .office(Digest([0; 32]))
        .connect()
        .await
        .map(|_| ())
        .unwrap_err();

    assert!(
        matches!(refused, StreamError::WrongServer { .. }),
        "{refused}"
    );
    assert!(
        refused
            .to_string()
            .contains("its key is none of provisioning.spki-sha256")
    );
}

#[tokio::test]
async fn a_refusal_is_passed_on_in_the_servers_words() {
    let problem = br#"{"code":"gateway-unknown","message":"no such\ngateway","action":"add it"}"#;
    let server = Server::start(StatusCode::FORBIDDEN, problem.to_vec()).await;

    let refused = fetch(&server).await.unwrap_err();

    assert!(matches!(refused, StreamError::Refused { .. }), "{refused}");
    assert!(
        refused
            .to_string()
            .ends_with("no suchgateway (gateway-unknown)"),
        "{refused}"
    );
}

#[tokio::test]
async fn pages_that_are_garbled_too_long_or_of_another_shard_are_refused() {
    let garbled = Server::start(StatusCode::OK, vec![0xff; 40]).await;
    let other = Server::start(StatusCode::OK, page(2).to_bytes()).await;
    let endless = Server::start(StatusCode::OK, vec![0; MAX_PAGE_BYTES + 1]).await;

    assert!(matches!(fetch(&garbled).await, Err(StreamError::Page(_))));
    assert!(matches!(fetch(&other).await, Err(StreamError::OtherPage)));
    assert!(matches!(fetch(&endless).await, Err(StreamError::Body)));
}

#[tokio::test]
async fn nobody_listening_is_said_without_an_error_number() {
    let unused = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = unused.local_addr().unwrap().port();
    drop(unused);
    let url = ServerUrl {
        host: "127.0.0.1".to_owned(),
        port,
    };
    let tls = pin::client_config(&[Digest([0; 32])]).unwrap();

    let office = Office::new(url, tls, SigningKey::from_bytes(&[5; 32]));
    let error = office.connect().await.map(|_| ()).unwrap_err();

    assert_eq!(
        error.to_string(),
        format!("cannot connect to provisioning at 127.0.0.1:{port}: connection refused")
    );
}

#[tokio::test]
async fn one_signed_connection_brings_page_after_page() {
    let server = Server::start(StatusCode::OK, page(1).to_bytes()).await;
    let mut connection = server.office(server.spki).connect().await.unwrap();

    for _ in 0..3 {
        assert_eq!(
            connection.page(1, 0, Duration::ZERO).await.unwrap(),
            page(1)
        );
    }
}
