use super::*;
use crate::proto::client::{PqQuery, PqSession};
use crate::proto::tickets::KEY_ISSUES_S;
use crate::proto::vectors::{
    PQ_CLIENT_NONCE, RESUMED_NONCE, pq_certificate, pq_key, pq_session, xwing_secret,
};

fn tickets() -> Arc<TicketKeys> {
    Arc::new(TicketKeys::default().renewed(OsRng, NOW).unwrap())
}

fn ring() -> Keyring {
    Keyring::new(vec![pq_key()]).with_tickets(tickets())
}

fn ask(session: &PqSession, client_nonce: &ClientNonce, target: usize) -> PqQuery {
    let how = QueryPadding::Udp { target };
    session
        .seal_query(&dns_query(), client_nonce, how, NOW)
        .unwrap()
}

fn open_at(ring: &Keyring, packet: &[u8], now: u64) -> Result<Opened, Dropped> {
    let mut cache = KeyCache::new(8);
    open(ring, &mut cache, packet.to_vec(), Transport::Udp, now)
}

fn refusal(ring: &Keyring, packet: &[u8], now: u64) -> Option<Dropped> {
    open_at(ring, packet, now).err()
}

/// A session with a ticket from this ring.
fn resumable(ring: &Keyring) -> PqSession {
    let mut session = pq_session();
    let query = ask(&session, &PQ_CLIENT_NONCE, 512);
    let opened = open_at(ring, &query.packet, NOW).unwrap();
    let sealed = opened.reply.seal(dns_response(), &opened.query, OsRng);
    let answer = query
        .asked
        .open_response(sealed.packet, &dns_query(), NOW)
        .unwrap();
    session.keep(answer.ticket.unwrap());
    session
}

#[test]
fn a_full_query_cut_or_changed_anywhere_is_dropped() {
    let ring = ring();
    let packet = ask(&pq_session(), &PQ_CLIENT_NONCE, 512).packet;

    for len in 0..packet.len() {
        let expected = match len {
            0..1156 => Dropped::TooShort,
            _ => Dropped::BadTag,
        };
        assert_eq!(refusal(&ring, &packet[..len], NOW), Some(expected));
    }
    for at in (8..packet.len()).step_by(7) {
        let mut forged = packet.clone();
        forged[at] ^= 1;
        // The garbled ciphertext has a secret too; the seal is what fails.
        assert_eq!(refusal(&ring, &forged, NOW), Some(Dropped::BadTag));
    }
}

#[test]
fn a_resumed_query_cut_or_changed_anywhere_is_dropped() {
    let ring = ring();
    let packet = ask(&resumable(&ring), &RESUMED_NONCE, 256).packet;

    for len in 0..packet.len() {
        assert!(refusal(&ring, &packet[..len], NOW).is_some(), "{len} bytes");
    }
    for at in 0..packet.len() {
        let mut forged = packet.clone();
        forged[at] ^= 1;
        assert!(refusal(&ring, &forged, NOW).is_some(), "byte {at}");
    }
    assert!(open_at(&ring, &packet, NOW).is_ok());
}

#[test]
fn each_way_to_refuse_a_ticket_has_its_reason() {
    let ring = ring();
    let packet = ask(&resumable(&ring), &RESUMED_NONCE, 256).packet;
    let mut forged = packet.clone();
    forged[60] ^= 1;
    let other_cert = Certificate {
        serial: 2,
        ..pq_certificate()
    };
    let wire = other_cert.sign(&provider());
    let other_key = ResolverKey::post_quantum(other_cert, wire, xwing_secret()).unwrap();
    let same_tickets = ring.tickets.clone().unwrap();
    let rotated = Keyring::new(vec![Arc::new(other_key)]).with_tickets(same_tickets.clone());
    let without_cert = Keyring::new(vec![]).with_tickets(same_tickets);
    let classical_only = keyring();
    let over = NOW + 3601;

    assert_eq!(refusal(&ring, &forged, NOW), Some(Dropped::BadTicket));
    assert_eq!(refusal(&ring, &packet, over), Some(Dropped::ExpiredTicket));
    let other_keys = Keyring::new(vec![pq_key()]).with_tickets(tickets());
    assert_eq!(
        refusal(&other_keys, &packet, NOW),
        Some(Dropped::UnknownTicketKey)
    );
    for ring in [rotated, without_cert] {
        assert_eq!(
            refusal(&ring, &packet, NOW),
            Some(Dropped::TicketOfOtherCert)
        );
    }
    assert_eq!(
        refusal(&classical_only, &packet, NOW),
        Some(Dropped::UnknownMagic)
    );
    assert!(!classical_only.claims(&packet) && ring.claims(&packet));
}

#[test]
fn no_ticket_is_issued_when_its_key_retires() {
    let ring = ring();
    let now = NOW + u64::from(KEY_ISSUES_S);
    let query = ask(&pq_session(), &PQ_CLIENT_NONCE, 512);

    let opened = open_at(&ring, &query.packet, now).unwrap();
    let sealed = opened.reply.seal(dns_response(), &opened.query, OsRng);

    let answer = query
        .asked
        .open_response(sealed.packet, &dns_query(), now)
        .unwrap();
    assert!(answer.ticket.is_none());
}

#[test]
fn a_secret_of_another_kind_or_another_key_is_refused() {
    let wire = pq_certificate().sign(&provider());
    let other = XWingSecret::from_seed(Zeroizing::new([9; 32]));

    let as_classical = ResolverKey::new(pq_certificate(), wire.clone(), resolver_secret());
    let as_other = ResolverKey::post_quantum(pq_certificate(), wire.clone(), other);
    let as_pq = ResolverKey::post_quantum(certificate(), wire, xwing_secret());

    for outcome in [as_classical, as_other, as_pq] {
        assert_eq!(outcome.err(), Some(WrongSecret));
    }
}

#[test]
fn what_a_key_file_holds_makes_the_same_key_again() {
    let bytes = pq_key().to_secret_bytes();
    let (wire, seed) = bytes.split_last_chunk::<32>().unwrap();
    assert_eq!(wire, pq_certificate().sign(&provider()));

    let again =
        ResolverKey::from_secret(pq_certificate(), wire.to_vec(), Zeroizing::new(*seed)).unwrap();

    let packet = ask(&pq_session(), &PQ_CLIENT_NONCE, 512).packet;
    let ring = Keyring::new(vec![Arc::new(again)]);
    assert_eq!(open_at(&ring, &packet, NOW).unwrap().query, dns_query());
}

#[test]
fn a_ciphertext_that_comes_again_is_found_in_the_cache_and_garbage_never_is() {
    let (ring, mut cache) = (ring(), KeyCache::new(8));
    let mut forged = ask(&pq_session(), &PQ_CLIENT_NONCE, 512).packet;
    *forged.last_mut().unwrap() ^= 1;

    let refused = open(&ring, &mut cache, forged, Transport::Udp, NOW);
    assert!(refused.is_err() && cache.is_empty());
    for client_nonce in [PQ_CLIENT_NONCE, RESUMED_NONCE] {
        let packet = ask(&pq_session(), &client_nonce, 512).packet;
        open(&ring, &mut cache, packet, Transport::Udp, NOW).unwrap();
    }

    assert_eq!(cache.len(), 1);
}

/// The order is: ticket, padding in whole blocks, answer.
#[test]
fn what_does_not_fit_loses_its_ticket_first_and_the_answer_last() {
    let ring = ring();
    let resuming = resumable(&ring);
    for (session, target) in [(pq_session(), 512), (resuming, 256)] {
        let (mut with_ticket, mut without, mut cut) = (0, 0, 0);
        for extra in 0..1200 {
            let query = ask(&session, &RESUMED_NONCE, target);
            let limit = query.packet.len();
            let opened = open_at(&ring, &query.packet, NOW + 2000).unwrap();
            let mut answer = dns_response();
            answer.resize(answer.len() + extra, 7);

            let sealed = opened.reply.seal(answer.clone(), &opened.query, OsRng);

            assert!(sealed.packet.len() <= limit);
            assert_eq!(sealed.truncated, answer.len() + 2 + 1 > limit - 48);
            let truncated = sealed.truncated;
            let read = query
                .asked
                .open_response(sealed.packet, &dns_query(), NOW)
                .unwrap();
            match (truncated, read.ticket) {
                (true, _) => {
                    assert!(message::is_truncated(&read.message));
                    cut += 1;
                }
                (false, ticket) => {
                    assert_eq!(read.message, answer);
                    with_ticket += usize::from(ticket.is_some());
                    without += usize::from(ticket.is_none());
                }
            }
        }
        assert!(without > 0 && cut > 0, "{with_ticket} {without} {cut}");
        assert_eq!(with_ticket > 0, target == 512);
    }
}

fn cert_query(len: usize, udp_size: u16) -> Vec<u8> {
    let name = "2.dnscrypt-cert.example.com";
    message::padded_query(7, name, hickory_proto::rr::RecordType::TXT, udp_size, len).unwrap()
}

fn cert_answer(ring: &Keyring, query: &[u8], transport: Transport) -> Vec<u8> {
    let read = message::Query::read(query).unwrap();
    ring.cert_answer(&read, query.len(), transport, 600, NOW)
}

/// Both kinds, two of each, as while keys are rotated.
fn rollover() -> Keyring {
    let mut keys = vec![pq_key(), Arc::clone(&keyring().keys()[0])];
    keys.extend_from_within(..);
    Keyring::new(keys)
}

#[test]
fn post_quantum_certificates_over_udp_never_outweigh_the_query() {
    let ring = rollover();
    let whole = cert_answer(&ring, &cert_query(0, 1232), Transport::Tcp).len();
    assert!((2900..3100).contains(&whole), "{whole}");

    for len in (0..4000).step_by(13) {
        let query = cert_query(len, 4096);
        let answer = cert_answer(&ring, &query, Transport::Udp);
        let lens: Vec<_> = message::texts(&answer)
            .unwrap()
            .iter()
            .map(Vec::len)
            .collect();
        if query.len() < whole {
            assert_eq!(lens, [124, 124], "query of {len}");
            assert!(message::is_truncated(&answer));
        } else {
            assert_eq!(lens.len(), 4);
            assert!(answer.len() <= query.len() && !message::is_truncated(&answer));
        }
    }
}

#[test]
fn a_large_query_does_not_make_its_sender_take_more_than_it_says() {
    let answer = cert_answer(&rollover(), &cert_query(3200, 1232), Transport::Udp);

    assert!(answer.len() <= 1232 && message::is_truncated(&answer));
}

#[test]
fn no_more_than_two_certificates_of_a_system_are_handed_out_and_two_fit_512_bytes() {
    let key = Arc::clone(&keyring().keys()[0]);
    let many = Keyring::new(vec![key; 4]);
    let mut bare = cert_query(0, 512);
    bare.truncate(bare.len() - 11);
    bare[11] = 0;

    let answer = cert_answer(&many, &bare, Transport::Udp);

    assert_eq!(message::texts(&answer).unwrap().len(), 2);
    assert!(!message::is_truncated(&answer) && answer.len() <= 512);
}

#[test]
fn classical_certificates_alone_come_whole_to_an_ordinary_query() {
    let answer = cert_answer(&keyring(), &cert_query(0, 1232), Transport::Udp);

    assert_eq!(message::texts(&answer).unwrap().len(), 1);
    assert!(!message::is_truncated(&answer));
}
