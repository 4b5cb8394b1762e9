//! What people proposed: when each was logged, and what came of it.

use anyhow::Context;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::{Id, signed, unsigned};

/// A proposal in the authority log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Its place in the log.
    pub leaf: u64,
    /// The log's proof from when it could first be seen there; none before.
    pub proof: Option<String>,
}

/// Notes that a proposal was logged.
pub async fn add(db: &mut SqliteConnection, id: &Id, leaf: u64) -> anyhow::Result<()> {
    sqlx::query("INSERT INTO proposal (leaf, proposal_id) VALUES (?, ?)")
        .bind(signed(leaf)?)
        .bind(&id[..])
        .execute(db)
        .await?;
    Ok(())
}

/// The places of those that have no proof, in a log of this size.
pub async fn unproved(db: &mut SqliteConnection, size: u64) -> anyhow::Result<Vec<u64>> {
    sqlx::query_scalar("SELECT leaf FROM proposal WHERE proof IS NULL AND leaf < ? ORDER BY leaf")
        .bind(signed(size)?)
        .fetch_all(db)
        .await?
        .into_iter()
        .map(unsigned)
        .collect()
}

/// Keeps the proof of a proposal that has none; the first one says since when it is logged.
pub async fn prove(db: &mut SqliteConnection, leaf: u64, proof: &str) -> anyhow::Result<()> {
    sqlx::query("UPDATE proposal SET proof = ? WHERE leaf = ? AND proof IS NULL")
        .bind(proof.as_bytes())
        .bind(signed(leaf)?)
        .execute(db)
        .await?;
    Ok(())
}

/// Finds a proposal by its id.
pub async fn find(db: &mut SqliteConnection, id: &Id) -> anyhow::Result<Option<Logged>> {
    sqlx::query("SELECT leaf, proof FROM proposal WHERE proposal_id = ?")
        .bind(&id[..])
        .fetch_optional(db)
        .await?
        .map(|row| Logged::from_columns(&row))
        .transpose()
}

/// Keeps what shows that a proposal has its effect.
pub async fn activate(
    db: &mut SqliteConnection,
    leaf: u64,
    activation: &[u8],
) -> anyhow::Result<()> {
    sqlx::query("UPDATE proposal SET activation = ? WHERE leaf = ?")
        .bind(activation)
        .bind(signed(leaf)?)
        .execute(db)
        .await?;
    Ok(())
}

/// What shows that the proposal at this place has its effect, once something does.
pub async fn find_activation(
    db: &mut SqliteConnection,
    leaf: u64,
) -> anyhow::Result<Option<Vec<u8>>> {
    let Ok(leaf) = signed(leaf) else {
        return Ok(None);
    };
    let query = sqlx::query_scalar("SELECT activation FROM proposal WHERE leaf = ?");
    let found: Option<Option<Vec<u8>>> = query.bind(leaf).fetch_optional(db).await?;
    Ok(found.flatten())
}

/// What shows that the proposal at this place has its effect.
pub async fn activation(db: &mut SqliteConnection, leaf: u64) -> anyhow::Result<Vec<u8>> {
    let activation = find_activation(db, leaf).await?;
    activation.with_context(|| format!("no activation is kept of authority entry {leaf}"))
}

/// Notes which statement made the state of this epoch.
pub async fn add_state(db: &mut SqliteConnection, epoch: u64, leaf: u64) -> anyhow::Result<()> {
    sqlx::query("INSERT INTO authority_state (epoch, leaf) VALUES (?, ?) ON CONFLICT DO NOTHING")
        .bind(signed(epoch)?)
        .bind(signed(leaf)?)
        .execute(db)
        .await?;
    Ok(())
}

/// The activation that made the state of this epoch, if there is one.
pub async fn state(db: &mut SqliteConnection, epoch: u64) -> anyhow::Result<Option<Vec<u8>>> {
    let Ok(epoch) = signed(epoch) else {
        return Ok(None);
    };
    let query = "SELECT activation FROM authority_state s JOIN proposal p ON p.leaf = s.leaf WHERE s.epoch = ?";
    let found: Option<Option<Vec<u8>>> = sqlx::query_scalar(query)
        .bind(epoch)
        .fetch_optional(db)
        .await?;
    Ok(found.flatten())
}

impl Logged {
    fn from_columns(row: &SqliteRow) -> anyhow::Result<Self> {
        let proof: Option<Vec<u8>> = row.try_get("proof")?;
        let proof = proof.map(String::from_utf8).transpose();
        Ok(Self {
            leaf: unsigned(row.try_get("leaf")?)?,
            proof: proof.context("a stored proof is no text")?,
        })
    }
}
