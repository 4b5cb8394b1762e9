//! A witness: what it cosigns, and each lie by the status that tells of it.

use trust::{
    AddCheckpoint, AddCheckpointError, Checkpoint, Cosigner, LogSigner, MerkleError, NotCosigned,
    Policy, SignedCheckpoint, Tree, Vkey,
};

const ORIGIN: &str = "isp.example/fleet";
const NOW: u64 = 1_800_000_000;

fn signer() -> LogSigner {
    LogSigner::from_seed(ORIGIN, &[1; 32]).unwrap()
}

fn logs() -> Vec<Vkey> {
    let other = LogSigner::from_seed("isp.example/authority", &[2; 32]).unwrap();
    vec![other.vkey().clone(), signer().vkey().clone()]
}

/// A log of so many entries, of which one may be another.
fn tree(size: u8, other: Option<u8>) -> Tree {
    let mut tree = Tree::new();
    for n in 0..size {
        let entry = if other == Some(n) { [255] } else { [n] };
        tree.append(&entry);
    }
    tree
}

/// What the log sends that believes its witness to be at `old`.
fn request(old: u64, tree: &Tree) -> AddCheckpoint {
    AddCheckpoint {
        old,
        proof: tree.consistency_proof(old, tree.size()).unwrap(),
        checkpoint: signer().sign_checkpoint(tree.size(), tree.root()),
    }
}

fn head(tree: &Tree) -> Checkpoint {
    let signed = signer().sign_checkpoint(tree.size(), tree.root());
    signed.checkpoint().clone()
}

#[test]
fn a_head_of_a_log_that_is_not_known_or_that_the_log_has_not_signed_is_refused() {
    let tree = tree(5, None);
    let mut request = request(0, &tree);

    let stranger = LogSigner::from_seed("elsewhere.example/log", &[1; 32]).unwrap();
    request.checkpoint = stranger.sign_checkpoint(5, tree.root());
    let unknown = NotCosigned::UnknownLog("elsewhere.example/log".to_owned());
    assert_eq!(request.judge(&logs(), None), Err(unknown));

    let impostor = LogSigner::from_seed(ORIGIN, &[9; 32]).unwrap();
    request.checkpoint = impostor.sign_checkpoint(5, tree.root());
    assert_eq!(request.judge(&logs(), None), Err(NotCosigned::NotSigned));

    let signed = signer().sign_checkpoint(5, tree.root()).text();
    let moved = signed.replacen("\n5\n", "\n6\n", 1);
    request.checkpoint = SignedCheckpoint::parse(&moved).unwrap();
    assert_eq!(request.judge(&logs(), None), Err(NotCosigned::NotSigned));
}

#[test]
fn a_log_hears_at_which_size_its_witness_is_and_a_stranger_does_not() {
    let (before, now) = (tree(5, None), tree(9, None));
    let last = head(&before);

    for old in [0, 4, 6, 9] {
        let judged = request(old, &now).judge(&logs(), Some(&last));
        assert_eq!(judged, Err(NotCosigned::OtherSize(5)), "{old}");
    }
    assert_eq!(
        request(5, &now).judge(&logs(), None),
        Err(NotCosigned::OtherSize(0))
    );
    let mut backwards = request(5, &before);
    backwards.old = 6;
    let judged = backwards.judge(&logs(), Some(&last));
    assert_eq!(judged, Err(NotCosigned::Backwards));
    let judged = request(5, &now).judge(&[], Some(&last));
    assert!(matches!(judged, Err(NotCosigned::UnknownLog(_))));
}

#[test]
fn a_fork_a_rollback_and_a_proof_of_something_else_are_not_cosigned() {
    let before = tree(5, None);
    let last = head(&before);

    let same_size = request(5, &tree(5, Some(2)));
    let judged = same_size.judge(&logs(), Some(&last));
    assert_eq!(judged, Err(NotCosigned::Fork));

    let forked = request(5, &tree(9, Some(2)));
    let judged = forked.judge(&logs(), Some(&last));
    assert_eq!(judged, Err(NotCosigned::Inconsistent(MerkleError::Root)));

    let rolled_back = request(3, &tree(3, None));
    let judged = rolled_back.judge(&logs(), Some(&last));
    assert_eq!(judged, Err(NotCosigned::OtherSize(5)));

    let mut without_proof = request(5, &tree(9, None));
    without_proof.proof.pop();
    let judged = without_proof.judge(&logs(), Some(&last));
    assert_eq!(judged, Err(NotCosigned::Inconsistent(MerkleError::Length)));

    let mut too_much = request(0, &before);
    too_much.proof.push([0; 32]);
    let judged = too_much.judge(&logs(), None);
    assert_eq!(judged, Err(NotCosigned::Inconsistent(MerkleError::Length)));
}

#[test]
fn what_a_witness_answers_counts_for_those_who_trust_it() {
    let witness = Cosigner::from_seed("ngo.example/w1", &[7; 32]).unwrap();
    let mut last = None;

    for size in [0, 1, 5, 5, 9, 64, 200] {
        let tree = tree(size, None);
        let old = last.as_ref().map_or(0, |last: &Checkpoint| last.size);
        let sent = request(old, &tree).to_string();
        let request = AddCheckpoint::parse(sent.as_bytes()).unwrap();
        assert_eq!(request.judge(&logs(), last.as_ref()), Ok(()), "{size}");
        last = Some(head(&tree));

        let line = request.cosignature(&witness, NOW);
        let whole = request.checkpoint.text() + &line;
        let cosigned = SignedCheckpoint::parse(&whole).unwrap();
        let policy = format!(
            "log {}\nwitness w1 {}\nquorum w1\n",
            signer().vkey(),
            witness.vkey()
        );
        let sworn = Policy::parse(&policy).unwrap().verify_checkpoint(&cosigned);
        assert_eq!(sworn.unwrap().reached, NOW);
    }
}

#[test]
fn of_an_answer_a_log_takes_the_cosignature_of_the_witness_it_asked_and_nothing_else() {
    let tree = tree(5, None);
    let head = signer().sign_checkpoint(5, tree.root());
    let request = request(0, &tree);
    let witness = Cosigner::from_seed("ngo.example/w1", &[7; 32]).unwrap();
    let namesake = Cosigner::from_seed("ngo.example/w1", &[8; 32]).unwrap();
    let line = request.cosignature(&witness, NOW);
    let of_another = request.cosignature(&namesake, NOW);
    let of_another_head = {
        let mut request = request.clone();
        request.checkpoint = signer().sign_checkpoint(4, tree.root());
        request.cosignature(&witness, NOW)
    };
    let forged = of_another.replacen(
        &of_another[..of_another.len() - 100],
        &line[..line.len() - 100],
        1,
    );

    for lie in [
        "",
        "cosigned\n",
        line.trim_end(),
        &of_another,
        &of_another_head,
        &forged,
        &line.repeat(64),
    ] {
        assert_eq!(head.with_line_of(witness.vkey(), lie), None, "{lie}");
    }
    let much = [forged, of_another, line.clone()].concat();
    let taken = head.with_line_of(witness.vkey(), &much).unwrap();
    assert_eq!(taken.text(), head.text() + &line);
}

#[test]
fn what_is_no_request_is_named() {
    let good = request(3, &tree(5, None)).to_string();
    let parse = |text: &str| AddCheckpoint::parse(text.as_bytes()).unwrap_err();

    assert!(AddCheckpoint::parse(good.as_bytes()).is_ok());
    for bad in [
        "",
        "old 3\n",
        &good.replacen("old 3", "old 03", 1),
        &good.replacen("old", "new", 1),
    ] {
        assert_eq!(parse(bad), AddCheckpointError::Old, "{bad}");
    }
    let line = good.lines().nth(1).unwrap();
    let bad_line = good.replacen(line, &line[1..], 1);
    assert_eq!(parse(&bad_line), AddCheckpointError::Proof);
    let many = good.replacen(line, &[line; 64].join("\n"), 1);
    assert_eq!(parse(&many), AddCheckpointError::Proof);
    let long = good.clone() + &"x".repeat(20_000);
    assert_eq!(parse(&long), AddCheckpointError::NoText);
    assert_eq!(
        AddCheckpoint::parse(&[255; 40]),
        Err(AddCheckpointError::NoText)
    );
    let unsigned = good.split_once("\n\n").unwrap().0.to_owned() + "\n\nno checkpoint\n";
    assert!(matches!(
        parse(&unsigned),
        AddCheckpointError::Checkpoint(_)
    ));
}
