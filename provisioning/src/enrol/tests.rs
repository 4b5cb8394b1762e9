//! The decision as a table: every state of device, claim and tunnel key against every way of asking.

use std::time::Duration;

use super::*;
use crate::store::devices::Revoked;

const NOW: u64 = 1_800_000_000;
const ME: Id = [1; 32];
const OTHER: Id = [2; 32];
const TUNNEL: Id = [3; 32];
const CLAIM: Id = [4; 32];

const TIMES: LeaseTimes = LeaseTimes {
    lifetime: Duration::from_secs(604_800),
    renew_after: Duration::from_secs(86_400),
};

fn request(claim_pub: Option<Id>) -> Request {
    Request {
        devid_pub: [9; 32],
        devid_hash: ME,
        wg_pub: TUNNEL,
        claim_pub,
    }
}

fn device(revoked: Option<Revoked>) -> Device {
    Device {
        devid_hash: ME,
        devid_pub: [9; 32],
        slot: None,
        pop: "pop1".to_owned(),
        shard: 1,
        pool_offset: 16,
        epoch: 5,
        limits: Limits::default(),
        enrolled_at: 7,
        revoked,
    }
}

fn lease(wg_pub: Id, issued_at: u64) -> IssuedLease {
    IssuedLease {
        devid_hash: ME,
        epoch: 5,
        wg_pub,
        statement: vec![],
        salt: [0; 32],
        leaf: 0,
        issued_at,
        not_after: issued_at + 604_800,
    }
}

fn claim(bound: Option<Id>, expires_at: u64) -> Claim {
    Claim {
        claim_pub: CLAIM,
        slot: Some("line-7".to_owned()),
        pop: "pop2".to_owned(),
        limits: Limits::default(),
        created_at: 7,
        expires_at,
        bound,
    }
}

fn known(lease: IssuedLease) -> Facts {
    Facts {
        device: Some(device(None)),
        lease: Some(lease),
        ..Facts::default()
    }
}

fn newcomer(claim: Claim) -> Facts {
    Facts {
        claim: Some(claim),
        ..Facts::default()
    }
}

fn kept(claim: ClaimUse, lease: LeaseUse) -> Decision {
    Decision::Admit(Admission {
        claim,
        home: Home::Kept(Box::new(device(None))),
        lease,
    })
}

#[track_caller]
fn check(claim_pub: Option<Id>, facts: &Facts, expected: &Decision) {
    assert_eq!(decide(&request(claim_pub), facts, &TIMES, NOW), *expected);
}

#[test]
fn a_revoked_device_is_refused_whatever_it_shows() {
    let revoked = Some(Revoked { at: 8, reason: 1 });
    let expected = Decision::Refuse(Refusal::DeviceRevoked);
    for shown in [
        None,
        Some(claim(None, NOW + 1)),
        Some(claim(Some(ME), NOW + 1)),
    ] {
        let facts = Facts {
            device: Some(device(revoked)),
            lease: Some(lease(TUNNEL, NOW)),
            claim: shown.clone(),
            tunnel_key: TunnelKey::Free,
        };
        check(shown.map(|_| CLAIM), &facts, &expected);
    }
}

#[test]
fn a_newcomer_needs_a_claim_that_exists_is_open_and_is_in_time() {
    let refused = |refusal| Decision::Refuse(refusal);
    check(None, &Facts::default(), &refused(Refusal::DeviceUnknown));
    check(
        Some(CLAIM),
        &Facts::default(),
        &refused(Refusal::ClaimUnknown),
    );
    check(
        Some(CLAIM),
        &newcomer(claim(None, NOW)),
        &refused(Refusal::ClaimExpired),
    );
    check(
        Some(CLAIM),
        &newcomer(claim(Some(OTHER), NOW + 1)),
        &refused(Refusal::ClaimSpent),
    );
    check(
        Some(CLAIM),
        &newcomer(claim(Some(OTHER), NOW - 1)),
        &refused(Refusal::ClaimSpent),
    );

    let expected = Decision::Admit(Admission {
        claim: ClaimUse::Bind,
        home: Home::New(Contract {
            pop: "pop2".to_owned(),
            slot: Some("line-7".to_owned()),
            limits: Limits::default(),
        }),
        lease: LeaseUse::Issue { epoch: 1 },
    });
    check(Some(CLAIM), &newcomer(claim(None, NOW + 1)), &expected);
}

#[test]
fn a_claim_that_is_found_but_was_not_proved_counts_for_nothing() {
    let facts = newcomer(claim(None, NOW + 1));

    check(None, &facts, &Decision::Refuse(Refusal::DeviceUnknown));
}

#[test]
fn a_tunnel_key_of_another_device_is_refused_to_all() {
    let expected = Decision::Refuse(Refusal::TunnelKeyTaken);
    let taken = |facts: Facts| Facts {
        tunnel_key: TunnelKey::Taken,
        ..facts
    };

    check(None, &taken(known(lease(TUNNEL, NOW))), &expected);
    check(
        Some(CLAIM),
        &taken(newcomer(claim(None, NOW + 1))),
        &expected,
    );
}

#[test]
fn a_known_device_may_retry_its_own_claim_for_ever() {
    let mut facts = known(lease(TUNNEL, NOW - 10));
    facts.claim = Some(claim(Some(ME), NOW - 1));

    check(
        Some(CLAIM),
        &facts,
        &kept(ClaimUse::Untouched, LeaseUse::Repeat { epoch: 5 }),
    );
}

#[test]
fn a_known_device_that_shows_a_wrong_code_hears_so() {
    let mut facts = known(lease(TUNNEL, NOW));
    check(
        Some(CLAIM),
        &facts,
        &Decision::Refuse(Refusal::ClaimUnknown),
    );
    facts.claim = Some(claim(Some(OTHER), NOW + 1));
    check(Some(CLAIM), &facts, &Decision::Refuse(Refusal::ClaimSpent));
}

#[test]
fn a_known_device_that_shows_an_open_claim_keeps_its_home_and_uses_the_claim_up() {
    let mut facts = known(lease(TUNNEL, NOW));
    facts.claim = Some(claim(None, NOW + 1));

    check(
        Some(CLAIM),
        &facts,
        &kept(ClaimUse::Bind, LeaseUse::Repeat { epoch: 5 }),
    );
}

#[test]
fn a_new_claim_with_other_limits_is_worth_a_new_lease() {
    let limits = Limits {
        down: trust::BitRate::new(50_000_000),
        up: None,
    };
    let mut facts = known(lease(TUNNEL, NOW));
    facts.claim = Some(Claim {
        limits,
        ..claim(None, NOW + 1)
    });

    let decision = decide(&request(Some(CLAIM)), &facts, &TIMES, NOW);

    let Decision::Admit(Admission { home, lease, .. }) = decision else {
        panic!("{decision:?}");
    };
    let limited = Device {
        limits,
        ..device(None)
    };
    assert_eq!(home, Home::Kept(Box::new(limited)));
    assert_eq!(lease, LeaseUse::Issue { epoch: 6 });
}

#[test]
fn the_same_keys_get_the_same_lease_until_it_is_due_for_renewal() {
    let repeat = kept(ClaimUse::Untouched, LeaseUse::Repeat { epoch: 5 });
    let renew = kept(ClaimUse::Untouched, LeaseUse::Issue { epoch: 6 });

    check(None, &known(lease(TUNNEL, NOW)), &repeat);
    check(None, &known(lease(TUNNEL, NOW - 86_399)), &repeat);
    check(None, &known(lease(TUNNEL, NOW - 86_400)), &renew);
    check(None, &known(lease(TUNNEL, NOW - 700_000)), &renew);
}

#[test]
fn another_tunnel_key_gets_the_next_epoch_at_once() {
    let renew = kept(ClaimUse::Untouched, LeaseUse::Issue { epoch: 6 });

    check(None, &known(lease([8; 32], NOW)), &renew);
}

#[test]
fn a_lease_that_ends_before_it_is_due_for_renewal_is_not_repeated() {
    let mut short = lease(TUNNEL, NOW - 100);
    short.not_after = NOW;

    check(
        None,
        &known(short),
        &kept(ClaimUse::Untouched, LeaseUse::Issue { epoch: 6 }),
    );
}

#[test]
fn a_lease_that_was_issued_by_a_clock_ahead_is_not_repeated_once_it_is_right() {
    let repeat = kept(ClaimUse::Untouched, LeaseUse::Repeat { epoch: 5 });
    let renew = kept(ClaimUse::Untouched, LeaseUse::Issue { epoch: 6 });

    check(None, &known(lease(TUNNEL, NOW + MAX_SKEW_S)), &repeat);
    check(None, &known(lease(TUNNEL, NOW + MAX_SKEW_S + 1)), &renew);
}

#[test]
fn a_lease_has_each_stamp_once_and_of_no_gateway_a_part() {
    let stamps =
        |names: &[&str]| -> Vec<String> { names.iter().map(ToString::to_string).collect() };
    let mut dns = Vec::new();

    add_stamps(&mut dns, stamps(&["a", "relay", "b", "relay"]));
    add_stamps(&mut dns, stamps(&["relay", "c", "a"]));
    assert_eq!(dns, stamps(&["a", "relay", "b", "c"]));
    add_stamps(&mut dns, stamps(&["d", "e", "f", "g", "relay-of-these"]));
    assert_eq!(dns, stamps(&["a", "relay", "b", "c"]));
    add_stamps(&mut dns, stamps(&["d", "e", "f", "g"]));

    assert_eq!(dns.len(), MAX_DNS);
}
