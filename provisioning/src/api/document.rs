//! The API in words for programs: OpenAPI 3.1, made from what stands above the handlers. A foreign judge holds the server to it
//! (`tests/tests/schema.rs`), so nothing is in it that the server does not do.

use std::borrow::Cow;

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::{OpenApi, PartialSchema, ToSchema};

use super::{Problem, devices, logs, psk, shards, states};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Culvert provisioning",
        description = "Enrolment of routers, lease streams for gateways, and the two logs. TLS 1.3, pinned by SPKI.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    paths(
        devices::challenge,
        devices::enrol,
        psk::keys,
        psk::offers,
        shards::page,
        psk::statement,
        states::state,
        states::signatures,
        logs::checkpoint,
        logs::tile,
        logs::partial_tile,
        document,
        super::health
    ),
    components(schemas(Problem, Octets)),
    tags(
        (name = "devices", description = "For routers"),
        (name = "gateways", description = "For gateways"),
        (name = "logs", description = "For everybody: C2SP tlog-tiles"),
        (name = "server", description = "About this server")
    ),
    modifiers(&GatewayKey)
)]
struct Document;

struct GatewayKey;

impl utoipa::Modify for GatewayKey {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityScheme};
        let scheme = ApiKeyValue::with_description(
            "Authorization",
            "`Culvert-Key ` and base64 of an Ed25519 public key and its signature over this TLS \
             connection's exporter in the role `gateway`",
        );
        document
            .components
            .get_or_insert_default()
            .add_security_scheme(
                "gateway-key",
                SecurityScheme::ApiKey(ApiKey::Header(scheme)),
            );
    }
}

/// The OpenAPI document as JSON.
pub fn openapi_json() -> anyhow::Result<String> {
    Ok(Document::openapi().to_pretty_json()?)
}

/// A body of CBOR or of bytes of another form, for which JSON Schema has no words; its description names the type.
pub(super) enum Octets {}

impl PartialSchema for Octets {
    fn schema() -> RefOr<Schema> {
        let binary = SchemaFormat::KnownFormat(KnownFormat::Binary);
        let bytes = ObjectBuilder::new().schema_type(Type::String);
        RefOr::T(bytes.format(Some(binary)).into())
    }
}

impl ToSchema for Octets {
    fn name() -> Cow<'static, str> {
        "Octets".into()
    }
}

/// This document.
#[utoipa::path(
    get, path = "/v1/openapi.json", tag = "server",
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json", body = serde_json::Value))
)]
pub(super) async fn document() -> Result<Response, Problem> {
    let json = openapi_json().map_err(|error| Problem::internal(&error))?;
    Ok(([(CONTENT_TYPE, "application/json")], json).into_response())
}
