//! The accept loop: TLS 1.3 where there is a key for it, then HTTP/1.1, with a limit on everything that a stranger can hold open.
//! Each connection with TLS carries its own exporter bytes and its own challenge. Remote addresses are not kept.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use trust::channel::EXPORTER_LABEL;

use crate::connection::Connection;
use crate::metrics::Metrics;
use crate::sources::Sources;

/// Gateways hold one each for every shard, routers a few seconds each.
const MAX_CONNECTIONS: usize = 4096;
/// A TLS handshake takes two flights; a router on a bad line needs some seconds.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_HEADER_BYTES: usize = 16 * 1024;
const MAX_HEADERS: usize = 32;
/// Then the client has to connect anew, so that nobody holds a place for ever.
const CONNECTION_LIFE: Duration = Duration::from_secs(15 * 60);
/// For what is under way when the life ends or the server stops.
const CLOSING_TIME: Duration = Duration::from_secs(5);
/// Pause after a failing `accept`, so that a lack of descriptors does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until told to stop, then lets those under way come to an end.
pub(crate) async fn accept(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    metrics: Metrics,
    mut stop: watch::Receiver<bool>,
) {
    let acceptor = tls.map(TlsAcceptor::from);
    let mut connections = JoinSet::new();
    let sources = Sources::default();
    loop {
        let (stream, peer) = tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {}", error.kind());
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        if connections.len() >= MAX_CONNECTIONS {
            metrics.connections_refused.with("too_many").inc();
            continue;
        }
        let Some(place) = sources.admit(peer.ip()) else {
            metrics.connections_refused.with("too_many_of_source").inc();
            continue;
        };
        let (acceptor, router) = (acceptor.clone(), router.clone());
        let (metrics, stop) = (metrics.clone(), stop.clone());
        connections.spawn(async move {
            let _held = place;
            let Some(acceptor) = acceptor else {
                return serve(stream, None, router, stop).await;
            };
            match handshake(acceptor, stream).await {
                Ok((stream, connection)) => serve(stream, Some(connection), router, stop).await,
                Err(error) => {
                    metrics.connections_refused.with("handshake").inc();
                    tracing::debug!("a TLS handshake failed: {error:#}");
                }
            }
        });
    }
    drop(listener);
    let draining = async { while connections.join_next().await.is_some() {} };
    // Whoever is not done by then is cut off; every exchange can be repeated.
    let _in_time = tokio::time::timeout(CLOSING_TIME, draining).await;
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the server is gone, which is a stop as well.
    drop(stop.wait_for(|stop| *stop).await);
}

type TlsStream = tokio_rustls::server::TlsStream<TcpStream>;

async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
) -> anyhow::Result<(TlsStream, Arc<Connection>)> {
    stream.set_nodelay(true)?;
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream))
        .await
        .map_err(io::Error::from)??;
    let exporter = stream
        .get_ref()
        .1
        .export_keying_material([0; 32], EXPORTER_LABEL.as_bytes(), Some(&[]))
        .context("the connection has no exporter")?;
    Ok((stream, Arc::new(Connection::new(exporter))))
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    connection: Option<Arc<Connection>>,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        if let Some(connection) = &connection {
            request.extensions_mut().insert(Arc::clone(connection));
        }
        router.call(request)
    });
    let exchange = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    let mut exchange = std::pin::pin!(exchange);
    // What a peer does to its connection is its own affair: cut, reset and late ones look alike here.
    tokio::select! {
        _ended = exchange.as_mut() => return,
        () = stopped(&mut stop) => {}
        () = tokio::time::sleep(CONNECTION_LIFE) => {}
    }
    exchange.as_mut().graceful_shutdown();
    let _in_time = tokio::time::timeout(CLOSING_TIME, exchange).await;
}
