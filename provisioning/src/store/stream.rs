//! The stream of each shard: append only, read by its gateways from where they left off.

use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::{Id, id, signed, unsigned};

/// What an entry of a stream points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A lease begins.
    Lease = 0,
    /// A device's leases end.
    Revocation = 1,
}

/// One entry as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamEntry {
    /// Its place in the stream.
    pub seq: u64,
    /// What stands there.
    pub content: Content,
}

/// What stands in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A statement of the fleet log, not yet proved.
    Logged {
        /// What the statement is.
        kind: EntryKind,
        /// Its bytes.
        statement: Vec<u8>,
        /// Hides the statement in the log.
        salt: Id,
        /// Its place in the fleet log.
        leaf: u64,
    },
    /// An offer of a pre-shared key, signed by its device.
    Psk {
        /// Its bytes.
        offer: Vec<u8>,
    },
}

/// Appends to a shard's stream.
pub async fn append(
    db: &mut SqliteConnection,
    shard: u32,
    kind: EntryKind,
    leaf: u64,
) -> anyhow::Result<()> {
    let seq = end(db, shard).await?;
    sqlx::query("INSERT INTO shard_entry (shard, seq, kind, leaf) VALUES (?, ?, ?, ?)")
        .bind(shard)
        .bind(signed(seq)?)
        .bind(kind as u8)
        .bind(signed(leaf)?)
        .execute(db)
        .await?;
    Ok(())
}

/// The sequence number that the next entry of a shard will have.
pub async fn end(db: &mut SqliteConnection, shard: u32) -> anyhow::Result<u64> {
    let end = sqlx::query_scalar(
        "SELECT 1 + max(
            (SELECT coalesce(max(seq), -1) FROM shard_entry WHERE shard = ?1),
            (SELECT coalesce(max(seq), -1) FROM psk_offer WHERE shard = ?1))",
    );
    unsigned(end.bind(shard).fetch_one(db).await?)
}

/// Entries of a shard from a sequence number on, as far as this gateway is to see them.
pub async fn page(
    db: &mut SqliteConnection,
    gateway: &Id,
    shard: u32,
    from: u64,
    max: u32,
) -> anyhow::Result<Vec<StreamEntry>> {
    let Ok(from) = signed(from) else {
        return Ok(Vec::new());
    };
    let rows = sqlx::query(
        "SELECT e.seq, e.kind, e.leaf,
                coalesce(l.statement, r.statement) AS statement, coalesce(l.salt, r.salt) AS salt
         FROM shard_entry e
         LEFT JOIN lease l ON e.kind = 0 AND l.leaf = e.leaf
         LEFT JOIN revocation r ON e.kind = 1 AND r.leaf = e.leaf
         WHERE e.shard = ?1 AND e.seq >= ?2
         UNION ALL
         SELECT o.seq, 2, NULL, o.statement, NULL
         FROM psk_offer o WHERE o.shard = ?1 AND o.seq >= ?2 AND o.gateway_id = ?3
         ORDER BY 1 LIMIT ?4",
    );
    rows.bind(shard)
        .bind(from)
        .bind(&gateway[..])
        .bind(max)
        .fetch_all(db)
        .await?
        .iter()
        .map(from_columns)
        .collect()
}

fn from_columns(row: &SqliteRow) -> anyhow::Result<StreamEntry> {
    let statement = row.try_get("statement")?;
    let kind = match row.try_get::<u8, _>("kind")? {
        0 => Some(EntryKind::Lease),
        1 => Some(EntryKind::Revocation),
        _ => None,
    };
    let content = match kind {
        None => Content::Psk { offer: statement },
        Some(kind) => Content::Logged {
            kind,
            statement,
            salt: id(row.try_get("salt")?)?,
            leaf: unsigned(row.try_get("leaf")?)?,
        },
    };
    Ok(StreamEntry {
        seq: unsigned(row.try_get("seq")?)?,
        content,
    })
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
