//! The exchange with the provisioning server: TLS, challenge, request, lease bundle.
//!
//! One [`exchange`] is one connection and leaves nothing behind when it is cut: the same keys ask again. What comes back
//! is only well-formed; whether it may be believed is `trust`'s to say.

mod agree;
mod channel;
mod http;
pub(crate) mod pin;
pub(crate) mod provider;
pub(crate) mod schedule;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use tokio::time::timeout;
use tracing::warn;
use trust::{Activation, ClaimCode, DecodeError, EnrolReq, LeaseBundle, ServerChallenge};
use x25519_dalek::StaticSecret;

use crate::config::Provisioning;
use crate::psk::Agreement;
pub(crate) use agree::Wish;
use channel::Channel;
use http::{Answer, HttpError};

/// From the first packet to the whole bundle; each step has a shorter limit of its own.
const WHOLE_TIMEOUT: Duration = Duration::from_secs(60);
/// A server that validates and cosigns in time answers far faster.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
const STATUS_OK: u16 = 200;
const STATUS_NOT_FOUND: u16 = 404;
/// States of the authority that are fetched at once.
const MAX_CHANGES: usize = 16;
/// Who asks, and by what right.
#[derive(Debug)]
pub(crate) struct Applicant {
    /// DevID.
    pub device: SigningKey,
    /// The tunnel key that the lease is to be bound to.
    pub tunnel: Secret,
    /// A claim code, when the server does not know the device yet.
    pub claim: Option<ClaimCode>,
    /// Size of the fleet log that was seen last.
    pub fleet_size: u64,
    /// Epoch of the state of the authority that holds here.
    pub people_epoch: u64,
    /// With whom pre-shared keys are agreed; none if that is off.
    pub wish: Option<Wish>,
}

/// What an exchange brings: well-formed, and not yet believed.
#[derive(Debug)]
pub(crate) struct Exchanged {
    /// What made the states of the authority since, in their order.
    pub changes: Vec<Activation>,
    pub bundle: LeaseBundle,
    /// Keys that its gateways have been offered.
    pub agreed: Vec<Agreement>,
}

/// A tunnel key whose debug form shows nothing.
pub(crate) struct Secret(pub StaticSecret);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// Why an exchange brought no bundle.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// No TCP connection.
    #[error("the provisioning server {server} cannot be reached")]
    Unreachable {
        /// Where it should be.
        server: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It was reached and then fell silent.
    #[error("the provisioning server did not answer in time while {0}")]
    Silent(&'static str),
    /// Its key is none of the pinned ones.
    #[error(
        "the server at {0} is not the provisioning server of this router's image (its key differs): check provisioning.url \
         and spki-sha256, or somebody sits in between"
    )]
    WrongServer(SocketAddr),
    /// TLS failed otherwise.
    #[error("the TLS connection to the provisioning server failed")]
    Tls(#[source] io::Error),
    /// HTTP failed, or the connection was cut.
    #[error("the provisioning server's answer did not arrive")]
    Http(#[source] HttpError),
    /// The answer is not what the protocol says.
    #[error("the provisioning server's answer cannot be read")]
    Malformed(#[from] DecodeError),
    /// The challenge's key would give the tunnel key away.
    #[error("the provisioning server's challenge is refused")]
    Challenge(#[from] trust::EnrolError),
    /// The server says no.
    #[error(transparent)]
    Refused(Refusal),
}

/// What the server says no to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The code was never given out.
    #[error("the claim code is not known: compare it with the letter")]
    ClaimUnknown,
    /// Another device has used the code.
    #[error("the claim code was used by another device: ask the provider for a new one")]
    ClaimSpent,
    /// The code is too old.
    #[error("the claim code has expired: ask the provider for a new one")]
    ClaimExpired,
    /// The device is shut out.
    #[error("the provider has revoked this router: ask the provider")]
    DeviceRevoked,
    /// The device is not enrolled.
    #[error("the provider does not know this router: it needs a claim code (`cpe-agent enrol`)")]
    DeviceUnknown,
    /// A signature did not verify there.
    #[error("the provisioning server could not verify this router's request")]
    ProofInvalid,
    /// No gateway serves the router's place.
    #[error("the provider has no gateway for this router yet")]
    NoGateway,
    /// Others have yet to see the log that the lease stands in.
    #[error("too few witnesses have cosigned the provider's log yet: the router asks again")]
    NotCosigned,
    /// Too many requests.
    #[error("the provisioning server asks to come back later")]
    Later,
    /// A status this version does not know.
    #[error("the provisioning server refused with status {0}")]
    Status(u16),
}

/// What to do about a failed exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Ask again.
    Retry,
    /// Wait for another claim code.
    NewClaim,
    /// Ask again, rarely: only the provider can change it.
    AskProvider,
}

impl ExchangeError {
    /// What helps.
    pub(crate) fn remedy(&self) -> Remedy {
        match self {
            Self::Refused(
                Refusal::ClaimUnknown
                | Refusal::ClaimSpent
                | Refusal::ClaimExpired
                | Refusal::DeviceUnknown,
            ) => Remedy::NewClaim,
            Self::Refused(Refusal::DeviceRevoked) => Remedy::AskProvider,
            Self::Refused(
                Refusal::ProofInvalid
                | Refusal::NoGateway
                | Refusal::NotCosigned
                | Refusal::Later
                | Refusal::Status(_),
            )
            | Self::Unreachable { .. }
            | Self::Silent(_)
            | Self::WrongServer(_)
            | Self::Tls(_)
            | Self::Http(_)
            | Self::Malformed(_)
            | Self::Challenge(_) => Remedy::Retry,
        }
    }
}

/// Asks for a lease over one connection.
pub(crate) async fn exchange(
    provisioning: &Provisioning,
    applicant: &Applicant,
) -> Result<Exchanged, ExchangeError> {
    let whole = Box::pin(exchange_untimed(provisioning, applicant));
    timeout(WHOLE_TIMEOUT, whole)
        .await
        .map_err(|_| ExchangeError::Silent("enrolling"))?
}

async fn exchange_untimed(
    provisioning: &Provisioning,
    applicant: &Applicant,
) -> Result<Exchanged, ExchangeError> {
    let mut channel = channel::open(provisioning).await?;
    let server = provisioning.server;
    let changes = changes_since(&mut channel, server, applicant.people_epoch).await?;
    let challenge = ask(&mut channel, server, "/v1/enrol/challenge", &[]).await?;
    let challenge = ServerChallenge::from_bytes(&challenge)?;
    let Applicant {
        device,
        tunnel,
        claim,
        fleet_size,
        wish,
        ..
    } = applicant;
    let exporter = &channel.exporter;
    let request = EnrolReq::build(
        device,
        &tunnel.0,
        claim.as_ref(),
        &challenge,
        exporter,
        *fleet_size,
    )?;
    let answer = ask(&mut channel, server, "/v1/enrol", &request.to_bytes()).await?;
    let bundle = LeaseBundle::from_bytes(&answer)?;
    let agreed = match wish {
        Some(wish) => agree::agree(&mut channel, server, applicant, wish, &bundle).await?,
        None => Vec::new(),
    };
    Ok(Exchanged {
        changes,
        bundle,
        agreed,
    })
}

/// Fetches what made each later state of the authority; more of them than a provider has in years are left for the next time.
async fn changes_since(
    channel: &mut Channel,
    server: SocketAddr,
    epoch: u64,
) -> Result<Vec<Activation>, ExchangeError> {
    let mut changes = Vec::new();
    for next in (epoch..).skip(1).take(MAX_CHANGES) {
        let path = format!("/v1/authority/states/{next}");
        let answer = http::get(&mut channel.stream, server, &path);
        match in_time(answer).await {
            // What follows it could not be judged without it.
            Ok(state) => match Activation::from_bytes(&state) {
                Ok(change) => changes.push(change),
                Err(error) => {
                    warn!(%error, "a new state of the authority cannot be read");
                    break;
                }
            },
            Err(ExchangeError::Refused(Refusal::Status(STATUS_NOT_FOUND))) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(changes)
}

async fn ask(
    channel: &mut Channel,
    server: SocketAddr,
    path: &'static str,
    body: &[u8],
) -> Result<Vec<u8>, ExchangeError> {
    in_time(http::post(&mut channel.stream, server, path, body)).await
}

async fn in_time(
    answer: impl Future<Output = Result<Answer, HttpError>>,
) -> Result<Vec<u8>, ExchangeError> {
    let answer = timeout(ANSWER_TIMEOUT, answer).await;
    let Answer { status, body } = answer
        .map_err(|_| ExchangeError::Silent("answering"))?
        .map_err(ExchangeError::Http)?;
    if status == STATUS_OK {
        Ok(body)
    } else {
        Err(ExchangeError::Refused(refusal(status, &body)))
    }
}

/// A problem as the API describes it; what else is in it is for people with the server's log.
#[derive(serde::Deserialize)]
struct Problem {
    code: String,
}

fn refusal(status: u16, body: &[u8]) -> Refusal {
    let problem = serde_json::from_slice::<Problem>(body);
    match (
        status,
        problem.as_ref().map(|problem| problem.code.as_str()),
    ) {
        (_, Ok("claim-unknown")) => Refusal::ClaimUnknown,
        (_, Ok("claim-spent")) => Refusal::ClaimSpent,
        (_, Ok("claim-expired")) => Refusal::ClaimExpired,
        (_, Ok("device-revoked")) => Refusal::DeviceRevoked,
        (_, Ok("device-unknown")) => Refusal::DeviceUnknown,
        (_, Ok("proof-invalid")) => Refusal::ProofInvalid,
        (_, Ok("not-cosigned")) => Refusal::NotCosigned,
        (409, _) => Refusal::NoGateway,
        (429 | 503, _) => Refusal::Later,
        (status, _) => Refusal::Status(status),
    }
}
