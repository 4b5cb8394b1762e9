//! What zones have proven not to be there, kept so that nobody need be asked for it again (RFC 8198): the NSEC records of
//! denials that were validated, by zone. Pure; the time is an argument. NSEC3 and answers made from wildcards are not here.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hickory_proto::dnssec::rdata::NSEC;
use hickory_proto::dnssec::{DnssecSummary, Proof};
use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{Name, Record, RecordData, RecordRef, RecordType};
use hickory_proto::serialize::binary::BinEncodable as _;

use super::{Found, wildcard};

/// No denial lives longer, whatever its zone says (RFC 2308, section 5, has one to three hours).
const LONGEST_S: u32 = 3 * 3_600;
/// A record with its signature: an RSA key of 4,096 bits signs in 512.
const MOST_BYTES: usize = 1_024;
/// Types at one name.
const MOST_TYPES: usize = 64;
/// Which part of all places one zone may have, so that one that signs a record for each question pushes out no other.
const ZONES_PART: usize = 4;

/// Now, by the clock that nobody sets and by the one that signatures go by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub at: Instant,
    /// Seconds since 1970, as far as they fit.
    pub unix_s: u32,
}

/// The ranges between names, bounded in number, and each in bytes.
pub(super) struct Ranges {
    most: usize,
    kept: usize,
    zones: BTreeMap<Name, Zone>,
}

struct Zone {
    soa: Signed<SOA>,
    /// By owner, in the order of RFC 4034, section 6.1, which is that of [`Name`].
    ranges: BTreeMap<Name, Signed<NSEC>>,
    /// When it last denied or learned something.
    used: Instant,
}

/// A record of a zone and the signature that it was validated by.
struct Signed<R: RecordData> {
    record: Record<R>,
    signature: Record,
    end: Instant,
}

impl Ranges {
    /// None yet, and never more than `most`; with 0 nothing is kept.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            kept: 0,
            zones: BTreeMap::new(),
        }
    }

    /// Takes what a validated denial proves beyond its own question.
    pub(super) fn keep(&mut self, found: &Found, now: Now) {
        if self.most == 0 || !found.answers.is_empty() || found.summary != DnssecSummary::Secure {
            return;
        }
        let records = &found.authorities;
        let soas = records.iter().filter_map(Record::try_borrow::<SOA>);
        let mut soas = soas.filter_map(|soa| {
            let most_s = soa.data().minimum.min(LONGEST_S);
            Signed::read(soa, records, soa.name(), most_s, now)
        });
        let Some(soa) = soas.next() else {
            return;
        };
        let zone = soa.record.name.clone();
        // RFC 9077: no denial outlives the zone's word on absence.
        let most_s = soa.left_s(now.at).unwrap_or_default();
        let fresh: Vec<_> = (records.iter().filter_map(Record::try_borrow::<NSEC>))
            .filter(|nsec| is_of_use(&zone, nsec.name(), nsec.data()))
            .filter_map(|nsec| Signed::read(nsec, records, &zone, most_s, now))
            .collect();
        if fresh.is_empty() {
            return;
        }
        if self.kept + fresh.len() > self.most {
            self.make_room(now.at);
        }
        match self.zones.get_mut(&zone) {
            Some(zone) => zone.soa.renew(soa, now.at),
            None => drop(self.zones.insert(zone.clone(), Zone::new(soa, now.at))),
        }
        if let Some(zone) = self.zones.get_mut(&zone) {
            let before = zone.ranges.len();
            zone.keep(fresh, self.most / ZONES_PART, now.at);
            self.kept = self.kept + zone.ranges.len() - before;
        }
    }

    /// The answer to a question, with its proof, if what is kept denies it.
    pub(super) fn deny(&mut self, question: &Query, now: Instant) -> Option<Found> {
        let (name, kind) = (question.name(), question.query_type());
        if is_no_kind_of_data(kind) {
            return None;
        }
        // That there is no DS record is for the zone above to say (RFC 4035, section 5.2).
        let inside = if kind != RecordType::DS {
            name.clone()
        } else if name.is_root() {
            return None;
        } else {
            name.base_name()
        };
        let zone = self.around(inside)?;
        self.zones.get_mut(&zone)?.deny(name, kind, now)
    }

    /// The deepest zone around a name: one above it has no word on what is in it.
    fn around(&self, mut name: Name) -> Option<Name> {
        loop {
            let (zone, _) = self.zones.range(..=&name).next_back()?;
            if zone.zone_of(&name) {
                return Some(zone.clone());
            }
            // Between the two lies no zone around the name.
            name = name.trim_to(shared(&name, zone));
        }
    }

    /// Lets go of what has ended, and then of the zones that were of no use for longest, until half of the places are free.
    fn make_room(&mut self, now: Instant) {
        for zone in self.zones.values_mut() {
            zone.ranges.retain(|_, range| range.end > now);
        }
        self.zones.retain(|_, zone| !zone.ranges.is_empty());
        let count = |zones: &BTreeMap<Name, Zone>| zones.values().map(|it| it.ranges.len()).sum();
        self.kept = count(&self.zones);
        while self.kept > self.most / 2 {
            let middle = median(self.zones.values().map(|zone| zone.used));
            self.zones.retain(|_, zone| Some(zone.used) > middle);
            self.kept = count(&self.zones);
        }
    }
}

impl Zone {
    fn new(soa: Signed<SOA>, now: Instant) -> Self {
        Self {
            soa,
            ranges: BTreeMap::new(),
            used: now,
        }
    }

    fn keep(&mut self, fresh: Vec<Signed<NSEC>>, most: usize, now: Instant) {
        self.used = now;
        for range in fresh {
            match self.ranges.get_mut(&range.record.name) {
                Some(kept) => kept.renew(range, now),
                None => drop(self.ranges.insert(range.record.name.clone(), range)),
            }
        }
        while self.ranges.len() > most {
            let middle = median(self.ranges.values().map(|range| range.end));
            self.ranges.retain(|_, range| Some(range.end) > middle);
        }
    }

    fn deny(&mut self, name: &Name, kind: RecordType, now: Instant) -> Option<Found> {
        let (code, proof) = self.judge(name, kind, now)?;
        let mut least_s = self.soa.left_s(now)?;
        let mut authorities = Vec::new();
        for range in proof {
            let left_s = range.left_s(now)?;
            least_s = least_s.min(left_s);
            authorities.extend(range.shown(left_s));
        }
        // From its lifetime readers take that of the denial (RFC 2308, section 5).
        authorities.splice(0..0, self.soa.shown(least_s));
        self.used = now;
        Some(Found {
            code,
            answers: Vec::new(),
            authorities,
            summary: DnssecSummary::Secure,
            is_synthesized: true,
        })
    }

    /// What the zone says of a name and type, and by which records, if it is that they are not there.
    fn judge(
        &self,
        name: &Name,
        kind: RecordType,
        now: Instant,
    ) -> Option<(ResponseCode, Vec<&Signed<NSEC>>)> {
        let at = self.last_up_to(name, now)?;
        let next = at.nsec().next_domain_name();
        if at.record.name == *name {
            return lacks(at.nsec(), kind).then(|| (ResponseCode::NoError, vec![at]));
        }
        if !wildcard::spans(&at.record.name, at.nsec(), name) {
            return None;
        }
        if name.zone_of(next) {
            // An empty non-terminal: there, with no type at all.
            return Some((ResponseCode::NoError, vec![at]));
        }
        let encloser = shared(name, &at.record.name).max(shared(name, next));
        let source = name.trim_to(encloser).prepend_label("*").ok()?;
        let beside = self.last_up_to(&source, now)?;
        let code = if beside.record.name == source {
            let is_plain = !beside.nsec().is_ancestor_delegation();
            (is_plain && lacks(beside.nsec(), kind)).then_some(ResponseCode::NoError)?
        } else {
            wildcard::covers(&beside.record.name, beside.nsec(), &source)
                .then_some(ResponseCode::NXDomain)?
        };
        let is_one = at.record.name == beside.record.name;
        let proof = [at].into_iter().chain((!is_one).then_some(beside));
        Some((code, proof.collect()))
    }

    /// The range that a name is in or begins, if there is one for it.
    fn last_up_to(&self, name: &Name, now: Instant) -> Option<&Signed<NSEC>> {
        let (_, range) = self.ranges.range(..=name).next_back()?;
        (range.end > now).then_some(range)
    }
}

impl<R: RecordData + PartialEq> Signed<R> {
    /// A record, if the zone's signature of it has been found to be right, and is of just this name.
    fn read(
        record: RecordRef<'_, R>,
        records: &[Record],
        zone: &Name,
        most_s: u32,
        now: Now,
    ) -> Option<Self> {
        let kind = record.record_type();
        let mut same = records.iter().filter(|other| {
            let is_same = other.record_type() == kind;
            is_same && other.name == *record.name()
        });
        // Both types have one record at a name; a signature is of all of them.
        let is_alone = same.next().is_some() && same.next().is_none();
        if record.proof() != Proof::Secure || !is_alone {
            return None;
        }
        let (signature, made) = wildcard::signature(records, record.name(), kind, zone)?;
        let made = made.input();
        // Serial numbers: what is half the circle away lies behind (RFC 4034, section 3.1.5).
        let valid_s = made.sig_expiration.get().wrapping_sub(now.unix_s);
        let valid_s = u32::try_from(valid_s.cast_signed()).ok()?;
        let life_s = record.ttl().min(made.original_ttl).min(valid_s).min(most_s);
        let (record, signature) = (record.to_owned(), signature.clone());
        let size = record.to_bytes().ok()?.len() + signature.to_bytes().ok()?.len();
        (life_s > 0 && size <= MOST_BYTES).then(|| Self {
            record,
            signature,
            end: now.at + Duration::from_secs(life_s.into()),
        })
    }

    /// Takes another one's place. The same one keeps its end: hickory 0.26.3 gives back, with a judgement that it has kept,
    /// the lifetime that the record had at first.
    fn renew(&mut self, fresh: Self, now: Instant) {
        let is_same =
            self.record.data == fresh.record.data && self.signature.data == fresh.signature.data;
        if !is_same || self.end <= now {
            *self = fresh;
        }
    }

    fn left_s(&self, now: Instant) -> Option<u32> {
        let left = self.end.saturating_duration_since(now).as_secs();
        u32::try_from(left).ok().filter(|left_s| *left_s > 0)
    }

    fn shown(&self, ttl_s: u32) -> [Record; 2] {
        let record = self.record.clone().into_record_of_rdata();
        let mut shown = [record, self.signature.clone()];
        for record in &mut shown {
            record.ttl = ttl_s;
        }
        shown
    }
}

impl Signed<NSEC> {
    fn nsec(&self) -> &NSEC {
        &self.record.data
    }
}

/// Whether a zone's record is one that can deny other questions than that it came for.
fn is_of_use(zone: &Name, owner: &Name, nsec: &NSEC) -> bool {
    let (next, types) = (nsec.next_domain_name(), nsec.type_set());
    let is_in_zone = zone.zone_of(next) && (next > owner || next == zone);
    // Made for one question, with nothing between. Of some makers it lacks types that are there.
    let is_minimal = next.iter().next() == Some(b"\0") && next.base_name() == *owner;
    let is_whole = types.contains(RecordType::NSEC) && types.contains(RecordType::RRSIG);
    let is_short = nsec.type_bit_maps().nth(MOST_TYPES).is_none();
    is_in_zone && !is_minimal && is_whole && is_short
}

/// Whether a name's own record says that there is nothing of the type, nor an alias instead.
fn lacks(nsec: &NSEC, kind: RecordType) -> bool {
    let types = nsec.type_set();
    // RFC 6840, section 4.1: at a zone cut the zone has a word on DS alone.
    let is_its_word = kind == RecordType::DS || !nsec.is_ancestor_delegation();
    is_its_word && !types.contains(kind) && !types.contains(RecordType::CNAME)
}

/// Questions, and what goes with single messages (RFC 6895, section 3.1): no zone has a word on these.
fn is_no_kind_of_data(kind: RecordType) -> bool {
    kind == RecordType::OPT || (128..=255).contains(&u16::from(kind))
}

/// How many labels two names have in common, from the root.
fn shared(one: &Name, other: &Name) -> usize {
    let labels = one.iter().rev().zip(other.iter().rev());
    labels
        .take_while(|(one, other)| one.eq_ignore_ascii_case(other))
        .count()
}

/// The one that half of them are before.
fn median(times: impl Iterator<Item = Instant>) -> Option<Instant> {
    let mut times: Vec<_> = times.collect();
    let half = times.len() / 2;
    (half < times.len()).then(|| *times.select_nth_unstable(half).1)
}

#[cfg(test)]
mod tests;
