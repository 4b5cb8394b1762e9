//! A witness as a process of its own, with files and no database (<https://c2sp.org/tlog-witness>): it sees to it that a log has one
//! history, and need not know what stands in it. HTTP without TLS: all that is said is public and signed; whoever wants TLS puts a
//! proxy before it.

pub mod book;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use telemetry::{Endpoint, Health};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use trust::{AddCheckpoint, NotCosigned};
use utoipa::OpenApi;

use crate::api::{NotRead, read_body};
use crate::clock::unix_now;
use crate::failure::sentence;
use crate::listen;
use crate::metrics::Metrics;
use crate::serve;
use book::{Book, Refused};

const SIZE_TYPE: &str = "text/x.tlog.size";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Culvert witness",
        description = "Cosigns heads of logs, each of which continues the one before: https://c2sp.org/tlog-witness. HTTP; all of it is public and signed.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    paths(add_checkpoint)
)]
struct Document;

/// The OpenAPI document as JSON.
pub fn openapi_json() -> anyhow::Result<String> {
    Ok(Document::openapi().to_pretty_json()?)
}

/// A witness whose addresses are bound; nothing is answered yet.
#[derive(Debug)]
pub struct Witness {
    book: Book,
    listeners: Vec<TcpListener>,
    endpoint: Option<Endpoint>,
}

/// What handlers share.
#[derive(Clone)]
struct Shared {
    // Held while a head is judged and written: nobody else is answered between the two.
    book: Arc<Mutex<Book>>,
    metrics: Metrics,
}

impl Witness {
    /// Binds the addresses.
    pub async fn start(
        book: Book,
        listen: &[SocketAddr],
        metrics: Option<SocketAddr>,
    ) -> anyhow::Result<Self> {
        let mut listeners = Vec::with_capacity(listen.len());
        for address in listen {
            listeners.push(serve::bind(*address).await?);
        }
        let endpoint = match metrics {
            None => None,
            Some(address) => {
                let bound = Endpoint::bind(address).await;
                Some(bound.map_err(|error| serve::explain(error, address))?)
            }
        };
        Ok(Self {
            book,
            listeners,
            endpoint,
        })
    }

    /// The addresses bound, with the ports that the system chose where they were 0.
    pub fn local_addrs(&self) -> std::io::Result<Vec<SocketAddr>> {
        self.listeners.iter().map(TcpListener::local_addr).collect()
    }

    /// Answers until `until` is ready, then finishes what is under way.
    pub async fn run(self, until: impl Future<Output = ()>) {
        let metrics = Metrics::new();
        let (stop, stopping) = watch::channel(false);
        let mut background = JoinSet::new();
        if let Some(endpoint) = self.endpoint {
            let registry = Arc::clone(&metrics.registry);
            let health = || Health::Ok("ok".to_owned());
            background.spawn(async move { match endpoint.run(registry, health).await {} });
        }
        let router = Router::new()
            .route("/add-checkpoint", post(add_checkpoint))
            .fallback(nowhere)
            .method_not_allowed_fallback(wrong_method)
            .with_state(Shared {
                book: Arc::new(Mutex::new(self.book)),
                metrics: metrics.clone(),
            });
        let mut accepting = JoinSet::new();
        for listener in self.listeners {
            let (router, metrics) = (router.clone(), metrics.clone());
            accepting.spawn(listen::accept(
                listener,
                None,
                router,
                metrics,
                stopping.clone(),
            ));
        }
        until.await;
        stop.send_replace(true);
        while accepting.join_next().await.is_some() {}
        background.shutdown().await;
    }
}

async fn nowhere() -> (StatusCode, &'static str) {
    let text = "a witness has /add-checkpoint and nothing else\n";
    (StatusCode::NOT_FOUND, text)
}

async fn wrong_method() -> (StatusCode, &'static str) {
    (StatusCode::METHOD_NOT_ALLOWED, "a head is sent with POST\n")
}

/// Cosigns a head that continues the one that was cosigned last.
#[utoipa::path(
    post, path = "/add-checkpoint",
    request_body(content = String, description = "`old` and a size, a consistency proof, an empty line, a checkpoint", content_type = "text/plain"),
    responses(
        (status = 200, description = "Lines of cosignatures", content_type = "text/plain", body = String),
        (status = 400, description = "It is no such text, or the old size is larger than the new one", content_type = "text/plain", body = String),
        (status = 403, description = "No key of the log has signed it", content_type = "text/plain", body = String),
        (status = 404, description = "This witness does not know the log", content_type = "text/plain", body = String),
        (status = 408, description = "The body did not arrive in time", content_type = "text/plain", body = String),
        (
            status = 409, description = "The size of the head that was cosigned last, where the old size is another; or a sentence, where another head of this size was cosigned",
            content(
                (String = "text/x.tlog.size"),
                (String = "text/plain")
            )
        ),
        (status = 413, description = "The body is longer than 16 KiB", content_type = "text/plain", body = String),
        (status = 422, description = "It does not continue the head that was cosigned last", content_type = "text/plain", body = String),
        (status = 500, description = "The head cannot be kept, so it is not cosigned", content_type = "text/plain", body = String)
    )
)]
async fn add_checkpoint(State(shared): State<Shared>, body: Body) -> Response {
    let body = match read_body(body).await {
        Ok(body) => body,
        Err(cause) => return not_read(cause),
    };
    let (outcome, response) = match AddCheckpoint::parse(&body) {
        // The disk is waited for here: there is nothing else that this process could do meanwhile.
        Ok(request) => match shared.cosign(&request) {
            Ok(lines) => ("cosigned", lines.into_response()),
            Err(refused) => refusal(&refused),
        },
        Err(error) => {
            let response = (StatusCode::BAD_REQUEST, format!("{error}\n"));
            ("malformed", response.into_response())
        }
    };
    shared.metrics.requests.with(outcome).inc();
    response
}

fn not_read(cause: NotRead) -> Response {
    let (status, text) = match cause {
        NotRead::TooLarge => (
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is longer than 16 KiB\n",
        ),
        NotRead::TooSlow => (
            StatusCode::REQUEST_TIMEOUT,
            "the body did not arrive within 10 seconds\n",
        ),
        NotRead::Broken => (StatusCode::BAD_REQUEST, "the body is cut\n"),
    };
    (status, text).into_response()
}

impl Shared {
    fn cosign(&self, request: &AddCheckpoint) -> Result<String, Refused> {
        let head = request.checkpoint.checkpoint();
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let cosigned = book.cosign(request, unix_now());
        match &cosigned {
            Ok(_) => tracing::info!(origin = head.origin, size = head.size, "cosigned"),
            Err(Refused::Judged(refused @ (NotCosigned::Fork | NotCosigned::Inconsistent(_)))) => {
                tracing::error!(
                    origin = head.origin,
                    size = head.size,
                    "NOT cosigned: {refused}"
                );
            }
            Err(Refused::Judged(refused)) => {
                tracing::debug!("not cosigned: {refused}");
            }
            Err(Refused::NotKept(error)) => {
                tracing::error!(
                    "a head cannot be kept, and is not cosigned: {}",
                    sentence(error)
                );
            }
        }
        cosigned
    }
}

//= https://c2sp.org/tlog-witness#add-checkpoint
// The status says which check failed; a log that is at another size hears at which one the witness is.
fn refusal(refused: &Refused) -> (&'static str, Response) {
    let (outcome, status, text) = match refused {
        Refused::NotKept(_) => {
            let text = "this witness cannot write its state".to_owned();
            ("not-kept", StatusCode::INTERNAL_SERVER_ERROR, text)
        }
        Refused::Judged(NotCosigned::OtherSize(size)) => {
            let headers = [(CONTENT_TYPE, SIZE_TYPE)];
            let response = (StatusCode::CONFLICT, headers, format!("{size}\n"));
            return ("other-size", response.into_response());
        }
        Refused::Judged(judged) => {
            let (outcome, status) = match judged {
                NotCosigned::UnknownLog(_) => ("unknown-log", StatusCode::NOT_FOUND),
                NotCosigned::NotSigned => ("not-signed", StatusCode::FORBIDDEN),
                NotCosigned::Backwards => ("malformed", StatusCode::BAD_REQUEST),
                NotCosigned::Fork | NotCosigned::OtherSize(_) => ("fork", StatusCode::CONFLICT),
                NotCosigned::Inconsistent(_) => ("inconsistent", StatusCode::UNPROCESSABLE_ENTITY),
            };
            (outcome, status, judged.to_string())
        }
    };
    (outcome, (status, format!("{text}\n")).into_response())
}
