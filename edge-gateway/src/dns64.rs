//! DNS64 (RFC 6147): names that have IPv4 addresses alone get IPv6 ones behind a NAT64. Pure: what is asked, and what the
//! answers make together. Whatever is made here is never marked as proven.

use std::net::{IpAddr, Ipv6Addr};

use hickory_proto::dnssec::rdata::DNSSECRData;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{AAAA, CNAME};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use ipnet::IpNet;

use crate::config::Nat64Prefix;

/// How long what is made lives at most where no SOA says it (RFC 6147, section 5.1.7).
const TTL_S: u32 = 600;

/// The translation of one prefix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dns64(pub(crate) Nat64Prefix);

/// A question that may be answered by translation.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    /// For IPv6 addresses.
    Addresses(Message),
    /// For the name of an address behind the prefix, which is that of an IPv4 one.
    Reverse(Message, Name),
}

impl Dns64 {
    /// Whether a query is such a question. Those of who validates and translates by himself (DO and CD, section 5.5) are not.
    pub(crate) fn take(self, query: &[u8]) -> Option<Asked> {
        let request = Message::from_vec(query).ok()?;
        let [question] = request.queries.as_slice() else {
            return None;
        };
        let is_ordinary = request.metadata.message_type == MessageType::Query
            && request.metadata.op_code == OpCode::Query
            && request.metadata.recursion_desired
            && question.query_class() == DNSClass::IN;
        let edns = request.edns.as_ref();
        let validates =
            request.metadata.checking_disabled && edns.is_some_and(|edns| edns.flags().dnssec_ok);
        if !is_ordinary || validates {
            return None;
        }
        if question.query_type() == RecordType::AAAA {
            return Some(Asked::Addresses(request));
        }
        if question.query_type() != RecordType::PTR {
            return None;
        }
        let IpNet::V6(net) = question.name().parse_arpa_name().ok()? else {
            return None;
        };
        let v4 = self
            .0
            .extract(net.addr())
            .filter(|_| net.prefix_len() == 128);
        let target = Name::from(IpAddr::V4(v4?));
        Some(Asked::Reverse(request, target))
    }

    /// IPv6 addresses made from those of `v4`, if there are any; otherwise the answer without them as it was.
    pub(crate) fn synthesize(self, mut answer: Message, v4: Message) -> Message {
        let most_s = negative_ttl_s(&answer);
        let mut answers = Vec::new();
        let mut is_made = false;
        for record in v4.answers {
            if let RData::A(address) = &record.data {
                if self.0.maps(address.0) {
                    let data = RData::AAAA(AAAA(self.0.embed(address.0)));
                    let ttl_s = record.ttl.min(most_s);
                    answers.push(Record::from_rdata(record.name, ttl_s, data));
                    is_made = true;
                }
            } else if leads_on(&record) {
                answers.push(record);
            }
        }
        if !is_made {
            return without_excluded(answer);
        }
        // Some readers want aliases first; who validates keeps no order.
        answers.sort_by_key(|record| record.record_type() == RecordType::AAAA);
        answer.metadata.authentic_data = false;
        answer.answers = answers;
        answer.authorities.clear();
        answer
    }
}

/// The same request about something else.
pub(crate) fn about(request: &Message, name: Name, kind: RecordType) -> Message {
    let mut request = request.clone();
    request.queries = vec![Query::query(name, kind)];
    request
}

/// Whether an answer is that there are no addresses, or none but those that are never one's (section 5.1.4).
pub(crate) fn is_wanting(answer: &Message) -> bool {
    answer.metadata.response_code == ResponseCode::NoError
        && !answer
            .answers
            .iter()
            .any(|record| matches!(&record.data, RData::AAAA(address) if !is_excluded(address.0)))
}

/// The answer without the addresses that are never one's; what was signed is no longer whole then.
pub(crate) fn without_excluded(mut answer: Message) -> Message {
    let is_bad = |record: &Record| matches!(&record.data, RData::AAAA(it) if is_excluded(it.0));
    if answer.answers.iter().any(is_bad) {
        answer.answers.retain(|record| !is_bad(record));
        answer.metadata.authentic_data = false;
    }
    answer
}

/// The answer about an IPv4 address's name, behind the alias that leads to it (section 5.3.1).
pub(crate) fn named(request: &Message, target: Name, mut answer: Message) -> Message {
    let ttl_s = answer.answers.iter().map(|record| record.ttl).min();
    let ttl_s = ttl_s.unwrap_or_else(|| negative_ttl_s(&answer));
    let alias = request.queries.first().map(|question| {
        let data = RData::CNAME(CNAME(target));
        Record::from_rdata(question.name().clone(), ttl_s, data)
    });
    let found = std::mem::take(&mut answer.answers);
    answer.answers = alias.into_iter().chain(found).collect();
    answer.queries.clone_from(&request.queries);
    answer.metadata.authentic_data = false;
    answer
}

fn is_excluded(address: Ipv6Addr) -> bool {
    address.to_ipv4_mapped().is_some()
}

/// Whether a record is of the aliases in front of an address.
fn leads_on(record: &Record) -> bool {
    let kind = if let RData::DNSSEC(DNSSECRData::RRSIG(signature)) = &record.data {
        signature.input().type_covered
    } else {
        record.record_type()
    };
    matches!(kind, RecordType::CNAME | RecordType::DNAME)
}

/// How long the absence of what was asked for lasts (RFC 2308, section 5).
fn negative_ttl_s(answer: &Message) -> u32 {
    let mut soas = answer.authorities.iter().filter_map(|record| {
        let RData::SOA(soa) = &record.data else {
            return None;
        };
        Some(record.ttl.min(soa.minimum))
    });
    soas.next().unwrap_or(TTL_S)
}

#[cfg(test)]
mod tests;
