//! A provisioning server in the wrong hands, with its keys and its store: what its routers refuse to take from it.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::time::Duration;

use lab::{Lab, Office, Programs, Router, StreamReader, exit, refused, said, wait_until};
use trust::Activation;

/// What is done to an activation, and what the router says of it.
type Attack = (&'static dyn Fn(&mut Activation), &'static str);

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_router_takes_no_gateway_that_too_few_people_approved_and_says_so_until_it_can_take_one() {
    let lab = Lab::for_test().unwrap();
    let programs = Programs::of_this_build().unwrap();
    let office = Office::init(&lab, &programs).unwrap();
    let _server = office.start().unwrap();
    let gateway = StreamReader::default().public();
    office.add_silent_gateway(&gateway).unwrap();
    let approved = fs::read(office.genesis().with_file_name("gw1.activation")).unwrap();
    let approved = Activation::from_bytes(&approved).unwrap();
    let code = office.claim().unwrap();
    let changed = |change: &dyn Fn(&mut Activation)| {
        let mut activation = approved.clone();
        change(&mut activation);
        office.replace_activation(&activation).unwrap();
    };
    let router = Router::flash(&lab, &programs, &office).unwrap();

    let attacks: [Attack; 3] = [
        (
            &|one| one.approvals.clear(),
            "alice, who is named as the proposer",
        ),
        (
            &|one| one.approvals.retain(|approval| approval.person != "bob"),
            "both have not approved it: 1 of them did",
        ),
        (
            &|one| {
                one.approvals
                    .iter_mut()
                    .for_each(|approval| approval.person = "bob".to_owned())
            },
            "a signature in the name of bob is by a key that is not theirs",
        ),
    ];
    for (attack, words) in attacks {
        changed(attack);
        let tried = router.try_enrol(&code).unwrap();
        let words = format!("the people's word does not suffice: {words}");
        refused(&tried, exit::UNAVAILABLE, &[&words]).unwrap();
    }

    let _agent = router.start().unwrap();
    let _tries = router.keep_asking(&code).unwrap();
    let status = wait_until("the agent says why", PATIENCE, || {
        let status = router.status()?;
        let reason = status["reason"].as_str().unwrap_or_default().to_owned();
        Ok(reason
            .contains("people's word does not suffice")
            .then_some(status))
    });
    assert!(status.unwrap()["lease"].is_null());

    changed(&|_| ());
    let enrolled = router.try_enrol(&code).unwrap();
    assert!(enrolled.status.success(), "{}", said(&enrolled));
    assert!(!router.status().unwrap()["lease"].is_null());
}

#[test]
fn a_router_follows_its_people_when_they_change_and_no_server_leads_it_back() {
    let lab = Lab::for_test().unwrap();
    let programs = Programs::of_this_build().unwrap();
    let office = Office::init(&lab, &programs).unwrap();
    let server = office.start().unwrap();
    let gateway = StreamReader::default().public();
    office.add_silent_gateway(&gateway).unwrap();
    let router = Router::flash(&lab, &programs, &office).unwrap();
    let enrol = || {
        let code = office.claim().unwrap();
        router.try_enrol(&code).unwrap()
    };
    let enrolled = enrol();
    assert!(enrolled.status.success(), "{}", said(&enrolled));

    let before = lab.work().join("before");
    office.copy_store(&before).unwrap();

    // Bob goes, carol comes; whom bob approved is nobody's gateway until carol has.
    let told = office.change_people(&[]).unwrap_err().to_string();
    assert!(
        told.contains("routers would refuse these gateways"),
        "{told}"
    );
    office.change_people(&["--lose-gateways"]).unwrap();
    let words = "the people's word does not suffice: bob is nobody that the authority knows";
    refused(&enrol(), exit::UNAVAILABLE, &[words]).unwrap();
    let agent = router.start().unwrap();
    let status = wait_until("the agent tells its people's epoch", PATIENCE, || {
        let status = router.status()?;
        Ok((status["authority"] == 2).then_some(status))
    });
    assert!(status.unwrap()["lease"].is_null());
    agent.terminate().unwrap();
    let served = office.try_cli(&["gateway", "list"]).unwrap();
    assert!(served.status.success());

    // A database from before the change, and a server that knows of none.
    let after = lab.work().join("after");
    office.copy_store(&after).unwrap();
    server.terminate().unwrap();
    office.replace_store(&before).unwrap();
    let server = office.start().unwrap();
    refused(&enrol(), exit::UNAVAILABLE, &[words]).unwrap();
    server.terminate().unwrap();
    office.replace_store(&after).unwrap();

    let _server = office.start().unwrap();
    office.approve_again("gw1").unwrap();
    let enrolled = enrol();
    assert!(enrolled.status.success(), "{}", said(&enrolled));
}
