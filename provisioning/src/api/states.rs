//! The states of the authority, for routers and for everybody.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use super::{Api, CBOR, Problem};
use crate::store::proposals;

/// What was shown stays so; the next epoch may come at any time.
const CACHE: &str = "public, max-age=86400";

/// The activation that made the state of this epoch, from 1 on; its proposal's body is the state's text.
#[utoipa::path(
    get, path = "/v1/authority/states/{epoch}", tag = "devices",
    params(("epoch" = u64, Path, description = "From 1 on")),
    responses(
        (status = 200, description = "Activation", content_type = "application/cbor", body = Vec<u8>),
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
