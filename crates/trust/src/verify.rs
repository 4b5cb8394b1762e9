//! The judge of the acting machine: a router before it uses a lease, a gateway before it admits a
//! peer. Whoever carried the bytes has no say.

use sha2::{Digest, Sha256};

use crate::anchors::Anchors;
use crate::authority::{Authority, Refused};
use crate::bundle::{LeaseBundle, ShardEntry};
use crate::cbor::DecodeError;
use crate::checkpoint::SignedCheckpoint;
use crate::gateway::GatewayRecord;
use crate::keys::KeyId;
use crate::lease::{Lease, Revocation, fleet_entry};
use crate::merkle::{MerkleError, verify_consistency};
use crate::policy::Policy;
use crate::proof::{LoggedAt, Proof, ProofError, Sworn};
use crate::psk::{PskError, PskOffer};
use crate::signed::Signed;
use crate::statement::{Activation, Kind, Proposal};
use crate::stored::Stored;
use crate::verified::Verified;

/// How far the clocks of two honest servers may lie apart when something begins to hold.
pub const MAX_SKEW_S: u64 = 300;

/// Who the device is that a bundle must be for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceFacts {
    pub devid_hash: [u8; 32],
    pub wg_pub: [u8; 32],
}

/// What a device may act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    pub lease: Lease,
    /// One record for each gateway of the lease, in the lease's order.
    pub gateways: Vec<GatewayRecord>,
    pub logged: LoggedAt,
}

/// Why a bundle is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    #[error("the lease cannot be read: {0}")]
    Malformed(#[from] DecodeError),
    #[error("the lease is for another device or another tunnel key")]
    NotMine,
    #[error("the lease has epoch {got}, but {stored} was accepted before")]
    Stale { stored: u64, got: u64 },
    #[error("the lease differs from the one that was accepted with the same epoch")]
    Replaced,
    #[error("the lease is not in the fleet log: {0}")]
    NotLogged(#[from] ProofError),
    #[error("the fleet log has {got} entries, but {stored} were seen before")]
    Rollback { stored: u64, got: u64 },
    #[error("the fleet log does not continue the one that was seen before: {0}")]
    Inconsistent(MerkleError),
    #[error("the lease ended at {not_after}, it is {now} at the earliest")]
    Expired { not_after: u64, now: u64 },
    #[error("the lease begins at {not_before}, it is {now}")]
    NotYet { not_before: u64, now: u64 },
    #[error("the lease names no gateway")]
    NoGateway,
    #[error("gateway {0} has no statement in the bundle")]
    UnknownGateway(KeyId),
    #[error("the statement of gateway {id} is refused: {error}")]
    Gateway { id: KeyId, error: GatewayError },
}

/// Why a statement about a gateway is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GatewayError {
    #[error("the statement cannot be read: {0}")]
    Malformed(#[from] DecodeError),
    #[error("the statement is about {0}, not about a gateway")]
    Kind(Kind),
    #[error("the statement is not in the authority log: {0}")]
    NotLogged(#[from] ProofError),
    #[error("the people's word does not suffice: {0}")]
    Refused(Box<Refused>),
    #[error("the gateway has no endpoint")]
    NoEndpoint,
}

/// Why a change of the people is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    #[error("the statement is not in the authority log: {0}")]
    NotLogged(#[from] ProofError),
    #[error("the people's word does not suffice: {0}")]
    Refused(Box<Refused>),
}

/// What an entry of a shard's stream changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardChange {
    /// The lease admits its device from now until it ends.
    Admit { lease: Lease, logged: LoggedAt },
    /// Every lease of the device up to the epoch is dead.
    Revoke {
        revocation: Revocation,
        logged: LoggedAt,
    },
    /// A device agrees a pre-shared key with one gateway. Stands in no log: its device signed it.
    Offer(Box<PskOffer>),
}

/// Why an entry of a shard's stream is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    #[error("the entry cannot be read: {0}")]
    Malformed(#[from] DecodeError),
    #[error("the entry is not in the fleet log: {0}")]
    NotLogged(#[from] ProofError),
    #[error("the lease ended at {not_after}, it is {now} at the earliest")]
    Expired { not_after: u64, now: u64 },
    #[error("the lease begins at {not_before}, it is {now}")]
    NotYet { not_before: u64, now: u64 },
    #[error("the offer of a pre-shared key is refused: {0}")]
    Offer(#[from] PskError),
}

impl Anchors {
    /// Judges what a device received, and returns with it what to remember from now on.
    ///
    /// The caller writes the new `Stored` down before it acts on the bundle.
    pub fn verify_bundle(
        &self,
        bundle: &LeaseBundle,
        me: &DeviceFacts,
        stored: &Stored,
        now: u64,
    ) -> Result<(Verified<Bundle>, Stored), BundleError> {
        let lease = Lease::from_bytes(&bundle.lease)?;
        if lease.devid_hash != me.devid_hash || lease.wg_pub != me.wg_pub {
            return Err(BundleError::NotMine);
        }
        let lease_id: [u8; 32] = Sha256::digest(&bundle.lease).into();
        check_epoch(&lease, &lease_id, stored)?;
        let entry = fleet_entry(&bundle.salt, &bundle.lease);
        let logged = verify_text(&self.fleet, &bundle.proof, &entry)?;
        check_continues(stored, &logged, &bundle.consistency)?;
        // A router without a clock still knows that it is later than a quorum has sworn.
        let clock_floor = stored.clock_floor.max(logged.sworn.reached);
        let now = now.max(clock_floor);
        match lifetime(lease.not_before, lease.not_after, now) {
            Lifetime::Current => {}
            Lifetime::Ended => {
                return Err(BundleError::Expired {
                    not_after: lease.not_after,
                    now,
                });
            }
            Lifetime::Ahead => {
                return Err(BundleError::NotYet {
                    not_before: lease.not_before,
                    now,
                });
            }
        }
        let gateways = self.verify_gateways(&lease, &bundle.gateways, now)?;
        let remembered = Stored {
            lease_epoch: lease.epoch,
            lease: Some(lease_id),
            fleet: Some((logged.size, logged.root)),
            clock_floor,
        };
        Ok((
            Verified::vouch(Bundle {
                lease,
                gateways,
                logged,
            }),
            remembered,
        ))
    }

    /// Judges one entry of a shard's stream; for many of them there is [`ShardJudge`].
    pub fn verify_shard_entry(
        &self,
        entry: &ShardEntry,
        now: u64,
    ) -> Result<Verified<ShardChange>, EntryError> {
        ShardJudge::new(self).verify(entry, now)
    }

    /// Judges the statement that makes a key a gateway: people have approved it, and it stood in the log for as long as they ask for.
    pub fn verify_gateway(
        &self,
        activation: &Activation,
        now: u64,
    ) -> Result<Verified<GatewayRecord>, GatewayError> {
        let (bytes, approvals) = (&activation.proposal, &activation.approvals);
        let kind = Proposal::from_bytes(bytes)?.kind;
        if kind != Kind::Gateway {
            return Err(GatewayError::Kind(kind));
        }
        let sworn = verify_text(&self.authority, &activation.proof, bytes)?.sworn;
        let now = now.max(sworn.reached);
        let judged = self.people.judge(bytes, approvals, sworn.since, now);
        let proposal = judged.map_err(|refused| GatewayError::Refused(Box::new(refused)))?;
        let record = GatewayRecord::from_bytes(&proposal.body)?;
        if record.endpoints.is_empty() {
            return Err(GatewayError::NoEndpoint);
        }
        Ok(Verified::vouch(record))
    }

    /// Judges the statement that makes the next state of the authority: enough people of this state and of that one have signed it. It
    /// holds from then on, in the place of [`Anchors::people`]; the caller writes it down before it does.
    pub fn verify_change(
        &self,
        activation: &Activation,
        now: u64,
    ) -> Result<Verified<Authority>, ChangeError> {
        let (bytes, approvals) = (&activation.proposal, &activation.approvals);
        let sworn = verify_text(&self.authority, &activation.proof, bytes)?.sworn;
        let now = now.max(sworn.reached);
        let next = self.people.succeed(bytes, approvals, sworn.since, now);
        let next = next.map_err(|refused| ChangeError::Refused(Box::new(refused)))?;
        Ok(Verified::vouch(next))
    }

    /// Finds and judges the statement of each gateway that the lease names; others are not looked at.
    fn verify_gateways(
        &self,
        lease: &Lease,
        activations: &[Activation],
        now: u64,
    ) -> Result<Vec<GatewayRecord>, BundleError> {
        if lease.gateways.is_empty() {
            return Err(BundleError::NoGateway);
        }
        let mut records = Vec::with_capacity(lease.gateways.len());
        for wanted in &lease.gateways {
            let id = KeyId::from(*wanted);
            let activation = activations
                .iter()
                .find(|activation| claimed_id(activation) == Some(*wanted))
                .ok_or(BundleError::UnknownGateway(id))?;
            let record = self.verify_gateway(activation, now);
            let record = record.map_err(|error| BundleError::Gateway { id, error })?;
            records.push(record.into_inner());
        }
        Ok(records)
    }
}

/// Judges the entries of a shard's stream one after the other. Those of a page are shown under one checkpoint, whose
/// signatures are checked once.
#[derive(Debug)]
pub struct ShardJudge<'a> {
    anchors: &'a Anchors,
    /// The checkpoint that was found good last, and the times that its quorum has sworn.
    known: Option<(SignedCheckpoint, Sworn)>,
}

impl<'a> ShardJudge<'a> {
    pub fn new(anchors: &'a Anchors) -> Self {
        Self {
            anchors,
            known: None,
        }
    }

    /// Judges the next entry.
    pub fn verify(
        &mut self,
        entry: &ShardEntry,
        now: u64,
    ) -> Result<Verified<ShardChange>, EntryError> {
        match entry {
            ShardEntry::Lease {
                lease: bytes,
                salt,
                proof,
            } => {
                let lease = Lease::from_bytes(bytes)?;
                let logged = self.verify_proof(proof, &fleet_entry(salt, bytes))?;
                let now = now.max(logged.sworn.reached);
                match lifetime(lease.not_before, lease.not_after, now) {
                    Lifetime::Current => Ok(Verified::vouch(ShardChange::Admit { lease, logged })),
                    Lifetime::Ended => Err(EntryError::Expired {
                        not_after: lease.not_after,
                        now,
                    }),
                    Lifetime::Ahead => Err(EntryError::NotYet {
                        not_before: lease.not_before,
                        now,
                    }),
                }
            }
            ShardEntry::Revocation {
                revocation: bytes,
                salt,
                proof,
            } => {
                let revocation = Revocation::from_bytes(bytes)?;
                let logged = self.verify_proof(proof, &fleet_entry(salt, bytes))?;
                Ok(Verified::vouch(ShardChange::Revoke { revocation, logged }))
            }
            ShardEntry::Psk { offer } => {
                let offer = PskOffer::verify(&Signed::from_bytes(offer)?)?;
                Ok(Verified::vouch(ShardChange::Offer(Box::new(
                    offer.into_inner(),
                ))))
            }
        }
    }

    fn verify_proof(&mut self, proof: &str, entry: &[u8]) -> Result<LoggedAt, ProofError> {
        let proof = Proof::parse(proof)?;
        let known = self.known.take();
        let known = known.filter(|(known, _)| *known == proof.checkpoint);
        let sworn = match known {
            Some((_, sworn)) => sworn,
            None => self.anchors.fleet.verify_checkpoint(&proof.checkpoint)?,
        };
        let logged = proof.verify_inclusion(entry, sworn)?;
        self.known = Some((proof.checkpoint, sworn));
        Ok(logged)
    }
}

/// An epoch only rises, from 1 on; it may stand still for the very same lease, read from flash or
/// answered again after a cut connection.
fn check_epoch(lease: &Lease, id: &[u8; 32], stored: &Stored) -> Result<(), BundleError> {
    if lease.epoch > stored.lease_epoch {
        return Ok(());
    }
    match stored.lease.filter(|_| lease.epoch == stored.lease_epoch) {
        Some(known) if known == *id => Ok(()),
        Some(_) => Err(BundleError::Replaced),
        None => Err(BundleError::Stale {
            stored: stored.lease_epoch,
            got: lease.epoch,
        }),
    }
}

/// The log only grows, and what was seen of it stays.
fn check_continues(
    stored: &Stored,
    logged: &LoggedAt,
    path: &[[u8; 32]],
) -> Result<(), BundleError> {
    let Some((size, root)) = stored.fleet else {
        return Ok(());
    };
    if logged.size < size {
        return Err(BundleError::Rollback {
            stored: size,
            got: logged.size,
        });
    }
    // A bundle that is read again from flash shows the checkpoint that was stored with it.
    let path = if logged.size == size { &[] } else { path };
    verify_consistency((size, &root), (logged.size, &logged.root), path)
        .map_err(BundleError::Inconsistent)
}

fn verify_text(policy: &Policy, proof: &str, entry: &[u8]) -> Result<LoggedAt, ProofError> {
    policy.verify_proof(&Proof::parse(proof)?, entry)
}

/// Which gateway an activation says it is about, before anything is believed.
fn claimed_id(activation: &Activation) -> Option<[u8; 32]> {
    let proposal = Proposal::from_bytes(&activation.proposal).ok()?;
    Some(GatewayRecord::from_bytes(&proposal.body).ok()?.id())
}

pub(crate) enum Lifetime {
    Ahead,
    Current,
    Ended,
}

pub(crate) fn lifetime(not_before: u64, not_after: u64, now: u64) -> Lifetime {
    if now >= not_after {
        Lifetime::Ended
    } else if not_before > now.saturating_add(MAX_SKEW_S) {
        Lifetime::Ahead
    } else {
        Lifetime::Current
    }
}
