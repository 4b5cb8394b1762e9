//! `[relay]`: the gateway's proxy for UDP inside HTTP.

use std::net::SocketAddr;
use std::path::PathBuf;

use toml::Table;

use super::fields::Fields;
use super::{Mistake, Tunnel};

/// Homes behind one address of a provider's NAT may be many.
const DEFAULT_SESSIONS: u32 = 4096;
const MAX_SESSIONS: u32 = 65_536;
const DEFAULT_PER_SOURCE: u32 = 64;

/// `[relay]`.
#[derive(Clone, Debug)]
pub struct Relay {
    /// `listen`: addresses for HTTP/3 over UDP and for TLS over TCP; port 443 is what networks let through.
    pub listen: Vec<SocketAddr>,
    /// `certificate-file`: PEM, the server's certificate first, then its issuers.
    pub certificate_file: PathBuf,
    /// `key-file`: PEM, the certificate's private key. Read while root.
    pub key_file: PathBuf,
    /// `targets`: WireGuard endpoints as the gateway's record names them; nothing else is proxied to.
    pub targets: Vec<SocketAddr>,
    /// `page-file`: what a browser is shown at `/`. Default: a page that says nothing.
    pub page_file: Option<PathBuf>,
    /// `max-sessions`: proxied routers at a time, 1 to 65536. Default 4096.
    pub max_sessions: u32,
    /// `max-sessions-per-source`: the same for one IPv4 address or IPv6 /56. Default 64.
    pub max_per_source: u32,
    /// Where WireGuard listens on this machine.
    pub inside: SocketAddr,
}

pub(super) fn read_relay(
    table: Table,
    tunnel: Option<&Tunnel>,
    mistakes: &mut Vec<Mistake>,
) -> Option<Relay> {
    let mut fields = Fields::new("relay", table, mistakes);
    let listen_form = "IP:PORT, such as 0.0.0.0:443 or [::]:443";
    let listen: Vec<SocketAddr> = fields.list("listen", listen_form);
    if listen.is_empty() {
        fields.missing("listen", listen_form);
    }
    let file_form = "the path of a PEM file";
    let certificate_file = fields.parsed("certificate-file", file_form);
    let key_file = fields.parsed("key-file", file_form);
    for (key, value) in [
        ("certificate-file", &certificate_file),
        ("key-file", &key_file),
    ] {
        let value: &Option<PathBuf> = value;
        if value.is_none() {
            fields.missing(key, file_form);
        }
    }
    let target_form = "IP:PORT, the WireGuard endpoints that provisioning knows this gateway by";
    let targets: Vec<SocketAddr> = fields.list("targets", target_form);
    if targets.is_empty() {
        fields.missing("targets", target_form);
    }
    let page_file = fields.parsed("page-file", "the path of a file");
    let max_sessions = fields.number("max-sessions", 1, MAX_SESSIONS);
    let max_per_source = fields.number("max-sessions-per-source", 1, MAX_SESSIONS);
    fields.finish();
    Some(Relay {
        listen,
        certificate_file: certificate_file?,
        key_file: key_file?,
        targets,
        page_file,
        max_sessions: max_sessions.unwrap_or(DEFAULT_SESSIONS),
        max_per_source: max_per_source.unwrap_or(DEFAULT_PER_SOURCE),
        inside: inside(tunnel?)?,
    })
}

/// The WireGuard listener as this machine itself reaches it.
fn inside(tunnel: &Tunnel) -> Option<SocketAddr> {
    let listen = tunnel
        .listen
        .iter()
        .find(|listen| listen.is_ipv4())
        .or(tunnel.listen.first())?;
    let ip = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    Some(SocketAddr::new(ip, listen.port()))
}
