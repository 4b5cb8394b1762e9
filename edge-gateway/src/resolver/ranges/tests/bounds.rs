//! How much is kept, and what goes first.

use super::*;

const MOST: usize = 64;

fn small() -> Kept {
    Kept {
        ranges: Ranges::new(MOST),
        ..Kept::none()
    }
}

/// One of the many ranges of a zone that makes a record for each question.
fn tight(zone: &str, n: usize) -> Found {
    let owner = format!("n{n:04}a.{zone}");
    let next = format!("n{n:04}c.{zone}");
    let range = says(zone, &owner, &[RecordType::A], &next);
    found(&[soa(zone, 300, 300), range])
}

#[test]
fn one_zone_with_a_record_for_each_question_pushes_out_no_other() {
    let mut kept = small();
    kept.keep(&denial(&gap()));

    for n in 0..10 * MOST {
        kept.now.at += Duration::from_millis(10);
        kept.keep(&tight("tight.", n));
        assert!(kept.ranges.kept <= MOST / ZONES_PART + 2, "{n}");
    }

    assert!(kept.denies("c.lab."));
    let last = format!("n{:04}a.tight.", 10 * MOST - 1);
    assert!(kept.deny(&last, RecordType::MX).is_some());
}

#[test]
fn many_zones_push_out_those_that_were_of_no_use_for_longest() {
    let mut kept = small();
    kept.keep(&denial(&gap()));
    kept.keep(&tight("idle.", 0));

    for n in 0..10 * MOST {
        kept.now.at += Duration::from_millis(10);
        kept.keep(&tight(&format!("z{n}."), 0));
        assert!(kept.ranges.kept <= MOST, "{n}");
        assert!(kept.denies("c.lab."), "{n}");
    }

    assert!(kept.deny("n0000a.idle.", RecordType::MX).is_none());
    let counted = kept.ranges.zones.values().map(|zone| zone.ranges.len());
    assert_eq!(counted.sum::<usize>(), kept.ranges.kept);
}

#[test]
fn what_has_ended_goes_before_anything_that_has_not() {
    let mut kept = small();
    for n in 0..MOST / 2 {
        kept.keep(&tight(&format!("z{n}."), 0));
    }
    kept.wait(300);
    kept.keep(&denial(&gap()));
    for n in 0..MOST / 2 - 2 {
        kept.keep(&tight(&format!("y{n}."), 0));
    }
    assert_eq!(kept.ranges.kept, MOST);

    kept.keep(&tight("more.", 0));

    assert_eq!(kept.ranges.kept, MOST / 2 + 1);
    assert!(kept.denies("c.lab."));
}

#[test]
fn a_record_with_an_overlong_signature_is_not_kept() {
    let [apex, [nsec, mut signature]] = gap();
    let RData::DNSSEC(DNSSECRData::RRSIG(made)) = &mut signature.data else {
        panic!("no signature");
    };
    *made = RRSIG::from_sig(made.input().clone(), vec![7; MOST_BYTES]);

    let mut kept = Kept::of(&denial(&[apex, [nsec, signature]]));

    assert!(!kept.denies("c.lab."));
}
