//! How the witnesses of the logs answered last.

use sqlx::Row;
use sqlx::sqlite::SqliteConnection;

use super::{Id, id, signed, unsigned};

/// One witness of one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its key.
    pub witness_pub: Id,
    /// How many entries it has cosigned, or says that it has.
    pub size: u64,
    /// When it last cosigned, unix seconds.
    pub cosigned_at: Option<u64>,
    /// What is wrong, and since when.
    pub problem: Option<(String, u64)>,
}

/// All that were ever asked about this log, by its number.
pub async fn list(db: &mut SqliteConnection, log: i64) -> anyhow::Result<Vec<Seen>> {
    sqlx::query("SELECT * FROM witness WHERE log = ? ORDER BY witness_pub")
        .bind(log)
        .fetch_all(db)
        .await?
        .iter()
        .map(|row| {
            let problem: Option<String> = row.try_get("problem")?;
            let since: Option<i64> = row.try_get("problem_at")?;
            let since = since.map(unsigned).transpose()?.unwrap_or_default();
            let cosigned_at: Option<i64> = row.try_get("cosigned_at")?;
            Ok(Seen {
                witness_pub: id(row.try_get("witness_pub")?)?,
                size: unsigned(row.try_get("size")?)?,
                cosigned_at: cosigned_at.map(unsigned).transpose()?,
                problem: problem.map(|problem| (problem, since)),
            })
        })
        .collect()
}

/// It has cosigned a head of this size.
pub async fn cosigned(
    db: &mut SqliteConnection,
    (log, witness_pub): (i64, &Id),
    size: u64,
    now: u64,
) -> anyhow::Result<()> {
    sqlx::query(
        "INSERT INTO witness (log, witness_pub, size, cosigned_at) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (log, witness_pub) DO UPDATE SET size = ?3, cosigned_at = ?4, problem = NULL, problem_at = NULL",
    )
    .bind(log)
    .bind(&witness_pub[..])
    .bind(signed(size)?)
    .bind(signed(now)?)
    .execute(db)
    .await?;
    Ok(())
}

/// It did not cosign: a word for why, and at which size it says that it is, if it does. The first time of the same problem stays.
pub async fn failed(
    db: &mut SqliteConnection,
    (log, witness_pub): (i64, &Id),
    (problem, size): (&str, Option<u64>),
    now: u64,
) -> anyhow::Result<()> {
    sqlx::query(
        "INSERT INTO witness (log, witness_pub, size, problem, problem_at) VALUES (?1, ?2, coalesce(?3, 0), ?4, ?5)
         ON CONFLICT (log, witness_pub) DO UPDATE SET size = coalesce(?3, size), problem = ?4,
            problem_at = CASE WHEN problem IS ?4 THEN problem_at ELSE ?5 END",
    )
    .bind(log)
    .bind(&witness_pub[..])
    .bind(size.map(signed).transpose()?)
    .bind(problem)
    .bind(signed(now)?)
    .execute(db)
    .await?;
    Ok(())
}
