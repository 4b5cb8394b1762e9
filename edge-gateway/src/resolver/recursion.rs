//! Recursion of our own, by hickory. Its memory cannot be passed by, so that there are two recursors: one keeps answers, and
//! one, for what is asked ahead, keeps of zones who serves and signs them and no answer: whatever it says was just said to it.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dnscrypt_proxy::serve::Asking;
use hickory_proto::dnssec::TrustAnchors;
use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::RecordType;
use hickory_resolver::config::ResolverOpts;
use hickory_resolver::net::NetError;
use hickory_resolver::recursor::{
    DnssecConfig, DnssecPolicy, QNameMinimization, Recursor, RecursorError, RecursorOptions,
};
use hickory_resolver::{TtlBounds, TtlConfig};

use super::recent::Recent;
use super::routes::Connections;
use super::{
    EDNS_PAYLOAD_BYTES, Found, Outcome, VALIDATIONS, absent, found, negative, roots, set_up,
};
use crate::exit::Fault;

/// Zones whose servers are remembered.
const SERVER_CACHE_ENTRIES: usize = 4_096;
/// Which part of the bounds is for what is asked ahead, besides; four times as many answers about zones were measured at 44 MB.
const AHEAD_PART: usize = 4;
/// Answers asked ahead that are kept for the other workers, for a moment.
const RECENT: usize = 1_024;
/// Kinds of question about zones, and what is signed by their keys.
const ABOUT_ZONES: [RecordType; 4] = [
    RecordType::NS,
    RecordType::DS,
    RecordType::DNSKEY,
    RecordType::RRSIG,
];

/// The two recursors; what the one knows of zones the other asks for itself.
pub(super) struct Recursion {
    keeping_answers: Recursor<Connections>,
    keeping_zones: Recursor<Connections>,
    /// Lookups ahead contend for it, for microseconds.
    recent: Mutex<Recent>,
}

/// What a recursor keeps.
#[derive(Clone, Copy)]
enum Memory {
    Answers,
    Zones,
}

impl Recursion {
    /// Nobody is asked yet. So many answers are kept, twice: as they came, and judged.
    pub(super) fn new(
        roots: &[IpAddr],
        anchors: Option<&Arc<TrustAnchors>>,
        connections: &Connections,
        entries: u64,
    ) -> Result<Self, Fault> {
        let keeping = |memory| {
            recursor(
                (memory, entries),
                roots,
                anchors.cloned(),
                connections.clone(),
            )
        };
        Ok(Self {
            keeping_answers: keeping(Memory::Answers)?,
            keeping_zones: keeping(Memory::Zones)?,
            recent: Mutex::new(Recent::new(RECENT)),
        })
    }

    pub(super) async fn lookup(&self, question: Query, asking: Asking) -> Result<Found, Outcome> {
        match asking {
            Asking::Anyhow | Asking::OverTcp => ask(&self.keeping_answers, question).await,
            Asking::Ahead => self.lookup_ahead(question).await,
        }
    }

    async fn lookup_ahead(&self, question: Query) -> Result<Found, Outcome> {
        // It would be from memory, and what the worker has is as good.
        if ABOUT_ZONES.contains(&question.query_type()) {
            return Err(Outcome::Failed);
        }
        if let Some(found) = self.recent().find(&question, Instant::now()) {
            return Ok(found);
        }
        let found = ask(&self.keeping_zones, question.clone()).await?;
        self.recent().keep(question, &found, Instant::now());
        Ok(found)
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn ask(recursor: &Recursor<Connections>, question: Query) -> Result<Found, Outcome> {
    match recursor.resolve(question, Instant::now(), true).await {
        Ok(message) => Ok(found(message)),
        // What stops its validator it tells in words alone; a refusal is among it.
        Err(RecursorError::Net(NetError::Msg(_))) => Err(Outcome::Refused),
        Err(RecursorError::Net(error)) => negative(error),
        Err(RecursorError::Negative(data)) => {
            let code = if RecursorError::Negative(data.clone()).is_nx_domain() {
                ResponseCode::NXDomain
            } else {
                ResponseCode::NoError
            };
            let soa = data.soa.map(|soa| soa.into_record_of_rdata());
            Ok(absent(code, soa, data.authorities.as_deref()))
        }
        // The enum may grow; whatever it is, there is no answer.
        Err(_) => Err(Outcome::Failed),
    }
}

fn recursor(
    (memory, entries): (Memory, u64),
    roots: &[IpAddr],
    anchors: Option<Arc<TrustAnchors>>,
    connections: Connections,
) -> Result<Recursor<Connections>, Fault> {
    let part = match memory {
        Memory::Answers => 1,
        Memory::Zones => AHEAD_PART,
    };
    let policy = match anchors {
        Some(anchors) => {
            let mut config = DnssecConfig::default();
            config.trust_anchor = Some(anchors);
            config.validation_cache_size = Some(VALIDATIONS / part);
            DnssecPolicy::ValidateWithStaticKey(config)
        }
        None => DnssecPolicy::ValidationDisabled,
    };
    let mut options = RecursorOptions {
        ns_cache_size: SERVER_CACHE_ENTRIES / part,
        response_cache_size: entries / part as u64,
        edns_payload_len: EDNS_PAYLOAD_BYTES,
        case_randomization: true,
        ..RecursorOptions::default()
    };
    if matches!(memory, Memory::Zones) {
        options.cache_policy = zones_alone();
        // Else a name's absence would be taken from what is kept of who serves it.
        options.qname_minimization = QNameMinimization::Relaxed;
    }
    // Roots of one's own mean a closed network, whose servers may well have private addresses.
    let roots = if roots.is_empty() {
        roots::INTERNET.to_vec()
    } else {
        options.deny_server.clear();
        roots.to_vec()
    };
    Recursor::new(&roots, policy, None, options, connections).map_err(|error| set_up(&error))
}

/// How long hickory keeps what: answers for no time at all. What it was just told it hands out with its whole lifetime.
fn zones_alone() -> TtlConfig {
    let mut none = ResolverOpts::default();
    none.positive_max_ttl = Some(Duration::ZERO);
    none.negative_max_ttl = Some(Duration::ZERO);
    let mut policy = TtlConfig::from_opts(&none);
    for kind in ABOUT_ZONES {
        policy.with_query_type_ttl_bounds(kind, TtlBounds::default());
    }
    policy
}
