//! A DNS answer being written, record by record, with nothing that would keep it from being wrong.

use dnscrypt_proxy::proto::message::HEADER;
use hickory_proto::op::Message;
use hickory_proto::rr::Name;
use hickory_proto::serialize::binary::BinEncodable as _;

const A: u16 = 1;
const IN: u16 = 1;
const QR_AA: u8 = 0x84;
/// A pointer to the question's name.
const OF_QUESTION: [u8; 2] = [0xc0, 12];
const MINUTE: [u8; 4] = [0, 0, 0, 60];

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Answer,
    Authority,
    Additional,
}

/// The answer.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub(super) id: [u8; 2],
    pub(super) flags: [u8; 2],
    /// The type that was asked for.
    pub(super) kind: u16,
    question: Vec<u8>,
    sections: [Vec<Vec<u8>>; 3],
}

impl Draft {
    /// To a query, with the name that it asks for; `None` if it is none.
    pub(super) fn to(query: &[u8]) -> Option<(Self, String)> {
        let message = Message::from_vec(query).ok()?;
        let asked = message.queries.first()?;
        let mut question = asked.name().to_bytes().ok()?;
        let kind = u16::from(asked.query_type());
        // As it was spelled: that is checked.
        let spelled = query.get(HEADER..HEADER + question.len())?;
        question = [spelled, &kind.to_be_bytes(), &IN.to_be_bytes()].concat();
        let draft = Self {
            id: *query.first_chunk()?,
            flags: [QR_AA, 0],
            kind,
            question,
            sections: [Vec::new(), Vec::new(), Vec::new()],
        };
        Some((draft, asked.name().to_string()))
    }

    /// Answers another question.
    pub(super) fn question_of(&mut self, name: &str) {
        self.question = [
            name_bytes(name),
            A.to_be_bytes().into(),
            IN.to_be_bytes().into(),
        ]
        .concat();
    }

    /// Answers the same question in other letters.
    pub(super) fn respell(&mut self, which: usize) {
        // Lengths of labels are less than letters are.
        let mut letters: Vec<&mut u8> = self
            .question
            .iter_mut()
            .filter(|byte| byte.is_ascii_alphabetic())
            .collect();
        let count = letters.len().max(1);
        if let Some(letter) = letters.get_mut(which % count) {
            **letter ^= 0x20;
        }
    }

    /// An address of the name that was asked for.
    pub(super) fn own_address(&mut self, ttl_s: u32, address: [u8; 4]) {
        self.record(Section::Answer, OF_QUESTION.into(), A, ttl_s, &address);
    }

    pub(super) fn address(&mut self, section: Section, owner: &str, ttl_s: u32, address: [u8; 4]) {
        self.record(section, name_bytes(owner), A, ttl_s, &address);
    }

    /// A record whose data is a name.
    pub(super) fn named(
        &mut self,
        section: Section,
        owner: &str,
        kind: u16,
        ttl_s: u32,
        data: &str,
    ) {
        self.record(section, name_bytes(owner), kind, ttl_s, &name_bytes(data));
    }

    /// The start of a zone's authority, for a denial.
    pub(super) fn soa(&mut self, zone: &str, kind: u16) {
        let name = name_bytes(zone);
        let data = [&name, &name, &MINUTE.repeat(5)[..]].concat();
        self.record(Section::Authority, name, kind, 60, &data);
    }

    fn record(&mut self, section: Section, owner: Vec<u8>, kind: u16, ttl_s: u32, data: &[u8]) {
        let len = u16::try_from(data.len()).unwrap_or(u16::MAX);
        let mut record = owner;
        record.extend(kind.to_be_bytes());
        record.extend(IN.to_be_bytes());
        record.extend(ttl_s.to_be_bytes());
        record.extend(len.to_be_bytes());
        record.extend(data);
        if let Some(records) = self.sections.get_mut(section as usize) {
            records.push(record);
        }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = [self.id, self.flags, [0, 1]].concat();
        for records in &self.sections {
            let count = u16::try_from(records.len()).unwrap_or(u16::MAX);
            bytes.extend(count.to_be_bytes());
        }
        bytes.extend(&self.question);
        bytes.extend(self.sections.iter().flatten().flatten());
        bytes
    }
}

fn name_bytes(name: &str) -> Vec<u8> {
    let name = Name::from_ascii(name).and_then(|name| name.to_bytes());
    name.unwrap_or_else(|_| vec![0])
}

#[cfg(test)]
mod tests {
    use dnscrypt_proxy::proto::message;

    use super::*;

    #[test]
    fn what_is_written_is_read_back_by_others() {
        let query = message::query(9, "WWW.evil", A.into(), 1_232).unwrap();
        let (mut draft, name) = Draft::to(&query).unwrap();
        draft.own_address(60, [192, 0, 2, 1]);
        draft.named(Section::Authority, "plain.", 2, 60, "ns.evil.");
        draft.soa("lab.", 6);

        let read = Message::from_vec(&draft.bytes()).unwrap();

        assert_eq!(name.to_lowercase(), "www.evil.");
        assert_eq!(read.metadata.id, 9);
        assert_eq!((read.answers.len(), read.authorities.len()), (1, 2));
    }

    #[test]
    fn other_letters_are_the_same_name_to_who_reads_and_not_the_same_bytes() {
        let query = message::query(9, "www.evil", A.into(), 1_232).unwrap();
        let (plain, _) = Draft::to(&query).unwrap();

        for which in 0..9 {
            let mut other = plain.clone();
            other.respell(which);

            let [one, two] = [&plain, &other].map(|draft| Message::from_vec(&draft.bytes()));
            assert_eq!(one.unwrap().queries, two.unwrap().queries);
            assert_ne!(plain.bytes(), other.bytes(), "{which}");
        }
    }
}
