//! Changes of the people: which a machine takes, and what they do to what the people before had approved.

use trust::{
    Activation, Anchors, ChangeError, GatewayError, Kind, ProofError, Proposal, Refused, Verdict,
};

use crate::pen::pen;
use crate::world::{DAY, DELAY, T0, World};

/// The next state: carol is gone, dan has come.
fn next(world: &World, epoch: u64) -> Proposal {
    let person = |(name, n)| format!("person {name} {}\n", pen(n).line());
    let people = [("alice", 1), ("bob", 2), ("dan", 4)].map(person).concat();
    let rules = "group noc 2 alice bob dan\nrule gateway noc\nrule authority noc\n";
    Proposal {
        kind: Kind::Authority,
        body: format!("epoch {epoch}\n{people}{rules}").into_bytes(),
        authority_epoch: epoch - 1,
        ..world.proposal()
    }
}

/// Signed by these, of whom alice proposes, and logged.
fn signed(world: &mut World, proposal: &Proposal, people: &[(u8, &str)]) -> Activation {
    let bytes = proposal.to_bytes();
    let mut approvals = vec![pen(1).says(Verdict::Propose, "alice", &bytes)];
    let approve = |(n, person): &(u8, &str)| pen(*n).says(Verdict::Approve, person, &bytes);
    approvals.extend(people.iter().map(approve));
    world.log(&bytes, approvals, T0 - DELAY)
}

fn change(anchors: &Anchors, activation: &Activation) -> Result<u64, ChangeError> {
    let state = anchors.verify_change(activation, T0)?;
    Ok(state.get().epoch())
}

#[test]
fn a_change_needs_enough_people_of_both_states_the_log_and_the_next_epoch() {
    let mut world = World::new();
    let anchors = world.anchors.clone();
    let proposal = next(&world, 2);
    let short = |approved| {
        let deciders = "noc".to_owned();
        Err(ChangeError::Refused(Box::new(Refused::NoQuorum {
            deciders,
            approved,
        })))
    };

    let of_the_old = signed(&mut world, &proposal, &[(2, "bob"), (3, "carol")]);
    assert_eq!(change(&anchors, &of_the_old), short(1));
    let of_the_new = signed(&mut world, &proposal, &[(2, "bob"), (4, "dan")]);
    assert_eq!(change(&anchors, &of_the_new), short(1));
    let enough = [(2, "bob"), (3, "carol"), (4, "dan")];
    let mut by_one_server = signed(&mut world, &proposal, &enough);
    let index = world.authority.tree.size() - 1;
    let alone = [(&world.cosigners[0], T0)];
    by_one_server.proof = world.authority.proof(index, &alone);
    assert_eq!(
        change(&anchors, &by_one_server),
        Err(ChangeError::NotLogged(ProofError::NoQuorum))
    );
    let later = next(&world, 3);
    let skipped = signed(&mut world, &later, &enough);
    let error = Refused::Epoch { current: 1, got: 2 };
    assert_eq!(
        change(&anchors, &skipped),
        Err(ChangeError::Refused(Box::new(error)))
    );
    let gateway = world.activate(&world.proposal());
    let error = Refused::NoState(Kind::Gateway);
    assert_eq!(
        change(&anchors, &gateway),
        Err(ChangeError::Refused(Box::new(error)))
    );

    let good = signed(&mut world, &proposal, &enough);
    assert_eq!(change(&anchors, &good), Ok(2));
}

#[test]
fn after_a_change_its_people_decide_and_nothing_leads_back() {
    let mut world = World::new();
    let by_bob_and_carol = world.activate(&world.proposal());
    assert!(world.anchors.verify_gateway(&by_bob_and_carol, T0).is_ok());
    let first = next(&world, 2);
    let enough = [(2, "bob"), (3, "carol"), (4, "dan")];
    let activation = signed(&mut world, &first, &enough);
    let state = world.anchors.verify_change(&activation, T0).unwrap();
    world.anchors.people = state.into_inner();

    let refused = world.anchors.verify_gateway(&by_bob_and_carol, T0);
    let carol = Box::new(Refused::Unknown("carol".to_owned()));
    assert_eq!(refused, Err(GatewayError::Refused(carol)));
    let gateway = world.proposal();
    let by_bob_and_dan = signed(&mut world, &gateway, &[(2, "bob"), (4, "dan")]);
    assert!(world.anchors.verify_gateway(&by_bob_and_dan, T0).is_ok());
    let again = change(&world.anchors, &activation);
    let error = Refused::Epoch { current: 2, got: 1 };
    assert_eq!(again, Err(ChangeError::Refused(Box::new(error))));
    let mut ended = next(&world, 3);
    ended.expires = T0 - DAY;
    let ended = signed(&mut world, &ended, &[(2, "bob"), (4, "dan")]);
    assert!(matches!(
        change(&world.anchors, &ended),
        Err(ChangeError::Refused(error)) if matches!(*error, Refused::Expired { .. })
    ));
}
