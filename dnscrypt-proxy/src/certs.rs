//! The server's certificates: made here from a provider key, or made elsewhere and laid into a directory.
//!
//! With a provider key on the machine, short-term keys live in memory only: new ones every few hours, a
//! classical and a post-quantum one that have nothing to do with each other, the old ones kept until
//! their certificates end. Without it, `culvert-dns cert sign` prepares a series of
//! certificates on another machine; here they are taken up when their time comes and erased when it is over.
//! Ticket keys come from the directory too, so that gateways with the same certificates have the same ones; where
//! there are none they are made here, and never written down.

mod directory;
mod provider;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::{Signer as _, SigningKey};
use rand_core::{OsRng, RngCore as _};
use thiserror::Error;
use tokio::sync::watch;
use x25519_dalek::{PublicKey, StaticSecret};

pub use directory::{DirectoryError, Series, write_series};
#[cfg(feature = "cli")]
pub(crate) use directory::{SeriesError, write_series_signed_by};
pub use provider::{ProviderKeyError, create_provider_key, read_provider_key};
#[cfg(feature = "cli")]
pub(crate) use provider::{hex, unhex};

use crate::clock::Clock;
use crate::proto::cert::{Certificate, ClientMagic, System, magic_is_acceptable};
use crate::proto::server::{Keyring, ResolverKey};
use crate::proto::tickets::TicketKeys;
use crate::proto::xwing::XWingSecret;
use directory::Directory;

// MUST, "Key Management".
/// The protocol's bound on the life of a short-term key.
pub const MAX_KEY_LIFE_S: u32 = 24 * 3600;
/// The longest sleep between two looks at the clock: it may be set while we sleep.
const LONGEST_SLEEP: Duration = Duration::from_secs(600);
/// A directory is looked at at least this often: something may have been added.
const LOOK: Duration = Duration::from_secs(60);
/// The pause after a failed look at the directory.
const RETRY: Duration = Duration::from_secs(60);

/// When keys are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// A new key is made this often.
    pub every_s: u32,
    /// A key is accepted for this long after the next one was made.
    pub overlap_s: u32,
    /// A certificate begins this long before it was made: clients' clocks may be behind.
    pub backdated_s: u32,
}

impl Default for Rotation {
    fn default() -> Self {
        Self {
            every_s: 8 * 3600,
            overlap_s: 8 * 3600,
            backdated_s: 3600,
        }
    }
}

impl Rotation {
    /// Whether keys live within the protocol's bound, and long enough to be replaced in peace.
    pub fn check(self) -> Result<Self, BadRotation> {
        let life = self
            .every_s
            .checked_add(self.overlap_s)
            .and_then(|life| life.checked_add(self.backdated_s));
        match life {
            Some(life) if self.every_s >= 60 && self.overlap_s >= 60 && life <= MAX_KEY_LIFE_S => {
                Ok(self)
            }
            Some(_) | None => Err(BadRotation),
        }
    }
}

/// The rotation would keep a key too long, or not long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "interval, overlap and backdating together may be 24 hours at most; interval and overlap 1 minute at least"
)]
pub struct BadRotation;

/// Why there are no certificates.
#[derive(Debug, Error)]
pub enum CertsError {
    /// The rotation is not acceptable.
    #[error(transparent)]
    Rotation(#[from] BadRotation),
    /// The directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

/// The certificates of one server, kept fresh. Owns the secrets.
pub struct Certs {
    source: Source,
    clock: Clock,
    published: watch::Sender<Arc<Keyring>>,
}

enum Source {
    Signing {
        provider: Box<SigningKey>,
        rotation: Rotation,
        newest: Option<u32>,
    },
    Directory(Directory),
}

impl Certs {
    /// Signs with a provider key that is on this machine.
    pub fn signing(
        provider: SigningKey,
        rotation: Rotation,
        clock: Clock,
    ) -> Result<Self, CertsError> {
        let source = Source::Signing {
            provider: Box::new(provider),
            rotation: rotation.check()?,
            newest: None,
        };
        Self::start(source, clock)
    }

    /// Uses what was signed elsewhere.
    pub fn directory(
        path: impl Into<std::path::PathBuf>,
        clock: Clock,
    ) -> Result<Self, CertsError> {
        Self::start(Source::Directory(Directory::open(path.into())?), clock)
    }

    /// The key that clients must be given.
    #[must_use]
    pub fn provider_public(&self) -> [u8; 32] {
        match &self.source {
            Source::Signing { provider, .. } => provider.verifying_key().to_bytes(),
            Source::Directory(directory) => *directory.provider_public(),
        }
    }

    /// The key ring, now and whenever it changes.
    #[must_use]
    pub fn keyring(&self) -> watch::Receiver<Arc<Keyring>> {
        self.published.subscribe()
    }

    /// Replaces and erases what is due. Says when to look again.
    pub fn refresh(&mut self) -> Result<Duration, CertsError> {
        let now = (self.clock)();
        let current = Arc::clone(&self.published.borrow());
        let (keys, due, shared, longest) = match &mut self.source {
            Source::Signing {
                provider,
                rotation,
                newest,
            } => {
                let (keys, due) = signed_here(provider, *rotation, newest, &current, now);
                (keys, due, TicketKeys::default(), LONGEST_SLEEP)
            }
            Source::Directory(directory) => {
                let loaded = directory.refresh(&current, now)?;
                (loaded.keys, loaded.next, loaded.tickets, LOOK)
            }
        };
        let tickets = tickets(shared, &current, now);
        let due = due.min(tickets.due(now));
        let same_keys = same_keys(&keys, current.keys());
        let same_tickets = current
            .tickets()
            .is_some_and(|before| Arc::ptr_eq(before, &tickets));
        if !same_keys {
            tracing::info!(keys = keys.len(), "certificates changed");
        }
        if !same_keys || !same_tickets {
            drop(current);
            let keyring = Keyring::new(keys).with_tickets(tickets);
            self.published.send_replace(Arc::new(keyring));
        }
        Ok(Duration::from_secs(due.saturating_sub(now).max(1)).min(longest))
    }

    /// Refreshes for ever. A failure is logged; what is still valid stays in use.
    pub async fn keep_fresh(mut self) {
        loop {
            let pause = match self.refresh() {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "certificates cannot be renewed"
                    );
                    RETRY
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    fn start(source: Source, clock: Clock) -> Result<Self, CertsError> {
        let (published, _) = watch::channel(Arc::new(Keyring::default()));
        let mut certs = Self {
            source,
            clock,
            published,
        };
        certs.refresh()?;
        Ok(certs)
    }
}

/// The ticket keys to use from now on: the shared ones first, and what was used until now for as long as somebody
/// may have a ticket of it.
fn tickets(shared: TicketKeys, current: &Keyring, now: u64) -> Arc<TicketKeys> {
    let before = current.tickets().cloned().unwrap_or_default();
    let all = shared.and(&before);
    let all = all.renewed(OsRng, now).unwrap_or(all);
    if all.same_as(&before) {
        before
    } else {
        Arc::new(all)
    }
}

/// The keys to use from now on, and when the next change is due.
fn signed_here(
    provider: &SigningKey,
    rotation: Rotation,
    newest: &mut Option<u32>,
    current: &Keyring,
    now: u64,
) -> (Vec<Arc<ResolverKey>>, u64) {
    let now_s = u32::try_from(now).unwrap_or(u32::MAX);
    // MUST, "Key Management": each key as long as its certificate is valid, and no longer.
    let mut keys: Vec<_> = current
        .keys()
        .iter()
        .filter(|key| key.cert().check_time(now).is_ok())
        .cloned()
        .collect();
    // A clock that was set back leaves a newest key from the future: it is no reason to wait.
    let due = newest.is_none_or(|made| now_s < made || now_s - made >= rotation.every_s)
        || keys.is_empty();
    if due {
        let cert = Validity {
            start: now_s.saturating_sub(rotation.backdated_s),
            end: now_s.saturating_add(rotation.every_s + rotation.overlap_s),
            serial: newest.map_or(now_s, |made| made.saturating_add(1).max(now_s)),
        };
        keys.extend(make_keys(provider, cert).map(Arc::new));
        *newest = Some(now_s);
    }
    let ends = keys.iter().map(|key| u64::from(key.cert().end) + 1);
    let next_made = u64::from(newest.unwrap_or(now_s)) + u64::from(rotation.every_s);
    let next = ends.chain([next_made]).min().unwrap_or(next_made);
    (keys, next)
}

/// What a certificate is made for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Validity {
    pub(crate) start: u32,
    pub(crate) end: u32,
    pub(crate) serial: u32,
}

/// Fresh short-term keys with their certificates: a classical one, and a post-quantum one.
fn make_keys(provider: &SigningKey, validity: Validity) -> [ResolverKey; 2] {
    let Ok(keys) = make_keys_signed_by(&mut signs_at_once(provider), validity);
    keys
}

/// The same, signed by whoever has the provider's key: the signature over the bytes that it is given.
// Each from randomness of its own: who breaks the one has nothing of the other.
fn make_keys_signed_by<E>(
    sign: &mut impl FnMut(&[u8]) -> Result<[u8; 64], E>,
    validity: Validity,
) -> Result<[ResolverKey; 2], E> {
    let secret = StaticSecret::random_from_rng(OsRng);
    let public = PublicKey::from(&secret).to_bytes();
    let cert = certificate(System::XChaCha20Poly1305, &public, validity);
    let wire = cert.with_signature(&sign(&cert.signed_part())?);
    let classical = ResolverKey::new(cert, wire, secret);
    let secret = XWingSecret::generate(OsRng);
    let cert = certificate(System::XWing, secret.public(), validity);
    let wire = cert.with_signature(&sign(&cert.signed_part())?);
    let post_quantum = ResolverKey::post_quantum(cert, wire, secret);
    let keys = [classical, post_quantum];
    Ok(keys.map(|key| key.expect("the certificate was made for this secret")))
}

/// A key that is here asks nobody, and cannot fail.
fn signs_at_once(provider: &SigningKey) -> impl FnMut(&[u8]) -> Result<[u8; 64], Infallible> {
    |message| Ok(provider.sign(message).to_bytes())
}

fn certificate(system: System, resolver_key: &[u8], validity: Validity) -> Certificate {
    Certificate {
        system,
        resolver_key: resolver_key.to_vec(),
        magic: random_magic(),
        serial: validity.serial,
        start: validity.start,
        end: validity.end,
        minor: 0,
    }
}

/// Random, and never one that the protocol reserves.
fn random_magic() -> ClientMagic {
    let mut magic = [0; 8];
    while !magic_is_acceptable(&magic) {
        OsRng.fill_bytes(&mut magic);
    }
    magic
}

fn same_keys(a: &[Arc<ResolverKey>], b: &[Arc<ResolverKey>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
}

#[cfg(test)]
mod tests;
