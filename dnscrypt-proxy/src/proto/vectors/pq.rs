//! The post-quantum vectors of the draft, every value made from its counter inputs.

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{NOW, certificate, compare, counter, dns_query, dns_response, provider};
use crate::proto::cert::{Certificate, System};
use crate::proto::client::{PqSession, QueryPadding};
use crate::proto::padding;
use crate::proto::pq::{Binding, ResumeSecret, profile_hash, put_control};
use crate::proto::seal::{SharedKey, nonce};
use crate::proto::server::ResolverKey;
use crate::proto::tickets::{TicketCert, TicketKeys};
use crate::proto::xwing::{XWingSecret, encapsulate_from};

pub(in crate::proto) const PQ_MAGIC: [u8; 8] = [0xa1, 0xb2, 0xc3, 0xd4, 0xe5, 0xf6, 0x07, 0x18];

pub(in crate::proto) fn xwing_secret() -> XWingSecret {
    XWingSecret::from_seed(Zeroizing::new(counter(0x20)))
}

pub(in crate::proto) fn pq_certificate() -> Certificate {
    Certificate {
        system: System::XWing,
        resolver_key: xwing_secret().public().to_vec(),
        magic: PQ_MAGIC,
        ..certificate()
    }
}

pub(in crate::proto) const PQ_CLIENT_NONCE: [u8; 12] = counter(0xb0);
pub(in crate::proto) const RESUMED_NONCE: [u8; 12] = counter(0xf0);

pub(in crate::proto) fn pq_session() -> PqSession {
    PqSession::from_seed(&pq_certificate(), &counter(0x40)).unwrap()
}

pub(in crate::proto) fn pq_key() -> Arc<ResolverKey> {
    let cert = pq_certificate();
    let wire = cert.sign(&provider());
    Arc::new(ResolverKey::post_quantum(cert, wire, xwing_secret()).unwrap())
}

/// An answer as the resolver of the vectors seals it.
fn answer(shared: &SharedKey, halves: (&[u8; 12], [u8; 12]), mut plain: Vec<u8>) -> Vec<u8> {
    let tag = shared.seal(&nonce(halves.0, &halves.1), &mut plain);
    [&b"r6fnvWj8"[..], halves.0, &halves.1, &tag, &plain].concat()
}

fn padded(head: &[u8], message: &[u8], len: usize) -> Vec<u8> {
    let mut plain = [head, message].concat();
    padding::pad(&mut plain, len);
    plain
}

fn computed() -> BTreeMap<&'static str, Vec<u8>> {
    let sha256 = |bytes: &[u8]| Sha256::digest(bytes).to_vec();
    let (kem_secret, ciphertext) =
        encapsulate_from(xwing_secret().public(), &counter(0x40)).unwrap();
    let shared = Binding::new(&pq_certificate()).full_key(&kem_secret, &ciphertext);
    let query = pq_session()
        .seal_query(
            &dns_query(),
            &PQ_CLIENT_NONCE,
            QueryPadding::Udp { target: 256 },
            NOW,
        )
        .unwrap();
    let secret = ResumeSecret::of(&shared, &PQ_MAGIC, &PQ_CLIENT_NONCE);
    let keys = TicketKeys::of_vectors(counter(0x80), [0, 0, 0, 1], 0x6800_0258);
    let cert = TicketCert::of(&pq_certificate());
    let ticket = keys.seal_vector(&secret, cert, 0x6800_0258, &counter(0xd0));
    let mut control = Vec::new();
    put_control(&mut control, 300, &ticket);
    let plain = padded(&control, &dns_response(), 256);
    let response = answer(&shared, (&PQ_CLIENT_NONCE, counter(0xc0)), plain.clone());
    let resumed_key = secret.query_key(&PQ_MAGIC, &RESUMED_NONCE, &ticket);
    let mut session = pq_session();
    let adopted = query
        .asked
        .open_response(response.clone(), &dns_query(), 0x6800_012c)
        .unwrap();
    session.keep(adopted.ticket.unwrap());
    let resumed = session
        .seal_query(
            &dns_query(),
            &RESUMED_NONCE,
            QueryPadding::Udp { target: 424 },
            0x6800_012d,
        )
        .unwrap()
        .packet;
    let wire = pq_certificate().sign(&provider());
    let resumed_plain = padded(&[0, 0], &dns_response(), 64);
    BTreeMap::from([
        ("resolver-pk sha256", sha256(xwing_secret().public())),
        ("ciphertext sha256", sha256(&ciphertext)),
        ("kem-ss", kem_secret.to_vec()),
        ("shared-key", shared.bytes().to_vec()),
        ("signature", wire[8..72].to_vec()),
        ("encrypted-query", query.packet[1140..].to_vec()),
        ("query-packet sha256", sha256(&query.packet)),
        ("resume-secret", secret.bytes().to_vec()),
        ("profile-hash", profile_hash().to_vec()),
        ("ticket", ticket.to_vec()),
        ("control", control[2..].to_vec()),
        ("response-plaintext sha256", sha256(&plain)),
        ("response-packet sha256", sha256(&response)),
        ("ticket sha256", sha256(&ticket)),
        ("resumed-key", resumed_key.bytes().to_vec()),
        ("resumed-encrypted-query sha256", sha256(&resumed[152..])),
        ("resumed-query-packet sha256", sha256(&resumed)),
        (
            "resumed-response-packet sha256",
            sha256(&answer(
                &resumed_key,
                (&RESUMED_NONCE, counter(0x10)),
                resumed_plain,
            )),
        ),
    ])
}

#[test]
fn every_post_quantum_value_follows_from_the_counter_inputs() {
    compare(
        include_str!("../../../vectors/post-quantum.txt"),
        &computed(),
    );
}
