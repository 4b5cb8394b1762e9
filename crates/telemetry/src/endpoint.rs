//! `GET /metrics` and `GET /healthz` over plain HTTP/1.1, meant for a loopback or management address.
//! The task owns its listener and waits on connections; aborting it loses nothing.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::metrics::Registry;

/// Scrapers are few; more connections than this wait in the listen queue.
const MAX_CONNECTIONS: usize = 16;
/// Longer than any scraper's own time limit for one exchange.
const CONNECTION_LIFE: Duration = Duration::from_secs(30);
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_HEADER_BYTES: usize = 8 * 1024;
/// Pause after a failing `accept`, so that a lack of descriptors does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What `/healthz` answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// 200, with a word on how things are.
    Ok(String),
    /// 503, with the reason.
    Failing(String),
}

/// A bound endpoint, not yet answering.
#[derive(Debug)]
pub struct Endpoint {
    listener: TcpListener,
}

/// Binds `addr` and answers until the future is dropped.
pub async fn serve<H>(
    addr: SocketAddr,
    registry: Arc<Registry>,
    health: H,
) -> io::Result<Infallible>
where
    H: Fn() -> Health + Send + Sync + 'static,
{
    Ok(Endpoint::bind(addr).await?.run(registry, health).await)
}

impl Endpoint {
    /// Binds the address, so that a busy port is an error at start.
    pub async fn bind(addr: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            listener: TcpListener::bind(addr).await?,
        })
    }

    /// Takes a listener that was bound before, nonblocking, such as by a process that has since given up root.
    pub fn from_listener(listener: std::net::TcpListener) -> io::Result<Self> {
        Ok(Self {
            listener: TcpListener::from_std(listener)?,
        })
    }

    /// The address bound, with the port the system chose if it was 0.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until dropped.
    pub async fn run<H>(self, registry: Arc<Registry>, health: H) -> Infallible
    where
        H: Fn() -> Health + Send + Sync + 'static,
    {
        let health = Arc::new(health);
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let slot = Arc::clone(&slots).acquire_owned().await;
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "metrics endpoint cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (registry, health) = (Arc::clone(&registry), Arc::clone(&health));
            let exchange = async move {
                let _held = slot;
                // A slow or vanished scraper is its own affair.
                let _outcome = tokio::time::timeout(
                    CONNECTION_LIFE,
                    connection(stream, move |request| answer(request, &registry, &*health)),
                )
                .await;
            };
            // Bounded in number by the semaphore and in life by CONNECTION_LIFE, so no handle is kept.
            drop(tokio::spawn(exchange));
        }
    }
}

fn connection<A>(stream: TcpStream, answer: A) -> impl Future<Output = Result<(), hyper::Error>>
where
    A: Fn(&Request<Incoming>) -> Response<Full<Bytes>>,
{
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let response = answer(&request);
        async move { Ok::<_, Infallible>(response) }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service)
}

fn answer<B, H: Fn() -> Health>(
    request: &Request<B>,
    registry: &Registry,
    health: &H,
) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here\n");
        refused
            .headers_mut()
            .insert(ALLOW, hyper::header::HeaderValue::from_static("GET"));
        return refused;
    }
    match request.uri().path() {
        "/metrics" => {
            let mut response = plain(StatusCode::OK, registry.render());
            let kind = hyper::header::HeaderValue::from_static(OPENMETRICS);
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        "/healthz" => match health() {
            Health::Ok(word) => plain(StatusCode::OK, format!("{word}\n")),
            Health::Failing(reason) => {
                plain(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n"))
            }
        },
        _ => plain(
            StatusCode::NOT_FOUND,
            "only /metrics and /healthz are served here\n",
        ),
    }
}

fn plain(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::metrics::names;

    async fn exchange(request: &str) -> String {
        let registry = Arc::new(Registry::new());
        registry.gauge(names::GATEWAY_PEERS).set(1);
        let endpoint = Endpoint::bind("127.0.0.1:0".parse().unwrap())
            .await
            .unwrap();
        let addr = endpoint.local_addr().unwrap();
        let serving =
            tokio::spawn(endpoint.run(registry, || Health::Failing("no tunnel".to_owned())));

        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        serving.abort();
        text
    }

    #[tokio::test]
    async fn other_paths_and_methods_are_refused() {
        let lost = exchange("GET /admin HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        let post = exchange("POST /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;

        assert!(lost.starts_with("HTTP/1.1 404 "), "{lost}");
        assert!(post.starts_with("HTTP/1.1 405 "), "{post}");
    }

    #[tokio::test]
    async fn failing_health_is_a_503_with_its_reason() {
        let text = exchange("GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;

        assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
        assert!(text.ends_with("no tunnel\n"), "{text}");
    }

    #[tokio::test]
    async fn a_scrape_gets_the_registry() {
        let text = exchange("GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;

        assert!(text.contains("culvert_gateway_peers 1\n"), "{text}");
    }
}
