//! Connections as they arrive: each has a place for as long as it lasts, and its handshake a bounded time. The task that
//! runs one of these loops owns the connections and ends with them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dnscrypt_proxy::serve::Begun;
use quinn::{Connection, Endpoint, Incoming};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, Chain, Join, join};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
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

/// A connection whose beginning is read once more.
pub(crate) type Replayed = Join<Chain<io::Cursor<Vec<u8>>, OwnedReadHalf>, OwnedWriteHalf>;

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
                    connections.spawn(place.during(async move {
                        // Messages are whole; waiting to fill a segment only costs time. A socket without it still works.
                        let _slower = tcp.set_nodelay(true);
                        if let Some(stream) = shake_tls(&acceptor, tcp).await {
                            serve(stream, from).await;
                        }
                    }));
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(_ended) = connections.join_next() => {}
        }
    }
}

/// The same for connections that somebody else has accepted, and found to speak TLS; returns when there will be no more.
pub(crate) async fn over_begun_tls<S, F>(
    mut arrivals: mpsc::Receiver<Begun>,
    tls: Arc<ServerConfig>,
    limits: Arc<Limits>,
    serve: S,
) where
    S: Fn(TlsStream<Replayed>, SocketAddr) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let acceptor = TlsAcceptor::from(tls);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            arrived = arrivals.recv() => {
                let Some(begun) = arrived else { return };
                let from = begun.source;
                let Some(place) = limits.enter(from.ip()) else { continue };
                // One that cannot be waited for is broken.
                let Ok(stream) = replay(begun) else { continue };
                let (acceptor, serve) = (acceptor.clone(), serve.clone());
                connections.spawn(place.during(async move {
                    // What is here already may be refused at once, which could not be told before the socket is known to take it.
                    let _ready = stream.writer().writable().await;
                    if let Some(stream) = shake_tls(&acceptor, stream).await {
                        serve(stream, from).await;
                    }
                }));
            }
            Some(_ended) = connections.join_next() => {}
        }
    }
}

fn replay(begun: Begun) -> io::Result<Replayed> {
    begun.stream.set_nonblocking(true)?;
    let (rest, writer) = TcpStream::from_std(begun.stream)?.into_split();
    Ok(join(io::Cursor::new(begun.read).chain(rest), writer))
}

async fn shake_tls<T>(acceptor: &TlsAcceptor, stream: T) -> Option<TlsStream<T>>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let shaking = acceptor.accept(stream);
    timeout(HANDSHAKE_TIMEOUT, shaking).await.ok()?.ok()
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
                    let shaking = shake(incoming);
                    if let Some(place) = place {
                        let serving = async move {
                            if let Some(connection) = shaking.await {
                                serve(connection).await;
                            }
                        };
                        return place.during(serving).await;
                    }
                    let Some(connection) = shaking.await else { return };
                    if let Some(place) = limits.enter(connection.remote_address().ip()) {
                        place.during(serve(connection)).await;
                    }
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
    // Beyond that all prove where they are, and have a place or make somebody give one up.
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
