//! The two logs for everybody, in the layout of <https://c2sp.org/tlog-tiles>.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use trust::Tile;

use super::document::Octets;
use super::{Api, Problem};
use crate::log::{self, Log};

const IMMUTABLE: &str = "public, max-age=31536000, immutable";
const NO_CACHE: &str = "no-cache";
const LEVEL: &str = "A level of hashes, or entries";

/// The signed and cosigned head of a log.
#[utoipa::path(
    get, path = "/v1/log/{log}/checkpoint", tag = "logs",
    params(("log" = inline(Log), Path, description = "Which log")),
    responses(
        (
            status = 200, description = "A checkpoint", content_type = "text/plain", body = String,
            headers(("cache-control" = String, description = "There is a new one at any time"))
        ),
        (status = 404, description = "not-found", body = Problem),
        (status = 503, description = "unavailable", body = Problem)
    )
)]
pub(super) async fn checkpoint(
    State(api): State<Api>,
    log: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let log = log.map_or(Err(no_log()), |Path(log)| find(&log))?;
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

/// A full tile of hashes or bundle of entries. From index 1000 on its name has slashes, such as x001/234.
#[utoipa::path(
    get, path = "/v1/log/{log}/tile/{level}/{index}", tag = "logs",
    params(
        ("log" = inline(Log), Path, description = "Which log"),
        ("level" = String, Path, description = LEVEL, pattern = "^(entries|[0-9]|[1-5][0-9]|6[0-3])$", example = "entries"),
        ("index" = String, Path, description = "Which one of the level", pattern = "^[0-9]{3}$", example = "000")
    ),
    responses(
        (
            status = 200, description = "The tile", content_type = "application/octet-stream", body = Octets,
            headers(("cache-control" = String, description = "It stays as it is"))
        ),
        (status = 404, description = "not-found", body = Problem),
        (status = 503, description = "unavailable", body = Problem)
    )
)]
pub(super) async fn tile(
    State(api): State<Api>,
    names: Result<Path<(String, String, String)>, PathRejection>,
) -> Result<Response, Problem> {
    let Ok(Path((log, level, index))) = names else {
        return Err(no_tile());
    };
    let log = find(&log)?;
    let tile: Result<Tile, _> = format!("tile/{level}/{index}").parse();
    let tile = tile.map_err(|_| no_tile())?;
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

/// A tile of hashes or a bundle of entries that has so many of 256.
#[utoipa::path(
    get, path = "/v1/log/{log}/tile/{level}/{index}.p/{width}", tag = "logs",
    params(
        ("log" = inline(Log), Path, description = "Which log"),
        ("level" = String, Path, description = LEVEL, pattern = "^(entries|[0-9]|[1-5][0-9]|6[0-3])$", example = "entries"),
        ("index" = String, Path, description = "Which one of the level", pattern = "^[0-9]{3}$", example = "000"),
        ("width" = u8, Path, format = "uint8", description = "How many", minimum = 1, maximum = 255, example = 1)
    ),
    responses(
        (
            status = 200, description = "The tile", content_type = "application/octet-stream", body = Octets,
            headers(("cache-control" = String, description = "It stays as it is"))
        ),
        (status = 404, description = "not-found", body = Problem),
        (status = 503, description = "unavailable", body = Problem)
    )
)]
#[expect(dead_code, reason = "one handler has two descriptions")]
fn partial_tile() {}

fn find(name: &str) -> Result<Log, Problem> {
    Log::from_name(name).ok_or_else(no_log)
}

const fn no_log() -> Problem {
    Problem::not_found("the logs are fleet and authority")
}

const fn no_tile() -> Problem {
    Problem::not_found("this is not a tile's name")
}
