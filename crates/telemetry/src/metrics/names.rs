//! Every metric's name and help, once. The convention: `culvert_<part>_<noun>[_<unit>]`; a counter
//! gets `_total` when printed.

/// What a metric is called and what it means.
#[derive(Clone, Copy, Debug)]
pub struct Name {
    /// The metric's name without `_total`.
    pub name: &'static str,
    /// One line for the person reading a dashboard.
    pub help: &'static str,
}

const fn name(name: &'static str, help: &'static str) -> Name {
    Name { name, help }
}

/// Version of the running program, always 1; the label carries the version.
pub const GATEWAY_BUILD: Name = name("culvert_gateway_build", "The running version");
/// Leased peers.
pub const GATEWAY_PEERS: Name = name("culvert_gateway_peers", "Peers that hold a valid lease");
/// Carried peers.
pub const GATEWAY_CARRIED: Name = name(
    "culvert_gateway_carried_peers",
    "Peers whose packets come and go by this gateway",
);
/// Draining.
pub const GATEWAY_DRAINING: Name = name(
    "culvert_gateway_draining",
    "1 while the gateway sends its routers to others, else 0",
);
/// Handshakes.
pub const GATEWAY_HANDSHAKES: Name = name(
    "culvert_gateway_handshakes",
    "WireGuard handshakes completed",
);
/// How long handshakes took.
pub const GATEWAY_HANDSHAKE_SECONDS: Name = name(
    "culvert_gateway_handshake_seconds",
    "How long peers took to complete a WireGuard handshake",
);
/// Bytes inside the tunnels, by direction.
pub const GATEWAY_TUNNEL_BYTES: Name = name(
    "culvert_gateway_tunnel_bytes",
    "Bytes of inner packets carried, by direction",
);
/// Bytes of inner headers, by what became of them: what joining spared the TUN device, what cutting added.
pub const GATEWAY_OFFLOAD_HEADER_BYTES: Name = name(
    "culvert_gateway_offload_header_bytes",
    "Bytes of inner headers that joining spared the TUN device and that cutting added",
);
/// The TUN device's own bytes, by direction.
pub const GATEWAY_DEVICE_BYTES: Name = name(
    "culvert_gateway_device_bytes",
    "Bytes that the TUN device counts, by direction",
);
/// Bytes that the device and the leases do not count alike, by what they are.
pub const GATEWAY_APART_BYTES: Name = name(
    "culvert_gateway_apart_bytes",
    "Bytes that the TUN device and the leases do not count alike, by what became of them",
);
/// Estimated bytes to networks of the internet, from packets drawn at random.
pub const GATEWAY_SAMPLED_FROM: Name = name(
    "culvert_gateway_sampled_from_routers_bytes",
    "Estimated bytes from routers, by network of the internet; ten samples at a time",
);
/// The same from them.
pub const GATEWAY_SAMPLED_TO: Name = name(
    "culvert_gateway_sampled_to_routers_bytes",
    "Estimated bytes to routers, by network of the internet; ten samples at a time",
);
/// Drops by reason.
pub const GATEWAY_DROPPED_PACKETS: Name = name(
    "culvert_gateway_dropped_packets",
    "Packets and datagrams dropped, by reason",
);
/// Lease changes applied.
pub const GATEWAY_LEASE_CHANGES: Name = name(
    "culvert_gateway_lease_changes",
    "Entries of the shard stream, by what became of them",
);
/// Seconds since the stream last answered.
pub const GATEWAY_STREAM_LAG: Name = name(
    "culvert_gateway_stream_lag_seconds",
    "Seconds since provisioning last answered",
);
/// Lookups.
pub const GATEWAY_DNS_QUERIES: Name = name(
    "culvert_gateway_dns_queries",
    "Lookups over DNSCrypt, and of the doors those that no kept answer was there for, by outcome",
);
/// How lookups were sealed.
pub const GATEWAY_DNS_SEALS: Name = name(
    "culvert_gateway_dns_seals",
    "Lookups opened, by the kind of the certificate: classical or post_quantum",
);
/// What is done of memory beside giving what is within its lifetime.
pub const GATEWAY_DNS_MEMORY: Name = name(
    "culvert_gateway_dns_memory",
    "Lookups answered with what had ended (stale), and questions asked before an answer's end (asked_ahead)",
);
/// Lookups that were dropped unanswered.
pub const GATEWAY_DNS_DROPPED: Name = name(
    "culvert_gateway_dns_dropped",
    "DNSCrypt packets dropped, by reason",
);
/// Lookups over TLS, HTTPS and QUIC.
pub const GATEWAY_DOOR_QUERIES: Name = name(
    "culvert_gateway_door_queries",
    "Lookups over TLS, HTTPS and QUIC, by door",
);
/// Connections of the doors.
pub const GATEWAY_DOOR_CONNECTIONS: Name = name(
    "culvert_gateway_door_connections",
    "Connections of the resolver's doors now, by door",
);
/// Answered without the resolver.
pub const GATEWAY_DOORS_SHARED: Name = name(
    "culvert_gateway_doors_shared",
    "Lookups by the doors that a kept answer was given to",
);
/// Turned away.
pub const GATEWAY_DOORS_REFUSED: Name = name(
    "culvert_gateway_doors_refused",
    "What the resolver's doors turned away, by reason",
);
/// Lookups forwarded to other resolvers.
pub const GATEWAY_DNS_RELAYED: Name = name(
    "culvert_gateway_dns_relayed",
    "Lookups that the DNSCrypt relay forwarded, by transport, and answers that it gave back",
);
/// What was not forwarded, or not given back.
pub const GATEWAY_DNS_RELAY_DROPPED: Name = name(
    "culvert_gateway_dns_relay_dropped",
    "Packets that the DNSCrypt relay dropped, by reason",
);
/// Questions to other resolvers, and what came back.
pub const GATEWAY_DNS_UPSTREAM: Name = name(
    "culvert_gateway_dns_upstream",
    "Questions that DNS workers asked of other resolvers by themselves, and what came back, by event",
);
/// Inner packets, by worker.
pub const GATEWAY_WORKER_PACKETS: Name = name(
    "culvert_gateway_worker_packets",
    "Inner packets that each worker carried, both ways",
);
/// Inner bytes, by worker.
pub const GATEWAY_WORKER_BYTES: Name = name(
    "culvert_gateway_worker_bytes",
    "Bytes of inner packets that each worker carried, both ways",
);
/// Sessions, by worker.
pub const GATEWAY_WORKER_HANDSHAKES: Name = name(
    "culvert_gateway_worker_handshakes",
    "Sessions that came to be at each worker",
);
/// Drops, by worker.
pub const GATEWAY_WORKER_DROPPED: Name = name(
    "culvert_gateway_worker_dropped_packets",
    "Packets that each worker dropped",
);
/// What landed at the wrong worker.
pub const GATEWAY_HANDED_OVER: Name = name(
    "culvert_gateway_handed_over",
    "Frames and datagrams that came to this worker and were handed to another, whose they are",
);
/// Routers behind blocked UDP at this moment.
pub const GATEWAY_RELAY_SESSIONS: Name = name(
    "culvert_gateway_relay_sessions",
    "Routers whose datagrams come inside HTTP now",
);
/// Relay sessions since the start, by carrier.
pub const GATEWAY_RELAY_ACCEPTED: Name = name(
    "culvert_gateway_relay_accepted",
    "Relay sessions accepted, by carrier",
);
/// Bytes of the relay, by direction.
pub const GATEWAY_RELAY_BYTES: Name = name(
    "culvert_gateway_relay_bytes",
    "Bytes of WireGuard datagrams carried inside HTTP, by direction",
);
/// Questions that got no session, by reason.
pub const GATEWAY_RELAY_REFUSED: Name = name(
    "culvert_gateway_relay_refused",
    "Requests to the relay that were not for a session, by reason",
);
/// Failures of the shard cache on disk.
pub const GATEWAY_STATE_WRITE_FAILURES: Name = name(
    "culvert_gateway_state_write_failures",
    "Writes of state that failed",
);

/// Enrolment requests by outcome.
pub const PROVISIONING_ENROLMENTS: Name = name(
    "culvert_provisioning_enrolments",
    "Enrolment requests, by outcome",
);
/// Requests by endpoint.
pub const PROVISIONING_REQUESTS: Name =
    name("culvert_provisioning_requests", "HTTP requests, by outcome");
/// Devices known.
pub const PROVISIONING_DEVICES: Name = name(
    "culvert_provisioning_devices",
    "Devices enrolled and not revoked",
);
/// Streams open.
pub const PROVISIONING_STREAMS: Name = name(
    "culvert_provisioning_streams",
    "Gateways waiting on a shard stream",
);
/// Alerts raised.
pub const PROVISIONING_ALERTS: Name = name("culvert_provisioning_alerts", "Alerts raised, by kind");
/// Connections refused.
pub const PROVISIONING_CONNECTIONS_REFUSED: Name = name(
    "culvert_provisioning_connections_refused",
    "Connections refused, by reason",
);
/// Size of a log.
pub const PROVISIONING_LOG_ENTRIES: Name = name(
    "culvert_provisioning_log_entries",
    "Leaves in the fleet log",
);
/// What witnesses answered.
pub const PROVISIONING_WITNESSES: Name = name(
    "culvert_provisioning_witnesses",
    "Answers of the logs' witnesses, by outcome",
);
