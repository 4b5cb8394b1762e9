//! Gateways as statements: whoever adds one shows that enough people approved it, and every lease that names it carries that with the
//! log's proof, for its router to judge.

use std::net::IpAddr;

use anyhow::Context;
use sqlx::sqlite::SqliteConnection;
use trust::{Activation, Anchors, GatewayRecord, Proposal};

use crate::failure::{Blame, Failure};
use crate::store::gateways::{self, Gateway};
use crate::store::{Id, is_word, proposals};

/// Indexes a gateway that routers would take, by the trust file that they have.
pub async fn add(
    db: &mut SqliteConnection,
    activation: &Activation,
    anchors: &Anchors,
    now: u64,
) -> anyhow::Result<GatewayRecord> {
    let refused = |sentence: String| Failure::new(Blame::Failed, sentence);
    let record = anchors
        .verify_gateway(activation, now)
        .map_err(|error| refused(format!("no gateway is added: {error}")))?
        .into_inner();
    if !is_word(&record.name, 32) || !is_word(&record.pop, 32) {
        let sentence =
            "no gateway is added: its name and its pop are 1 to 32 letters, digits, - or _";
        return Err(refused(sentence.to_owned()).into());
    }
    let gateway_id = record.id();
    let logged = proposals::find(db, &Proposal::id(&activation.proposal)).await?;
    let known = gateways::find(db, &gateway_id).await?;
    if let (Some(known), Some(logged)) = (&known, &logged)
        && known.leaf == logged.leaf
    {
        // The same statement, with the word of others.
        proposals::activate(db, logged.leaf, &activation.to_bytes()).await?;
        return Ok(record);
    }
    if gateways::is_taken(db, &gateway_id, &record.name).await? {
        return Err(refused(format!(
            "a gateway with the name {} or with this key is there already; see `gateway list`",
            record.name
        ))
        .into());
    }
    let logged = logged.ok_or_else(|| {
        let sentence =
            "no gateway is added: its proposal is not in this server's log; see `log add`";
        refused(sentence.to_owned())
    })?;
    proposals::activate(db, logged.leaf, &activation.to_bytes()).await?;
    let gateway = Gateway {
        gateway_id,
        name: record.name.clone(),
        pop: record.pop.clone(),
        leaf: logged.leaf,
        added_at: now,
    };
    gateways::add(db, &gateway, &record.shards).await?;
    Ok(record)
}

/// What the statement of a gateway says.
pub async fn record(db: &mut SqliteConnection, gateway_id: &Id) -> anyhow::Result<GatewayRecord> {
    let proposal = Proposal::from_bytes(&activation(db, gateway_id).await?.proposal)?;
    Ok(GatewayRecord::from_bytes(&proposal.body)?)
}

/// The statement of a gateway, with who approved it and the proof of when it was logged.
pub async fn activation(db: &mut SqliteConnection, gateway_id: &Id) -> anyhow::Result<Activation> {
    let gateway = gateways::find(db, gateway_id).await?;
    let leaf = gateway.context("there is no such gateway")?.leaf;
    Ok(Activation::from_bytes(
        &proposals::activation(db, leaf).await?,
    )?)
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
