mod pq;

use proptest::prelude::*;
use rand_core::OsRng;

use super::*;
use crate::proto::client::{ClientKeys, QueryPadding, Session};
use crate::proto::seal::WeakKey;
use crate::proto::vectors::{
    CLIENT_NONCE, MAGIC, NOW, certificate, client_secret, dns_query, dns_response, keyring,
    provider, replay, resolver_secret, session,
};

fn query_packet() -> Vec<u8> {
    session()
        .seal_query(
            &dns_query(),
            &CLIENT_NONCE,
            QueryPadding::Udp { target: 256 },
        )
        .unwrap()
}

fn open_udp(packet: &[u8]) -> Result<Opened, Dropped> {
    open(
        &keyring(),
        &mut KeyCache::new(8),
        packet.to_vec(),
        Transport::Udp,
        NOW,
    )
}

fn reason(packet: &[u8]) -> Option<Dropped> {
    open_udp(packet).err()
}

/// A query packet around a plaintext that may be anything.
fn seal_any(mut plain: Vec<u8>) -> Vec<u8> {
    let shared = SharedKey::agree(
        &client_secret(),
        &PublicKey::from(&resolver_secret()).to_bytes(),
    )
    .unwrap();
    let tag = shared.seal(&nonce(&CLIENT_NONCE, &[0; 12]), &mut plain);
    let public = PublicKey::from(&client_secret()).to_bytes();
    [&MAGIC[..], &public, &CLIENT_NONCE, &tag, &plain].concat()
}

#[test]
fn a_query_cut_anywhere_is_dropped() {
    let packet = query_packet();

    for len in 0..packet.len() {
        assert!(reason(&packet[..len]).is_some(), "{len} bytes");
    }
}

#[test]
fn a_query_with_any_byte_changed_is_dropped() {
    let packet = query_packet();

    for at in 0..packet.len() {
        let mut forged = packet.clone();
        forged[at] ^= 1;
        // The top bit of a public key means nothing to X25519; every other bit does.
        assert!(reason(&forged).is_some(), "byte {at}");
    }
}

#[test]
fn another_magic_a_weak_key_and_an_expired_certificate_are_dropped() {
    let mut other = query_packet();
    other[0] ^= 1;
    let mut weak = query_packet();
    weak[8..40].fill(0);
    let late = open(
        &keyring(),
        &mut KeyCache::new(8),
        query_packet(),
        Transport::Udp,
        u64::from(certificate().end) + 1,
    );

    assert_eq!(reason(&other), Some(Dropped::UnknownMagic));
    assert_eq!(reason(&weak), Some(Dropped::WeakKey));
    assert_eq!(late.err(), Some(Dropped::UnknownMagic));
    assert_eq!(
        SharedKey::agree(&resolver_secret(), &[0; 32]).err(),
        Some(WeakKey)
    );
}

#[test]
fn authentic_plaintexts_that_are_no_query_are_dropped() {
    let padded = |mut message: Vec<u8>| {
        message.push(0x80);
        seal_any(message)
    };
    let mut two_questions = dns_query();
    two_questions[5] = 2;
    let mut trailing = dns_query();
    trailing.push(1);

    assert_eq!(reason(&seal_any(vec![0; 64])), Some(Dropped::BadPadding));
    assert_eq!(reason(&padded(vec![])), Some(Dropped::Malformed));
    assert_eq!(reason(&padded(dns_response())), Some(Dropped::NotAQuery));
    assert_eq!(reason(&padded(two_questions)), Some(Dropped::Malformed));
    assert_eq!(reason(&padded(trailing)), Some(Dropped::Malformed));
}

#[test]
fn a_query_above_4096_bytes_is_dropped() {
    let mut message = dns_query();
    message.push(0x80);
    message.resize(4097 - 68, 0);

    assert_eq!(reason(&seal_any(message)), Some(Dropped::TooLong));
}

#[test]
fn any_padding_length_is_accepted() {
    for padded in dns_query().len() + 1..300 {
        let mut message = dns_query();
        crate::proto::padding::pad(&mut message, padded);

        assert_eq!(open_udp(&seal_any(message)).unwrap().query, dns_query());
    }
}

#[test]
fn only_authentic_clients_enter_the_key_cache() {
    let mut cache = KeyCache::new(8);
    let mut forged = query_packet();
    *forged.last_mut().unwrap() ^= 1;

    let refused = open(&keyring(), &mut cache, forged, Transport::Udp, NOW);
    assert!(refused.is_err() && cache.is_empty());
    let accepted = open(&keyring(), &mut cache, query_packet(), Transport::Udp, NOW);

    assert!(accepted.is_ok());
    assert_eq!(cache.len(), 1);
}

#[test]
fn the_key_cache_never_outgrows_its_bound_and_forgets_retired_keys() {
    let mut cache = KeyCache::new(10);

    for client in 0..100_u8 {
        let keys = ClientKeys::from_secret(StaticSecret::from([client; 32]));
        let session = Session::new(&certificate(), &keys).unwrap();
        let packet = session
            .seal_query(
                &dns_query(),
                &CLIENT_NONCE,
                QueryPadding::Udp { target: 256 },
            )
            .unwrap();
        open(&keyring(), &mut cache, packet, Transport::Udp, NOW).unwrap();
        assert!(cache.len() <= 10);
    }
    cache.retain_only(&Keyring::default());

    assert!(cache.is_empty());
}

#[test]
fn the_whole_answer_comes_back_when_it_fits() {
    let opened = open_udp(&query_packet()).unwrap();

    let sealed = opened.reply.seal(dns_response(), &opened.query, OsRng);

    assert!(!sealed.truncated);
    let response = session().open_response(sealed.packet, &dns_query(), &CLIENT_NONCE);
    assert_eq!(response, Ok(dns_response()));
}

#[test]
fn an_answer_over_udp_is_never_larger_than_its_query_and_never_dropped() {
    for target in [256, 320, 1024] {
        for extra in 0..1200 {
            let query = session()
                .seal_query(&dns_query(), &CLIENT_NONCE, QueryPadding::Udp { target })
                .unwrap();
            let limit = query.len();
            let opened = open_udp(&query).unwrap();
            let mut answer = dns_response();
            answer.resize(dns_response().len() + extra, 7);
            let fits = answer.len() <= opened.reply.room();

            let sealed = opened.reply.seal(answer.clone(), &opened.query, OsRng);

            assert!(sealed.packet.len() <= limit);
            assert_eq!(sealed.truncated, !fits);
            let response = session()
                .open_response(sealed.packet, &dns_query(), &CLIENT_NONCE)
                .unwrap();
            if fits {
                assert_eq!(response, answer);
            } else {
                assert!(message::is_truncated(&response));
                assert_eq!(response.len(), dns_query().len());
            }
        }
    }
}

#[test]
fn an_answer_over_tcp_stays_below_4096_bytes() {
    for len in [3900, 4046, 4047, 4048, 9000, 65_535] {
        let opened = open(
            &keyring(),
            &mut KeyCache::new(0),
            query_packet(),
            Transport::Tcp,
            NOW,
        )
        .unwrap();
        let mut answer = dns_response();
        answer.resize(len, 7);

        let sealed = opened.reply.seal(answer, &opened.query, OsRng);

        assert!(sealed.packet.len() < 4096);
        assert_eq!(sealed.truncated, len > 4046);
    }
}

#[test]
fn repeating_a_query_repeats_the_length_of_its_answer_but_not_the_nonce() {
    let seal = || {
        let opened = open(
            &keyring(),
            &mut KeyCache::new(0),
            query_packet(),
            Transport::Tcp,
            NOW,
        )
        .unwrap();
        opened
            .reply
            .seal(dns_response(), &opened.query, OsRng)
            .packet
    };

    let first = seal();

    for _ in 0..20 {
        let again = seal();
        assert_eq!(again.len(), first.len());
        assert_ne!(again[20..32], first[20..32]);
    }
}

#[test]
fn a_secret_that_does_not_belong_to_the_certificate_is_refused() {
    let wire = certificate().sign(&provider());

    let outcome = ResolverKey::new(certificate(), wire, client_secret());

    assert_eq!(outcome.err(), Some(WrongSecret));
}

#[test]
fn only_valid_certificates_are_advertised_the_newest_first() {
    let older = certificate();
    let newer = Certificate {
        serial: 2,
        start: older.start + 1000,
        end: older.end + 1000,
        ..certificate()
    };
    let key = |cert: &Certificate| {
        let wire = cert.sign(&provider());
        Arc::new(ResolverKey::new(cert.clone(), wire, resolver_secret()).unwrap())
    };
    let ring = Keyring::new(vec![key(&older), key(&newer)]);

    let at = |now: u32| ring.advertised(u64::from(now)).len();

    assert_eq!(at(older.start), 1);
    assert_eq!(
        ring.advertised(u64::from(older.end))[0],
        newer.sign(&provider())
    );
    assert_eq!(at(older.end), 2);
    assert_eq!(at(older.end + 1), 1);
    assert_eq!(at(newer.end + 1), 0);
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4200), prefix in any::<bool>()) {
        let bytes = if prefix { [&MAGIC[..], &bytes].concat() } else { bytes };
        prop_assert!(open_udp(&bytes).is_err());
    }

    #[test]
    fn no_authentic_bytes_make_the_parser_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        answer in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        if let Ok(opened) = open_udp(&seal_any([&bytes[..], &[0x80]].concat())) {
            let _ = opened.reply.seal(answer.clone(), &opened.query, OsRng);
        }
        let opened = open_udp(&query_packet()).unwrap();
        prop_assert!(opened.reply.seal(answer, &opened.query, OsRng).packet.len() <= query_packet().len());
    }
}

#[test]
fn the_corpus_is_replayed() {
    replay("query", |bytes| {
        let _ = reason(bytes);
        let _ = reason(&seal_any([bytes, &[0x80]].concat()));
    });
}
