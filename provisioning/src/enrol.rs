//! Enrolment: the decision, which is a pure function over what the store knows, and its execution inside
//! one transaction. A device may ask for ever; asking again with the same keys gives the same lease.

use anyhow::Context;
use rand_core::{OsRng, RngCore};
use sqlx::sqlite::SqliteConnection;
use trust::lease::fleet_entry;
use trust::verify::MAX_SKEW_S;
use trust::{EnrolFacts, Lease, LeaseBundle, Limits, Verified, key_id};

use crate::assign::{self, NoPlace};
use crate::config::LeaseTimes;
use crate::gateways;
use crate::log::{self, Log};
use crate::store::claims::{self, Claim};
use crate::store::devices::{self, Device};
use crate::store::leases::{self, IssuedLease};
use crate::store::stream::{self, EntryKind};
use crate::store::{self, Id, alerts, pools};

#[cfg(test)]
mod tests;

/// Resolvers in a lease, at most.
const MAX_DNS: usize = 8;

/// Who asks, after both proofs of possession were checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    devid_pub: Id,
    devid_hash: Id,
    wg_pub: Id,
    claim_pub: Option<Id>,
}

impl Request {
    /// The hash of the device's key.
    pub fn devid_hash(&self) -> &Id {
        &self.devid_hash
    }

    /// Takes what the handshake proved, and nothing less.
    pub fn new(facts: &Verified<EnrolFacts>) -> Self {
        let facts = facts.get();
        Self {
            devid_pub: facts.devid_pub,
            devid_hash: key_id(&facts.devid_pub),
            wg_pub: facts.wg_pub,
            claim_pub: facts.claim_pub,
        }
    }
}

/// What the store knows about the asking device, its claim and its tunnel key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    device: Option<Device>,
    /// The device's latest lease.
    lease: Option<IssuedLease>,
    /// The claim whose key was proved.
    claim: Option<Claim>,
    tunnel_key: TunnelKey,
}

/// Whether the tunnel key was leased to somebody else before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TunnelKey {
    /// To nobody, or to the asking device.
    #[default]
    Free,
    /// To another device.
    Taken,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The device gets a lease.
    Admit(Admission),
    /// It does not.
    Refuse(Refusal),
}

/// How a device is admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    claim: ClaimUse,
    home: Home,
    lease: LeaseUse,
}

/// What an admission does to the claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClaimUse {
    /// None was shown, or it is bound to this device already.
    Untouched,
    /// It becomes this device's.
    Bind,
}

/// Where the device lives.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Home {
    /// Where it lived before.
    Kept(Box<Device>),
    /// A shard of this point of presence, yet to be chosen.
    New(Contract),
}

/// What a claim says of the line that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Contract {
    pop: String,
    slot: Option<String>,
    limits: Limits,
}

/// Which lease the device gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeaseUse {
    /// The one that it has.
    Repeat { epoch: u64 },
    /// A new one.
    Issue { epoch: u64 },
}

/// Why a device gets no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No such claim was made here.
    ClaimUnknown,
    /// Another device proved the code first.
    ClaimSpent,
    /// Nobody used the code in time.
    ClaimExpired,
    /// The device was revoked; only people can undo that.
    DeviceRevoked,
    /// No claim was shown, and the device is not known.
    DeviceUnknown,
    /// Another device was leased this tunnel key.
    TunnelKeyTaken,
    /// No gateway serves the device's point of presence.
    NoGateway,
    /// The point of presence has no address left.
    AddressesExhausted,
}

/// Decides by what is known; the caller gathers it and carries the decision out.
pub fn decide(request: &Request, facts: &Facts, times: &LeaseTimes, now: u64) -> Decision {
    if facts
        .device
        .as_ref()
        .is_some_and(|device| device.revoked.is_some())
    {
        return Decision::Refuse(Refusal::DeviceRevoked);
    }
    let claim = match (request.claim_pub, &facts.claim) {
        (None, _) => ClaimUse::Untouched,
        (Some(_), None) => return Decision::Refuse(Refusal::ClaimUnknown),
        (Some(_), Some(claim)) => match claim.bound {
            Some(owner) if owner == request.devid_hash => ClaimUse::Untouched,
            Some(_) => return Decision::Refuse(Refusal::ClaimSpent),
            None if now >= claim.expires_at => return Decision::Refuse(Refusal::ClaimExpired),
            None => ClaimUse::Bind,
        },
    };
    if facts.tunnel_key == TunnelKey::Taken {
        return Decision::Refuse(Refusal::TunnelKeyTaken);
    }
    let Some(device) = &facts.device else {
        return match (&facts.claim, claim) {
            (Some(shown), ClaimUse::Bind) => Decision::Admit(Admission {
                claim,
                home: Home::New(Contract {
                    pop: shown.pop.clone(),
                    slot: shown.slot.clone(),
                    limits: shown.limits,
                }),
                lease: LeaseUse::Issue { epoch: 1 },
            }),
            _ => Decision::Refuse(Refusal::DeviceUnknown),
        };
    };
    let mut device = device.clone();
    let before = device.limits;
    if let (ClaimUse::Bind, Some(shown)) = (claim, &facts.claim) {
        device.limits = shown.limits;
    }
    let has_same_terms = |lease: &IssuedLease| {
        lease.wg_pub == request.wg_pub && is_fresh(lease, times, now) && device.limits == before
    };
    let lease = match &facts.lease {
        Some(lease) if has_same_terms(lease) => LeaseUse::Repeat { epoch: lease.epoch },
        _ => LeaseUse::Issue {
            epoch: device.epoch + 1,
        },
    };
    Decision::Admit(Admission {
        claim,
        home: Home::Kept(Box::new(device)),
        lease,
    })
}

/// What this server issued while its clock was ahead, no router takes before that time has come.
fn is_fresh(lease: &IssuedLease, times: &LeaseTimes, now: u64) -> bool {
    let renewable_from = lease.issued_at.saturating_add(times.renew_after.as_secs());
    lease.issued_at <= now.saturating_add(MAX_SKEW_S) && now < renewable_from.min(lease.not_after)
}

/// What a request came to, once its transaction has committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The device holds this lease.
    Leased(Leased),
    /// It was refused.
    Refused(Refusal),
}

/// A lease by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leased {
    /// The device.
    pub devid_hash: Id,
    /// The lease's epoch.
    pub epoch: u64,
    /// Whether the fleet log grew for it.
    pub issued: Issued,
}

/// Whether a lease is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Issued {
    /// It was written in this transaction.
    Now,
    /// The device had it already.
    Before,
}

/// Decides and writes, inside the caller's transaction. The caller seals the fleet log.
pub async fn enrol(
    db: &mut SqliteConnection,
    request: &Request,
    times: &LeaseTimes,
    now: u64,
) -> anyhow::Result<Outcome> {
    let facts = gather(db, request).await?;
    let admission = match decide(request, &facts, times, now) {
        Decision::Admit(admission) => admission,
        Decision::Refuse(refusal) => {
            if let (Refusal::ClaimSpent, Some(claim_pub)) = (refusal, &request.claim_pub) {
                alerts::claim_spent(db, claim_pub, &request.devid_hash, now).await?;
            }
            return Ok(Outcome::Refused(refusal));
        }
    };
    let device = match admission.home {
        Home::Kept(device) => *device,
        Home::New(contract) => match place(db, request, contract, now).await? {
            Ok(device) => device,
            Err(refusal) => return Ok(Outcome::Refused(refusal)),
        },
    };
    let (epoch, issued) = match admission.lease {
        LeaseUse::Repeat { epoch } => (epoch, Issued::Before),
        LeaseUse::Issue { epoch } => {
            let gateways = store::gateways::of_shard(db, device.shard).await?;
            if gateways.is_empty() {
                return Ok(Outcome::Refused(Refusal::NoGateway));
            }
            if epoch == 1 {
                devices::add(db, &device).await?;
            } else {
                devices::set_epoch(db, &device.devid_hash, epoch).await?;
            }
            let ranked = assign::rendezvous(&device.devid_hash, &gateways);
            issue(
                db,
                &device,
                Terms {
                    request,
                    epoch,
                    gateways: ranked,
                },
                times,
                now,
            )
            .await?;
            (epoch, Issued::Now)
        }
    };
    if let (ClaimUse::Bind, Some(claim)) = (admission.claim, &facts.claim) {
        claims::bind(db, &claim.claim_pub, &device.devid_hash, now).await?;
        devices::set_slot(db, &device.devid_hash, claim.slot.as_deref()).await?;
        devices::set_limits(db, &device.devid_hash, &claim.limits).await?;
    }
    Ok(Outcome::Leased(Leased {
        devid_hash: device.devid_hash,
        epoch,
        issued,
    }))
}

async fn gather(db: &mut SqliteConnection, request: &Request) -> anyhow::Result<Facts> {
    let device = devices::find(db, &request.devid_hash).await?;
    let lease = match &device {
        Some(device) => leases::find(db, &request.devid_hash, device.epoch).await?,
        None => None,
    };
    let claim = match &request.claim_pub {
        Some(claim_pub) => claims::find(db, claim_pub).await?,
        None => None,
    };
    let taken = leases::tunnel_key_is_taken(db, &request.wg_pub, &request.devid_hash).await?;
    let tunnel_key = if taken {
        TunnelKey::Taken
    } else {
        TunnelKey::Free
    };
    Ok(Facts {
        device,
        lease,
        claim,
        tunnel_key,
    })
}

async fn place(
    db: &mut SqliteConnection,
    request: &Request,
    Contract { pop, slot, limits }: Contract,
    now: u64,
) -> anyhow::Result<Result<Device, Refusal>> {
    let taken = gateways::inner_addresses(db, &pop).await?;
    let candidates = pools::candidates(db, &pop, &taken).await?;
    Ok(match assign::choose(&candidates) {
        Ok((shard, pool_offset)) => Ok(Device {
            devid_hash: request.devid_hash,
            devid_pub: request.devid_pub,
            slot,
            pop,
            shard,
            pool_offset,
            epoch: 1,
            limits,
            enrolled_at: now,
            revoked: None,
        }),
        Err(NoPlace::NoGateway) => Err(Refusal::NoGateway),
        Err(NoPlace::Exhausted) => Err(Refusal::AddressesExhausted),
    })
}

struct Terms<'a> {
    request: &'a Request,
    epoch: u64,
    gateways: Vec<Id>,
}

async fn issue(
    db: &mut SqliteConnection,
    device: &Device,
    terms: Terms<'_>,
    times: &LeaseTimes,
    now: u64,
) -> anyhow::Result<()> {
    let pool = pools::find(db, device.shard)
        .await?
        .context("the device's shard has no pool")?;
    let addresses = pool
        .addresses(device.pool_offset)
        .context("the device's place lies outside of its pool")?;
    let mut dns = Vec::new();
    for gateway in &terms.gateways {
        add_stamps(&mut dns, gateways::record(db, gateway).await?.dns);
    }
    let lease = Lease {
        v: trust::VERSION,
        devid_hash: device.devid_hash,
        epoch: terms.epoch,
        wg_pub: terms.request.wg_pub,
        pop: device.pop.clone(),
        shard: device.shard,
        gateways: terms.gateways,
        addresses: addresses.to_vec(),
        dns,
        not_before: now,
        not_after: now.saturating_add(times.lifetime.as_secs()),
        limits: device.limits,
    };
    log_lease(db, &lease, now).await
}

/// Adds a gateway's stamps behind those of more preferred ones: all of them, or none where there is no room. A resolver without
/// the relay beside it would be asked straight.
fn add_stamps(dns: &mut Vec<String>, of_gateway: Vec<String>) {
    let before = dns.len();
    for stamp in of_gateway {
        if !dns.contains(&stamp) {
            dns.push(stamp);
        }
    }
    if dns.len() > MAX_DNS {
        dns.truncate(before);
    }
}

/// Appends a lease to the fleet log and its shard's stream. The caller seals the log.
pub(crate) async fn log_lease(
    db: &mut SqliteConnection,
    lease: &Lease,
    issued_at: u64,
) -> anyhow::Result<()> {
    let statement = lease.to_bytes();
    let mut salt = [0; 32];
    OsRng.fill_bytes(&mut salt);
    let leaf = log::append(db, Log::Fleet, &fleet_entry(&salt, &statement)).await?;
    let issued = IssuedLease {
        devid_hash: lease.devid_hash,
        epoch: lease.epoch,
        wg_pub: lease.wg_pub,
        statement,
        salt,
        leaf,
        issued_at,
        not_after: lease.not_after,
    };
    leases::add(db, &issued).await?;
    stream::append(db, lease.shard, EntryKind::Lease, leaf).await
}

/// What the device receives: its lease, proved under the published head of the fleet log, the gateways
/// that it names, and the way from the head that the device remembers. None before that head is over the lease.
pub async fn bundle(
    db: &mut SqliteConnection,
    leased: &Leased,
    remembered: u64,
) -> anyhow::Result<Option<LeaseBundle>> {
    let issued = leases::find(db, &leased.devid_hash, leased.epoch)
        .await?
        .context("the lease that was just committed is gone")?;
    let head = log::head(db, Log::Fleet).await?;
    let Some(head) = head.filter(|head| issued.leaf < head.size) else {
        return Ok(None);
    };
    let lease = Lease::from_bytes(&issued.statement).context("a stored lease does not parse")?;
    let proof = log::proofs(db, Log::Fleet, &[issued.leaf]).await?;
    let mut activations = Vec::with_capacity(lease.gateways.len());
    for gateway in &lease.gateways {
        activations.push(gateways::activation(db, gateway).await?);
    }
    Ok(Some(LeaseBundle {
        lease: issued.statement,
        salt: issued.salt,
        proof: proof.into_iter().next().context("the log gave no proof")?,
        gateways: activations,
        consistency: log::consistency(db, Log::Fleet, (remembered, head.size)).await?,
    }))
}
