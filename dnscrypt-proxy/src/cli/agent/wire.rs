//! The messages of the ssh agent protocol that a signature by an Ed25519 key takes: pure, no socket.
//!
//! ```text
//! length(4)  type(1)  contents        a string is length(4) bytes; all numbers are big-endian
//! ```
//! Formats: draft-ietf-sshm-ssh-agent, sections "Requesting a list of keys" and "Private key operations"; RFC 8709 for the key.

use ed25519_dalek::VerifyingKey;
use thiserror::Error;

/// No agent's answer is longer; OpenSSH's own programs take no more.
pub(super) const MAX_ANSWER: u32 = 256 * 1024;

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

const ED25519: &[u8] = b"ssh-ed25519";
const NO_FLAGS: u32 = 0;

/// Why an answer is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(in crate::cli) enum BadAnswer {
    /// The agent said that it failed, which is all that the protocol can say.
    #[error("it refused")]
    Refused,
    /// It is not what was asked for, or its lengths do not add up.
    #[error("its answer is none of the ssh agent protocol")]
    Malformed,
    /// It signed in another way.
    #[error("its signature is no Ed25519 signature")]
    OtherAlgorithm,
}

/// An Ed25519 key that an agent has.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli) struct Identity {
    pub(in crate::cli) key: [u8; 32],
    /// What its owner, or the agent, calls it; nothing in it moves a terminal's cursor.
    pub(in crate::cli) comment: String,
}

pub(super) fn request_identities() -> Vec<u8> {
    framed(REQUEST_IDENTITIES, &[])
}

pub(super) fn sign_request(key: &VerifyingKey, message: &[u8]) -> Vec<u8> {
    let key = [string(ED25519), string(key.as_bytes())].concat();
    let flags = NO_FLAGS.to_be_bytes().to_vec();
    framed(
        SIGN_REQUEST,
        &[string(&key), string(message), flags].concat(),
    )
}

/// The Ed25519 keys of an answer; other kinds are passed over, FIDO keys too: what those sign is not the message.
pub(super) fn identities(answer: &[u8]) -> Result<Vec<Identity>, BadAnswer> {
    let mut rest = contents(answer, IDENTITIES_ANSWER)?;
    let count = number(&mut rest)?;
    let mut found = Vec::new();
    for _ in 0..count {
        let (key, comment) = (take(&mut rest)?, take(&mut rest)?);
        if let Some(key) = ed25519(key) {
            let comment = String::from_utf8_lossy(comment);
            let comment = comment.chars().filter(|c| !c.is_control()).collect();
            found.push(Identity { key, comment });
        }
    }
    nothing_more(rest)?;
    Ok(found)
}

pub(super) fn signature(answer: &[u8]) -> Result<[u8; 64], BadAnswer> {
    let mut rest = contents(answer, SIGN_RESPONSE)?;
    let mut blob = take(&mut rest)?;
    nothing_more(rest)?;
    if take(&mut blob)? != ED25519 {
        return Err(BadAnswer::OtherAlgorithm);
    }
    let signature = take(&mut blob)?;
    nothing_more(blob)?;
    signature.try_into().map_err(|_| BadAnswer::Malformed)
}

fn ed25519(mut key: &[u8]) -> Option<[u8; 32]> {
    let kind = take(&mut key).ok()?;
    let point = take(&mut key).ok()?;
    let is_one = kind == ED25519 && key.is_empty();
    is_one.then(|| point.try_into().ok()).flatten()
}

/// What stands behind the type that was asked for.
fn contents(answer: &[u8], wanted: u8) -> Result<&[u8], BadAnswer> {
    match answer.split_first() {
        Some((&kind, rest)) if kind == wanted => Ok(rest),
        Some((&FAILURE, _)) => Err(BadAnswer::Refused),
        Some(_) | None => Err(BadAnswer::Malformed),
    }
}

fn framed(kind: u8, contents: &[u8]) -> Vec<u8> {
    string(&[&[kind], contents].concat())
}

fn string(bytes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(bytes.len()).expect("a key and a certificate are some kilobytes");
    [&len.to_be_bytes(), bytes].concat()
}

fn take<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], BadAnswer> {
    let len = usize::try_from(number(rest)?).map_err(|_| BadAnswer::Malformed)?;
    let (bytes, after) = rest.split_at_checked(len).ok_or(BadAnswer::Malformed)?;
    *rest = after;
    Ok(bytes)
}

fn number(rest: &mut &[u8]) -> Result<u32, BadAnswer> {
    let (bytes, after) = rest.split_first_chunk().ok_or(BadAnswer::Malformed)?;
    *rest = after;
    Ok(u32::from_be_bytes(*bytes))
}

fn nothing_more(rest: &[u8]) -> Result<(), BadAnswer> {
    rest.is_empty().then_some(()).ok_or(BadAnswer::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: [u8; 32] = [0x11; 32];

    fn answer(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
        [&[kind], parts.concat().as_slice()].concat()
    }

    fn key_blob(kind: &[u8]) -> Vec<u8> {
        string(&[string(kind), string(&KEY)].concat())
    }

    fn signed(kind: &[u8], signature: &[u8]) -> Vec<u8> {
        let blob = [string(kind), string(signature)].concat();
        answer(SIGN_RESPONSE, &[&string(&blob)])
    }

    fn listed(count: u32) -> Vec<u8> {
        let fido = [
            string(b"sk-ssh-ed25519@openssh.com"),
            string(&KEY),
            string(b"ssh:"),
        ];
        let parts = [
            count.to_be_bytes().to_vec(),
            string(&fido.concat()),
            string(b"a FIDO key"),
            key_blob(ED25519),
            string(b"provider\x1b[2J"),
        ];
        answer(IDENTITIES_ANSWER, &[&parts.concat()])
    }

    #[test]
    fn an_answer_that_is_cut_or_goes_on_is_refused_at_every_byte() {
        for whole in [listed(2), signed(ED25519, &[7; 64])] {
            let is_bad = |bytes: &[u8]| {
                let both = (identities(bytes).err(), signature(bytes).err());
                both.0.is_some() && both.1.is_some()
            };
            assert!((0..whole.len()).all(|len| is_bad(&whole[..len])));
            assert!(is_bad(&[&whole[..], &[0]].concat()));
        }
    }

    #[test]
    fn lengths_and_counts_that_lie_are_refused() {
        let huge = [&[SIGN_RESPONSE][..], &[0xff; 4]].concat();

        assert_eq!(signature(&huge), Err(BadAnswer::Malformed));
        for count in [0, 1, 3, u32::MAX] {
            assert_eq!(identities(&listed(count)), Err(BadAnswer::Malformed));
        }
        for len in [0, 63, 65] {
            let bytes = signed(ED25519, &vec![7; len]);
            assert_eq!(signature(&bytes), Err(BadAnswer::Malformed), "{len}");
        }
    }

    #[test]
    fn a_refusal_another_algorithm_and_another_answer_are_told_apart() {
        assert_eq!(signature(&[FAILURE]), Err(BadAnswer::Refused));
        assert_eq!(identities(&[FAILURE]), Err(BadAnswer::Refused));
        let rsa = signed(b"rsa-sha2-256", &[7; 64]);
        assert_eq!(signature(&rsa), Err(BadAnswer::OtherAlgorithm));
        assert_eq!(signature(&listed(2)), Err(BadAnswer::Malformed));
    }

    #[test]
    fn keys_are_found_among_others_and_their_comments_move_no_cursor() {
        let found = identities(&listed(2)).unwrap();

        let comment = "provider[2J".to_owned();
        assert_eq!(found, [Identity { key: KEY, comment }]);
        assert_eq!(signature(&signed(ED25519, &[7; 64])), Ok([7; 64]));
    }

    #[test]
    fn a_request_has_key_message_and_no_flags() {
        let key = VerifyingKey::from_bytes(&[0; 32]).unwrap();

        let request = sign_request(&key, b"DNSC");

        let body = [&[SIGN_REQUEST][..], &[0, 0, 0, 51, 0, 0, 0, 11], ED25519];
        let tail = [&[0, 0, 0, 32][..], &[0; 32], b"\0\0\0\x04DNSC", &[0; 4]];
        let body = [body.concat(), tail.concat()].concat();
        assert_eq!(request, string(&body));
        assert_eq!(request_identities(), [0, 0, 0, 1, 11]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 12u8..15) {
            let bytes = [&[kind][..], &bytes].concat();
            prop_assert!(identities(&bytes).is_err() || bytes.len() >= 5);
            prop_assert!(signature(&bytes).is_err() || bytes.len() == 88);
        }
    }
}
