//! HTTP/3: datagrams travel in QUIC datagrams (RFC 9221), and those that are too long for one as capsules on the
//! request's stream.
//!
//! QUIC datagrams are sent and read on the connection itself: `h3-datagram` 0.0.2 writes every datagram for stream 0. A
//! connection carries one session at a time, so that what comes in needs no sorting.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes};
use h3::ext::Protocol;
use h3::server::{RequestResolver, RequestStream};
use hyper::{Method, Request, Response, StatusCode};
use masque::{Capsules, capsule, payload};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, EndpointConfig, TransportConfig, VarInt};
use rustls::ServerConfig;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::inside::{DATAGRAM_BYTES, Inside};
use super::site::Page;
use super::{Decision, Door, IsConnectUdp};
use crate::exit::{Exit, Fault};
use crate::places::{Counted, Place, count, over_quic};

/// Longer than the router's keepalive.
const IDLE_TIMEOUT: VarInt = VarInt::from_u32(30_000);
/// A page's question, and nothing large after it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_STREAMS: VarInt = VarInt::from_u32(16);
const MAX_UNI_STREAMS: VarInt = VarInt::from_u32(8);
const MAX_FIELDS_BYTES: u64 = 16 * 1024;
/// A quarter of a second at 30 Mb/s; more would only be delay.
const DATAGRAM_BUFFER_BYTES: usize = 1 << 20;

type Stream = RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

pub(super) async fn serve(udp: UdpSocket, tls: Arc<ServerConfig>, door: Arc<Door>) -> Fault {
    let endpoint = match open(udp, tls) {
        Ok(endpoint) => endpoint,
        Err(fault) => return fault,
    };
    let limits = Arc::clone(&door.quic);
    over_quic(endpoint, limits, move |connection| {
        converse(connection, Arc::clone(&door))
    })
    .await;
    Fault::new(Exit::Bug, "the relay's QUIC endpoint was closed")
}

fn open(udp: UdpSocket, tls: Arc<ServerConfig>) -> Result<Endpoint, Fault> {
    let crypto = QuicServerConfig::try_from(tls)
        .map_err(|error| Fault::new(Exit::Bug, format!("QUIC's cryptography: {error}")))?;
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(MAX_STREAMS)
        .max_concurrent_uni_streams(MAX_UNI_STREAMS)
        .max_idle_timeout(Some(IDLE_TIMEOUT.into()))
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BUFFER_BYTES);
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    server.transport_config(Arc::new(transport));
    Endpoint::new(
        EndpointConfig::default(),
        Some(server),
        udp,
        Arc::new(quinn::TokioRuntime),
    )
    .map_err(|error| Fault::io("use the relay's UDP socket", &error))
}

async fn converse(connection: quinn::Connection, door: Arc<Door>) {
    let http = h3::server::builder()
        .enable_extended_connect(true)
        .enable_datagram(true)
        .max_field_section_size(MAX_FIELDS_BYTES)
        .build(h3_quinn::Connection::new(connection.clone()))
        .await;
    let Ok(mut http) = http else { return };
    let is_taken = Arc::new(AtomicBool::new(false));
    let mut requests = JoinSet::new();
    loop {
        tokio::select! {
            accepted = http.accept() => {
                let Ok(Some(resolver)) = accepted else { return };
                let client = Client {
                    connection: connection.clone(),
                    is_taken: Arc::clone(&is_taken),
                    door: Arc::clone(&door),
                };
                requests.spawn(client.answer(resolver));
            }
            Some(_ended) = requests.join_next() => {}
        }
    }
}

/// Whoever asks, on one connection.
struct Client {
    connection: quinn::Connection,
    is_taken: Arc<AtomicBool>,
    door: Arc<Door>,
}

impl Client {
    async fn answer(self, resolver: RequestResolver<h3_quinn::Connection, Bytes>) {
        let resolved = timeout(REQUEST_TIMEOUT, resolver.resolve_request()).await;
        let Ok(Ok((request, mut stream))) = resolved else {
            return;
        };
        let from = self.connection.remote_address();
        let decision = self.door.decide(
            is_connect_udp(&request),
            request.method(),
            request.uri().path(),
            from,
        );
        match decision {
            // The client may be gone; there is nobody to tell.
            Decision::Show(page) => drop(show(&mut stream, page, request.method()).await),
            Decision::Carry(_) if self.is_taken.swap(true, Ordering::AcqRel) => {
                let busy = self.door.site.busy();
                drop(show(&mut stream, busy, request.method()).await);
            }
            Decision::Carry(place) => {
                self.carry(stream, from, place).await;
                self.is_taken.store(false, Ordering::Release);
            }
        }
    }

    async fn carry(&self, mut stream: Stream, from: SocketAddr, _place: Place) {
        let Ok(inside) = Inside::open(&self.door, from).await else {
            return;
        };
        let accepted = Response::builder()
            .status(StatusCode::OK)
            .header("capsule-protocol", "?1")
            .body(());
        let Ok(accepted) = accepted else { return };
        if stream.send_response(accepted).await.is_err() {
            return;
        }
        count(&self.door.figures.quic_sessions, 1);
        let _open = Counted::new(&self.door.figures.quic_open);
        let id = stream.id().into_inner();
        let (mut to_router, mut from_router) = stream.split();
        tokio::select! {
            () = self.datagrams_in(id, &inside) => {}
            () = capsules_in(&mut from_router, &inside) => {}
            () = self.out(id, &mut to_router, &inside) => {}
            () = inside.idle() => {}
        }
        // The router may be gone already.
        let _told = to_router.finish().await;
    }

    async fn datagrams_in(&self, id: u64, inside: &Inside<'_>) {
        while let Ok(datagram) = self.connection.read_datagram().await {
            if let Some((stream, udp)) = payload::read_quic_datagram(&datagram)
                && stream == id
            {
                inside.give(udp);
            }
        }
    }

    async fn out(
        &self,
        id: u64,
        to_router: &mut RequestStream<h3_quinn::SendStream<Bytes>, Bytes>,
        inside: &Inside<'_>,
    ) {
        let mut buffer = vec![0; DATAGRAM_BYTES];
        while let Ok(length) = inside.take(&mut buffer).await {
            let udp = buffer.get(..length).unwrap_or_default();
            let datagram = payload::quic_datagram(id, udp);
            let fits = self
                .connection
                .max_datagram_size()
                .is_some_and(|max| datagram.len() <= max);
            if fits {
                if self
                    .connection
                    .send_datagram(Bytes::from(datagram))
                    .is_err()
                {
                    return;
                }
                continue;
            }
            let mut bytes = Vec::with_capacity(length + 8);
            capsule::write_udp(&mut bytes, udp);
            if to_router.send_data(Bytes::from(bytes)).await.is_err() {
                return;
            }
        }
    }
}

async fn capsules_in(
    from_router: &mut RequestStream<h3_quinn::RecvStream, Bytes>,
    inside: &Inside<'_>,
) {
    let mut capsules = Capsules::default();
    while let Ok(Some(mut bytes)) = from_router.recv_data().await {
        while bytes.has_remaining() {
            capsules.push(bytes.chunk());
            bytes.advance(bytes.chunk().len());
            loop {
                match capsules.next_udp() {
                    Ok(Some(udp)) => inside.give(udp),
                    Ok(None) => break,
                    Err(_) => return,
                }
            }
        }
    }
}

fn is_connect_udp(request: &Request<()>) -> IsConnectUdp {
    let protocol = request.extensions().get::<Protocol>();
    if request.method() == Method::CONNECT && protocol == Some(&Protocol::CONNECT_UDP) {
        IsConnectUdp::Yes
    } else {
        IsConnectUdp::No
    }
}

async fn show(
    stream: &mut Stream,
    page: Page,
    method: &Method,
) -> Result<(), h3::error::StreamError> {
    let head = Response::builder()
        .status(page.status)
        .header("content-type", "text/html")
        .header("content-length", page.body.len())
        .body(());
    let Ok(head) = head else { return Ok(()) };
    stream.send_response(head).await?;
    if method != Method::HEAD {
        stream.send_data(page.body).await?;
    }
    stream.finish().await
}
