//! The doors on loopback, with clients of the crates that real devices use.

mod room;

use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::Ordering;
use std::task::Poll;

use bytes::{Buf, Bytes};
use dnscrypt_proxy::proto::message;
use hickory_proto::op::Message;
use hickory_proto::rr::{Name, RecordType};
use hyper::{Request, StatusCode};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::front::Door;
use super::*;
use crate::own_names::OwnNames;
use crate::resolver::Resolver;

mod one_port;

const NAME: &str = "dns.example.net";
const LIMIT: Duration = Duration::from_secs(10);
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

struct Rig {
    tls: SocketAddr,
    https: SocketAddr,
    http3: SocketAddr,
    quic: SocketAddr,
    figures: Arc<Figures>,
    roots: RootCertStore,
    _files: tempfile::TempDir,
    _serving: JoinSet<()>,
}

fn config(files: &tempfile::TempDir, name: &str) -> config::Doors {
    let any = vec![SocketAddr::new(HERE, 0)];
    config::Doors {
        name: name.to_owned(),
        host: Name::from_ascii(name).unwrap(),
        certificate_file: files.path().join("crt"),
        key_file: files.path().join("key"),
        tls: any.clone(),
        https: any.clone(),
        shared: Vec::new(),
        quic: any,
        max_connections: 8,
        max_per_source: 3,
    }
}

fn certificate() -> (tempfile::TempDir, RootCertStore) {
    let files = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();
    std::fs::write(files.path().join("crt"), made.cert.pem()).unwrap();
    std::fs::write(files.path().join("key"), made.signing_key.serialize_pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    (files, roots)
}

fn rig(rate: Option<u32>) -> Rig {
    let (files, roots) = certificate();
    let doors = Doors::bind(&config(&files, NAME), &Homes::default()).unwrap();
    let (tls, https) = (&doors.tls[0], &doors.https[0].0);
    let (tls, https) = (tls.local_addr().unwrap(), https.local_addr().unwrap());
    let http3 = doors.https[0].1.local_addr().unwrap();
    let quic = doors.quic[0].local_addr().unwrap();
    let figures = doors.figures();
    let rate = rate.map(|rate| rate.try_into().unwrap());
    let rate = rate.map(|rate| Rate {
        per_second: rate,
        burst: rate,
    });
    let answers = answers(SocketAddr::new(HERE, 9));
    let mut serving = JoinSet::new();
    serving.spawn(async move { drop(doors.serve(answers, rate).await) });
    Rig {
        tls,
        https,
        http3,
        quic,
        figures,
        roots,
        _files: files,
        _serving: serving,
    }
}

/// What asks this resolver.
fn answers(upstream: SocketAddr) -> Answers {
    let dns = config::Dns::forwarding_to(upstream);
    Answers::new(
        OwnNames::new(&dns),
        (Resolver::new(&dns).unwrap(), None),
        Homes::default(),
        Arc::default(),
    )
}

fn query(id: u16) -> Vec<u8> {
    message::query(id, "localhost", RecordType::A, 1232).unwrap()
}

fn is_answer(answer: &[u8], id: u16) -> bool {
    let answer = Message::from_vec(answer).unwrap();
    let data = answer.answers[0].data.to_string();
    answer.metadata.id == id && data == "127.0.0.1"
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes(), message].concat()
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

    async fn connect(
        &self,
        to: SocketAddr,
        protocol: &[u8],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        self.connect_from(HERE, to, protocol).await
    }

    async fn connect_from(
        &self,
        from: IpAddr,
        to: SocketAddr,
        protocol: &[u8],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        let tcp = socket.connect(to).await?;
        let connector = TlsConnector::from(Arc::new(self.client(protocol)));
        let name = ServerName::try_from(NAME).unwrap();
        connector.connect(name, tcp).await
    }

    async fn http(&self) -> h2::client::SendRequest<Bytes> {
        let stream = self.connect(self.https, b"h2").await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        sender.ready().await.unwrap()
    }

    async fn quic(&self) -> (quinn::Endpoint, quinn::Connection) {
        self.over_udp(self.quic, b"doq").await
    }

    async fn over_udp(
        &self,
        to: SocketAddr,
        protocol: &[u8],
    ) -> (quinn::Endpoint, quinn::Connection) {
        self.over_udp_from(HERE, to, protocol).await
    }

    async fn over_udp_from(
        &self,
        from: IpAddr,
        to: SocketAddr,
        protocol: &[u8],
    ) -> (quinn::Endpoint, quinn::Connection) {
        let mut endpoint = quinn::Endpoint::client(SocketAddr::new(from, 0)).unwrap();
        let tls = QuicClientConfig::try_from(self.client(protocol)).unwrap();
        endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(tls)));
        let connecting = endpoint.connect(to, NAME).unwrap();
        (endpoint, connecting.await.unwrap())
    }

    fn turned_away(&self, reason: &str) -> u64 {
        let all = self.figures.turned_away();
        let of = all.into_iter().find(|(label, _)| *label == reason).unwrap();
        of.1.load(Ordering::Relaxed)
    }
}

async fn read(stream: &mut TlsStream<TcpStream>) -> Vec<u8> {
    let mut answer = vec![0; stream.read_u16().await.unwrap().into()];
    stream.read_exact(&mut answer).await.unwrap();
    answer
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(LIMIT, work).await.expect("it hangs")
}

#[tokio::test]
async fn a_certificate_for_another_name_is_a_mistake_of_the_configuration() {
    let (files, _) = certificate();

    let fault = Doors::bind(&config(&files, "dns.example.org"), &Homes::default())
        .err()
        .unwrap();

    assert_eq!(fault.exit, Exit::Config);
    assert!(
        fault.sentence.contains("is not for dns.example.org"),
        "{fault}"
    );
}

#[tokio::test]
async fn a_renewed_certificate_for_another_name_is_not_shown() {
    let (files, _) = certificate();
    let doors = Doors::bind(&config(&files, NAME), &Homes::default()).unwrap();
    let key = std::fs::read_to_string(files.path().join("key")).unwrap();
    let key = rcgen::KeyPair::from_pem(&key).unwrap();
    let renew = |name: &str| {
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let renewed = params.self_signed(&key).unwrap().pem();
        std::fs::write(files.path().join("crt"), renewed).unwrap();
        doors.certificate.reload()
    };

    let fault = renew("dns.example.org").unwrap_err();

    assert!(
        fault.sentence.contains("is not for dns.example.net"),
        "{fault}"
    );
    assert!(renew(NAME).is_ok());
}

#[tokio::test]
async fn garbage_over_tls_closes_the_connection_and_others_go_on() {
    let rig = rig(None);
    let mut other = within(rig.connect(rig.tls, b"dot")).await.unwrap();
    for garbage in [
        &framed(b"no question")[..],
        &framed(&[0; 12]),
        b"\xff\xff GET / HTTP/1.1",
    ] {
        let mut stream = within(rig.connect(rig.tls, b"dot")).await.unwrap();
        stream.write_all(garbage).await.unwrap();

        let mut rest = Vec::new();
        // The end comes with or without TLS's farewell.
        let _ended = within(stream.read_to_end(&mut rest)).await;

        assert_eq!(rest, b"");
    }

    assert_eq!(rig.turned_away("malformed"), 2);
    other.write_all(&framed(&query(7))).await.unwrap();
    assert!(is_answer(&within(read(&mut other)).await, 7));
}

#[tokio::test]
async fn a_source_has_so_many_connections_and_one_that_dribbles_loses_its_own() {
    let rig = rig(None);
    let mut slow = Vec::new();
    for _ in 0..3 {
        let mut stream = within(rig.connect(rig.tls, b"dot")).await.unwrap();
        stream.write_all(&[0]).await.unwrap();
        slow.push(stream);
    }
    assert!(within(rig.connect(rig.tls, b"dot")).await.is_err());
    assert!(within(rig.connect(rig.https, b"h2")).await.is_err());
    assert_eq!(rig.turned_away("connections"), 2);

    tokio::time::pause();
    let paused = tokio::time::Instant::now();
    for mut stream in slow {
        let mut rest = Vec::new();
        let _ended = stream.read_to_end(&mut rest).await;
        assert_eq!(rest, b"");
    }
    assert!(paused.elapsed() < IDLE, "a question had begun");
    tokio::time::resume();

    let mut next = within(rig.connect(rig.tls, b"dot")).await.unwrap();
    next.write_all(&framed(&query(1))).await.unwrap();
    assert!(is_answer(&within(read(&mut next)).await, 1));
}

#[tokio::test]
async fn questions_in_one_record_are_answered_padded_and_the_second_one_from_what_is_kept() {
    let rig = rig(None);
    let mut stream = within(rig.connect(rig.tls, b"dot")).await.unwrap();

    let both = [framed(&query(1)), framed(&query(2))].concat();
    stream.write_all(&both).await.unwrap();
    let answers = [
        within(read(&mut stream)).await,
        within(read(&mut stream)).await,
    ];

    let ids: std::collections::BTreeSet<_> = answers.iter().map(|answer| answer[1]).collect();
    assert_eq!(ids, [1, 2].into());
    assert!(answers.iter().all(|answer| answer.len() == 468));
    stream.write_all(&framed(&query(3))).await.unwrap();
    assert!(is_answer(&within(read(&mut stream)).await, 3));
    assert!(rig.figures.shared.load(Ordering::Relaxed) >= 1);
}

/// How many questions are answered before one is refused.
async fn answered(mut is_answered: impl AsyncFnMut() -> bool) -> usize {
    let mut answered = 0;
    while within(is_answered()).await {
        answered += 1;
    }
    answered
}

#[tokio::test]
async fn a_source_beyond_its_rate_is_told_so_or_closed() {
    let rig = rig(Some(1));
    let mut stream = within(rig.connect(rig.tls, b"dot")).await.unwrap();
    let mut http = within(rig.http()).await;
    let (_endpoint, connection) = within(rig.quic()).await;

    let over_tls = answered(async || {
        let asked = stream.write_all(&framed(&query(1))).await;
        asked.is_ok()
            && stream.read_u16().await.is_ok()
            && stream.read_exact(&mut [0; 468]).await.is_ok()
    });
    assert_ne!(over_tls.await, 0, "its burst");
    let mut said = StatusCode::OK;
    let over_http = async || {
        said = get(&mut http, &query(0)).await.0;
        said == StatusCode::OK
    };
    answered(over_http).await;
    assert_eq!(said, StatusCode::TOO_MANY_REQUESTS);
    answered(async || exchange(&connection, &framed(&query(0))).await.is_some()).await;
    assert_eq!(closed_with(&connection).await, 4);
    assert_eq!(rig.turned_away("over_rate"), 3);
}

#[tokio::test]
async fn one_source_has_so_many_questions_that_wait_and_leaves_the_rest_to_others() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let (answers, figures) = (answers(silent.local_addr().unwrap()), Arc::default());
    let homes = Homes::within([("fd64::1".parse().unwrap(), 48)]);
    let front = Front::new(answers, None, &homes, Arc::clone(&figures));
    let mut waiting = Vec::new();
    let mut is_waiting = async |n: usize, from: &str| {
        let query = message::query(0, &format!("n{n}.example"), RecordType::A, 1232).unwrap();
        let (front, from) = (&front, from.parse().unwrap());
        let mut asking = Box::pin(async move { front.ask(&query, from, Door::Tls).await });
        let at_once = poll_fn(|context| Poll::Ready(asking.as_mut().poll(context))).await;
        waiting.push(asking);
        at_once.is_pending()
    };

    for n in 0..4 * AT_ONCE {
        assert!(is_waiting(n, "fd64::10").await, "{n}");
    }

    assert!(!is_waiting(1_000, "fd64::10").await);
    assert_eq!(figures.overloaded.load(Ordering::Relaxed), 1);
    assert!(is_waiting(1_000, "fd64::11").await, "its neighbour");
}

fn get_of(query: &[u8]) -> Request<()> {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(query);
    let request = Request::get(format!("https://{NAME}/dns-query?dns={text}"));
    request.body(()).unwrap()
}

async fn get(http: &mut h2::client::SendRequest<Bytes>, query: &[u8]) -> (StatusCode, Vec<u8>) {
    let (answer, _) = http.send_request(get_of(query), true).unwrap();
    whole(answer.await.unwrap()).await
}

async fn whole(answer: hyper::Response<h2::RecvStream>) -> (StatusCode, Vec<u8>) {
    let (head, mut body) = answer.into_parts();
    let mut bytes = Vec::new();
    while let Some(part) = body.data().await {
        bytes.extend_from_slice(&part.unwrap());
    }
    (head.status, bytes)
}

#[tokio::test]
async fn http_2_answers_get_and_post_and_says_how_long_an_answer_lasts() {
    let rig = rig(None);
    let mut http = within(rig.http()).await;
    let (status, answer) = within(get(&mut http, &query(0))).await;
    assert!(status == StatusCode::OK && is_answer(&answer, 0));

    let request = Request::post(format!("https://{NAME}/dns-query"));
    let request = request
        .header("content-type", "application/dns-message")
        .body(())
        .unwrap();
    let (answer, mut body) = http.send_request(request, false).unwrap();
    body.send_data(query(9).into(), true).unwrap();
    let answer = within(answer).await.unwrap();

    assert_eq!(answer.headers()["cache-control"], "max-age=300");
    assert_eq!(answer.headers()["content-type"], "application/dns-message");
    assert!(is_answer(&within(whole(answer)).await.1, 9));
}

#[tokio::test]
async fn an_answer_that_is_never_taken_is_given_up() {
    let rig = rig(None);
    let stream = within(rig.connect(rig.https, b"h2")).await.unwrap();
    let mut shut = h2::client::Builder::new();
    let shaking = shut.initial_window_size(0).handshake::<_, Bytes>(stream);
    let (mut http, connection) = within(shaking).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    let (answer, _) = http.send_request(get_of(&query(0)), true).unwrap();
    let mut body = within(answer).await.unwrap().into_body();

    tokio::time::pause();
    let end = body.data().await.unwrap().unwrap_err();

    assert_eq!(end.reason(), Some(h2::Reason::CANCEL), "{end}");
}

#[tokio::test]
async fn a_body_that_is_no_question_is_refused_as_soon_as_it_is_too_long() {
    let rig = rig(None);
    let mut http = within(rig.http()).await;
    let post = || {
        let request = Request::post(format!("https://{NAME}/dns-query"));
        request
            .header("content-type", "application/dns-message")
            .body(())
            .unwrap()
    };

    let (short, mut body) = http.send_request(post(), false).unwrap();
    body.send_data(Bytes::from_static(b"no question"), true)
        .unwrap();
    let (long, mut endless) = http.send_request(post(), false).unwrap();
    endless
        .send_data(Bytes::from(vec![0; 8_000]), false)
        .unwrap();

    assert_eq!(
        within(short).await.unwrap().status(),
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        within(long).await.unwrap().status(),
        StatusCode::PAYLOAD_TOO_LARGE
    );
    assert_eq!(rig.turned_away("malformed"), 2);
}

#[tokio::test]
async fn a_client_opens_so_many_streams_and_whoever_resets_them_all_is_sent_away() {
    let rig = rig(None);
    let mut http = within(rig.http()).await;
    let (status, _) = within(get(&mut http, &query(0))).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(http.current_max_send_streams(), AT_ONCE);

    let mut is_sent_away = false;
    for _ in 0..20_000 {
        let request = Request::post(format!("https://{NAME}/dns-query"))
            .body(())
            .unwrap();
        let Ok(ready) = within(http.clone().ready()).await else {
            is_sent_away = true;
            break;
        };
        http = ready;
        match http.send_request(request, false) {
            Ok((_, mut body)) => body.send_reset(h2::Reason::CANCEL),
            Err(_) => {
                is_sent_away = true;
                break;
            }
        }
        tokio::task::yield_now().await;
    }

    assert!(is_sent_away);
    let mut next = within(rig.http()).await;
    assert_eq!(within(get(&mut next, &query(0))).await.0, StatusCode::OK);
}

async fn exchange(connection: &quinn::Connection, bytes: &[u8]) -> Option<Vec<u8>> {
    let (mut send, mut receive) = connection.open_bi().await.ok()?;
    send.write_all(bytes).await.ok()?;
    send.finish().ok()?;
    receive.read_to_end(66_000).await.ok()
}

async fn closed_with(connection: &quinn::Connection) -> u64 {
    let closed = within(connection.closed()).await;
    let quinn::ConnectionError::ApplicationClosed(close) = closed else {
        panic!("{closed}");
    };
    close.error_code.into_inner()
}

#[tokio::test]
async fn over_quic_whatever_is_not_one_question_with_the_id_0_ends_the_connection() {
    let rig = rig(None);
    let two = [framed(&query(0)), framed(&query(0))].concat();
    let cut = &framed(&query(0))[..20];
    let long = vec![0; 5_000];
    for wrong in [
        &framed(&query(1))[..],
        &two,
        cut,
        b"",
        &framed(b"\0\0 garbage"),
        &long,
    ] {
        let (_endpoint, connection) = within(rig.quic()).await;

        assert_eq!(within(exchange(&connection, wrong)).await, None);
        assert_eq!(closed_with(&connection).await, 2);
    }
}

#[tokio::test]
async fn over_quic_each_stream_has_its_own_answer_and_no_more_are_open_than_allowed() {
    let rig = rig(None);
    let (_endpoint, connection) = within(rig.quic()).await;
    let mut open = Vec::new();
    for _ in 0..AT_ONCE {
        let (mut send, receive) = within(connection.open_bi()).await.unwrap();
        send.write_all(&[0]).await.unwrap();
        open.push((send, receive));
    }
    let another = timeout(Duration::from_millis(200), connection.open_bi()).await;
    assert!(another.is_err(), "one stream too many");

    for (send, receive) in &mut open {
        let rest = &framed(&query(0))[1..];
        send.write_all(rest).await.unwrap();
        send.finish().unwrap();
        let answer = within(receive.read_to_end(66_000)).await.unwrap();
        assert_eq!(answer[..2], 468_u16.to_be_bytes());
        assert!(is_answer(&answer[2..], 0));
    }
    assert!(
        within(exchange(&connection, &framed(&query(0))))
            .await
            .is_some()
    );
}

/// The status of a POST over HTTP/3, and what came with it.
async fn post(connection: quinn::Connection, body: Vec<u8>) -> (StatusCode, Vec<u8>) {
    let connection = h3_quinn::Connection::new(connection);
    let (_driver, mut http) = h3::client::new(connection).await.unwrap();
    let request = Request::post(format!("https://{NAME}/dns-query"));
    let request = request.header("content-type", "application/dns-message");
    let mut stream = http.send_request(request.body(()).unwrap()).await.unwrap();
    stream.send_data(Bytes::from(body)).await.unwrap();
    stream.finish().await.unwrap();
    let status = stream.recv_response().await.unwrap().status();
    let mut answer = Vec::new();
    while let Some(mut part) = stream.recv_data().await.unwrap() {
        answer.extend_from_slice(&part.copy_to_bytes(part.remaining()));
    }
    (status, answer)
}

#[tokio::test]
async fn http_3_says_the_same_as_http_2() {
    let rig = rig(None);
    for (body, status) in [
        (vec![0; 5_000], StatusCode::PAYLOAD_TOO_LARGE),
        (b"no question".to_vec(), StatusCode::BAD_REQUEST),
        (query(4), StatusCode::OK),
    ] {
        let (_endpoint, connection) = within(rig.over_udp(rig.http3, b"h3")).await;

        let (said, answer) = within(post(connection, body)).await;

        assert_eq!(said, status);
        assert!(said != StatusCode::OK || is_answer(&answer, 4));
    }
}
