//! Answers that are made here and not by a resolver. What is made is what [`Query::adopt`] takes: it has neither
//! the asker's id nor an OPT record.

use std::net::IpAddr;

use hickory_proto::rr::{Name, RecordType};
use hickory_proto::serialize::binary::{BinDecodable as _, BinDecoder, BinEncodable as _};

use super::{ANCOUNT_AT, CLASS_IN, HEADER, QR, Query, overwrite};

const NSCOUNT_AT: usize = 8;
/// The two high bits of a pointer to a name.
const POINTER: u16 = 0xc000;
/// "nobody.invalid", as RFC 6303 has it in its zones.
const NOBODY: &[u8] = b"\x06nobody\x07invalid\0";
/// Serial, refresh, retry and expiry of RFC 6303; nobody transfers these zones.
const SOA_NUMBERS: [u32; 4] = [1, 3600, 1200, 604_800];

/// An answer of our own, record by record.
#[derive(Clone, Debug)]
pub(crate) struct OwnAnswer {
    message: Vec<u8>,
    answers: u16,
    ttl_s: u32,
}

impl Query {
    /// Begins an answer. `rcode` is one of the first sixteen.
    pub(crate) fn own_answer(&self, rcode: u8, ttl_s: u32) -> OwnAnswer {
        let mut message = vec![0; HEADER];
        overwrite(&mut message, 2, &[QR, rcode & 0x0f, 0, 1]);
        message.extend_from_slice(&self.question);
        OwnAnswer {
            message,
            answers: 0,
            ttl_s,
        }
    }

    /// The same query for another name, in wire format.
    pub(crate) fn for_name(&self, name: &[u8]) -> Self {
        let kind = self.question.len().saturating_sub(4);
        let kind = self.question.get(kind..).unwrap_or_default();
        Self {
            question: [name, kind].concat(),
            ..self.clone()
        }
    }
}

impl OwnAnswer {
    /// Adds addresses of the name whose place in the message is `owner_at`.
    pub(crate) fn addresses<'a>(
        mut self,
        owner_at: usize,
        addresses: impl IntoIterator<Item = &'a IpAddr>,
    ) -> Self {
        for address in addresses {
            match address {
                IpAddr::V4(v4) => self.record(owner_at, RecordType::A, &v4.octets()),
                IpAddr::V6(v6) => self.record(owner_at, RecordType::AAAA, &v6.octets()),
            }
        }
        self
    }

    /// Adds a record of the question's name that holds a name, and tells where in the message that one stands.
    pub(crate) fn name(mut self, rtype: RecordType, name: &[u8]) -> (Self, usize) {
        self.record(HEADER, rtype, name);
        let at = self.message.len() - name.len();
        (self, at)
    }

    /// Ends it. An answer without a record gets the SOA that says how long it may be kept, of the zone whose name
    /// begins `zone_at` bytes into the question's.
    pub(crate) fn end(mut self, zone_at: usize) -> Vec<u8> {
        let answers = self.answers;
        if answers == 0 {
            let mut data = [&self.pointer(HEADER + zone_at), NOBODY].concat();
            for number in SOA_NUMBERS.into_iter().chain([self.ttl_s]) {
                data.extend_from_slice(&number.to_be_bytes());
            }
            self.record(HEADER + zone_at, RecordType::SOA, &data);
            overwrite(&mut self.message, NSCOUNT_AT, &1_u16.to_be_bytes());
        }
        overwrite(&mut self.message, ANCOUNT_AT, &answers.to_be_bytes());
        self.message
    }

    fn record(&mut self, owner_at: usize, rtype: RecordType, data: &[u8]) {
        let owner = self.pointer(owner_at);
        let message = &mut self.message;
        message.extend_from_slice(&owner);
        message.extend_from_slice(&u16::from(rtype).to_be_bytes());
        message.extend_from_slice(&CLASS_IN.to_be_bytes());
        message.extend_from_slice(&self.ttl_s.to_be_bytes());
        let len = u16::try_from(data.len()).unwrap_or(u16::MAX);
        message.extend_from_slice(&len.to_be_bytes());
        message.extend_from_slice(data);
        self.answers += 1;
    }

    /// A name that stands somewhere before, within the first 16 KiB: in the question, or in the record after it. The root is written out: it is
    /// shorter, and libknot takes no pointer to it.
    fn pointer(&self, at: usize) -> Vec<u8> {
        if self.message.get(at) == Some(&0) {
            return vec![0];
        }
        let at = u16::try_from(at).unwrap_or_default();
        (POINTER | at).to_be_bytes().to_vec()
    }
}

/// The name that stands somewhere in a message, in wire format and lower case. `None`: there is none.
pub(crate) fn name_at(message: &[u8], at: usize) -> Option<Vec<u8>> {
    let mut decoder = BinDecoder::new(message).clone(u16::try_from(at).ok()?);
    let name = Name::read(&mut decoder).ok()?;
    name.to_lowercase().to_bytes().ok()
}
