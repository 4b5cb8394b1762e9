//! What the proxy must know of a DNS message without rebuilding it: its question and its EDNS facts.
//! hickory-proto's decoder reads every name and number; the bytes stay as they came.

mod own;
mod response;

use hickory_proto::op::{Header, MessageType, OpCode};
use hickory_proto::rr::{Name, RecordType};
use hickory_proto::serialize::binary::{
    BinDecodable as _, BinDecoder, BinEncodable as _, DecodeError,
};

pub(crate) use own::name_at;
#[cfg(feature = "workers")]
pub(crate) use response::{MAX_CHAIN, says_bogus};
pub use response::{Response, age, pad_answer, texts};

use super::dropped::Dropped;
use response::{Layout, TYPE_TXT};

/// Bytes of a DNS header.
pub const HEADER: usize = 12;
/// What an answer over UDP may weigh when the asker did not say.
pub const DEFAULT_UDP_SIZE: usize = 512;

const FLAGS_AT: usize = 2;
const RCODE_AT: usize = 3;
const COUNTS_AT: usize = 4;
pub(crate) const ANCOUNT_AT: usize = 6;
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
const AD: u8 = 0x20;
const RCODE_FORMERR: u8 = 1;
const RCODE_NOTIMP: u8 = 4;
/// The only class that is asked here.
pub const CLASS_IN: u16 = 1;

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
    /// The asker wants to know whether the answer is proven (RFC 6840, section 5.7).
    pub authentic_data: bool,
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
            authentic_data: header.metadata.authentic_data,
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

    /// The same for answers that say whether they are proven, which depends on AD too. `None`: the answer to
    /// this query is for nobody else.
    #[must_use]
    pub fn marked_key(&self) -> Option<Box<[u8]>> {
        self.is_ordinary().then(|| {
            let mut key = self.key();
            if let Some(flags) = key.last_mut() {
                *flags |= u8::from(self.authentic_data) << 2;
            }
            key
        })
    }

    /// Whether it wants what every resolver gives: a lookup in class IN, on behalf of the asker.
    #[must_use]
    pub fn is_ordinary(&self) -> bool {
        self.opcode == OpCode::Query
            && self.recursion_desired
            && self.qclass == CLASS_IN
            && self.edns.is_none_or(|edns| edns.version == 0)
    }

    /// Whether a message has this question, letter case of the name aside.
    #[must_use]
    pub fn is_question_of(&self, message: &[u8]) -> bool {
        let theirs = message.get(HEADER..HEADER + self.question.len());
        theirs.is_some_and(|theirs| {
            let name_len = theirs.len().saturating_sub(4);
            let (name, kind) = theirs.split_at(name_len);
            let (own_name, own_kind) = self.question.split_at(name_len);
            name.eq_ignore_ascii_case(own_name) && kind == own_kind
        })
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

    /// A query that [`to_upstream`](Self::to_upstream) made, without its EDNS.
    #[must_use]
    pub(crate) fn without_edns(&self, asked: &[u8]) -> Vec<u8> {
        let end = HEADER + self.question.len();
        let mut message = asked.get(..end).unwrap_or(asked).to_vec();
        overwrite(&mut message, ARCOUNT_AT, &[0; 2]);
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
    /// The answer is ours and not the name's.
    ForgedAnswer = 4,
    /// Validation refused what there is.
    DnssecBogus = 6,
    /// The name, or what it stands for, may not be used here.
    Blocked = 15,
    /// Such records are of no use here.
    Filtered = 17,
    /// No resolver can be reached.
    NetworkError = 23,
}

/// The UDP size that we announce and never exceed: fits one packet on every path.
pub const OUR_UDP_SIZE: u16 = 1232;
const OPT_LEN: usize = 17;
/// RFC 7830.
const OPTION_PADDING: u16 = 12;
const OPTION_HEAD_U16: u16 = 4;
const OPTION_HEAD: usize = OPTION_HEAD_U16 as usize;

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
        authentic_data: false,
        qtype,
        qclass: CLASS_IN,
        edns: None,
        question,
    };
    Ok(query.to_upstream(id, udp_size))
}

/// A query of our own that is `len` bytes long: an EDNS padding option fills it. One that is longer already
/// stays as it is.
// MUST, "Certificate Retrieval" of the post-quantum part: DNS framing counts.
pub fn padded_query(
    id: u16,
    name: &str,
    qtype: RecordType,
    udp_size: u16,
    len: usize,
) -> Result<Vec<u8>, Dropped> {
    let mut message = query(id, name, qtype, udp_size)?;
    let fill = len.checked_sub(message.len() + OPTION_HEAD);
    let Some(fill) = fill.and_then(|fill| u16::try_from(fill).ok()) else {
        return Ok(message);
    };
    let options_len = OPTION_HEAD_U16.saturating_add(fill).to_be_bytes();
    let options_at = message.len() - options_len.len();
    overwrite(&mut message, options_at, &options_len);
    message.extend_from_slice(&OPTION_PADDING.to_be_bytes());
    message.extend_from_slice(&fill.to_be_bytes());
    message.resize(len, 0);
    Ok(message)
}

/// Sets TC and leaves the records.
pub(super) fn mark_incomplete(message: &mut [u8]) {
    if let Some(flags) = message.get_mut(FLAGS_AT) {
        *flags |= TC;
    }
}

/// Takes back that the answer is proven.
pub(crate) fn unmark_proven(message: &mut [u8]) {
    if let Some(flags) = message.get_mut(RCODE_AT) {
        *flags &= !AD;
    }
}

/// A name as it stands in a question, in lower case.
fn name_bytes(text: &str) -> Result<Vec<u8>, Dropped> {
    let mut name = Name::from_ascii(text)
        .map_err(|_| Dropped::Malformed)?
        .to_lowercase();
    name.set_fqdn(true);
    name.to_bytes().map_err(|_| Dropped::Malformed)
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

// MUST, "Retrieval" and "Processing and Failure Handling".
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

/// Whether a message says that `query` could not be read or served, and does not repeat the question: that is how a server may answer that
/// does not know EDNS (RFC 6891, section 7).
pub(crate) fn is_bare_refusal(response: &[u8], query: &[u8]) -> bool {
    let is_response = response.get(FLAGS_AT).is_some_and(|flags| flags & QR != 0);
    is_response
        && response.len() >= HEADER
        && response.get(..FLAGS_AT) == query.get(..FLAGS_AT)
        && response.get(COUNTS_AT..ANCOUNT_AT) == Some(&[0; 2])
        && is_baffled(response)
}

/// Whether a response says that the query could not be read, or that such are not served.
pub(crate) fn is_baffled(response: &[u8]) -> bool {
    [RCODE_FORMERR, RCODE_NOTIMP].contains(&rcode_low(response))
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

/// Reads the question that follows the header. Its name must stand there in full.
fn read_question(decoder: &mut BinDecoder<'_>) -> Result<(RecordType, u16), Dropped> {
    let start = decoder.index();
    let name = Name::read(decoder)?;
    let in_full = name.iter().map(|label| label.len() + 1).sum::<usize>() + 1;
    if decoder.index() - start != in_full {
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
    // Room for what makes it a key.
    let mut key = Vec::with_capacity(question.len() + 1);
    key.extend_from_slice(question);
    let name_len = key.len().saturating_sub(4);
    if let Some(name) = key.get_mut(..name_len) {
        name.make_ascii_lowercase();
    }
    key
}

#[cfg(test)]
mod tests;
