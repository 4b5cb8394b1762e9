//! `[dns.doors]`: the resolver over TLS, HTTPS and QUIC.

use std::net::SocketAddr;
use std::path::PathBuf;

use hickory_proto::rr::Name;
use ipnet::IpNet;
use rustls::pki_types::DnsName;
use toml::Table;

use super::Mistake;
use super::fields::Fields;

const DEFAULT_CONNECTIONS: u32 = 4_096;
const MAX_CONNECTIONS: u32 = 65_536;
const DEFAULT_PER_SOURCE: u32 = 64;

/// `[dns.doors]`.
#[derive(Clone, Debug)]
pub struct Doors {
    /// `name`: the host name under which devices know the resolver; the certificate is for it.
    pub name: String,
    /// The same as DNS has it.
    pub host: Name,
    /// `certificate-file`: PEM, the server's certificate first, then its issuers.
    pub certificate_file: PathBuf,
    /// `key-file`: PEM, the certificate's private key. Read while root.
    pub key_file: PathBuf,
    /// `tls`: TCP addresses for DNS over TLS; 853 is its port.
    pub tls: Vec<SocketAddr>,
    /// `https`: addresses for DNS over HTTP/2 (TCP) and HTTP/3 (UDP); those of `dns.listen` are in `shared`.
    pub https: Vec<SocketAddr>,
    /// Those of `https` that `dns.listen` has too: HTTP/2 over their TCP, beside DNSCrypt. Their UDP is DNSCrypt's alone.
    pub shared: Vec<SocketAddr>,
    /// `quic`: UDP addresses for DNS over QUIC; 853 is its port.
    pub quic: Vec<SocketAddr>,
    /// `max-connections`: at a time, of TCP and of QUIC each, 1 to 65536. Default 4096.
    pub max_connections: u32,
    /// `max-connections-per-source`: the same for one inner address. Default 64.
    pub max_per_source: u32,
}

pub(super) fn read_doors(
    table: Table,
    (inner, dnscrypt): (&[IpNet], &[SocketAddr]),
    mistakes: &mut Vec<Mistake>,
) -> Option<Doors> {
    let mut fields = Fields::new("dns.doors", table, mistakes);
    let name_form = "a host name that the certificate is for, such as dns.pop1.example";
    let name: Option<String> = fields.parsed("name", name_form);
    if name.is_none() {
        fields.missing("name", name_form);
    }
    let host = name.as_deref().and_then(host);
    if let (Some(name), None) = (&name, &host) {
        fields.wrong("name", format!("`{name}` is no host name"), name_form);
    }
    let file_form = "the path of a PEM file";
    let certificate_file: Option<PathBuf> = fields.parsed("certificate-file", file_form);
    let key_file: Option<PathBuf> = fields.parsed("key-file", file_form);
    for (key, is_missing) in [
        ("certificate-file", certificate_file.is_none()),
        ("key-file", key_file.is_none()),
    ] {
        if is_missing {
            fields.missing(key, file_form);
        }
    }
    let [tls, https, quic] = ["tls", "https", "quic"].map(|key| listen(&mut fields, key, inner));
    if tls.is_empty() && https.is_empty() && quic.is_empty() {
        fields.missing("tls", "at least one address of tls, https or quic");
    }
    let (shared, https) = (https.into_iter()).partition(|address| dnscrypt.contains(address));
    let max_connections = fields.number("max-connections", 1, MAX_CONNECTIONS);
    let max_per_source = fields.number("max-connections-per-source", 1, MAX_CONNECTIONS);
    fields.finish();
    Some(Doors {
        name: name?,
        host: host?,
        certificate_file: certificate_file?,
        key_file: key_file?,
        tls,
        https,
        shared,
        quic,
        max_connections: max_connections.unwrap_or(DEFAULT_CONNECTIONS),
        max_per_source: max_per_source.unwrap_or(DEFAULT_PER_SOURCE),
    })
}

/// A name as certificates have it, made absolute.
fn host(name: &str) -> Option<Name> {
    DnsName::try_from(name).ok()?;
    let mut host = Name::from_ascii(name).ok()?;
    host.set_fqdn(true);
    Some(host)
}

fn listen(fields: &mut Fields<'_>, key: &'static str, inner: &[IpNet]) -> Vec<SocketAddr> {
    let accepted = "IP:PORT with an address from tunnel.addresses";
    let listen: Vec<SocketAddr> = fields.list(key, accepted);
    for address in &listen {
        if !inner.is_empty() && !inner.iter().any(|own| own.addr() == address.ip()) {
            let wrong = format!("{} is not an inner address of this gateway", address.ip());
            fields.wrong(key, wrong, accepted);
        }
    }
    listen
}
