//! What routers call: a challenge, then an enrolment on the same connection. Renewal is the same call.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use telemetry::Redacted;
use tokio::time::Instant;
use trust::{EnrolReq, LeaseBundle};

use super::document::Octets;
use super::{Api, BODY_TIMEOUT, CBOR, MAX_BODY_BYTES, Problem, cbor};
use crate::connection::Connection;
use crate::enrol::{self, Issued, Leased, Outcome, Refusal, Request};

/// A router gives up on an answer after twenty seconds.
const COSIGNING_TIME: Duration = Duration::from_secs(10);

/// Opens a challenge on this connection, in place of the one before.
#[utoipa::path(
    post, path = "/v1/enrol/challenge", tag = "devices",
    responses(
        (status = 200, description = "ServerChallenge", content_type = "application/cbor", body = Octets),
        (status = 429, description = "too-many-requests", body = Problem)
    )
)]
pub(super) async fn challenge(
    State(api): State<Api>,
    Extension(connection): Extension<Arc<Connection>>,
) -> Result<Response, Problem> {
    let Ok(challenge) = connection.challenge() else {
        let problem = Problem::too_many_challenges();
        api.metrics.requests.with(problem.code()).inc();
        return Err(problem);
    };
    Ok(cbor(challenge.to_bytes()))
}

/// Enrols a device or renews its lease. The same keys get the same lease, however often they ask.
#[utoipa::path(
    post, path = "/v1/enrol", tag = "devices",
    request_body(content = Octets, description = "EnrolReq", content_type = "application/cbor"),
    responses(
        (status = 200, description = "LeaseBundle", content_type = "application/cbor", body = Octets),
        (status = 400, description = "malformed", body = Problem),
        (status = 403, description = "claim-unknown, claim-spent, claim-expired, device-revoked, device-unknown, tunnel-key-taken, proof-invalid", body = Problem),
        (status = 408, description = "too-slow", body = Problem),
        (status = 409, description = "no-gateway", body = Problem),
        (status = 413, description = "too-large", body = Problem),
        (status = 415, description = "wrong-type", body = Problem),
        (status = 503, description = "busy, storage-full, addresses-exhausted, not-cosigned, unavailable", body = Problem)
    )
)]
pub(super) async fn enrol(
    State(api): State<Api>,
    Extension(connection): Extension<Arc<Connection>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let answered = answer(&api, &connection, &headers, body).await;
    let outcome = match &answered {
        Ok((issued, _)) => match issued {
            Issued::Now => "issued",
            Issued::Before => "repeated",
        },
        Err(problem) => problem.code(),
    };
    api.metrics.enrolments.with(outcome).inc();
    answered.map(|(_, response)| response)
}

async fn answer(
    api: &Api,
    connection: &Connection,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Issued, Response), Problem> {
    let bytes = read_cbor(headers, body).await?;
    let request = EnrolReq::from_bytes(&bytes).map_err(|_| Problem::malformed())?;
    let facts = connection.check(&request).map_err(|error| {
        tracing::debug!("an enrolment proved nothing: {error}");
        Problem::proof_invalid()
    })?;
    let remembered = facts.get().fleet_size;
    let request = Request::new(&facts);
    let device = hex::encode(request.devid_hash());
    let leased = match api.jobs.enrol(request).await.map_err(Problem::not_done)? {
        Outcome::Leased(leased) => leased,
        Outcome::Refused(refusal) => {
            note_refusal(api, refusal, &device);
            return Err(Problem::refused(refusal));
        }
    };
    if leased.issued == Issued::Now {
        tracing::info!(device = %Redacted(&device), epoch = leased.epoch, "leased");
    }
    let bundle = wait_for_bundle(api, &leased, remembered).await?;
    connection.set_leased(leased.clone());
    Ok((leased.issued, cbor(bundle.to_bytes())))
}

/// Waits for others to cosign the head over the lease, for a while; the device asks again for the same lease.
async fn wait_for_bundle(
    api: &Api,
    leased: &Leased,
    remembered: u64,
) -> Result<LeaseBundle, Problem> {
    let deadline = Instant::now() + COSIGNING_TIME;
    let mut changes = api.changes.subscribe();
    let mut stop = api.stop.clone();
    loop {
        changes.mark_unchanged();
        let bundle = async {
            let mut db = api.store.read().await?;
            enrol::bundle(&mut db, leased, remembered).await
        };
        let bundle = bundle.await.map_err(|error| Problem::internal(&error))?;
        if let Some(bundle) = bundle {
            return Ok(bundle);
        }
        if Instant::now() >= deadline || *stop.borrow() {
            return Err(Problem::not_cosigned());
        }
        tokio::select! {
            // Both senders live as long as the server.
            _ = changes.changed() => {}
            _ = stop.changed() => {}
            () = tokio::time::sleep_until(deadline) => {}
        }
    }
}

fn note_refusal(api: &Api, refusal: Refusal, device: &str) {
    match refusal {
        Refusal::ClaimSpent => {
            api.metrics.alerts.with("claim-spent").inc();
            tracing::warn!(
                device = %Redacted(device),
                "a second device proved a claim code that is spent; see `provisioning alerts list`"
            );
        }
        Refusal::NoGateway | Refusal::AddressesExhausted => {
            tracing::warn!(
                "a device was turned away: {}",
                Problem::refused(refusal).code()
            );
        }
        Refusal::ClaimUnknown
        | Refusal::ClaimExpired
        | Refusal::DeviceRevoked
        | Refusal::DeviceUnknown
        | Refusal::TunnelKeyTaken => {
            tracing::debug!("a device was refused: {}", Problem::refused(refusal).code())
        }
    }
}

pub(super) async fn read_cbor(headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    if headers.get(CONTENT_TYPE).is_none_or(|value| value != CBOR) {
        return Err(Problem::wrong_type());
    }
    read_body(body).await.map_err(Problem::not_read)
}

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotRead {
    TooLarge,
    TooSlow,
    /// It is not framed as HTTP has it.
    Broken,
}

/// No more than any request has, and within some seconds.
pub(crate) async fn read_body(body: Body) -> Result<Bytes, NotRead> {
    let limited = Limited::new(body, MAX_BODY_BYTES);
    match tokio::time::timeout(BODY_TIMEOUT, limited.collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(NotRead::TooLarge),
        Ok(Err(_)) => Err(NotRead::Broken),
        Err(_) => Err(NotRead::TooSlow),
    }
}
