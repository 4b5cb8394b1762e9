//! What a refused or failed request hears: a code for programs, a sentence, and what to do.

use axum::Json;
use axum::http::header::WWW_AUTHENTICATE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::NotRead;
use crate::enrol::Refusal;
use crate::sequencer::NotDone;

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    #[serde(skip)]
    status: u16,
    /// For programs; does not change.
    #[schema(example = "claim-spent")]
    code: &'static str,
    /// What happened, in one sentence.
    #[schema(example = "another device has used this claim code")]
    message: &'static str,
    /// What to do about it.
    #[schema(example = "ask the provider for a new code")]
    action: &'static str,
}

const fn problem(
    status: u16,
    code: &'static str,
    message: &'static str,
    action: &'static str,
) -> Problem {
    Problem {
        status,
        code,
        message,
        action,
    }
}

impl Problem {
    /// For programs, and for the label of a counter.
    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    pub(super) fn refused(refusal: Refusal) -> Self {
        const NEW_CODE: &str = "ask the provider for a new claim code";
        match refusal {
            Refusal::ClaimUnknown => {
                let action = "compare the code with the letter, or ask the provider for a new one";
                problem(
                    403,
                    "claim-unknown",
                    "this server made no such claim code",
                    action,
                )
            }
            Refusal::ClaimSpent => problem(
                403,
                "claim-spent",
                "another device has used this claim code",
                NEW_CODE,
            ),
            Refusal::ClaimExpired => problem(
                403,
                "claim-expired",
                "the claim code was not used in time",
                NEW_CODE,
            ),
            Refusal::DeviceRevoked => {
                let action = "ask the provider why";
                problem(403, "device-revoked", "this device was revoked", action)
            }
            Refusal::DeviceUnknown => {
                let action = "enrol with a claim code";
                problem(
                    403,
                    "device-unknown",
                    "this server does not know the device",
                    action,
                )
            }
            Refusal::TunnelKeyTaken => {
                let message = "another device was leased this tunnel key";
                problem(
                    403,
                    "tunnel-key-taken",
                    message,
                    "make a new tunnel key and ask again",
                )
            }
            Refusal::NoGateway => {
                let message = "no gateway serves the device's point of presence";
                problem(
                    409,
                    "no-gateway",
                    message,
                    "the provider has to add a gateway there",
                )
            }
            Refusal::AddressesExhausted => {
                let message = "the point of presence has no address left";
                problem(
                    503,
                    "addresses-exhausted",
                    message,
                    "the provider has to add a pool there",
                )
            }
        }
    }

    pub(super) fn not_done(cause: NotDone) -> Self {
        match cause {
            NotDone::Busy => problem(
                503,
                "busy",
                "too many devices ask at once",
                "ask again in a minute",
            ),
            NotDone::Full => {
                let message = "the server cannot write its state";
                problem(503, "storage-full", message, "ask again later")
            }
            NotDone::Failed => Self::failed(),
        }
    }

    pub(super) const fn not_cosigned() -> Self {
        let message = "too few witnesses have cosigned the log that the lease stands in";
        problem(503, "not-cosigned", message, "ask again in a minute")
    }

    /// Logs the cause and keeps it from the peer.
    pub(super) fn internal(error: &anyhow::Error) -> Self {
        tracing::error!("a request failed: {}", crate::failure::sentence(error));
        Self::failed()
    }

    const fn failed() -> Self {
        problem(
            503,
            "unavailable",
            "the server cannot answer this now",
            "ask again later",
        )
    }

    pub(super) const fn proof_invalid() -> Self {
        let message = "the proof of the device's keys does not hold on this connection";
        problem(
            403,
            "proof-invalid",
            message,
            "fetch a challenge on this connection and answer it",
        )
    }

    pub(super) const fn too_many_challenges() -> Self {
        let message = "this connection has asked for too many challenges";
        problem(429, "too-many-requests", message, "open a new connection")
    }

    pub(super) const fn malformed() -> Self {
        let message = "the body is not the CBOR that belongs here";
        problem(400, "malformed", message, "see /v1/openapi.json")
    }

    pub(super) const fn not_read(cause: NotRead) -> Self {
        match cause {
            NotRead::TooLarge => problem(
                413,
                "too-large",
                "the body is larger than 16 KiB",
                "see /v1/openapi.json",
            ),
            NotRead::TooSlow => problem(
                408,
                "too-slow",
                "the body did not arrive within 10 seconds",
                "send it again",
            ),
            NotRead::Broken => Self::malformed(),
        }
    }

    pub(super) const fn wrong_type() -> Self {
        let action = "send content-type: application/cbor";
        problem(
            415,
            "wrong-type",
            "the body is not declared as CBOR",
            action,
        )
    }

    pub(super) const fn not_found(message: &'static str) -> Self {
        problem(404, "not-found", message, "see /v1/openapi.json")
    }

    pub(super) const fn wrong_method() -> Self {
        problem(
            405,
            "wrong-method",
            "this is not done here",
            "see /v1/openapi.json",
        )
    }

    pub(super) const fn bad_query(message: &'static str) -> Self {
        problem(400, "bad-query", message, "see /v1/openapi.json")
    }

    pub(super) const fn not_signed() -> Self {
        let message = "the Authorization header does not sign this connection as a gateway";
        problem(
            401,
            "not-signed",
            message,
            "sign this connection's exporter with the gateway's key",
        )
    }

    pub(super) const fn gateway_unknown() -> Self {
        let action = "propose it to the people, and take it with `provisioning gateway add`";
        problem(
            403,
            "gateway-unknown",
            "this server does not know the gateway",
            action,
        )
    }

    pub(super) const fn shard_forbidden() -> Self {
        let message = "the gateway does not serve this shard";
        problem(
            403,
            "shard-forbidden",
            message,
            "ask for the shards of the gateway's statement",
        )
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        let mut response = (status, Json(self)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            //= https://www.rfc-editor.org/rfc/rfc9110#section-15.5.2
            // A 401 says how one would sign.
            let scheme = HeaderValue::from_static("Culvert-Key");
            response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
        }
        response
    }
}
