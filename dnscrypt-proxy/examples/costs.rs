//! What one query costs a server on this machine: opened, and its answer sealed, by one core.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dnscrypt_proxy::proto::Transport;
use dnscrypt_proxy::proto::cert::{Certificate, System};
use dnscrypt_proxy::proto::client::{ClientKeys, ClientNonce, PqSession, QueryPadding, Session};
use dnscrypt_proxy::proto::message;
use dnscrypt_proxy::proto::server::{KeyCache, Keyring, ResolverKey, open};
use dnscrypt_proxy::proto::tickets::TicketKeys;
use dnscrypt_proxy::proto::xwing::XWingSecret;
use ed25519_dalek::SigningKey;
use hickory_proto::rr::RecordType;
use rand_core::{OsRng, RngCore as _};
use x25519_dalek::{PublicKey, StaticSecret};

const NOW: u64 = 1_800_000_000;
const UDP: QueryPadding = QueryPadding::Udp { target: 512 };
const ROUNDS: u32 = 7;

fn main() {
    let (ring, es2, es3) = server();
    let query = message::query(7, "www.example.com", RecordType::A, 1232).expect("a name");
    let client = ClientKeys::generate(OsRng);
    let session = Session::new(&es2, &client).expect("a fresh key");
    let es2_packet = session.seal_query(&query, &nonce(), UDP).expect("short");
    let mut pq = PqSession::new(&es3, OsRng).expect("a fresh key");
    let full = pq.seal_query(&query, &nonce(), UDP, NOW).expect("short");

    let read = message::Query::read(&query).expect("our own query");
    let answer = read.refuse(0, None);
    let opened = open(
        &ring,
        &mut KeyCache::new(0),
        full.packet.clone(),
        Transport::Udp,
        NOW,
    );
    let opened = opened.expect("an honest query");
    let sealed = opened.reply.seal(answer.clone(), &query, OsRng).packet;
    let first = full.asked.open_response(sealed, &query, NOW);
    pq.keep(
        first
            .expect("an honest answer")
            .ticket
            .expect("a first ticket"),
    );
    let resumed = pq.seal_query(&query, &nonce(), UDP, NOW).expect("short");

    let cost = |packet: &[u8], kept| {
        let mut cache = KeyCache::new(kept);
        best_of(|| {
            let packet = packet.to_vec();
            let opened = open(&ring, &mut cache, packet, Transport::Udp, NOW);
            let opened = opened.expect("an honest query");
            std::hint::black_box(opened.reply.seal(answer.clone(), &opened.query, OsRng));
        })
    };
    for (name, packet, kept) in [
        ("classical, key kept", &es2_packet, 16),
        ("classical, new key", &es2_packet, 0),
        ("post-quantum, resumed", &resumed.packet, 0),
        ("post-quantum, full", &full.packet, 0),
        ("post-quantum, full again", &full.packet, 16),
    ] {
        let cost = cost(packet, kept);
        let per_second = 1.0 / cost.as_secs_f64();
        println!(
            "{name:26} {:8.2} us {per_second:9.0} a second",
            cost.as_secs_f64() * 1e6
        );
    }
    let made = best_of(|| drop(std::hint::black_box(PqSession::new(&es3, OsRng))));
    println!(
        "{:26} {:8.2} us",
        "a client's encapsulation",
        made.as_secs_f64() * 1e6
    );
}

/// A server with both kinds of certificate.
fn server() -> (Keyring, Certificate, Certificate) {
    let classical = StaticSecret::random_from_rng(OsRng);
    let post_quantum = XWingSecret::generate(OsRng);
    let cert = |system, resolver_key: &[u8], magic| Certificate {
        system,
        resolver_key: resolver_key.to_vec(),
        magic,
        serial: 1,
        start: 1_799_999_000,
        end: 1_800_050_000,
        minor: 0,
    };
    let public = PublicKey::from(&classical);
    let es2 = cert(System::XChaCha20Poly1305, public.as_bytes(), *b"es2magic");
    let es3 = cert(System::XWing, post_quantum.public(), *b"es3magic");
    let provider = SigningKey::from_bytes(&[7; 32]);
    let keys = [
        ResolverKey::new(es2.clone(), es2.sign(&provider), classical),
        ResolverKey::post_quantum(es3.clone(), es3.sign(&provider), post_quantum),
    ];
    let keys = keys.map(|key| Arc::new(key.expect("made for this secret")));
    let tickets = TicketKeys::default().renewed(OsRng, NOW);
    let tickets = Arc::new(tickets.expect("the first key is always due"));
    let ring = Keyring::new(keys.to_vec()).with_tickets(tickets);
    (ring, es2, es3)
}

fn nonce() -> ClientNonce {
    let mut nonce = [0; 12];
    OsRng.fill_bytes(&mut nonce);
    nonce
}

/// The least of several rounds: other programs only ever add.
fn best_of(mut work: impl FnMut()) -> Duration {
    let times = 2000;
    let round = |work: &mut dyn FnMut()| {
        let start = Instant::now();
        (0..times).for_each(|_| work());
        start.elapsed() / times
    };
    (0..ROUNDS)
        .map(|_| round(&mut work))
        .min()
        .unwrap_or_default()
}
