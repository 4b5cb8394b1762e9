//! Responses and records: what a cache must know of a message, found by walking it once. The bytes stay
//! as they came.

use std::ops::{Range, RangeInclusive};

use hickory_proto::op::Header;
use hickory_proto::rr::Name;
use hickory_proto::serialize::binary::{BinDecodable as _, BinDecoder};

use super::{
    ANCOUNT_AT, ARCOUNT_AT, Edns, ExtendedError, HEADER, OPTION_HEAD, OPTION_PADDING, Query,
    overwrite, read_question,
};
use crate::proto::dropped::Dropped;

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
    /// What the asker is told beside it.
    pub error: Option<ExtendedError>,
}

impl Response {
    /// Reads a response to `query`.
    pub fn read(bytes: &[u8], query: &Query) -> Result<Self, Dropped> {
        let mut decoder = BinDecoder::new(bytes);
        let header = Header::read(&mut decoder)?;
        read_question(&mut decoder)?;
        let layout = Layout::of_records(&mut decoder, &header)?;
        let (mut stored, mut error) = (bytes.to_vec(), None);
        let mut rcode = u16::from(header.metadata.response_code.low());
        if let Some((edns, opt)) = layout.edns {
            rcode |= u16::from(edns.rcode_high) << 4;
            let is_bogus = rcode == RCODE_SERVFAIL && tells_bogus(bytes.get(opt.clone()));
            error = is_bogus.then_some(ExtendedError::DnssecBogus);
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
            error,
        })
    }

    /// A failure without its records: it is remembered for a while, and nobody needs them.
    #[must_use]
    pub(crate) fn failing_briefly(mut self, query: &Query) -> Self {
        if self.rcode == RCODE_SERVFAIL {
            self.stored.truncate(HEADER + query.question().len());
            self.stored.shrink_to_fit();
            overwrite(&mut self.stored, ANCOUNT_AT, &[0; 6]);
            self.ttl_at = Vec::new();
        }
        self
    }

    /// What concerns the question, of a response by somebody who is believed about it and nothing else: the records that lead from its
    /// name, or where there are none, the SOA above it. An error: records of other names are among the answers.
    pub(crate) fn of_its_name_alone(mut self) -> Result<Self, Dropped> {
        let mut decoder = BinDecoder::new(&self.stored);
        let header = Header::read(&mut decoder)?;
        read_question(&mut decoder)?;
        let mut names = vec![Name::read(
            &mut BinDecoder::new(&self.stored).clone(HEADER_U16),
        )?];
        for _ in 0..header.counts.answers {
            let (owner, rtype, data_at) = read_head(&mut decoder)?;
            let leads_here = names.iter().any(|name| owner.zone_of(name));
            if !(names.contains(&owner) || [TYPE_RRSIG, TYPE_DNAME].contains(&rtype) && leads_here)
            {
                return Err(Dropped::WrongQuestion);
            }
            if rtype == TYPE_CNAME {
                if names.len() > MAX_CHAIN {
                    return Err(Dropped::WrongQuestion);
                }
                names.push(Name::read(&mut decoder.clone(data_at))?);
            }
        }
        let mut end = decoder.index();
        let mut authorities = 0_u16;
        if header.counts.answers == 0 && header.counts.authorities > 0 {
            let (owner, rtype, _) = read_head(&mut decoder)?;
            let is_above = names.first().is_some_and(|name| owner.zone_of(name));
            if rtype == TYPE_SOA && is_above {
                (end, authorities) = (decoder.index(), 1);
            }
        }
        self.stored.truncate(end);
        overwrite(&mut self.stored, ANCOUNT_AT + 2, &authorities.to_be_bytes());
        overwrite(&mut self.stored, ARCOUNT_AT, &[0; 2]);
        self.ttl_at.retain(|at| usize::from(*at) < end);
        Ok(self)
    }
}

/// A record's owner, its type, and where its data begin; what follows is the next one.
fn read_head(decoder: &mut BinDecoder<'_>) -> Result<(Name, u16, u16), Dropped> {
    let owner = Name::read(decoder)?;
    let rtype = decoder.read_u16()?.unverified();
    decoder.read_slice(CLASS_AND_TTL)?;
    let len = decoder.read_u16()?.unverified();
    let data_at = u16::try_from(decoder.index()).map_err(|_| Dropped::Malformed)?;
    decoder.read_slice(usize::from(len))?;
    Ok((owner, rtype, data_at))
}

/// Whether a failure is explained by what DNSSEC validation found (RFC 8914).
#[cfg(feature = "workers")]
pub(crate) fn says_bogus(response: &[u8]) -> bool {
    let mut decoder = BinDecoder::new(response);
    let layout = Header::read(&mut decoder)
        .map_err(Dropped::from)
        .and_then(|header| {
            read_question(&mut decoder)?;
            Layout::of_records(&mut decoder, &header)
        });
    let opt = layout.ok().and_then(|layout| layout.edns);
    opt.is_some_and(|(_, opt)| tells_bogus(response.get(opt)))
}

/// The same of its OPT record.
fn tells_bogus(opt: Option<&[u8]>) -> bool {
    let mut options = opt.and_then(|opt| opt.get(OPT_HEAD..)).unwrap_or_default();
    while let Some((head, rest)) = options.split_first_chunk::<OPTION_HEAD>() {
        let [kind, len] = [[head[0], head[1]], [head[2], head[3]]].map(u16::from_be_bytes);
        let Some((data, rest)) = rest.split_at_checked(usize::from(len)) else {
            return false;
        };
        let code = data.first_chunk().copied().map(u16::from_be_bytes);
        if kind == OPTION_ERROR && code.is_some_and(|code| VALIDATION_FAILED.contains(&code)) {
            return true;
        }
        options = rest;
    }
    false
}

/// Lowers every lifetime of a stored response by its age, never below `floor_s`.
pub fn age(response: &mut [u8], ttl_at: impl IntoIterator<Item = u16>, age_s: u32, floor_s: u32) {
    for at in ttl_at {
        let at = usize::from(at);
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

/// Lengthens an answer to a multiple of `block` by an EDNS padding option (RFC 7830), where it has EDNS and that stands
/// last, as in every answer that is made here.
pub fn pad_answer(answer: &mut Vec<u8>, block: usize) {
    let mut decoder = BinDecoder::new(answer);
    let opt = Header::read(&mut decoder)
        .map_err(Dropped::from)
        .and_then(|header| {
            read_question(&mut decoder)?;
            Layout::of_records(&mut decoder, &header)
        })
        .ok()
        .and_then(|layout| layout.edns)
        .map(|(_, opt)| opt)
        .filter(|opt| opt.end == answer.len());
    let Some(opt) = opt else { return };
    let least = answer.len() + OPTION_HEAD;
    let len = least.next_multiple_of(block).min(u16::MAX.into());
    let Some(fill) = len
        .checked_sub(least)
        .and_then(|fill| u16::try_from(fill).ok())
    else {
        return;
    };
    let options = len - opt.start - OPT_HEAD;
    let Ok(options) = u16::try_from(options) else {
        return;
    };
    overwrite(
        answer,
        opt.start + OPT_HEAD - size_of::<u16>(),
        &options.to_be_bytes(),
    );
    answer.extend_from_slice(&OPTION_PADDING.to_be_bytes());
    answer.extend_from_slice(&fill.to_be_bytes());
    answer.resize(len, 0);
}

// MUST, "Retrieval": strings of one record are joined, records are not.
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

const TYPE_CNAME: u16 = 5;
const TYPE_SOA: u16 = 6;
const TYPE_DNAME: u16 = 39;
const TYPE_RRSIG: u16 = 46;
/// Aliases that are followed within one answer.
pub(crate) const MAX_CHAIN: usize = 16;
/// What stands between a record's type and the length of its data.
const CLASS_AND_TTL: usize = 6;
const HEADER_U16: u16 = HEADER as u16;
/// RFC 8914, and in it from "DNSSEC Bogus" to "NSEC Missing".
const OPTION_ERROR: u16 = 15;
const VALIDATION_FAILED: RangeInclusive<u16> = 6..=12;
pub(super) const TYPE_TXT: u16 = 16;
const TYPE_OPT: u16 = 41;
const TYPE_ANY: u16 = 255;
/// An OPT record before its options.
const OPT_HEAD: usize = 11;

pub(super) struct Layout {
    records: Vec<RecordAt>,
    pub(super) edns: Option<(Edns, Range<usize>)>,
    additionals_before_opt: u16,
}

impl Layout {
    /// Walks all records to the end of the message, where the message must end.
    pub(super) fn of_records(
        decoder: &mut BinDecoder<'_>,
        header: &Header,
    ) -> Result<Self, Dropped> {
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
const RCODE_SERVFAIL: u16 = 2;
const DNSSEC_OK: u32 = 0x8000;
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
