//! The heads of a log: the one that is sealed last, over all entries, and the one that is published, which as many have cosigned as the
//! trust file asks for. They are the same where this server's own cosignature suffices.

use anyhow::{Context, anyhow};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use trust::{Anchors, Cosigner, LogSigner, Policy, SignedCheckpoint};

use super::{Log, proofs, size, walk};
use crate::store::{proposals, signed, unsigned};

/// The keys that seal a head, and who else has to cosign it.
#[derive(Debug)]
pub struct LogKeys {
    /// Signs heads of the fleet log.
    pub fleet: LogSigner,
    /// Signs heads of the authority log.
    pub authority: LogSigner,
    /// Says when this server saw a head.
    pub cosigner: Cosigner,
    /// Whom routers believe.
    pub anchors: Anchors,
}

impl LogKeys {
    fn signer(&self, log: Log) -> &LogSigner {
        match log {
            Log::Fleet => &self.fleet,
            Log::Authority => &self.authority,
        }
    }
}

/// A head of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Number of entries.
    pub size: u64,
    /// The time of this server's cosignature, unix seconds; it never goes back.
    pub stamp: u64,
    /// The signed and cosigned checkpoint.
    pub statement: Vec<u8>,
}

/// Which of a log's heads.
#[derive(Clone, Copy)]
enum Place {
    /// Shown to everybody.
    Published,
    /// Sealed, and yet to be cosigned by others.
    Next,
}

impl Head {
    /// The checkpoint as text.
    pub fn text(&self) -> anyhow::Result<&str> {
        std::str::from_utf8(&self.statement).context("a stored checkpoint is not text")
    }

    /// The checkpoint.
    pub fn checkpoint(&self) -> anyhow::Result<SignedCheckpoint> {
        Ok(SignedCheckpoint::parse(self.text()?)?)
    }

    fn from_columns(row: &SqliteRow) -> anyhow::Result<Self> {
        Ok(Self {
            size: unsigned(row.try_get("size")?)?,
            stamp: unsigned(row.try_get("stamp")?)?,
            statement: row.try_get("statement")?,
        })
    }
}

/// The policy of a log in a trust file.
#[must_use]
pub fn policy(anchors: &Anchors, log: Log) -> &Policy {
    match log {
        Log::Fleet => &anchors.fleet,
        Log::Authority => &anchors.authority,
    }
}

/// Signs and cosigns the head over all entries, and publishes it where that is enough. A clock that went back repeats the last time.
pub async fn seal(
    db: &mut SqliteConnection,
    log: Log,
    keys: &LogKeys,
    now: u64,
) -> anyhow::Result<()> {
    let size = size(db, log).await?;
    let root = walk(db, log, |node| trust::root_of(size, node)).await?;
    let root = root.context("the log lacks the hash of a subtree")?;
    let stamp = latest(db, log)
        .await?
        .map_or(now, |head| head.stamp.max(now));
    let checkpoint = keys.signer(log).sign_checkpoint(size, root);
    let sealed = keys.cosigner.cosign(&checkpoint, stamp);
    let head = Head {
        size,
        stamp,
        statement: sealed.text().into_bytes(),
    };
    match policy(&keys.anchors, log).verify_checkpoint(&sealed) {
        Ok(_) => publish(db, log, &head).await,
        Err(trust::ProofError::NoQuorum) => set(db, log, Place::Next, &head).await,
        Err(error) => Err(anyhow!(error).context("the trust file is not about this server's keys")),
    }
}

/// Shows a head to everybody that enough have cosigned, and with it that the proposals below it are logged.
pub async fn publish(db: &mut SqliteConnection, log: Log, head: &Head) -> anyhow::Result<()> {
    set(db, log, Place::Published, head).await?;
    sqlx::query("DELETE FROM log_next WHERE log = ? AND size <= ?")
        .bind(log.number())
        .bind(signed(head.size)?)
        .execute(&mut *db)
        .await?;
    if log == Log::Authority {
        let unproved = proposals::unproved(db, head.size).await?;
        let proofs = proofs(db, log, &unproved).await?;
        for (leaf, proof) in unproved.iter().zip(proofs) {
            proposals::prove(db, *leaf, &proof).await?;
        }
    }
    Ok(())
}

/// The published head; none before the first is.
pub async fn head(db: &mut SqliteConnection, log: Log) -> anyhow::Result<Option<Head>> {
    get(db, log, Place::Published).await
}

/// The sealed head that others have yet to cosign, if there is one.
pub async fn next(db: &mut SqliteConnection, log: Log) -> anyhow::Result<Option<Head>> {
    get(db, log, Place::Next).await
}

/// The head over all entries; none before `init` is through.
pub async fn latest(db: &mut SqliteConnection, log: Log) -> anyhow::Result<Option<Head>> {
    match next(db, log).await? {
        None => head(db, log).await,
        next => Ok(next),
    }
}

/// Whether everybody can see the entry at this place.
pub async fn is_published(db: &mut SqliteConnection, log: Log, leaf: u64) -> anyhow::Result<bool> {
    Ok(head(db, log).await?.is_some_and(|head| leaf < head.size))
}

async fn get(db: &mut SqliteConnection, log: Log, place: Place) -> anyhow::Result<Option<Head>> {
    let query = match place {
        Place::Published => "SELECT size, stamp, statement FROM log_head WHERE log = ?",
        Place::Next => "SELECT size, stamp, statement FROM log_next WHERE log = ?",
    };
    let row = sqlx::query(query).bind(log.number()).fetch_optional(db);
    row.await?.map(|row| Head::from_columns(&row)).transpose()
}

async fn set(db: &mut SqliteConnection, log: Log, place: Place, head: &Head) -> anyhow::Result<()> {
    let query = match place {
        Place::Published => {
            "INSERT INTO log_head (log, size, stamp, statement) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (log) DO UPDATE SET size = ?2, stamp = ?3, statement = ?4"
        }
        Place::Next => {
            "INSERT INTO log_next (log, size, stamp, statement) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (log) DO UPDATE SET size = ?2, stamp = ?3, statement = ?4"
        }
    };
    sqlx::query(query)
        .bind(log.number())
        .bind(signed(head.size)?)
        .bind(signed(head.stamp)?)
        .bind(&head.statement[..])
        .execute(db)
        .await?;
    Ok(())
}
