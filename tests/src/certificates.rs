//! A DNSCrypt server's certificates, asked for as any client does.

use std::net::UdpSocket;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use dnscrypt_proxy::proto::cert::{Certificate, Legacy, Policy, PostQuantum, select};
use dnscrypt_proxy::proto::client::{ClientNonce, PqSession, QueryPadding, answered_nonce};
use dnscrypt_proxy::proto::message;
use dnscrypt_proxy::{DnsCryptStamp, Dropped};
use rand_core::OsRng;

use crate::netns::Netns;
use crate::zones::PAGE_NAME;

const A: u16 = 1;
const TXT: u16 = 16;
/// The nonce of the one query that fetches a ticket: what counts its nonces is far below it.
const FETCHING: ClientNonce = [0xff; 12];
const PADDING: QueryPadding = QueryPadding::Udp { target: 256 };
const LARGEST_ANSWER: u16 = 4_096;
/// Post-quantum certificates come over UDP only to who asks at this length.
pub(crate) const PADDED: usize = 3_200;
/// Of those that will not have so long a query: the classical ones come without it.
pub(crate) const PLAIN: usize = 0;
/// Wants a post-quantum certificate and no other.
pub(crate) const POST_QUANTUM: Policy = Policy {
    post_quantum: PostQuantum::Required,
    legacy: Legacy::Refused,
};

/// Asks with a query of this length for the certificate that a policy prefers.
pub(crate) fn certificate(
    netns: &Netns,
    stamp: &DnsCryptStamp,
    len: usize,
    policy: Policy,
) -> Result<Option<Certificate>> {
    let name = &stamp.provider_name;
    let query = message::padded_query(1, name, TXT.into(), LARGEST_ANSWER, len)
        .map_err(refused("writing the query for certificates"))?;
    let socket = netns.enter(|| UdpSocket::bind("0.0.0.0:0").context("binding UDP"))?;
    socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .context("bounding the wait")?;
    socket.connect(stamp.addr).context("connecting UDP")?;
    socket.send(&query).context("asking")?;
    let mut answer = vec![0; LARGEST_ANSWER.into()];
    let len = socket.recv(&mut answer).context("waiting for the answer")?;
    answer.truncate(len);
    let records = message::texts(&answer).map_err(refused("reading the answer"))?;
    let records = records.iter().map(Vec::as_slice);
    Ok(select(records, &stamp.provider_key, policy, now_s()?).best)
}

/// A session with a ticket, as a client has that asked before; `None` where no tickets are given. `ask` sends a packet and
/// gives the answer that it is told to know.
pub(crate) fn session_with_ticket(
    cert: &Certificate,
    ask: impl FnOnce(&[u8], &dyn Fn(&[u8]) -> bool) -> Result<Vec<u8>>,
) -> Result<Option<PqSession>> {
    let mut session = PqSession::new(cert, OsRng)?;
    let message =
        message::query(1, PAGE_NAME, A.into(), 1_232).map_err(refused("writing a query"))?;
    let query = session.seal_query(&message, &FETCHING, PADDING, now_s()?)?;
    let is_it = |answer: &[u8]| answered_nonce(answer).is_ok_and(|nonce| nonce == FETCHING);
    let answer = ask(&query.packet, &is_it).context("asking for a ticket")?;
    let answer = query.asked.open_response(answer, &message, now_s()?);
    let answer = answer.map_err(refused("opening the answer with a ticket"))?;
    Ok(answer.ticket.map(|ticket| {
        session.keep(ticket);
        session
    }))
}

/// What the protocol's library says, with what was tried.
pub(crate) fn refused(what: &'static str) -> impl Fn(Dropped) -> anyhow::Error {
    move |reason| anyhow!("{what}: {reason:?}")
}

pub(crate) fn now_s() -> Result<u64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Ok(since.context("a clock before 1970")?.as_secs())
}
