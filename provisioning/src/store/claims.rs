//! Claims: the public halves of codes. The code itself is printed once and kept nowhere.

use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use trust::Limits;

use super::{Id, id, limits, signed, unsigned};

/// One claim, spent or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The key that the code's holder proves.
    pub claim_pub: Id,
    /// The provider's own opaque word for the subscriber's line.
    pub slot: Option<String>,
    /// Where the device will be homed.
    pub pop: String,
    /// What the device's leases may carry.
    pub limits: Limits,
    /// Unix seconds.
    pub created_at: u64,
    /// Unix seconds; a device that is bound may retry after it.
    pub expires_at: u64,
    /// The first device that proved the code.
    pub bound: Option<Id>,
}

/// Adds a claim.
pub async fn add(db: &mut SqliteConnection, claim: &Claim) -> anyhow::Result<()> {
    let [limit_down, limit_up] = limits::columns(&claim.limits)?;
    sqlx::query(
        "INSERT INTO claim (claim_pub, slot, pop, created_at, expires_at, limit_down, limit_up)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&claim.claim_pub[..])
    .bind(&claim.slot)
    .bind(&claim.pop)
    .bind(signed(claim.created_at)?)
    .bind(signed(claim.expires_at)?)
    .bind(limit_down)
    .bind(limit_up)
    .execute(db)
    .await?;
    Ok(())
}

/// Finds a claim by its key.
pub async fn find(db: &mut SqliteConnection, claim_pub: &Id) -> anyhow::Result<Option<Claim>> {
    sqlx::query("SELECT * FROM claim WHERE claim_pub = ?")
        .bind(&claim_pub[..])
        .fetch_optional(db)
        .await?
        .map(|row| Claim::from_columns(&row))
        .transpose()
}

/// All claims, oldest first.
pub async fn list(db: &mut SqliteConnection) -> anyhow::Result<Vec<Claim>> {
    sqlx::query("SELECT * FROM claim ORDER BY created_at, claim_pub")
        .fetch_all(db)
        .await?
        .iter()
        .map(Claim::from_columns)
        .collect()
}

/// Binds a claim to the device that proved it first; the schema refuses a second one.
pub async fn bind(
    db: &mut SqliteConnection,
    claim_pub: &Id,
    devid_hash: &Id,
    now: u64,
) -> anyhow::Result<()> {
    sqlx::query("UPDATE claim SET devid_hash = ?, spent_at = ? WHERE claim_pub = ?")
        .bind(&devid_hash[..])
        .bind(signed(now)?)
        .bind(&claim_pub[..])
        .execute(db)
        .await?;
    Ok(())
}

impl Claim {
    fn from_columns(row: &SqliteRow) -> anyhow::Result<Self> {
        let bound: Option<&[u8]> = row.try_get("devid_hash")?;
        Ok(Self {
            claim_pub: id(row.try_get("claim_pub")?)?,
            slot: row.try_get("slot")?,
            pop: row.try_get("pop")?,
            limits: limits::from_columns(row)?,
            created_at: unsigned(row.try_get("created_at")?)?,
            expires_at: unsigned(row.try_get("expires_at")?)?,
            bound: bound.map(id).transpose()?,
        })
    }
}
