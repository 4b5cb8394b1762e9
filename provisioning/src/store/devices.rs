//! Devices: who enrolled, where each is homed, who was revoked.

use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use trust::Limits;

use super::{Id, id, limits, signed, unsigned};

/// One enrolled device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// SHA-256 of its DevID key.
    pub devid_hash: Id,
    /// Its DevID key.
    pub devid_pub: Id,
    /// The provider's own opaque word for the subscriber's line.
    pub slot: Option<String>,
    /// Its point of presence.
    pub pop: String,
    /// Its shard.
    pub shard: u32,
    /// Its position in the shard's pool.
    pub pool_offset: u32,
    /// The epoch of its latest lease.
    pub epoch: u64,
    /// What its leases may carry.
    pub limits: Limits,
    /// Unix seconds.
    pub enrolled_at: u64,
    /// When and why it was revoked.
    pub revoked: Option<Revoked>,
}

/// When and why a device was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Unix seconds.
    pub at: u64,
    /// The number on the wire.
    pub reason: u8,
}

/// Adds a device.
pub async fn add(db: &mut SqliteConnection, device: &Device) -> anyhow::Result<()> {
    let [limit_down, limit_up] = limits::columns(&device.limits)?;
    sqlx::query(
        "INSERT INTO device (devid_hash, devid_pub, slot, pop, shard, pool_offset, epoch, enrolled_at,
                             limit_down, limit_up)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&device.devid_hash[..])
    .bind(&device.devid_pub[..])
    .bind(&device.slot)
    .bind(&device.pop)
    .bind(device.shard)
    .bind(device.pool_offset)
    .bind(signed(device.epoch)?)
    .bind(signed(device.enrolled_at)?)
    .bind(limit_down)
    .bind(limit_up)
    .execute(db)
    .await?;
    Ok(())
}

/// Finds a device by the hash of its key.
pub async fn find(db: &mut SqliteConnection, devid_hash: &Id) -> anyhow::Result<Option<Device>> {
    sqlx::query("SELECT * FROM device WHERE devid_hash = ?")
        .bind(&devid_hash[..])
        .fetch_optional(db)
        .await?
        .map(|row| Device::from_columns(&row))
        .transpose()
}

/// All devices, oldest first.
pub async fn list(db: &mut SqliteConnection) -> anyhow::Result<Vec<Device>> {
    sqlx::query("SELECT * FROM device ORDER BY enrolled_at, devid_hash")
        .fetch_all(db)
        .await?
        .iter()
        .map(Device::from_columns)
        .collect()
}

/// Devices that are not revoked.
pub async fn count(db: &mut SqliteConnection) -> anyhow::Result<u64> {
    let count = sqlx::query_scalar("SELECT count(*) FROM device WHERE revoked_at IS NULL");
    unsigned(count.fetch_one(db).await?)
}

/// Notes the epoch of a new lease.
pub async fn set_epoch(
    db: &mut SqliteConnection,
    devid_hash: &Id,
    epoch: u64,
) -> anyhow::Result<()> {
    sqlx::query("UPDATE device SET epoch = ? WHERE devid_hash = ?")
        .bind(signed(epoch)?)
        .bind(&devid_hash[..])
        .execute(db)
        .await?;
    Ok(())
}

/// Notes the provider's word for the line, as a new claim gives it.
pub async fn set_slot(
    db: &mut SqliteConnection,
    devid_hash: &Id,
    slot: Option<&str>,
) -> anyhow::Result<()> {
    sqlx::query("UPDATE device SET slot = ? WHERE devid_hash = ?")
        .bind(slot)
        .bind(&devid_hash[..])
        .execute(db)
        .await?;
    Ok(())
}

/// Notes what the device's leases may carry from the next one on.
pub async fn set_limits(
    db: &mut SqliteConnection,
    devid_hash: &Id,
    limits: &Limits,
) -> anyhow::Result<()> {
    let [limit_down, limit_up] = limits::columns(limits)?;
    sqlx::query("UPDATE device SET limit_down = ?, limit_up = ? WHERE devid_hash = ?")
        .bind(limit_down)
        .bind(limit_up)
        .bind(&devid_hash[..])
        .execute(db)
        .await?;
    Ok(())
}

/// Marks a device as revoked.
pub async fn revoke(
    db: &mut SqliteConnection,
    devid_hash: &Id,
    revoked: Revoked,
) -> anyhow::Result<()> {
    sqlx::query("UPDATE device SET revoked_at = ?, revoked_reason = ? WHERE devid_hash = ?")
        .bind(signed(revoked.at)?)
        .bind(revoked.reason)
        .bind(&devid_hash[..])
        .execute(db)
        .await?;
    Ok(())
}

impl Device {
    fn from_columns(row: &SqliteRow) -> anyhow::Result<Self> {
        let at: Option<i64> = row.try_get("revoked_at")?;
        let reason: Option<u8> = row.try_get("revoked_reason")?;
        let revoked = match at.zip(reason) {
            Some((at, reason)) => Some(Revoked {
                at: unsigned(at)?,
                reason,
            }),
            None => None,
        };
        Ok(Self {
            devid_hash: id(row.try_get("devid_hash")?)?,
            devid_pub: id(row.try_get("devid_pub")?)?,
            slot: row.try_get("slot")?,
            pop: row.try_get("pop")?,
            shard: row.try_get("shard")?,
            pool_offset: row.try_get("pool_offset")?,
            epoch: unsigned(row.try_get("epoch")?)?,
            limits: limits::from_columns(row)?,
            enrolled_at: unsigned(row.try_get("enrolled_at")?)?,
            revoked,
        })
    }
}
