//! TLS over TCP, where no UDP passes at all: HTTP/1.1's upgrade to `connect-udp` (RFC 9298 section 3.2), datagrams as
//! capsules. Slower by nature: a lost segment stops everything behind it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use http_body_util::{Empty, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use masque::{Capsules, capsule};
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::server::TlsStream;

use super::inside::{DATAGRAM_BYTES, Inside};
use super::{Decision, Door, IsConnectUdp};
use crate::exit::Fault;
use crate::places::{Counted, Place, count, over_tls};

/// A browser's head of a request comes at once; a connection that is kept open waits for the next as long.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes that are written at once: a burst of WireGuard, and one more datagram.
const WRITE_BYTES: usize = 64 * 1024;
/// The protocol's name in HTTP/1.1 (RFC 9298 section 3.2).
const CONNECT_UDP: &str = "connect-udp";

type Answer = Response<BoxBody<Bytes, Infallible>>;
type Stream = TokioIo<Upgraded>;

pub(super) async fn serve(
    listener: std::net::TcpListener,
    tls: Arc<ServerConfig>,
    door: Arc<Door>,
) -> Fault {
    let limits = Arc::clone(&door.tcp);
    let error = over_tls(listener, tls, limits, move |stream, from| {
        converse(stream, from, Arc::clone(&door))
    });
    Fault::io("use the relay's TCP socket", &error.await)
}

async fn converse(stream: TlsStream<TcpStream>, from: SocketAddr, door: Arc<Door>) {
    let (accepted, mut upgraded) = mpsc::channel(1);
    let service = service_fn(|request| {
        let (answer, session) = answer(request, from, &door);
        if let Some(session) = session {
            // After an upgrade there is no second request.
            let _first = accepted.try_send(session);
        }
        async move { Ok::<_, Infallible>(answer) }
    });
    // A connection that breaks off is the client's business.
    let _ended = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Ok((upgrade, place)) = upgraded.try_recv()
        && let Ok(stream) = upgrade.await
    {
        carry(TokioIo::new(stream), from, &door, place).await;
    }
}

fn answer(
    mut request: Request<Incoming>,
    from: SocketAddr,
    door: &Door,
) -> (Answer, Option<(hyper::upgrade::OnUpgrade, Place)>) {
    let path = request.uri().path().to_owned();
    let decision = door.decide(is_connect_udp(&request), request.method(), &path, from);
    match decision {
        Decision::Carry(place) => {
            let mut answer = Response::new(Empty::new().boxed());
            *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let headers = answer.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(UPGRADE, HeaderValue::from_static(CONNECT_UDP));
            headers.insert("capsule-protocol", HeaderValue::from_static("?1"));
            (answer, Some((hyper::upgrade::on(&mut request), place)))
        }
        Decision::Show(page) => {
            let mut answer = Response::new(Full::new(page.body).boxed());
            *answer.status_mut() = page.status;
            answer
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
            (answer, None)
        }
    }
}

fn is_connect_udp(request: &Request<Incoming>) -> IsConnectUdp {
    let upgrade = request.headers().get(UPGRADE);
    let is_wanted = upgrade.is_some_and(|value| {
        value
            .as_bytes()
            .eq_ignore_ascii_case(CONNECT_UDP.as_bytes())
    });
    if is_wanted && request.method() == Method::GET {
        IsConnectUdp::Yes
    } else {
        IsConnectUdp::No
    }
}

async fn carry(stream: Stream, from: SocketAddr, door: &Door, _place: Place) {
    let Ok(inside) = Inside::open(door, from).await else {
        return;
    };
    count(&door.figures.tls_sessions, 1);
    let _open = Counted::new(&door.figures.tls_open);
    let (reader, writer) = tokio::io::split(stream);
    tokio::select! {
        () = read_capsules(reader, &inside) => {}
        () = write_capsules(writer, &inside) => {}
        () = inside.idle() => {}
    }
}

async fn read_capsules(mut reader: ReadHalf<Stream>, inside: &Inside<'_>) {
    let mut capsules = Capsules::default();
    let mut buffer = vec![0; WRITE_BYTES];
    loop {
        match reader.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(length) => capsules.push(buffer.get(..length).unwrap_or_default()),
        }
        loop {
            match capsules.next_udp() {
                Ok(Some(udp)) => inside.give(udp),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

async fn write_capsules(mut writer: WriteHalf<Stream>, inside: &Inside<'_>) {
    let mut buffer = vec![0; DATAGRAM_BYTES];
    let mut out = Vec::with_capacity(2 * WRITE_BYTES);
    while let Ok(length) = inside.take(&mut buffer).await {
        out.clear();
        capsule::write_udp(&mut out, buffer.get(..length).unwrap_or_default());
        while out.len() < WRITE_BYTES {
            let Some(length) = inside.take_now(&mut buffer) else {
                break;
            };
            capsule::write_udp(&mut out, buffer.get(..length).unwrap_or_default());
        }
        if writer.write_all(&out).await.is_err() || writer.flush().await.is_err() {
            return;
        }
    }
}
