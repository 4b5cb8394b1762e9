//! Gateways as statements: adding one logs a proposal in the authority log, and every lease that names it
//! carries that proposal with its proof.

use std::net::IpAddr;

use anyhow::Context;
use rand_core::{OsRng, RngCore};
use sqlx::sqlite::SqliteConnection;
use trust::{Activation, GatewayRecord, Kind, Proposal};

use crate::failure::{Blame, Failure};
use crate::log::{self, Log, LogKeys};
use crate::store::gateways::{self, Gateway};
use crate::store::{self, Id};

/// The only authority epoch until the authority state itself is a statement.
const AUTHORITY_EPOCH: u64 = 1;

/// Logs the statement of a gateway and indexes it.
pub async fn add(
    db: &mut SqliteConnection,
    record: &GatewayRecord,
    keys: &LogKeys,
    now: u64,
) -> anyhow::Result<Id> {
    let gateway_id = record.id();
    if gateways::is_taken(db, &gateway_id, &record.name).await? {
        let sentence = format!(
            "a gateway with the name {} or with this key is there already; see `gateway list`",
            record.name
        );
        return Err(Failure::new(Blame::Failed, sentence).into());
    }
    let mut nonce = [0; 32];
    OsRng.fill_bytes(&mut nonce);
    let proposal = Proposal {
        v: trust::VERSION,
        kind: Kind::Gateway,
        body: record.to_bytes(),
        authority_epoch: AUTHORITY_EPOCH,
        nonce,
        created: now,
        not_before: now,
        expires: 0,
        proposer: store::server_name(db).await?,
    };
    let leaf = log::append(db, Log::Authority, &proposal.to_bytes()).await?;
    log::seal(db, Log::Authority, keys, now).await?;
    let gateway = Gateway {
        gateway_id,
        name: record.name.clone(),
        pop: record.pop.clone(),
        leaf,
        added_at: now,
    };
    gateways::add(db, &gateway, &record.shards).await?;
    Ok(gateway_id)
}

/// What the statement of a gateway says.
pub async fn record(db: &mut SqliteConnection, gateway_id: &Id) -> anyhow::Result<GatewayRecord> {
    let proposal = Proposal::from_bytes(&proposal(db, gateway_id).await?.1)?;
    Ok(GatewayRecord::from_bytes(&proposal.body)?)
}

/// The statement of a gateway with the proof that it is logged.
pub async fn activation(db: &mut SqliteConnection, gateway_id: &Id) -> anyhow::Result<Activation> {
    let (leaf, proposal) = proposal(db, gateway_id).await?;
    let proof = log::proofs(db, Log::Authority, &[leaf]).await?;
    Ok(Activation {
        proposal,
        approvals: Vec::new(),
        proof: proof.into_iter().next().context("the log gave no proof")?,
    })
}

/// The inner addresses that the gateways of a point of presence use themselves.
pub async fn inner_addresses(db: &mut SqliteConnection, pop: &str) -> anyhow::Result<Vec<IpAddr>> {
    let mut addresses = Vec::new();
    for gateway in gateways::list(db)
        .await?
        .iter()
        .filter(|gateway| gateway.pop == pop)
    {
        addresses.extend(record(db, &gateway.gateway_id).await?.inner);
    }
    Ok(addresses)
}

async fn proposal(db: &mut SqliteConnection, gateway_id: &Id) -> anyhow::Result<(u64, Vec<u8>)> {
    let gateway = gateways::find(db, gateway_id)
        .await?
        .context("there is no such gateway")?;
    let entry = log::entry(db, Log::Authority, gateway.leaf)
        .await?
        .context("the authority log lacks the statement of a gateway")?;
    Ok((gateway.leaf, entry))
}
