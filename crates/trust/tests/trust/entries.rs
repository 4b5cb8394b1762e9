//! The gateway's judge over the entries of its shards.

use trust::{
    DecodeError, EntryError, MerkleError, ProofError, ShardChange, ShardEntry, ShardJudge,
};

use crate::world::{SALT, T0, World, revocation};

#[test]
fn a_lease_entry_that_is_not_logged_admits_nobody() {
    let mut world = World::new();
    let entry = world.lease_entry(&world.lease(1));
    let ShardEntry::Lease { proof, .. } = entry else {
        unreachable!("made as a lease")
    };
    let lease = world.lease(2).to_bytes();
    let forged = ShardEntry::Lease {
        lease,
        salt: SALT,
        proof,
    };

    let refused = world.anchors.verify_shard_entry(&forged, T0);

    assert_eq!(
        refused,
        Err(EntryError::NotLogged(MerkleError::Root.into()))
    );
}

#[test]
fn a_logged_lease_is_no_revocation_and_the_reverse() {
    let mut world = World::new();
    let ShardEntry::Lease { lease, salt, proof } = world.lease_entry(&world.lease(1)) else {
        unreachable!("made as a lease")
    };
    let as_revocation = ShardEntry::Revocation {
        revocation: lease,
        salt,
        proof,
    };
    let made = revocation(&world);
    let ShardEntry::Revocation {
        revocation,
        salt,
        proof,
    } = world.revocation_entry(&made)
    else {
        unreachable!("made as a revocation")
    };
    let as_lease = ShardEntry::Lease {
        lease: revocation,
        salt,
        proof,
    };

    let shape = |fields| Err(EntryError::Malformed(DecodeError::NotAMap { fields }));
    assert_eq!(
        world.anchors.verify_shard_entry(&as_revocation, T0),
        shape(5)
    );
    assert_eq!(world.anchors.verify_shard_entry(&as_lease, T0), shape(11));
}

#[test]
fn an_expired_lease_admits_nobody() {
    let mut world = World::new();
    let lease = world.lease(1);
    let entry = world.lease_entry(&lease);

    let refused = world.anchors.verify_shard_entry(&entry, lease.not_after);

    let (not_after, now) = (lease.not_after, lease.not_after);
    assert_eq!(refused, Err(EntryError::Expired { not_after, now }));
}

/// The entry with one bit of its checkpoint's last signature turned.
fn with_bad_signature(entry: &ShardEntry) -> ShardEntry {
    let ShardEntry::Lease { lease, salt, proof } = entry else {
        unreachable!("made as a lease")
    };
    let line = proof.trim_end().rfind(' ').unwrap();
    let mut proof = proof.clone().into_bytes();
    // Behind key id and time.
    let digit = &mut proof[line + 30];
    *digit = if *digit == b'A' { b'B' } else { b'A' };
    ShardEntry::Lease {
        lease: lease.clone(),
        salt: *salt,
        proof: String::from_utf8(proof).unwrap(),
    }
}

#[test]
fn a_judge_that_knows_a_checkpoint_still_refuses_what_does_not_stand_under_it() {
    let mut world = World::new();
    let good = world.lease_entry(&world.lease(1));
    let forged = with_bad_signature(&good);
    let ShardEntry::Lease { salt, proof, .. } = good.clone() else {
        unreachable!("made as a lease")
    };
    let other = ShardEntry::Lease {
        lease: world.lease(2).to_bytes(),
        salt,
        proof,
    };
    let mut judge = ShardJudge::new(&world.anchors);

    for _ in 0..2 {
        assert!(judge.verify(&good, T0).is_ok());
        assert!(matches!(
            judge.verify(&forged, T0),
            Err(EntryError::NotLogged(ProofError::BadSignature { .. }))
        ));
        assert!(judge.verify(&good, T0).is_ok());
        assert_eq!(
            judge.verify(&other, T0),
            Err(EntryError::NotLogged(MerkleError::Root.into()))
        );
    }
}

#[test]
fn a_logged_lease_admits_its_device() {
    let mut world = World::new();
    let lease = world.lease(1);
    let entry = world.lease_entry(&lease);

    let change = world
        .anchors
        .verify_shard_entry(&entry, T0)
        .unwrap()
        .into_inner();

    let ShardChange::Admit {
        lease: admitted,
        logged,
    } = change
    else {
        panic!("{change:?}")
    };
    assert_eq!(admitted, lease);
    assert_eq!(logged.sworn.reached, T0);
}

#[test]
fn a_logged_revocation_revokes_even_years_later() {
    let mut world = World::new();
    let made = revocation(&world);
    let entry = world.revocation_entry(&made);

    let change = world
        .anchors
        .verify_shard_entry(&entry, u64::MAX)
        .unwrap()
        .into_inner();

    let ShardChange::Revoke { revocation, .. } = change else {
        panic!("{change:?}")
    };
    assert_eq!(revocation, made);
}
