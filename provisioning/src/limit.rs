//! Other limits for a device: its lease is issued again under the next epoch, alike but for them, and reaches its gateways by
//! the shard's stream. Router and session go on; the router learns of it when it renews.

use anyhow::Context;
use sqlx::sqlite::SqliteConnection;
use trust::{Lease, Limits};

use crate::enrol::log_lease;
use crate::failure::{Blame, Failure};
use crate::log::{self, Log, LogKeys};
use crate::store::devices::{self, Device};
use crate::store::leases;

/// From when on the limits hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// From now on, by the lease of this epoch.
    Now {
        /// Counts the device's leases.
        epoch: u64,
    },
    /// From its next lease on; it has none in force.
    Later,
}

/// Gives a device these limits.
pub async fn limit(
    db: &mut SqliteConnection,
    device: &Device,
    limits: Limits,
    keys: &LogKeys,
    now: u64,
) -> anyhow::Result<Limited> {
    if device.revoked.is_some() {
        let sentence = format!("{} is revoked", hex::encode(device.devid_hash));
        return Err(Failure::new(Blame::Failed, sentence).into());
    }
    devices::set_limits(db, &device.devid_hash, &limits).await?;
    let issued = leases::find(db, &device.devid_hash, device.epoch).await?;
    let Some(issued) = issued.filter(|issued| now < issued.not_after) else {
        return Ok(Limited::Later);
    };
    let lease = Lease::from_bytes(&issued.statement).context("a stored lease does not parse")?;
    let epoch = device.epoch + 1;
    let lease = Lease {
        epoch,
        limits,
        ..lease
    };
    devices::set_epoch(db, &device.devid_hash, epoch).await?;
    // With the time of the lease before it, so that the router renews when it would have.
    log_lease(db, &lease, issued.issued_at).await?;
    log::seal(db, Log::Fleet, keys, now).await?;
    Ok(Limited::Now { epoch })
}
