//! When what is kept ends.

use super::*;

/// The lifetimes in a denial of `c.lab.`.
fn lifetimes(kept: &mut Kept) -> Option<Vec<u32>> {
    let denied = kept.deny("c.lab.", RecordType::A)?;
    Some(denied.authorities.iter().map(|it| it.ttl).collect())
}

fn nsec(owner: &str, next: &str, ttl: u32) -> [Record; 2] {
    let nsec = NSEC::new_cover_self(name(next), [RecordType::A]);
    let data = RData::DNSSEC(DNSSECRData::NSEC(nsec));
    signed("lab.", &name(owner), ttl, data)
}

/// A range for `c.lab.` with one lifetime and what denies the wildcard with another.
fn lasting(soa: [Record; 2], ttl: u32, wildcards: u32) -> Found {
    let apex = nsec("lab.", "b.lab.", wildcards);
    found(&[soa, apex, nsec("b.lab.", "f.lab.", ttl)])
}

#[test]
fn nothing_is_denied_after_the_end_of_anything_that_proves_it() {
    for (case, found) in [
        ("range", lasting(soa("lab.", 600, 600), 60, 600)),
        ("wildcard", lasting(soa("lab.", 600, 600), 600, 60)),
        ("SOA", lasting(soa("lab.", 60, 600), 600, 600)),
        ("absence", lasting(soa("lab.", 600, 60), 600, 600)),
    ] {
        let mut kept = Kept::of(&found);
        kept.wait(59);
        assert!(kept.denies("c.lab."), "{case}");
        kept.wait(1);
        assert!(!kept.denies("c.lab."), "{case}");
    }
}

#[test]
fn a_signature_that_has_expired_or_is_about_to_ends_a_range() {
    let mut late = Kept::none();
    late.now.unix_s = UNIX_S + DAY_S - 10;
    late.keep(&denial(&gap()));
    assert_eq!(lifetimes(&mut late), Some(vec![10; 6]));
    for unix_s in [UNIX_S + DAY_S, UNIX_S + DAY_S + 1, UNIX_S + 2 * DAY_S] {
        let mut kept = Kept::none();
        kept.now.unix_s = unix_s;
        kept.keep(&denial(&gap()));
        assert!(!kept.denies("c.lab."), "{unix_s}");
    }
}

#[test]
fn lifetimes_are_what_is_left_and_the_soa_says_the_least() {
    let mut kept = Kept::of(&lasting(soa("lab.", 500, 600), 400, 200));

    kept.wait(50);

    assert_eq!(
        lifetimes(&mut kept),
        Some(vec![150, 150, 350, 350, 150, 150])
    );
}

#[test]
fn no_range_outlives_three_hours() {
    let mut kept = Kept::of(&lasting(soa("lab.", DAY_S, DAY_S), DAY_S, DAY_S));

    assert_eq!(lifetimes(&mut kept), Some(vec![LONGEST_S; 6]));
    kept.wait(LONGEST_S);
    assert!(!kept.denies("c.lab."));
}

#[test]
fn the_same_record_again_lives_no_longer_but_another_one_does() {
    let found = lasting(soa("lab.", 300, 300), 300, 300);
    let mut kept = Kept::of(&found);

    kept.wait(200);
    kept.keep(&found);
    assert_eq!(lifetimes(&mut kept), Some(vec![100; 6]));
    kept.wait(100);
    assert!(!kept.denies("c.lab."));
    kept.keep(&found);
    assert_eq!(lifetimes(&mut kept), Some(vec![300; 6]));

    kept.wait(200);
    let changed = found_anew();
    kept.keep(&changed);
    assert!(!kept.denies("d.lab."), "the range has become shorter");
    assert_eq!(
        lifetimes(&mut kept),
        Some(vec![100, 100, 300, 300, 100, 100])
    );
}

/// The same zone after `d.lab.` has come to be.
fn found_anew() -> Found {
    let apex = nsec("lab.", "b.lab.", 300);
    let changed = nsec("b.lab.", "d.lab.", 300);
    found(&[soa("lab.", 300, 300), apex, changed])
}
