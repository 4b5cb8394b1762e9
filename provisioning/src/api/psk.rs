//! What routers and gateways call to agree pre-shared keys. A router does it on the connection over which it has just got
//! its lease; that is all the right it needs.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use trust::Lease;

use super::devices::read_cbor;
use super::document::Octets;
use super::shards::authenticate;
use super::{Api, Problem, cbor};
use crate::clock::unix_now;
use crate::connection::Connection;
use crate::enrol::Leased;
use crate::psk::{self, NotCarried};
use crate::store::{gateways, leases};

/// Takes the statement of the gateway's present ML-KEM key.
#[utoipa::path(
    post, path = "/v1/gateway/kem", tag = "gateways",
    request_body(content = Octets, description = "Signed KemStatement", content_type = "application/cbor"),
    security(("gateway-key" = [])),
    responses(
        (status = 200, description = "It is handed to routers from now on"),
        (status = 400, description = "malformed", body = Problem),
        (
            status = 401, description = "not-signed", body = Problem,
            headers(("www-authenticate" = String, description = "How to sign"))
        ),
        (status = 403, description = "gateway-unknown, proof-invalid", body = Problem),
        (status = 408, description = "too-slow", body = Problem),
        (status = 413, description = "too-large", body = Problem),
        (status = 415, description = "wrong-type", body = Problem),
        (status = 503, description = "busy, storage-full, unavailable", body = Problem)
    )
)]
pub(super) async fn statement(
    State(api): State<Api>,
    Extension(connection): Extension<Arc<Connection>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let answered = async {
        let gateway = authenticate(&connection, &headers)?;
        let known = async { gateways::find(&mut *api.store.read().await?, &gateway).await };
        let known = known.await.map_err(|error| Problem::internal(&error))?;
        if known.is_none() {
            return Err(Problem::gateway_unknown());
        }
        let bytes = read_cbor(&headers, body).await?;
        let parcel = psk::statement(&bytes, &gateway, unix_now()).map_err(not_carried)?;
        api.jobs.carry(parcel).await.map_err(Problem::not_done)
    };
    counted(&api, "kem", answered.await.map(|()| ().into_response()))
}

/// The ML-KEM statements of the lease's gateways; those that have none are left out.
#[utoipa::path(
    post, path = "/v1/psk/keys", tag = "devices",
    responses(
        (status = 200, description = "SignedList of KemStatement", content_type = "application/cbor", body = Octets),
        (status = 403, description = "proof-invalid", body = Problem),
        (status = 503, description = "unavailable", body = Problem)
    )
)]
pub(super) async fn keys(
    State(api): State<Api>,
    Extension(connection): Extension<Arc<Connection>>,
) -> Result<Response, Problem> {
    let answered = async {
        let leased = connection.leased().ok_or_else(Problem::proof_invalid)?;
        let lease = lease_of(&api, &leased).await?;
        let statements = async {
            let mut db = api.store.read().await?;
            psk::statements(&mut db, &lease, unix_now()).await
        };
        statements
            .await
            .map_err(|error| Problem::internal(&error))
            .map(|statements| cbor(statements.to_bytes()))
    };
    counted(&api, "kem-keys", answered.await)
}

/// Takes offers to gateways of the lease, once for each lease that was got over this connection.
#[utoipa::path(
    post, path = "/v1/psk", tag = "devices",
    request_body(content = Octets, description = "SignedList of PskOffer", content_type = "application/cbor"),
    responses(
        (status = 200, description = "They are in the gateways' streams"),
        (status = 400, description = "malformed", body = Problem),
        (status = 403, description = "proof-invalid", body = Problem),
        (status = 408, description = "too-slow", body = Problem),
        (status = 413, description = "too-large", body = Problem),
        (status = 415, description = "wrong-type", body = Problem),
        (status = 503, description = "busy, storage-full, unavailable", body = Problem)
    )
)]
pub(super) async fn offers(
    State(api): State<Api>,
    Extension(connection): Extension<Arc<Connection>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let answered = async {
        let bytes = read_cbor(&headers, body).await?;
        let leased = connection
            .take_leased()
            .ok_or_else(Problem::proof_invalid)?;
        let lease = lease_of(&api, &leased).await?;
        let parcel = psk::offers(&bytes, &lease).map_err(not_carried)?;
        api.jobs.carry(parcel).await.map_err(Problem::not_done)
    };
    counted(
        &api,
        "psk-offers",
        answered.await.map(|()| ().into_response()),
    )
}

async fn lease_of(api: &Api, leased: &Leased) -> Result<Lease, Problem> {
    let lease = async {
        let mut db = api.store.read().await?;
        let issued = leases::find(&mut db, &leased.devid_hash, leased.epoch).await?;
        anyhow::Ok(
            issued
                .map(|issued| Lease::from_bytes(&issued.statement))
                .transpose()?,
        )
    };
    lease
        .await
        .map_err(|error| Problem::internal(&error))?
        .ok_or_else(Problem::proof_invalid)
}

fn not_carried(why: NotCarried) -> Problem {
    tracing::debug!("nothing is carried: {why}");
    match why {
        NotCarried::Malformed(_) => Problem::malformed(),
        NotCarried::Statement(_) | NotCarried::Offer(_) => Problem::proof_invalid(),
    }
}

fn counted(
    api: &Api,
    done: &'static str,
    answered: Result<Response, Problem>,
) -> Result<Response, Problem> {
    let outcome = answered.as_ref().map_or_else(Problem::code, |_| done);
    api.metrics.requests.with(outcome).inc();
    answered
}
