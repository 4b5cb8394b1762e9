use ed25519_dalek::SigningKey;
use proptest::prelude::*;

use super::*;
use crate::proto::vectors::pq_certificate;
use crate::proto::vectors::{NOW, certificate, counter, provider};

fn public() -> [u8; 32] {
    provider().verifying_key().to_bytes()
}

fn judge(wire: &[u8], now: u64) -> Selection {
    select([wire], &public(), Policy::default(), now)
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

fn choose(post_quantum: PostQuantum, records: &[Vec<u8>]) -> Selection {
    let policy = Policy {
        post_quantum,
        ..Policy::default()
    };
    select(records.iter().map(Vec::as_slice), &public(), policy, NOW)
}

/// A certificate whose signature is right though its bytes were changed.
fn signed_again(mut wire: Vec<u8>) -> Vec<u8> {
    use ed25519_dalek::Signer as _;
    let signature = provider().sign(&wire[72..]).to_bytes();
    wire[8..72].copy_from_slice(&signature);
    wire
}

#[test]
fn a_post_quantum_certificate_without_its_exact_profile_is_refused() {
    let whole = pq_certificate().sign(&provider());
    assert_eq!(whole.len(), 1320);

    for at in 1308..1320 {
        let mut other = whole.clone();
        other[at] ^= 1;
        assert_eq!(skipped(&signed_again(other), NOW), Skipped::BadProfile);
    }
    for len in 1308..1320 {
        let cut = signed_again(whole[..len].to_vec());
        assert_eq!(skipped(&cut, NOW), Skipped::BadProfile, "{len} bytes");
    }
    let longer = signed_again([&whole[..], &[0]].concat());
    assert_eq!(skipped(&longer, NOW), Skipped::BadProfile);
}

#[test]
fn a_post_quantum_certificate_cut_or_changed_without_its_signature_is_refused() {
    let whole = pq_certificate().sign(&provider());

    for len in [0, 71, 72, 103, 124, 1287, 1307] {
        assert_eq!(skipped(&whole[..len], NOW), Skipped::Malformed);
    }
    for at in (8..whole.len()).step_by(13) {
        let mut forged = whole.clone();
        forged[at] ^= 1;
        assert_eq!(skipped(&forged, NOW), Skipped::BadSignature, "byte {at}");
    }
}

#[test]
fn one_systems_certificate_does_not_pass_for_anothers() {
    let mut as_classical = pq_certificate().sign(&provider());
    as_classical[5] = 2;
    let mut as_post_quantum = certificate().sign(&provider());
    as_post_quantum[5] = 3;

    // The signature does not cover the system; read at other places, its bytes make no window around now.
    assert_eq!(judge(&as_classical, NOW).best, None);
    assert_eq!(skipped(&as_post_quantum, NOW), Skipped::Malformed);
}

#[test]
fn who_requires_post_quantum_gets_no_other_certificate() {
    let classical = certificate().sign(&provider());
    let mut broken = pq_certificate().sign(&provider());
    broken[1319] ^= 1;

    let selection = choose(PostQuantum::Required, &[classical, broken]);

    assert_eq!(selection.best, None);
    assert_eq!(
        selection.skipped,
        [
            Skipped::NotSpoken(System::XChaCha20Poly1305),
            Skipped::BadSignature
        ]
    );
}

#[test]
fn the_wanted_system_comes_before_the_higher_serial() {
    let higher = Certificate {
        serial: 9,
        ..certificate()
    };
    let records = [higher.sign(&provider()), pq_certificate().sign(&provider())];
    let chosen = |wanted| choose(wanted, &records).best.map(|cert| cert.system);

    assert_eq!(chosen(PostQuantum::Required), Some(System::XWing));
    assert_eq!(chosen(PostQuantum::Preferred), Some(System::XWing));
    assert_eq!(chosen(PostQuantum::Off), Some(System::XChaCha20Poly1305));
}

#[test]
fn bad_certificates_are_named_and_do_not_spoil_the_rest() {
    let legacy = Certificate {
        system: System::XSalsa20Poly1305,
        serial: 9,
        ..certificate()
    };
    let mut other_profile = pq_certificate().sign(&provider());
    other_profile[1319] ^= 1;
    let mut unknown = certificate().sign(&provider());
    unknown[5] = 77;
    let records = [
        legacy.sign(&provider()),
        signed_again(other_profile),
        unknown,
        certificate().sign(&provider()),
        b"no certificate".to_vec(),
    ];

    let selection = choose(PostQuantum::Preferred, &records);

    assert_eq!(selection.best, Some(certificate()));
    assert_eq!(
        selection.skipped,
        [
            Skipped::NotSpoken(System::XSalsa20Poly1305),
            Skipped::BadProfile,
            Skipped::UnknownSystem(77),
            Skipped::Malformed,
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

    let best = choose(PostQuantum::Preferred, &records).best;

    assert_eq!(best.map(|cert| cert.serial), Some(u32::MAX));
}

#[test]
fn unknown_minor_versions_and_signed_extensions_are_accepted() {
    let mut wire = certificate().sign(&provider());
    wire.extend_from_slice(b"extension");
    wire[7] = 9;

    let best = judge(&signed_again(wire), NOW).best;

    assert_eq!(
        best,
        Some(Certificate {
            minor: 9,
            ..certificate()
        })
    );
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1500), prefix in any::<bool>()) {
        let system = [2, 3][bytes.len() % 2];
        let bytes = if prefix { [&b"DNSC\0"[..], &[system, 0, 0], &bytes].concat() } else { bytes };
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

#[test]
fn the_first_system_is_the_last_resort_of_who_asked_for_it() {
    let legacy = Certificate {
        system: System::XSalsa20Poly1305,
        serial: 9,
        ..certificate()
    };
    let (first, second) = (legacy.sign(&provider()), certificate().sign(&provider()));
    let policy = |post_quantum| Policy {
        post_quantum,
        legacy: Legacy::LastResort,
    };
    let best = |records: &[&[u8]], policy| {
        select(records.iter().copied(), &public(), policy, NOW)
            .best
            .map(|cert| cert.system)
    };
    let built_in = cfg!(feature = "xsalsa").then_some(System::XSalsa20Poly1305);

    assert_eq!(best(&[&first], Policy::default()), None);
    assert_eq!(best(&[&first], policy(PostQuantum::Required)), None);
    assert_eq!(best(&[&first], policy(PostQuantum::Preferred)), built_in);
    assert_eq!(
        best(&[&first, &second], policy(PostQuantum::Off)),
        Some(System::XChaCha20Poly1305)
    );
}
