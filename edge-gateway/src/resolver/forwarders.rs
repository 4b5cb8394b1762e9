//! Other resolvers that are asked, by hickory: with a cache in front, over TCP alone, or validating.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dnscrypt_proxy::serve::Asking;
use hickory_proto::dnssec::TrustAnchors;
use hickory_proto::op::{DnsRequestOptions, Query};
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::dnssec::DnssecDnsHandle;
use hickory_resolver::net::xfer::{DnsHandle as _, FirstAnswer as _, RetryDnsHandle};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::{NameServerPool, PoolContext, Resolver as Forwarder, TlsConfig};

use super::routes::Connections;
use super::{EDNS_PAYLOAD_BYTES, Found, Outcome, declined, found, set_up};
use crate::exit::Fault;

/// A single forwarder's time to answer before it is asked again.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_ACTIVE_PER_SERVER: usize = 1_024;

/// The cache in front of the forwarders, and, where answers are validated, the validator without it: the
/// cache keeps no reason for what was refused, and the second one is asked for it.
pub(super) struct Forwarders {
    cached: Forwarder<Connections>,
    /// Asks over TCP alone and keeps nothing.
    by_tcp: Forwarder<Connections>,
    validating: Option<DnssecDnsHandle<RetryDnsHandle<NameServerPool<Connections>>>>,
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
        let over = |connections: &[ConnectionConfig]| -> Vec<NameServerConfig> {
            let servers = servers.iter();
            servers
                .map(|server| name_server(server, connections))
                .collect()
        };
        let (servers, servers_by_tcp) = (over(&both), over(&tcp));
        let mut options = ResolverOpts::default();
        options.timeout = FORWARD_TIMEOUT;
        options.cache_size = cache_entries;
        options.use_hosts_file = ResolveHosts::Never;
        options.max_active_requests = MAX_ACTIVE_PER_SERVER;
        options.case_randomization = true;
        options.edns_payload_len = EDNS_PAYLOAD_BYTES;
        options.validate = anchors.is_some();
        let mut tcp_options = options.clone();
        tcp_options.cache_size = 0;
        let mut by_tcp = Forwarder::builder_with_config(
            ResolverConfig::from_name_servers(servers_by_tcp),
            connections.clone(),
        )
        .with_options(tcp_options);
        if let Some(anchors) = &anchors {
            by_tcp = by_tcp.with_trust_anchor(Arc::clone(anchors));
        }
        let by_tcp = by_tcp.build().map_err(|error| set_up(&error))?;
        let builder = Forwarder::builder_with_config(
            ResolverConfig::from_name_servers(servers.clone()),
            connections.clone(),
        )
        .with_options(options.clone());
        let Some(anchors) = anchors else {
            let cached = builder.build().map_err(|error| set_up(&error))?;
            return Ok(Self {
                cached,
                by_tcp,
                validating: None,
            });
        };
        let tls = TlsConfig::new().map_err(|error| set_up(&error))?;
        let attempts = options.attempts;
        let context = Arc::new(PoolContext::new(options, tls));
        let pool = NameServerPool::from_config(servers, context, connections.clone());
        let validating = DnssecDnsHandle::with_trust_anchor(
            RetryDnsHandle::new(pool, attempts),
            Arc::clone(&anchors),
        );
        let cached = builder.with_trust_anchor(anchors).build();
        Ok(Self {
            cached: cached.map_err(|error| set_up(&error))?,
            by_tcp,
            validating: Some(validating),
        })
    }

    pub(super) async fn lookup(&self, question: Query, asking: Asking) -> Result<Found, Outcome> {
        let name = question.name().clone();
        let asked = match asking {
            Asking::Anyhow => &self.cached,
            // Without a memory, too.
            Asking::OverTcp | Asking::Ahead => &self.by_tcp,
        };
        let error = match asked.lookup(name, question.query_type()).await {
            Ok(lookup) => return Ok(found(lookup.message().clone())),
            Err(error) => error,
        };
        let (NetError::Dns(DnsError::DnssecBogus), Some(validating)) = (&error, &self.validating)
        else {
            return declined(error);
        };
        let mut options = DnsRequestOptions::default();
        options.use_edns = true;
        options.edns_set_dnssec_ok = true;
        match validating.lookup(question, options).first_answer().await {
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
