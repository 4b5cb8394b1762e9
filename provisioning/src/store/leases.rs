//! Leases and revocations: the statements, their salts, and the fleet leaves that they became.

use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::{Id, id, signed, unsigned};

/// One lease as it was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedLease {
    /// Whose it is.
    pub devid_hash: Id,
    /// Counts the device's leases.
    pub epoch: u64,
    /// The tunnel key that it admits.
    pub wg_pub: Id,
    /// The bytes of the `Lease`.
    pub statement: Vec<u8>,
    /// Hides the statement in the log.
    pub salt: Id,
    /// Its place in the fleet log.
    pub leaf: u64,
    /// Unix seconds.
    pub issued_at: u64,
    /// Unix seconds.
    pub not_after: u64,
}

/// A revocation as it was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedRevocation {
    /// Whose leases end.
    pub devid_hash: Id,
    /// The bytes of the `Revocation`.
    pub statement: Vec<u8>,
    /// Hides the statement in the log.
    pub salt: Id,
    /// Its place in the fleet log.
    pub leaf: u64,
}

/// Adds a lease.
pub async fn add(db: &mut SqliteConnection, lease: &IssuedLease) -> anyhow::Result<()> {
    sqlx::query(
        "INSERT INTO lease (devid_hash, epoch, wg_pub, statement, salt, leaf, issued_at, not_after)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&lease.devid_hash[..])
    .bind(signed(lease.epoch)?)
    .bind(&lease.wg_pub[..])
    .bind(&lease.statement[..])
    .bind(&lease.salt[..])
    .bind(signed(lease.leaf)?)
    .bind(signed(lease.issued_at)?)
    .bind(signed(lease.not_after)?)
    .execute(db)
    .await?;
    Ok(())
}

/// Finds a device's lease of one epoch.
pub async fn find(
    db: &mut SqliteConnection,
    devid_hash: &Id,
    epoch: u64,
) -> anyhow::Result<Option<IssuedLease>> {
    sqlx::query("SELECT * FROM lease WHERE devid_hash = ? AND epoch = ?")
        .bind(&devid_hash[..])
        .bind(signed(epoch)?)
        .fetch_optional(db)
        .await?
        .map(|row| IssuedLease::from_columns(&row))
        .transpose()
}

/// Whether a tunnel key was ever leased to a device other than this one.
pub async fn tunnel_key_is_taken(
    db: &mut SqliteConnection,
    wg_pub: &Id,
    devid_hash: &Id,
) -> anyhow::Result<bool> {
    let taken = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM lease WHERE wg_pub = ? AND devid_hash <> ?)",
    );
    Ok(taken
        .bind(&wg_pub[..])
        .bind(&devid_hash[..])
        .fetch_one(db)
        .await?)
}

/// All leases in the order of the log.
pub async fn list(db: &mut SqliteConnection) -> anyhow::Result<Vec<IssuedLease>> {
    sqlx::query("SELECT * FROM lease ORDER BY leaf")
        .fetch_all(db)
        .await?
        .iter()
        .map(IssuedLease::from_columns)
        .collect()
}

/// Adds a revocation.
pub async fn add_revocation(
    db: &mut SqliteConnection,
    revocation: &IssuedRevocation,
) -> anyhow::Result<()> {
    sqlx::query("INSERT INTO revocation (devid_hash, statement, salt, leaf) VALUES (?, ?, ?, ?)")
        .bind(&revocation.devid_hash[..])
        .bind(&revocation.statement[..])
        .bind(&revocation.salt[..])
        .bind(signed(revocation.leaf)?)
        .execute(db)
        .await?;
    Ok(())
}

/// All revocations in the order of the log.
pub async fn list_revocations(db: &mut SqliteConnection) -> anyhow::Result<Vec<IssuedRevocation>> {
    sqlx::query("SELECT * FROM revocation ORDER BY leaf")
        .fetch_all(db)
        .await?
        .iter()
        .map(|row| {
            Ok(IssuedRevocation {
                devid_hash: id(row.try_get("devid_hash")?)?,
                statement: row.try_get("statement")?,
                salt: id(row.try_get("salt")?)?,
                leaf: unsigned(row.try_get("leaf")?)?,
            })
        })
        .collect()
}

impl IssuedLease {
    fn from_columns(row: &SqliteRow) -> anyhow::Result<Self> {
        Ok(Self {
            devid_hash: id(row.try_get("devid_hash")?)?,
            epoch: unsigned(row.try_get("epoch")?)?,
            wg_pub: id(row.try_get("wg_pub")?)?,
            statement: row.try_get("statement")?,
            salt: id(row.try_get("salt")?)?,
            leaf: unsigned(row.try_get("leaf")?)?,
            issued_at: unsigned(row.try_get("issued_at")?)?,
            not_after: unsigned(row.try_get("not_after")?)?,
        })
    }
}
