//! Revocation: one statement in the fleet log ends every lease that a device has, and its shard's stream
//! tells the gateways.

use rand_core::{OsRng, RngCore};
use sqlx::sqlite::SqliteConnection;
use trust::Revocation;
use trust::lease::fleet_entry;

use crate::failure::{Blame, Failure};
use crate::log::{self, Log, LogKeys};
use crate::store::devices::{self, Device, Revoked};
use crate::store::leases::{self, IssuedRevocation};
use crate::store::stream::{self, EntryKind};

/// Why a device is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Reason {
    /// Nobody said.
    Unspecified = 0,
    /// The device is gone.
    Lost = 1,
    /// Its keys may be in other hands.
    Compromised = 2,
    /// It was replaced by another one.
    Replaced = 3,
    /// The subscription has ended.
    Ended = 4,
}

/// Ends the leases of a device.
pub async fn revoke(
    db: &mut SqliteConnection,
    device: &Device,
    reason: Reason,
    keys: &LogKeys,
    now: u64,
) -> anyhow::Result<()> {
    if device.revoked.is_some() {
        let sentence = format!("{} was revoked before", hex::encode(device.devid_hash));
        return Err(Failure::new(Blame::Failed, sentence).into());
    }
    let revocation = Revocation {
        v: trust::VERSION,
        devid_hash: device.devid_hash,
        epoch: device.epoch,
        reason: reason as u8,
        at: now,
    };
    let statement = revocation.to_bytes();
    let mut salt = [0; 32];
    OsRng.fill_bytes(&mut salt);
    let leaf = log::append(db, Log::Fleet, &fleet_entry(&salt, &statement)).await?;
    log::seal(db, Log::Fleet, keys, now).await?;
    let issued = IssuedRevocation {
        devid_hash: device.devid_hash,
        statement,
        salt,
        leaf,
    };
    leases::add_revocation(db, &issued).await?;
    devices::revoke(
        db,
        &device.devid_hash,
        Revoked {
            at: now,
            reason: reason as u8,
        },
    )
    .await?;
    stream::append(db, device.shard, EntryKind::Revocation, leaf).await
}
