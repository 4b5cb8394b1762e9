//! One connection to provisioning and the shard pages read from it. The gateway proves who it is by
//! signing the connection itself (TLS exporter); the header is worth nothing on another connection.

use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use trust::channel::EXPORTER_LABEL;
use trust::{ChannelProof, DecodeError, ShardPage, Signed};

use crate::config::ServerUrl;
use crate::exit::reason;
use crate::pin;

/// Provisioning holds a request at most this long when there is nothing new (contract: 25 s).
pub(crate) const LONG_POLL: Duration = Duration::from_secs(25);
/// Connecting, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// From the end of the long poll to the last byte of a large page on a slow line.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);
/// `ShardPage`'s own limit.
const MAX_PAGE_BYTES: usize = 8 * 1024 * 1024;
const MAX_PROBLEM_BYTES: usize = 16 * 1024;
const ROLE: &str = "gateway";

/// Where to connect and as whom.
#[derive(Clone)]
pub(crate) struct Office {
    url: ServerUrl,
    tls: Arc<ClientConfig>,
    identity: SigningKey,
}

/// Why a page did not come. Each is one sentence for `status`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// No TCP or TLS connection.
    #[error("cannot connect to provisioning at {server}: {}", reason(source))]
    Connect {
        /// `HOST:PORT`.
        server: String,
        /// The reason.
        source: std::io::Error,
    },
    /// The server's key is not pinned.
    #[error(
        "the server at {server} is not ours: its key is none of provisioning.spki-sha256; nothing was sent"
    )]
    WrongServer {
        /// `HOST:PORT`.
        server: String,
    },
    /// It did not answer in time.
    #[error("provisioning did not answer in time")]
    TimedOut,
    /// The connection broke.
    #[error("the connection to provisioning broke: {0}")]
    Broken(#[from] hyper::Error),
    /// The gateway is unknown or may not have this shard.
    #[error("provisioning refuses this gateway ({status}): {reason}")]
    Refused {
        /// 401 or 403.
        status: StatusCode,
        /// The server's words.
        reason: String,
    },
    /// Another status.
    #[error("provisioning answered {status}: {reason}")]
    Answer {
        /// The status.
        status: StatusCode,
        /// The server's words.
        reason: String,
    },
    /// The answer is too long or was cut.
    #[error("provisioning's answer is cut or too long")]
    Body,
    /// It is no page of this shard from that place.
    #[error("provisioning's page cannot be read: {0}")]
    Page(#[from] DecodeError),
    /// A page, but not the one that was asked for.
    #[error("provisioning sent a page that was not asked for")]
    OtherPage,
    /// Our own request could not be written.
    #[error("the request cannot be written")]
    Request,
}

impl Office {
    /// Names a server by its address and pinned keys.
    pub(crate) fn new(url: ServerUrl, tls: ClientConfig, identity: SigningKey) -> Self {
        Self {
            url,
            tls: Arc::new(tls),
            identity,
        }
    }

    /// The key that signs for the gateway.
    pub(crate) fn identity(&self) -> &SigningKey {
        &self.identity
    }

    /// Connects and signs the connection.
    pub(crate) async fn connect(&self) -> Result<Connection, StreamError> {
        timeout(CONNECT_TIMEOUT, self.connect_unhurried())
            .await
            .map_err(|_| StreamError::TimedOut)?
    }

    async fn connect_unhurried(&self) -> Result<Connection, StreamError> {
        let failed = |source| StreamError::Connect {
            server: self.url.authority(),
            source,
        };
        let tcp = TcpStream::connect((self.url.host.as_str(), self.url.port))
            .await
            .map_err(failed)?;
        tcp.set_nodelay(true).map_err(failed)?;
        let name = ServerName::try_from(self.url.host.clone())
            .map_err(|error| failed(std::io::Error::other(error)))?;
        let stream = TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, tcp)
            .await
            .map_err(|error| {
                if pin::is_wrong_key(&error) {
                    StreamError::WrongServer {
                        server: self.url.authority(),
                    }
                } else {
                    failed(error)
                }
            })?;
        let authorization = self.sign(&stream)?;
        let (requests, driver) = http1::handshake(TokioIo::new(stream)).await?;
        Ok(Connection {
            requests,
            authorization,
            host: self.url.authority(),
            // How it ends shows in the requests.
            driver: Driver(tokio::spawn(async move { drop(driver.await) })),
        })
    }

    fn sign(&self, stream: &TlsStream<TcpStream>) -> Result<HeaderValue, StreamError> {
        let (_, tls) = stream.get_ref();
        let exporter = tls
            .export_keying_material([0; 32], EXPORTER_LABEL.as_bytes(), Some(&[]))
            .map_err(|_| StreamError::Request)?;
        let proof = ChannelProof::sign(&self.identity, ROLE, &exporter).to_string();
        let mut value = HeaderValue::from_str(&proof).map_err(|_| StreamError::Request)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// A signed connection.
pub(crate) struct Connection {
    requests: SendRequest<Full<Bytes>>,
    authorization: HeaderValue,
    host: String,
    #[expect(dead_code, reason = "held so that its task ends with the connection")]
    driver: Driver,
}

struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connection {
    /// Asks for what follows `from` in the shard's stream, waiting up to `wait` if that is nothing.
    pub(crate) async fn page(
        &mut self,
        shard: u32,
        from: u64,
        wait: Duration,
    ) -> Result<ShardPage, StreamError> {
        let limit = wait + PAGE_TIMEOUT;
        timeout(limit, self.page_unhurried(shard, from, wait))
            .await
            .map_err(|_| StreamError::TimedOut)?
    }

    async fn page_unhurried(
        &mut self,
        shard: u32,
        from: u64,
        wait: Duration,
    ) -> Result<ShardPage, StreamError> {
        self.requests.ready().await?;
        let request = Request::get(format!(
            "/v1/shard/{shard}?from={from}&wait={}",
            wait.as_secs()
        ))
        .header(HOST, &self.host)
        .header(AUTHORIZATION, &self.authorization)
        .body(Full::default())
        .map_err(|_| StreamError::Request)?;
        let response = accepted(self.requests.send_request(request).await?).await?;
        let body = Limited::new(response.into_body(), MAX_PAGE_BYTES);
        let bytes = body
            .collect()
            .await
            .map_err(|_| StreamError::Body)?
            .to_bytes();
        let page = ShardPage::from_bytes(&bytes)?;
        if page.shard != shard {
            return Err(StreamError::OtherPage);
        }
        Ok(page)
    }
}

impl Connection {
    /// Tells with which ML-KEM key this gateway takes offers of pre-shared keys.
    pub(crate) async fn state_key(&mut self, statement: &Signed) -> Result<(), StreamError> {
        timeout(PAGE_TIMEOUT, self.state_key_unhurried(statement))
            .await
            .map_err(|_| StreamError::TimedOut)?
    }

    async fn state_key_unhurried(&mut self, statement: &Signed) -> Result<(), StreamError> {
        self.requests.ready().await?;
        let request = Request::post("/v1/gateway/kem")
            .header(HOST, &self.host)
            .header(AUTHORIZATION, &self.authorization)
            .header(CONTENT_TYPE, "application/cbor")
            .body(Full::from(statement.to_bytes()))
            .map_err(|_| StreamError::Request)?;
        accepted(self.requests.send_request(request).await?).await?;
        Ok(())
    }
}

/// An answer that is not a refusal.
async fn accepted(response: Response<Incoming>) -> Result<Response<Incoming>, StreamError> {
    let status = response.status();
    if status == StatusCode::OK {
        return Ok(response);
    }
    let reason = problem(response).await;
    Err(match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => StreamError::Refused { status, reason },
        _ => StreamError::Answer { status, reason },
    })
}

/// The server's own words about a refusal, if it has any that can be shown on one line.
async fn problem(response: Response<Incoming>) -> String {
    #[derive(serde::Deserialize)]
    struct Problem {
        code: String,
        message: String,
    }
    let body = Limited::new(response.into_body(), MAX_PROBLEM_BYTES)
        .collect()
        .await;
    let problem = body
        .ok()
        .and_then(|body| serde_json::from_slice::<Problem>(&body.to_bytes()).ok());
    let text = problem.map_or_else(
        || "no reason given".to_owned(),
        |problem| format!("{} ({})", problem.message, problem.code),
    );
    text.chars()
        .filter(|char| !char.is_control())
        .take(300)
        .collect()
}

#[cfg(test)]
mod tests;
