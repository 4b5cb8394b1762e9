//! Asking servers of the network one is in, for the zones that are theirs: in clear, and nobody else.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::timeout;

use super::{ResolveError, SocketFactory};
use crate::listen::{read_frame, write_frame};
use crate::proto::dropped::Dropped;
use crate::proto::message::{self, Query, Response};

/// A server that is silent for so long is asked once more, and then the next one.
const WAIT: Duration = Duration::from_secs(1);
const TRIES: usize = 2;
const TCP_WAIT: Duration = Duration::from_secs(3);
/// As much as questions say (over UDP), and as a length can (over TCP).
const UDP_ROOM: usize = 4096;
const LONGEST: usize = 65_535;
/// Codes that say nothing of the name: the question was not liked, failed, is not served, or is refused.
const DECLINED: [u8; 4] = [1, 2, 4, 5];

/// The first answer of a server that does not decline, if it can be used.
pub(super) async fn ask(
    servers: &[SocketAddr],
    sockets: &SocketFactory,
    query: &Query,
    asked: &[u8],
) -> Result<Response, ResolveError> {
    let mut failure = ResolveError::NoResolver;
    for server in servers {
        let mut answer = one(*server, sockets, asked).await;
        // Who does not know EDNS says so like this (RFC 6891, section 7).
        if answer.as_deref().is_ok_and(message::is_baffled) {
            answer = one(*server, sockets, &query.without_edns(asked)).await;
        }
        match answer.and_then(|answer| read(&answer, query)) {
            Ok(response) => return Ok(response),
            Err(error) => failure = error,
        }
        tracing::debug!(%server, error = %failure, "a server of this network has no answer");
    }
    Err(failure)
}

/// Whoever has a zone is believed about it, and about nothing else.
fn read(answer: &[u8], query: &Query) -> Result<Response, ResolveError> {
    if DECLINED.contains(&message::rcode_low(answer)) {
        return Err(ResolveError::Refused);
    }
    let response = Response::read(answer, query).and_then(Response::of_its_name_alone);
    response.map_err(ResolveError::Unusable)
}

async fn one(
    server: SocketAddr,
    sockets: &SocketFactory,
    query: &[u8],
) -> Result<Vec<u8>, ResolveError> {
    let mut answer = over_udp(server, sockets, query).await?;
    if message::is_truncated(&answer) {
        let whole = timeout(TCP_WAIT, over_tcp(server, sockets, query)).await;
        answer = whole.unwrap_or(Err(ResolveError::NoAnswer))?;
    }
    // Nobody proved anything on this way.
    message::unmark_proven(&mut answer);
    Ok(answer)
}

/// Each try from a port of its own; what does not belong to the question is passed over.
async fn over_udp(
    server: SocketAddr,
    sockets: &SocketFactory,
    query: &[u8],
) -> Result<Vec<u8>, ResolveError> {
    let mut buffer = vec![0; UDP_ROOM];
    for _ in 0..TRIES {
        let socket = sockets.udp(server).await?;
        socket.send(query).await?;
        let answered = async {
            loop {
                let len = socket.recv(&mut buffer).await?;
                let answer = buffer.get(..len).unwrap_or_default();
                let is_answer = message::check_response(answer, query).is_ok();
                if is_answer || message::is_bare_refusal(answer, query) {
                    return Ok(answer.to_vec());
                }
            }
        };
        if let Ok(outcome) = timeout(WAIT, answered).await {
            return outcome;
        }
    }
    Err(ResolveError::NoAnswer)
}

async fn over_tcp(
    server: SocketAddr,
    sockets: &SocketFactory,
    query: &[u8],
) -> Result<Vec<u8>, ResolveError> {
    let mut stream = sockets.tcp(server).await?;
    let exchange = async {
        write_frame(&mut stream, query).await?;
        let answer = read_frame(&mut stream, LONGEST).await?;
        let answer = answer.ok_or(Dropped::TooShort)?;
        message::check_response(&answer, query)?;
        Ok(answer)
    };
    exchange.await.map_err(|_: Dropped| ResolveError::NoAnswer)
}
