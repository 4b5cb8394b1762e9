//! `[[dns.zones]]`: zones with resolvers of their own.

use std::net::SocketAddr;

use hickory_proto::rr::Name;
use toml::Table;

use super::Mistake;
use super::fields::Fields;

/// Every worker has ports open towards each zone's resolvers, and each zone has an answer cache.
const MAX_ZONES: usize = 64;
pub(super) const ACCEPTED: &str = "up to 64 tables [[dns.zones]] with name and forward";
/// What the gateway answers by itself or nobody may be asked for, in whichever mode (RFC 6761, RFC 7686, RFC 8880, RFC 9462, RFC 9476).
const NOBODYS: [&str; 6] = [
    "ipv4only.arpa.",
    "resolver.arpa.",
    "localhost.",
    "invalid.",
    "onion.",
    "alt.",
];

/// One of `[[dns.zones]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsZone {
    /// `name`: questions at and below it, and not in a zone below that has a table too, are for these resolvers alone.
    pub name: Name,
    /// `forward`: its resolvers, the preferred one first. Nobody else is asked, not when they are silent either.
    pub forward: Vec<SocketAddr>,
    /// `dnssec`: whether its answers are validated, which takes resolvers that know the keys of the zones above, too.
    /// Default: as `dns.dnssec`.
    pub dnssec: bool,
}

/// `dnssec` is the gateway's, and `host` what devices know the doors by.
pub(super) fn read_dns_zones(
    tables: Vec<Table>,
    dnssec: bool,
    host: Option<&Name>,
    mistakes: &mut Vec<Mistake>,
) -> Vec<DnsZone> {
    if tables.len() > MAX_ZONES {
        let mut dns = Fields::new("dns", Table::new(), mistakes);
        dns.wrong("zones", format!("are {}", tables.len()), ACCEPTED);
    }
    let mut zones: Vec<DnsZone> = Vec::new();
    for (table, number) in tables.into_iter().zip(1_u32..) {
        let mut fields = Fields::new(format!("dns.zones[{number}]"), table, mistakes);
        let name = zone_name(&mut fields, &zones, host);
        let form = "IP:PORT of a resolver";
        let forward: Vec<SocketAddr> = fields.list("forward", form);
        if forward.is_empty() {
            fields.missing("forward", form);
        }
        for resolver in &forward {
            if resolver.ip().is_unspecified() || resolver.port() == 0 {
                fields.wrong("forward", format!("{resolver} is nobody's address"), form);
            }
        }
        let dnssec = fields.flag("dnssec").unwrap_or(dnssec);
        fields.finish();
        // Without a name there is a mistake, and nothing is used.
        if let Some(name) = name {
            zones.push(DnsZone {
                name,
                forward,
                dnssec,
            });
        }
    }
    zones
}

fn zone_name(fields: &mut Fields<'_>, before: &[DnsZone], host: Option<&Name>) -> Option<Name> {
    let form = "a zone such as corp.example";
    let Some(text) = fields.parsed::<String>("name", form) else {
        fields.missing("name", form);
        return None;
    };
    let Some(name) = read_name(&text) else {
        fields.wrong("name", format!("`{text}` is no zone"), form);
        return None;
    };
    let service = host.and_then(|host| host.prepend_label("_dns").ok());
    let nobodys = NOBODYS
        .iter()
        .filter_map(|name| Name::from_ascii(name).ok());
    let mut ours = nobodys.chain(service);
    let wrong = if name.is_root() {
        Some((
            "is the root",
            "a zone below it; the root's resolvers are dns.forward",
        ))
    } else if host == Some(&name) || ours.any(|own| own.zone_of(&name)) {
        Some(("is answered by the gateway itself", form))
    } else if before.iter().any(|zone| zone.name == name) {
        Some(("has a table already", "each zone once"))
    } else {
        None
    };
    if let Some((wrong, accepted)) = wrong {
        fields.wrong("name", format!("`{text}` {wrong}"), accepted);
    }
    Some(name)
}

/// As DNS has it: from the root, without regard to case.
fn read_name(text: &str) -> Option<Name> {
    // A wildcard is no zone, and nobody writes a zone's name with escapes.
    if text.is_empty() || text.contains(['*', '\\']) {
        return None;
    }
    let mut name = Name::from_ascii(text).ok()?.to_lowercase();
    name.set_fqdn(true);
    Some(name)
}
