//! Connections as they arrive: each has a place for as long as it lasts, and its handshake a bounded time. The task that
//! runs one of these loops owns the connections and ends with them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, Endpoint, Incoming};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{Limits, Place};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// After an error of `accept` (no descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// From here on a client must prove its address first (RFC 9000 section 8.1).
const RETRY_ABOVE: usize = 1024;

/// Serves whoever has shaken hands over TCP and TLS; returns only if the socket cannot be used.
pub(crate) async fn over_tls<S, F>(
    listener: std::net::TcpListener,
    tls: Arc<ServerConfig>,
    limits: Arc<Limits>,
    serve: S,
) -> io::Error
where
    S: Fn(TlsStream<TcpStream>, SocketAddr) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return error,
    };
    let acceptor = TlsAcceptor::from(tls);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((tcp, from)) => {
                    let Some(place) = limits.enter(from.ip()) else { continue };
                    let (acceptor, serve) = (acceptor.clone(), serve.clone());
                    connections.spawn(async move {
                        // Messages are whole; waiting to fill a segment only costs time. A socket without it still works.
                        let _slower = tcp.set_nodelay(true);
                        let shaken = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(tcp)).await;
                        if let Ok(Ok(stream)) = shaken {
                            serve(stream, from).await;
                        }
                        drop(place);
                    });
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(_ended) = connections.join_next() => {}
        }
    }
}

/// The same over QUIC; returns if the endpoint is closed.
pub(crate) async fn over_quic<S, F>(endpoint: Endpoint, limits: Arc<Limits>, serve: S)
where
    S: Fn(Connection) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            incoming = endpoint.accept() => {
                let Some(incoming) = incoming else { return };
                let Some((incoming, place)) = admit(incoming, connections.len(), &limits) else {
                    continue;
                };
                let (limits, serve) = (Arc::clone(&limits), serve.clone());
                connections.spawn(async move {
                    let Some(connection) = shake(incoming).await else { return };
                    let from = connection.remote_address();
                    let place = place.or_else(|| limits.enter(from.ip()));
                    if place.is_some() {
                        serve(connection).await;
                    }
                    drop(place);
                });
            }
            Some(_ended) = connections.join_next() => {}
        }
    }
}

async fn shake(incoming: Incoming) -> Option<Connection> {
    let connecting = incoming.accept().ok()?;
    timeout(HANDSHAKE_TIMEOUT, connecting).await.ok()?.ok()
}

/// Who may shake hands, and its place if it is known to be where it says; who is not known yet has one after the handshake.
fn admit(
    incoming: Incoming,
    open: usize,
    limits: &Arc<Limits>,
) -> Option<(Incoming, Option<Place>)> {
    if open >= limits.max() {
        incoming.refuse();
        return None;
    }
    if open >= retry_above(limits.max())
        && !incoming.remote_address_validated()
        && incoming.may_retry()
    {
        // Fails only where a retry has been asked for already, which was tested.
        let _sent = incoming.retry();
        return None;
    }
    if !incoming.remote_address_validated() {
        return Some((incoming, None));
    }
    match limits.enter(incoming.remote_address().ip()) {
        Some(place) => Some((incoming, Some(place))),
        None => {
            incoming.refuse();
            None
        }
    }
}

/// Before forged addresses have taken most places.
fn retry_above(max: usize) -> usize {
    RETRY_ABOVE.min(max / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_proven_before_the_places_are_taken() {
        for max in [8, 64, 1_024] {
            assert_eq!(retry_above(max), max / 4);
        }
        assert_eq!(retry_above(65_536), RETRY_ABOVE);
    }
}
