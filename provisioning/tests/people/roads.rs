//! What suffices, from the first state of the authority to an activation that holds the log's proof.

use std::fs;
use std::path::Path;

use provisioning::clock::unix_now;
use sha2::{Digest, Sha256};
use trust::{
    Activation, Anchors, Authority, Cosigner, LogSigner, Proof, Proposal, Tree, inclusion_path,
};

use crate::rig::{Agent, GATEWAY, People, at_office};

/// A log of the authority with one entry, and the trust file of those who believe it.
fn log(people: &People, folder: &str, stamp: u64) {
    let entry = people.read(&format!("{folder}/proposal"));
    let signer = LogSigner::from_seed("office/authority", &[1; 32]).unwrap();
    let fleet = LogSigner::from_seed("office/fleet", &[2; 32]).unwrap();
    let cosigner = Cosigner::from_seed("office/cosigner", &[3; 32]).unwrap();
    let mut tree = Tree::new();
    tree.append(b"an entry before it");
    let index = tree.append(&entry);
    let path = inclusion_path(index, tree.size(), &mut |height, at| tree.node(height, at));
    let checkpoint = signer.sign_checkpoint(tree.size(), tree.root());
    let proof = Proof {
        extra: None,
        index,
        path: path.unwrap(),
        checkpoint: cosigner.cosign(&checkpoint, stamp),
    };
    fs::write(people.path(&format!("{folder}/proof")), proof.format()).unwrap();
    let policy = |log: &LogSigner| {
        let (log, cosigner) = (log.vkey(), cosigner.vkey());
        format!("log {log}\nwitness office {cosigner}\nquorum office\n")
    };
    let state = String::from_utf8(people.read("state")).unwrap();
    let text = Anchors::compose(&policy(&fleet), &policy(&signer), &state);
    fs::write(people.path("trust.policy"), text).unwrap();
}

fn activation(path: &Path) -> Activation {
    Activation::from_bytes(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_gateway_goes_from_a_proposal_to_an_activation_that_the_judge_takes() {
    let people = People::new();
    people.propose_gateway("p");
    people.approve("p", "dan");
    people.approve("p", "alice2");
    let logged = unix_now() - 3_600;
    let with_log = ["p", "--authority", "state", "--trust", "trust.policy"];
    log(&people, "p", logged + 60);
    let out = ["--out", "activation"];

    people.fails(
        &[&["activate"], &with_log[..], &out].concat(),
        3,
        "in the log since",
    );
    log(&people, "p", logged);
    let by_word = ["activate", "p", "--authority", "state", "--logged", "1"];
    people.fails(&[&by_word, &out[..]].concat(), 64, "holds the log's proof");
    assert!(!people.path("activation").exists());
    people.ok(&[&["activate"], &with_log[..], &out].concat());

    let made = activation(&people.path("activation"));
    let text = String::from_utf8(people.read("state")).unwrap();
    let state = Authority::parse(&text).unwrap();
    let read = state.judge(&made.proposal, &made.approvals, logged, unix_now());
    assert_eq!(read.unwrap().proposer, "carol");
    assert_eq!(made.proof.as_bytes(), people.read("p/proof"));
    people.fails(
        &[&["activate"], &with_log[..], &out].concat(),
        74,
        "cannot write activation",
    );
}

#[test]
fn a_proof_of_other_bytes_or_of_another_log_is_refused() {
    let people = People::new();
    people.propose_gateway("p");
    people.propose_gateway("q");
    log(&people, "q", 1_790_000_000);
    let verify = [
        "verify",
        "p",
        "--authority",
        "state",
        "--trust",
        "trust.policy",
    ];

    people.fails(&verify, 2, "0 of them did");
    fs::copy(people.path("q/proof"), people.path("p/proof")).unwrap();
    people.fails(&verify, 1, "the proof in the folder does not hold");
    log(&people, "p", 1_790_000_000);
    let policy = String::from_utf8(people.read("trust.policy")).unwrap();
    let other = LogSigner::from_seed("office/authority", &[9; 32]).unwrap();
    let ours = LogSigner::from_seed("office/authority", &[1; 32]).unwrap();
    let policy = policy.replace(&ours.vkey().to_string(), &other.vkey().to_string());
    fs::write(people.path("trust.policy"), policy).unwrap();
    people.fails(&verify, 1, "the proof in the folder does not hold");
}

#[test]
fn the_first_state_is_made_in_a_ceremony_of_its_own_people() {
    let people = People::new();
    people.ok(&[
        "propose", "genesis", "g", "--state", "state", "--key", "alice",
    ]);
    people.ok(&["approve", "g", "--genesis", "--key", "bob"]);
    people.fails(&["verify", "g", "--genesis"], 2, "1 of them did");
    people.fails(
        &["verify", "g", "--authority", "state"],
        1,
        "of authority epoch 0, but it is 1",
    );
    people.ok(&["approve", "g", "--genesis", "--key", "dan"]);
    people.ok(&["verify", "g", "--genesis"]);

    people.ok(&[
        "activate",
        "g",
        "--genesis",
        "--out",
        "activation",
        "--state",
        "made",
    ]);

    assert_eq!(people.read("made"), people.read("state"));
    assert_eq!(activation(&people.path("activation")).approvals.len(), 3);
}

#[test]
fn a_new_state_is_signed_by_enough_people_of_the_old_one_and_of_itself() {
    let people = People::new();
    people.state(
        "next",
        2,
        "group two all carol bob\nrule gateway noc\nrule authority two\n",
    );
    let propose = [
        "propose",
        "authority",
        "p",
        "--authority",
        "state",
        "--state",
        "next",
    ];
    people.ok(&[&propose[..], &["--key", "carol"]].concat());
    people.approve("p", "alice");
    people.approve("p", "dan");
    let logged = (unix_now() - 60).to_string();
    let verify = ["verify", "p", "--authority", "state", "--logged", &logged];
    people.fails(&verify, 2, "two have not approved it: 0 of them did");
    let shown = people.ok(&["show", "p", "--authority", "state"]);
    assert!(
        shown.contains("\n- rule authority noc min-delay 60\n"),
        "{shown}"
    );
    assert!(shown.contains("\n+ rule authority two\n"), "{shown}");
    let sum = hex::encode(Sha256::digest(people.read("state")));
    assert!(
        shown.contains(&format!(
            "judged by    the state of epoch 1, SHA-256 {sum}\n"
        )),
        "{shown}"
    );
    assert!(
        shown.contains("Missing by the new state two: 2 more of bob\n"),
        "{shown}"
    );

    // Carol proposes it, which is no vote: the new state can only be changed into by who is in `two` and does not propose.
    people.state(
        "next",
        2,
        "group two all alice bob\nrule gateway noc\nrule authority two\n",
    );
    let again = [
        "propose",
        "authority",
        "q",
        "--authority",
        "state",
        "--state",
        "next",
    ];
    people.ok(&[&again[..], &["--key", "carol"]].concat());
    people.approve("q", "alice");
    people.approve("q", "bob");
    people.ok(&["verify", "q", "--authority", "state", "--logged", &logged]);
}

#[test]
fn a_signature_made_elsewhere_with_ssh_keygen_alone_counts() {
    let people = People::new();
    let propose = [
        "propose",
        "gateway",
        "p",
        "--authority",
        "state",
        "--proposer",
        "carol",
    ];
    let told = people.ok(&[&propose[..], GATEWAY].concat());
    assert!(
        told.contains("ssh-keygen -Y sign -n propose-gateway@culvert"),
        "{told}"
    );
    people.fails(
        &["verify", "p", "--authority", "state"],
        2,
        "carol, who is named as the proposer",
    );
    let bytes = people.read("p/proposal");
    people.sign("carol", "propose-gateway@culvert", &bytes, "p/propose.sig");
    people.sign("dan", "approve-gateway@culvert", &bytes, "dan.sig");
    people.sign("bob", "approve-gateway@culvert", &bytes, "bob.sig");

    people.ok(&[
        "approve",
        "p",
        "--authority",
        "state",
        "--signature",
        "dan.sig",
    ]);
    people.ok(&[
        "approve",
        "p",
        "--authority",
        "state",
        "--signature",
        "bob.sig",
    ]);

    let object = people.json(&["verify", "p", "--authority", "state", "--logged", "1"]);
    assert_eq!(object["judged"], "valid");
    let id = hex::encode(Proposal::id(&bytes));
    assert_eq!(object["proposal"], id.as_str());
}

#[test]
fn the_program_and_ssh_keygen_agree_on_a_signature() {
    let people = People::new();
    people.propose_gateway("p");
    people.approve("p", "bob");
    let signature = fs::read_dir(people.path("p")).unwrap();
    let mut names = signature.map(|file| file.unwrap().path());
    let bobs = names
        .find(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("approve")
        })
        .unwrap();
    let key = String::from_utf8(people.read("bob.pub")).unwrap();
    fs::write(people.path("allowed"), format!("bob {key}")).unwrap();

    let verified = std::process::Command::new("ssh-keygen")
        .args([
            "-q",
            "-Y",
            "verify",
            "-n",
            "approve-gateway@culvert",
            "-I",
            "bob",
            "-f",
            "allowed",
            "-s",
        ])
        .arg(bobs)
        .current_dir(people.path(""))
        .stdin(fs::File::open(people.path("p/proposal")).unwrap())
        .status();

    assert!(verified.unwrap().success());
}

#[test]
fn a_gateway_goes_from_its_proposal_through_the_log_of_a_server_into_leases() {
    let people = People::new();
    people.office("rule gateway noc\nrule authority noc\n");
    people.propose_gateway("p");
    let activate = ["activate", "p", "--trust", "office/image/trust.policy"];
    let activate = [&activate[..], &["--out", "p.activation"]].concat();
    people.fails(&activate, 2, "0 of them did");

    people.ok(&at_office(&["log", "add", "p"]));
    people.approve("p", "bob");
    people.fails(&activate, 2, "1 of them did");
    people.approve("p", "dan");
    people.ok(&activate);
    people.ok(&at_office(&["gateway", "add", "p.activation"]));

    let gateways = people.json(&at_office(&["gateway", "list"]));
    assert_eq!(gateways[0]["name"], "gw1");
    assert_eq!(gateways[0]["authority_entry"], 1);
    let listed = people.ok(&at_office(&["log", "list"]));
    assert_eq!(listed.lines().count(), 2);
    assert!(
        listed.contains("authority, by alice of epoch 0"),
        "{listed}"
    );
    assert!(
        listed.contains("gateway gw1, by carol of epoch 1"),
        "{listed}"
    );
    people.ok(&at_office(&["log", "verify"]));
}

#[test]
fn a_server_takes_a_new_state_says_what_it_would_cost_and_gives_it_to_images() {
    let people = People::new();
    people.office("rule gateway noc\nrule authority noc\n");
    people.propose_gateway("p");
    people.ok(&at_office(&["log", "add", "p"]));
    people.approve("p", "bob");
    people.approve("p", "dan");
    let trust = ["--trust", "office/image/trust.policy", "--out"];
    let activate = |folder: &str, out: &str| {
        people.ok(&[&["activate", folder], &trust[..], &[out]].concat());
    };
    activate("p", "p.activation");
    people.ok(&at_office(&["gateway", "add", "p.activation"]));

    // Dan goes.
    people.state("next", 2, "rule gateway noc\nrule authority noc\n");
    let text = String::from_utf8(people.read("next")).unwrap();
    let stay = text.lines().filter(|line| !line.starts_with("person dan "));
    let stay: String = stay
        .map(|line| format!("{}\n", line.replace(" dan ", " ")))
        .collect();
    fs::write(people.path("next"), &stay).unwrap();
    let propose = ["propose", "authority", "c", "--authority", "state"];
    people.ok(&[&propose[..], &["--state", "next", "--key", "carol"]].concat());
    people.approve("c", "alice");
    people.approve("c", "bob");
    people.ok(&at_office(&["log", "add", "c"]));
    let add = at_office(&["authority", "add", "c.activation"]);
    activate("c", "c.activation");
    people.fails(
        &add,
        1,
        "gw1: the people's word does not suffice: noc have not approved it: 1 of them did",
    );
    let wrong = at_office(&["authority", "add", "p.activation"]);
    people.fails(&wrong, 1, "no state is added: ");
    assert_eq!(
        people.json(&at_office(&["gateway", "list"]))[0]["name"],
        "gw1"
    );

    people.approve("p", "alice");
    activate("p", "more.activation");
    people.ok(&at_office(&["gateway", "add", "more.activation"]));
    let added = people.json(&add);
    assert_eq!(
        (&added["epoch"], &added["lost_gateways"]),
        (&2.into(), &serde_json::json!([]))
    );
    let policy = String::from_utf8(people.read("office/image/trust.policy")).unwrap();
    assert!(policy.ends_with(&format!("[people]\n{stay}")), "{policy}");
    people.fails(&add, 1, "no state is added: ");
    people.ok(&at_office(&["log", "verify"]));
}

#[test]
fn a_key_in_an_agent_signs_by_its_public_half_and_only_while_it_is_there() {
    let people = People::new();
    people.propose_gateway("p");
    let agent = Agent::start(&people);
    agent.add(&people, "bob");
    fs::remove_file(people.path("bob")).unwrap();
    let approve = ["approve", "p", "--authority", "state", "--key", "bob.pub"];

    people.fails(&approve, 1, "ssh-keygen has not signed with bob.pub");
    assert_eq!(people.signatures("p"), 1);
    let approved = people.run_with(&[("SSH_AUTH_SOCK", &agent.socket)], &approve);
    let told = String::from_utf8_lossy(&approved.stderr);
    assert!(approved.status.success(), "{told}");

    people.approve("p", "dan");
    let logged = (unix_now() - 10_000).to_string();
    people.ok(&["verify", "p", "--authority", "state", "--logged", &logged]);
}
