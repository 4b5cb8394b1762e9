//! Resumption tickets, as their issuer sees them: sealed notes to itself, so that it keeps nothing of
//! a client. Section of the draft: "Stateless Resumption".
//!
//! ```text
//! ticket  key-id(4) nonce(24) tag(16) sealed(86)
//! sealed  resume-secret(32) es(2) client-magic(8) serial(4) cert-end(4) expiry(4) profile-hash(32)
//! ```
//! Gateways that share a certificate share these keys too, made ahead so that each of them has a key before any
//! of them issues under it: [`TicketKeys::made_ahead`], [`TicketKeys::to_secret_bytes`].

use std::sync::Arc;

use rand_core::{CryptoRng, RngCore};
use zeroize::Zeroizing;

use super::cert::{Certificate, ClientMagic, System};
use super::dropped::Dropped;
use super::pq::{ResumeSecret, profile_hash};
use super::seal::{NONCE, SharedKey, TAG};

/// Bytes of a ticket.
pub const TICKET: usize = SEALED_AT + SEALED;
/// How long a ticket is good for, at most.
pub const LIFETIME_S: u32 = 3600;
/// How long a key issues tickets. It is accepted for one lifetime more, then erased.
pub const KEY_ISSUES_S: u32 = 4 * 3600;
/// A key that was made ahead is accepted this long before it issues: others' clocks may be ahead.
pub const KNOWN_AHEAD_S: u32 = 3600;
/// Keys kept at one time, at most: one that issues, one that retires, one to come, likewise of others, and of
/// clocks set about.
pub const MAX_KEYS: usize = 6;

const ID: usize = 4;
const SEALED_AT: usize = ID + NONCE + TAG;
const SEALED: usize = 86;
const KEY_RECORD: usize = ID + 32 + 4 + 4 + 4;

struct TicketKey {
    id: [u8; ID],
    // A key of its own: nothing that is kept longer says anything about it.
    key: SharedKey,
    issues_from: u32,
    issues_until: u32,
    accepted_until: u32,
}

/// The keys under which tickets are sealed, the newest first. Erased when dropped.
#[derive(Default)]
pub struct TicketKeys {
    keys: Vec<Arc<TicketKey>>,
}

/// The bytes are no ticket keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are no ticket keys")]
pub struct BadTicketKeys;

/// The certificate that a ticket belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TicketCert {
    pub(super) magic: ClientMagic,
    pub(super) serial: u32,
    pub(super) end: u32,
}

impl TicketCert {
    pub(super) fn of(cert: &Certificate) -> Self {
        Self {
            magic: cert.magic,
            serial: cert.serial,
            end: cert.end,
        }
    }
}

/// A ticket that was ours and is not over.
pub(super) struct OpenTicket {
    pub(super) secret: ResumeSecret,
    pub(super) cert: TicketCert,
    pub(super) expiry: u32,
}

impl TicketKeys {
    /// The keys for this moment: those that are over are left out, and a new one is made when none issues
    /// any more. `None` when these are still right.
    pub fn renewed(&self, mut rng: impl RngCore + CryptoRng, now: u64) -> Option<Self> {
        let now = unix32(now);
        let mut keys: Vec<_> = self
            .keys
            .iter()
            .filter(|key| now <= key.accepted_until)
            .cloned()
            .collect();
        // A clock that was set back leaves keys of the future: they are no reason to wait.
        let due = !keys.iter().any(|key| key.issues_at(now));
        if !due && keys.len() == self.keys.len() {
            return None;
        }
        if due {
            let mut key = TicketKey::new(&mut rng, now);
            while keys.iter().any(|other| key.id == other.id) {
                key = TicketKey::new(&mut rng, now);
            }
            keys.insert(0, Arc::new(key));
            keys.truncate(MAX_KEYS);
        }
        Some(Self { keys })
    }

    /// A key that issues from a moment on, for all gateways of a site.
    #[must_use]
    pub fn made_ahead(mut rng: impl RngCore + CryptoRng, from: u32) -> Self {
        let key = TicketKey::new(&mut rng, from);
        Self {
            keys: vec![Arc::new(key)],
        }
    }

    /// These keys, and behind them the others that are not among them.
    #[must_use]
    pub fn and(mut self, others: &Self) -> Self {
        for other in &others.keys {
            if self.keys.len() < MAX_KEYS && self.keys.iter().all(|key| key.id != other.id) {
                self.keys.push(Arc::clone(other));
            }
        }
        self
    }

    /// Those that are of use at a moment: to accept, or to issue before long.
    #[must_use]
    pub fn of_use(mut self, now: u64) -> Self {
        let now = unix32(now);
        self.keys.retain(|key| {
            key.issues_from <= now.saturating_add(KNOWN_AHEAD_S) && now <= key.accepted_until
        });
        self
    }

    /// The last moment, if there is a key, at which one is accepted.
    #[must_use]
    pub fn accepted_until(&self) -> Option<u32> {
        self.keys.iter().map(|key| key.accepted_until).max()
    }

    /// When the last of them ceases to issue.
    #[must_use]
    pub fn issues_until(&self) -> Option<u32> {
        self.keys.iter().map(|key| key.issues_until).max()
    }

    /// Whether both are the same keys in the same order.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        let ids = |keys: &Self| keys.keys.iter().map(|key| key.id).collect::<Vec<_>>();
        ids(self) == ids(other)
    }

    /// When [`renewed`](Self::renewed) has something to do; 0 means at once.
    #[must_use]
    pub fn due(&self, now: u64) -> u64 {
        let now = unix32(now);
        let mut issuing = self.keys.iter().filter(|key| key.issues_at(now));
        let issuing = issuing.next().map_or(0, |key| key.issues_until);
        let erasing = self
            .keys
            .iter()
            .map(|key| key.accepted_until.saturating_add(1));
        u64::from(erasing.chain([issuing]).min().unwrap_or(0))
    }

    /// All keys, for the other gateways of a site, over a channel that only they can read.
    #[must_use]
    pub fn to_secret_bytes(&self) -> Zeroizing<Vec<u8>> {
        // Whole capacity at once: growing would leave copies of the secrets behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(self.keys.len() * KEY_RECORD));
        for key in &self.keys {
            bytes.extend_from_slice(&key.id);
            bytes.extend_from_slice(key.key.bytes());
            bytes.extend_from_slice(&key.issues_from.to_be_bytes());
            bytes.extend_from_slice(&key.issues_until.to_be_bytes());
            bytes.extend_from_slice(&key.accepted_until.to_be_bytes());
        }
        bytes
    }

    /// Reads what another gateway wrote.
    pub fn from_secret_bytes(bytes: &[u8]) -> Result<Self, BadTicketKeys> {
        let (records, rest) = bytes.as_chunks::<KEY_RECORD>();
        if !rest.is_empty() || records.len() > MAX_KEYS {
            return Err(BadTicketKeys);
        }
        let mut keys: Vec<Arc<TicketKey>> = Vec::with_capacity(records.len());
        for record in records {
            let key = TicketKey::read(record).ok_or(BadTicketKeys)?;
            let issues = key.issues_until.checked_sub(key.issues_from);
            let overlap = key.accepted_until.checked_sub(key.issues_until);
            let doubled = keys.iter().any(|other| other.id == key.id);
            let within = |span: Option<u32>, most| span.is_some_and(|span| span <= most);
            if doubled || !within(issues, KEY_ISSUES_S) || !within(overlap, LIFETIME_S) {
                return Err(BadTicketKeys);
            }
            keys.push(Arc::new(key));
        }
        Ok(Self { keys })
    }

    /// A ticket and its lifetime, if one can be given at this moment.
    pub(super) fn issue(
        &self,
        secret: &ResumeSecret,
        cert: TicketCert,
        mut rng: impl RngCore + CryptoRng,
        now: u64,
    ) -> Option<(u32, [u8; TICKET])> {
        let now = unix32(now);
        let key = self.keys.iter().find(|key| key.issues_at(now))?;
        // MUST NOT, "Ticket Issuance and Renewal": outlive the certificate or the ticket key.
        let lifetime_s = LIFETIME_S
            .min(cert.end.saturating_sub(now))
            .min(key.accepted_until.saturating_sub(now));
        if lifetime_s == 0 {
            return None;
        }
        let mut nonce = [0; NONCE];
        rng.fill_bytes(&mut nonce);
        Some((
            lifetime_s,
            key.seal(secret, cert, now + lifetime_s, &nonce)?,
        ))
    }

    /// Whether a ticket should be replaced though it still serves.
    pub(super) fn wants_renewal(&self, expiry: u32, now: u64) -> bool {
        u64::from(expiry).saturating_sub(now) < u64::from(LIFETIME_S / 2)
    }

    /// Opens a ticket. Each refusal has its own reason and none is told to the sender.
    // MUST, "Resumed Queries": seal and expiry first; the caller compares the certificate.
    pub(super) fn open(&self, ticket: &[u8], now: u64) -> Result<OpenTicket, Dropped> {
        if ticket.len() != TICKET {
            return Err(Dropped::BadTicket);
        }
        let (id, rest) = ticket.split_first_chunk().ok_or(Dropped::BadTicket)?;
        let key = self
            .keys
            .iter()
            .find(|key| key.id == *id && now <= u64::from(key.accepted_until))
            .ok_or(Dropped::UnknownTicketKey)?;
        let (nonce, rest) = rest.split_first_chunk().ok_or(Dropped::BadTicket)?;
        let (tag, sealed) = rest.split_first_chunk().ok_or(Dropped::BadTicket)?;
        let mut plain = Zeroizing::new([0; SEALED]);
        plain.copy_from_slice(sealed);
        key.key
            .open(nonce, tag, plain.as_mut())
            .map_err(|_| Dropped::BadTicket)?;
        let (open, es, profile) = read_sealed(plain.as_slice()).ok_or(Dropped::BadTicket)?;
        if u64::from(open.expiry) < now {
            return Err(Dropped::ExpiredTicket);
        }
        if es != System::XWing.number() || profile != profile_hash() {
            return Err(Dropped::TicketOfOtherCert);
        }
        Ok(open)
    }
}

impl std::fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TicketKeys({})", self.keys.len())
    }
}

impl TicketKey {
    fn new(rng: &mut (impl RngCore + CryptoRng), from: u32) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        rng.fill_bytes(secret.as_mut());
        let mut id = [0; ID];
        while id == [0; ID] {
            rng.fill_bytes(&mut id);
        }
        let issues_until = from.saturating_add(KEY_ISSUES_S);
        Self {
            id,
            key: SharedKey::from_bytes(secret),
            issues_from: from,
            issues_until,
            accepted_until: issues_until.saturating_add(LIFETIME_S),
        }
    }

    fn issues_at(&self, now: u32) -> bool {
        (self.issues_from..self.issues_until).contains(&now)
    }

    fn read(record: &[u8]) -> Option<Self> {
        let (id, rest) = record.split_first_chunk()?;
        let (secret, rest) = rest.split_first_chunk::<32>()?;
        let (issues_from, rest) = rest.split_first_chunk()?;
        let (issues_until, rest) = rest.split_first_chunk()?;
        let accepted_until = rest.first_chunk()?;
        Some(Self {
            id: *id,
            key: SharedKey::from_bytes(Zeroizing::new(*secret)),
            issues_from: u32::from_be_bytes(*issues_from),
            issues_until: u32::from_be_bytes(*issues_until),
            accepted_until: u32::from_be_bytes(*accepted_until),
        })
    }

    fn seal(
        &self,
        secret: &ResumeSecret,
        cert: TicketCert,
        expiry: u32,
        nonce: &[u8; NONCE],
    ) -> Option<[u8; TICKET]> {
        let mut ticket = [0; TICKET];
        let mut plain = ticket.get_mut(SEALED_AT..)?;
        for field in [
            &secret.bytes()[..],
            &System::XWing.number().to_be_bytes(),
            &cert.magic,
            &cert.serial.to_be_bytes(),
            &cert.end.to_be_bytes(),
            &expiry.to_be_bytes(),
            &profile_hash(),
        ] {
            let (place, rest) = plain.split_at_mut_checked(field.len())?;
            place.copy_from_slice(field);
            plain = rest;
        }
        let tag = self.key.seal(nonce, ticket.get_mut(SEALED_AT..)?);
        let head = ticket.first_chunk_mut::<SEALED_AT>()?;
        let (id, rest) = head.split_first_chunk_mut::<ID>()?;
        *id = self.id;
        let (nonce_at, tag_at) = rest.split_at_mut(NONCE);
        nonce_at.copy_from_slice(nonce);
        tag_at.copy_from_slice(&tag);
        Some(ticket)
    }
}

fn read_sealed(plain: &[u8]) -> Option<(OpenTicket, u16, [u8; 32])> {
    let (secret, rest) = plain.split_first_chunk::<32>()?;
    let (es, rest) = rest.split_first_chunk()?;
    let (magic, rest) = rest.split_first_chunk()?;
    let (serial, rest) = rest.split_first_chunk()?;
    let (end, rest) = rest.split_first_chunk()?;
    let (expiry, profile) = rest.split_first_chunk()?;
    let open = OpenTicket {
        secret: ResumeSecret::from_bytes(Zeroizing::new(*secret)),
        cert: TicketCert {
            magic: *magic,
            serial: u32::from_be_bytes(*serial),
            end: u32::from_be_bytes(*end),
        },
        expiry: u32::from_be_bytes(*expiry),
    };
    Some((open, u16::from_be_bytes(*es), profile.try_into().ok()?))
}

fn unix32(now: u64) -> u32 {
    u32::try_from(now).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
