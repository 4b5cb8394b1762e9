//! The two logs for everybody, in the layout of <https://c2sp.org/tlog-tiles>.

use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use trust::Tile;

use super::{Api, Problem};
use crate::log::{self, Log};

const IMMUTABLE: &str = "public, max-age=31536000, immutable";
const NO_CACHE: &str = "no-cache";

/// The signed and cosigned head of a log.
#[utoipa::path(
    get, path = "/v1/log/{log}/checkpoint", tag = "logs",
    params(("log" = String, Path, description = "fleet or authority")),
    responses(
        (status = 200, description = "A checkpoint", content_type = "text/plain", body = String),
        (status = 404, description = "not-found", body = Problem)
    )
)]
pub(super) async fn checkpoint(
    State(api): State<Api>,
    Path(log): Path<String>,
) -> Result<Response, Problem> {
    let log = find(&log)?;
    let head = async {
        let mut db = api.store.read().await?;
        log::head(&mut db, log).await
    };
    match head.await.map_err(|error| Problem::internal(&error))? {
        Some(head) => {
            let headers = [
                (CONTENT_TYPE, "text/plain; charset=utf-8"),
                (CACHE_CONTROL, NO_CACHE),
            ];
            Ok((headers, head.statement).into_response())
        }
        None => Err(Problem::not_found("the log has no head")),
    }
}

/// A tile of hashes or a bundle of entries.
#[utoipa::path(
    get, path = "/v1/log/{log}/{tile}", tag = "logs",
    params(
        ("log" = String, Path, description = "fleet or authority"),
        ("tile" = String, Path, description = "Such as tile/0/x001/234.p/17 or tile/entries/000")
    ),
    responses(
        (status = 200, description = "The tile", content_type = "application/octet-stream", body = Vec<u8>),
        (status = 404, description = "not-found", body = Problem)
    )
)]
pub(super) async fn tile(
    State(api): State<Api>,
    Path((log, tile)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let log = find(&log)?;
    let tile: Tile = tile
        .parse()
        .map_err(|_| Problem::not_found("this is not a tile's name"))?;
    let bytes = async {
        let mut db = api.store.read().await?;
        log::tile(&mut db, log, &tile).await
    };
    match bytes.await.map_err(|error| Problem::internal(&error))? {
        Some(bytes) => {
            let headers = [
                (CONTENT_TYPE, "application/octet-stream"),
                (CACHE_CONTROL, IMMUTABLE),
            ];
            Ok((headers, bytes).into_response())
        }
        None => Err(Problem::not_found("the log has not grown that far")),
    }
}

fn find(name: &str) -> Result<Log, Problem> {
    Log::from_name(name).ok_or_else(|| Problem::not_found("the logs are fleet and authority"))
}
