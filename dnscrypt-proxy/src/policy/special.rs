//! Names that mean nothing, or something else, outside the home: RFC 6761 and its registry. No resolver is asked
//! for them.

use hickory_proto::rr::RecordType;

use super::name::{is_dotless, zone_at};
use super::reverse;

/// What is known of a special name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
    /// This machine: the loopback addresses.
    Loopback,
    /// It does not exist; the zone that says so begins there in it.
    Nothing(usize),
    /// It may exist and has no such record; likewise.
    Empty(usize),
}

/// Top-level names that are not in the root and never will be: RFC 6761, 6762, 7686, 9476, and ICANN's for private use.
const NEVER_IN_THE_ROOT: [&[u8]; 6] = [
    b"\x07invalid\0",
    b"\x04test\0",
    b"\x05local\0",
    b"\x05onion\0",
    b"\x03alt\0",
    b"\x08internal\0",
];
const LOCALHOST: &[u8] = b"\x09localhost\0";
/// RFC 8375: the home's own names, where nothing else is configured.
const HOME_ARPA: &[u8] = b"\x04home\x04arpa\0";
/// RFC 9462, section 6.4: asked of one's resolver about itself. What another resolver says is not true of this one.
const RESOLVER_ARPA: &[u8] = b"\x08resolver\x04arpa\0";
/// RFC 9665, section 10: where the home's devices register themselves.
const SERVICE_ARPA: &[u8] = b"\x07service\x04arpa\0";

/// Names below which no server has any: this machine, what does not exist, what is not in the DNS (RFC 6761, 7686, 9476), and one's
/// resolver itself. The others are somebody's inside a network.
const OF_NO_SERVER: [&[u8]; 5] = [
    LOCALHOST,
    b"\x07invalid\0",
    b"\x05onion\0",
    b"\x03alt\0",
    RESOLVER_ARPA,
];

/// Whether no server is to be asked for a name, not even one of the network's own.
pub(super) fn is_of_no_server(name: &[u8]) -> bool {
    OF_NO_SERVER
        .iter()
        .any(|zone| zone_at(name, zone).is_some())
}

/// What the root and top-level domains are asked for as zones.
const OF_ZONES: [RecordType; 4] = [
    RecordType::NS,
    RecordType::SOA,
    RecordType::DS,
    RecordType::DNSKEY,
];

/// What is known of a name by its being special. `None`: it is like any other.
pub(super) fn look_up(name: &[u8], qtype: RecordType) -> Option<Special> {
    if zone_at(name, LOCALHOST).is_some() {
        return Some(Special::Loopback);
    }
    let root = name.len().saturating_sub(1);
    if NEVER_IN_THE_ROOT
        .iter()
        .any(|top| zone_at(name, top).is_some())
    {
        return Some(Special::Nothing(root));
    }
    if let Some(at) = zone_at(name, RESOLVER_ARPA) {
        return Some(Special::Empty(at));
    }
    let zones = [HOME_ARPA, SERVICE_ARPA];
    if let Some(at) = zones.iter().find_map(|zone| zone_at(name, zone)) {
        // RFC 8375, section 4: the delegation itself is public.
        let is_delegation = at == 0 && qtype == RecordType::DS;
        return (!is_delegation).then_some(below(at));
    }
    if is_dotless(name) {
        // A host of the home by its bare name: what it is called is nobody's business. What the root says of a zone is asked for
        // by whoever validates, or looks for the end of a zone.
        return (!OF_ZONES.contains(&qtype)).then_some(Special::Empty(0));
    }
    let reverse = reverse::read(name)?;
    let at = reverse.private_at?;
    Some(if reverse.is_part {
        Special::Empty(at)
    } else {
        below(at)
    })
}

/// A zone that has its own name and nothing below.
fn below(zone_at: usize) -> Special {
    if zone_at == 0 {
        Special::Empty(zone_at)
    } else {
        Special::Nothing(zone_at)
    }
}

/// Whether the name is one by which a browser asks if it may use a resolver of its own.
pub(super) fn is_browser_canary(name: &[u8]) -> bool {
    zone_at(name, b"\x13use-application-dns\x03net\0").is_some()
}

/// Whether the name is one by which Apple's devices ask if they may use Private Relay.
pub(super) fn is_relay_canary(name: &[u8]) -> bool {
    let canaries: [&[u8]; 2] = [
        b"\x04mask\x06icloud\x03com\0",
        b"\x07mask-h2\x06icloud\x03com\0",
    ];
    canaries.contains(&name)
}
