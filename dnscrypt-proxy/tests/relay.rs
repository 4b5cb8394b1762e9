//! Both ends of Anonymized DNSCrypt over real sockets: our client, our relay, our resolver. They listen on addresses that nobody
//! connects from, so that a port which is free for datagrams is free for connections; 127.0.0.1 is this machine to the relay.

#![expect(clippy::unwrap_used, reason = "a test rig that fails should say where")]

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dnscrypt_proxy::certs::{Certs, Rotation};
use dnscrypt_proxy::listen::{Homes, Limits};
use dnscrypt_proxy::proto::cert::{Policy, PostQuantum};
use dnscrypt_proxy::proto::dropped::Counted;
use dnscrypt_proxy::proto::relay::{PREFIX, Reach, RelayPolicy, wrap};
use dnscrypt_proxy::proto::stamp::Props;
use dnscrypt_proxy::proto::{Transport, message};
use dnscrypt_proxy::serve::{Duties, Heard, Query, Relaying, Server, WorkerSockets};
use dnscrypt_proxy::upstream::{ResolveError, Route, Settings, Upstream};
use dnscrypt_proxy::{Counters, DnsCryptStamp, Dropped, clock};
use ed25519_dalek::SigningKey;
use hickory_proto::rr::RecordType;
use netio::udp::Offload;
use netio::{Udp, UdpOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

const PROVIDER: &str = "2.dnscrypt-cert.relay.example";
const RELAY: &str = "127.0.0.4:0";
const RESOLVER: &str = "127.0.0.2:0";
/// Too much for one packet, and less than what a relay can let through.
const BIG: usize = 3_000;
const DUTIES: Duties = Duties {
    kept_bytes: 1 << 20,
    ahead: 0,
    forwarding: None,
    tls: None,
};

struct Site {
    address: SocketAddr,
    stamp: DnsCryptStamp,
    counters: Arc<Counters>,
    relayed: Arc<Counters>,
    asked: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
    _certs: Certs,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Site {
    fn resolver() -> Self {
        Self::start(RESOLVER, 2, None)
    }

    fn relay_to(resolver: &Self) -> Self {
        Self::relay_of(2, resolver)
    }

    fn relay_of(workers: usize, resolver: &Self) -> Self {
        let policy = RelayPolicy {
            ports: vec![resolver.address.port()],
            own: Vec::new(),
            behind: Vec::new(),
            reach: Reach::AnyForTests,
        };
        Self::start(RELAY, workers, Some(policy))
    }

    fn start(at: &str, workers: usize, relay: Option<RelayPolicy>) -> Self {
        let provider = SigningKey::from_bytes(&[6; 32]);
        let certs = Certs::signing(provider, Rotation::default(), clock::system()).unwrap();
        let options = UdpOptions {
            reuse_port: true,
            offload: Offload::Sending,
            ..UdpOptions::default()
        };
        let [counters, relayed] = <[Arc<Counters>; 2]>::default();
        // Held from the first moment on: nobody else is given the port.
        let first = Udp::bind(at.parse().unwrap(), &options).unwrap();
        let address = first.local_addr().unwrap();
        let mut udp = vec![first];
        for _ in 1..workers {
            udp.push(Udp::bind(address, &options).unwrap());
        }
        let sockets: Vec<_> = udp
            .into_iter()
            .map(|udp| {
                let mut sockets = WorkerSockets::default();
                sockets.udp.push(udp);
                sockets.listen(address).unwrap();
                sockets
            })
            .collect();
        let relay = relay.map(|policy| Relaying {
            policy,
            in_flight: 64,
            per_source: 64,
            counters: Arc::clone(&relayed),
        });
        let server = Server {
            provider_name: PROVIDER.to_owned(),
            keyring: certs.keyring(),
            limits: Limits::SERVER,
            homes: Homes::default(),
            counters: Arc::clone(&counters),
            clock: clock::system(),
        };
        let asked: Arc<AtomicUsize> = Arc::default();
        let count = Arc::clone(&asked);
        let stamp = DnsCryptStamp {
            props: Props::default(),
            addr: address,
            provider_key: certs.provider_public(),
            provider_name: PROVIDER.to_owned(),
        };
        let serving = tokio::spawn(async move {
            let handler = move |query: Query| {
                count.fetch_add(1, Ordering::Relaxed);
                answer(&query)
            };
            server
                .serve_and_relay(sockets, DUTIES, relay, handler)
                .await;
        });
        Self {
            address,
            stamp,
            counters,
            relayed,
            asked,
            serving,
            _certs: certs,
        }
    }

    /// What reached it of any kind.
    fn heard(&self) -> usize {
        let kinds = [Counted::UdpQuery, Counted::TcpQuery, Counted::CertQuery];
        kinds.iter().map(|kind| self.counters.get(*kind)).sum()
    }
}

/// A text of some length for names that begin with `big`, or of 15 bytes.
fn told(query: &Query) -> Option<Vec<u8>> {
    let question = message::Query::read(&query.message).ok()?;
    let is_big = question.question().starts_with(b"\x03big");
    let text = vec![7; if is_big { BIG } else { 15 }];
    let texts: Vec<&[u8]> = text.chunks(250).collect();
    let answer = question.answer_txt(&texts, 300);
    if answer.len() > query.room {
        return Some(question.refuse(0, None)).map(|mut cut| {
            cut[2] |= 2;
            cut
        });
    }
    Some(answer)
}

fn answer(query: &Query) -> std::future::Ready<Heard> {
    std::future::ready(told(query).into())
}

fn asks(resolver: &Site, relays: &[SocketAddr], post_quantum: PostQuantum) -> Upstream {
    let settings = Settings {
        policy: Policy {
            post_quantum,
            ..Policy::default()
        },
        ..Settings::default()
    };
    let upstream = Upstream::new(Vec::new(), settings);
    let route = Route::Relays(relays.to_vec());
    upstream.set_resolvers(vec![resolver.stamp.clone()], &route);
    upstream
}

fn question(name: &str) -> Vec<u8> {
    message::query(7, name, RecordType::TXT, 4096).unwrap()
}

/// An address that takes packets and says nothing, with the socket that holds it.
fn mute() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.3:0").unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_relay_that_answers_nothing_reaches_the_resolver() {
    let resolver = Site::resolver();
    let (_mute, silent) = mute();

    for relays in [&[][..], &[silent], &[resolver.address]] {
        let upstream = asks(&resolver, relays, PostQuantum::Preferred);
        let outcome = upstream.resolve(&question("a.example")).await;
        assert!(outcome.is_err(), "{relays:?}");
    }

    let none = asks(&resolver, &[], PostQuantum::Preferred);
    let refused = none
        .resolve_over(&question("a.example"), Transport::Tcp)
        .await;
    assert!(
        matches!(refused, Err(ResolveError::Certificate(_))),
        "{refused:?}"
    );
    assert_eq!(resolver.heard(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn lookups_go_through_the_relay_over_both_transports_and_with_both_systems() {
    let resolver = Site::resolver();
    let relay = Site::relay_to(&resolver);

    for (n, post_quantum) in [PostQuantum::Required, PostQuantum::Off]
        .into_iter()
        .enumerate()
    {
        let upstream = asks(&resolver, &[relay.address], post_quantum);
        for (m, transport) in [Transport::Udp, Transport::Tcp, Transport::Udp]
            .into_iter()
            .enumerate()
        {
            let query = question(&format!("n{n}{m}.example"));
            let answer = upstream.resolve_over(&query, transport).await.unwrap();
            assert_eq!(message::texts(&answer).unwrap(), [vec![7; 15]]);
        }
    }

    assert_eq!(resolver.asked.load(Ordering::Relaxed), 6);
    assert_eq!(relay.heard(), 0, "the relay's own server was asked nothing");
    assert_eq!(
        resolver.counters.get(Counted::TcpQuery),
        0,
        "a relay asks over UDP"
    );
    assert!(relay.relayed.get(Counted::TcpQuery) >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_too_big_for_one_packet_comes_through_a_query_as_big() {
    let resolver = Site::resolver();
    let relay = Site::relay_to(&resolver);

    for (n, post_quantum) in [PostQuantum::Required, PostQuantum::Off]
        .into_iter()
        .enumerate()
    {
        let upstream = asks(&resolver, &[relay.address], post_quantum);
        let answer = upstream
            .resolve(&question(&format!("big.n{n}.example")))
            .await
            .unwrap();
        assert_eq!(
            message::texts(&answer).unwrap().concat(),
            vec![7; BIG],
            "{post_quantum:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_relay_is_left_for_the_next_one_within_one_lookup() {
    let resolver = Site::resolver();
    let relay = Site::relay_to(&resolver);
    let (_mute, silent) = mute();

    // Whichever is taken first.
    for n in 0..4 {
        let upstream = asks(&resolver, &[silent, relay.address], PostQuantum::Off);
        let began = Instant::now();
        upstream
            .resolve(&question(&format!("f{n}.example")))
            .await
            .unwrap();
        assert!(
            began.elapsed() < Duration::from_millis(2500),
            "{:?}",
            began.elapsed()
        );
        upstream
            .resolve(&question(&format!("g{n}.example")))
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_dies_between_two_lookups_is_left_too() {
    let resolver = Site::resolver();
    let (first, second) = (Site::relay_to(&resolver), Site::relay_to(&resolver));
    let upstream = asks(
        &resolver,
        &[first.address, second.address],
        PostQuantum::Off,
    );
    upstream.resolve(&question("before.example")).await.unwrap();
    let used_first = first.relayed.get(Counted::Answer) > 0;

    drop(if used_first { first } else { second });

    let answer = upstream.resolve(&question("after.example")).await;
    assert!(answer.is_ok(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn loops_other_ports_and_questions_in_clear_go_nowhere_over_either_transport() {
    let resolver = Site::resolver();
    // One, so that there is one queue.
    let relay = Site::relay_of(1, &resolver);
    let other_port = SocketAddr::new(resolver.address.ip(), resolver.address.port() ^ 1);
    let sealed = [0x55; 300];
    let twice = wrap(resolver.address, &wrap(resolver.address, &sealed));
    let in_clear = message::query(7, "clear.example", RecordType::A, 1232).unwrap();
    let mut quic = [0; 300];
    quic[7] = 1;
    let packets = [
        (Dropped::RelayLoop, twice),
        (Dropped::RelayPort, wrap(other_port, &sealed)),
        (Dropped::RelayPlainQuery, wrap(resolver.address, &in_clear)),
        (Dropped::RelayQuic, wrap(resolver.address, &quic)),
    ];

    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for (reason, packet) in &packets {
        socket.send_to(packet, relay.address).await.unwrap();
        let mut stream = TcpStream::connect(relay.address).await.unwrap();
        let len = u16::try_from(packet.len()).unwrap();
        stream.write_all(&len.to_be_bytes()).await.unwrap();
        stream.write_all(packet).await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty(), "{reason:?}");
    }

    // Behind them in the same queue, so that all of them have been judged when it has its answer.
    let upstream = asks(&resolver, &[relay.address], PostQuantum::Off);
    upstream.resolve(&question("last.example")).await.unwrap();
    for (reason, _) in &packets {
        assert_eq!(relay.relayed.dropped(*reason), 2, "{reason:?}");
    }
    assert_eq!(resolver.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_comes_back_is_longer_than_the_query_that_was_inside() {
    let resolver = Site::resolver();
    let relay = Site::relay_to(&resolver);
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut buffer = [0; 4096];

    for len in [200, 512, 1152, 3200] {
        let query = message::padded_query(9, PROVIDER, RecordType::TXT, 4096, len).unwrap();
        let packet = wrap(resolver.address, &query);
        assert_eq!(packet.len(), PREFIX + len);
        socket.send_to(&packet, relay.address).await.unwrap();
        let (answer, from) = socket.recv_from(&mut buffer).await.unwrap();
        assert!(answer <= len, "{answer} for {len}");
        assert_eq!(from, relay.address);
    }
}
