//! Names that are answered here and never asked upstream: the designation of the doors (RFC 9462), and names that mean
//! something to one machine or one home alone (RFC 6761), which would tell root servers what a home is doing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, SOA, SVCB};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::config::{self, Nat64Prefix, Upstream};

mod designation;

use designation::Designation;

/// What fits every path without fragments (DNS flag day 2020).
const EDNS_PAYLOAD_BYTES: u16 = 1_232;
/// Long enough to be kept by devices, short enough for a change of doors within a coffee.
const TTL_S: u32 = 300;
const NEGATIVE_TTL_S: u32 = 3_600;
/// Names that no server of the internet has (RFC 6761, RFC 6762, RFC 7686, RFC 9476).
const NOWHERE: [&str; 4] = ["invalid.", "local.", "onion.", "alt."];
/// Names of one network (RFC 6761, RFC 8375, RFC 9665, and ICANN's choice of 2024 for `internal`).
const PRIVATE: [&str; 4] = ["test.", "internal.", "home.arpa.", "service.arpa."];
/// Addresses of one machine or one network (RFC 6303, RFC 7793, and the half of unique local ones that nobody assigns).
const REVERSE: [&str; 16] = [
    "0.in-addr.arpa.",
    "10.in-addr.arpa.",
    "127.in-addr.arpa.",
    "254.169.in-addr.arpa.",
    "168.192.in-addr.arpa.",
    "2.0.192.in-addr.arpa.",
    "100.51.198.in-addr.arpa.",
    "113.0.203.in-addr.arpa.",
    "255.255.255.255.in-addr.arpa.",
    "8.b.d.0.1.0.0.2.ip6.arpa.",
    "c.f.ip6.arpa.",
    "d.f.ip6.arpa.",
    "8.e.f.ip6.arpa.",
    "9.e.f.ip6.arpa.",
    "a.e.f.ip6.arpa.",
    "b.e.f.ip6.arpa.",
];

/// The addresses of `ipv4only.arpa` (RFC 7050, section 8.2).
const IPV4ONLY: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 0, 170), Ipv4Addr::new(192, 0, 0, 171)];
/// Of `::` and `::1`, before the last one.
const ZERO_NIBBLES: usize = 31;

/// What is answered here.
pub(crate) struct OwnNames {
    localhost: Name,
    resolver: Name,
    designating: Name,
    designation: Option<Designation>,
    /// The name that tells a NAT64's prefix (RFC 7050), where there is one.
    ipv4only: Option<(Name, Nat64Prefix)>,
    nowhere: Vec<Name>,
    /// Zones with resolvers of their own, which may know what nobody else does.
    elsewhere: Vec<Name>,
}

/// What a question of ours gets.
enum Own {
    Records(Vec<RData>),
    /// The name is there, the type is not.
    NoData(Name),
    NoName(Name),
}

impl OwnNames {
    /// Those of a resolver that is configured so. Where it forwards, a network's own names are the forwarder's, which may
    /// know them.
    pub(crate) fn new(dns: &config::Dns) -> Self {
        let mut nowhere: Vec<Name> = names(&NOWHERE);
        if matches!(dns.upstream, Upstream::Recurse(_)) {
            nowhere.extend(names(&PRIVATE));
            nowhere.extend(names(&REVERSE));
            nowhere.extend((16..32).map(|n| name(&format!("{n}.172.in-addr.arpa."))));
            nowhere.extend((64..128).map(|n| name(&format!("{n}.100.in-addr.arpa."))));
            let zeros = "0.".repeat(ZERO_NIBBLES);
            nowhere.extend(["0", "1"].map(|last| name(&format!("{last}.{zeros}ip6.arpa."))));
        }
        Self {
            localhost: name("localhost."),
            resolver: name("resolver.arpa."),
            designating: name("_dns.resolver.arpa."),
            designation: dns.doors.as_ref().map(Designation::new),
            ipv4only: dns.dns64.map(|prefix| (name("ipv4only.arpa."), prefix)),
            nowhere,
            elsewhere: dns.zones.iter().map(|zone| zone.name.clone()).collect(),
        }
    }

    /// Names under which all, or some, questions are answered here.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Name> {
        let designation = self.designation.iter();
        let designated = designation.flat_map(|it| [&it.host, &it.service]);
        let always = [&self.localhost, &self.resolver].into_iter();
        let ipv4only = self.ipv4only.iter().map(|(name, _)| name);
        let always = always.chain(designated).chain(ipv4only);
        always.chain(&self.nowhere)
    }

    /// The answer to a query for one of them; `None` for every other query.
    pub(crate) fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let request = Message::from_vec(query).ok()?;
        let [question] = request.queries.as_slice() else {
            return None;
        };
        let is_ordinary = request.metadata.message_type == MessageType::Query
            && request.metadata.op_code == OpCode::Query
            && question.query_class() == DNSClass::IN;
        let own = self.find(question).filter(|_| is_ordinary)?;
        let mut response = head(&request);
        match own {
            Own::Records(data) => {
                let asked = question.name();
                let records = data
                    .into_iter()
                    .map(|data| Record::from_rdata(asked.clone(), TTL_S, data));
                response.add_answers(records);
                if question.query_type() == RecordType::SVCB {
                    response.add_additionals(self.hosts());
                }
            }
            Own::NoData(zone) => {
                response.add_authority(soa(zone));
            }
            Own::NoName(zone) => {
                response.metadata.response_code = ResponseCode::NXDomain;
                response.add_authority(soa(zone));
            }
        }
        response.to_vec().ok()
    }

    fn find(&self, question: &Query) -> Option<Own> {
        let (asked, kind) = (question.name(), question.query_type());
        if self.resolver.zone_of(asked) {
            let records = self.designation.as_ref().map(Designation::records);
            let is_designating = *asked == self.designating && kind == RecordType::SVCB;
            return Some(match records.filter(|_| is_designating) {
                Some(records) => services(records),
                None => Own::NoData(self.resolver.clone()),
            });
        }
        if self.localhost.zone_of(asked) {
            return Some(if kind == RecordType::A {
                Own::Records(vec![RData::A(A(Ipv4Addr::LOCALHOST))])
            } else if kind == RecordType::AAAA {
                Own::Records(vec![RData::AAAA(AAAA(Ipv6Addr::LOCALHOST))])
            } else {
                Own::NoData(self.localhost.clone())
            });
        }
        if let Some(designation) = &self.designation {
            if *asked == designation.service && kind == RecordType::SVCB {
                return Some(services(designation.records()));
            }
            let is_address = matches!(kind, RecordType::A | RecordType::AAAA);
            if *asked == designation.host && is_address {
                let data = addresses(designation, kind);
                return Some(if data.is_empty() {
                    Own::NoData(asked.clone())
                } else {
                    Own::Records(data)
                });
            }
        }
        if let Some(told) = self.of_prefix(asked, kind) {
            return Some(told);
        }
        let zone = self.nowhere.iter().find(|zone| zone.zone_of(asked))?;
        let mut elsewhere = self.elsewhere.iter().filter(|it| it.zone_of(asked));
        if elsewhere.any(|it| zone.zone_of(it)) {
            return None;
        }
        // A zone has its own name (RFC 6303, section 3), if it is one at all and no top-level name that never was.
        if *zone == *asked && zone.num_labels() > 1 {
            // What is delegated insecurely is proven so by its parent (RFC 8375, section 4).
            return (kind != RecordType::DS).then(|| Own::NoData(zone.clone()));
        }
        Some(Own::NoName(zone.clone()))
    }

    /// What tells devices the NAT64's prefix.
    fn of_prefix(&self, asked: &Name, kind: RecordType) -> Option<Own> {
        let (name, prefix) = self.ipv4only.as_ref()?;
        if !name.zone_of(asked) {
            return None;
        }
        Some(if name != asked {
            Own::NoName(name.clone())
        } else if kind == RecordType::A {
            Own::Records(IPV4ONLY.map(|v4| RData::A(A(v4))).to_vec())
        } else if kind == RecordType::AAAA {
            let embedded = IPV4ONLY.map(|v4| RData::AAAA(AAAA(prefix.embed(v4))));
            Own::Records(embedded.to_vec())
        } else {
            Own::NoData(name.clone())
        })
    }

    fn hosts(&self) -> Vec<Record> {
        let designation = self.designation.iter();
        let of = |designation: &Designation| {
            let kinds = [RecordType::A, RecordType::AAAA].into_iter();
            let data = kinds.flat_map(|kind| addresses(designation, kind));
            let host = designation.host.clone();
            data.map(|data| Record::from_rdata(host.clone(), TTL_S, data))
                .collect::<Vec<_>>()
        };
        designation.flat_map(of).collect()
    }
}

fn services(records: &[SVCB]) -> Own {
    Own::Records(records.iter().cloned().map(RData::SVCB).collect())
}

fn addresses(designation: &Designation, kind: RecordType) -> Vec<RData> {
    let addresses = designation.addresses.iter();
    let data = addresses.filter_map(|address| match (address, kind) {
        (IpAddr::V4(v4), RecordType::A) => Some(RData::A(A(*v4))),
        (IpAddr::V6(v6), RecordType::AAAA) => Some(RData::AAAA(AAAA(*v6))),
        _ => None,
    });
    data.collect()
}

fn head(request: &Message) -> Message {
    let mut response = Message::response(request.metadata.id, request.metadata.op_code);
    response.metadata.recursion_desired = request.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.metadata.checking_disabled = request.metadata.checking_disabled;
    response.add_queries(request.queries.iter().cloned());
    if let Some(asked) = &request.edns {
        let mut edns = Edns::new();
        edns.set_max_payload(EDNS_PAYLOAD_BYTES);
        edns.set_dnssec_ok(asked.flags().dnssec_ok);
        response.set_edns(edns);
    }
    response
}

/// What makes an absence one that can be kept (RFC 2308).
fn soa(zone: Name) -> Record {
    let nobody = name("nobody.invalid.");
    let data = SOA::new(
        zone.clone(),
        nobody,
        1,
        3_600,
        1_200,
        604_800,
        NEGATIVE_TTL_S,
    );
    Record::from_rdata(zone, NEGATIVE_TTL_S, RData::SOA(data))
}

fn names(texts: &[&str]) -> Vec<Name> {
    texts.iter().map(|text| name(text)).collect()
}

/// A name that is written in this file; the root would be a misprint, which a test sees.
fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap_or_default()
}

#[cfg(test)]
mod tests;
