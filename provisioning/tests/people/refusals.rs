//! What does not suffice, and how the commands say so: 1 invalid, 2 signatures are missing, 3 not yet.

use std::fs;

use provisioning::clock::unix_now;
use trust::{Activation, Proposal};

use crate::rig::{GATEWAY, People, RULES, at_office};

const VERIFY: &[&str] = &["verify", "p", "--authority", "state"];

/// A proposal by carol, and what the folder's commands are given.
fn proposed() -> People {
    let people = People::new();
    people.propose_gateway("p");
    people
}

fn logged_long_ago() -> [String; 2] {
    ["--logged".to_owned(), (unix_now() - 100_000).to_string()]
}

#[track_caller]
fn verify_fails(people: &People, code: i32, words: &str) {
    let logged = logged_long_ago();
    let logged = logged.each_ref().map(String::as_str);
    people.fails(&[VERIFY, &logged].concat(), code, words);
}

#[test]
fn one_operator_less_than_enough_is_short() {
    let people = proposed();
    verify_fails(&people, 2, "0 of them did");
    people.approve("p", "bob");
    verify_fails(&people, 2, "1 of them did");
    let shown = people.ok(&["show", "p", "--authority", "state"]);
    assert!(
        shown.contains("noc: 1 more of alice, dan, erin\n"),
        "{shown}"
    );

    people.approve("p", "dan");
    let logged = logged_long_ago();
    let logged = logged.each_ref().map(String::as_str);
    people.ok(&[VERIFY, &logged].concat());
}

#[test]
fn one_operator_with_two_keys_is_one_vote() {
    let people = proposed();
    people.approve("p", "alice");
    let second = ["approve", "p", "--authority", "state", "--key", "alice2"];
    people.fails(&second, 1, "alice has signed twice");
    assert_eq!(people.signatures("p"), 2);

    // Whoever puts it there by hand spoils the proposal.
    let bytes = people.read("p/proposal");
    people.sign("alice2", "approve-gateway@culvert", &bytes, "p/second.sig");
    verify_fails(&people, 1, "alice has signed twice");
    let shown = people.ok(&["show", "p", "--authority", "state"]);
    assert!(
        shown.contains("NOT VALID: alice has signed twice"),
        "{shown}"
    );
}

#[test]
fn an_approval_without_a_touch_is_invalid() {
    let people = proposed();
    people.approve("p", "bob");
    let untouched = ["approve", "p", "--authority", "state", "--key", "erin"];
    people.fails(&untouched, 1, "the token was not touched");
    assert_eq!(people.signatures("p"), 2);

    let bytes = people.read("p/proposal");
    people.sign("erin", "approve-gateway@culvert", &bytes, "p/erin.sig");
    verify_fails(&people, 1, "the token was not touched");
    let shown = people.json(&["show", "p", "--authority", "state"]);
    assert_eq!(shown["judged"], "invalid");
    let theirs = shown["signatures"].as_array().unwrap();
    let erins = theirs.iter().find(|one| one["person"] == "erin").unwrap();
    let why = erins["refused"].as_str().unwrap();
    assert!(why.contains("not touched"), "{why}");
}

#[test]
fn an_approval_for_other_bytes_or_another_purpose_is_invalid() {
    for (purpose, change) in [
        ("approve-gateway@culvert", true),
        ("reject-gateway@culvert", false),
        ("approve-authority@culvert", false),
        ("file", false),
    ] {
        let people = proposed();
        let mut bytes = people.read("p/proposal");
        if change {
            bytes.push(0);
        }
        people.sign("bob", purpose, &bytes, "bob.sig");
        let hand_in = [
            "approve",
            "p",
            "--authority",
            "state",
            "--signature",
            "bob.sig",
        ];
        let words = match change {
            true => "the key did not sign these bytes",
            false => "approve-gateway@culvert is wanted",
        };
        people.fails(&hand_in, 1, words);
        assert_eq!(people.signatures("p"), 1, "{purpose}");

        fs::copy(people.path("bob.sig"), people.path("p/bob.sig")).unwrap();
        let code = if purpose.starts_with("reject") { 2 } else { 1 };
        verify_fails(&people, code, "");
    }
}

#[test]
fn a_changed_proposal_has_no_signature_that_holds() {
    let people = proposed();
    people.approve("p", "bob");
    people.approve("p", "alice");
    let mut read = Proposal::from_bytes(&people.read("p/proposal")).unwrap();
    read.nonce = [7; 32];
    fs::write(people.path("p/proposal"), read.to_bytes()).unwrap();

    verify_fails(&people, 1, "the key did not sign these bytes");
    fs::write(people.path("p/proposal"), b"\xa0").unwrap();
    verify_fails(&people, 1, "p holds no proposal");
}

#[test]
fn who_is_not_in_the_group_or_not_in_the_state_has_no_vote() {
    let people = proposed();
    people.state(
        "state",
        1,
        "group two 2 alice bob\nrule gateway two\nrule authority noc\n",
    );
    let outside = ["approve", "p", "--authority", "state", "--key", "dan"];
    people.fails(&outside, 1, "this person is not in two");
    let stranger = ["approve", "p", "--authority", "state", "--key", "mallory"];
    people.fails(&stranger, 1, "is nobody's key");
    assert_eq!(people.signatures("p"), 1);

    let bytes = people.read("p/proposal");
    people.sign(
        "mallory",
        "approve-gateway@culvert",
        &bytes,
        "p/mallory.sig",
    );
    verify_fails(&people, 1, "is nobody that the authority knows");
}

#[test]
fn who_proposes_approves_only_where_the_rule_lets_them() {
    let people = People::new();
    people.propose_gateway_by("alice", "p");
    for key in ["alice", "alice2"] {
        let own = ["approve", "p", "--authority", "state", "--key", key];
        people.fails(&own, 1, "who proposes does not approve it too");
    }
    people.approve("p", "bob");
    verify_fails(&people, 2, "1 of them did");
    let shown = people.ok(&["show", "p", "--authority", "state"]);
    assert!(shown.contains("noc: 1 more of dan, erin\n"), "{shown}");

    people.state(
        "state",
        1,
        "rule gateway noc self-approve\nrule authority noc\n",
    );
    let logged = logged_long_ago();
    let logged = logged.each_ref().map(String::as_str);
    people.ok(&[VERIFY, &logged].concat());
}

#[test]
fn a_proposal_before_its_delay_is_not_yet() {
    let people = proposed();
    people.approve("p", "bob");
    people.approve("p", "alice");
    let now = unix_now();
    let (logged, early, ripe) = (
        now.to_string(),
        (now + 3_599).to_string(),
        (now + 3_600).to_string(),
    );

    people.fails(VERIFY, 3, "nothing shows that it stands in the log");
    let at = |time: &str| {
        [VERIFY, &["--logged", &logged, "--at", time]]
            .concat()
            .join(" ")
    };
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let early = words(&at(&early));
    let early: Vec<_> = early.iter().map(String::as_str).collect();
    people.fails(&early, 3, "has its effect from");
    let ripe = words(&at(&ripe));
    let ripe: Vec<_> = ripe.iter().map(String::as_str).collect();
    people.ok(&ripe);
}

#[test]
fn a_proposal_of_a_state_that_is_not_yet_is_invalid_and_nobody_signs_it() {
    let people = People::new();
    people.state("state", 2, RULES);
    people.propose_gateway("p");
    people.state("state", 1, RULES);

    verify_fails(&people, 1, "of authority epoch 2, but it is 1");
    let signing = ["approve", "p", "--authority", "state", "--key", "alice"];
    people.fails(
        &signing,
        1,
        "not signed: the proposal is of authority epoch 2",
    );
    assert_eq!(people.signatures("p"), 1);
}

#[test]
fn a_proposal_that_is_older_than_the_state_needs_enough_of_its_people() {
    let people = proposed();
    people.approve("p", "bob");
    people.approve("p", "alice");
    people.state("state", 2, RULES);
    let verify_holds = || {
        let logged = logged_long_ago();
        people.ok(&[VERIFY, &logged.each_ref().map(String::as_str)].concat());
    };
    verify_holds();
    let without_alice = |rules: &str| {
        people.state("state", 2, rules);
        let text = String::from_utf8(people.read("state")).unwrap();
        let kept = text
            .lines()
            .filter(|line| !line.starts_with("person alice"));
        let kept = kept.collect::<Vec<_>>().join("\n") + "\n";
        let kept = kept.replace("noc 2 alice bob", "noc 2 bob");
        fs::write(people.path("state"), kept).unwrap();
    };

    without_alice(RULES);

    verify_fails(&people, 1, "is nobody that the authority knows");
    let files = fs::read_dir(people.path("p")).unwrap();
    let (_, of_alice) = files
        .map(|file| file.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("approve")
        })
        .map(|path| (fs::metadata(&path).unwrap().modified().unwrap(), path))
        .max()
        .unwrap();
    fs::remove_file(of_alice).unwrap();
    verify_fails(&people, 2, "1 of them did");
    people.approve("p", "dan");
    verify_holds();
}

#[test]
fn a_rejection_takes_the_vote_of_its_person() {
    let people = proposed();
    people.approve("p", "bob");
    people.approve("p", "alice");
    people.ok(&["reject", "p", "--authority", "state", "--key", "alice"]);

    verify_fails(&people, 2, "1 of them did");
    people.ok(&["reject", "p", "--authority", "state", "--key", "dan"]);
    let late = ["approve", "p", "--authority", "state", "--key", "dan"];
    people.fails(&late, 1, "has rejected it too");
}

#[test]
fn nothing_is_signed_without_a_yes() {
    let people = proposed();
    for said in ["", "y\n", "no\n", "\nyes\n"] {
        let output = people.run_saying(
            said,
            &["approve", "p", "--authority", "state", "--key", "bob"],
        );
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said:?}");
        assert!(told.contains("198.51.100.1:51820"), "{told}");
        assert!(
            told.trim_end().ends_with("error: nothing is signed"),
            "{told}"
        );
    }
    assert_eq!(people.signatures("p"), 1);
}

#[test]
fn what_no_words_are_for_is_shown_as_such_and_not_signed() {
    let people = proposed();
    let mut read = Proposal::from_bytes(&people.read("p/proposal")).unwrap();
    read.body = b"a gateway, honestly".to_vec();
    read.proposer = "carol\nJudged       valid\u{1b}[8m".to_owned();
    fs::create_dir(people.path("q")).unwrap();
    fs::write(people.path("q/proposal"), read.to_bytes()).unwrap();

    let shown = people.ok(&["show", "q", "--authority", "state"]);
    assert!(shown.contains("DO NOT SIGN THIS"), "{shown}");
    assert!(
        !shown.contains('\u{1b}') && !shown.contains("\nJudged       valid"),
        "{shown}"
    );
    let signing = ["approve", "q", "--authority", "state", "--key", "bob"];
    people.fails(&signing, 1, "nobody signs what cannot be read");
}

#[test]
fn a_file_that_is_no_signature_spoils_the_proposal_by_name() {
    let people = proposed();
    people.approve("p", "bob");
    people.approve("p", "alice");
    fs::write(people.path("p/x.sig"), "signed, bob").unwrap();

    verify_fails(&people, 1, "x.sig is not an SSH signature");
}

#[test]
fn a_proposal_that_could_never_be_is_not_made() {
    let people = People::new();
    people.state(
        "short",
        1,
        "rule gateway noc max-life 60\nrule authority noc\n",
    );
    let endless = [
        "propose",
        "gateway",
        "p",
        "--authority",
        "short",
        "--key",
        "carol",
    ];
    people.fails(&[&endless, GATEWAY].concat(), 1, "would last for longer");
    people.state("none", 1, "rule authority noc\n");
    let nobodys = [
        "propose",
        "gateway",
        "p",
        "--authority",
        "none",
        "--key",
        "carol",
    ];
    people.fails(&[&nobodys, GATEWAY].concat(), 1, "there is no rule for it");
    people.state("third", 3, RULES);
    let skips = [
        "propose",
        "authority",
        "p",
        "--authority",
        "state",
        "--state",
        "third",
        "--key",
        "carol",
    ];
    people.fails(&skips, 1, "epoch 3 and not 2");
    let unknown = [
        "propose",
        "gateway",
        "p",
        "--authority",
        "state",
        "--key",
        "mallory",
    ];
    people.fails(&[&unknown, GATEWAY].concat(), 1, "is nobody's key");

    assert!(!people.path("p").exists());
    let taken = [
        "propose", "genesis", "state", "--state", "state", "--key", "alice",
    ];
    people.fails(&taken, 1, "state is there already");
    people.fails(&["verify", "p"], 74, "cannot read p/proposal");
}

#[test]
fn a_server_logs_nothing_that_nobody_of_the_authority_proposed_or_that_can_never_be() {
    let people = People::new();
    people.office(RULES);
    let logged = |folder: &str| at_office(&["log", "add", folder]).join(" ");
    let refused = |folder: &str, words: &str| {
        let line = logged(folder);
        people.fails(&line.split(' ').collect::<Vec<_>>(), 1, words);
    };

    let unsigned = ["propose", "gateway", "u", "--authority", "state"];
    people.ok(&[&unsigned[..], &["--proposer", "carol"], GATEWAY].concat());
    refused(
        "u",
        "nothing is logged: carol, who is named as the proposer",
    );
    let strange = ["propose", "gateway", "s", "--authority", "state"];
    people.ok(&[&strange[..], &["--proposer", "mallory"], GATEWAY].concat());
    let proposal = people.read("s/proposal");
    people.sign("mallory", "propose-gateway@culvert", &proposal, "s/m.sig");
    refused("s", "is nobody that the authority knows");
    people.propose_gateway("p");
    fs::write(people.path("p/proof"), "of something else").unwrap();
    refused("p", "p/proof is another proof; take it away");
    fs::remove_file(people.path("p/proof")).unwrap();

    let line = logged("p");
    people.ok(&line.split(' ').collect::<Vec<_>>());
    let first = people.read("p/proof");
    fs::remove_file(people.path("p/proof")).unwrap();
    people.ok(&line.split(' ').collect::<Vec<_>>());
    assert_eq!(people.read("p/proof"), first);
    let listed = people.ok(&at_office(&["log", "list"]));
    assert_eq!(listed.lines().count(), 2, "{listed}");
}

#[test]
fn a_server_takes_no_gateway_that_a_router_would_not() {
    let people = People::new();
    people.office(RULES);
    people.propose_gateway("p");
    people.ok(&at_office(&["log", "add", "p"]));
    people.approve("p", "bob");
    people.approve("p", "dan");
    let later = (unix_now() + 3_600).to_string();
    let trust = ["--trust", "office/image/trust.policy"];
    let out = ["--at", &later, "--out", "a"];
    people.ok(&[&["activate", "p"], &trust[..], &out].concat());
    let add = at_office(&["gateway", "add", "a"]);
    let whole = Activation::from_bytes(&people.read("a")).unwrap();
    let changed = |change: &dyn Fn(&mut Activation)| {
        let mut activation = whole.clone();
        change(&mut activation);
        fs::write(people.path("a"), activation.to_bytes()).unwrap();
    };

    people.fails(&add, 1, "has an effect from");
    changed(&|activation| drop(activation.approvals.remove(0)));
    people.fails(&add, 1, "noc have not approved it: 1 of them did");
    changed(&|activation| activation.approvals.clear());
    people.fails(&add, 1, "carol, who is named as the proposer");
    changed(&|activation| activation.proof.clear());
    people.fails(&add, 1, "not in the authority log");
    let genesis = people.read("first.activation");
    fs::write(people.path("a"), genesis).unwrap();
    people.fails(&add, 1, "about authority, not about a gateway");
    fs::write(people.path("a"), "no activation").unwrap();
    people.fails(&add, 1, "a is no activation");
    let none = people.ok(&at_office(&["gateway", "list"]));
    assert!(none.contains("no gateways"), "{none}");
}
