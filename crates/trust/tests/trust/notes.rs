//! Notes, verifier keys, checkpoints and proofs as text: every frame that is not exactly right.

use trust::{
    CheckpointError, Note, NoteError, Proof, ProofError, SignedCheckpoint, Vkey, VkeyError,
};

const NOTE: &str = include_str!("../../vectors/checkpoint.txt");
const PROOF: &str = include_str!("../../vectors/proof.txt");
const VKEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";

#[test]
fn a_note_that_is_not_framed_exactly_is_refused() {
    let dash = "\u{2014}";
    for (note, error) in [
        (String::new(), NoteError::NoText),
        ("text\n".to_owned(), NoteError::NoText),
        ("text\n\n".to_owned(), NoteError::NoSignature),
        (NOTE.trim_end().to_owned(), NoteError::NoSignature),
        (format!("{NOTE}\n"), NoteError::NoSignature),
        (NOTE.replace("7\n", "7\r\n"), NoteError::ControlCharacter),
        (NOTE.replace("7\n", "7\t\n"), NoteError::ControlCharacter),
        (NOTE.replace(dash, "-"), NoteError::SignatureLine),
        (
            NOTE.replace(&format!("{dash} "), dash),
            NoteError::SignatureLine,
        ),
        (format!("t\n\n{dash} name\n"), NoteError::SignatureLine),
        (format!("t\n\n{dash}  AAAAAAA=\n"), NoteError::SignatureLine),
        (
            format!("t\n\n{dash} a+b AAAAAAA=\n"),
            NoteError::SignatureLine,
        ),
        (
            format!("t\n\n{dash} a\u{2003}b AAAAAAA=\n"),
            NoteError::SignatureLine,
        ),
        (
            format!("t\n\n{dash} name AAAAAA==\n"),
            NoteError::SignatureLine,
        ),
        (
            format!("t\n\n{dash} name AAAAAAB=\n"),
            NoteError::SignatureLine,
        ),
        (
            format!("t\n\n{dash} name AAAAAAA= \n"),
            NoteError::SignatureLine,
        ),
        (
            format!("t\n\n{}", format!("{dash} n AAAAAAA=\n").repeat(65)),
            NoteError::TooManySignatures,
        ),
        ("x".repeat(40_000), NoteError::TooBig),
    ] {
        assert_eq!(
            Note::parse(&note),
            Err(error),
            "{:?}",
            &note[..note.len().min(80)]
        );
    }
}

#[test]
fn a_note_may_have_empty_lines_in_its_text() {
    let note = Note::parse("one\n\ntwo\n\n\u{2014} n AAAAAAA=\n").unwrap();

    assert_eq!(note.text(), "one\n\ntwo\n");
    assert_eq!(note.signatures()[0].bytes, [0]);
}

#[test]
fn a_verifier_key_with_any_part_wrong_is_refused() {
    let other = "AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2l";
    for (text, error) in [
        (String::new(), VkeyError::Shape),
        ("example.com/foo+530d903a".to_owned(), VkeyError::Shape),
        (VKEY.replace("530d903a", "530D903A"), VkeyError::IdFormat),
        (VKEY.replace("530d903a", "530d903"), VkeyError::IdFormat),
        (VKEY.replace("530d903a", "+30d903a"), VkeyError::IdFormat),
        (VKEY.replace("530d903a", "530d903b"), VkeyError::IdMismatch),
        (VKEY.replace("/foo", "/bar"), VkeyError::IdMismatch),
        (VKEY.replace("example.com/foo", ""), VkeyError::Name),
        (VKEY.replace("/foo", " foo"), VkeyError::Name),
        (
            VKEY.replace("AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", other),
            VkeyError::IdMismatch,
        ),
        (VKEY.replace("+Aeky", "+Aeky="), VkeyError::KeyFormat),
        (VKEY.replace("+Aeky", "+"), VkeyError::Algorithm(121)),
        (VKEY.replace("+Aeky", "+Beky"), VkeyError::Algorithm(5)),
        (format!("{VKEY}AAAA"), VkeyError::KeyFormat),
        (format!("{VKEY}\n"), VkeyError::KeyFormat),
    ] {
        assert_eq!(text.parse::<Vkey>(), Err(error), "{text}");
    }
}

#[test]
fn a_verifier_key_of_low_order_is_refused() {
    let mut identity = [0; 32];
    identity[0] = 1;

    assert_eq!(Vkey::new("n", 1, identity), Err(VkeyError::KeyPoint));
    assert_eq!(Vkey::new("n", 1, [0; 32]), Err(VkeyError::KeyPoint));
    assert_eq!(Vkey::new("n", 6, [0; 32]), Err(VkeyError::Algorithm(6)));
}

#[test]
fn a_checkpoint_with_any_line_wrong_is_refused() {
    let root = "pZsBhD7/+kfEC2GdCfsCFfpeFiactZeb7W+vzUz6UN4=";
    assert!(NOTE.contains(root));
    for (from, to, error) in [
        ("\n7\n", "\n", CheckpointError::Lines),
        ("\n7\n", "\n\n7\n", CheckpointError::Lines),
        ("\n7\n", "\n07\n", CheckpointError::Size),
        ("\n7\n", "\n-7\n", CheckpointError::Size),
        ("\n7\n", "\n7 \n", CheckpointError::Size),
        ("\n7\n", "\n9223372036854775808\n", CheckpointError::Size),
        (root, "AAAA", CheckpointError::Root),
        ("UN4=", "UN5=", CheckpointError::Root),
        ("culvert.example/fleet\n7", "\n7", CheckpointError::Lines),
    ] {
        let text = NOTE.replacen(from, to, 1);
        assert_eq!(
            SignedCheckpoint::parse(&text),
            Err(error),
            "{from:?} to {to:?}"
        );
    }
}

#[test]
fn a_checkpoint_may_have_extension_lines() {
    let text = NOTE.replacen("UN4=\n", "UN4=\nsomething more\n", 1);

    let parsed = SignedCheckpoint::parse(&text).unwrap();

    assert_eq!(parsed.checkpoint().size, 7);
    assert_eq!(parsed.text(), text);
}

#[test]
fn a_proof_with_any_line_wrong_is_refused() {
    for (from, to) in [
        ("c2sp.org/tlog-proof@v1", "c2sp.org/tlog-proof@v2"),
        ("c2sp.org", " c2sp.org"),
        ("index 4\n", ""),
        ("index 4", "index 04"),
        ("index 4", "index  4"),
        ("index 4", "index 4\nextra AAAA"),
        ("index 4", "extra AAA\nindex 4"),
        ("index 4", "extra \nextra \nindex 4"),
        ("index 4", "index 4\nAAAA"),
        ("lWE=", "lWF="),
    ] {
        let text = PROOF.replacen(from, to, 1);
        assert_ne!(text, PROOF);
        assert_eq!(
            Proof::parse(&text),
            Err(ProofError::Shape),
            "{from:?} to {to:?}"
        );
    }
    let longer = "A".repeat(43) + "=\n";
    let text = PROOF.replacen("index 4\n", &format!("index 4\n{}", longer.repeat(65)), 1);
    assert_eq!(Proof::parse(&text), Err(ProofError::Shape));
    let text = PROOF.to_owned() + &" ".repeat(40_000);
    assert_eq!(Proof::parse(&text), Err(ProofError::TooBig));
}

#[test]
fn extra_data_of_a_proof_is_kept() {
    let text = PROOF.replacen("index 4", "extra AAAA\nindex 4", 1);

    let proof = Proof::parse(&text).unwrap();

    assert_eq!(proof.extra, Some(vec![0; 3]));
    assert_eq!(proof.format(), text);
}
