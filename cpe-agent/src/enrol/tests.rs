//! Servers that are wrong in one way each, over real TLS. The right one is the provisioning binary, in the lab.

use std::sync::Arc;

use rand_core::OsRng;
use rustls::pki_types::PrivateKeyDer;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::*;

/// What a server does after TLS, or in its place.
enum Server {
    /// One to each question.
    Answers(Vec<Vec<u8>>),
    SpeaksNoTls,
}

/// A server for one connection: its address and its pin, and what it read after TLS.
async fn server(behaviour: Server) -> (SocketAddr, [u8; 32], tokio::task::JoinHandle<Vec<u8>>) {
    let made = rcgen::generate_simple_self_signed(vec!["culvert.test".into()]).unwrap();
    let pin = Sha256::digest(rcgen::PublicKeyData::subject_public_key_info(
        &made.signing_key,
    ))
    .into();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_protocol_versions(&[&rustls::version::TLS13])
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(vec![made.cert.der().clone()], key)
    .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        converse(tcp, tls, behaviour).await
    });
    (address, pin, task)
}

async fn converse(mut tcp: TcpStream, tls: rustls::ServerConfig, behaviour: Server) -> Vec<u8> {
    let answers = match behaviour {
        Server::Answers(answers) => answers,
        Server::SpeaksNoTls => {
            tcp.write_all(b"220 mail.example ESMTP\r\n").await.unwrap();
            return Vec::new();
        }
    };
    let Ok(mut stream) = TlsAcceptor::from(Arc::new(tls)).accept(tcp).await else {
        return Vec::new();
    };
    let mut first = Vec::new();
    for answer in answers {
        let mut read = vec![0; 4096];
        let length = stream.read(&mut read).await.unwrap_or(0);
        read.truncate(length);
        if first.is_empty() {
            first = read;
        }
        // The client may have gone away, which is what some tests are about.
        let _ = stream.write_all(&answer).await;
    }
    let _ = stream.shutdown().await;
    first
}

fn provisioning(server: SocketAddr, pin: [u8; 32]) -> Provisioning {
    Provisioning {
        server,
        pins: vec![pin],
    }
}

fn applicant() -> Applicant {
    Applicant {
        device: SigningKey::from_bytes(&[9; 32]),
        tunnel: Secret(StaticSecret::random_from_rng(OsRng)),
        claim: Some(ClaimCode::generate(&mut OsRng)),
        fleet_size: 0,
        people_epoch: 1,
        wish: None,
    }
}

/// Marking a socket takes the right to; without it these tests cannot run, and say so.
fn may_mark() -> bool {
    let may = netio::privileges::is_root();
    if !may {
        eprintln!("SKIPPED: needs root, to mark sockets");
    }
    may
}

async fn ask(answer: &[u8]) -> ExchangeError {
    ask_each([answer]).await
}

/// The first question is the one for states of the authority.
async fn ask_each<const N: usize>(answers: [&[u8]; N]) -> ExchangeError {
    let answers = answers.map(<[u8]>::to_vec).to_vec();
    let (address, pin, _task) = server(Server::Answers(answers)).await;
    exchange(&provisioning(address, pin), &applicant())
        .await
        .unwrap_err()
}

#[tokio::test]
async fn a_server_with_another_key_is_told_nothing() {
    if !may_mark() {
        return;
    }
    let (address, _pin, task) = server(Server::Answers(vec![Vec::new()])).await;

    let error = exchange(&provisioning(address, [7; 32]), &applicant())
        .await
        .unwrap_err();

    assert!(
        matches!(error, ExchangeError::WrongServer(at) if at == address),
        "{error:?}"
    );
    assert!(error.to_string().contains(&address.to_string()));
    assert_eq!(task.await.unwrap(), b"");
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_an_error_of_tls() {
    if !may_mark() {
        return;
    }
    let (address, pin, _task) = server(Server::SpeaksNoTls).await;

    let error = exchange(&provisioning(address, pin), &applicant())
        .await
        .unwrap_err();

    assert!(matches!(error, ExchangeError::Tls(_)), "{error:?}");
}

#[tokio::test]
async fn nobody_there_is_worth_another_try() {
    if !may_mark() {
        return;
    }
    let address = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();

    let error = exchange(&provisioning(address, [0; 32]), &applicant())
        .await
        .unwrap_err();

    assert!(
        matches!(error, ExchangeError::Unreachable { .. }),
        "{error:?}"
    );
    assert_eq!(error.remedy(), Remedy::Retry);
}

#[tokio::test]
async fn answers_that_are_cut_too_long_or_not_of_the_protocol_are_told_apart() {
    if !may_mark() {
        return;
    }
    let endless = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 262145\r\n\r\n".as_slice(),
        &vec![0; 262_145],
    ]
    .concat();

    let cut = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc";
    let no_cbor = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc";

    assert!(matches!(
        ask(b"").await,
        ExchangeError::Http(HttpError::Cut(_))
    ));
    assert!(matches!(
        ask(b"what\r\n\r\n").await,
        ExchangeError::Http(HttpError::Malformed)
    ));
    assert!(matches!(
        ask(cut).await,
        ExchangeError::Http(HttpError::Cut(_))
    ));
    assert!(matches!(
        ask(&endless).await,
        ExchangeError::Http(HttpError::TooLong)
    ));
    // A state that cannot be read keeps nobody from asking for a lease.
    let nonsense = ask_each([no_cbor.as_slice(), no_cbor]).await;
    assert!(matches!(nonsense, ExchangeError::Malformed(_)));
}

#[tokio::test]
async fn a_refusal_is_known_by_its_code() {
    if !may_mark() {
        return;
    }
    let body = r#"{"code":"claim-spent","message":"m","action":"a"}"#;
    let answer = format!(
        "HTTP/1.1 403 Forbidden\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );

    let error = ask(answer.as_bytes()).await;

    assert!(
        matches!(error, ExchangeError::Refused(Refusal::ClaimSpent)),
        "{error:?}"
    );
    assert_eq!(error.remedy(), Remedy::NewClaim);
}

#[test]
fn every_refusal_has_its_meaning_and_an_unknown_one_its_status() {
    let of = |status: u16, code: &str| {
        let body = format!("{{\"code\":\"{code}\",\"message\":\"\",\"action\":\"\"}}");
        refusal(status, body.as_bytes())
    };

    assert_eq!(of(403, "claim-unknown"), Refusal::ClaimUnknown);
    assert_eq!(of(403, "claim-expired"), Refusal::ClaimExpired);
    assert_eq!(of(403, "device-revoked"), Refusal::DeviceRevoked);
    assert_eq!(of(403, "device-unknown"), Refusal::DeviceUnknown);
    assert_eq!(of(403, "proof-invalid"), Refusal::ProofInvalid);
    assert_eq!(of(409, "no-gateway"), Refusal::NoGateway);
    assert_eq!(of(503, "not-cosigned"), Refusal::NotCosigned);
    assert_eq!(of(429, "slow-down"), Refusal::Later);
    assert_eq!(refusal(503, b"<html>"), Refusal::Later);
    assert_eq!(of(418, "teapot"), Refusal::Status(418));
}

#[test]
fn the_debug_form_of_an_applicant_shows_no_secret() {
    let applicant = applicant();

    let shown = format!("{applicant:?}");

    assert!(
        shown.contains("tunnel: Secret") && shown.contains("ClaimCode(secret)"),
        "{shown}"
    );
}
