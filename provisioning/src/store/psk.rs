//! What is carried between gateways and devices about pre-shared keys: the gateways' current ML-KEM keys, and for each
//! pair the latest offer.

use sqlx::sqlite::SqliteConnection;

use super::{Id, signed, stream};

/// Puts a gateway's statement in the place of its former one.
pub async fn set_statement(
    db: &mut SqliteConnection,
    gateway: &Id,
    statement: &[u8],
    not_after: u64,
) -> anyhow::Result<()> {
    sqlx::query(
        "INSERT INTO kem_statement (gateway_id, statement, not_after) VALUES (?, ?, ?)
         ON CONFLICT (gateway_id) DO UPDATE SET statement = excluded.statement, not_after = excluded.not_after",
    )
    .bind(&gateway[..])
    .bind(statement)
    .bind(signed(not_after)?)
    .execute(db)
    .await?;
    Ok(())
}

/// A gateway's statement, while it holds.
pub async fn statement(
    db: &mut SqliteConnection,
    gateway: &Id,
    now: u64,
) -> anyhow::Result<Option<Vec<u8>>> {
    Ok(sqlx::query_scalar(
        "SELECT statement FROM kem_statement WHERE gateway_id = ? AND not_after > ?",
    )
    .bind(&gateway[..])
    .bind(signed(now)?)
    .fetch_optional(db)
    .await?)
}

/// Puts a device's offer to a gateway at the end of the shard's stream, in the place of the former one. The same
/// offer again changes nothing.
pub async fn set_offer(
    db: &mut SqliteConnection,
    gateway: &Id,
    device: &Id,
    shard: u32,
    offer: &[u8],
) -> anyhow::Result<()> {
    let known: Option<Vec<u8>> = sqlx::query_scalar(
        "SELECT statement FROM psk_offer WHERE gateway_id = ? AND devid_hash = ?",
    )
    .bind(&gateway[..])
    .bind(&device[..])
    .fetch_optional(&mut *db)
    .await?;
    if known.is_some_and(|known| known == offer) {
        return Ok(());
    }
    let seq = stream::end(db, shard).await?;
    sqlx::query(
        "INSERT INTO psk_offer (gateway_id, devid_hash, shard, seq, statement) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (gateway_id, devid_hash)
         DO UPDATE SET shard = excluded.shard, seq = excluded.seq, statement = excluded.statement",
    )
    .bind(&gateway[..])
    .bind(&device[..])
    .bind(shard)
    .bind(signed(seq)?)
    .bind(offer)
    .execute(db)
    .await?;
    Ok(())
}
