//! The device's judge: what it refuses, and what it then remembers.

use trust::{
    Approval, BundleError, DeviceFacts, GatewayError, KeyId, Kind, LeaseBundle, MerkleError, Proof,
    ProofError, Refused, Stored, Verdict,
};

use crate::pen::pen;
use crate::world::{DAY, DELAY, SALT, T0, World, stranger};

#[test]
fn a_lease_of_another_device_is_refused() {
    let mut world = World::new();
    let bundle = world.bundle(&world.lease(1));
    let other = DeviceFacts {
        devid_hash: [0; 32],
        ..world.me
    };

    let refused = world
        .anchors
        .verify_bundle(&bundle, &other, &Stored::default(), T0);

    assert_eq!(refused, Err(BundleError::NotMine));
}

#[test]
fn a_lease_for_another_tunnel_key_is_refused() {
    let mut world = World::new();
    let bundle = world.bundle(&world.lease(1));
    let other = DeviceFacts {
        wg_pub: [0; 32],
        ..world.me
    };

    let refused = world
        .anchors
        .verify_bundle(&bundle, &other, &Stored::default(), T0);

    assert_eq!(refused, Err(BundleError::NotMine));
}

#[test]
fn a_lease_of_epoch_zero_is_refused() {
    let mut world = World::new();
    let bundle = world.bundle(&world.lease(0));

    let refused = judge(&world, &bundle, &Stored::default(), T0);

    assert_eq!(refused, Err(BundleError::Stale { stored: 0, got: 0 }));
}

#[test]
fn a_lease_of_an_older_epoch_is_refused() {
    let mut world = World::new();
    let old = world.bundle(&world.lease(1));
    let new = world.bundle(&world.lease(2));
    let stored = judge(&world, &new, &Stored::default(), T0).unwrap();

    let refused = judge(&world, &old, &stored, T0);

    assert_eq!(refused, Err(BundleError::Stale { stored: 2, got: 1 }));
}

#[test]
fn another_lease_of_the_same_epoch_is_refused() {
    let mut world = World::new();
    let first = world.bundle(&world.lease(1));
    let stored = judge(&world, &first, &Stored::default(), T0).unwrap();
    let mut lease = world.lease(1);
    lease.pop = "pop2".to_owned();
    let second = world.bundle_at(&lease, &stored, T0);

    let refused = judge(&world, &second, &stored, T0);

    assert_eq!(refused, Err(BundleError::Replaced));
}

#[test]
fn a_lease_with_a_changed_byte_is_not_logged() {
    let mut world = World::new();
    let mut bundle = world.bundle(&world.lease(1));
    let mut lease = world.lease(1);
    lease.not_after += 1;
    bundle.lease = lease.to_bytes();

    let refused = judge(&world, &bundle, &Stored::default(), T0);

    assert_eq!(
        refused,
        Err(BundleError::NotLogged(MerkleError::Root.into()))
    );
}

#[test]
fn a_wrong_salt_is_not_logged() {
    let mut world = World::new();
    let mut bundle = world.bundle(&world.lease(1));
    bundle.salt = [0; 32];

    let refused = judge(&world, &bundle, &Stored::default(), T0);

    assert_eq!(
        refused,
        Err(BundleError::NotLogged(MerkleError::Root.into()))
    );
}

#[test]
fn a_checkpoint_short_of_its_quorum_is_refused_whoever_is_missing() {
    let mut world = World::new();
    let mut bundle = world.bundle(&world.lease(1));
    let index = world.fleet.tree.size() - 1;

    for missing in [vec![0, 1], vec![1, 2], vec![3], vec![0, 1, 2, 3]] {
        let mut cosigners = world.everyone(T0);
        for place in missing.iter().rev() {
            cosigners.remove(*place);
        }
        bundle.proof = world.fleet.proof(index, &cosigners);
        let refused = judge(&world, &bundle, &Stored::default(), T0);
        assert_eq!(
            refused,
            Err(BundleError::NotLogged(ProofError::NoQuorum)),
            "{missing:?}"
        );
    }

    bundle.proof = world.fleet.proof(index, &world.everyone(T0).split_off(1));
    assert!(judge(&world, &bundle, &Stored::default(), T0).is_ok());
}

#[test]
fn one_server_that_cosigns_twice_is_one_server() {
    let mut world = World::new();
    let mut bundle = world.bundle(&world.lease(1));
    let (server, witness) = (&world.cosigners[0], &world.cosigners[3]);
    let twice = [(server, T0), (server, T0 + 1), (witness, T0)];
    bundle.proof = world.fleet.proof(world.fleet.tree.size() - 1, &twice);

    let refused = judge(&world, &bundle, &Stored::default(), T0);

    assert_eq!(refused, Err(BundleError::NotLogged(ProofError::NoQuorum)));
}

#[test]
fn a_proof_in_the_authority_log_is_no_proof_of_a_lease() {
    let mut world = World::new();
    let mut bundle = world.bundle(&world.lease(1));
    let entry = trust::lease::fleet_entry(&SALT, &bundle.lease);
    let index = world.authority.tree.append(&entry);
    bundle.proof = world.authority.proof(index, &world.everyone(T0));

    let refused = judge(&world, &bundle, &Stored::default(), T0);

    assert_eq!(refused, Err(BundleError::NotLogged(ProofError::UnknownLog)));
}

#[test]
fn a_fleet_log_that_shrank_is_refused() {
    let mut world = World::new();
    let bundle = world.bundle(&world.lease(1));
    let stored = Stored {
        fleet: Some((99, [0; 32])),
        ..Stored::default()
    };

    let refused = judge(&world, &bundle, &stored, T0);

    assert_eq!(refused, Err(BundleError::Rollback { stored: 99, got: 6 }));
}

#[test]
fn a_fleet_log_of_the_same_size_with_another_root_is_refused() {
    let mut world = World::new();
    let bundle = world.bundle(&world.lease(1));
    let stored = Stored {
        fleet: Some((6, [0; 32])),
        ..Stored::default()
    };

    let refused = judge(&world, &bundle, &stored, T0);

    assert_eq!(refused, Err(BundleError::Inconsistent(MerkleError::Root)));
}

#[test]
fn a_fleet_log_with_another_history_is_refused() {
    let mut world = World::new();
    let stored = Stored {
        fleet: Some((4, [0; 32])),
        ..Stored::default()
    };
    let bundle = world.bundle_at(&world.lease(1), &stored, T0);

    let refused = judge(&world, &bundle, &stored, T0);

    assert_eq!(refused, Err(BundleError::Inconsistent(MerkleError::Root)));
}

#[test]
fn a_fleet_log_that_does_not_show_its_history_is_refused() {
    let mut world = World::new();
    let root = world.fleet.tree.root_at(3).unwrap();
    let stored = Stored {
        fleet: Some((3, root)),
        ..Stored::default()
    };
    let mut bundle = world.bundle_at(&world.lease(1), &stored, T0);
    bundle.consistency.clear();

    let refused = judge(&world, &bundle, &stored, T0);

    assert_eq!(refused, Err(BundleError::Inconsistent(MerkleError::Length)));
}

#[test]
fn a_lease_at_its_last_second_is_expired() {
    let mut world = World::new();
    let lease = world.lease(1);
    let bundle = world.bundle(&lease);

    let refused = judge(&world, &bundle, &Stored::default(), lease.not_after);

    let (not_after, now) = (lease.not_after, lease.not_after);
    assert_eq!(refused, Err(BundleError::Expired { not_after, now }));
    assert!(judge(&world, &bundle, &Stored::default(), lease.not_after - 1).is_ok());
}

#[test]
fn a_clock_of_1970_does_not_revive_an_expired_lease() {
    let mut world = World::new();
    let lease = world.lease(1);
    let bundle = world.bundle(&lease);
    let stored = Stored {
        clock_floor: lease.not_after + 5,
        ..Stored::default()
    };

    let refused = judge(&world, &bundle, &stored, 0);

    let (not_after, now) = (lease.not_after, lease.not_after + 5);
    assert_eq!(refused, Err(BundleError::Expired { not_after, now }));
}

#[test]
fn a_proof_newer_than_the_lease_is_enough_to_know_that_it_expired() {
    let mut world = World::new();
    let lease = world.lease(1);
    let bundle = world.bundle_at(&lease, &Stored::default(), lease.not_after + 1);

    let refused = judge(&world, &bundle, &Stored::default(), 0);

    let (not_after, now) = (lease.not_after, lease.not_after + 1);
    assert_eq!(refused, Err(BundleError::Expired { not_after, now }));
}

#[test]
fn a_lease_of_the_day_after_is_not_yet_valid() {
    let mut world = World::new();
    let mut lease = world.lease(1);
    lease.not_before = T0 + DAY;
    let bundle = world.bundle(&lease);

    let refused = judge(&world, &bundle, &Stored::default(), T0);

    assert_eq!(
        refused,
        Err(BundleError::NotYet {
            not_before: T0 + DAY,
            now: T0
        })
    );
}

#[test]
fn a_lease_without_gateways_is_refused() {
    let mut world = World::new();
    let mut lease = world.lease(1);
    lease.gateways.clear();
    let bundle = world.bundle(&lease);

    let refused = judge(&world, &bundle, &Stored::default(), T0);

    assert_eq!(refused, Err(BundleError::NoGateway));
}

#[test]
fn one_gateway_that_nobody_approved_spoils_the_lease() {
    let mut world = World::new();
    let mut lease = world.lease(1);
    lease.gateways.push(stranger());
    let bundle = world.bundle(&lease);

    let refused = judge(&world, &bundle, &Stored::default(), T0);

    assert_eq!(
        refused,
        Err(BundleError::UnknownGateway(KeyId::from(stranger())))
    );
}

#[test]
fn a_gateway_that_is_only_proposed_is_refused() {
    let mut world = World::new();
    let mut bundle = world.bundle(&world.lease(1));
    let mut proposal = world.proposal();
    proposal.nonce = [9; 32];
    bundle.gateways[0].proposal = proposal.to_bytes();

    let refused = judge(&world, &bundle, &Stored::default(), T0);

    let error = GatewayError::NotLogged(MerkleError::Root.into());
    assert_eq!(
        refused,
        Err(BundleError::Gateway {
            id: world.gateway.id().into(),
            error
        })
    );
}

#[test]
fn a_gateway_statement_is_refused_by_kind_epoch_and_time() {
    let mut world = World::new();
    let good = world.proposal();
    let changed = |change: &dyn Fn(&mut trust::Proposal)| {
        let mut proposal = good.clone();
        change(&mut proposal);
        proposal
    };

    let proposal = changed(&|p| p.kind = Kind::Release);
    let error = GatewayError::Kind(Kind::Release);
    assert_eq!(gateway(&mut world, &proposal, T0), Err(error));

    for got in [0, 2] {
        let proposal = changed(&|p| p.authority_epoch = got);
        let error = refused(Refused::Epoch { current: 1, got });
        assert_eq!(gateway(&mut world, &proposal, T0), Err(error));
    }

    let (expires, now) = (T0, T0);
    let proposal = changed(&|p| p.expires = expires);
    let error = refused(Refused::Expired { expires, now });
    assert_eq!(gateway(&mut world, &proposal, T0), Err(error));

    let not_before = T0 + DAY;
    let proposal = changed(&|p| p.not_before = not_before);
    let error = refused(Refused::NotYet { not_before, now });
    assert_eq!(gateway(&mut world, &proposal, T0), Err(error));
}

#[test]
fn a_gateway_that_too_few_have_approved_is_none() {
    let mut world = World::new();
    let proposal = world.proposal().to_bytes();
    let says = |n, person, verdict| pen(n).says(verdict, person, &proposal);
    let proposed = says(1, "alice", Verdict::Propose);
    let bobs = says(2, "bob", Verdict::Approve);
    let short = |approved| Refused::NoQuorum {
        deciders: "noc".to_owned(),
        approved,
    };
    let mut foreign = bobs.clone();
    foreign.proposal_id = [0; 32];

    let cases: [(&[&Approval], Refused); 7] = [
        (&[], Refused::NotProposed("alice".to_owned())),
        (&[&proposed], short(0)),
        (&[&proposed, &bobs], short(1)),
        (&[&proposed, &bobs, &bobs], Refused::Twice("bob".to_owned())),
        (
            &[&proposed, &bobs, &says(1, "alice", Verdict::Approve)],
            short(1),
        ),
        (
            &[&proposed, &bobs, &says(4, "mallory", Verdict::Approve)],
            Refused::Unknown("mallory".to_owned()),
        ),
        (&[&proposed, &foreign], Refused::Foreign("bob".to_owned())),
    ];
    for (approvals, error) in cases {
        let approvals = approvals.iter().copied().cloned().collect();
        let activation = world.log(&proposal, approvals, T0 - DELAY);
        let judged = world.anchors.verify_gateway(&activation, T0);
        assert_eq!(judged, Err(refused(error)));
    }
}

#[test]
fn a_gateway_is_none_before_its_delay_and_no_clock_of_one_server_shortens_it() {
    let mut world = World::new();
    let proposal = world.proposal();
    let mut activation = world.activate(&proposal);

    let early = world.anchors.verify_gateway(&activation, T0 - 1);
    let error = refused(Refused::TooEarly {
        logged: T0 - DELAY,
        from: T0,
        now: T0 - 1,
    });
    assert_eq!(early, Err(error.clone()));
    assert!(world.anchors.verify_gateway(&activation, T0).is_ok());

    // Two servers are enough, and one of them lies about when it saw this.
    let times = [T0 - DELAY, T0 - 100 * DAY];
    let witness = (&world.cosigners[3], T0 - DELAY);
    let cosigners = world.cosigners.iter().zip(times).chain([witness]);
    let index = Proof::parse(&activation.proof).unwrap().index;
    activation.proof = world.authority.proof(index, &cosigners.collect::<Vec<_>>());
    let early = world.anchors.verify_gateway(&activation, T0 - 1);
    assert_eq!(early, Err(error));
}

#[test]
fn a_gateway_without_an_endpoint_is_refused() {
    let mut world = World::new();
    world.gateway.endpoints.clear();
    let proposal = world.proposal();

    assert_eq!(
        gateway(&mut world, &proposal, T0),
        Err(GatewayError::NoEndpoint)
    );
}

#[test]
fn a_good_bundle_yields_lease_and_gateways_and_what_to_remember() {
    let mut world = World::new();
    let lease = world.lease(1);
    let bundle = world.bundle(&lease);

    let (verified, stored) = world
        .anchors
        .verify_bundle(&bundle, &world.me, &Stored::default(), 0)
        .unwrap();

    assert_eq!(verified.get().lease, lease);
    assert_eq!(verified.get().gateways, [world.gateway.clone()]);
    assert_eq!(stored.lease_epoch, 1);
    assert_eq!(stored.fleet, Some((6, world.fleet.tree.root())));
    assert_eq!(stored.clock_floor, T0);
}

#[test]
fn the_same_bundle_read_again_after_a_restart_is_accepted() {
    let mut world = World::new();
    let bundle = world.bundle(&world.lease(1));
    let stored = judge(&world, &bundle, &Stored::default(), T0).unwrap();

    let again = judge(&world, &bundle, &stored, 0);

    assert_eq!(again, Ok(stored));
}

#[test]
fn the_same_lease_under_a_newer_checkpoint_is_accepted() {
    let mut world = World::new();
    let lease = world.lease(1);
    let mut bundle = world.bundle(&lease);
    let stored = judge(&world, &bundle, &Stored::default(), T0).unwrap();
    let index = Proof::parse(&bundle.proof).unwrap().index;
    world.fleet.tree.append(b"others");
    bundle.proof = world.fleet.proof(index, &world.everyone(T0 + 9));
    bundle.consistency = world
        .fleet
        .tree
        .consistency_proof(stored.fleet_size(), 7)
        .unwrap();

    let again = judge(&world, &bundle, &stored, T0).unwrap();

    assert_eq!(again.fleet, Some((7, world.fleet.tree.root())));
    assert_eq!(again.clock_floor, T0 + 9);
}

#[test]
fn a_renewal_over_a_grown_log_is_accepted() {
    let mut world = World::new();
    let first = world.bundle(&world.lease(1));
    let stored = judge(&world, &first, &Stored::default(), T0).unwrap();
    for n in 0..9_u8 {
        world.fleet.tree.append(&[n]);
    }
    let second = world.bundle_at(&world.lease(2), &stored, T0 + DAY);

    let renewed = judge(&world, &second, &stored, 0).unwrap();

    assert_eq!(renewed.lease_epoch, 2);
    assert_eq!(renewed.clock_floor, T0 + DAY);
}

#[test]
fn one_lying_server_cannot_push_the_clock() {
    let mut world = World::new();
    let mut bundle = world.bundle(&world.lease(1));
    let times = [T0, T0 + 10, T0 + 1000 * DAY, T0 + 20];
    let cosigners: Vec<_> = world.cosigners.iter().zip(times).collect();
    bundle.proof = world.fleet.proof(world.fleet.tree.size() - 1, &cosigners);

    let stored = judge(&world, &bundle, &Stored::default(), 0).unwrap();

    assert_eq!(stored.clock_floor, T0 + 10);
}

/// What the device remembers after a bundle, or why it refused.
fn judge(
    world: &World,
    bundle: &LeaseBundle,
    stored: &Stored,
    now: u64,
) -> Result<Stored, BundleError> {
    let verdict = world.anchors.verify_bundle(bundle, &world.me, stored, now);
    verdict.map(|(_, stored)| stored)
}

fn gateway(
    world: &mut World,
    proposal: &trust::Proposal,
    now: u64,
) -> Result<trust::GatewayRecord, GatewayError> {
    let activation = world.activate(proposal);
    world
        .anchors
        .verify_gateway(&activation, now)
        .map(trust::Verified::into_inner)
}

fn refused(refused: Refused) -> GatewayError {
    GatewayError::Refused(Box::new(refused))
}
