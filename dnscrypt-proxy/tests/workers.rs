//! The server's workers over real sockets: lookups, a crowd of strangers, a resolver that never answers, the end.

#![expect(clippy::unwrap_used, reason = "a test rig that fails should say where")]

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dnscrypt_proxy::certs::{Certs, Rotation};
use dnscrypt_proxy::listen::Limits;
use dnscrypt_proxy::proto::cert::{Certificate, System};
use dnscrypt_proxy::proto::client::{ClientKeys, QueryPadding, Session};
use dnscrypt_proxy::proto::message;
use dnscrypt_proxy::serve::{Query, Server};
use dnscrypt_proxy::{Counters, Dropped, clock};
use ed25519_dalek::SigningKey;
use hickory_proto::rr::RecordType;
use netio::udp::Offload;
use netio::{Udp, UdpOptions};
use rand_core::OsRng;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(10);

struct Rig {
    address: SocketAddr,
    cert: Certificate,
    counters: Arc<Counters>,
    asked: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
    _certs: Certs,
}

impl Rig {
    /// Two workers behind one port, before a resolver that answers all but the names that begin with `mute`.
    async fn start() -> Self {
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
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let options = UdpOptions {
            reuse_port: true,
            offload: Offload::Never,
            ..UdpOptions::default()
        };
        let udp = [0, 1].map(|_| vec![Udp::bind(address, &options).unwrap()]);
        let counters: Arc<Counters> = Arc::default();
        let server = Server {
            provider_name: "2.dnscrypt-cert.workers.example".to_owned(),
            keyring: certs.keyring(),
            limits: Limits::SERVER,
            counters: Arc::clone(&counters),
            clock: clock::system(),
        };
        let asked: Arc<AtomicUsize> = Arc::default();
        let count = Arc::clone(&asked);
        let serving = tokio::spawn(async move {
            let handler = move |query: Query| {
                count.fetch_add(1, Ordering::Relaxed);
                answer(query)
            };
            server
                .serve_by_workers(udp.into(), vec![tcp], 1 << 20, handler)
                .await;
        });
        Self {
            address,
            cert,
            counters,
            asked,
            serving,
            _certs: certs,
        }
    }

    fn client(&self) -> Client {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
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

async fn answer(query: Query) -> Option<Vec<u8>> {
    let question = message::Query::read(&query.message).unwrap();
    if question.question().starts_with(b"\x04mute") {
        std::future::pending::<()>().await;
    }
    let mut answer = question.refuse(0, None);
    answer.truncate(message::HEADER + question.question().len());
    answer[11] = 0;
    answer[7] = 1;
    answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 0, 0, 4, 192, 0, 2, 1]);
    Some(answer)
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

    fn ask(&self, name: &str, nonce: u8) -> Option<u8> {
        let query = self.send(name, nonce);
        self.receive(&query, nonce)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_once_is_answered_from_memory_over_udp_and_over_tcp() {
    let rig = Rig::start().await;
    let client = rig.client();

    for nonce in 0..20 {
        assert_eq!(client.ask("www.example", nonce), Some(1));
    }
    let by_udp = rig.asked();
    for nonce in 20..40 {
        let query = message::query(7, "www.example", RecordType::A, 1232).unwrap();
        let padding = QueryPadding::Tcp { choice: 0 };
        let nonce = [nonce; 12];
        let packet = client.session.seal_query(&query, &nonce, padding).unwrap();
        let mut stream = TcpStream::connect(rig.address).await.unwrap();
        let len = u16::try_from(packet.len()).unwrap().to_be_bytes();
        stream
            .write_all(&[&len[..], &packet].concat())
            .await
            .unwrap();
        let len = stream.read_u16().await.unwrap();
        let mut answer = vec![0; len.into()];
        stream.read_exact(&mut answer).await.unwrap();
        let answer = client
            .session
            .open_response(answer, &query, &nonce)
            .unwrap();
        assert_eq!(answer[7], 1);
    }

    assert_eq!(by_udp, 1);
    assert_eq!(rig.asked(), 2, "once more for all of TCP");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resolver_that_never_answers_delays_nobody_else() {
    let rig = Rig::start().await;
    let client = rig.client();
    assert_eq!(client.ask("www.example", 0), Some(1));

    for n in 0..200 {
        client.send(&format!("mute.n{n}.example"), 1);
    }

    assert_eq!(client.ask("www.example", 2), Some(1));
    assert_eq!(client.ask("other.example", 3), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_strangers_is_bounded_and_keeps_nobody_out_whose_key_is_known() {
    let rig = Rig::start().await;
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
    let rig = Rig::start().await;
    let address = rig.address;
    assert_eq!(rig.client().ask("www.example", 0), Some(1));

    rig.serving.abort();
    let _aborted = rig.serving.await;

    assert!(Udp::bind(address, &UdpOptions::default()).is_ok());
}
