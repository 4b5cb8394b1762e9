use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use rand_core::OsRng;

use super::*;
use crate::proto::Transport;
use crate::proto::pq::put_control;
use crate::proto::seal::nonce;
use crate::proto::server::{KeyCache, Keyring, open};
use crate::proto::tickets::TicketKeys;
use crate::proto::vectors::{NOW, RESOLVER_NONCE, certificate, dns_query, dns_response};
use crate::proto::vectors::{PQ_CLIENT_NONCE, RESUMED_NONCE, pq_certificate, pq_key, pq_session};

const UDP: QueryPadding = QueryPadding::Udp { target: 512 };

/// One for all tests: each encapsulation costs as much as a hundred answers.
static SESSION: LazyLock<PqSession> = LazyLock::new(pq_session);

fn sent(session: &PqSession, client_nonce: &ClientNonce, now: u64) -> PqQuery {
    session
        .seal_query(&dns_query(), client_nonce, UDP, now)
        .unwrap()
}

/// A response to the session's first query, with anything for a plaintext.
fn response(plain: &[u8]) -> Vec<u8> {
    let asked = sent(&SESSION, &PQ_CLIENT_NONCE, NOW).asked;
    let mut sealed = [plain, &[0x80]].concat();
    let nonce = nonce(&PQ_CLIENT_NONCE, &RESOLVER_NONCE);
    let tag = asked.shared.seal(&nonce, &mut sealed);
    [
        &b"r6fnvWj8"[..],
        &PQ_CLIENT_NONCE,
        &RESOLVER_NONCE,
        &tag,
        &sealed,
    ]
    .concat()
}

fn opened(packet: Vec<u8>) -> Result<PqAnswer, Dropped> {
    sent(&SESSION, &PQ_CLIENT_NONCE, NOW)
        .asked
        .open_response(packet, &dns_query(), NOW)
}

fn offered(lifetime_s: u32, ticket: &[u8]) -> Option<Ticket> {
    let mut plain = Vec::new();
    put_control(&mut plain, lifetime_s, ticket);
    plain.extend_from_slice(&dns_response());
    opened(response(&plain)).unwrap().ticket
}

#[test]
fn no_session_is_made_from_a_classical_certificate_or_a_bad_key() {
    let bad = Certificate {
        resolver_key: vec![0xff; 1216],
        ..pq_certificate()
    };

    assert_eq!(
        PqSession::new(&certificate(), OsRng).err(),
        Some(SessionError::NotSpoken(System::XChaCha20Poly1305))
    );
    assert_eq!(
        PqSession::new(&bad, OsRng).err(),
        Some(SessionError::WeakKey)
    );
}

#[test]
fn a_response_cut_or_changed_anywhere_is_refused() {
    let packet = response(&[&[0, 0][..], &dns_response()].concat());

    for at in 0..packet.len() {
        let mut forged = packet.clone();
        forged[at] ^= 0x40;
        assert!(opened(forged).is_err(), "byte {at}");
        assert!(opened(packet[..at].to_vec()).is_err(), "{at} bytes");
    }
    assert_eq!(opened(packet).unwrap().message, dns_response());
}

#[test]
fn an_authentic_response_with_a_bad_control_block_is_refused() {
    let mut zero_lifetime = Vec::new();
    put_control(&mut zero_lifetime, 0, b"ticket");
    zero_lifetime.extend_from_slice(&dns_response());

    let reason = |plain: &[u8]| opened(response(plain)).err();

    assert_eq!(reason(&zero_lifetime), Some(Dropped::BadControl));
    assert_eq!(reason(&[]), Some(Dropped::BadControl));
    assert_eq!(reason(&[0, 9, 1]), Some(Dropped::BadControl));
    assert_eq!(reason(&[0, 0]), Some(Dropped::Malformed));
    assert_eq!(reason(&dns_response()), Some(Dropped::BadControl));
}

#[test]
fn a_ticket_too_large_is_not_kept_and_its_answer_is() {
    assert!(offered(300, &[7; MAX_TICKET + 1]).is_none());
    assert!(offered(300, &[7; MAX_TICKET]).is_some());
}

#[test]
fn a_ticket_ends_with_its_lifetime_with_its_certificate_and_after_twelve_hours() {
    let end = |lifetime_s| offered(lifetime_s, b"ticket").unwrap().end;

    assert_eq!(end(300), NOW + 300);
    assert_eq!(end(u32::MAX), NOW + u64::from(MAX_LIFETIME_S));
    let long_past = sent(&SESSION, &PQ_CLIENT_NONCE, NOW).asked;
    let offer = Offer {
        lifetime_s: 300,
        ticket: b"ticket",
    };
    let cert_end = u64::from(pq_certificate().end);
    let near_end = long_past.ticket_of(&offer, cert_end - 10).unwrap();
    assert_eq!(near_end.end, cert_end);
    assert!(long_past.ticket_of(&offer, cert_end).is_none());
}

#[test]
fn a_query_resumes_while_its_ticket_lasts_and_carries_a_ciphertext_after_it() {
    let mut session = pq_session();
    session.keep(offered(300, b"ticket").unwrap());

    let last = sent(&session, &RESUMED_NONCE, NOW + 300);
    let after = sent(&session, &RESUMED_NONCE, NOW + 301);

    assert!(last.asked.resumed() && last.packet.starts_with(b"PQResume\0\x06ticket"));
    assert!(!after.asked.resumed() && after.packet.starts_with(&pq_certificate().magic));
}

#[test]
fn silence_costs_the_ticket_that_was_used_and_no_newer_one() {
    let mut session = pq_session();
    session.keep(offered(300, b"older").unwrap());
    let asked = sent(&session, &RESUMED_NONCE, NOW).asked;
    session.keep(offered(400, b"newer").unwrap());

    session.unanswered(&asked);
    let newer = sent(&session, &RESUMED_NONCE, NOW).asked;
    assert!(newer.resumed());
    session.unanswered(&newer);

    assert!(!sent(&session, &RESUMED_NONCE, NOW).asked.resumed());
}

#[test]
fn an_older_ticket_that_comes_late_replaces_nothing() {
    let mut session = pq_session();
    session.keep(offered(400, b"newer").unwrap());
    session.keep(offered(300, b"older").unwrap());

    let packet = sent(&session, &RESUMED_NONCE, NOW).packet;

    assert!(packet.starts_with(b"PQResume\0\x05newer"));
}

#[test]
fn each_nonce_has_a_key_of_its_own_under_one_ticket() {
    let mut session = pq_session();
    session.keep(offered(300, b"ticket").unwrap());

    let one = sent(&session, &RESUMED_NONCE, NOW).asked;
    let other = sent(&session, &PQ_CLIENT_NONCE, NOW).asked;

    assert_ne!(one.shared.bytes(), other.shared.bytes());
}

#[test]
fn a_full_query_fits_one_packet_until_its_message_does_not() {
    let len = |message: usize| {
        let query = pq_session().seal_query(&vec![0; message], &PQ_CLIENT_NONCE, UDP, NOW);
        query.map(|query| query.packet.len())
    };

    assert_eq!(len(33), Ok(1220));
    assert_eq!(len(75), Ok(UDP_PAYLOAD));
    assert_eq!(len(76), Ok(1284));
    assert_eq!(len(4096 - 1140 - 16), Err(TooLong));
}

#[test]
fn no_secret_shows_itself_in_debug() {
    let mut session = pq_session();
    session.keep(offered(300, b"ticket").unwrap());

    let shown = format!("{:?}", session.ticket.as_ref().unwrap());

    assert_eq!(shown, format!("Ticket(until {})", NOW + 300));
    assert!(format!("{session:?}").contains("SharedKey(…)"));
}

#[test]
fn a_session_lives_on_tickets_that_are_renewed() {
    let mut keys = TicketKeys::default().renewed(OsRng, NOW).unwrap();
    let mut session = pq_session();
    let mut resumed = 0;
    for minute in 0..240_u64 {
        let now = NOW + minute * 60;
        keys = keys.renewed(OsRng, now).unwrap_or(keys);
        let shared = TicketKeys::from_secret_bytes(&keys.to_secret_bytes()).unwrap();
        let ring = Keyring::new(vec![pq_key()]).with_tickets(Arc::new(shared));
        let mut client_nonce = PQ_CLIENT_NONCE;
        client_nonce[0] = u8::try_from(minute).unwrap();
        let query = sent(&session, &client_nonce, now);
        let len = query.packet.len();

        let open = open(
            &ring,
            &mut KeyCache::new(0),
            query.packet,
            Transport::Udp,
            now,
        )
        .unwrap();
        let sealed = open.reply.seal(dns_response(), &open.query, OsRng);
        assert!(sealed.packet.len() <= len && !sealed.truncated);
        let answer = query
            .asked
            .open_response(sealed.packet, &dns_query(), now)
            .unwrap();

        resumed += usize::from(query.asked.resumed());
        assert_eq!(answer.message, dns_response());
        if let Some(ticket) = answer.ticket {
            session.keep(ticket);
        }
    }
    assert_eq!(resumed, 239);
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = opened(response(&bytes));
        prop_assert!(opened(bytes).is_err());
    }
}
