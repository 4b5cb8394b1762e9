//! The two logs, kept in the database beside what they are about, so that one transaction moves both.
//! Entries are appended, the head is sealed once a transaction; proofs and tiles are read from stored hashes,
//! under the head that is published. Layout: <https://c2sp.org/tlog-tiles>.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, ensure};
use sqlx::Row;
use sqlx::sqlite::SqliteConnection;
use trust::{Proof, SignedCheckpoint, Tile, TileKind, leaf_hash};
use utoipa::ToSchema;

use crate::store::{Id, id, signed, unsigned};

mod head;
pub mod replay;

pub use head::{Head, LogKeys, head, is_published, latest, next, policy, publish, seal};

/// A complete subtree: its height, and its position among those of that height.
type Coordinate = (u8, u64);

/// One of the two logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum Log {
    /// Salted hashes of leases and revocations.
    Fleet = 0,
    /// Proposals, such as the statement of a gateway.
    Authority = 1,
}

impl Log {
    /// Both, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Fleet, Self::Authority];

    /// The log's name in addresses and in the origin of its checkpoints.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fleet => "fleet",
            Self::Authority => "authority",
        }
    }

    /// Finds a log by its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|log| log.as_str() == name)
    }

    /// As the database has it.
    pub(crate) fn number(self) -> i64 {
        self as i64
    }
}

/// Appends an entry and returns its index. It counts once the head is sealed over it.
pub async fn append(db: &mut SqliteConnection, log: Log, entry: &[u8]) -> anyhow::Result<u64> {
    let index = size(db, log).await?;
    sqlx::query("INSERT INTO log_entry (log, idx, entry) VALUES (?, ?, ?)")
        .bind(log.number())
        .bind(signed(index)?)
        .bind(entry)
        .execute(&mut *db)
        .await?;
    let leaf = leaf_hash(entry);
    let grown = walk(db, log, |node| trust::append_nodes(index, leaf, node)).await?;
    for node in grown.context("the log lacks the hash of a subtree")? {
        sqlx::query("INSERT INTO log_node (log, level, idx, hash) VALUES (?, ?, ?, ?)")
            .bind(log.number())
            .bind(node.height)
            .bind(signed(node.position)?)
            .bind(&node.hash[..])
            .execute(&mut *db)
            .await?;
    }
    Ok(index)
}

/// Proofs that entries stand in the log, all under its published head.
pub async fn proofs(
    db: &mut SqliteConnection,
    log: Log,
    indices: &[u64],
) -> anyhow::Result<Vec<String>> {
    let head = head(db, log).await?.context("the log has no head")?;
    let checkpoint = SignedCheckpoint::parse(head.text()?)?;
    let paths = walk(db, log, |node| {
        let path = |index: &u64| trust::inclusion_path(*index, head.size, &mut *node);
        indices.iter().map(path).collect::<Option<Vec<_>>>()
    });
    let paths = paths.await?.context("an entry is not in the sealed log")?;
    let proof = |(index, path): (&u64, Vec<Id>)| {
        let checkpoint = checkpoint.clone();
        Proof {
            extra: None,
            index: *index,
            path,
            checkpoint,
        }
        .format()
    };
    Ok(indices.iter().zip(paths).map(proof).collect())
}

/// What shows that the log of `old` entries is a prefix of that of `new` ones; empty where it is not.
pub async fn consistency(
    db: &mut SqliteConnection,
    log: Log,
    (old, new): (u64, u64),
) -> anyhow::Result<Vec<Id>> {
    let path = walk(db, log, |node| trust::consistency_path(old, new, node)).await?;
    Ok(path.unwrap_or_default())
}

/// The bytes of a tile, if the published log has grown that far.
pub async fn tile(
    db: &mut SqliteConnection,
    log: Log,
    tile: &Tile,
) -> anyhow::Result<Option<Vec<u8>>> {
    let published = head(db, log).await?.map_or(0, |head| head.size);
    let range = tile.range();
    let (Ok(begin), Ok(end)) = (signed(range.start), signed(range.end)) else {
        return Ok(None);
    };
    if tile.entries().is_none_or(|entries| entries > published) {
        return Ok(None);
    }
    match tile.kind {
        TileKind::Entries => {
            let entries: Vec<Vec<u8>> = sqlx::query_scalar(
                "SELECT entry FROM log_entry WHERE log = ? AND idx >= ? AND idx < ? ORDER BY idx",
            )
            .bind(log.number())
            .bind(begin)
            .bind(end)
            .fetch_all(db)
            .await?;
            Ok(trust::tiles::entry_bundle(
                entries.iter().map(Vec::as_slice),
            ))
        }
        TileKind::Hashes { level } => {
            let hashes: Vec<Vec<u8>> = sqlx::query_scalar(
                "SELECT hash FROM log_node WHERE log = ? AND level = ? AND idx >= ? AND idx < ? ORDER BY idx",
            )
            .bind(log.number())
            .bind(i64::from(level) * 8)
            .bind(begin)
            .bind(end)
            .fetch_all(db)
            .await?;
            Ok((hashes.len() == usize::from(tile.width)).then(|| hashes.concat()))
        }
    }
}

/// One entry as it was appended.
pub async fn entry(
    db: &mut SqliteConnection,
    log: Log,
    index: u64,
) -> anyhow::Result<Option<Vec<u8>>> {
    let entry = sqlx::query_scalar("SELECT entry FROM log_entry WHERE log = ? AND idx = ?");
    Ok(entry
        .bind(log.number())
        .bind(signed(index)?)
        .fetch_optional(db)
        .await?)
}

async fn size(db: &mut SqliteConnection, log: Log) -> anyhow::Result<u64> {
    let size = sqlx::query_scalar("SELECT 1 + coalesce(max(idx), -1) FROM log_entry WHERE log = ?");
    unsigned(size.bind(log.number()).fetch_one(db).await?)
}

/// Runs a walk over the tree twice: to learn which hashes it needs, and, after one query, with them.
async fn walk<T>(
    db: &mut SqliteConnection,
    log: Log,
    mut steps: impl FnMut(&mut dyn FnMut(u8, u64) -> Option<Id>) -> T,
) -> anyhow::Result<T> {
    let mut wanted = HashSet::new();
    steps(&mut |height, position| {
        wanted.insert((height, position));
        Some([0; 32])
    });
    let known = nodes(db, log, &wanted).await?;
    Ok(steps(&mut |height, position| {
        known.get(&(height, position)).copied()
    }))
}

async fn nodes(
    db: &mut SqliteConnection,
    log: Log,
    wanted: &HashSet<Coordinate>,
) -> anyhow::Result<HashMap<Coordinate, Id>> {
    let coordinates: Vec<Coordinate> = wanted.iter().copied().collect();
    let rows = sqlx::query(
        "SELECT n.level, n.idx, n.hash FROM json_each(?2) j CROSS JOIN log_node n
         ON n.log = ?1 AND n.level = j.value ->> 0 AND n.idx = j.value ->> 1",
    )
    .bind(log.number())
    .bind(serde_json::to_string(&coordinates)?)
    .fetch_all(db)
    .await?;
    let known: HashMap<_, _> = rows
        .iter()
        .map(|row| {
            let at = (row.try_get("level")?, unsigned(row.try_get("idx")?)?);
            Ok((at, id(row.try_get("hash")?)?))
        })
        .collect::<anyhow::Result<_>>()?;
    ensure!(
        known.len() == wanted.len(),
        "the {} log lacks hashes of subtrees",
        log.as_str()
    );
    Ok(known)
}
