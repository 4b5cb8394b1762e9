//! The stub against the server under post-quantum certificates.

use dnscrypt_proxy::proto::cert::{PostQuantum, RESUME_MAGIC, System};
use dnscrypt_proxy::proto::client::UDP_PAYLOAD;
use dnscrypt_proxy::proto::dropped::{Counted, Dropped};
use dnscrypt_proxy::upstream::{KeyPolicy, Settings, Upstream};
use hickory_proto::op::ResponseCode;

use crate::rig::{
    HOUR, Server, Stub, Wire, a_query, ask_udp, records, settings, upstream, wishing,
};

fn system(upstream: &Upstream) -> Option<System> {
    let health = upstream.health();
    Some(health[0].certificate.as_ref()?.system)
}

/// Sealed queries on the wire; those for certificates are shorter, or name the provider.
fn sealed(wire: &Wire) -> Vec<Vec<u8>> {
    let is_sealed =
        |packet: &Vec<u8>| packet.len() > 256 && !packet.windows(8).any(|b| b == b"loopback");
    wire.seen().into_iter().filter(is_sealed).collect()
}

fn is_resumed(packet: &[u8]) -> bool {
    packet.starts_with(&RESUME_MAGIC)
}

#[tokio::test]
async fn where_it_is_required_nothing_is_asked_of_a_resolver_without_it() {
    let server = Server::start().await;
    server.strip_post_quantum();
    let required = wishing(PostQuantum::Required, &server);
    let required = upstream(vec![server.stamp()], required);
    let preferred = upstream(vec![server.stamp()], settings(&server));

    let refused = required.resolve(&a_query("a.example")).await;
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("not accepted here")
    );
    assert_eq!(server.asked(), 0);
    preferred.resolve(&a_query("a.example")).await.unwrap();

    assert_eq!(system(&preferred), Some(System::XChaCha20Poly1305));
}

#[tokio::test]
async fn where_it_is_off_the_classical_certificate_of_the_first_answer_is_enough() {
    let server = Server::start().await;
    let off = upstream(vec![server.stamp()], wishing(PostQuantum::Off, &server));

    off.resolve(&a_query("a.example")).await.unwrap();

    assert_eq!(system(&off), Some(System::XChaCha20Poly1305));
    assert_eq!(server.counters.get(Counted::CertQuery), 1);
    assert_eq!(server.counters.get(Counted::PostQuantum), 0);
}

#[tokio::test]
async fn the_first_query_carries_a_ciphertext_and_the_next_ones_a_ticket_until_the_network_changes()
{
    let server = Server::start().await;
    let wire = Wire::start(server.addr).await;
    let upstream = upstream(vec![wire.stamp(&server)], settings(&server));

    for name in ["secret-a.example", "secret-b.example", "secret-c.example"] {
        upstream.resolve(&a_query(name)).await.unwrap();
    }
    assert_eq!(server.counters.get(Counted::PostQuantum), 3);
    upstream.network_changed();
    upstream
        .resolve(&a_query("secret-d.example"))
        .await
        .unwrap();

    assert_eq!(system(&upstream), Some(System::XWing));
    let seen = sealed(&wire);
    let resumed: Vec<_> = seen.iter().map(|packet| is_resumed(packet)).collect();
    assert_eq!(resumed, [false, true, true, false]);
    for packet in &seen {
        assert!(packet.len() <= UDP_PAYLOAD);
        assert!(!packet.windows(6).any(|bytes| bytes == b"secret"));
    }
    assert_eq!(seen[1].len(), seen[2].len());
    assert_ne!(
        seen[0][8..1128],
        seen[3][8..1128],
        "one ciphertext per network"
    );
    assert_eq!(server.counters.get(Counted::TcpQuery), 0);
}

#[tokio::test]
async fn with_a_key_for_every_query_nothing_links_two_of_them() {
    let server = Server::start().await;
    let wire = Wire::start(server.addr).await;
    let settings = Settings {
        keys: KeyPolicy::PerQuery,
        ..settings(&server)
    };
    let upstream = upstream(vec![wire.stamp(&server)], settings);

    for name in ["a.example", "b.example"] {
        upstream.resolve(&a_query(name)).await.unwrap();
    }

    let seen = sealed(&wire);
    assert!(!seen.iter().any(|packet| is_resumed(packet)));
    assert_ne!(seen[0][8..1128], seen[1][8..1128]);
}

#[tokio::test]
async fn a_resolver_that_lost_its_ticket_keys_is_asked_again_without_the_ticket() {
    let server = Server::start().await;
    let wire = Wire::start(server.addr).await;
    let upstream = upstream(vec![wire.stamp(&server)], settings(&server));
    upstream.resolve(&a_query("a.example")).await.unwrap();

    server.forget_ticket_keys();
    upstream.resolve(&a_query("b.example")).await.unwrap();
    upstream.resolve(&a_query("c.example")).await.unwrap();

    let resumed: Vec<_> = sealed(&wire)
        .iter()
        .map(|packet| is_resumed(packet))
        .collect();
    assert_eq!(resumed, [false, true, false, true]);
    assert_eq!(server.counters.dropped(Dropped::UnknownTicketKey), 1);
    assert_eq!(server.counters.get(Counted::TcpQuery), 0);
}

#[tokio::test]
async fn tickets_are_renewed_in_time_and_die_with_their_certificate() {
    let server = Server::start().await;
    let wire = Wire::start(server.addr).await;
    let upstream = upstream(vec![wire.stamp(&server)], settings(&server));

    for minute in 0..20 * 6 {
        upstream
            .resolve(&a_query(&format!("n{minute}.example")))
            .await
            .unwrap();
        server.advance(600);
        server.rotate();
    }

    let fulls = sealed(&wire)
        .iter()
        .filter(|packet| !is_resumed(packet))
        .count();
    assert!((2..=4).contains(&fulls), "{fulls} full queries in 20 hours");
    assert_eq!(server.counters.get(Counted::TcpQuery), 0);
}

#[tokio::test]
async fn where_tcp_does_not_pass_the_certificate_comes_over_udp_in_a_padded_answer() {
    let server = Server::start().await;
    let mut wire = Wire::start(server.addr).await;
    wire.refuse_tcp().await;
    let required = wishing(PostQuantum::Required, &server);
    let upstream = upstream(vec![wire.stamp(&server)], required);

    upstream.resolve(&a_query("a.example")).await.unwrap();

    assert_eq!(system(&upstream), Some(System::XWing));
    assert!(wire.seen().iter().any(|packet| packet.len() == 3_200));
}

#[tokio::test]
async fn a_resolver_that_shows_it_no_more_is_asked_without_it_where_it_was_only_preferred() {
    let server = Server::start().await;
    let stub = Stub::start(vec![server.stamp()], &server).await;
    assert_eq!(records(&ask_udp(stub.addr, &a_query("a.example")).await), 1);
    assert_eq!(system(stub.stub.upstream()), Some(System::XWing));

    server.advance(17 * HOUR);
    server.rotate();
    server.strip_post_quantum();
    let answer = ask_udp(stub.addr, &a_query("b.example")).await;

    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert_eq!(
        system(stub.stub.upstream()),
        Some(System::XChaCha20Poly1305)
    );
}
