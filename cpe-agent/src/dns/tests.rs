use std::net::UdpSocket;
use std::sync::atomic::{AtomicUsize, Ordering};

use dnscrypt_proxy::certs::{Certs, Rotation};
use dnscrypt_proxy::clock;
use dnscrypt_proxy::listen::{Homes, Limits};
use dnscrypt_proxy::proto::server::Keyring;
use dnscrypt_proxy::proto::stamp::Props;
use dnscrypt_proxy::serve::Server;
use ed25519_dalek::SigningKey;
use tokio::net::{TcpListener, UdpSocket as Udp};
use tokio::sync::watch;

use super::*;

const RESOLVER: &str = "sdns://AQMAAAAAAAAADDkuOS45Ljk6ODQ0MyBnyEe4yHWM0SAkVUO-dWdG3zTfHYTAC4xHA2jfgh2GPhkyLmRuc2NyeXB0LWNlcnQucXVhZDkubmV0";

#[test]
fn a_relay_among_the_stamps_shuts_the_straight_way_even_when_it_cannot_be_read() {
    let read = |stamps: &[&str]| {
        let stamps: Vec<_> = stamps.iter().map(ToString::to_string).collect();
        let (resolvers, route) = read_stamps(&stamps);
        (resolvers.len(), route)
    };
    let relay = "sdns://gQwxOTguNTEuMTAwLjE";
    let address = "198.51.100.1:443".parse().unwrap();

    for cut in ["sdns://gQ", "sdns://gRJbMjAwMTpkYjg6OjFdOjg0"] {
        assert_eq!(read(&[RESOLVER, cut]), (1, Route::Relays(vec![])), "{cut}");
    }
    for relay in [
        relay.to_owned(),
        format!(" {relay}"),
        format!("\t{relay}\n"),
    ] {
        let through = Route::Relays(vec![address]);
        assert_eq!(read(&[&relay, RESOLVER]), (1, through), "{relay:?}");
    }
    assert_eq!(read(&[RESOLVER, "sdns://AQ"]), (1, Route::Direct));
}

const PROVIDER: &str = "2.dnscrypt-cert.pop1.example";
const AHEAD_S: u64 = 100 * 24 * 3600;
const SERVFAIL: u8 = 2;

/// Which certificates a resolver shows.
#[derive(Clone, Copy)]
enum Shown {
    All,
    /// Somebody on the way takes the post-quantum ones out.
    Stripped,
}

/// A resolver on loopback that answers each question with itself.
struct Resolver {
    stamp: String,
    asked: Arc<AtomicUsize>,
    _keyring: watch::Sender<Arc<Keyring>>,
}

impl Resolver {
    async fn start(shown: Shown, clock: clock::Clock) -> Self {
        let key = SigningKey::from_bytes(&[5; 32]);
        let provider_key = key.verifying_key().to_bytes();
        let certs = Certs::signing(key, Rotation::default(), Arc::clone(&clock)).unwrap();
        let all = Arc::clone(&certs.keyring().borrow());
        let keyring = match shown {
            Shown::All => all,
            Shown::Stripped => {
                let keys = all.keys().iter().cloned();
                let classical = keys.filter(|key| key.cert().system != System::XWing);
                Arc::new(Keyring::new(classical.collect()))
            }
        };
        let (sender, keyring) = watch::channel(keyring);
        let udp = Udp::bind("127.0.0.1:0").await.unwrap();
        let addr = udp.local_addr().unwrap();
        let tcp = TcpListener::bind(addr).await.unwrap();
        let server = Server {
            provider_name: PROVIDER.to_owned(),
            keyring,
            limits: Limits::SERVER,
            homes: Homes::default(),
            counters: Arc::default(),
            clock,
        };
        let sockets = Sockets {
            udp: vec![udp],
            tcp: vec![tcp],
        };
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(server.serve(sockets, move |query| {
            count.fetch_add(1, Ordering::Relaxed);
            let mut answer = query.message;
            answer[2] |= 0x80;
            std::future::ready(Some(answer))
        }));
        let stamp = DnsCryptStamp {
            props: Props::default(),
            addr,
            provider_key,
            provider_name: PROVIDER.to_owned(),
        };
        Self {
            stamp: stamp.to_string(),
            asked,
            _keyring: sender,
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

/// The lookups of a router, answered on loopback.
struct Home {
    dns: Dns,
    at: SocketAddr,
}

impl Home {
    fn start(post_quantum: PostQuantum, clock: Clock) -> Self {
        let listeners = Listeners::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
        let socket = UdpSocket::from(listeners.udp[0].try_clone().unwrap());
        let config = config::Dns {
            rules: Default::default(),
            filter_aaaa: FilterAaaa::Auto,
            post_quantum,
        };
        Self {
            at: socket.local_addr().unwrap(),
            dns: Dns::start(listeners, &config, clock, Default::default()).unwrap(),
        }
    }
}

/// The response code for a name below `eu`.
async fn ask(stub: SocketAddr, letter: u8) -> u8 {
    let socket = Udp::bind("127.0.0.1:0").await.unwrap();
    let head = [0, letter, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let query = [&head[..], &[1, letter, 2, b'e', b'u', 0, 0, 1, 0, 1]].concat();
    socket.send_to(&query, stub).await.unwrap();
    let mut answer = [0; 512];
    socket.recv(&mut answer).await.unwrap();
    answer[3] & 15
}

#[tokio::test]
async fn where_it_is_required_a_resolver_whose_post_quantum_certificate_was_stripped_is_asked_nothing()
 {
    let stripped = Resolver::start(Shown::Stripped, clock::system()).await;
    let whole = Resolver::start(Shown::All, clock::system()).await;
    let home = Home::start(PostQuantum::Required, Clock::with_floor(0));

    home.dns.use_stamps(std::slice::from_ref(&stripped.stamp));
    let refused = ask(home.at, b'a').await;
    home.dns
        .use_stamps(&[stripped.stamp.clone(), whole.stamp.clone()]);
    let answered = ask(home.at, b'b').await;

    assert_eq!((refused, answered), (SERVFAIL, 0));
    assert_eq!((stripped.asked(), whole.asked()), (0, 1));
    let status = home.dns.counters();
    assert_eq!(status.post_quantum, Some(true));
    assert_eq!(status.post_quantum_policy, "required");
}

#[tokio::test]
async fn where_it_is_preferred_a_resolver_whose_post_quantum_certificate_was_stripped_is_asked_classically()
 {
    let stripped = Resolver::start(Shown::Stripped, clock::system()).await;
    let home = Home::start(PostQuantum::Preferred, Clock::with_floor(0));
    home.dns.use_stamps(std::slice::from_ref(&stripped.stamp));

    assert_eq!(ask(home.at, b'a').await, 0);

    assert_eq!(stripped.asked(), 1);
    let status = home.dns.counters();
    assert_eq!(status.post_quantum, Some(false));
    assert_eq!(status.post_quantum_policy, "preferred");
}

#[tokio::test]
async fn a_router_that_starts_in_the_past_looks_up_post_quantum_once_a_quorum_has_told_the_time() {
    let future: clock::Clock = Arc::new(|| clock::system()() + AHEAD_S);
    let resolver = Resolver::start(Shown::All, future).await;
    let clock = Clock::with_floor(0);
    let home = Home::start(PostQuantum::Preferred, clock.clone());
    home.dns.use_stamps(std::slice::from_ref(&resolver.stamp));

    let before = ask(home.at, b'a').await;
    let known_before = home.dns.counters().post_quantum;
    clock.raise(clock::system()() + AHEAD_S);
    let after = ask(home.at, b'b').await;

    assert_eq!((before, known_before), (SERVFAIL, None));
    assert_eq!((after, home.dns.counters().post_quantum), (0, Some(true)));
}

#[test]
fn a_port_in_use_is_named_and_an_address_that_is_not_there_yet_is_bound() {
    let first = Listeners::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let taken: std::net::UdpSocket = first.udp.into_iter().next().unwrap().into();
    let address = taken.local_addr().unwrap();

    let error = Listeners::bind(&[address]).err().unwrap();

    assert!(
        error
            .to_string()
            .starts_with(&format!("{address} is in use")),
        "{error}"
    );
    assert!(
        Listeners::bind(&[
            "192.0.2.77:5353".parse().unwrap(),
            "[2001:db8::77]:5353".parse().unwrap()
        ])
        .is_ok()
    );
}
