//! Getting a resolver's certificates: a plain TXT query for its provider name, over UDP and then TCP.
//! Nothing of it is secret, and nothing of it is believed until the provider's signature was checked.

use std::sync::Arc;
use std::time::Duration;

use hickory_proto::rr::RecordType;
use rand_core::{OsRng, RngCore as _};
use thiserror::Error;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::Settings;
use super::SocketFactory;
use super::way::{Way, Ways};
use crate::listen::{read_frame, write_frame};
use crate::proto::cert::{Certificate, Policy, PostQuantum, Skipped, select};
use crate::proto::message;
use crate::proto::stamp::DnsCryptStamp;

/// Each try over UDP.
const UDP_TRY: Duration = Duration::from_millis(800);
const UDP_TRIES: usize = 2;
/// The whole exchange over TCP.
const TCP_TRY: Duration = Duration::from_secs(3);
/// Certificate answers are shorter.
const MAX_ANSWER: usize = 4096;
const RECEIVE_SIZE: u16 = 4096;
/// A query as long as the answer with two post-quantum certificates in it: answers over UDP are never longer.
const PADDED_QUERY: usize = 3200;
/// What a relay is asked first: it lets no answer through that is longer than the query, and this fits one packet.
const RELAYED_QUERY: usize = 1152;

/// Why there is no certificate.
#[derive(Clone, Debug, Error)]
pub enum FetchError {
    /// Silence, over UDP and TCP.
    #[error("the resolver does not answer the query for its certificates")]
    NoAnswer,
    /// No relay leads to the resolver, and it may not be asked without one.
    #[error("no relay leads to the resolver")]
    NoRelay,
    /// The network would not take the query.
    #[error("cannot reach the resolver: {0}")]
    Io(Arc<std::io::Error>),
    /// What came back is not an answer to the query.
    #[error("the answer to the query for certificates is not usable")]
    BadAnswer,
    /// The resolver knows no such provider name.
    #[error("the resolver has no certificates under this provider name (response code {0})")]
    Unknown(u8),
    /// Certificates came, and none may be used.
    #[error("{}", none_usable(.0))]
    NoneUsable(Vec<Skipped>),
}

impl From<std::io::Error> for FetchError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

fn none_usable(skipped: &[Skipped]) -> String {
    match skipped.first() {
        None => "the resolver sent no certificate".to_owned(),
        Some(reason) => format!("the resolver's certificate cannot be used: {reason}"),
    }
}

/// The TXT data of a certificate answer, unjudged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertSet {
    /// One entry per record.
    pub records: Vec<Vec<u8>>,
    /// Whether the resolver had more than it could send.
    pub incomplete: bool,
}

/// How certificates are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchBy {
    /// A small query over UDP: post-quantum certificates do not fit into its answer.
    Udp,
    /// One over UDP that makes room for them, in fragments.
    PaddedUdp,
    /// Over TCP.
    Tcp,
}

/// Fetches in one way.
pub async fn fetch(
    stamp: &DnsCryptStamp,
    ways: &Ways,
    sockets: &SocketFactory,
    by: FetchBy,
) -> Result<CertSet, FetchError> {
    let id = u16::try_from(OsRng.next_u32() >> 16).unwrap_or_default();
    let (name, qtype) = (&stamp.provider_name, RecordType::TXT);
    let is_relayed = ways.now().ok_or(FetchError::NoRelay)?.is_relayed();
    let padded = |len| message::padded_query(id, name, qtype, RECEIVE_SIZE, len);
    let query = match by {
        FetchBy::PaddedUdp => padded(PADDED_QUERY),
        // A relay asks over UDP, however it is asked.
        FetchBy::Tcp if is_relayed => padded(PADDED_QUERY),
        FetchBy::Udp if is_relayed => padded(RELAYED_QUERY),
        FetchBy::Udp | FetchBy::Tcp => message::query(id, name, qtype, RECEIVE_SIZE),
    };
    let query = query.map_err(|_| FetchError::BadAnswer)?;
    let answer = match by {
        FetchBy::Udp | FetchBy::PaddedUdp => over_udp(ways, sockets, &query).await?,
        FetchBy::Tcp => over_tcp(ways, sockets, &query).await?,
    };
    let rcode = message::rcode_low(&answer);
    if rcode != 0 {
        return Err(FetchError::Unknown(rcode));
    }
    Ok(CertSet {
        records: message::texts(&answer).map_err(|_| FetchError::BadAnswer)?,
        incomplete: message::is_truncated(&answer),
    })
}

/// The certificate to use now: over UDP, over TCP when that failed or was incomplete, and over UDP in fragments where TCP does
/// not pass and there is a post-quantum one to be had.
pub(super) async fn certificate(
    stamp: &DnsCryptStamp,
    ways: &Ways,
    settings: &Settings,
) -> Result<Certificate, FetchError> {
    let now = (settings.clock)();
    let choose = |set: &CertSet| choose(set, stamp, settings.policy, now);
    let is_wanted = settings.policy.post_quantum != PostQuantum::Off;
    let (is_cut, first) = match fetch(stamp, ways, &settings.sockets, FetchBy::Udp).await {
        Ok(set) if !set.incomplete => return choose(&set),
        Ok(set) => (true, choose(&set)),
        Err(error) => (false, Err(error)),
    };
    if first.is_ok() && !is_wanted {
        return first;
    }
    // What came over UDP says more about the resolver than its silence on TCP.
    if let Ok(set) = fetch(stamp, ways, &settings.sockets, FetchBy::Tcp).await {
        return choose(&set).or(first);
    }
    if !is_cut || !is_wanted {
        return first;
    }
    match fetch(stamp, ways, &settings.sockets, FetchBy::PaddedUdp).await {
        Ok(set) => choose(&set).or(first),
        Err(_) => first,
    }
}

fn choose(
    set: &CertSet,
    stamp: &DnsCryptStamp,
    policy: Policy,
    now: u64,
) -> Result<Certificate, FetchError> {
    let records = set.records.iter().map(Vec::as_slice);
    let selection = select(records, &stamp.provider_key, policy, now);
    selection
        .best
        .ok_or(FetchError::NoneUsable(selection.skipped))
}

/// Tries twice, and each way once.
async fn over_udp(
    ways: &Ways,
    sockets: &SocketFactory,
    query: &[u8],
) -> Result<Vec<u8>, FetchError> {
    let mut before: Option<(Way, UdpSocket)> = None;
    let mut failure = FetchError::NoAnswer;
    for _ in 0..UDP_TRIES.max(ways.count()) {
        let way = ways.now().ok_or(FetchError::NoRelay)?;
        let packet = way.dress(query);
        let exchange = async {
            let socket = match before.take() {
                Some((same, socket)) if same == way => socket,
                Some(_) | None => sockets.udp(way.next_hop()).await?,
            };
            let (_, socket) = before.insert((way, socket));
            ask(socket, &packet, query).await
        };
        match timeout(UDP_TRY, exchange).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => failure = error.into(),
            Err(_) => {}
        }
        ways.silent(way);
    }
    Err(failure)
}

async fn ask(socket: &UdpSocket, packet: &[u8], query: &[u8]) -> std::io::Result<Vec<u8>> {
    socket.send(packet).await?;
    let mut buffer = vec![0; MAX_ANSWER + 1];
    loop {
        let len = socket.recv(&mut buffer).await?;
        let answer = buffer.get(..len).unwrap_or_default();
        if len <= MAX_ANSWER && message::check_response(answer, query).is_ok() {
            return Ok(answer.to_vec());
        }
    }
}

async fn over_tcp(
    ways: &Ways,
    sockets: &SocketFactory,
    query: &[u8],
) -> Result<Vec<u8>, FetchError> {
    let way = ways.now().ok_or(FetchError::NoRelay)?;
    let exchange = async {
        let mut stream = sockets.tcp(way.next_hop()).await?;
        write_frame(&mut stream, &way.dress(query))
            .await
            .map_err(|_| FetchError::NoAnswer)?;
        let answer = read_frame(&mut stream, MAX_ANSWER)
            .await
            .map_err(|_| FetchError::BadAnswer)?;
        let answer = answer.ok_or(FetchError::NoAnswer)?;
        message::check_response(&answer, query).map_err(|_| FetchError::BadAnswer)?;
        Ok(answer)
    };
    let outcome = timeout(TCP_TRY, exchange).await;
    let outcome = outcome.map_err(|_| FetchError::NoAnswer).flatten();
    if outcome.is_err() {
        ways.silent(way);
    }
    outcome
}
