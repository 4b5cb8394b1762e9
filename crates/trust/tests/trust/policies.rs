//! Policies: each mistake by its line, and which signatures make a checkpoint believed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer, SigningKey};
use trust::policy::PolicyProblem;
use trust::{
    Cosigner, LogSigner, MerkleError, PartyProblem, Policy, Proof, ProofError, SignedCheckpoint,
    Sworn, Tree,
};

#[test]
fn a_line_of_wrong_words_is_named() {
    let too_long = "#".repeat(9000);
    let log_line = format!("log {} u v\n", log(1).vkey());

    for (text, problem) in [
        ("quorum\n", PolicyProblem::WordCount("quorum")),
        ("quorum a b\n", PolicyProblem::WordCount("quorum")),
        ("log\n", PolicyProblem::WordCount("log")),
        (&log_line, PolicyProblem::WordCount("log")),
        ("witness a\n", PolicyProblem::WordCount("witness")),
        ("group g any\n", PolicyProblem::WordCount("group")),
        ("Quorum none\n", PolicyProblem::UnknownWord),
        ("quorum none\r\n", PolicyProblem::ControlCharacter),
        ("#\u{7f}\nquorum none", PolicyProblem::ControlCharacter),
        (&too_long, PolicyProblem::LineTooLong),
    ] {
        refuses(text, 1, &problem);
    }
}

#[test]
fn a_policy_without_exactly_one_quorum_is_refused() {
    refuses("", 0, &PolicyProblem::OneQuorum);
    refuses("# quorum none\n", 0, &PolicyProblem::OneQuorum);
    refuses("quorum none\nquorum none\n", 2, &PolicyProblem::OneQuorum);
    refuses(
        "quorum a\n",
        1,
        &PolicyProblem::Party(PartyProblem::UnknownName),
    );
}

#[test]
fn keys_of_the_wrong_type_or_in_two_lines_are_refused() {
    let (log, a, b) = (log(1).vkey().to_string(), vkey(2), vkey(3));
    let wrong_type = |what, needed, got| PolicyProblem::KeyType { what, needed, got };
    let (taken, twice) = (
        PolicyProblem::Party(PartyProblem::NameTaken),
        PolicyProblem::DuplicateKey,
    );

    refuses(&format!("log {a}\n"), 1, &wrong_type("log", 1, 4));
    refuses(
        &format!("witness a {log}\n"),
        1,
        &wrong_type("witness", 4, 1),
    );
    refuses(&format!("log {log}\nlog {log} u\n"), 2, &twice);
    refuses(&format!("witness a {a}\nwitness b {a}\n"), 2, &twice);
    refuses(&format!("witness a {a}\nwitness a {b}\n"), 2, &taken);
    refuses(&format!("witness none {a}\n"), 1, &taken);
}

#[test]
fn a_group_that_cannot_be_is_refused() {
    let two = format!("witness a {}\nwitness b {}\n", vkey(2), vkey(3));

    for (group, line, problem) in [
        (
            "group g 0 a b",
            3,
            PolicyProblem::Party(PartyProblem::Threshold),
        ),
        (
            "group g 3 a b",
            3,
            PolicyProblem::Party(PartyProblem::Threshold),
        ),
        (
            "group g 02 a b",
            3,
            PolicyProblem::Party(PartyProblem::Threshold),
        ),
        (
            "group g some a b",
            3,
            PolicyProblem::Party(PartyProblem::Threshold),
        ),
        (
            "group g any a a",
            3,
            PolicyProblem::Party(PartyProblem::MemberTwice),
        ),
        (
            "group g any a\ngroup h any a",
            4,
            PolicyProblem::Party(PartyProblem::MemberTwice),
        ),
        (
            "group g any g",
            3,
            PolicyProblem::Party(PartyProblem::UnknownName),
        ),
        (
            "group g any none",
            3,
            PolicyProblem::Party(PartyProblem::UnknownName),
        ),
        (
            "group a any b",
            3,
            PolicyProblem::Party(PartyProblem::NameTaken),
        ),
    ] {
        refuses(&format!("{two}{group}\n"), line, &problem);
    }
    refuses(
        &format!("group g any a\n{two}"),
        1,
        &PolicyProblem::Party(PartyProblem::UnknownName),
    );
}

#[test]
fn a_checkpoint_without_the_signature_of_its_log_is_refused() {
    let policy = policy("quorum none");
    let signed = log(1).sign_checkpoint(1, [0; 32]);
    let by_another = log(9).sign_checkpoint(1, [0; 32]);
    let elsewhere = LogSigner::from_seed("elsewhere", &[1; 32]).unwrap();

    let refused = policy.verify_checkpoint(&by_another);
    assert_eq!(refused, Err(ProofError::NotSignedByLog));
    let refused = policy.verify_checkpoint(&elsewhere.sign_checkpoint(1, [0; 32]));
    assert_eq!(refused, Err(ProofError::UnknownLog));

    assert_eq!(policy.verify_checkpoint(&signed), Ok(Sworn::default()));
}

#[test]
fn a_changed_checkpoint_is_refused_by_the_signature_of_the_log() {
    let policy = policy("quorum none");
    let text = log(1).sign_checkpoint(17, [0; 32]).text();
    let forged = SignedCheckpoint::parse(&text.replacen("\n17\n", "\n18\n", 1)).unwrap();

    let refused = policy.verify_checkpoint(&forged);

    assert_eq!(
        refused,
        Err(ProofError::BadSignature {
            name: "log.example".to_owned()
        })
    );
}

#[test]
fn a_bad_cosignature_of_a_known_witness_spoils_the_checkpoint() {
    let policy = policy("quorum w2");
    let signed = log(1).sign_checkpoint(17, [0; 32]);
    let other = log(1).sign_checkpoint(18, [0; 32]);
    let cosigned = witness(3).cosign(&witness(2).cosign(&other, 5), 5).text();
    let lines: Vec<&str> = cosigned.lines().skip(5).collect();
    let moved = SignedCheckpoint::parse(&format!("{signed}{}\n", lines[0])).unwrap();

    let refused = policy.verify_checkpoint(&witness(3).cosign(&moved, 5));

    assert_eq!(
        refused,
        Err(ProofError::BadSignature {
            name: "w2.example".to_owned()
        })
    );
}

#[test]
fn a_cosignature_with_another_time_written_over_is_refused() {
    let policy = policy("quorum w2");
    let signed = witness(2).cosign(&log(1).sign_checkpoint(1, [0; 32]), 1000);
    let later = witness(2).cosign(&log(1).sign_checkpoint(1, [0; 32]), 2000);
    let (last, last_later) = (line(&signed, 5), line(&later, 5));
    // The first 20 base64 symbols hold key id, the time, and three bytes of the signature.
    let start = last.len() - 104;
    let forged = signed
        .text()
        .replace(&last[start..start + 16], &last_later[start..start + 16]);
    assert_ne!(forged, signed.text());

    let refused = policy.verify_checkpoint(&SignedCheckpoint::parse(&forged).unwrap());

    assert_eq!(
        refused,
        Err(ProofError::BadSignature {
            name: "w2.example".to_owned()
        })
    );
}

#[test]
fn unknown_cosigners_are_ignored_even_under_a_known_name() {
    let policy = policy("quorum w2");
    let signed = log(1).sign_checkpoint(1, [0; 32]);
    let impostor = Cosigner::from_seed("w2.example", &[77; 32]).unwrap();
    let signed = impostor.cosign(&witness(55).cosign(&signed, 5), 5);

    assert_eq!(policy.verify_checkpoint(&signed), Err(ProofError::NoQuorum));
    assert_eq!(
        policy.verify_checkpoint(&witness(2).cosign(&signed, 6)),
        Ok(sworn(6, 6))
    );
}

#[test]
fn a_known_key_under_another_name_is_a_stranger() {
    let signed = witness(2).cosign(&log(1).sign_checkpoint(1, [0; 32]), 5);
    let renamed =
        SignedCheckpoint::parse(&signed.text().replace("w2.example", "w7.example")).unwrap();

    assert_eq!(
        policy("quorum w2").verify_checkpoint(&renamed),
        Err(ProofError::NoQuorum)
    );
}

#[test]
fn a_time_beyond_63_bits_is_refused_however_well_it_is_signed() {
    let signed = log(1).sign_checkpoint(1, [0; 32]);
    let time = 1_u64 << 63;
    let message = format!("cosignature/v1\ntime {time}\n{}", signed.note().text());
    let signature = SigningKey::from_bytes(&[2; 32])
        .sign(message.as_bytes())
        .to_bytes();
    let id = witness(2).vkey().key_id.to_be_bytes();
    let bytes = [id.as_slice(), &time.to_be_bytes(), &signature].concat();
    let line = format!("\u{2014} w2.example {}\n", STANDARD.encode(bytes));
    let late = SignedCheckpoint::parse(&(signed.text() + &line)).unwrap();

    let refused = policy("quorum w2").verify_checkpoint(&late);

    assert_eq!(
        refused,
        Err(ProofError::BadSignature {
            name: "w2.example".to_owned()
        })
    );
}

#[test]
fn groups_within_groups_are_counted() {
    let rule = "group x 2 w2 w3 w4\ngroup y any w5\ngroup z all x y\nquorum z";
    for (who, met) in [
        (vec![2, 3, 5], true),
        (vec![3, 4, 5], true),
        (vec![2, 3, 4, 5], true),
        (vec![2, 3, 4], false),
        (vec![2, 5], false),
        (vec![], false),
    ] {
        let mut signed = log(1).sign_checkpoint(1, [0; 32]);
        for seed in &who {
            signed = witness(*seed).cosign(&signed, 9);
        }
        let expected = if met {
            Ok(sworn(9, 9))
        } else {
            Err(ProofError::NoQuorum)
        };
        assert_eq!(policy(rule).verify_checkpoint(&signed), expected, "{who:?}");
    }
}

#[test]
fn the_times_are_those_that_fewer_than_a_quorum_cannot_push_either_way() {
    let mut signed = log(1).sign_checkpoint(1, [0; 32]);
    for (seed, time) in [(2, 100), (3, 300), (4, 200)] {
        signed = witness(seed).cosign(&signed, time);
    }

    for (rule, times) in [
        ("group x 2 w2 w3 w4\nquorum x", sworn(200, 200)),
        ("group x any w2 w3 w4\nquorum x", sworn(100, 300)),
        ("quorum w3", sworn(300, 300)),
        ("group x all w2 w3\nquorum x", sworn(300, 100)),
        ("group x all w2 w3 w4\nquorum x", sworn(300, 100)),
    ] {
        assert_eq!(policy(rule).verify_checkpoint(&signed), Ok(times), "{rule}");
    }
}

fn sworn(since: u64, reached: u64) -> Sworn {
    Sworn { since, reached }
}

#[test]
fn every_entry_of_a_small_log_is_proven_by_text_alone() {
    let policy = policy("quorum w2");
    let mut tree = Tree::new();
    for size in 1..=9_u8 {
        tree.append(&[size]);
        let signed = log(1).sign_checkpoint(tree.size(), tree.root());
        let checkpoint = witness(2).cosign(&signed, 5);
        for (index, entry) in (0..tree.size()).zip(1..) {
            let path = tree.inclusion_proof(index, tree.size()).unwrap();
            let checkpoint = checkpoint.clone();
            let text = Proof {
                extra: None,
                index,
                path,
                checkpoint,
            }
            .format();

            let logged = policy
                .verify_proof(&Proof::parse(&text).unwrap(), &[entry])
                .unwrap();

            assert_eq!(
                (logged.index, logged.size, logged.root),
                (index, tree.size(), tree.root())
            );
            let other = policy.verify_proof(&Proof::parse(&text).unwrap(), &[entry + 1]);
            assert_eq!(other, Err(ProofError::NotIncluded(MerkleError::Root)));
        }
    }
}

#[test]
fn the_largest_policy_that_the_specification_asks_for_is_read() {
    let mut text = String::from("\t # comment\n\n");
    for seed in 0..32 {
        text.push_str(&format!("log {} https://log.example\n", log(seed).vkey()));
        text.push_str(&format!(
            "  witness\tn{seed} {} https://w{seed}.example/  \n",
            witness(100 + seed).vkey()
        ));
        text.push_str(&format!("group g{seed} 1 n{seed}\n"));
    }

    let policy = Policy::parse(&(text + "quorum g31")).unwrap();

    assert_eq!((policy.logs().len(), policy.witnesses().count()), (32, 32));
    let (name, last) = policy.witnesses().last().unwrap();
    let url = Some("https://w31.example/");
    assert_eq!((name, last.url.as_deref()), ("n31", url));
}

#[track_caller]
fn refuses(text: &str, line: usize, problem: &PolicyProblem) {
    let error = Policy::parse(text).unwrap_err();
    assert_eq!((error.line, &error.problem), (line, problem), "{text}");
}

fn vkey(seed: u8) -> String {
    witness(seed).vkey().to_string()
}

fn log(seed: u8) -> LogSigner {
    LogSigner::from_seed("log.example", &[seed; 32]).unwrap()
}

fn witness(seed: u8) -> Cosigner {
    Cosigner::from_seed(&format!("w{seed}.example"), &[seed; 32]).unwrap()
}

/// A policy over log 1 and the witnesses 2 to 5.
fn policy(rule: &str) -> Policy {
    let mut text = format!("log {}\n", log(1).vkey());
    for seed in 2..=5 {
        text.push_str(&format!("witness w{seed} {}\n", witness(seed).vkey()));
    }
    Policy::parse(&(text + rule)).unwrap()
}

fn line(signed: &SignedCheckpoint, place: usize) -> String {
    signed.text().lines().nth(place).unwrap().to_owned()
}
