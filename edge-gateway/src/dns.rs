//! DNSCrypt on the gateway's inner addresses: the server of `dnscrypt-proxy` in front of [`Resolver`].
//! Only leased routers reach them: the addresses exist inside the tunnel alone and the packet filter sees
//! to it; public ones are the operator's choice. Nothing here looks into a query. Beside it, by configuration, a
//! relay to the resolvers of others.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dnscrypt_proxy::certs::{Certs, Rotation, read_provider_key};
use dnscrypt_proxy::listen::{Homes, Limits, Rate};
use dnscrypt_proxy::proto::dropped::Counted;
use dnscrypt_proxy::proto::relay::{Reach, RelayPolicy};
use dnscrypt_proxy::proto::stamp::Props;
use dnscrypt_proxy::serve::forward::{Event, Events, Forwarding, Zone};
use dnscrypt_proxy::serve::{Duties, Relaying, Server, WorkerSockets};
use dnscrypt_proxy::{Counters, DnsCryptStamp, Stamp, clock};
use hickory_proto::rr::{Name, RecordType};
use hickory_proto::serialize::binary::BinEncodable as _;
use netio::udp::Offload;
use netio::{Udp, UdpOptions};

use crate::answers::Answers;
use crate::config::{self, Certificates, DnsRelay, Upstream};
use crate::dns64::Dns64;
use crate::doors::{self, Doors};
use crate::exit::{Exit, Fault};
use crate::own_names::OwnNames;
use crate::resolver::{Outcome, Resolver};

/// What each worker asks ahead at a time, for answers that are near their end: with an answer in 50 ms, more than a thousand a second.
const AHEAD: usize = 64;
/// The kernel's buffer of each UDP socket: a fifth of a second of 20,000 queries.
const BUFFER_BYTES: usize = 4 << 20;

/// Everything bound and loaded, not yet answering.
pub(crate) struct Dns {
    /// For each worker, those for each address.
    sockets: Vec<WorkerSockets>,
    certs: Certs,
    own: OwnNames,
    resolver: Resolver,
    dns64: Option<Dns64>,
    rate: Option<Rate>,
    homes: Homes,
    doors: Option<Doors>,
    relay: Option<Relaying>,
    duties: Duties,
    provider_name: String,
    figures: Arc<Figures>,
}

/// What happened to lookups, by outcome only.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    outcomes: [AtomicU64; Outcome::ALL.len()],
    /// The DNSCrypt server's own counts.
    pub server: Arc<Counters>,
    /// The relay's, which stay zero without one.
    pub relay: Arc<Counters>,
    /// What its workers asked by themselves.
    pub upstream: Arc<Events>,
}

impl Figures {
    pub(crate) fn count(&self, outcome: Outcome) {
        if let Some(count) = self.outcomes.get(outcome as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lookups by how they were sealed.
    pub(crate) fn seals(&self) -> [(&'static str, u64); 2] {
        let counted = |what| self.server.get(what) as u64;
        let all = counted(Counted::UdpQuery) + counted(Counted::TcpQuery);
        let post_quantum = counted(Counted::PostQuantum);
        // The figures are read one after the other, while lookups come.
        let classical = all.saturating_sub(post_quantum);
        [("classical", classical), ("post_quantum", post_quantum)]
    }

    /// What was done of memory, beside giving what is within its lifetime.
    pub(crate) fn memory(&self) -> [(&'static str, u64); 2] {
        let counted = |what| self.server.get(what) as u64;
        let (stale, ahead) = (counted(Counted::Stale), counted(Counted::Ahead));
        [("stale", stale), ("asked_ahead", ahead)]
    }

    /// Lookups by outcome, those included that needed no resolver.
    pub(crate) fn outcomes(&self) -> impl Iterator<Item = (Outcome, u64)> + '_ {
        let counts = self
            .outcomes
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        let outcomes = Outcome::ALL.into_iter().zip(counts);
        outcomes.map(|(outcome, count)| {
            let (shared, forwarded) = match outcome {
                Outcome::Answered => (Counted::Shared, Event::Answered),
                Outcome::Failed => (Counted::SharedFailure, Event::Failed),
                Outcome::Synthesized
                | Outcome::Bogus
                | Outcome::Declined
                | Outcome::Busy
                | Outcome::Refused
                | Outcome::Malformed => {
                    return (outcome, count);
                }
            };
            let elsewhere = self.server.get(shared) + self.upstream.get(forwarded);
            (outcome, count + elsewhere as u64)
        })
    }
}

impl Dns {
    /// Binds the sockets and loads certificates and trust anchors, while the process may.
    pub(crate) fn bind(
        dns: &config::Dns,
        relay: Option<&DnsRelay>,
        workers: u8,
    ) -> Result<Self, Fault> {
        let mut sockets = Vec::new();
        sockets.resize_with(workers.into(), WorkerSockets::default);
        for address in &dns.listen {
            let binding = |error| Fault::io(format!("listen for DNSCrypt on {address}"), &error);
            // Sockets that share a port would share it with another gateway's, too.
            TcpListener::bind(address).map(drop).map_err(binding)?;
            UdpSocket::bind(address).map(drop).map_err(binding)?;
            for sockets in &mut sockets {
                let socket = Udp::bind(*address, &udp_options());
                let unusable = |error| Fault::new(Exit::Io, format!("dns.listen: {error}"));
                sockets.udp.push(socket.map_err(unusable)?);
                sockets.listen(*address).map_err(binding)?;
            }
        }
        let figures = Arc::<Figures>::default();
        let homes = dns.homes();
        let own = OwnNames::new(dns);
        let doors = dns.doors.as_ref();
        let doors = doors.map(|doors| Doors::bind(doors, &homes)).transpose()?;
        Ok(Self {
            sockets,
            certs: certs(dns)?,
            resolver: Resolver::new(dns)?,
            dns64: dns.dns64.map(Dns64),
            rate: dns.rate,
            homes,
            relay: relay.map(|relay| relaying(relay, &figures)),
            duties: Duties {
                tls: doors.as_ref().and_then(Doors::shared),
                ..duties(dns, &own, &figures)
            },
            doors,
            own,
            provider_name: dns.provider_name.clone(),
            figures,
        })
    }

    /// Counts, shared with the running server.
    pub(crate) fn figures(&self) -> Arc<Figures> {
        Arc::clone(&self.figures)
    }

    /// The doors' counts, if there are any.
    pub(crate) fn doors(&self) -> Option<Arc<doors::Figures>> {
        self.doors.as_ref().map(Doors::figures)
    }

    /// Answers until dropped; returns only if it cannot go on.
    pub(crate) async fn serve(self) -> Fault {
        let stopped =
            |what: &str| Fault::new(Exit::Bug, format!("the DNSCrypt server stopped: {what}"));
        let server = Server {
            provider_name: self.provider_name,
            keyring: self.certs.keyring(),
            limits: Limits {
                rate: self.rate,
                ..Limits::SERVER
            },
            homes: self.homes.clone(),
            counters: Arc::clone(&self.figures.server),
            clock: clock::system(),
        };
        let resolver = (self.resolver, self.dns64);
        let answers = Answers::new(self.own, resolver, self.homes.clone(), self.figures);
        let doors = open(self.doors, answers.clone(), self.rate);
        let (sockets, duties, relay) = (self.sockets, self.duties, self.relay);
        let answering = server.serve_and_relay(sockets, duties, relay, move |query| {
            let answers = answers.clone();
            async move {
                let from = query.source.ip();
                answers.answer(&query.message, from, query.asking).await
            }
        });
        tokio::select! {
            error = answering => stopped(&error.to_string()),
            fault = doors => fault,
            () = self.certs.keep_fresh() => stopped("certificates are no longer renewed"),
        }
    }
}

async fn open(doors: Option<Doors>, answers: Answers, rate: Option<Rate>) -> Fault {
    match doors {
        Some(doors) => doors.serve(answers, rate).await,
        None => std::future::pending().await,
    }
}

/// What the workers do by themselves.
fn duties(dns: &config::Dns, own: &OwnNames, figures: &Figures) -> Duties {
    let zones = forwarded(dns, own);
    Duties {
        kept_bytes: dns.cache_bytes,
        ahead: AHEAD,
        forwarding: (!zones.is_empty()).then(|| Forwarding {
            zones,
            left: if dns.dns64.is_some() {
                vec![RecordType::AAAA, RecordType::PTR]
            } else {
                Vec::new()
            },
            events: Arc::clone(&figures.upstream),
        }),
        tls: None,
    }
}

/// What needs no judgement but that of the resolvers it is forwarded to.
fn forwarded(dns: &config::Dns, own: &OwnNames) -> Vec<Zone> {
    let zone = |name: &Name, servers: &[SocketAddr]| {
        let suffix = name.to_lowercase().to_bytes().ok()?.into_boxed_slice();
        let servers = servers.to_vec();
        Some(Zone { suffix, servers })
    };
    let rest = match &dns.upstream {
        Upstream::Forward(servers) if !dns.dnssec => zone(&Name::root(), servers),
        Upstream::Forward(_) | Upstream::Recurse(_) => None,
    };
    if rest.is_none() && dns.zones.iter().all(|zone| zone.dnssec) {
        return Vec::new();
    }
    let own = own.names().filter_map(|name| zone(name, &[]));
    // Of one name, the last counts.
    let rules = dns.zones.iter().filter_map(|rule| {
        let servers: &[SocketAddr] = if rule.dnssec { &[] } else { &rule.forward };
        zone(&rule.name, servers)
    });
    own.chain(rest).chain(rules).collect()
}

fn udp_options() -> UdpOptions {
    UdpOptions {
        reuse_port: true,
        buffer_bytes: BUFFER_BYTES,
        // Queries are not runs of equal datagrams, and each is wanted by itself.
        offload: Offload::Sending,
        ..UdpOptions::default()
    }
}

fn relaying(relay: &DnsRelay, figures: &Figures) -> Relaying {
    if relay.private_targets {
        tracing::warn!(
            "dns.relay.allow-private-targets-for-tests is set: every host that this machine reaches can be sent packets through \
             the relay; never set it where anybody's network is behind"
        );
    }
    let behind = relay.behind.iter();
    Relaying {
        policy: RelayPolicy {
            ports: relay.ports.clone(),
            own: relay.own.clone(),
            behind: behind.map(|net| (net.addr(), net.prefix_len())).collect(),
            reach: if relay.private_targets {
                Reach::AnyForTests
            } else {
                Reach::Global
            },
        },
        in_flight: relay.max_exchanges,
        per_source: relay.max_per_source,
        counters: Arc::clone(&figures.relay),
    }
}

fn certs(dns: &config::Dns) -> Result<Certs, Fault> {
    match &dns.certificates {
        Certificates::ProviderKey(file) => {
            let unusable = |reason: String| {
                Fault::new(
                    Exit::Config,
                    format!("dns.provider-key-file cannot be used: {reason}"),
                )
            };
            let key = read_provider_key(file).map_err(|error| unusable(error.to_string()))?;
            Certs::signing(key, Rotation::default(), clock::system())
                .map_err(|error| unusable(error.to_string()))
        }
        Certificates::Directory(directory) => {
            Certs::directory(directory, clock::system()).map_err(|error| {
                Fault::new(
                    Exit::Config,
                    format!("dns.certificates-dir cannot be used: {error}"),
                )
            })
        }
    }
}

/// The stamp by which routers find one of the listening addresses.
pub(crate) fn stamp(dns: &config::Dns, address: SocketAddr) -> Result<String, Fault> {
    let promised = Props::NO_LOG | Props::NO_FILTER | if dns.dnssec { Props::DNSSEC } else { 0 };
    let stamp = DnsCryptStamp {
        props: Props(promised),
        addr: address,
        provider_key: certs(dns)?.provider_public(),
        provider_name: dns.provider_name.clone(),
    };
    Ok(stamp.to_string())
}

/// The stamp by which they find the relay there.
pub(crate) fn relay_stamp(addr: SocketAddr) -> String {
    Stamp::DnsCryptRelay { addr }.to_string()
}

#[cfg(test)]
mod tests;
