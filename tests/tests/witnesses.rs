//! Witnesses in other hands, as processes of their own: what a router takes and what not.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lab::{
    Image, Lab, Office, Peers, Programs, Router, SigsumWitness, StreamReader, Witness, exit,
    refused, said, wait_until,
};
use nix::sys::signal::Signal;
use trust::{AddCheckpoint, Cosigner, LogSigner, Tree, Vkey, key_id};

const PATIENCE: Duration = Duration::from_secs(20);
const QUORUM: &str = "group outside any w1 w2\ngroup enough all lab outside\nquorum enough\n";

#[test]
fn a_router_takes_nothing_of_a_server_that_too_few_witnesses_follow() {
    let lab = Lab::for_test().unwrap();
    let programs = Programs::of_this_build().unwrap();
    let witness = |name_and_port| Witness::init(&lab, &programs, name_and_port).unwrap();
    let (w1, w2) = (witness(("w1", 8601)), witness(("w2", 8602)));
    let lines = [w1.line(), w2.line(), QUORUM.to_owned()].concat();
    let office = Office::init_witnessed(&lab, &programs, &lines).unwrap();
    for witness in [&w1, &w2] {
        witness.learn(&office).unwrap();
    }
    let (first, second) = (w1.start().unwrap(), w2.start().unwrap());
    let server = office.start().unwrap();
    let gateway = StreamReader::default().public();
    office.add_silent_gateway(&gateway).unwrap();
    let router =
        |name: &str| Router::flash_as(&lab, &programs, &office, name, &Image::default()).unwrap();
    let enrol = |router: &Router| {
        let code = office.claim().unwrap();
        router.try_enrol(&code).unwrap()
    };
    let enrolled = enrol(&router("both"));
    assert!(enrolled.status.success(), "{}", said(&enrolled));

    first.signal(Signal::SIGKILL).unwrap();
    let enrolled = enrol(&router("one"));
    assert!(enrolled.status.success(), "{}", said(&enrolled));

    second.signal(Signal::SIGKILL).unwrap();
    let waiting = router("none");
    let code = office.claim().unwrap();
    let tried = waiting.try_enrol(&code).unwrap();
    let words = "too few witnesses have cosigned the provider's log yet";
    refused(&tried, exit::UNAVAILABLE, &[words]).unwrap();
    let told = office.cli(&["status"]).unwrap();
    assert!(told.contains("2 of 3 entries are published"), "{told}");
    assert!(told.contains("cannot be reached (since"), "{told}");
    drop((first, second));

    let _first = w1.start().unwrap();
    let enrolled = waiting.try_enrol(&code).unwrap();
    assert!(enrolled.status.success(), "{}", said(&enrolled));
    let told = wait_until("the witness is told to be well", PATIENCE, || {
        let logs = office.cli_json(&["status"])?["logs"].clone();
        Ok((logs[0]["published"] == 3).then_some(logs))
    });
    let told = told.unwrap();
    assert_eq!(told[0]["witnesses"][0]["size"], 3, "{told}");

    // Who has the server takes the witnesses out of its trust file; images have them.
    let last = router("last");
    server.terminate().unwrap();
    let policy = office.image().join("trust.policy");
    let text = fs::read_to_string(&policy).unwrap();
    fs::write(&policy, text.replace("quorum enough", "quorum lab")).unwrap();
    let _server = office.start().unwrap();
    let alone = enrol(&last);
    let words = "too few of the policy's witnesses have cosigned the checkpoint";
    refused(&alone, exit::UNAVAILABLE, &[words]).unwrap();
}

/// A log as Sigsum names its own: by the hash of its key.
fn sigsum_log(key: &Vkey) -> LogSigner {
    let hash: String = key_id(&key.key)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    LogSigner::from_seed(&format!("sigsum.org/v1/tree/{hash}"), &[5; 32]).unwrap()
}

fn openssh(key: &[u8; 32]) -> String {
    let kind = b"ssh-ed25519";
    let mut blob = Vec::new();
    for part in [&kind[..], key] {
        blob.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
        blob.extend(part);
    }
    format!("ssh-ed25519 {} log\n", STANDARD.encode(blob))
}

#[test]
fn a_witness_of_another_hand_cosigns_what_continues_and_refuses_a_fork_as_ours_does() {
    let lab = Lab::for_test().unwrap();
    let peers = Peers::of_this_build().unwrap();
    let key = LogSigner::from_seed("any", &[5; 32]).unwrap();
    let log = sigsum_log(key.vkey());
    let sigsum = SigsumWitness::start(&lab, &peers, &openssh(&log.vkey().key)).unwrap();
    let vkey: Vkey = sigsum.vkey().parse().unwrap();
    let ours = Cosigner::from_seed("ngo.example/w1", &[6; 32]).unwrap();
    let logs = [log.vkey().clone()];
    let tree = |entries: &[u8]| {
        let mut tree = Tree::new();
        for entry in entries {
            tree.append(&[*entry]);
        }
        tree
    };
    let request = |old: u64, tree: &Tree| AddCheckpoint {
        old,
        proof: tree.consistency_proof(old, tree.size()).unwrap(),
        checkpoint: log.sign_checkpoint(tree.size(), tree.root()),
    };
    let (three, seven) = (tree(&[1, 2, 3]), tree(&[1, 2, 3, 4, 5, 6, 7]));

    for (old, tree) in [(0, &three), (3, &seven), (7, &seven)] {
        let asked = request(old, tree);
        let (status, lines) = sigsum.ask(&asked.to_string()).unwrap();
        assert_eq!(status, 200, "{lines}");
        let cosigned = asked.checkpoint.with_line_of(&vkey, &lines);
        assert!(cosigned.is_some(), "{lines}");
        let line = asked.cosignature(&ours, 1);
        assert!(asked.checkpoint.with_line_of(ours.vkey(), &line).is_some());
    }
    let last = request(7, &seven).checkpoint;
    let mut impostor = request(7, &tree(&[1, 2, 3, 4, 5, 6, 7, 8]));
    let origin = &log.vkey().name;
    let other_key = LogSigner::from_seed(origin, &[9; 32]).unwrap();
    impostor.checkpoint = other_key.sign_checkpoint(8, seven.root());
    for (refused, status) in [
        (request(3, &seven), 409),
        // Of one size the specification wants 409; its place in the history is as wrong.
        (request(7, &tree(&[1, 2, 3, 4, 5, 6, 8])), 422),
        (request(7, &tree(&[1, 2, 9, 4, 5, 6, 7, 8])), 422),
        (impostor, 403),
    ] {
        let (said, text) = sigsum.ask(&refused.to_string()).unwrap();
        assert_eq!(said, status, "{text}");
        let ours = refused.judge(&logs, Some(last.checkpoint()));
        assert!(ours.is_err());
    }
}
