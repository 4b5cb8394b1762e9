//! Other resolvers that are asked, by hickory: with a cache in front, over TCP alone, or validating.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dnscrypt_proxy::serve::Asking;
use hickory_proto::dnssec::TrustAnchors;
use hickory_proto::op::{DnsRequest, DnsRequestOptions, Query};
use hickory_resolver::caching_client::CachingClient;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverOpts};
use hickory_resolver::net::dnssec::DnssecDnsHandle;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsHandle, DnsResponseStream, FirstAnswer as _, RetryDnsHandle};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};

use super::routes::Connections;
use super::{EDNS_PAYLOAD_BYTES, Found, Outcome, VALIDATIONS, declined, found, set_up};
use crate::exit::Fault;

/// A single forwarder's time to answer before it is asked again.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_ACTIVE_PER_SERVER: usize = 1_024;

/// The forwarders with a cache in front of them, and over TCP alone.
pub(super) struct Forwarders {
    asked: Asked,
    cached: CachingClient<Asked>,
    /// Asks over TCP alone and keeps nothing.
    by_tcp: CachingClient<Asked>,
}

/// The forwarders themselves. hickory's own resolver has the same two ways, but keeps a million validations in each.
#[derive(Clone)]
enum Asked {
    Believed(Pool),
    Validated(DnssecDnsHandle<Pool>),
}

type Pool = RetryDnsHandle<NameServerPool<Connections>>;

impl Asked {
    fn new(
        servers: Vec<NameServerConfig>,
        anchors: Option<Arc<TrustAnchors>>,
        connections: &Connections,
    ) -> Result<Self, Fault> {
        let mut options = ResolverOpts::default();
        options.timeout = FORWARD_TIMEOUT;
        options.max_active_requests = MAX_ACTIVE_PER_SERVER;
        options.case_randomization = true;
        let attempts = options.attempts;
        let tls = TlsConfig::new().map_err(|error| set_up(&error))?;
        let context = Arc::new(PoolContext::new(options, tls));
        let pool = NameServerPool::from_config(servers, context, connections.clone());
        let pool = RetryDnsHandle::new(pool, attempts);
        Ok(match anchors {
            Some(anchors) => Self::Validated(
                DnssecDnsHandle::with_trust_anchor(pool, anchors)
                    .validation_cache_size(VALIDATIONS),
            ),
            None => Self::Believed(pool),
        })
    }

    fn options(&self) -> DnsRequestOptions {
        let mut options = DnsRequestOptions::default();
        options.use_edns = true;
        options.edns_payload_len = EDNS_PAYLOAD_BYTES;
        options.case_randomization = true;
        options.edns_set_dnssec_ok = self.is_verifying_dnssec();
        options
    }
}

impl DnsHandle for Asked {
    type Response = DnsResponseStream;
    type Runtime = TokioRuntimeProvider;

    fn is_verifying_dnssec(&self) -> bool {
        matches!(self, Self::Validated(_))
    }

    fn send(&self, request: DnsRequest) -> DnsResponseStream {
        match self {
            Self::Believed(pool) => {
                DnsResponseStream::from(Box::pin(pool.send(request).first_answer()))
            }
            Self::Validated(validator) => {
                DnsResponseStream::from(Box::pin(validator.send(request).first_answer()))
            }
        }
    }
}

impl Forwarders {
    /// Nobody is asked yet.
    pub(super) fn new(
        servers: &[SocketAddr],
        anchors: Option<Arc<TrustAnchors>>,
        connections: &Connections,
        cache_entries: u64,
    ) -> Result<Self, Fault> {
        let both = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
        let tcp = [ConnectionConfig::tcp()];
        let over = |by: &[ConnectionConfig]| {
            let servers = servers.iter().map(|server| name_server(server, by));
            Asked::new(servers.collect(), anchors.clone(), connections)
        };
        let asked = over(&both)?;
        Ok(Self {
            cached: CachingClient::new(cache_entries, asked.clone(), true),
            by_tcp: CachingClient::new(0, over(&tcp)?, true),
            asked,
        })
    }

    pub(super) async fn lookup(&self, question: Query, asking: Asking) -> Result<Found, Outcome> {
        let client = match asking {
            Asking::Anyhow => &self.cached,
            // Without a memory, too.
            Asking::OverTcp | Asking::Ahead => &self.by_tcp,
        };
        let options = self.asked.options();
        let error = match client.lookup(question.clone(), options).await {
            Ok(lookup) => return Ok(found(lookup.message().clone())),
            Err(error) => error,
        };
        if !matches!(error, NetError::Dns(DnsError::DnssecBogus)) {
            return declined(error);
        }
        // A client keeps no reason for what was refused; the validator without one is asked for it.
        match self.asked.lookup(question, options).first_answer().await {
            Ok(response) => Ok(found(response.into_message())),
            Err(error) => declined(error),
        }
    }
}

fn name_server(server: &SocketAddr, connections: &[ConnectionConfig]) -> NameServerConfig {
    let mut connections = connections.to_vec();
    for connection in &mut connections {
        connection.port = server.port();
    }
    NameServerConfig::new(server.ip(), true, connections)
}
