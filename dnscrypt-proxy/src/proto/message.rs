//! What the proxy must know of a DNS message without rebuilding it: its question, its EDNS facts, where
//! its lifetimes stand. hickory-proto's decoder reads every name and number; the bytes stay as they came.

use std::ops::Range;

use hickory_proto::op::{Header, MessageType, OpCode};
use hickory_proto::rr::{Name, RecordType};
use hickory_proto::serialize::binary::{
    BinDecodable as _, BinDecoder, BinEncodable as _, DecodeError,
};

use super::dropped::Dropped;

/// Bytes of a DNS header.
pub const HEADER: usize = 12;
/// What an answer over UDP may weigh when the asker did not say.
pub const DEFAULT_UDP_SIZE: usize = 512;

const FLAGS_AT: usize = 2;
const RCODE_AT: usize = 3;
const COUNTS_AT: usize = 4;
const ANCOUNT_AT: usize = 6;
const ARCOUNT_AT: usize = 10;
/// A pointer to the question's name.
const NAME_OF_QUESTION: [u8; 2] = [0xc0, 12];
/// The longest character-string.
const MAX_STRING: usize = 255;
const QR: u8 = 0x80;
const TC: u8 = 0x02;
const RD: u8 = 0x01;
const RA: u8 = 0x80;
const CD: u8 = 0x10;
const DNSSEC_OK: u32 = 0x8000;

impl From<DecodeError> for Dropped {
    fn from(_: DecodeError) -> Self {
        Self::Malformed
    }
}

/// A query: one question, QR clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The message id.
    pub id: u16,
    /// Whether it is an ordinary query (and not NOTIFY, UPDATE or another operation).
    pub opcode: OpCode,
    /// Recursion desired.
    pub recursion_desired: bool,
    /// The asker validates by itself and wants unvalidated data.
    pub checking_disabled: bool,
    /// Record type and class of the question.
    pub qtype: RecordType,
    /// Class of the question, as a number.
    pub qclass: u16,
    /// What the asker said by EDNS, if it did.
    pub edns: Option<Edns>,
    question: Vec<u8>,
}

/// The facts in an OPT record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// The largest UDP answer that the asker takes.
    pub udp_size: u16,
    /// The high bits of the response code.
    pub rcode_high: u8,
    /// EDNS version; only 0 exists.
    pub version: u8,
    /// Whether DNSSEC records are wanted.
    pub dnssec_ok: bool,
}

impl Query {
    /// Reads a whole query and refuses anything that is not exactly one.
    pub fn read(bytes: &[u8]) -> Result<Self, Dropped> {
        let mut decoder = BinDecoder::new(bytes);
        let header = Header::read(&mut decoder)?;
        if header.metadata.message_type != MessageType::Query {
            return Err(Dropped::NotAQuery);
        }
        if header.counts.queries != 1 {
            return Err(Dropped::Malformed);
        }
        let (qtype, qclass) = read_question(&mut decoder)?;
        let question_end = decoder.index();
        let layout = Layout::of_records(&mut decoder, &header)?;
        Ok(Self {
            id: header.metadata.id,
            opcode: header.metadata.op_code,
            recursion_desired: header.metadata.recursion_desired,
            checking_disabled: header.metadata.checking_disabled,
            qtype,
            qclass,
            edns: layout.edns.map(|(edns, _)| edns),
            question: bytes
                .get(HEADER..question_end)
                .ok_or(Dropped::Malformed)?
                .to_vec(),
        })
    }

    /// The question's bytes: name, type, class.
    #[must_use]
    pub fn question(&self) -> &[u8] {
        &self.question
    }

    /// What makes two queries the same one: the question without regard to case, DO and CD.
    #[must_use]
    pub fn key(&self) -> Box<[u8]> {
        let mut key = lower(&self.question);
        let dnssec_ok = self.edns.is_some_and(|edns| edns.dnssec_ok);
        key.push(u8::from(dnssec_ok) << 1 | u8::from(self.checking_disabled));
        key.into_boxed_slice()
    }

    /// Whether the question is for a name, letter case aside, in class IN.
    #[must_use]
    pub fn asks_for(&self, name: &str) -> bool {
        name_bytes(name).is_ok_and(|name| {
            let asked = lower(&self.question);
            self.qclass == CLASS_IN
                && asked
                    .strip_prefix(name.as_slice())
                    .is_some_and(|rest| rest.len() == 4)
        })
    }

    /// The largest answer that its sender takes over UDP.
    #[must_use]
    pub fn udp_size(&self) -> usize {
        self.edns.map_or(DEFAULT_UDP_SIZE, |edns| {
            usize::from(edns.udp_size).max(DEFAULT_UDP_SIZE)
        })
    }

    /// The same question as a query of our own: fresh id, recursion desired, EDNS without any option.
    #[must_use]
    pub fn to_upstream(&self, id: u16, udp_size: u16) -> Vec<u8> {
        let mut message = Vec::with_capacity(HEADER + self.question.len() + OPT_LEN);
        message.extend_from_slice(&id.to_be_bytes());
        message.extend_from_slice(&[RD, if self.checking_disabled { CD } else { 0 }]);
        message.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 1]);
        message.extend_from_slice(&self.question);
        let edns = Edns {
            udp_size,
            rcode_high: 0,
            version: 0,
            dnssec_ok: self.edns.is_some_and(|edns| edns.dnssec_ok),
        };
        push_opt(&mut message, edns, None);
        message
    }

    /// An answer without records: an error, or the truth that it was truncated. Carries EDNS when the
    /// query did, and there the extended error.
    #[must_use]
    pub fn refuse(&self, rcode: u16, error: Option<ExtendedError>) -> Vec<u8> {
        let mut message = Vec::with_capacity(HEADER + self.question.len() + OPT_LEN);
        message.extend_from_slice(&self.id.to_be_bytes());
        let low = u8::try_from(rcode & 0x0f).unwrap_or_default();
        let flags = QR | u8::from(self.opcode) << 3 | u8::from(self.recursion_desired);
        let cd = if self.checking_disabled { CD } else { 0 };
        message.extend_from_slice(&[flags, RA | cd | low]);
        message.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        message.extend_from_slice(&self.question);
        let rcode_high = u8::try_from(rcode >> 4).unwrap_or_default();
        self.add_edns(&mut message, rcode_high, error);
        message
    }

    /// An answer whose records are `stored`, made to fit this query: its id, its spelling of the name,
    /// its EDNS. `stored` must answer the same question and carry no OPT.
    #[must_use]
    pub fn adopt(&self, stored: &[u8], error: Option<ExtendedError>) -> Vec<u8> {
        let mut message = Vec::with_capacity(stored.len() + OPT_LEN);
        message.extend_from_slice(stored);
        overwrite(&mut message, 0, &self.id.to_be_bytes());
        if let Some(flags) = message.get_mut(FLAGS_AT) {
            *flags = (*flags & !RD) | u8::from(self.recursion_desired);
        }
        if let Some(flags) = message.get_mut(RCODE_AT) {
            let cd = if self.checking_disabled { CD } else { 0 };
            *flags = (*flags & !CD) | RA | cd;
        }
        overwrite(&mut message, HEADER, &self.question);
        self.add_edns(&mut message, 0, error);
        message
    }

    /// An answer of TXT records, the name's owner being the question's.
    #[must_use]
    pub fn answer_txt(&self, texts: &[&[u8]], ttl_s: u32) -> Vec<u8> {
        let mut message = self.refuse(0, None);
        let opt = message.split_off(HEADER + self.question.len());
        for text in texts {
            message.extend_from_slice(&NAME_OF_QUESTION);
            message.extend_from_slice(&TYPE_TXT.to_be_bytes());
            message.extend_from_slice(&self.qclass.to_be_bytes());
            message.extend_from_slice(&ttl_s.to_be_bytes());
            let strings = text.chunks(MAX_STRING);
            let len = u16::try_from(text.len() + strings.len()).unwrap_or(u16::MAX);
            message.extend_from_slice(&len.to_be_bytes());
            for string in strings {
                message.push(u8::try_from(string.len()).unwrap_or(u8::MAX));
                message.extend_from_slice(string);
            }
        }
        let count = u16::try_from(texts.len()).unwrap_or(u16::MAX);
        overwrite(&mut message, ANCOUNT_AT, &count.to_be_bytes());
        message.extend_from_slice(&opt);
        message
    }

    /// Cuts an answer made by [`adopt`](Self::adopt) to the question when it is longer than `room`.
    #[must_use]
    pub fn fit(&self, answer: Vec<u8>, room: usize) -> (Vec<u8>, Fit) {
        if answer.len() <= room {
            return (answer, Fit::Whole);
        }
        let mut short = answer;
        short.truncate(HEADER + self.question.len());
        set_truncated(&mut short);
        self.add_edns(&mut short, 0, None);
        (short, Fit::Truncated)
    }

    fn add_edns(&self, message: &mut Vec<u8>, rcode_high: u8, error: Option<ExtendedError>) {
        let Some(edns) = self.edns else { return };
        let ours = Edns {
            udp_size: OUR_UDP_SIZE,
            rcode_high,
            version: 0,
            dnssec_ok: edns.dnssec_ok,
        };
        push_opt(message, ours, error);
        if let Some(count) = message
            .get(ARCOUNT_AT..HEADER)
            .and_then(|two| two.try_into().ok())
        {
            let count = u16::from_be_bytes(count).saturating_add(1);
            overwrite(message, ARCOUNT_AT, &count.to_be_bytes());
        }
    }
}

/// Whether an answer went out as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// As it was.
    Whole,
    /// Its question alone, with TC set.
    Truncated,
}

/// RFC 8914: why there is no better answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum ExtendedError {
    /// The answer is older than its lifetime: no resolver could be reached to renew it.
    StaleAnswer = 3,
    /// No resolver can be reached.
    NetworkError = 23,
}

/// The UDP size that we announce and never exceed: fits one packet on every path.
pub const OUR_UDP_SIZE: u16 = 1232;
const OPT_LEN: usize = 17;

fn push_opt(message: &mut Vec<u8>, edns: Edns, error: Option<ExtendedError>) {
    message.extend_from_slice(&[0, 0, 41]);
    message.extend_from_slice(&edns.udp_size.to_be_bytes());
    message.extend_from_slice(&[edns.rcode_high, edns.version]);
    message.extend_from_slice(&[u8::from(edns.dnssec_ok) << 7, 0]);
    match error {
        None => message.extend_from_slice(&[0, 0]),
        Some(error) => {
            message.extend_from_slice(&[0, 6, 0, 15, 0, 2]);
            message.extend_from_slice(&(error as u16).to_be_bytes());
        }
    }
}

/// A response taken apart as far as a cache needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The response without its OPT record.
    pub stored: Vec<u8>,
    /// Where each record's lifetime stands.
    pub ttl_at: Vec<u16>,
    /// The whole response code.
    pub rcode: u16,
    /// Whether it says that it is incomplete.
    pub truncated: bool,
    /// Whether it has the record that was asked for.
    pub positive: bool,
    /// How long it may be kept, by the rules of RFC 2181 and RFC 2308; `None`: not at all.
    pub lifetime_s: Option<u32>,
}

impl Response {
    /// Reads a response to `query`.
    pub fn read(bytes: &[u8], query: &Query) -> Result<Self, Dropped> {
        let mut decoder = BinDecoder::new(bytes);
        let header = Header::read(&mut decoder)?;
        read_question(&mut decoder)?;
        let layout = Layout::of_records(&mut decoder, &header)?;
        let mut stored = bytes.to_vec();
        let mut rcode = u16::from(header.metadata.response_code.low());
        if let Some((edns, opt)) = layout.edns {
            rcode |= u16::from(edns.rcode_high) << 4;
            stored.truncate(opt.start);
            let kept = layout.additionals_before_opt.to_be_bytes();
            overwrite(&mut stored, ARCOUNT_AT, &kept);
        }
        let positive = rcode == RCODE_NOERROR && has_answer(&layout.records, query);
        let lifetime_s = lifetime_s(&layout.records, rcode, positive);
        let ttl_at = layout
            .records
            .iter()
            .filter(|record| usize::from(record.ttl_at) < stored.len())
            .map(|record| record.ttl_at)
            .collect();
        Ok(Self {
            stored,
            ttl_at,
            rcode,
            truncated: header.metadata.truncation,
            positive,
            lifetime_s,
        })
    }
}

/// A query of our own.
pub fn query(id: u16, name: &str, qtype: RecordType, udp_size: u16) -> Result<Vec<u8>, Dropped> {
    let mut question = name_bytes(name)?;
    question.extend_from_slice(&u16::from(qtype).to_be_bytes());
    question.extend_from_slice(&CLASS_IN.to_be_bytes());
    let query = Query {
        id,
        opcode: OpCode::Query,
        recursion_desired: true,
        checking_disabled: false,
        qtype,
        qclass: CLASS_IN,
        edns: None,
        question,
    };
    Ok(query.to_upstream(id, udp_size))
}

/// A name as it stands in a question, in lower case.
fn name_bytes(text: &str) -> Result<Vec<u8>, Dropped> {
    let mut name = Name::from_ascii(text)
        .map_err(|_| Dropped::Malformed)?
        .to_lowercase();
    name.set_fqdn(true);
    name.to_bytes().map_err(|_| Dropped::Malformed)
}

/// The data of the TXT records of a response's answer, the strings of each joined.
pub fn texts(response: &[u8]) -> Result<Vec<Vec<u8>>, Dropped> {
    let mut decoder = BinDecoder::new(response);
    let header = Header::read(&mut decoder)?;
    read_question(&mut decoder)?;
    let layout = Layout::of_records(&mut decoder, &header)?;
    layout
        .records
        .iter()
        .filter(|record| record.section == Section::Answer && record.rtype == TYPE_TXT)
        .map(|record| {
            let data = response
                .get(record.data.clone())
                .ok_or(Dropped::Malformed)?;
            let mut strings = BinDecoder::new(data);
            let mut text = Vec::with_capacity(data.len());
            while !strings.is_empty() {
                text.extend_from_slice(strings.read_character_data()?.unverified());
            }
            Ok(text)
        })
        .collect()
}

/// Whether a response says that it was cut short. False for what is no message.
#[must_use]
pub fn is_truncated(response: &[u8]) -> bool {
    response.get(FLAGS_AT).is_some_and(|flags| flags & TC != 0)
}

/// The low four bits of the response code.
#[must_use]
pub fn rcode_low(response: &[u8]) -> u8 {
    response.get(RCODE_AT).map_or(0, |flags| flags & 0x0f)
}

/// FORMERR for what looks like a query and cannot be read; `None` for anything else.
#[must_use]
pub fn form_error(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut answer = bytes.get(..HEADER)?.to_vec();
    let flags = answer.get_mut(FLAGS_AT)?;
    if *flags & QR != 0 {
        return None;
    }
    *flags |= QR;
    *answer.get_mut(RCODE_AT)? = RA | RCODE_FORMERR;
    overwrite(&mut answer, COUNTS_AT, &[0; HEADER - COUNTS_AT]);
    Some(answer)
}

/// Checks that a message is a response to `query`: QR, id and question, letter case aside.
pub fn check_response(response: &[u8], query: &[u8]) -> Result<(), Dropped> {
    let mut decoder = BinDecoder::new(response);
    let header = Header::read(&mut decoder)?;
    if header.metadata.message_type != MessageType::Response {
        return Err(Dropped::NotAResponse);
    }
    if header.counts.queries != 1 {
        return Err(Dropped::WrongQuestion);
    }
    read_question(&mut decoder)?;
    let question = response
        .get(HEADER..decoder.index())
        .ok_or(Dropped::Malformed)?;
    let asked = query
        .get(HEADER..decoder.index())
        .ok_or(Dropped::WrongQuestion)?;
    if response.get(..FLAGS_AT) != query.get(..FLAGS_AT) || lower(question) != lower(asked) {
        return Err(Dropped::WrongQuestion);
    }
    Ok(())
}

/// The answer cut to its question, with TC set. Header from the answer, question from the query.
#[must_use]
pub fn truncated(answer: &[u8], query: &[u8]) -> Vec<u8> {
    let mut decoder = BinDecoder::new(query);
    let question = Header::read(&mut decoder)
        .map_err(Dropped::from)
        .and_then(|_| read_question(&mut decoder));
    let question_end = question.map_or(HEADER, |_| decoder.index());
    let header = answer
        .get(..HEADER)
        .or_else(|| query.get(..HEADER))
        .unwrap_or_default();
    let mut short = header.to_vec();
    short.extend_from_slice(query.get(HEADER..question_end).unwrap_or_default());
    set_truncated(&mut short);
    if let Some(flags) = short.get_mut(FLAGS_AT) {
        *flags |= QR;
    }
    short
}

/// Lowers every lifetime of a stored response by its age, never below `floor_s`.
pub fn age(response: &mut [u8], ttl_at: &[u16], age_s: u32, floor_s: u32) {
    for at in ttl_at {
        let at = usize::from(*at);
        let Some(ttl) = response
            .get_mut(at..)
            .and_then(|rest| rest.first_chunk_mut::<4>())
        else {
            continue;
        };
        *ttl = u32::from_be_bytes(*ttl)
            .saturating_sub(age_s)
            .max(floor_s)
            .to_be_bytes();
    }
}

/// One record, as offsets.
#[derive(Clone, Debug)]
struct RecordAt {
    section: Section,
    rtype: u16,
    ttl: u32,
    ttl_at: u16,
    data: Range<usize>,
    /// The last four bytes of the data: an SOA's negative lifetime.
    tail: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    Answer,
    Authority,
    Additional,
}

/// The only class that is asked here.
pub const CLASS_IN: u16 = 1;
const TYPE_SOA: u16 = 6;
const TYPE_TXT: u16 = 16;
const TYPE_OPT: u16 = 41;
const TYPE_ANY: u16 = 255;

struct Layout {
    records: Vec<RecordAt>,
    edns: Option<(Edns, Range<usize>)>,
    additionals_before_opt: u16,
}

impl Layout {
    /// Walks all records to the end of the message, where the message must end.
    fn of_records(decoder: &mut BinDecoder<'_>, header: &Header) -> Result<Self, Dropped> {
        let mut layout = Self {
            records: Vec::new(),
            edns: None,
            additionals_before_opt: 0,
        };
        let sections = [
            (Section::Answer, header.counts.answers),
            (Section::Authority, header.counts.authorities),
            (Section::Additional, header.counts.additionals),
        ];
        for (section, count) in sections {
            for _ in 0..count {
                layout.add(section, decoder)?;
            }
        }
        if decoder.is_empty() {
            Ok(layout)
        } else {
            Err(Dropped::Malformed)
        }
    }

    fn add(&mut self, section: Section, decoder: &mut BinDecoder<'_>) -> Result<(), Dropped> {
        let start = decoder.index();
        let owner = Name::read(decoder)?;
        let rtype = decoder.read_u16()?.unverified();
        let class = decoder.read_u16()?.unverified();
        let ttl_at = decoder.index();
        let ttl = decoder.read_u32()?.unverified();
        let len = decoder.read_u16()?.unverified();
        let data_at = decoder.index();
        let data = decoder.read_slice(usize::from(len))?.unverified();
        if rtype == TYPE_OPT {
            if section != Section::Additional || self.edns.is_some() || !owner.is_root() {
                return Err(Dropped::Malformed);
            }
            let [rcode_high, version, ..] = ttl.to_be_bytes();
            let edns = Edns {
                udp_size: class,
                rcode_high,
                version,
                dnssec_ok: ttl & DNSSEC_OK != 0,
            };
            self.edns = Some((edns, start..decoder.index()));
            return Ok(());
        }
        if section == Section::Additional && self.edns.is_none() {
            self.additionals_before_opt += 1;
        }
        self.records.push(RecordAt {
            section,
            rtype,
            ttl: if ttl > MAX_TTL { 0 } else { ttl },
            ttl_at: u16::try_from(ttl_at).map_err(|_| Dropped::Malformed)?,
            data: data_at..decoder.index(),
            tail: data.last_chunk::<4>().map(|last| u32::from_be_bytes(*last)),
        });
        Ok(())
    }
}

/// RFC 2181: a lifetime with its top bit set counts as zero.
const MAX_TTL: u32 = 0x7fff_ffff;
const RCODE_NOERROR: u16 = 0;
const RCODE_FORMERR: u8 = 1;
const RCODE_NXDOMAIN: u16 = 3;

fn has_answer(records: &[RecordAt], query: &Query) -> bool {
    let qtype = u16::from(query.qtype);
    records.iter().any(|record| {
        record.section == Section::Answer && (record.rtype == qtype || qtype == TYPE_ANY)
    })
}

fn lifetime_s(records: &[RecordAt], rcode: u16, positive: bool) -> Option<u32> {
    if rcode != RCODE_NOERROR && rcode != RCODE_NXDOMAIN {
        return None;
    }
    let shortest = records.iter().map(|record| record.ttl).min()?;
    if positive {
        return Some(shortest);
    }
    let soa = records
        .iter()
        .find(|record| record.section == Section::Authority && record.rtype == TYPE_SOA)?;
    Some(soa.tail?.min(shortest))
}

/// Reads the question that follows the header. Its name must stand there in full.
fn read_question(decoder: &mut BinDecoder<'_>) -> Result<(RecordType, u16), Dropped> {
    let start = decoder.index();
    let name = Name::read(decoder)?;
    if decoder.index() - start != name.len() {
        return Err(Dropped::Malformed);
    }
    let qtype = RecordType::from(decoder.read_u16()?.unverified());
    let qclass = decoder.read_u16()?.unverified();
    Ok((qtype, qclass))
}

fn set_truncated(message: &mut [u8]) {
    if let Some(flags) = message.get_mut(FLAGS_AT) {
        *flags |= TC;
    }
    overwrite(message, COUNTS_AT, &[0, 1, 0, 0, 0, 0, 0, 0]);
}

/// Puts bytes over a place of the message; leaves it alone where they do not fit.
fn overwrite(message: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = message
        .get_mut(at..)
        .and_then(|rest| rest.get_mut(..bytes.len()))
    {
        place.copy_from_slice(bytes);
    }
}

/// The question in lower case. Length bytes of labels are below 64, where no letter is.
fn lower(question: &[u8]) -> Vec<u8> {
    let mut key = question.to_vec();
    let name_len = key.len().saturating_sub(4);
    if let Some(name) = key.get_mut(..name_len) {
        name.make_ascii_lowercase();
    }
    key
}

#[cfg(test)]
mod tests;
