//! From a query in wire format to its answer: asks a forwarder or recurses, validates DNSSEC, caches.
//! No lookup is logged or counted by name, and no client subnet (RFC 7871) ever goes upstream: the
//! resolver writes its own queries and copies nothing from a client's but name, type and DO.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dnscrypt_proxy::serve::Asking;
use hickory_proto::dnssec::{DnssecSummary, Proof, TrustAnchors};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use tokio::sync::Semaphore;

use crate::config::{self, Upstream};
use crate::exit::{Exit, Fault};

mod chain;
mod denial;
mod forwarders;
mod ranges;
mod recent;
mod recursion;
mod roots;
mod routes;
mod weight;
mod wildcard;

use forwarders::Forwarders;
use ranges::{Now, Ranges};
use recursion::Recursion;
use routes::{Connections, Routes, Whose};
use weight::Room;

pub(crate) use weight::Refused;

/// Of each so many bytes that answers may take at the workers, hickory keeps one behind them, twice where it validates. One of a signed
/// wildcard was measured at 4 KB, the heaviest that are kept (`weight`) have some 14 KB.
const BYTES_PER_ENTRY: usize = 6 << 10;
/// The least that serves for zones and their keys.
const LEAST_ENTRIES: usize = 512;
/// Answers of one zone with resolvers of its own.
const ZONE_CACHE_ENTRIES: u64 = 1_024;
/// Proven ranges between names kept, mostly of 1 KB, so 16 MB, and 40 MB with the longest of names: the root zone has 1,500.
const RANGES: usize = 16_384;
/// The same of one zone with resolvers of its own.
const ZONE_RANGES: usize = 1_024;
/// Judgements of signatures kept, mostly those of zones' keys; hickory would keep a million, at 300 bytes and more.
const VALIDATIONS: usize = 16_384;
/// Lookups for which nobody waits, beside those of [`Answers`](crate::answers::Answers).
const MAX_AHEAD: usize = 256;
/// Stubs ask again after 5 s; an answer later than this helps nobody.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(8);
/// What fits every path without fragments (DNS flag day 2020).
const EDNS_PAYLOAD_BYTES: u16 = 1_232;

/// How a lookup ended; the label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Records, or their proven or claimed absence.
    Answered,
    /// Their absence, by what was proven for another question: nobody was asked (RFC 8198).
    Synthesized,
    /// The answer fails DNSSEC validation: SERVFAIL.
    Bogus,
    /// No server gave an answer in time: SERVFAIL.
    Failed,
    /// The forwarder said that it cannot answer, perhaps as validation there refused what it was given: SERVFAIL.
    Declined,
    /// Too many lookups under way: SERVFAIL.
    Busy,
    /// A kind of question that is not served: REFUSED or NOTIMP.
    Refused,
    /// Not a query: no answer at all.
    Malformed,
}

impl Outcome {
    /// Every outcome, for tables of counters.
    pub const ALL: [Self; 8] = [
        Self::Answered,
        Self::Synthesized,
        Self::Bogus,
        Self::Failed,
        Self::Declined,
        Self::Busy,
        Self::Refused,
        Self::Malformed,
    ];

    /// The label's value.
    pub fn as_label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Synthesized => "synthesized",
            Self::Bogus => "bogus",
            Self::Failed => "failed",
            Self::Declined => "declined",
            Self::Busy => "busy",
            Self::Refused => "refused",
            Self::Malformed => "malformed",
        }
    }
}

/// The resolver behind the DNSCrypt server.
pub struct Resolver {
    routes: Arc<Routes>,
    /// Of the zones with resolvers of their own, in the order of the configuration.
    zones: Vec<Source>,
    rest: Source,
    ahead: Semaphore,
    /// Of all of them.
    room: Room,
}

/// Who is asked.
struct Source {
    asked: Asked,
    /// What they proved not to be there; none where what they say is not validated. Lookups contend for it, for microseconds.
    denied: Option<Mutex<Ranges>>,
}

enum Asked {
    Forward(Box<Forwarders>),
    Recurse(Box<Recursion>),
}

/// What came back from the source, before it is judged.
#[derive(Clone)]
struct Found {
    code: ResponseCode,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    summary: DnssecSummary,
    /// Nobody was asked for it.
    is_synthesized: bool,
}

impl Resolver {
    /// Sets the resolver up; nothing is asked yet.
    pub fn new(dns: &config::Dns) -> Result<Self, Fault> {
        let anchors = match &dns.trust_anchor_file {
            Some(file) => Arc::new(TrustAnchors::from_file(file).map_err(|error| {
                let file = file.display();
                Fault::new(
                    Exit::Config,
                    format!("dns.trust-anchor-file {file} holds no DNSKEY records: {error}"),
                )
            })?),
            None => Arc::new(TrustAnchors::default()),
        };
        let anchors_if = |validates: bool| validates.then(|| Arc::clone(&anchors));
        let (ranges, zone_ranges) = match dns.aggressive_nsec {
            true => (RANGES, ZONE_RANGES),
            false => (0, 0),
        };
        let entries = (dns.cache_bytes / BYTES_PER_ENTRY).max(LEAST_ENTRIES) as u64;
        let routes = Arc::new(Routes::new(dns.zones.iter().map(|zone| zone.name.clone())));
        let room = Room::new();
        let forward = |servers: &[SocketAddr], validates, whose, (cache_entries, ranges)| {
            let connections = Connections::of(whose, &routes, &room);
            let anchors = anchors_if(validates);
            let forwarders = Forwarders::new(servers, anchors, &connections, cache_entries)?;
            let asked = Asked::Forward(Box::new(forwarders));
            Ok::<_, Fault>(Source::new(asked, validates, ranges))
        };
        let rest = match &dns.upstream {
            Upstream::Forward(servers) => {
                forward(servers, dns.dnssec, Whose::Rest, (entries, ranges))?
            }
            Upstream::Recurse(roots) => {
                let connections = Connections::of(Whose::Rest, &routes, &room);
                let anchors = anchors_if(dns.dnssec);
                let recursion = Recursion::new(roots, anchors.as_ref(), &connections, entries)?;
                Source::new(Asked::Recurse(Box::new(recursion)), dns.dnssec, ranges)
            }
        };
        let zones = dns.zones.iter().enumerate().map(|(at, zone)| {
            let whose = Whose::Zone(at);
            let most = (ZONE_CACHE_ENTRIES, zone_ranges);
            forward(&zone.forward, zone.dnssec, whose, most)
        });
        Ok(Self {
            zones: zones.collect::<Result<_, _>>()?,
            rest,
            ahead: Semaphore::new(MAX_AHEAD),
            routes,
            room,
        })
    }

    /// The room for large answers.
    pub(crate) fn room(&self) -> &Room {
        &self.room
    }

    /// Answers one query; `None` when it is not a query at all.
    pub async fn answer(&self, query: &[u8], asking: Asking) -> (Option<Vec<u8>>, Outcome) {
        let Ok(request) = Message::from_vec(query) else {
            return (None, Outcome::Malformed);
        };
        let [question] = request.queries.as_slice() else {
            return (None, Outcome::Malformed);
        };
        if request.metadata.message_type != MessageType::Query {
            return (None, Outcome::Malformed);
        }
        let (response, outcome) = match unserved(&request, question) {
            Some(code) => (error(&request, code), Outcome::Refused),
            None => self.resolve(&request, question.clone(), asking).await,
        };
        match response.to_vec() {
            Ok(bytes) => (Some(bytes), outcome),
            // An answer that cannot be written (over 64 KiB) is as good as none.
            Err(_) => (
                error(&request, ResponseCode::ServFail).to_vec().ok(),
                Outcome::Failed,
            ),
        }
    }

    async fn resolve(
        &self,
        request: &Message,
        question: Query,
        asking: Asking,
    ) -> (Message, Outcome) {
        let failure = |outcome| (error(request, ResponseCode::ServFail), outcome);
        let place = (asking == Asking::Ahead).then(|| self.ahead.try_acquire());
        let Ok(_place) = place.transpose() else {
            return failure(Outcome::Busy);
        };
        let dnssec_ok = request
            .edns
            .as_ref()
            .is_some_and(|edns| edns.flags().dnssec_ok);
        let lookup = Box::pin(self.lookup(question, asking));
        let found = match tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await {
            Ok(Ok(found)) => found,
            Ok(Err(outcome)) => return failure(outcome),
            Err(_elapsed) => return failure(Outcome::Failed),
        };
        if found.summary == DnssecSummary::Bogus {
            return failure(Outcome::Bogus);
        }
        let mut response = head(request, found.code);
        let secure = found.summary == DnssecSummary::Secure;
        response.metadata.authentic_data = secure && (dnssec_ok || request.metadata.authentic_data);
        response.answers = found.answers;
        response.authorities = found.authorities;
        restore_spelling(&mut response);
        let outcome = if found.is_synthesized {
            Outcome::Synthesized
        } else {
            Outcome::Answered
        };
        (response.maybe_strip_dnssec_records(dnssec_ok), outcome)
    }

    /// What is said by those who are asked for the name, if it may be believed. Where it may not, or would be their word
    /// on a name of others', the name may be an alias, whose target is asked of its own resolvers and judged by itself.
    async fn lookup(&self, mut question: Query, asking: Asking) -> Result<Found, Outcome> {
        let mut aliases: Option<Found> = None;
        let join = |aliases: Option<Found>, found| match aliases {
            Some(before) => denial::join(before, found),
            None => found,
        };
        for _ in 0..denial::MOST_ALIASES {
            let name = question.name().clone();
            let source = self.source(&name).ok_or(Outcome::Failed)?;
            let doubt = match source.lookup(question.clone(), asking).await {
                Ok(found) if source.believes(&name, &found) => return Ok(join(aliases, found)),
                Ok(_) | Err(Outcome::Bogus) => Outcome::Bogus,
                Err(Outcome::Refused) if !self.routes.is_empty() => Outcome::Failed,
                Err(Outcome::Refused) => return Err(Outcome::Failed),
                Err(outcome) => return Err(outcome),
            };
            if question.query_type() == RecordType::CNAME {
                return Err(doubt);
            }
            let alias = Query::query(name.clone(), RecordType::CNAME);
            let alias = match source.lookup(alias, asking).await {
                Err(Outcome::Refused) => return Err(Outcome::Failed),
                alias => alias?,
            };
            let target = denial::target(&name, &alias).ok_or(doubt)?;
            question = Query::query(target, question.query_type());
            aliases = Some(join(aliases, alias));
        }
        Err(Outcome::Bogus)
    }

    fn source(&self, name: &Name) -> Option<&Source> {
        match self.routes.of(name) {
            Whose::Zone(at) => self.zones.get(at),
            Whose::Rest => Some(&self.rest),
        }
    }
}

/// Gives the asked name back as it was spelled: what comes from upstream or the cache may have the
/// random case of our own queries or of somebody else's.
fn restore_spelling(response: &mut Message) {
    let Some(asked) = response
        .queries
        .first()
        .map(|question| question.name().clone())
    else {
        return;
    };
    let sections = [&mut response.answers, &mut response.authorities];
    for record in sections.into_iter().flatten() {
        if record.name == asked {
            record.name = asked.clone();
        }
    }
}

/// Kinds of question that a resolver for homes has no answer to.
fn unserved(request: &Message, question: &Query) -> Option<ResponseCode> {
    let whole_zone = matches!(
        question.query_type(),
        RecordType::AXFR | RecordType::IXFR | RecordType::ANY | RecordType::OPT
    );
    if request.metadata.op_code != OpCode::Query {
        Some(ResponseCode::NotImp)
    } else if question.query_class() != DNSClass::IN
        || whole_zone
        || !request.metadata.recursion_desired
    {
        Some(ResponseCode::Refused)
    } else {
        None
    }
}

fn error(request: &Message, code: ResponseCode) -> Message {
    head(request, code)
}

/// A response to `request` with its header, question and OPT record.
fn head(request: &Message, code: ResponseCode) -> Message {
    let mut response = Message::response(request.metadata.id, request.metadata.op_code);
    response.metadata.recursion_desired = request.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.metadata.checking_disabled = request.metadata.checking_disabled;
    response.metadata.response_code = code;
    response.add_queries(request.queries.iter().cloned());
    if let Some(asked) = &request.edns {
        let mut edns = Edns::new();
        edns.set_max_payload(EDNS_PAYLOAD_BYTES);
        edns.set_dnssec_ok(asked.flags().dnssec_ok);
        response.set_edns(edns);
    }
    response
}

fn set_up(error: &dyn std::error::Error) -> Fault {
    Fault::new(Exit::Bug, format!("the resolver cannot be set up: {error}"))
}

impl Source {
    fn new(asked: Asked, validates: bool, ranges: usize) -> Self {
        let denied = validates.then(|| Mutex::new(Ranges::new(ranges)));
        Self { asked, denied }
    }

    async fn lookup(&self, question: Query, asking: Asking) -> Result<Found, Outcome> {
        let Some(denied) = &self.denied else {
            let mut found = self.asked.lookup(question, asking).await?;
            found.summary = DnssecSummary::Insecure;
            return Ok(found);
        };
        let denied = || denied.lock().unwrap_or_else(PoisonError::into_inner);
        // Who asks ahead wants more than what is left of the same lifetime.
        if asking != Asking::Ahead
            && let Some(found) = denied().deny(&question, Instant::now())
        {
            return Ok(found);
        }
        let found = self.asked.lookup(question, asking).await?;
        denied().keep(&found, now());
        Ok(found)
    }

    fn believes(&self, name: &Name, found: &Found) -> bool {
        self.denied.is_none() || !found.answers.is_empty() || denial::stands(name, found)
    }
}

fn now() -> Now {
    // Serial numbers: the upper half is nobody's (RFC 4034, section 3.1.5).
    let unix_s = netio::clock::unix_s() & u64::from(u32::MAX);
    Now {
        at: Instant::now(),
        unix_s: u32::try_from(unix_s).unwrap_or_default(),
    }
}

impl Asked {
    async fn lookup(&self, question: Query, asking: Asking) -> Result<Found, Outcome> {
        match self {
            Self::Forward(forwarders) => {
                let (name, kind) = (question.name().clone(), question.query_type());
                let mut found = forwarders.lookup(question, asking).await?;
                chain::keep(&mut found.answers, &name, kind);
                chain::keep_proofs(&mut found.authorities);
                Ok(found)
            }
            Self::Recurse(recursion) => recursion.lookup(question, asking).await,
        }
    }
}

fn found(message: Message) -> Found {
    let judged = if message.answers.is_empty() {
        &message.authorities
    } else {
        &message.answers
    };
    let summary = DnssecSummary::from_records(judged.iter());
    Found {
        code: message.metadata.response_code,
        answers: message.answers,
        authorities: message.authorities,
        summary,
        is_synthesized: false,
    }
}

/// Errors of the source that are answers: a name or type that is not there.
fn negative(error: NetError) -> Result<Found, Outcome> {
    let NetError::Dns(error) = error else {
        return Err(Outcome::Failed);
    };
    if let DnsError::NoRecordsFound(NoRecords {
        soa,
        response_code: code @ (ResponseCode::NXDomain | ResponseCode::NoError),
        authorities,
        ..
    }) = error
    {
        let soa = soa.map(|soa| soa.into_record_of_rdata());
        return Ok(absent(code, soa, authorities.as_deref()));
    }
    if let DnsError::Nsec {
        query,
        response,
        proof,
        ..
    } = error
    {
        if proof == Proof::Bogus && wildcard::is_proven_expansion(&query, &response) {
            return Ok(found(response.into_message()));
        }
        if proof != Proof::Insecure {
            return Err(Outcome::Bogus);
        }
        let soa = response
            .soa()
            .map(|soa| soa.to_owned().into_record_of_rdata());
        let code = response.metadata.response_code;
        // Proven, but by hashes of too many rounds to count as secure (RFC 9276).
        return Ok(Found {
            summary: DnssecSummary::Insecure,
            ..absent(code, soa, Some(&response.authorities))
        });
    }
    if matches!(error, DnsError::DnssecBogus) {
        return Err(Outcome::Bogus);
    }
    if matches!(error, DnsError::ResponseCode(ResponseCode::Refused)) {
        return Err(Outcome::Refused);
    }
    Err(Outcome::Failed)
}

/// The same of a forwarder, which may say no more than SERVFAIL of what it has found to be bogus: nothing else than that
/// nothing came from it is held to be that nobody was reached.
fn declined(error: NetError) -> Result<Found, Outcome> {
    let is_its_word = matches!(error, NetError::Dns(_));
    negative(error).map_err(|outcome| {
        if is_its_word && outcome == Outcome::Failed {
            Outcome::Declined
        } else {
            outcome
        }
    })
}

fn absent(code: ResponseCode, soa: Option<Record>, others: Option<&[Record]>) -> Found {
    let others = others.unwrap_or_default().iter();
    let others = others
        .filter(|record| record.record_type() != RecordType::SOA)
        .cloned();
    let authorities: Vec<Record> = soa.into_iter().chain(others).collect();
    let summary = DnssecSummary::from_records(authorities.iter());
    Found {
        code,
        answers: Vec::new(),
        authorities,
        summary,
        is_synthesized: false,
    }
}

#[cfg(test)]
mod tests;
