//! `[dns]`: the DNSCrypt server, its certificates, and where it asks.

use std::net::SocketAddr;
use std::num::NonZeroU32;

use dnscrypt_proxy::listen::{Homes, Rate};
use ipnet::IpNet;
use toml::Table;

use super::dns_relay::read_dns_relay;
use super::dns_zones::{ACCEPTED, read_dns_zones};
use super::doors::read_doors;
use super::fields::Fields;
use super::{Certificates, Dns, DnsRelay, Mistake, Upstream};

/// More is not counted exactly, and no home asks so much.
const MAX_RATE: u32 = 10_000;
const MAX_BURST: u32 = 100_000;
/// Seconds of the rate that may be asked at once: a page with its frames, after a pause.
const BURST_S: u32 = 5;

/// Some 50,000 answers.
const CACHE_MB: u32 = 24;
const MAX_CACHE_MB: u32 = 65_536;

/// DNSCrypt provider names begin so (DNSCrypt protocol, certificate retrieval).
const PROVIDER_PREFIX: &str = "2.dnscrypt-cert.";

const DNS64_FORM: &str = "a prefix of 32, 40, 48, 56, 64 or 96 bits such as 64:ff9b::/96, with nothing behind it and bits 64 to 71 zero";

impl Dns {
    /// Who counts as one source.
    pub(crate) fn homes(&self) -> Homes {
        let behind = self.behind.iter();
        Homes::within(behind.map(|net| (net.addr(), net.prefix_len())))
    }
}

/// The table, and the one of the relay in it.
pub(super) fn read_dns(
    table: Table,
    inner: &[IpNet],
    mistakes: &mut Vec<Mistake>,
) -> (Option<Dns>, Option<DnsRelay>) {
    let mut fields = Fields::new("dns", table, mistakes);
    let mut listen = dns_listen(&mut fields, inner);
    listen.extend(public_listen(&mut fields));
    let name_form = "a name that begins with 2.dnscrypt-cert.";
    let provider_name: Option<String> = fields.parsed("provider-name", name_form);
    match &provider_name {
        None => fields.missing("provider-name", name_form),
        Some(name) if !is_provider_name(name) => {
            fields.wrong(
                "provider-name",
                format!("`{name}` is no provider name"),
                name_form,
            );
        }
        Some(_) => {}
    }
    let certificates = certificates(&mut fields);
    let upstream = upstream(&mut fields);
    let dnssec = fields.flag("dnssec").unwrap_or(true);
    let aggressive_nsec = fields.flag("aggressive-nsec").unwrap_or(true);
    let dns64 = fields.parsed("dns64", DNS64_FORM);
    let trust_anchor_file = fields.parsed("trust-anchor-file", "the path of a file");
    let rate = rate(&mut fields);
    let cache_mb = fields.number("cache-mb", 1, MAX_CACHE_MB);
    let zones = fields.sections("zones", ACCEPTED);
    let doors = fields.section("doors");
    let relay = fields.section("relay");
    fields.finish();
    let doors = doors.map(|table| read_doors(table, (inner, &listen), mistakes));
    let relay = relay.and_then(|table| read_dns_relay(table, inner, mistakes));
    let host = doors.iter().flatten().map(|doors| &doors.host).next();
    let zones = read_dns_zones(zones, dnssec, host, mistakes);
    let dns = || {
        Some(Dns {
            listen,
            provider_name: provider_name?,
            certificates: certificates?,
            upstream: upstream?,
            dnssec,
            aggressive_nsec,
            zones,
            dns64,
            trust_anchor_file,
            rate,
            cache_bytes: megabytes(cache_mb.unwrap_or(CACHE_MB)),
            doors: doors.flatten(),
            behind: inner.to_vec(),
        })
    };
    (dns(), relay)
}

/// No more than the machine can address.
fn megabytes(count: u32) -> usize {
    let bytes = u64::from(count) << 20;
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn rate(fields: &mut Fields<'_>) -> Option<Rate> {
    let per_second = fields.number("rate", 1, MAX_RATE);
    let burst = fields.number("burst", 1, MAX_BURST);
    if burst.is_some() && per_second.is_none() {
        fields.missing("rate", "queries a second, where there is a burst");
    }
    let per_second = NonZeroU32::new(per_second?)?;
    let burst = NonZeroU32::new(burst.unwrap_or(per_second.get() * BURST_S))?;
    Some(Rate { per_second, burst })
}

/// Only leased routers may reach the resolver: it listens inside the tunnel.
fn dns_listen(fields: &mut Fields<'_>, inner: &[IpNet]) -> Vec<SocketAddr> {
    let accepted = "IP:PORT with an address from tunnel.addresses, such as 10.64.0.1:443";
    let listen: Vec<SocketAddr> = fields.list("listen", accepted);
    if listen.is_empty() {
        fields.missing("listen", accepted);
    }
    for address in &listen {
        if !inner.is_empty() && !inner.iter().any(|own| own.addr() == address.ip()) {
            let wrong = format!("{} is not an inner address of this gateway", address.ip());
            fields.wrong("listen", wrong, accepted);
        }
    }
    listen
}

/// Whoever comes to these is a stranger: another operator's relay, mostly.
fn public_listen(fields: &mut Fields<'_>) -> Vec<SocketAddr> {
    let accepted = "IP:PORT with a public address of this gateway, such as 203.0.113.1:443";
    let listen: Vec<SocketAddr> = fields.list("public-listen", accepted);
    if listen.iter().any(|address| address.ip().is_unspecified()) {
        // Answers must leave from the address that was asked.
        let wrong = "stands for every address".to_owned();
        fields.wrong("public-listen", wrong, accepted);
    }
    listen
}

fn is_provider_name(name: &str) -> bool {
    name.strip_prefix(PROVIDER_PREFIX).is_some_and(|zone| {
        hickory_proto::rr::Name::from_ascii(zone).is_ok_and(|zone| zone.num_labels() > 0)
    })
}

fn certificates(fields: &mut Fields<'_>) -> Option<Certificates> {
    let key = fields.parsed("provider-key-file", "the path of a file");
    let directory = fields.parsed("certificates-dir", "the path of a directory");
    match (key, directory) {
        (Some(key), None) => Some(Certificates::ProviderKey(key)),
        (None, Some(directory)) => Some(Certificates::Directory(directory)),
        (Some(_), Some(_)) => {
            let wrong = "stands beside certificates-dir".to_owned();
            fields.wrong("provider-key-file", wrong, "one of the two");
            None
        }
        (None, None) => {
            fields.missing(
                "provider-key-file",
                "the path of a file, or certificates-dir",
            );
            None
        }
    }
}

fn upstream(fields: &mut Fields<'_>) -> Option<Upstream> {
    let mode: Option<String> = fields.parsed("mode", "forward or recurse");
    let forward_form = "IP:PORT of a resolver";
    let forward: Vec<SocketAddr> = fields.list("forward", forward_form);
    let roots = fields.list("roots", "IP of a root server");
    match mode.as_deref() {
        Some("forward") => {
            if forward.is_empty() {
                fields.missing("forward", forward_form);
            }
            if !roots.is_empty() {
                fields.wrong(
                    "roots",
                    "has no meaning with mode forward".to_owned(),
                    "nothing",
                );
            }
            Some(Upstream::Forward(forward))
        }
        Some("recurse") => {
            if !forward.is_empty() {
                fields.wrong(
                    "forward",
                    "has no meaning with mode recurse".to_owned(),
                    "nothing",
                );
            }
            Some(Upstream::Recurse(roots))
        }
        Some(other) => {
            fields.wrong("mode", format!("is `{other}`"), "forward or recurse");
            None
        }
        None => {
            fields.missing("mode", "forward or recurse");
            None
        }
    }
}
