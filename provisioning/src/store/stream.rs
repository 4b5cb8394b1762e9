//! The stream of each shard: append only, read by its gateways from where they left off.

use sqlx::Row;
use sqlx::sqlite::SqliteConnection;

use super::{Id, id, signed, unsigned};

/// What an entry of a stream points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A lease begins.
    Lease = 0,
    /// A device's leases end.
    Revocation = 1,
}

/// One entry, not yet proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamEntry {
    /// What the statement is.
    pub kind: EntryKind,
    /// Its bytes.
    pub statement: Vec<u8>,
    /// Hides the statement in the log.
    pub salt: Id,
    /// Its place in the fleet log.
    pub leaf: u64,
}

/// Appends to a shard's stream.
pub async fn append(
    db: &mut SqliteConnection,
    shard: u32,
    kind: EntryKind,
    leaf: u64,
) -> anyhow::Result<()> {
    sqlx::query(
        "INSERT INTO shard_entry (shard, seq, kind, leaf)
         SELECT ?1, 1 + coalesce(max(seq), -1), ?2, ?3 FROM shard_entry WHERE shard = ?1",
    )
    .bind(shard)
    .bind(kind as u8)
    .bind(signed(leaf)?)
    .execute(db)
    .await?;
    Ok(())
}

/// The sequence number that the next entry of a shard will have.
pub async fn end(db: &mut SqliteConnection, shard: u32) -> anyhow::Result<u64> {
    let end =
        sqlx::query_scalar("SELECT 1 + coalesce(max(seq), -1) FROM shard_entry WHERE shard = ?");
    unsigned(end.bind(shard).fetch_one(db).await?)
}

/// Entries of a shard from a sequence number on.
pub async fn page(
    db: &mut SqliteConnection,
    shard: u32,
    from: u64,
    max: u32,
) -> anyhow::Result<Vec<StreamEntry>> {
    let Ok(from) = signed(from) else {
        return Ok(Vec::new());
    };
    let rows = sqlx::query(
        "SELECT e.kind, e.leaf,
                coalesce(l.statement, r.statement) AS statement, coalesce(l.salt, r.salt) AS salt
         FROM shard_entry e
         LEFT JOIN lease l ON e.kind = 0 AND l.leaf = e.leaf
         LEFT JOIN revocation r ON e.kind = 1 AND r.leaf = e.leaf
         WHERE e.shard = ? AND e.seq >= ? ORDER BY e.seq LIMIT ?",
    );
    rows.bind(shard)
        .bind(from)
        .bind(max)
        .fetch_all(db)
        .await?
        .iter()
        .map(|row| {
            Ok(StreamEntry {
                kind: match row.try_get::<u8, _>("kind")? {
                    0 => EntryKind::Lease,
                    _ => EntryKind::Revocation,
                },
                statement: row.try_get("statement")?,
                salt: id(row.try_get("salt")?)?,
                leaf: unsigned(row.try_get("leaf")?)?,
            })
        })
        .collect()
}

/// Every entry of every stream, as shard, sequence number and leaf.
pub async fn list(db: &mut SqliteConnection) -> anyhow::Result<Vec<(u32, u64, u64)>> {
    let rows = sqlx::query("SELECT shard, seq, leaf FROM shard_entry ORDER BY shard, seq");
    rows.fetch_all(db)
        .await?
        .iter()
        .map(|row| {
            let seq = unsigned(row.try_get("seq")?)?;
            Ok((row.try_get("shard")?, seq, unsigned(row.try_get("leaf")?)?))
        })
        .collect()
}
