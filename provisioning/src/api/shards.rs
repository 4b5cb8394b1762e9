//! What gateways call: the stream of a shard, from where they left off. With `wait`, the answer comes as soon as
//! there is something to say.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Extension;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::response::Response;
use serde::Deserialize;
use tokio::time::Instant;
use trust::bundle::MAX_PAGE_ENTRIES;
use trust::{ChannelProof, ShardEntry, ShardPage};
use utoipa::IntoParams;

use super::document::Octets;
use super::{Api, Problem, cbor};
use crate::connection::Connection;
use crate::log::{self, Log};
use crate::store::stream::{self, Content, EntryKind, StreamEntry};
use crate::store::{Id, gateways};

/// Below what proxies and NATs on the way tolerate in silence.
const MAX_WAIT_S: u64 = 25;
const ROLE: &str = "gateway";

/// Where to begin, and how long to wait.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Position {
    /// The first sequence number wanted; `next` of the page before.
    #[serde(default)]
    #[param(format = "int64", maximum = 9223372036854775807_i64)]
    from: u64,
    /// Seconds to wait for an entry when there is none yet.
    #[serde(default)]
    #[param(format = "uint64", maximum = 25)]
    wait: u64,
}

/// A page of a shard's stream, at most 1000 entries, proved under the published head of the fleet log. Where the stream ends before
/// `from`, as the database was put back, the page is an empty one from that end: the gateway reads from the start.
#[utoipa::path(
    get, path = "/v1/shard/{id}", tag = "gateways",
    params(("id" = u32, Path, format = "uint32", maximum = 4294967295_u32, description = "A shard that the gateway serves"), Position),
    security(("gateway-key" = [])),
    responses(
        (status = 200, description = "ShardPage", content_type = "application/cbor", body = Octets),
        (status = 400, description = "bad-query", body = Problem),
        (
            status = 401, description = "not-signed", body = Problem,
            headers(("www-authenticate" = String, description = "How to sign"))
        ),
        (status = 403, description = "gateway-unknown, shard-forbidden", body = Problem),
        (status = 404, description = "not-found", body = Problem),
        (status = 503, description = "unavailable", body = Problem)
    )
)]
pub(super) async fn page(
    State(api): State<Api>,
    Extension(connection): Extension<Arc<Connection>>,
    shard: Result<Path<u32>, PathRejection>,
    position: Result<Query<Position>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let answered = async {
        let gateway = authenticate(&connection, &headers)?;
        let Ok(Path(shard)) = shard else {
            return Err(Problem::not_found("a shard is a number"));
        };
        let Ok(Query(position)) = position else {
            return Err(Problem::bad_query("from and wait are whole numbers"));
        };
        if position.wait > MAX_WAIT_S {
            return Err(Problem::bad_query("wait is at most 25 seconds"));
        }
        authorise(&api, &gateway, shard).await?;
        wait_for_page(&api, &gateway, shard, &position).await
    };
    let answered = answered.await;
    let outcome = answered.as_ref().map_or_else(Problem::code, |_| "page");
    api.metrics.requests.with(outcome).inc();
    answered.map(|page| cbor(page.to_bytes()))
}

pub(super) fn authenticate(connection: &Connection, headers: &HeaderMap) -> Result<Id, Problem> {
    headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.parse::<ChannelProof>().ok())
        .and_then(|proof| proof.verify(ROLE, connection.exporter()).ok())
        .ok_or_else(Problem::not_signed)
}

async fn authorise(api: &Api, gateway: &Id, shard: u32) -> Result<(), Problem> {
    let serves = async {
        let mut db = api.store.read().await?;
        gateways::serves(&mut db, gateway, shard).await
    };
    match serves.await.map_err(|error| Problem::internal(&error))? {
        Some(true) => Ok(()),
        Some(false) => Err(Problem::shard_forbidden()),
        None => Err(Problem::gateway_unknown()),
    }
}

async fn wait_for_page(
    api: &Api,
    gateway: &Id,
    shard: u32,
    position: &Position,
) -> Result<ShardPage, Problem> {
    let deadline = Instant::now() + Duration::from_secs(position.wait);
    let mut changes = api.changes.subscribe();
    let mut stop = api.stop.clone();
    let _waiting = Waiting::count(api);
    loop {
        changes.mark_unchanged();
        let page = read_page(api, gateway, shard, position.from).await;
        let page = page.map_err(|error| Problem::internal(&error))?;
        let is_news = !page.entries.is_empty() || page.from != position.from;
        if is_news || Instant::now() >= deadline || *stop.borrow() {
            return Ok(page);
        }
        tokio::select! {
            // Both senders live as long as the server.
            _ = changes.changed() => {}
            _ = stop.changed() => {}
            () = tokio::time::sleep_until(deadline) => {}
        }
    }
}

struct Waiting<'a>(&'a telemetry::Gauge);

impl<'a> Waiting<'a> {
    fn count(api: &'a Api) -> Self {
        api.metrics.streams.inc();
        Self(&api.metrics.streams)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

async fn read_page(api: &Api, gateway: &Id, shard: u32, from: u64) -> anyhow::Result<ShardPage> {
    let mut db = api.store.read().await?;
    let end = stream::end(&mut db, shard).await?;
    if from > end {
        // The gateway has heard more than this database holds, which was put back; a page from elsewhere lets it begin anew.
        return Ok(ShardPage {
            shard,
            from: end,
            next: end,
            entries: Vec::new(),
        });
    }
    let max = u32::try_from(MAX_PAGE_ENTRIES)?;
    let mut found = stream::page(&mut db, gateway, shard, from, max).await?;
    // What follows an entry that others have yet to cosign waits with it: a stream is read in its order.
    let head = log::head(&mut db, Log::Fleet).await?;
    let size = head.map_or(0, |head| head.size);
    let is_held = |entry: &StreamEntry| leaf(entry).is_some_and(|leaf| leaf >= size);
    let until = found.iter().position(is_held).unwrap_or(found.len());
    found.truncate(until);
    let next = found.last().map_or(from, |last| last.seq + 1);
    let leaves: Vec<u64> = found.iter().filter_map(leaf).collect();
    let mut proofs = if leaves.is_empty() {
        Vec::new()
    } else {
        log::proofs(&mut db, Log::Fleet, &leaves).await?
    }
    .into_iter();
    let mut entries = Vec::with_capacity(found.len());
    for entry in found {
        entries.push(match entry.content {
            Content::Psk { offer } => ShardEntry::Psk { offer },
            Content::Logged {
                kind,
                statement,
                salt,
                ..
            } => {
                let proof = proofs.next().context("the log gave too few proofs")?;
                proved(kind, statement, salt, proof)
            }
        });
    }
    Ok(ShardPage {
        shard,
        from,
        next,
        entries,
    })
}

fn leaf(entry: &StreamEntry) -> Option<u64> {
    match &entry.content {
        Content::Logged { leaf, .. } => Some(*leaf),
        Content::Psk { .. } => None,
    }
}

fn proved(kind: EntryKind, statement: Vec<u8>, salt: Id, proof: String) -> ShardEntry {
    match kind {
        EntryKind::Lease => ShardEntry::Lease {
            lease: statement,
            salt,
            proof,
        },
        EntryKind::Revocation => ShardEntry::Revocation {
            revocation: statement,
            salt,
            proof,
        },
    }
}
