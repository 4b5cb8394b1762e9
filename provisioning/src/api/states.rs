//! The states of the authority, for routers and for everybody.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use trust::{Activation, Approval, SshSig};

use super::document::Octets;
use super::{Api, CBOR, Problem};
use crate::store::proposals;

/// What was shown stays so; the next epoch may come at any time.
const CACHE: &str = "public, max-age=86400";

/// The signatures that give a proposal its effect, each as `ssh-keygen -Y sign` writes it, one after the other.
#[utoipa::path(
    get, path = "/v1/authority/entries/{index}/signatures", tag = "logs",
    params(("index" = u64, Path, format = "uint64", description = "The proposal's place in the authority log")),
    responses(
        (status = 200, description = "Armored SSH signatures", content_type = "text/plain", body = String),
        (status = 404, description = "not-found", body = Problem),
        (status = 503, description = "unavailable", body = Problem)
    )
)]
pub(super) async fn signatures(
    State(api): State<Api>,
    index: Result<Path<u64>, PathRejection>,
) -> Result<Response, Problem> {
    let Ok(Path(index)) = index else {
        return Err(Problem::not_found("an index is a number"));
    };
    let found = async {
        let mut db = api.store.read().await?;
        let found = proposals::find_activation(&mut db, index).await?;
        let read = found.as_deref().map(Activation::from_bytes).transpose()?;
        anyhow::Ok(read)
    };
    let found = found.await.map_err(|error| Problem::internal(&error))?;
    let found = found.ok_or_else(|| Problem::not_found("nothing has its effect by this entry"))?;
    let armored = |approval: &Approval| SshSig::armor(&approval.sshsig);
    let text: String = found.approvals.iter().map(armored).collect();
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}

/// The activation that made the state of this epoch, from 1 on; its proposal's body is the state's text.
#[utoipa::path(
    get, path = "/v1/authority/states/{epoch}", tag = "devices",
    params(("epoch" = u64, Path, format = "uint64", description = "From 1 on")),
    responses(
        (
            status = 200, description = "Activation", content_type = "application/cbor", body = Octets,
            headers(("cache-control" = String, description = "It stays as it is"))
        ),
        (status = 404, description = "not-found", body = Problem),
        (status = 503, description = "unavailable", body = Problem)
    )
)]
pub(super) async fn state(
    State(api): State<Api>,
    epoch: Result<Path<u64>, PathRejection>,
) -> Result<Response, Problem> {
    let Ok(Path(epoch)) = epoch else {
        return Err(Problem::not_found("an epoch is a number"));
    };
    let found = async {
        let mut db = api.store.read().await?;
        proposals::state(&mut db, epoch).await
    };
    let found = found.await.map_err(|error| Problem::internal(&error))?;
    let found = found.ok_or_else(|| Problem::not_found("there is no state of this epoch"))?;
    Ok(([(CONTENT_TYPE, CBOR), (CACHE_CONTROL, CACHE)], found).into_response())
}
