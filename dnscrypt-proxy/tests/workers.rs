//! The server's workers over real sockets: lookups, a crowd of strangers, a resolver that never answers, the end.

#![expect(clippy::unwrap_used, reason = "a test rig that fails should say where")]

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dnscrypt_proxy::certs::{Certs, Rotation};
use dnscrypt_proxy::listen::{Homes, Limits};
use dnscrypt_proxy::proto::cert::{Certificate, System};
use dnscrypt_proxy::proto::client::{ClientKeys, QueryPadding, Session};
use dnscrypt_proxy::proto::dropped::Counted;
use dnscrypt_proxy::proto::message;
use dnscrypt_proxy::serve::{Duties, Heard, Query, Server, WorkerSockets};
use dnscrypt_proxy::{Counters, Dropped, clock};
use ed25519_dalek::SigningKey;
use hickory_proto::rr::RecordType;
use netio::udp::Offload;
use netio::{Udp, UdpOptions};
use rand_core::OsRng;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Nobody connects from it, so a port that is free for datagrams is free for connections.
const OWN: &str = "127.0.0.5:0";
const PATIENCE: Duration = Duration::from_secs(10);
const DUTIES: Duties = Duties {
    kept_bytes: 1 << 20,
    ahead: 64,
    forwarding: None,
    tls: None,
};

struct Rig {
    address: SocketAddr,
    cert: Certificate,
    counters: Arc<Counters>,
    asked: Arc<AtomicUsize>,
    under_way: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
    _certs: Certs,
}

impl Rig {
    /// Two workers behind one port, before a resolver that answers all but the names that begin with `mute`, and
    /// those that begin with `brief` only if it was asked nothing before, for a second.
    fn start() -> Self {
        Self::start_with(2, Limits::SERVER)
    }

    fn start_with(workers: usize, limits: Limits) -> Self {
        let provider = SigningKey::from_bytes(&[5; 32]);
        let certs = Certs::signing(provider, Rotation::default(), clock::system()).unwrap();
        let cert = certs
            .keyring()
            .borrow()
            .keys()
            .iter()
            .map(|key| key.cert().clone())
            .find(|cert| cert.system == System::XChaCha20Poly1305)
            .unwrap();
        let options = UdpOptions {
            reuse_port: true,
            offload: Offload::Sending,
            ..UdpOptions::default()
        };
        // Held from the first moment on: nobody else is given the port.
        let first = Udp::bind(OWN.parse().unwrap(), &options).unwrap();
        let address = first.local_addr().unwrap();
        let others = (1..workers).map(|_| Udp::bind(address, &options).unwrap());
        let sockets = std::iter::once(first).chain(others).map(|udp| {
            let mut sockets = WorkerSockets::default();
            sockets.udp.push(udp);
            sockets.listen(address).unwrap();
            sockets
        });
        let sockets = sockets.collect();
        let counters: Arc<Counters> = Arc::default();
        let server = Server {
            provider_name: "2.dnscrypt-cert.workers.example".to_owned(),
            keyring: certs.keyring(),
            limits,
            homes: Homes::default(),
            counters: Arc::clone(&counters),
            clock: clock::system(),
        };
        let asked: Arc<AtomicUsize> = Arc::default();
        let under_way: Arc<AtomicUsize> = Arc::default();
        let (count, open) = (Arc::clone(&asked), Arc::clone(&under_way));
        let serving = tokio::spawn(async move {
            let handler = move |query: Query| {
                open.fetch_add(1, Ordering::Relaxed);
                let asking = UnderWay(Arc::clone(&open));
                let answer = answer(query, count.fetch_add(1, Ordering::Relaxed));
                async move {
                    let _asking = asking;
                    answer.await
                }
            };
            server.serve_by_workers(sockets, DUTIES, handler).await;
        });
        Self {
            address,
            cert,
            counters,
            asked,
            under_way,
            serving,
            _certs: certs,
        }
    }

    fn client(&self) -> Client {
        self.client_from("127.0.0.1")
    }

    fn client_from(&self, address: &str) -> Client {
        let socket = UdpSocket::bind((address, 0)).unwrap();
        socket.connect(self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Client {
            session: Session::new(&self.cert, &ClientKeys::generate(OsRng)).unwrap(),
            socket,
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// What anybody can make who knows the certificate.
    fn garbage(&self, n: usize) -> Vec<u8> {
        let mut packet = self.cert.magic.to_vec();
        packet.resize(256, 0x55);
        packet[8..16].copy_from_slice(&n.to_be_bytes());
        packet
    }
}

/// A question that the resolver is asked, until it has answered or nobody wants to know any more.
struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn answer(query: Query, before: usize) -> Heard {
    let question = message::Query::read(&query.message).unwrap();
    let is_brief = question.question().starts_with(b"\x05brief");
    if question.question().starts_with(b"\x04mute") || is_brief && before > 0 {
        std::future::pending::<()>().await;
    }
    let lifetime = if is_brief { [0, 1] } else { [1, 0] };
    let mut answer = question.refuse(0, None);
    answer.truncate(message::HEADER + question.question().len());
    answer[11] = 0;
    answer[7] = 1;
    answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0]);
    answer.extend_from_slice(&lifetime);
    answer.extend_from_slice(&[0, 4, 192, 0, 2, 1]);
    Heard::Answer(answer)
}

struct Client {
    session: Session,
    socket: UdpSocket,
}

impl Client {
    fn send(&self, name: &str, nonce: u8) -> Vec<u8> {
        let query = message::query(7, name, RecordType::A, 1232).unwrap();
        let padding = QueryPadding::Udp { target: 256 };
        let packet = self.session.seal_query(&query, &[nonce; 12], padding);
        self.socket.send(&packet.unwrap()).unwrap();
        query
    }

    /// How many records the answer to a query has.
    fn receive(&self, query: &[u8], nonce: u8) -> Option<u8> {
        let mut buffer = vec![0; 4096];
        let len = self.socket.recv(&mut buffer).ok()?;
        buffer.truncate(len);
        let answer = self.session.open_response(buffer, query, &[nonce; 12]);
        answer.unwrap().get(7).copied()
    }

    fn framed(&self, name: &str, nonce: u8) -> (Vec<u8>, Vec<u8>) {
        let query = message::query(7, name, RecordType::A, 1232).unwrap();
        let padding = QueryPadding::Tcp { choice: 0 };
        let packet = self.session.seal_query(&query, &[nonce; 12], padding);
        let packet = packet.unwrap();
        let len = u16::try_from(packet.len()).unwrap().to_be_bytes();
        ([&len[..], &packet].concat(), query)
    }

    fn records(&self, answer: Vec<u8>, query: &[u8], nonce: u8) -> u8 {
        let opened = self.session.open_response(answer, query, &[nonce; 12]);
        opened.unwrap()[7]
    }

    fn ask(&self, name: &str, nonce: u8) -> Option<u8> {
        let query = self.send(name, nonce);
        self.receive(&query, nonce)
    }
}

/// The next message; `None` once the connection is closed.
async fn until(is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap();
}

async fn read_frame(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let read = async {
        let len = stream.read_u16().await.ok()?;
        let mut message = vec![0; len.into()];
        stream.read_exact(&mut message).await.ok()?;
        Some(message)
    };
    tokio::time::timeout(PATIENCE, read).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_once_is_answered_from_memory_over_udp_and_over_tcp() {
    let rig = Rig::start();
    let client = rig.client();

    for nonce in 0..20 {
        assert_eq!(client.ask("www.example", nonce), Some(1));
    }
    let by_udp = rig.asked();
    for nonce in 20..40 {
        let mut stream = TcpStream::connect(rig.address).await.unwrap();
        let (frame, query) = client.framed("www.example", nonce);
        stream.write_all(&frame).await.unwrap();
        let answer = read_frame(&mut stream).await.unwrap();
        assert_eq!(client.records(answer, &query, nonce), 1);
    }

    assert_eq!(by_udp, 1);
    assert!(rig.asked() <= 2, "once for each worker at most");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_with_what_is_no_query_is_closed_and_the_others_go_on() {
    let rig = Rig::start();
    let client = rig.client();
    let mut garbage = rig.garbage(1);
    garbage.splice(0..0, u16::try_from(garbage.len()).unwrap().to_be_bytes());
    let too_long = [0xff, 0xff].to_vec();
    let nobodys = [0, 4, 1, 2, 3, 4].to_vec();
    let nothing = [0, 0].to_vec();
    let mut other = TcpStream::connect(rig.address).await.unwrap();
    let (frame, query) = client.framed("www.example", 1);
    other.write_all(&frame[..9]).await.unwrap();

    for bad in [garbage, too_long, nobodys, nothing] {
        let mut stream = TcpStream::connect(rig.address).await.unwrap();
        stream.write_all(&bad).await.unwrap();
        assert_eq!(read_frame(&mut stream).await, None, "{:?}", &bad[..2]);
    }

    other.write_all(&frame[9..]).await.unwrap();
    let answer = read_frame(&mut other).await.unwrap();
    assert_eq!(client.records(answer, &query, 1), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_that_come_in_one_piece_or_byte_by_byte_are_answered_in_their_order() {
    let rig = Rig::start();
    let client = rig.client();
    let names = ["a.example", "b.example", "a.example", "c.example"];
    let queries: Vec<_> = (1..)
        .zip(names)
        .map(|(nonce, name)| (nonce, client.framed(name, nonce)))
        .collect();
    let all: Vec<u8> = queries
        .iter()
        .flat_map(|(_, (frame, _))| frame.clone())
        .collect();

    for piece in [all.len(), 1, 300] {
        let mut stream = TcpStream::connect(rig.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        for piece in all.chunks(piece) {
            stream.write_all(piece).await.unwrap();
        }
        for (nonce, (_, query)) in &queries {
            let answer = read_frame(&mut stream).await.unwrap();
            assert_eq!(client.records(answer, query, *nonce), 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_answer_never_comes_keeps_none_from_its_own() {
    let rig = Rig::start();
    let client = rig.client();
    let mut waiting = Vec::new();
    for nonce in 0..8 {
        let mut stream = TcpStream::connect(rig.address).await.unwrap();
        let (mute, _) = client.framed("mute.example", nonce);
        let (frame, _) = client.framed("www.example", nonce);
        stream.write_all(&[mute, frame].concat()).await.unwrap();
        waiting.push(stream);
    }

    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    let (frame, query) = client.framed("www.example", 9);
    stream.write_all(&frame).await.unwrap();
    let answer = read_frame(&mut stream).await.unwrap();

    assert_eq!(client.records(answer, &query, 9), 1);
    assert_eq!(client.ask("www.example", 10), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_has_so_many_connections_and_no_more() {
    let rig = Rig::start();
    let client = rig.client();
    let (frame, query) = client.framed("www.example", 1);
    let most = 2 * Limits::SERVER.tcp_per_source;

    let mut streams = Vec::new();
    for _ in 0..most + 8 {
        let mut stream = TcpStream::connect(rig.address).await.unwrap();
        stream.write_all(&frame).await.unwrap();
        let answer = read_frame(&mut stream).await;
        streams.push((stream, answer));
    }

    let served = streams
        .iter()
        .filter(|(_, answer)| answer.is_some())
        .count();
    assert!(
        (Limits::SERVER.tcp_per_source..=most).contains(&served),
        "{served}"
    );
    assert_eq!(
        rig.counters.dropped(Dropped::TooManyConnections),
        most + 8 - served
    );
    let (_, answer) = streams.swap_remove(0);
    assert_eq!(client.records(answer.unwrap(), &query, 1), 1);
    drop(streams);
    let others = "127.0.0.9:0".parse().unwrap();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(others).unwrap();
    let mut stream = socket.connect(rig.address).await.unwrap();
    stream.write_all(&frame).await.unwrap();
    assert!(read_frame(&mut stream).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resolver_that_never_answers_delays_nobody_else() {
    let rig = Rig::start();
    let client = rig.client();
    assert_eq!(client.ask("www.example", 0), Some(1));

    for n in 0..200 {
        client.send(&format!("mute.n{n}.example"), 1);
    }

    assert_eq!(client.ask("www.example", 2), Some(1));
    assert_eq!(client.ask("other.example", 3), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_whose_place_another_home_has_is_asked_no_longer_and_the_others_are() {
    let rig = Rig::start_with(
        1,
        Limits {
            in_flight: 8,
            ..Limits::SERVER
        },
    );
    let (hog, other) = (rig.client(), rig.client_from("127.0.0.2"));
    for n in 0..8 {
        hog.send(&format!("mute.n{n}.example"), n);
    }
    until(|| rig.asked() == 8).await;

    assert_eq!(other.ask("www.example", 1), Some(1));

    until(|| rig.under_way.load(Ordering::Relaxed) == 7).await;
    assert_eq!(rig.counters.dropped(Dropped::Overloaded), 1);
    hog.send("mute.n9.example", 9);
    until(|| rig.asked() == 10).await;
    assert_eq!(rig.under_way.load(Ordering::Relaxed), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resolver_that_falls_silent_is_bridged_by_the_answer_that_ended() {
    let rig = Rig::start();
    let client = rig.client();
    let mut began = Instant::now();
    let mut nonces = (0..=u8::MAX).cycle();

    while rig.asked() < 2 {
        began = Instant::now();
        assert_eq!(client.ask("brief.example", nonces.next().unwrap()), Some(1));
    }

    assert!(began.elapsed() >= Duration::from_millis(1_700));
    assert_eq!(rig.counters.get(Counted::Stale), 1);
    let began = Instant::now();
    assert_eq!(client.ask("brief.example", 7), Some(1));
    assert!(began.elapsed() < Duration::from_secs(1), "at once");
    assert_eq!((rig.counters.get(Counted::Stale), rig.asked()), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_strangers_is_bounded_and_keeps_nobody_out_whose_key_is_known() {
    let rig = Rig::start();
    let client = rig.client();
    assert_eq!(client.ask("www.example", 0), Some(1));
    let crowd = UdpSocket::bind("127.0.0.1:0").unwrap();
    crowd.connect(rig.address).unwrap();

    for round in 0..20 {
        for n in 0..400 {
            crowd.send(&rig.garbage(round * 400 + n)).unwrap();
        }
        assert_eq!(client.ask("www.example", 1), Some(1));
    }

    let looked_at = rig.counters.dropped(Dropped::BadTag);
    let refused = rig.counters.dropped(Dropped::StrangersOverBudget);
    assert!(looked_at + refused <= 8_000);
    assert!(looked_at > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_server_ends_its_threads_and_frees_its_port() {
    let rig = Rig::start();
    let address = rig.address;
    assert_eq!(rig.client().ask("www.example", 0), Some(1));

    rig.serving.abort();
    let _aborted = rig.serving.await;

    assert!(Udp::bind(address, &UdpOptions::default()).is_ok());
}
