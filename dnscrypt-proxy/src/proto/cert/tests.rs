use ed25519_dalek::SigningKey;
use proptest::prelude::*;

use super::*;
use crate::proto::vectors::{NOW, certificate, counter, provider};

fn public() -> [u8; 32] {
    provider().verifying_key().to_bytes()
}

fn judge(wire: &[u8], now: u64) -> Selection {
    select([wire], &public(), now)
}

fn skipped(wire: &[u8], now: u64) -> Skipped {
    let selection = judge(wire, now);
    assert_eq!(selection.best, None);
    selection.skipped[0]
}

#[test]
fn anything_shorter_is_no_certificate() {
    let wire = certificate().sign(&provider());

    for len in 0..wire.len() {
        assert_eq!(
            skipped(&wire[..len], NOW),
            Skipped::Malformed,
            "{len} bytes"
        );
    }
}

#[test]
fn a_flipped_bit_anywhere_but_in_the_minor_version_is_refused() {
    let wire = certificate().sign(&provider());

    for bit in (0..wire.len() * 8).filter(|bit| !(48..64).contains(bit)) {
        let mut forged = wire.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(judge(&forged, NOW).best, None, "bit {bit}");
    }
}

#[test]
fn another_providers_certificate_is_refused() {
    let wire = certificate().sign(&SigningKey::from_bytes(&counter(1)));

    assert_eq!(skipped(&wire, NOW), Skipped::BadSignature);
}

#[test]
fn a_certificate_is_used_from_its_first_to_its_last_second() {
    let wire = certificate().sign(&provider());
    let (start, end) = (certificate().start, certificate().end);

    assert_eq!(skipped(&wire, u64::from(start) - 1), Skipped::NotYet(start));
    assert!(judge(&wire, u64::from(start)).best.is_some());
    assert!(judge(&wire, u64::from(end)).best.is_some());
    assert_eq!(skipped(&wire, u64::from(end) + 1), Skipped::Expired(end));
    assert_eq!(skipped(&wire, 0), Skipped::NotYet(start));
}

#[test]
fn reserved_magics_and_empty_windows_are_refused() {
    let reserved = [
        ANONYMOUS_MAGIC,
        RESUME_MAGIC,
        [0; 8],
        [0, 0, 0, 0, 0, 0, 0, 9],
    ];
    for magic in reserved {
        let cert = Certificate {
            magic,
            ..certificate()
        };
        assert_eq!(skipped(&cert.sign(&provider()), NOW), Skipped::Unacceptable);
    }
    let cert = Certificate {
        end: certificate().start,
        ..certificate()
    };
    assert_eq!(skipped(&cert.sign(&provider()), NOW), Skipped::Unacceptable);
}

#[test]
fn other_systems_are_named_and_do_not_spoil_the_rest() {
    let legacy = Certificate {
        system: System::XSalsa20Poly1305,
        serial: 9,
        ..certificate()
    };
    let post_quantum = Certificate {
        system: System::XWing,
        resolver_key: vec![7; 1216],
        serial: 9,
        ..certificate()
    };
    let mut unknown = certificate().sign(&provider());
    unknown[5] = 77;
    let records = [
        legacy.sign(&provider()),
        post_quantum.sign(&provider()),
        unknown,
        certificate().sign(&provider()),
    ];

    let selection = select(records.iter().map(Vec::as_slice), &public(), NOW);

    assert_eq!(selection.best, Some(certificate()));
    assert_eq!(
        selection.skipped,
        [
            Skipped::NotSpoken(System::XSalsa20Poly1305),
            Skipped::NotSpoken(System::XWing),
            Skipped::UnknownSystem(77),
        ]
    );
}

#[test]
fn the_highest_serial_wins_unsigned_wherever_it_stands() {
    let with_serial = |serial| {
        Certificate {
            serial,
            ..certificate()
        }
        .sign(&provider())
    };
    let records = [with_serial(3), with_serial(u32::MAX), with_serial(4)];

    let best = select(records.iter().map(Vec::as_slice), &public(), NOW).best;

    assert_eq!(best.map(|cert| cert.serial), Some(u32::MAX));
}

#[test]
fn unknown_minor_versions_and_signed_extensions_are_accepted() {
    use ed25519_dalek::Signer as _;
    let mut wire = certificate().sign(&provider());
    wire.extend_from_slice(b"extension");
    let signature = provider().sign(&wire[72..]).to_bytes();
    wire[8..72].copy_from_slice(&signature);
    wire[7] = 9;

    assert_eq!(judge(&wire, NOW).best, Some(certificate()));
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1500), prefix in any::<bool>()) {
        let bytes = if prefix { [&b"DNSC\0\x02\0\0"[..], &bytes].concat() } else { bytes };
        let selection = judge(&bytes, NOW);
        prop_assert_eq!(selection.best, None);
        prop_assert_eq!(selection.skipped.len(), 1);
    }
}

#[test]
fn the_corpus_is_replayed() {
    crate::proto::vectors::replay("cert", |bytes| {
        let _ = judge(bytes, NOW);
    });
}
