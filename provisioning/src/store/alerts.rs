//! Alerts: what an operator should look at. One row for each claim, however often it happens.

use sqlx::Row;
use sqlx::sqlite::SqliteConnection;

use super::{Id, id, signed, unsigned};

/// A claim code that a second device has proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// What happened, such as `claim-spent`.
    pub kind: String,
    /// The claim.
    pub claim_pub: Id,
    /// The latest device that was refused.
    pub devid_hash: Id,
    /// How often.
    pub times: u64,
    /// Unix seconds.
    pub first_at: u64,
    /// Unix seconds.
    pub last_at: u64,
}

/// Notes that a device proved a claim that belongs to another one.
pub async fn claim_spent(
    db: &mut SqliteConnection,
    claim_pub: &Id,
    devid_hash: &Id,
    now: u64,
) -> anyhow::Result<()> {
    sqlx::query(
        "INSERT INTO alert (kind, claim_pub, devid_hash, times, first_at, last_at)
         VALUES ('claim-spent', ?1, ?2, 1, ?3, ?3)
         ON CONFLICT DO UPDATE SET times = times + 1, last_at = ?3, devid_hash = ?2",
    )
    .bind(&claim_pub[..])
    .bind(&devid_hash[..])
    .bind(signed(now)?)
    .execute(db)
    .await?;
    Ok(())
}

/// All alerts, oldest first.
pub async fn list(db: &mut SqliteConnection) -> anyhow::Result<Vec<Alert>> {
    sqlx::query("SELECT * FROM alert ORDER BY first_at, claim_pub")
        .fetch_all(db)
        .await?
        .iter()
        .map(|row| {
            Ok(Alert {
                kind: row.try_get("kind")?,
                claim_pub: id(row.try_get("claim_pub")?)?,
                devid_hash: id(row.try_get("devid_hash")?)?,
                times: unsigned(row.try_get("times")?)?,
                first_at: unsigned(row.try_get("first_at")?)?,
                last_at: unsigned(row.try_get("last_at")?)?,
            })
        })
        .collect()
}
