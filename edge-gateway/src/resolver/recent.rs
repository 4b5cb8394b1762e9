//! What was asked ahead a moment ago, for the workers whose own answers to the same question are near the same end: servers
//! are asked once, however many workers there are. Pure; the time is an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hickory_proto::dnssec::DnssecSummary;
use hickory_proto::op::Query;

use super::Found;

/// One part of the lifetime in so many is an answer's end, in which it is asked for ahead.
const END_PARTS: u32 = 10;

/// The answers, each for as long as the end of the one before it may last.
pub(super) struct Recent {
    most: usize,
    brought: HashMap<Query, Brought>,
}

struct Brought {
    found: Found,
    at: Instant,
    until: Instant,
}

impl Recent {
    /// None yet, and never more than `most`.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            brought: HashMap::new(),
        }
    }

    /// Takes what was found, if it may be given to others and there is a place for it.
    pub(super) fn keep(&mut self, question: Query, found: &Found, now: Instant) {
        let until = now + Duration::from_secs(lifetime_s(found).into()) / END_PARTS;
        if found.summary == DnssecSummary::Bogus || until == now {
            return;
        }
        if self.brought.len() >= self.most {
            self.brought.retain(|_, brought| brought.until > now);
        }
        if self.brought.len() < self.most {
            let (found, at) = (found.clone(), now);
            let brought = Brought { found, at, until };
            self.brought.insert(question, brought);
        }
    }

    /// What was found then, its lifetimes lowered since.
    pub(super) fn find(&self, question: &Query, now: Instant) -> Option<Found> {
        let brought = self.brought.get(question)?;
        if now >= brought.until {
            return None;
        }
        let age_s = now.saturating_duration_since(brought.at).as_secs();
        let age_s = u32::try_from(age_s).unwrap_or(u32::MAX);
        let mut found = brought.found.clone();
        for record in found.answers.iter_mut().chain(&mut found.authorities) {
            record.decrement_ttl(age_s);
        }
        Some(found)
    }
}

/// The shortest lifetime that counts.
fn lifetime_s(found: &Found) -> u32 {
    let records = if found.answers.is_empty() {
        &found.authorities
    } else {
        &found.answers
    };
    let lifetimes = records.iter().map(|record| record.ttl);
    lifetimes.min().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::ResponseCode;
    use hickory_proto::rr::rdata::A;
    use hickory_proto::rr::{Name, RData, Record, RecordType};

    use super::*;

    fn question(name: &str) -> Query {
        Query::query(Name::from_ascii(name).unwrap(), RecordType::A)
    }

    fn found(ttl: u32, summary: DnssecSummary) -> Found {
        let address = RData::A(A::new(192, 0, 2, 1));
        let record = Record::from_rdata(Name::from_ascii("www.lab.").unwrap(), ttl, address);
        Found {
            code: ResponseCode::NoError,
            answers: vec![record],
            authorities: Vec::new(),
            summary,
            is_synthesized: false,
        }
    }

    fn kept(ttl: u32, summary: DnssecSummary, now: Instant) -> Recent {
        let mut recent = Recent::new(2);
        recent.keep(question("www.lab."), &found(ttl, summary), now);
        recent
    }

    fn lifetime_after(recent: &Recent, after_s: u64, start: Instant) -> Option<u32> {
        let now = start + Duration::from_secs(after_s);
        let found = recent.find(&question("WWW.lab."), now)?;
        Some(lifetime_s(&found))
    }

    #[test]
    fn what_is_bogus_or_has_no_lifetime_is_for_nobody_else() {
        let now = Instant::now();

        let bogus = kept(300, DnssecSummary::Bogus, now);
        let brief = kept(0, DnssecSummary::Secure, now);

        assert_eq!(lifetime_after(&bogus, 0, now), None);
        assert_eq!(lifetime_after(&brief, 0, now), None);
    }

    #[test]
    fn an_answer_is_for_others_for_a_tenth_of_its_lifetime_and_grows_older_meanwhile() {
        let now = Instant::now();
        let recent = kept(300, DnssecSummary::Secure, now);

        assert_eq!(lifetime_after(&recent, 30, now), None);
        assert_eq!(lifetime_after(&recent, 0, now), Some(300));
        assert_eq!(lifetime_after(&recent, 29, now), Some(271));
        assert!(recent.find(&question("lab."), now).is_none());
    }

    #[test]
    fn no_more_are_kept_than_there_are_places_and_what_is_over_leaves_its_own() {
        let now = Instant::now();
        let mut recent = kept(300, DnssecSummary::Secure, now);
        let insecure = found(3_000, DnssecSummary::Insecure);
        recent.keep(question("a.lab."), &insecure, now);

        recent.keep(question("b.lab."), &insecure, now);
        let later = now + Duration::from_secs(30);
        recent.keep(question("c.lab."), &insecure, later);

        assert_eq!(recent.brought.len(), 2);
        assert!(recent.find(&question("b.lab."), later).is_none());
        for there in ["a.lab.", "c.lab."] {
            assert!(recent.find(&question(there), later).is_some(), "{there}");
        }
    }
}
