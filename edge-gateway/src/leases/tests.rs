use trust::{LoggedAt, Revocation};

use super::*;

const ME: [u8; 32] = [9; 32];

fn table() -> Leases {
    let inner = ["10.64.0.1/16", "fd64::1/48"]
        .map(|net| net.parse().unwrap())
        .to_vec();
    Leases::new(Scope { gateway: ME, inner })
}

fn lease(device: u8, epoch: u64, key: u8) -> Lease {
    Lease {
        v: 1,
        devid_hash: [device; 32],
        epoch,
        wg_pub: [key; 32],
        pop: "pop1".to_owned(),
        shard: 1,
        gateways: vec![ME],
        addresses: vec![format!("10.64.0.{device}/32").parse().unwrap()],
        dns: Vec::new(),
        not_before: 100,
        not_after: 200,
    }
}

fn logged() -> LoggedAt {
    LoggedAt {
        index: 0,
        size: 1,
        root: [0; 32],
        timestamp: 100,
    }
}

fn admit(leases: &mut Leases, lease: Lease) -> (Outcome, Vec<Change>) {
    leases.apply(
        &ShardChange::Admit {
            lease,
            logged: logged(),
        },
        1,
    )
}

fn revoke(leases: &mut Leases, device: u8, epoch: u64) -> Vec<Change> {
    let revocation = Revocation {
        v: 1,
        devid_hash: [device; 32],
        epoch,
        reason: 0,
        at: 150,
    };
    leases
        .apply(
            &ShardChange::Revoke {
                revocation,
                logged: logged(),
            },
            1,
        )
        .1
}

fn removed(key: u8) -> Change {
    Change::Remove {
        device: [2; 32],
        wg_pub: [key; 32],
        addresses: ["10.64.0.2/32".parse().unwrap()].into(),
    }
}

#[test]
fn a_lease_for_others_is_not_admitted() {
    let mut leases = table();
    let other_gateway = Lease {
        gateways: vec![[8; 32]],
        ..lease(2, 1, 1)
    };
    let other_shard = Lease {
        shard: 2,
        ..lease(2, 1, 1)
    };

    assert_eq!(
        admit(&mut leases, other_gateway),
        (Outcome::Elsewhere, Vec::new())
    );
    assert_eq!(
        admit(&mut leases, other_shard),
        (Outcome::Elsewhere, Vec::new())
    );
    assert!(leases.is_empty());
}

#[test]
fn a_lease_cannot_claim_addresses_that_are_not_ours_to_give() {
    for claimed in [
        "0.0.0.0/0",
        "10.64.0.0/15",
        "10.65.0.2/32",
        "10.64.0.1/32",
        "fd64::/64",
        "::/0",
    ] {
        let wide = Lease {
            addresses: vec![claimed.parse().unwrap()],
            ..lease(2, 1, 1)
        };
        assert_eq!(
            admit(&mut table(), wide),
            (Outcome::ForeignAddress, Vec::new()),
            "{claimed}"
        );
    }
    let none = Lease {
        addresses: Vec::new(),
        ..lease(2, 1, 1)
    };
    assert_eq!(admit(&mut table(), none).0, Outcome::ForeignAddress);
}

#[test]
fn a_revoked_lease_is_removed_and_stays_out_however_often_it_is_repeated() {
    let mut leases = table();
    admit(&mut leases, lease(2, 3, 1));

    assert_eq!(revoke(&mut leases, 2, 3), [removed(1)]);
    assert_eq!(
        admit(&mut leases, lease(2, 3, 1)),
        (Outcome::Dead, Vec::new())
    );
    assert_eq!(revoke(&mut leases, 2, 3), []);
    assert_eq!(leases.len(), 0);
}

#[test]
fn a_revocation_before_its_lease_counts_and_a_later_epoch_is_admitted() {
    let mut leases = table();

    assert_eq!(revoke(&mut leases, 2, 3), []);
    assert_eq!(admit(&mut leases, lease(2, 2, 1)).0, Outcome::Dead);
    assert_eq!(admit(&mut leases, lease(2, 4, 1)).0, Outcome::Admitted);
    assert_eq!(leases.len(), 1);
}

#[test]
fn a_new_tunnel_key_replaces_the_old_one_first() {
    let mut leases = table();
    admit(&mut leases, lease(2, 1, 1));

    let (outcome, changes) = admit(&mut leases, lease(2, 2, 5));

    assert_eq!(outcome, Outcome::Admitted);
    assert_eq!(changes.first(), Some(&removed(1)));
    assert!(matches!(changes.get(1), Some(Change::Admit(a)) if a.wg_pub == [5; 32]));
    assert_eq!(admit(&mut leases, lease(2, 1, 1)).0, Outcome::Old);
    assert_eq!(leases.len(), 1);
}

#[test]
fn a_renewal_with_the_same_key_changes_terms_without_removing_the_peer() {
    let mut leases = table();
    admit(&mut leases, lease(2, 1, 1));

    let (_, changes) = admit(
        &mut leases,
        Lease {
            not_after: 900,
            ..lease(2, 2, 1)
        },
    );

    assert!(matches!(changes.as_slice(), [Change::Admit(a)] if a.not_after == 900));
    assert_eq!(leases.expire(201), []);
}

#[test]
fn a_lease_ends_after_its_last_second() {
    let mut leases = table();
    admit(&mut leases, lease(2, 1, 1));

    assert_eq!(leases.expire(200), []);
    assert_eq!(leases.expire(201), [removed(1)]);
    assert!(leases.is_empty());
}
