//! DNS over QUIC (RFC 9250), a question and its answer on each stream, and DNS over HTTP/3.

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use dnscrypt_proxy::proto::MAX_QUERY;
use h3::server::{RequestResolver, RequestStream};
use hyper::StatusCode;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    Connection, Endpoint, EndpointConfig, ReadToEndError, RecvStream, SendStream, TransportConfig,
    VarInt,
};
use rustls::ServerConfig;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::front::{Door, Front, Refused};
use super::http::{self, Asked};
use super::{AT_ONCE, EXCHANGE, EXCHANGES, IDLE};
use crate::exit::{Exit, Fault};
use crate::places::Counted;

/// Errors of DNS over QUIC (RFC 9250, section 8.4).
const NO_ERROR: VarInt = VarInt::from_u32(0);
const PROTOCOL_ERROR: VarInt = VarInt::from_u32(2);
const EXCESSIVE_LOAD: VarInt = VarInt::from_u32(4);
/// HTTP/3 has three of its own (RFC 9114, section 6.2); DNS over QUIC has none.
const MAX_UNI_STREAMS: VarInt = VarInt::from_u32(8);
const IDLE_MS: VarInt = VarInt::from_u32(30_000);
/// The longest question, and its length.
const STREAM_WINDOW: VarInt = VarInt::from_u32(8 * 1024);
const CONNECTION_WINDOW: VarInt = VarInt::from_u32(128 * 1024);
const SEND_WINDOW: u64 = 256 * 1024;
const MAX_FIELDS_BYTES: u64 = 16 * 1024;
const LENGTH: usize = 2;

pub(super) fn open(udp: UdpSocket, tls: Arc<ServerConfig>) -> Result<Endpoint, Fault> {
    let crypto = QuicServerConfig::try_from(tls)
        .map_err(|error| Fault::new(Exit::Bug, format!("QUIC's cryptography: {error}")))?;
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::try_from(AT_ONCE).unwrap_or(VarInt::MAX))
        .max_concurrent_uni_streams(MAX_UNI_STREAMS)
        .max_idle_timeout(Some(IDLE_MS.into()))
        .stream_receive_window(STREAM_WINDOW)
        .receive_window(CONNECTION_WINDOW)
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None);
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    server.transport_config(Arc::new(transport));
    let (config, run_time) = (EndpointConfig::default(), Arc::new(quinn::TokioRuntime));
    Endpoint::new(config, Some(server), udp, run_time)
        .map_err(|error| Fault::io("use a UDP socket of dns.doors", &error))
}

/// A connection of DNS over QUIC.
pub(super) async fn converse(connection: Connection, front: Arc<Front>) {
    let figures = Arc::clone(&front.figures);
    let _open = Counted::new(figures.open_at(Door::Quic));
    let mut streams = JoinSet::new();
    let mut left = EXCHANGES;
    let end = loop {
        tokio::select! {
            accepted = timeout(IDLE, connection.accept_bi()), if left > 0 => {
                match accepted {
                    Ok(Ok((send, receive))) => {
                        left -= 1;
                        let from = connection.remote_address().ip();
                        let front = Arc::clone(&front);
                        streams.spawn(async move { exchange((send, receive), from, &front).await });
                    }
                    Ok(Err(_gone)) => return,
                    Err(_idle) => break NO_ERROR,
                }
            }
            ended = streams.join_next(), if !streams.is_empty() => {
                if let Some(Ok(Err(refused))) = ended {
                    break error_of(refused);
                }
            }
            else => break NO_ERROR,
        }
    };
    connection.close(end, &[]);
}

async fn exchange(
    (mut send, mut receive): (SendStream, RecvStream),
    from: IpAddr,
    front: &Front,
) -> Result<(), Refused> {
    let answer = match read(&mut receive, front).await {
        Ok(Some(message)) => front.ask(&message, from, Door::Quic).await,
        // The client has taken its question back.
        Ok(None) => return Ok(()),
        Err(refused) => Err(refused),
    };
    let answer = match answer {
        Ok(answer) => answer.message,
        Err(refused) => {
            // An end that looks like an answer's would be one of no bytes.
            let _gone = send.reset(error_of(refused));
            return Err(refused);
        }
    };
    let Ok(length) = u16::try_from(answer.len()) else {
        return Ok(());
    };
    let framed = [&length.to_be_bytes(), answer.as_slice()].concat();
    if let Ok(Ok(())) = timeout(EXCHANGE, send.write_all(&framed)).await {
        // Fails only for a stream that the client has stopped. An answer is on its way until it has arrived.
        let _finished = send.finish();
        let _arrived = timeout(EXCHANGE, send.stopped()).await;
    }
    Ok(())
}

fn error_of(refused: Refused) -> VarInt {
    match refused {
        Refused::Malformed => PROTOCOL_ERROR,
        Refused::OverRate => EXCESSIVE_LOAD,
    }
}

async fn read(receive: &mut RecvStream, front: &Front) -> Result<Option<Vec<u8>>, Refused> {
    let reading = receive.read_to_end(LENGTH + MAX_QUERY);
    match timeout(EXCHANGE, reading).await {
        Ok(Ok(bytes)) => match unframe(&bytes) {
            Some(message) => Ok(Some(message.to_vec())),
            None => Err(front.malformed()),
        },
        Ok(Err(ReadToEndError::Read(_))) => Ok(None),
        Ok(Err(ReadToEndError::TooLong)) | Err(_) => Err(front.malformed()),
    }
}

/// The one message of a stream, whose id must be zero (RFC 9250, section 4.2.1).
fn unframe(bytes: &[u8]) -> Option<&[u8]> {
    let (length, message) = bytes.split_first_chunk::<LENGTH>()?;
    let is_whole = usize::from(u16::from_be_bytes(*length)) == message.len();
    (is_whole && message.starts_with(&[0, 0])).then_some(message)
}

type Http = RequestResolver<h3_quinn::Connection, Bytes>;
type Stream = RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

/// A connection of DNS over HTTP/3.
pub(super) async fn converse_http(connection: Connection, front: Arc<Front>) {
    let figures = Arc::clone(&front.figures);
    let _open = Counted::new(figures.open_at(Door::Http3));
    let mut builder = h3::server::builder();
    builder.max_field_section_size(MAX_FIELDS_BYTES);
    let building = builder.build(h3_quinn::Connection::new(connection.clone()));
    let Ok(Ok(mut http)) = timeout(EXCHANGE, building).await else {
        return;
    };
    let from = connection.remote_address().ip();
    let mut requests = JoinSet::new();
    let mut left = EXCHANGES;
    while left > 0 {
        tokio::select! {
            accepted = timeout(IDLE, http.accept()) => {
                let Ok(Ok(Some(request))) = accepted else { break };
                left -= 1;
                let front = Arc::clone(&front);
                requests.spawn(async move {
                    // Neither a slow client nor one that is gone needs to be told.
                    let _answered = timeout(2 * EXCHANGE, answer(request, from, &front)).await;
                });
            }
            Some(_ended) = requests.join_next() => {}
        }
    }
    while requests.join_next().await.is_some() {}
}

async fn answer(request: Http, from: IpAddr, front: &Front) -> Result<(), h3::error::StreamError> {
    let (request, mut stream) = request.resolve_request().await?;
    let (head, ()) = request.into_parts();
    let message = match http::read(&head) {
        Asked::Question(message) => Ok(message),
        Asked::Body => whole(&mut stream).await,
        Asked::Nothing(status) => Err(status),
    };
    let (head, body) = match message {
        Ok(message) => http::answer(front, &message, from, Door::Http3).await,
        Err(status) => {
            front.malformed();
            http::nothing(status)
        }
    };
    stream.send_response(head).await?;
    if !body.is_empty() {
        stream.send_data(body).await?;
    }
    stream.finish().await
}

async fn whole(stream: &mut Stream) -> Result<Vec<u8>, StatusCode> {
    let mut message = Vec::new();
    loop {
        match stream.recv_data().await {
            Ok(Some(mut part)) => {
                if message.len() + part.remaining() > MAX_QUERY {
                    return Err(StatusCode::PAYLOAD_TOO_LARGE);
                }
                message.extend_from_slice(&part.copy_to_bytes(part.remaining()));
            }
            Ok(None) => return Ok(message),
            Err(_) => return Err(StatusCode::BAD_REQUEST),
        }
    }
}
