//! Gateways: an index over the `gateway` statements of the authority log.

use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::{Id, id, signed, unsigned};

/// One gateway, as the index knows it; the statement itself stands in the authority log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// SHA-256 of its Ed25519 key.
    pub gateway_id: Id,
    /// What people call it.
    pub name: String,
    /// Its point of presence.
    pub pop: String,
    /// The place of its statement in the authority log.
    pub leaf: u64,
    /// Unix seconds.
    pub added_at: u64,
}

/// Adds a gateway and the shards that it serves.
pub async fn add(
    db: &mut SqliteConnection,
    gateway: &Gateway,
    shards: &[u32],
) -> anyhow::Result<()> {
    sqlx::query(
        "INSERT INTO gateway (gateway_id, name, pop, leaf, added_at) VALUES (?, ?, ?, ?, ?)",
    )
    .bind(&gateway.gateway_id[..])
    .bind(&gateway.name)
    .bind(&gateway.pop)
    .bind(signed(gateway.leaf)?)
    .bind(signed(gateway.added_at)?)
    .execute(&mut *db)
    .await?;
    for shard in shards {
        sqlx::query("INSERT INTO gateway_shard (shard, gateway_id) VALUES (?, ?)")
            .bind(*shard)
            .bind(&gateway.gateway_id[..])
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}

/// Finds a gateway by the hash of its key.
pub async fn find(db: &mut SqliteConnection, gateway_id: &Id) -> anyhow::Result<Option<Gateway>> {
    sqlx::query("SELECT * FROM gateway WHERE gateway_id = ?")
        .bind(&gateway_id[..])
        .fetch_optional(db)
        .await?
        .map(|row| Gateway::from_columns(&row))
        .transpose()
}

/// Whether a name or a key is in use already.
pub async fn is_taken(
    db: &mut SqliteConnection,
    gateway_id: &Id,
    name: &str,
) -> anyhow::Result<bool> {
    let taken = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM gateway WHERE gateway_id = ? OR name = ?)",
    );
    Ok(taken.bind(&gateway_id[..]).bind(name).fetch_one(db).await?)
}

/// All gateways by name.
pub async fn list(db: &mut SqliteConnection) -> anyhow::Result<Vec<Gateway>> {
    sqlx::query("SELECT * FROM gateway ORDER BY name")
        .fetch_all(db)
        .await?
        .iter()
        .map(Gateway::from_columns)
        .collect()
}

/// The gateways of a shard.
pub async fn of_shard(db: &mut SqliteConnection, shard: u32) -> anyhow::Result<Vec<Id>> {
    let ids: Vec<Vec<u8>> = sqlx::query_scalar(
        "SELECT gateway_id FROM gateway_shard WHERE shard = ? ORDER BY gateway_id",
    )
    .bind(shard)
    .fetch_all(db)
    .await?;
    ids.iter().map(|bytes| id(bytes)).collect()
}

/// Whether a gateway serves a shard; `None` when no such gateway is known.
pub async fn serves(
    db: &mut SqliteConnection,
    gateway_id: &Id,
    shard: u32,
) -> anyhow::Result<Option<bool>> {
    let serves = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM gateway_shard s WHERE s.gateway_id = g.gateway_id AND s.shard = ?)
         FROM gateway g WHERE g.gateway_id = ?",
    );
    Ok(serves
        .bind(shard)
        .bind(&gateway_id[..])
        .fetch_optional(db)
        .await?)
}

impl Gateway {
    fn from_columns(row: &SqliteRow) -> anyhow::Result<Self> {
        Ok(Self {
            gateway_id: id(row.try_get("gateway_id")?)?,
            name: row.try_get("name")?,
            pop: row.try_get("pop")?,
            leaf: unsigned(row.try_get("leaf")?)?,
            added_at: unsigned(row.try_get("added_at")?)?,
        })
    }
}
