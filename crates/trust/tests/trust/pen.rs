//! Signatures as people's `ssh-keygen` makes them, by keys of which everybody knows the secret.

use ed25519_dalek::{Signer, SigningKey};
use sha2::{Digest, Sha512};
use trust::authority::namespace;
use trust::{Approval, Proposal, Verdict};

/// What ssh-keygen would make of an Ed25519 key in a file.
pub(crate) struct Pen(SigningKey);

pub(crate) fn pen(n: u8) -> Pen {
    Pen(SigningKey::from_bytes(&[n; 32]))
}

fn string(bytes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(bytes.len()).unwrap();
    [&len.to_be_bytes()[..], bytes].concat()
}

impl Pen {
    pub(crate) fn public(&self) -> Vec<u8> {
        let key = self.0.verifying_key();
        [string(b"ssh-ed25519"), string(key.as_bytes())].concat()
    }

    pub(crate) fn line(&self) -> String {
        use base64::Engine as _;
        let engine = base64::engine::general_purpose::STANDARD;
        format!("ssh-ed25519 {}", engine.encode(self.public()))
    }

    pub(crate) fn sshsig(&self, purpose: &str, message: &[u8]) -> Vec<u8> {
        let digest = Sha512::digest(message);
        let head = [string(purpose.as_bytes()), string(b""), string(b"sha512")].concat();
        let signed = [&b"SSHSIG"[..], &head, &string(&digest)].concat();
        let signature = string(&self.0.sign(&signed).to_bytes());
        let signature = [string(b"ssh-ed25519"), signature].concat();
        let public = string(&self.public());
        [
            &b"SSHSIG\0\0\0\x01"[..],
            &public,
            &head,
            &string(&signature),
        ]
        .concat()
    }

    pub(crate) fn says(&self, verdict: Verdict, person: &str, proposal: &[u8]) -> Approval {
        let kind = Proposal::from_bytes(proposal).unwrap().kind;
        Approval {
            proposal_id: Proposal::id(proposal),
            verdict,
            person: person.to_owned(),
            sshsig: self.sshsig(&namespace(verdict, kind), proposal),
        }
    }
}
