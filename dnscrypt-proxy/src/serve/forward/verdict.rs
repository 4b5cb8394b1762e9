//! What an answer from a server is worth, and as much of it as concerns the question: the records that lead from the asked
//! name to the asked type, and where there are none, the zone's word for it. All else is left behind, the additional
//! section always.

use std::ops::Range;

use hickory_proto::op::Message;
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable as _, BinDecoder, DecodeError};

use crate::proto::message::{
    HEADER, MAX_CHAIN, OUR_UDP_SIZE, Query, is_truncated, rcode_low, says_bogus,
};

/// What proves that there is nothing.
const PROOFS: [RecordType; 3] = [RecordType::NSEC, RecordType::NSEC3, RecordType::RRSIG];
const RCODE_NOERROR: u8 = 0;
const RCODE_NXDOMAIN: u8 = 3;

/// What is to become of a question whose answer came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This is its answer, cleaned; id, spelling and EDNS are the asker's to add.
    Answer(Vec<u8>),
    /// There is more of it than fits a datagram.
    Cut,
    /// An alias leads to a name that others are asked for.
    Foreign,
    /// It leaves off: an alias that leads nowhere, or a referral.
    Incomplete,
    /// The server cannot or will not answer.
    Refused {
        /// It says that validation refused what it was given.
        is_bogus: bool,
    },
    /// It cannot be read.
    Garbled,
}

/// Judges a datagram that is an answer to the question: id and question have been compared. `is_theirs` tells the names
/// that its sender is asked for.
pub(super) fn judge(datagram: &[u8], asked: &Query, is_theirs: impl Fn(&Name) -> bool) -> Verdict {
    if is_truncated(datagram) || datagram.len() > usize::from(OUR_UDP_SIZE) {
        return Verdict::Cut;
    }
    let rcode = rcode_low(datagram);
    if !matches!(rcode, RCODE_NOERROR | RCODE_NXDOMAIN) {
        let is_bogus = says_bogus(datagram);
        return Verdict::Refused { is_bogus };
    }
    let Ok(sections) = Sections::read(datagram, asked) else {
        return Verdict::Garbled;
    };
    let chain = sections.chain(datagram);
    let Ok(chain) = chain else {
        return Verdict::Garbled;
    };
    if !chain.names.iter().skip(1).all(is_theirs) {
        return Verdict::Foreign;
    }
    let has_soa = sections.soa_above(chain.end()).is_some();
    if rcode == RCODE_NOERROR && !chain.ends_well && !has_soa {
        let says_nothing = sections.answers.is_empty() && sections.authorities.is_empty();
        if !says_nothing {
            return Verdict::Incomplete;
        }
    }
    let cleaned = match sections.end_of_clean(&chain, asked) {
        Some(clean) => Some(cut(datagram, clean)),
        None => filtered(datagram, &sections, &chain, asked),
    };
    cleaned.map_or(Verdict::Garbled, |answer| {
        Verdict::Answer(as_answer(answer, rcode))
    })
}

/// A record, as far as it has to be known.
#[derive(Debug)]
struct Seen {
    owner: Name,
    rtype: RecordType,
    is_internet: bool,
    data_at: usize,
    end: usize,
}

/// The answer and authority sections.
struct Sections {
    question: Name,
    qtype: RecordType,
    /// Where the question ends.
    start: usize,
    answers: Vec<Seen>,
    authorities: Vec<Seen>,
}

/// The names that the answer leads along, the asked one first.
struct Chain {
    names: Vec<Name>,
    /// Whether the last has the asked record.
    ends_well: bool,
}

impl Chain {
    fn end(&self) -> Option<&Name> {
        self.names.last()
    }

    /// Whether a record of the answer section belongs to it.
    fn has(&self, record: &Seen, qtype: RecordType) -> bool {
        let of_chain = self.names.contains(&record.owner);
        let mut below = (self.names.iter()).filter(|name| record.owner.zone_of(name));
        let kind = record.rtype;
        record.is_internet
            && if kind == RecordType::DNAME && kind != qtype {
                below.any(|name| record.owner != *name)
            } else if kind == RecordType::RRSIG && kind != qtype {
                below.next().is_some()
            } else {
                of_chain && (kind == qtype || kind == RecordType::CNAME)
            }
    }
}

/// How much of a message is kept, and of how many records.
struct Clean {
    end: usize,
    answers: usize,
    authorities: usize,
}

impl Sections {
    fn read(datagram: &[u8], asked: &Query) -> Result<Self, DecodeError> {
        let start = HEADER + asked.question().len();
        let mut decoder = BinDecoder::new(datagram);
        decoder.read_slice(HEADER)?;
        let question = Name::read(&mut decoder)?;
        decoder.read_u32()?;
        let answers = read_records(&mut decoder, count_at(datagram, 6))?;
        let authorities = read_records(&mut decoder, count_at(datagram, 8))?;
        Ok(Self {
            question,
            qtype: asked.qtype,
            start,
            answers,
            authorities,
        })
    }

    /// Follows the aliases from the question, in whatever order they stand.
    fn chain(&self, datagram: &[u8]) -> Result<Chain, DecodeError> {
        let mut names = vec![self.question.clone()];
        while names.len() < MAX_CHAIN {
            let Some(last) = names.last() else { break };
            let mut here = self
                .answers
                .iter()
                .filter(|record| record.is_internet && record.owner == *last);
            if here.clone().any(|record| record.rtype == self.qtype) {
                return Ok(Chain {
                    names,
                    ends_well: true,
                });
            }
            let Some(alias) = here.find(|record| record.rtype == RecordType::CNAME) else {
                break;
            };
            let target = read_name(datagram, alias.data_at)?;
            if names.contains(&target) {
                break;
            }
            names.push(target);
        }
        Ok(Chain {
            names,
            ends_well: false,
        })
    }

    /// The zone's record that says how long a name's absence may be remembered.
    fn soa_above(&self, name: Option<&Name>) -> Option<&Seen> {
        let name = name?;
        self.authorities.iter().find(|record| {
            record.is_internet && record.rtype == RecordType::SOA && record.owner.zone_of(name)
        })
    }

    /// Whether a record of the authority section belongs to the answer: the zone's SOA where nothing was found, and for
    /// those who check signatures, the proofs.
    fn is_word_for(&self, record: &Seen, chain: &Chain, asked: &Query) -> bool {
        let wants_proofs = asked.edns.is_some_and(|edns| edns.dnssec_ok);
        let kind = record.rtype;
        let in_zone = match self.soa_above(chain.end()) {
            Some(soa) => soa.owner.zone_of(&record.owner),
            None => true,
        };
        record.is_internet
            && in_zone
            && if kind == RecordType::SOA {
                !chain.ends_well && chain.end().is_some_and(|end| record.owner.zone_of(end))
            } else {
                wants_proofs && PROOFS.contains(&kind)
            }
    }

    /// Where a message can be cut so that only what belongs to the answer is left; `None`: there is something foreign
    /// between.
    fn end_of_clean(&self, chain: &Chain, asked: &Query) -> Option<Clean> {
        let answers = self.answers.iter();
        if !answers.clone().all(|record| chain.has(record, self.qtype)) {
            return None;
        }
        let belongs = |record: &&Seen| self.is_word_for(record, chain, asked);
        let authorities = self.authorities.iter().take_while(belongs).count();
        if self
            .authorities
            .iter()
            .skip(authorities)
            .any(|record| belongs(&record))
        {
            return None;
        }
        let kept = answers.chain(self.authorities.iter().take(authorities));
        Some(Clean {
            end: kept.last().map_or(self.start, |record| record.end),
            answers: self.answers.len(),
            authorities,
        })
    }
}

fn read_records(decoder: &mut BinDecoder<'_>, count: u16) -> Result<Vec<Seen>, DecodeError> {
    let mut records = Vec::new();
    for _ in 0..count {
        let owner = Name::read(decoder)?;
        let rtype = RecordType::from(decoder.read_u16()?.unverified());
        let class = decoder.read_u16()?.unverified();
        decoder.read_u32()?;
        let len = decoder.read_u16()?.unverified();
        let data_at = decoder.index();
        decoder.read_slice(usize::from(len))?;
        records.push(Seen {
            owner,
            rtype,
            is_internet: class == u16::from(DNSClass::IN),
            data_at,
            end: decoder.index(),
        });
    }
    Ok(records)
}

fn read_name(datagram: &[u8], at: usize) -> Result<Name, DecodeError> {
    let mut decoder = BinDecoder::new(datagram);
    decoder.read_slice(at)?;
    Name::read(&mut decoder)
}

fn count_at(datagram: &[u8], at: usize) -> u16 {
    let two = datagram.get(at..).and_then(|rest| rest.first_chunk::<2>());
    two.map_or(0, |two| u16::from_be_bytes(*two))
}

/// What is kept stands at the front, where no name points to what is behind it.
fn cut(datagram: &[u8], clean: Clean) -> Vec<u8> {
    let mut message = datagram.get(..clean.end).unwrap_or_default().to_vec();
    let counts = [clean.answers, clean.authorities, 0];
    let counts = counts.map(|count| u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes());
    put(&mut message, 6..HEADER, counts.as_flattened());
    message
}

/// The same, written anew without what is foreign.
fn filtered(datagram: &[u8], sections: &Sections, chain: &Chain, asked: &Query) -> Option<Vec<u8>> {
    let mut message = Message::from_vec(datagram).ok()?;
    let belonging = |seen: &[Seen], records: Vec<Record>, belongs: &dyn Fn(&Seen) -> bool| {
        let records = seen.iter().zip(records);
        let records = records.filter(|(seen, _)| belongs(seen));
        records.map(|(_, record)| record).collect()
    };
    message.answers = belonging(&sections.answers, message.answers, &|record| {
        chain.has(record, sections.qtype)
    });
    message.authorities = belonging(&sections.authorities, message.authorities, &|record| {
        sections.is_word_for(record, chain, asked)
    });
    message.additionals.clear();
    message.signature = None;
    message.edns = None;
    message.to_vec().ok()
}

/// The header of an answer by a resolver that proves nothing by itself.
fn as_answer(mut message: Vec<u8>, rcode: u8) -> Vec<u8> {
    const QR_RD: u8 = 0x81;
    const RA: u8 = 0x80;
    put(&mut message, 2..4, &[QR_RD, RA | rcode]);
    message
}

fn put(message: &mut [u8], place: Range<usize>, bytes: &[u8]) {
    if let Some(place) = message
        .get_mut(place)
        .filter(|place| place.len() == bytes.len())
    {
        place.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests;
