//! Signatures by people, made by OpenSSH (`vectors/make-ssh.sh`).

use proptest::prelude::*;
use trust::{SshKey, SshSig, SshSigError};

const MESSAGE: &[u8] = b"what is signed";
const PURPOSE: &str = "approve@culvert";

const FILE: (&str, &str) = (
    include_str!("../../vectors/ssh-file.pub"),
    include_str!("../../vectors/ssh-file.sig"),
);
const TOKEN: (&str, &str) = (
    include_str!("../../vectors/ssh-token.pub"),
    include_str!("../../vectors/ssh-token.sig"),
);
const UNTOUCHED: &str = include_str!("../../vectors/ssh-untouched.sig");

/// What is between the lines of an armoured signature.
fn blob(armor: &str) -> Vec<u8> {
    use base64::Engine as _;
    let lines: String = armor
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect();
    base64::engine::general_purpose::STANDARD
        .decode(lines)
        .unwrap()
}

#[test]
fn an_armour_is_written_as_openssh_writes_it() {
    for armor in [FILE.1, TOKEN.1, UNTOUCHED] {
        assert_eq!(SshSig::armor(&blob(armor)), armor);
    }
    assert_eq!(SshSig::dearmor(&SshSig::armor(&[7; 105])), Ok(vec![7; 105]));
}

#[test]
fn a_signature_without_a_touch_does_not_count() {
    let signature = SshSig::from_armor(UNTOUCHED).unwrap();

    let verified = signature.verify(PURPOSE, MESSAGE);

    assert_eq!(verified.unwrap_err(), SshSigError::NotTouched);
}

#[test]
fn a_touch_cannot_be_claimed_afterwards() {
    let mut bytes = blob(UNTOUCHED);
    // Flags and counter are the last five bytes.
    let flags = bytes.len() - 5;
    assert_eq!(bytes[flags], 0);
    bytes[flags] = 1;

    let verified = SshSig::from_bytes(&bytes).unwrap();

    assert_eq!(
        verified.verify(PURPOSE, MESSAGE).unwrap_err(),
        SshSigError::NotSigned
    );
}

#[test]
fn a_signature_for_another_purpose_or_other_bytes_does_not_count() {
    for (_, armor) in [FILE, TOKEN] {
        let signature = SshSig::from_armor(armor).unwrap();

        let other = signature.verify("reject@culvert", MESSAGE).unwrap_err();
        assert!(matches!(other, SshSigError::Namespace { .. }), "{other}");
        for message in [&b"what is signed "[..], b"", b"What is signed"] {
            let refused = signature.verify(PURPOSE, message).unwrap_err();
            assert_eq!(refused, SshSigError::NotSigned);
        }
    }
}

#[test]
fn what_openssh_signs_is_the_keys_own() {
    for (line, armor) in [FILE, TOKEN] {
        let key: SshKey = line.parse().unwrap();
        let signature = SshSig::from_armor(armor).unwrap();

        assert_eq!(signature.verify(PURPOSE, MESSAGE), Ok(&key));
        assert_eq!(key.to_string().parse(), Ok(key.clone()));
        assert!(line.starts_with(&key.to_string()), "{key}");
    }
}

#[test]
fn no_bit_of_a_signature_can_be_another_one() {
    for (_, armor) in [FILE, TOKEN] {
        let bytes = blob(armor);
        for place in 0..bytes.len() * 8 {
            let mut other = bytes.clone();
            other[place / 8] ^= 1 << (place % 8);
            let counts = SshSig::from_bytes(&other)
                .is_ok_and(|signature| signature.verify(PURPOSE, MESSAGE).is_ok());
            assert!(!counts, "bit {place}");
        }
    }
}

#[test]
fn what_is_cut_or_goes_on_is_no_signature() {
    for (_, armor) in [FILE, TOKEN] {
        let bytes = blob(armor);
        for len in 0..bytes.len() {
            assert!(SshSig::from_bytes(&bytes[..len]).is_err(), "{len}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(
            SshSig::from_bytes(&longer).unwrap_err(),
            SshSigError::Malformed
        );
    }
}

#[test]
fn text_that_is_no_armour_or_no_key_is_refused() {
    let (line, armor) = FILE;
    for text in [
        "",
        "-----BEGIN SSH SIGNATURE----------END SSH SIGNATURE-----",
        &armor.replace("SSH SIGNATURE", "PGP SIGNATURE"),
        &armor.replace("U1NIU0lH", "U1NI!0lH"),
        &armor.replace("-----END", ""),
        &"A".repeat(5_000),
    ] {
        assert!(SshSig::from_armor(text).is_err(), "{text}");
    }
    for text in [
        "",
        "ssh-ed25519",
        &line.replace("ssh-ed25519 ", "ssh-rsa "),
        &line.replace("ssh-ed25519 ", "sk-ssh-ed25519@openssh.com "),
        &line.replace("AAAAC3", "AAAAC4"),
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA weak",
    ] {
        assert!(text.parse::<SshKey>().is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let after_the_magic = [b"SSHSIG\0\0\0\x01", &bytes[..]].concat();
        for bytes in [bytes, after_the_magic] {
            if let Ok(signature) = SshSig::from_bytes(&bytes) {
                let _either = signature.verify(PURPOSE, MESSAGE);
            }
        }
    }
}
