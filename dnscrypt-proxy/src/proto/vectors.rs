//! The classical vectors of the draft, every value made from its counter inputs; and what the tests of
//! this folder build their packets from.

#[cfg(test)]
mod pq;

pub(super) use pq::{
    PQ_CLIENT_NONCE, RESUMED_NONCE, pq_certificate, pq_key, pq_session, xwing_secret,
};

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use x25519_dalek::{PublicKey, StaticSecret};

use super::cert::{Certificate, SignedCert, System};
use super::client::{ClientKeys, QueryPadding, Session};
use super::message;
use super::padding;
use super::seal::{SharedKey, nonce};
use super::server::{Keyring, ResolverKey};

/// Any moment at which the vectors' certificate is valid.
pub(super) const NOW: u64 = 0x6800_1000;
pub(super) const MAGIC: [u8; 8] = counter(0xb1);
pub(super) const CLIENT_NONCE: [u8; 12] = counter(0xa0);
pub(super) const RESOLVER_NONCE: [u8; 12] = counter(0xc0);

/// `start`, `start + 1`, and so on.
pub(super) const fn counter<const N: usize>(start: u8) -> [u8; N] {
    let mut bytes = [0; N];
    let mut at = 0;
    while at < N {
        bytes[at] = start + at as u8;
        at += 1;
    }
    bytes
}

pub(super) fn provider() -> SigningKey {
    SigningKey::from_bytes(&counter(0x00))
}

pub(super) fn resolver_secret() -> StaticSecret {
    StaticSecret::from(counter::<32>(0x20))
}

pub(super) fn client_secret() -> StaticSecret {
    StaticSecret::from(counter::<32>(0x40))
}

pub(super) fn certificate() -> Certificate {
    Certificate {
        system: System::XChaCha20Poly1305,
        resolver_key: PublicKey::from(&resolver_secret()).to_bytes().to_vec(),
        magic: MAGIC,
        serial: 1,
        start: 0x6800_0000,
        end: 0x6801_5180,
        minor: 0,
    }
}

pub(super) fn keyring() -> Keyring {
    let cert = certificate();
    let wire = cert.sign(&provider());
    let key = ResolverKey::new(cert, wire, resolver_secret()).unwrap();
    Keyring::new(vec![std::sync::Arc::new(key)])
}

pub(super) fn session() -> Session {
    Session::new(&certificate(), &ClientKeys::from_secret(client_secret())).unwrap()
}

/// The query of the vectors: A? www.example.com
pub(super) fn dns_query() -> Vec<u8> {
    hex::decode("12340100000100000000000003777777076578616d706c6503636f6d0000010001").unwrap()
}

/// Its answer: A 93.184.216.34
pub(super) fn dns_response() -> Vec<u8> {
    hex::decode("12348180000100010000000003777777076578616d706c6503636f6d0000010001c00c0001000100000e1000045db8d822")
        .unwrap()
}

/// A response packet as the vectors fix it: padded to 64, with a given nonce.
pub(super) fn response_packet(plain: &[u8], padded_len: usize) -> Vec<u8> {
    let shared = SharedKey::agree(
        &resolver_secret(),
        &PublicKey::from(&client_secret()).to_bytes(),
    )
    .unwrap();
    let mut padded = plain.to_vec();
    padding::pad(&mut padded, padded_len);
    seal_response(&shared, padded)
}

/// Seals a plaintext that may be padded wrongly.
pub(super) fn seal_response(shared: &SharedKey, mut padded: Vec<u8>) -> Vec<u8> {
    let tag = shared.seal(&nonce(&CLIENT_NONCE, &RESOLVER_NONCE), &mut padded);
    [
        &b"r6fnvWj8"[..],
        &CLIENT_NONCE,
        &RESOLVER_NONCE,
        &tag,
        &padded,
    ]
    .concat()
}

fn computed() -> BTreeMap<&'static str, Vec<u8>> {
    let shared = SharedKey::agree(
        &client_secret(),
        &PublicKey::from(&resolver_secret()).to_bytes(),
    )
    .unwrap();
    let wire = certificate().sign(&provider());
    let mut padded_query = dns_query();
    padding::pad(&mut padded_query, 256);
    let mut encrypted_query = padded_query.clone();
    let tag = shared.seal(&nonce(&CLIENT_NONCE, &[0; 12]), &mut encrypted_query);
    let cert_query = hex::decode(
        "abcd0100000100000000000001320d646e7363727970742d63657274076578616d706c6503636f6d0000100001",
    )
    .unwrap();
    let asked = message::Query::read(&cert_query).unwrap();
    BTreeMap::from([
        (
            "provider-pk",
            provider().verifying_key().to_bytes().to_vec(),
        ),
        (
            "resolver-pk",
            PublicKey::from(&resolver_secret()).to_bytes().to_vec(),
        ),
        (
            "client-pk",
            PublicKey::from(&client_secret()).to_bytes().to_vec(),
        ),
        ("shared-key", shared.bytes().to_vec()),
        ("certificate", wire.clone()),
        ("certificate-query", cert_query.clone()),
        ("certificate-response", asked.answer_txt(&[&wire], 86400)),
        ("dns-query", dns_query()),
        ("dns-response", dns_response()),
        ("encrypted-query", [&tag[..], &encrypted_query].concat()),
        (
            "query-packet",
            session()
                .seal_query(
                    &dns_query(),
                    &CLIENT_NONCE,
                    QueryPadding::Udp { target: 324 },
                )
                .unwrap(),
        ),
        ("response-packet", response_packet(&dns_response(), 64)),
    ])
}

#[test]
fn every_value_of_the_vector_file_follows_from_the_counter_inputs() {
    compare(include_str!("../../vectors/classical.txt"), &computed());
}

/// Each value stated in a file is computed, and each computed one stated.
fn compare(file: &str, computed: &BTreeMap<&'static str, Vec<u8>>) {
    let stated: BTreeMap<_, _> = file
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| {
            let (name, value) = line.split_once(" = ").unwrap();
            (name, hex::decode(value).unwrap())
        })
        .collect();

    for (name, value) in computed {
        let text = hex::encode(value);
        assert_eq!(stated.get(name), Some(value), "computed: {name} = {text}");
    }
    assert_eq!(stated.len(), computed.len());
}

#[test]
fn the_certificate_of_the_vectors_is_valid_in_its_window_and_for_its_provider() {
    let wire = certificate().sign(&provider());
    let signed = SignedCert::parse(&wire).unwrap();

    let verified = signed.verify(provider().verifying_key().as_bytes(), NOW);

    assert_eq!(verified, Ok(&certificate()));
}

/// Runs a check over every file of a corpus folder, and fails when there is none.
pub(super) fn replay(corpus: &str, check: impl Fn(&[u8])) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpora")
        .join(corpus);
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        check(&std::fs::read(entry.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files > 0, "the corpus {corpus} is empty");
}
