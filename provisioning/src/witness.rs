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

use crate::api::read_body;
use crate::clock::unix_now;
use crate::failure::sentence;
use crate::listen;
use crate::metrics::Metrics;
use crate::serve;
use book::{Book, Refused};

const SIZE_TYPE: &str = "text/x.tlog.size";

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

async fn add_checkpoint(State(shared): State<Shared>, body: Body) -> Response {
    let body = match read_body(body).await {
        Ok(body) => body,
        Err(problem) => return problem.into_response(),
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
