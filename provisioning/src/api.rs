//! The HTTP API: routes, and beside them the OpenAPI document that is generated from their handlers. Bodies of devices and
//! gateways are CBOR, failures are JSON of one shape.

use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::sync::watch;

use crate::changes::Changes;
use crate::metrics::Metrics;
use crate::sequencer::Jobs;
use crate::store::Store;

mod devices;
mod document;
mod logs;
mod problem;
mod psk;
mod shards;
mod states;

pub(crate) use devices::{NotRead, read_body};
pub use document::openapi_json;
pub use problem::Problem;

/// No request of ours comes near this.
pub const MAX_BODY_BYTES: usize = 16 * 1024;
/// From the end of the header to the end of the body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const CBOR: &str = "application/cbor";

/// What handlers share.
#[derive(Clone, Debug)]
pub struct Api {
    /// Readers.
    pub store: Store,
    /// The way to the one writer.
    pub jobs: Jobs,
    /// Wakes long polls.
    pub changes: Changes,
    /// Counters.
    pub metrics: Metrics,
    /// Turns true when the server stops.
    pub stop: watch::Receiver<bool>,
}

/// The API as a router; each request must carry its connection as an extension.
pub fn router(api: Api) -> Router {
    Router::new()
        .route("/v1/enrol/challenge", post(devices::challenge))
        .route("/v1/enrol", post(devices::enrol))
        .route("/v1/psk/keys", post(psk::keys))
        .route("/v1/psk", post(psk::offers))
        .route("/v1/shard/{id}", get(shards::page))
        .route("/v1/gateway/kem", post(psk::statement))
        .route("/v1/authority/states/{epoch}", get(states::state))
        .route(
            "/v1/authority/entries/{index}/signatures",
            get(states::signatures),
        )
        .route("/v1/log/{log}/checkpoint", get(logs::checkpoint))
        .route("/v1/log/{log}/tile/{level}/{*index}", get(logs::tile))
        .route("/v1/openapi.json", get(document::document))
        .route("/healthz", get(health))
        .fallback(nowhere)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(api)
}

/// Whether the server can read its database.
#[utoipa::path(
    get, path = "/healthz", tag = "server",
    responses(
        (status = 200, description = "It can", content_type = "text/plain", body = String),
        (status = 503, description = "unavailable", body = Problem)
    )
)]
async fn health(State(api): State<Api>) -> Result<&'static str, Problem> {
    match api.store.read().await {
        Ok(_) => Ok("ok\n"),
        Err(error) => Err(Problem::internal(&error)),
    }
}

async fn nowhere() -> Problem {
    Problem::not_found("there is nothing here")
}

async fn wrong_method() -> Problem {
    Problem::wrong_method()
}

fn cbor(body: Vec<u8>) -> Response {
    ([(CONTENT_TYPE, CBOR)], body).into_response()
}
