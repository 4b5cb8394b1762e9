//! Pools as they were when their first address was given out: an address belongs to one device for ever,
//! so a pool that a configuration names must stay what it was.

use std::net::IpAddr;

use anyhow::Context;
use ipnet::{Ipv4Net, Ipv6Net};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::unsigned;
use crate::assign::{Candidate, Pool};
use crate::failure::{Blame, Failure};

/// Notes the configured pools and refuses one that gives out other addresses than it did before.
pub async fn register(db: &mut SqliteConnection, pools: &[Pool]) -> anyhow::Result<()> {
    for pool in pools {
        let (net_v4, net_v6) = columns(pool);
        sqlx::query(
            "INSERT INTO pool (pop, shard, net_v4, net_v6) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(&pool.pop)
        .bind(pool.shard)
        .bind(&net_v4[..])
        .bind(&net_v6[..])
        .execute(&mut *db)
        .await?;
    }
    let known = list(db).await?;
    for pool in pools {
        let before = known.iter().find(|known| known.shard == pool.shard);
        let before = before.context("a pool that was just registered is gone")?;
        if before != pool {
            let sentence = format!(
                "pool: shard {} gave out addresses of {} and {} in {}, and must go on doing so; \
                 give a shard that is new to the new networks",
                pool.shard, before.v4, before.v6, before.pop
            );
            return Err(Failure::new(Blame::Config, sentence).into());
        }
        let overlapping = known.iter().find(|known| {
            let overlap = known.v4.contains(&pool.v4)
                || pool.v4.contains(&known.v4)
                || known.v6.contains(&pool.v6)
                || pool.v6.contains(&known.v6);
            known.shard != pool.shard && overlap
        });
        if let Some(other) = overlapping {
            let sentence = format!(
                "pool: shard {} shares addresses with shard {}, which gave some out already",
                pool.shard, other.shard
            );
            return Err(Failure::new(Blame::Config, sentence).into());
        }
    }
    Ok(())
}

/// What decides which shard of a point of presence gets the next device.
pub async fn candidates(
    db: &mut SqliteConnection,
    pop: &str,
    taken: &[IpAddr],
) -> anyhow::Result<Vec<Candidate>> {
    let rows = sqlx::query(
        "SELECT pool.*,
                (SELECT count(*) FROM device d WHERE d.shard = pool.shard) AS devices,
                (SELECT max(pool_offset) FROM device d WHERE d.shard = pool.shard) AS last,
                EXISTS (SELECT 1 FROM gateway_shard g JOIN gateway USING (gateway_id)
                        WHERE g.shard = pool.shard AND gateway.pop = pool.pop) AS served
         FROM pool WHERE pop = ? ORDER BY shard",
    );
    rows.bind(pop)
        .fetch_all(db)
        .await?
        .iter()
        .map(|row| {
            let pool = from_columns(row)?;
            Ok(Candidate {
                shard: pool.shard,
                devices: unsigned(row.try_get("devices")?)?,
                offset: pool.next_offset(row.try_get("last")?, taken),
                served: row.try_get("served")?,
            })
        })
        .collect()
}

/// The pool of a shard.
pub async fn find(db: &mut SqliteConnection, shard: u32) -> anyhow::Result<Option<Pool>> {
    sqlx::query("SELECT * FROM pool WHERE shard = ?")
        .bind(shard)
        .fetch_optional(db)
        .await?
        .map(|row| from_columns(&row))
        .transpose()
}

async fn list(db: &mut SqliteConnection) -> anyhow::Result<Vec<Pool>> {
    let rows = sqlx::query("SELECT * FROM pool ORDER BY shard")
        .fetch_all(db)
        .await?;
    rows.iter().map(from_columns).collect()
}

fn columns(pool: &Pool) -> ([u8; 5], [u8; 17]) {
    let mut net_v4 = [pool.v4.prefix_len(); 5];
    net_v4[..4].copy_from_slice(&pool.v4.network().octets());
    let mut net_v6 = [pool.v6.prefix_len(); 17];
    net_v6[..16].copy_from_slice(&pool.v6.network().octets());
    (net_v4, net_v6)
}

fn from_columns(row: &SqliteRow) -> anyhow::Result<Pool> {
    const WRONG: &str = "the database holds a pool that is not a network";
    let (prefix_v4, net_v4) = row
        .try_get::<&[u8], _>("net_v4")?
        .split_last()
        .context(WRONG)?;
    let (prefix_v6, net_v6) = row
        .try_get::<&[u8], _>("net_v6")?
        .split_last()
        .context(WRONG)?;
    Ok(Pool {
        pop: row.try_get("pop")?,
        shard: row.try_get("shard")?,
        v4: Ipv4Net::new(
            <[u8; 4]>::try_from(net_v4).context(WRONG)?.into(),
            *prefix_v4,
        )?,
        v6: Ipv6Net::new(
            <[u8; 16]>::try_from(net_v6).context(WRONG)?.into(),
            *prefix_v6,
        )?,
    })
}

/// Pools that were ever configured.
pub async fn count(db: &mut SqliteConnection) -> anyhow::Result<u64> {
    unsigned(
        sqlx::query_scalar("SELECT count(*) FROM pool")
            .fetch_one(db)
            .await?,
    )
}
