//! `log verify`: both logs are built again from their entries, and everything that the database says is
//! logged is held against them.

use std::collections::HashMap;

use anyhow::{Context, ensure};
use sqlx::Row;
use sqlx::sqlite::SqliteConnection;
use trust::lease::fleet_entry;
use trust::{Activation, Anchors, GatewayRecord, ProofError, Proposal, Tree};

use super::{Coordinate, Head, Log, entry, head, next, policy};
use crate::store::{Id, gateways, id, leases, proposals, stream, unsigned};

/// What a replay went through, all of it in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Entries of the fleet log.
    pub fleet_entries: u64,
    /// Entries of the authority log.
    pub authority_entries: u64,
    /// Leases whose salted hash is in the log.
    pub leases: u64,
    /// Revocations whose salted hash is in the log.
    pub revocations: u64,
    /// Gateways whose statement is in the log.
    pub gateways: u64,
    /// Entries of all shards' streams.
    pub stream_entries: u64,
}

/// Replays both logs under the policy that images carry.
pub async fn replay(db: &mut SqliteConnection, anchors: &Anchors) -> anyhow::Result<Replayed> {
    let fleet_entries = rebuild(db, Log::Fleet, anchors).await?;
    let authority_entries = rebuild(db, Log::Authority, anchors).await?;
    let mut kinds = HashMap::new();
    let issued = leases::list(db).await?;
    for lease in &issued {
        expect_entry(db, lease.leaf, &lease.salt, &lease.statement).await?;
        kinds.insert(lease.leaf, "lease");
    }
    let revoked = leases::list_revocations(db).await?;
    for revocation in &revoked {
        expect_entry(db, revocation.leaf, &revocation.salt, &revocation.statement).await?;
        kinds.insert(revocation.leaf, "revocation");
    }
    let leaves: u64 = kinds.len().try_into()?;
    ensure!(
        leaves == fleet_entries,
        "the fleet log has entries that nothing accounts for"
    );
    let stream_entries = replay_streams(db, &mut kinds).await?;
    Ok(Replayed {
        fleet_entries,
        authority_entries,
        leases: issued.len().try_into()?,
        revocations: revoked.len().try_into()?,
        gateways: replay_gateways(db).await?,
        stream_entries,
    })
}

async fn rebuild(db: &mut SqliteConnection, log: Log, anchors: &Anchors) -> anyhow::Result<u64> {
    let name = log.as_str();
    let entries: Vec<(i64, Vec<u8>)> =
        sqlx::query_as("SELECT idx, entry FROM log_entry WHERE log = ? ORDER BY idx")
            .bind(log.number())
            .fetch_all(&mut *db)
            .await?;
    let mut tree = Tree::new();
    for (stored, entry) in &entries {
        let index = tree.append(entry);
        ensure!(
            unsigned(*stored)? == index,
            "the {name} log has a gap before entry {stored}"
        );
    }
    let nodes = stored_nodes(db, log).await?;
    for ((height, position), hash) in &nodes {
        let right = tree.node(*height, *position) == Some(*hash);
        ensure!(
            right,
            "the {name} log holds a wrong hash at height {height}, place {position}"
        );
    }
    let complete: u64 = (0..64).map(|height| tree.size() >> height).sum();
    ensure!(
        u64::try_from(nodes.len())? == complete,
        "the {name} log lacks hashes of subtrees"
    );
    let policy = policy(anchors, log);
    let published = head(db, log).await?;
    if let Some(head) = &published {
        policy.verify_checkpoint(&head.checkpoint()?)?;
        expect_head(name, &tree, head)?;
    }
    let next = next(db, log).await?;
    if let Some(head) = &next {
        match policy.verify_checkpoint(&head.checkpoint()?) {
            Ok(_) | Err(ProofError::NoQuorum) => expect_head(name, &tree, head)?,
            Err(error) => return Err(error.into()),
        }
    }
    let last = next.or(published);
    let last = last.with_context(|| format!("the {name} log has no head"))?;
    ensure!(
        last.size == tree.size(),
        "the {name} log has {} entries, but its head says {}",
        tree.size(),
        last.size
    );
    Ok(tree.size())
}

/// Holds a head against the entries that it is over.
fn expect_head(name: &str, tree: &Tree, head: &Head) -> anyhow::Result<()> {
    let signed = head.checkpoint()?;
    let checkpoint = signed.checkpoint();
    ensure!(
        checkpoint.size == head.size,
        "the {name} log's head of {} entries is over {}",
        head.size,
        checkpoint.size
    );
    ensure!(
        tree.root_at(head.size) == Ok(checkpoint.root),
        "the {name} log's entries lead to another root"
    );
    Ok(())
}

async fn stored_nodes(
    db: &mut SqliteConnection,
    log: Log,
) -> anyhow::Result<Vec<(Coordinate, Id)>> {
    let rows = sqlx::query("SELECT level, idx, hash FROM log_node WHERE log = ?");
    rows.bind(log.number())
        .fetch_all(db)
        .await?
        .iter()
        .map(|row| {
            let at = (row.try_get("level")?, unsigned(row.try_get("idx")?)?);
            Ok((at, id(row.try_get("hash")?)?))
        })
        .collect()
}

async fn expect_entry(
    db: &mut SqliteConnection,
    leaf: u64,
    salt: &Id,
    statement: &[u8],
) -> anyhow::Result<()> {
    let entry = entry(db, Log::Fleet, leaf).await?;
    let logged = entry.as_deref() == Some(fleet_entry(salt, statement).as_slice());
    ensure!(
        logged,
        "entry {leaf} of the fleet log is not that of the statement that names it"
    );
    Ok(())
}

async fn replay_streams(
    db: &mut SqliteConnection,
    unseen: &mut HashMap<u64, &'static str>,
) -> anyhow::Result<u64> {
    let entries = stream::list(db).await?;
    let mut next: HashMap<u32, u64> = HashMap::new();
    for (shard, seq, leaf) in &entries {
        // Offers of pre-shared keys stand in between, and leave their places; a lost entry is one that is unseen.
        let expected = next.entry(*shard).or_default();
        ensure!(
            seq >= expected,
            "the stream of shard {shard} goes back at {seq}"
        );
        *expected = seq + 1;
        ensure!(
            unseen.remove(leaf).is_some(),
            "entry {seq} of shard {shard} points at fleet entry {leaf}, which is no statement"
        );
    }
    if let Some((leaf, kind)) = unseen.iter().next() {
        anyhow::bail!("the {kind} of fleet entry {leaf} is in no shard's stream");
    }
    Ok(entries.len().try_into()?)
}

async fn replay_gateways(db: &mut SqliteConnection) -> anyhow::Result<u64> {
    let gateways = gateways::list(db).await?;
    for gateway in &gateways {
        let name = &gateway.name;
        let entry = entry(db, Log::Authority, gateway.leaf)
            .await?
            .with_context(|| format!("the statement of gateway {name} is not in its log"))?;
        let kept = proposals::activation(db, gateway.leaf).await?;
        ensure!(
            Activation::from_bytes(&kept)?.proposal == entry,
            "the activation of gateway {name} is of another statement than the logged one"
        );
        let record = GatewayRecord::from_bytes(&Proposal::from_bytes(&entry)?.body)?;
        let same = record.id() == gateway.gateway_id && record.name == *name;
        ensure!(same, "the statement of gateway {name} is about another one");
    }
    Ok(gateways.len().try_into()?)
}
