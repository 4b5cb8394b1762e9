//! DNS over HTTP/2, stream by stream. What a client may make the gateway hold is bounded by the number of streams at
//! once, by their windows, and by the time in which nothing new is asked.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use dnscrypt_proxy::proto::MAX_QUERY;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use hyper::{Request, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use super::front::{Door, Front};
use super::http::{self, Asked, Page};
use super::{AT_ONCE, EXCHANGE, EXCHANGES, IDLE};
use crate::places::Counted;

/// A question in a parameter comes to 5,500 bytes.
const MAX_FIELDS_BYTES: u32 = 16 * 1024;
/// What is read of a body before anybody has looked at it.
const STREAM_WINDOW: u32 = 16 * 1024;
const CONNECTION_WINDOW: u32 = 128 * 1024;
const SEND_BUFFER: usize = 64 * 1024;

pub(super) async fn converse<T>(stream: TlsStream<T>, from: SocketAddr, front: Arc<Front>)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let figures = Arc::clone(&front.figures);
    let _open = Counted::new(figures.open_at(Door::Http2));
    let handshake = Builder::new()
        .max_concurrent_streams(u32::try_from(AT_ONCE).unwrap_or(u32::MAX))
        .max_header_list_size(MAX_FIELDS_BYTES)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .handshake(stream);
    let Ok(Ok(mut connection)) = timeout(EXCHANGE, handshake).await else {
        return;
    };
    let mut requests = JoinSet::new();
    let mut left = EXCHANGES;
    while left > 0 {
        tokio::select! {
            accepted = timeout(IDLE, connection.accept()) => {
                let Ok(Some(Ok((request, respond)))) = accepted else { break };
                left -= 1;
                requests.spawn(answer(request, respond, from, Arc::clone(&front)));
            }
            Some(_ended) = requests.join_next() => {}
        }
    }
    close(&mut connection).await;
}

/// Lets what is on its way end, and tells the client that nothing else is taken.
async fn close<T>(connection: &mut Connection<TlsStream<T>, Bytes>)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    connection.graceful_shutdown();
    let ending = async { while let Some(Ok(_refused)) = connection.accept().await {} };
    // Who does not take its answers has lost them.
    let _ended = timeout(EXCHANGE, ending).await;
}

async fn answer(
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    from: SocketAddr,
    front: Arc<Front>,
) {
    let (head, body) = request.into_parts();
    let message = match http::read(&head) {
        Asked::Question(message) => Ok(message),
        Asked::Body => match timeout(EXCHANGE, whole(body)).await {
            Ok(read) => read,
            Err(_slow) => Err(StatusCode::REQUEST_TIMEOUT),
        },
        Asked::Nothing(status) => Err(status),
    };
    let page = match message {
        Ok(message) => http::answer(&front, &message, from.ip(), Door::Http2).await,
        Err(status) => {
            front.malformed();
            http::nothing(status)
        }
    };
    give(respond, page).await;
}

async fn whole(mut body: RecvStream) -> Result<Vec<u8>, StatusCode> {
    let mut message = Vec::new();
    while let Some(part) = body.data().await {
        let part = part.map_err(|_| StatusCode::BAD_REQUEST)?;
        if message.len() + part.len() > MAX_QUERY {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        message.extend_from_slice(&part);
        // A stream that is gone needs no window.
        let _given = body.flow_control().release_capacity(part.len());
    }
    Ok(message)
}

/// Hands an answer to the connection, unless the client does not let it be sent.
async fn give(mut respond: SendResponse<Bytes>, (head, body): Page) {
    let is_all = body.is_empty();
    // Who is gone needs no answer.
    let Ok(mut stream) = respond.send_response(head, is_all) else {
        return;
    };
    if !is_all && timeout(EXCHANGE, send(&mut stream, body)).await.is_err() {
        stream.send_reset(Reason::CANCEL);
    }
}

/// Hands over as much at a time as the client's windows have room for; the connection would hold the rest.
async fn send(stream: &mut SendStream<Bytes>, mut body: Bytes) {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let Some(Ok(room)) = poll_fn(|context| stream.poll_capacity(context)).await else {
            return;
        };
        let part = body.split_to(room.min(body.len()));
        if stream.send_data(part, body.is_empty()).is_err() {
            return;
        }
    }
}
