//! What post-quantum packets have beyond classical ones: how their keys follow from X-Wing's secret or
//! from a ticket, and the control block before each answer. Sections of the draft: "Shared-Key
//! Derivation", "Query and Response Format", "Stateless Resumption".
//!
//! ```text
//! full      client-magic(8) ciphertext(1120) client-nonce(12) tag(16) sealed
//! resumed   "PQResume" ticket-len(2) ticket client-nonce(12) tag(16) sealed
//! answer    control-len(2) control DNS-message padding
//! control   "PQDR" 01 lifetime(4) ticket-len(2) ticket
//! ```

use hkdf::Hkdf;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::cert::{Certificate, ClientMagic, PQ_PROFILE};
use super::dropped::Dropped;
use super::seal::{HALF_NONCE, SharedKey};
use super::xwing::{CIPHERTEXT, KemSecret};

/// Bytes of a full query before its tag.
pub const FULL_HEADER: usize = 8 + CIPHERTEXT + HALF_NONCE;
/// Bytes of a resumed query before its tag, without the ticket.
pub const RESUMED_HEADER: usize = 8 + 2 + HALF_NONCE;
/// Bytes of an answer's control length.
pub(super) const CONTROL_LEN: usize = 2;
/// Bytes of a control block before its ticket.
pub(super) const CONTROL_HEAD: usize = 11;

const CONTROL_TYPE: [u8; 4] = *b"PQDR";
const CONTROL_VERSION: u8 = 1;
const CONTEXT: &[u8] = b"DNSCrypt-PQ-v1";
const RESUME_SECRET: &[u8] = b"DNSCrypt-PQ-resume-secret-v1";
const RESUMED_QUERY: &[u8] = b"DNSCrypt-PQ-resumed-query-v1";

/// The certificate that keys are bound to.
#[derive(Clone, Debug)]
pub(super) struct Binding {
    salt: [u8; 10],
    context: Vec<u8>,
}

impl Binding {
    pub(super) fn new(cert: &Certificate) -> Self {
        let es = cert.system.number().to_be_bytes();
        let mut salt = [0; 10];
        let (first, second) = salt.split_at_mut(es.len());
        first.copy_from_slice(&es);
        second.copy_from_slice(&cert.magic);
        let context = [CONTEXT, &es, &cert.minor.to_be_bytes(), &cert.signed_part()].concat();
        Self { salt, context }
    }

    /// The key of queries that carry a ciphertext.
    pub(super) fn full_key(&self, secret: &KemSecret, ciphertext: &[u8; CIPHERTEXT]) -> SharedKey {
        let info = [self.context.as_slice(), ciphertext.as_slice()];
        SharedKey::from_bytes(derive(&self.salt, secret, &info))
    }
}

/// What a ticket stands for. Erased when dropped.
pub(super) struct ResumeSecret(Zeroizing<[u8; 32]>);

impl ResumeSecret {
    /// The secret that goes with a ticket in the answer to a query, full or resumed.
    pub(super) fn of(
        shared: &SharedKey,
        magic: &ClientMagic,
        client_nonce: &[u8; HALF_NONCE],
    ) -> Self {
        let salt = resume_salt(magic, client_nonce);
        Self(derive(&salt, shared.bytes(), &[RESUME_SECRET]))
    }

    pub(super) fn from_bytes(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key of one query: its nonce is that of the query, fresh each time.
    pub(super) fn query_key(
        &self,
        magic: &ClientMagic,
        client_nonce: &[u8; HALF_NONCE],
        ticket: &[u8],
    ) -> SharedKey {
        let salt = resume_salt(magic, client_nonce);
        let info = [RESUMED_QUERY, &Sha256::digest(ticket)];
        SharedKey::from_bytes(derive(&salt, &self.0, &info))
    }
}

/// SHA-256 of the only extensions that a post-quantum certificate has.
pub(super) fn profile_hash() -> [u8; 32] {
    Sha256::digest(PQ_PROFILE).into()
}

fn resume_salt(magic: &ClientMagic, client_nonce: &[u8; HALF_NONCE]) -> [u8; 8 + HALF_NONCE] {
    let mut salt = [0; 8 + HALF_NONCE];
    let (first, second) = salt.split_at_mut(magic.len());
    first.copy_from_slice(magic);
    second.copy_from_slice(client_nonce);
    salt
}

fn derive(salt: &[u8], secret: &[u8; 32], info: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(Some(salt), secret)
        .expand_multi_info(info, key.as_mut())
        .expect("32 bytes are far below what HKDF-SHA256 gives");
    key
}

/// Writes the control block of a ticket, its length first.
pub(super) fn put_control(out: &mut Vec<u8>, lifetime_s: u32, ticket: &[u8]) {
    let ticket_len = u16::try_from(ticket.len()).unwrap_or_default();
    let head = u16::try_from(CONTROL_HEAD).unwrap_or_default();
    out.extend_from_slice(&(head + ticket_len).to_be_bytes());
    out.extend_from_slice(&CONTROL_TYPE);
    out.push(CONTROL_VERSION);
    out.extend_from_slice(&lifetime_s.to_be_bytes());
    out.extend_from_slice(&ticket_len.to_be_bytes());
    out.extend_from_slice(ticket);
}

/// A ticket on offer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Offer<'a> {
    pub(super) lifetime_s: u32,
    pub(super) ticket: &'a [u8],
}

/// Parts an authentic plaintext into what its control block offers and the DNS message.
pub(super) fn split_control(plain: &[u8]) -> Result<(Option<Offer<'_>>, &[u8]), Dropped> {
    let (len, rest) = plain.split_first_chunk().ok_or(Dropped::BadControl)?;
    // MUST, "Query and Response Format": a control block that leaves no message spoils the response.
    let (control, message) = rest
        .split_at_checked(usize::from(u16::from_be_bytes(*len)))
        .ok_or(Dropped::BadControl)?;
    Ok((read_control(control)?, message))
}

fn read_control(control: &[u8]) -> Result<Option<Offer<'_>>, Dropped> {
    // MUST, same section: other types and versions are skipped, and the answer is used.
    let Some(rest) = control.strip_prefix(&CONTROL_TYPE) else {
        return Ok(None);
    };
    let (version, rest) = rest.split_first().ok_or(Dropped::BadControl)?;
    if *version != CONTROL_VERSION {
        return Ok(None);
    }
    // MUST, "Ticket Issuance and Renewal": the length is exact, neither lifetime nor ticket is nothing.
    let (lifetime, rest) = rest.split_first_chunk().ok_or(Dropped::BadControl)?;
    let (len, ticket) = rest.split_first_chunk().ok_or(Dropped::BadControl)?;
    let lifetime_s = u32::from_be_bytes(*lifetime);
    let exact = usize::from(u16::from_be_bytes(*len)) == ticket.len();
    if !exact || ticket.is_empty() || lifetime_s == 0 {
        return Err(Dropped::BadControl);
    }
    Ok(Some(Offer { lifetime_s, ticket }))
}

#[cfg(test)]
mod tests;
