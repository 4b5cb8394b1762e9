use proptest::prelude::*;

use super::*;
use crate::proto::vectors::{
    CLIENT_NONCE, RESOLVER_NONCE, certificate, client_secret, dns_query, dns_response, replay,
    resolver_secret, response_packet, seal_response, session,
};

fn open(packet: &[u8]) -> Result<Vec<u8>, Dropped> {
    session().open_response(packet.to_vec(), &dns_query(), &CLIENT_NONCE)
}

fn shared() -> SharedKey {
    SharedKey::agree(
        &resolver_secret(),
        &PublicKey::from(&client_secret()).to_bytes(),
    )
    .unwrap()
}

#[test]
fn a_response_cut_anywhere_is_refused() {
    let packet = response_packet(&dns_response(), 64);

    for len in 0..packet.len() {
        assert!(open(&packet[..len]).is_err(), "{len} bytes");
    }
}

#[test]
fn a_response_with_any_byte_changed_is_refused() {
    let packet = response_packet(&dns_response(), 64);

    for at in 0..packet.len() {
        let mut forged = packet.clone();
        forged[at] ^= 0x40;
        assert!(open(&forged).is_err(), "byte {at}");
    }
}

#[test]
fn a_response_to_another_nonce_is_refused() {
    let packet = response_packet(&dns_response(), 64);

    let outcome = session().open_response(packet, &dns_query(), &RESOLVER_NONCE);

    assert_eq!(outcome, Err(Dropped::UnknownNonce));
}

#[test]
fn an_authentic_response_with_wrong_padding_is_refused() {
    for padded in [vec![0; 64], vec![1; 64], dns_response()] {
        assert_eq!(
            open(&seal_response(&shared(), padded)),
            Err(Dropped::BadPadding)
        );
    }
}

#[test]
fn an_authentic_response_to_another_question_is_refused() {
    let mut other_id = dns_response();
    other_id[0] ^= 1;
    let mut other_name = dns_response();
    other_name[13] = b'x';
    let mut no_response = dns_response();
    no_response[2] &= 0x7f;
    let mut no_question = dns_response();
    no_question[5] = 0;

    assert_eq!(
        open(&response_packet(&other_id, 64)),
        Err(Dropped::WrongQuestion)
    );
    assert_eq!(
        open(&response_packet(&other_name, 64)),
        Err(Dropped::WrongQuestion)
    );
    assert_eq!(
        open(&response_packet(&no_response, 64)),
        Err(Dropped::NotAResponse)
    );
    assert_eq!(
        open(&response_packet(&no_question, 64)),
        Err(Dropped::WrongQuestion)
    );
    assert_eq!(open(&response_packet(&[], 64)), Err(Dropped::Malformed));
}

#[test]
fn a_response_of_4096_bytes_or_more_is_refused() {
    let packet = response_packet(&dns_response(), 4096 - 48);

    assert_eq!(open(&packet), Err(Dropped::TooLong));
}

#[test]
fn a_query_that_cannot_fit_is_refused() {
    let long = vec![0; 4096 - 68];

    let outcome = session().seal_query(&long, &CLIENT_NONCE, QueryPadding::Udp { target: 256 });

    assert_eq!(outcome, Err(TooLong));
}

#[test]
fn no_session_is_made_from_a_certificate_of_low_order_or_of_another_system() {
    let keys = ClientKeys::from_secret(client_secret());
    let weak = Certificate {
        resolver_key: vec![0; 32],
        ..certificate()
    };
    let other = Certificate {
        system: System::XWing,
        resolver_key: vec![0; 1216],
        ..certificate()
    };

    assert_eq!(
        Session::new(&weak, &keys).err(),
        Some(SessionError::WeakKey)
    );
    assert_eq!(
        Session::new(&other, &keys).err(),
        Some(SessionError::NotSpoken(System::XWing))
    );
}

#[test]
fn letter_case_of_the_question_does_not_matter() {
    let mut shouted = dns_response();
    shouted[13..16].make_ascii_uppercase();

    assert_eq!(open(&response_packet(&shouted, 64)), Ok(shouted));
}

#[test]
fn padding_of_any_length_is_taken_off() {
    for padded in dns_response().len() + 1..400 {
        assert_eq!(
            open(&response_packet(&dns_response(), padded)),
            Ok(dns_response())
        );
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4200), prefix in any::<bool>()) {
        let bytes = if prefix { [&RESOLVER_MAGIC[..], &CLIENT_NONCE, &bytes].concat() } else { bytes };
        prop_assert!(open(&bytes).is_err());
        let _ = answered_nonce(&bytes);
    }

    #[test]
    fn no_authentic_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = open(&response_packet(&bytes, bytes.len() + 64));
        let _ = open(&seal_response(&shared(), bytes));
    }
}

#[test]
fn the_corpus_is_replayed() {
    replay("response", |bytes| {
        let _ = open(bytes);
        let _ = open(&response_packet(bytes, bytes.len() + 1));
    });
}
