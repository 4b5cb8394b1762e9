use std::net::UdpSocket;

use dnscrypt_proxy::certs::{Certs, Rotation};
use dnscrypt_proxy::clock;
use dnscrypt_proxy::listen::{Homes, Limits};
use dnscrypt_proxy::proto::stamp::Props;
use dnscrypt_proxy::serve::Server;
use ed25519_dalek::SigningKey;
use tokio::net::{TcpListener, UdpSocket as Udp};

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

/// A resolver on loopback in whose time this machine lives in the past, as a router does that starts in 1970. It
/// answers each question with itself.
async fn resolver_of_the_future() -> String {
    let future: clock::Clock = Arc::new(|| clock::system()() + AHEAD_S);
    let key = SigningKey::from_bytes(&[5; 32]);
    let provider_key = key.verifying_key().to_bytes();
    let certs = Certs::signing(key, Rotation::default(), Arc::clone(&future)).unwrap();
    let udp = Udp::bind("127.0.0.1:0").await.unwrap();
    let addr = udp.local_addr().unwrap();
    let tcp = TcpListener::bind(addr).await.unwrap();
    let server = Server {
        provider_name: PROVIDER.to_owned(),
        keyring: certs.keyring(),
        limits: Limits::SERVER,
        homes: Homes::default(),
        counters: Arc::default(),
        clock: future,
    };
    let sockets = Sockets {
        udp: vec![udp],
        tcp: vec![tcp],
    };
    tokio::spawn(server.serve(sockets, |query| async move {
        let mut answer = query.message;
        answer[2] |= 0x80;
        Some(answer)
    }));
    let stamp = DnsCryptStamp {
        props: Props::default(),
        addr,
        provider_key,
        provider_name: PROVIDER.to_owned(),
    };
    stamp.to_string()
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
async fn a_router_that_starts_in_the_past_looks_up_post_quantum_once_a_quorum_has_told_the_time() {
    let stamp = resolver_of_the_future().await;
    let listeners = Listeners::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let here = UdpSocket::from(listeners.udp[0].try_clone().unwrap());
    let here = here.local_addr().unwrap();
    let clock = Clock::with_floor(0);
    let config = config::Dns {
        rules: Default::default(),
        filter_aaaa: FilterAaaa::Auto,
    };
    let dns = Dns::start(listeners, PostQuantum::On, &config, clock.clone()).unwrap();
    dns.use_stamps(&[stamp]);

    let before = ask(here, b'a').await;
    let known_before = dns.counters().post_quantum;
    clock.raise(clock::system()() + AHEAD_S);
    let after = ask(here, b'b').await;

    assert_eq!((before, known_before), (SERVFAIL, None));
    assert_eq!((after, dns.counters().post_quantum), (0, Some(true)));
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
