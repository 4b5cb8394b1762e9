//! DNS over HTTPS at a port of DNSCrypt: a whole resolver on loopback, with one worker.

use std::sync::atomic::AtomicU16;

use dnscrypt_proxy::certs::create_provider_key;
use dnscrypt_proxy::proto::cert::{Policy, select};
use dnscrypt_proxy::proto::client::{ClientKeys, QueryPadding, Session};
use dnscrypt_proxy::proto::dropped::Counted;
use dnscrypt_proxy::{Dropped, clock};
use hickory_proto::rr::RData;
use rand_core::OsRng;
use tokio::io::copy_bidirectional;

use super::*;
use crate::dns::{self, Dns};

const CROWD: usize = 40;

/// The doors at `rig.https`, and beside them an address for strangers.
struct Shared {
    rig: Rig,
    public: SocketAddr,
    provider: [u8; 32],
    provider_name: String,
    lookups: Arc<dns::Figures>,
}

/// An address that no other process uses, and two ports that no other test of this one does.
fn addresses() -> [SocketAddr; 2] {
    static NEXT: AtomicU16 = AtomicU16::new(4_443);
    let port = NEXT.fetch_add(2, Ordering::Relaxed);
    let own = Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() & 0xff00_0000 | std::process::id());
    [port, port + 1].map(|port| SocketAddr::new(own.into(), port))
}

fn shared() -> Shared {
    let (files, roots) = certificate();
    let [address, public] = addresses();
    let key_file = files.path().join("provider.key");
    let provider = create_provider_key(&key_file).unwrap();
    let doors = config::Doors {
        tls: Vec::new(),
        https: Vec::new(),
        shared: vec![address],
        quic: Vec::new(),
        ..config(&files, NAME)
    };
    let config = config::Dns {
        listen: vec![address, public],
        certificates: config::Certificates::ProviderKey(key_file),
        doors: Some(doors),
        ..config::Dns::forwarding_to(SocketAddr::new(HERE, 9))
    };
    let dns = Dns::bind(&config, None, 1).unwrap();
    let (figures, lookups) = (dns.doors().unwrap(), dns.figures());
    let mut serving = JoinSet::new();
    serving.spawn(async move { drop(dns.serve().await) });
    Shared {
        rig: Rig {
            tls: address,
            https: address,
            http3: address,
            quic: address,
            figures,
            roots,
            _files: files,
            _serving: serving,
        },
        public,
        provider: provider.verifying_key().to_bytes(),
        provider_name: config.provider_name,
        lookups,
    }
}

/// A home that asks over DNSCrypt and TCP.
struct Home {
    stream: TcpStream,
    session: Session,
    asked: u8,
}

async fn converse(stream: &mut TcpStream, message: &[u8]) -> Vec<u8> {
    stream.write_all(&framed(message)).await.unwrap();
    let mut answer = vec![0; stream.read_u16().await.unwrap().into()];
    stream.read_exact(&mut answer).await.unwrap();
    answer
}

impl Shared {
    async fn home(&self, at: SocketAddr) -> Home {
        let mut stream = TcpStream::connect(at).await.unwrap();
        let certificates = message::query(1, &self.provider_name, RecordType::TXT, 1232).unwrap();
        let answer = within(converse(&mut stream, &certificates)).await;
        let answer = Message::from_vec(&answer).unwrap();
        let records = answer.answers.iter().filter_map(|record| {
            let RData::TXT(text) = &record.data else {
                return None;
            };
            Some(text.txt_data.concat())
        });
        let records: Vec<Vec<u8>> = records.collect();
        let records = records.iter().map(Vec::as_slice);
        let now = (clock::system())();
        let cert = select(records, &self.provider, Policy::CLASSICAL, now).best;
        let session = Session::new(&cert.unwrap(), &ClientKeys::generate(OsRng)).unwrap();
        Home {
            stream,
            session,
            asked: 0,
        }
    }

    async fn knock(&self, at: SocketAddr, first: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(first).await.unwrap();
        stream
    }

    fn dropped(&self, reason: Dropped) -> usize {
        self.lookups.server.dropped(reason)
    }

    fn queries_over_https(&self) -> u64 {
        let mut queries = self.rig.figures.queries();
        let of = queries.find(|(door, _)| *door == Door::Http2).unwrap();
        of.1.load(Ordering::Relaxed)
    }
}

impl Home {
    async fn is_answered(&mut self) -> bool {
        self.asked += 1;
        let (query, nonce) = (query(self.asked.into()), [self.asked; 12]);
        let padding = QueryPadding::Tcp { choice: 0 };
        let packet = self.session.seal_query(&query, &nonce, padding).unwrap();
        let answer = within(converse(&mut self.stream, &packet)).await;
        let answer = self.session.open_response(answer, &query, &nonce);
        is_answer(&answer.unwrap(), self.asked.into())
    }
}

async fn is_answered_over(http: &mut h2::client::SendRequest<Bytes>) -> bool {
    let (status, answer) = within(get(http, &query(0))).await;
    status == StatusCode::OK && is_answer(&answer, 0)
}

/// What was said before the end.
async fn until_the_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    // Where something was not read, the end is a reset.
    let _ended = within(stream.read_to_end(&mut said)).await;
    said
}

#[tokio::test]
async fn a_stranger_at_a_public_address_finds_dnscrypt_and_no_door() {
    let resolver = shared();

    let refused = within(resolver.rig.connect(resolver.public, b"h2")).await;

    assert!(refused.is_err());
    assert_eq!(resolver.rig.turned_away("connections"), 0);
    assert!(resolver.home(resolver.public).await.is_answered().await);
    // The only worker has counted what it ended when it answers what came later.
    assert_eq!(resolver.dropped(Dropped::TooLong), 1);
    let mut http = within(resolver.rig.http()).await;
    assert!(is_answered_over(&mut http).await, "inside there is one");
}

#[tokio::test]
async fn what_only_begins_as_tls_is_ended_by_tls_and_what_almost_does_by_dnscrypt() {
    let resolver = shared();
    let at = resolver.rig.https;
    for (first, is_alerted) in [
        (&[22, 4, 1, 0, 5, 1, 2, 3, 4, 5][..], false),
        (&[22, 3, 1, 0, 5, 99, 0, 0, 1, 0], true),
        (b"GET / HTTP/1.1\r\n\r\n", false),
    ] {
        let mut stream = resolver.knock(at, first).await;

        let said = until_the_end(&mut stream).await;

        assert_eq!(said.first() == Some(&21), is_alerted, "{first:?}: {said:?}");
    }
    assert!(resolver.home(at).await.is_answered().await);
    assert_eq!(resolver.dropped(Dropped::TooLong), 2);
}

#[tokio::test]
async fn a_source_has_its_share_of_hellos_and_its_lookups_go_on() {
    let resolver = shared();
    let at = resolver.rig.https;
    let mut home = resolver.home(at).await;
    let mut crowd = JoinSet::new();
    for _ in 0..CROWD {
        // The beginning of a hello that never ends.
        let mut stream = resolver.knock(at, &[22, 3, 1, 2, 0, 1]).await;
        crowd.spawn(async move { drop(until_the_end(&mut stream).await) });
        assert!(home.is_answered().await);
    }

    let share = 3;
    for _ in share..CROWD {
        within(crowd.join_next()).await;
    }

    assert_eq!(
        resolver.rig.turned_away("connections"),
        (CROWD - share) as u64
    );
    assert_eq!(resolver.dropped(Dropped::TooManyConnections), 0);
    assert!(resolver.rig.connect(at, b"h2").await.is_err());
    assert!(home.is_answered().await);
    assert!(resolver.home(at).await.is_answered().await);
}

#[tokio::test]
async fn a_crowd_that_only_connects_keeps_nobody_out() {
    let resolver = shared();
    let at = resolver.rig.https;
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        crowd.push(resolver.knock(at, &[]).await);
    }

    assert!(resolver.home(at).await.is_answered().await);
    let mut http = within(resolver.rig.http()).await;
    assert!(is_answered_over(&mut http).await);
    assert_eq!(resolver.rig.turned_away("connections"), 0);
}

#[tokio::test]
async fn dnscrypt_and_https_are_answered_at_one_port_turn_by_turn() {
    let resolver = shared();
    let at = resolver.rig.https;
    let (mut one, mut http) = (resolver.home(at).await, within(resolver.rig.http()).await);
    let (mut other, mut more) = (resolver.home(at).await, within(resolver.rig.http()).await);

    for _ in 0..5 {
        assert!(one.is_answered().await && is_answered_over(&mut http).await);
        assert!(is_answered_over(&mut more).await && other.is_answered().await);
    }

    assert_eq!(resolver.queries_over_https(), 10);
    assert_eq!(resolver.lookups.server.get(Counted::TcpQuery), 10);
    assert_eq!(resolver.lookups.server.all_dropped().count(), 0);
}

#[tokio::test]
async fn a_hello_whose_first_byte_comes_alone_is_read_from_its_beginning() {
    let resolver = shared();
    let at = resolver.rig.https;
    let mut home = resolver.home(at).await;
    let (near, mut far) = tokio::io::duplex(1 << 16);
    let slow = async {
        let first = far.read_u8().await.unwrap();
        let mut stream = resolver.knock(at, &[first]).await;
        // The only worker has seen the byte when it answers what came later.
        assert!(home.is_answered().await);
        drop(copy_bidirectional(&mut far, &mut stream).await);
    };
    let asking = async {
        let connector = TlsConnector::from(Arc::new(resolver.rig.client(b"h2")));
        let name = ServerName::try_from(NAME).unwrap();
        let stream = connector.connect(name, near).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        let connection = tokio::spawn(async move { drop(connection.await) });
        let is_answered = is_answered_over(&mut sender.ready().await.unwrap()).await;
        connection.abort();
        is_answered
    };

    let (is_answered, ()) = within(Box::pin(async { tokio::join!(asking, slow) })).await;

    assert!(is_answered);
}
