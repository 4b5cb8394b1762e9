//! The relay on loopback, with an echo in WireGuard's place.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use masque::http3::{Answer, CONTROL_STREAM, Part, connect_udp, write_data_header};
use masque::{Capsules, Target, capsule, payload};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::*;

const NAME: &str = "www.example.net";
const LIMIT: Duration = Duration::from_secs(10);

struct Rig {
    udp: SocketAddr,
    tcp: SocketAddr,
    target: Target,
    figures: Arc<Figures>,
    roots: RootCertStore,
    certificate: Arc<Certificate>,
    key: rcgen::KeyPair,
    files: tempfile::TempDir,
    _tasks: JoinSet<()>,
}

async fn rig() -> Rig {
    let files = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();
    let (certificate_file, key_file) = (files.path().join("crt"), files.path().join("key"));
    std::fs::write(&certificate_file, made.cert.pem()).unwrap();
    std::fs::write(&key_file, made.signing_key.serialize_pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let echo = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let inside = echo.local_addr().unwrap();
    let target: SocketAddr = "192.0.2.1:51820".parse().unwrap();
    let relay = Relay::bind(&config::Relay {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        certificate_file,
        key_file,
        targets: vec![target],
        page_file: None,
        max_sessions: 2,
        max_per_source: 1,
        inside,
    })
    .unwrap();
    let (udp, tcp) = (
        relay.udp[0].local_addr().unwrap(),
        relay.tcp[0].local_addr().unwrap(),
    );
    let figures = relay.figures();
    let certificate = Arc::clone(&relay.certificate);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = echo.recv_from(&mut buffer).await {
            echo.send_to(&buffer[..length], from).await.unwrap();
        }
    });
    tasks.spawn(async move { drop(relay.serve().await) });
    Rig {
        udp,
        tcp,
        target: Target(target),
        figures,
        roots,
        certificate,
        key: made.signing_key,
        files,
        _tasks: tasks,
    }
}

impl Rig {
    fn client(&self, protocol: &[u8]) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        config
    }

    async fn tls(&self) -> tokio_rustls::client::TlsStream<TcpStream> {
        let tcp = TcpStream::connect(self.tcp).await.unwrap();
        let connector = TlsConnector::from(Arc::new(self.client(b"http/1.1")));
        let name = ServerName::try_from(NAME).unwrap();
        connector.connect(name, tcp).await.unwrap()
    }

    /// The status of an answer over TLS, and what followed its head.
    async fn ask(&self, path: &str) -> (String, tokio_rustls::client::TlsStream<TcpStream>) {
        let mut stream = self.tls().await;
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {NAME}\r\nconnection: Upgrade\r\nupgrade: connect-udp\r\ncapsule-protocol: ?1\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        (head[9..12].to_owned(), stream)
    }
}

/// What the relay shows at the moment.
async fn shown(rig: &Rig) -> Vec<u8> {
    let stream = within(rig.tls()).await;
    let (_, connection) = stream.get_ref();
    connection.peer_certificates().unwrap()[0].to_vec()
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(LIMIT, Box::pin(work)).await.unwrap()
}

#[tokio::test]
async fn a_certificate_that_is_torn_or_for_another_key_changes_nothing() {
    let rig = rig().await;
    let before = shown(&rig).await;
    let file = rig.files.path().join("crt");
    let foreign = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();

    for text in [foreign.cert.pem(), foreign.cert.pem()[..200].to_owned()] {
        std::fs::write(&file, text).unwrap();

        assert!(rig.certificate.reload().is_err());
        assert_eq!(shown(&rig).await, before);
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_whoever_connects_next() {
    let mut rig = rig().await;
    let mut params = rcgen::CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    params.serial_number = Some(77_u64.into());
    let renewed = params.self_signed(&rig.key).unwrap();
    std::fs::write(rig.files.path().join("crt"), renewed.pem()).unwrap();
    rig.roots.add(renewed.der().clone()).unwrap();

    rig.certificate.reload().unwrap();

    assert_eq!(shown(&rig).await, renewed.der().to_vec());
}

#[tokio::test(start_paused = true)]
async fn the_file_is_looked_at_by_itself() {
    let mut rig = rig().await;
    let mut params = rcgen::CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    params.serial_number = Some(78_u64.into());
    let renewed = params.self_signed(&rig.key).unwrap();
    rig.roots.add(renewed.der().clone()).unwrap();
    // The task has seen the file as it was.
    tokio::time::advance(Duration::from_secs(1)).await;
    std::fs::write(rig.files.path().join("crt"), renewed.pem()).unwrap();

    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();

    assert_eq!(shown(&rig).await, renewed.der().to_vec());
}

#[tokio::test]
async fn over_tls_only_the_gateways_own_port_is_reached_and_each_source_has_its_share() {
    let rig = rig().await;
    let path = rig.target.path();

    let (elsewhere, _) = within(rig.ask("/.well-known/masque/udp/192.0.2.2/53/")).await;
    let (first, _open) = within(rig.ask(&path)).await;
    let (second, _) = within(rig.ask(&path)).await;

    assert_eq!((&*elsewhere, &*first, &*second), ("404", "101", "503"));
    assert_eq!(rig.figures.refused_target.load(Ordering::Relaxed), 1);
    assert_eq!(rig.figures.refused_full.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn connections_that_say_nothing_shut_out_their_own_source_alone() {
    let rig = rig().await;
    let mut idle = Vec::new();
    for _ in 0..2 {
        idle.push(TcpStream::connect(rig.tcp).await.unwrap());
    }
    let mut third = TcpStream::connect(rig.tcp).await.unwrap();

    let nothing = within(third.read(&mut [0; 1])).await;

    assert!(!matches!(nothing, Ok(1..)), "{nothing:?}");
    assert_eq!(rig.figures.refused_connections.load(Ordering::Relaxed), 1);
    let neighbour = tokio::net::TcpSocket::new_v4().unwrap();
    neighbour.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let tcp = neighbour.connect(rig.tcp).await.unwrap();
    let connector = TlsConnector::from(Arc::new(rig.client(b"http/1.1")));
    let name = ServerName::try_from(NAME).unwrap();
    assert!(within(connector.connect(name, tcp)).await.is_ok());
}

#[tokio::test]
async fn over_tls_datagrams_go_to_wireguard_and_come_back() {
    let rig = rig().await;
    let (_, mut stream) = within(rig.ask(&rig.target.path())).await;
    let sent = [vec![1; 1452], Vec::new(), vec![2; 3]];

    let mut out = Vec::new();
    sent.iter()
        .for_each(|udp| capsule::write_udp(&mut out, udp));
    stream.write_all(&out).await.unwrap();
    let (mut capsules, mut got) = (Capsules::default(), Vec::new());
    while got.len() < sent.len() {
        let mut buffer = [0; 4096];
        let length = within(stream.read(&mut buffer)).await.unwrap();
        capsules.push(&buffer[..length]);
        while let Some(udp) = capsules.next_udp().unwrap() {
            got.push(udp.to_vec());
        }
    }

    assert_eq!(got, sent);
    assert_eq!(rig.figures.tls_sessions.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn over_http3_short_datagrams_stay_datagrams_and_long_ones_become_capsules() {
    let rig = rig().await;
    let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let crypto = QuicClientConfig::try_from(rig.client(b"h3")).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
    let connection = within(endpoint.connect(rig.udp, NAME).unwrap())
        .await
        .unwrap();
    let mut control = connection.open_uni().await.unwrap();
    control.write_all(&CONTROL_STREAM).await.unwrap();
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&connect_udp(NAME, &rig.target.path()))
        .await
        .unwrap();
    let mut answer = Answer::default();
    let (mut capsules, mut buffer) = (Capsules::default(), [0; 8192]);
    let status = loop {
        let length = within(recv.read(&mut buffer)).await.unwrap().unwrap();
        answer.push(&buffer[..length]);
        if let Some(Part::Status(status)) = answer.next_part().unwrap() {
            break status;
        }
    };

    let short = payload::quic_datagram(0, b"short");
    connection.send_datagram(Bytes::from(short)).unwrap();
    let datagram = within(connection.read_datagram()).await.unwrap();
    let long = vec![7; 3000];
    let mut bytes = Vec::new();
    capsule::write_udp(&mut bytes, &long);
    let mut frame = Vec::new();
    write_data_header(&mut frame, bytes.len());
    frame.extend(bytes);
    send.write_all(&frame).await.unwrap();
    let came = loop {
        while let Some(part) = answer.next_part().unwrap() {
            if let Part::Body(body) = part {
                capsules.push(&body);
            }
        }
        if let Some(udp) = capsules.next_udp().unwrap() {
            break udp.to_vec();
        }
        let length = within(recv.read(&mut buffer)).await.unwrap().unwrap();
        answer.push(&buffer[..length]);
    };

    assert_eq!(status, 200);
    assert_eq!(
        payload::read_quic_datagram(&datagram),
        Some((0, &b"short"[..]))
    );
    assert_eq!(came, long);
    assert_eq!(rig.figures.quic_sessions.load(Ordering::Relaxed), 1);
}
