//! What of an answer is the question's: a forwarder that is asked for one name has no word on others.

use hickory_proto::rr::{Name, RData, Record, RecordType};

/// Aliases that are followed within one answer.
const MAX_ALIASES: usize = 16;

/// Keeps the records that lead from the name to the type, with their signatures, wherever they stand.
pub(super) fn keep(answers: &mut Vec<Record>, name: &Name, kind: RecordType) {
    let mut names = vec![name.clone()];
    while names.len() <= MAX_ALIASES {
        let last = names.last();
        let own = answers.iter().filter(|record| Some(&record.name) == last);
        let mut aliases = own.filter_map(|record| {
            let RData::CNAME(target) = &record.data else {
                return None;
            };
            Some(target.0.clone())
        });
        let Some(target) = aliases.next().filter(|target| !names.contains(target)) else {
            break;
        };
        names.push(target);
    }
    let is_above = |owner: &Name| names.iter().any(|name| owner.zone_of(name));
    answers.retain(|record| {
        let of = record.record_type();
        if of == RecordType::DNAME || of == RecordType::RRSIG {
            is_above(&record.name)
        } else {
            (of == kind || of == RecordType::CNAME) && names.contains(&record.name)
        }
    });
}

/// Keeps the zone's word for what is not there.
pub(super) fn keep_proofs(authorities: &mut Vec<Record>) {
    let kept = [
        RecordType::SOA,
        RecordType::NSEC,
        RecordType::NSEC3,
        RecordType::RRSIG,
    ];
    authorities.retain(|record| kept.contains(&record.record_type()));
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::rdata::{A, CNAME};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn address(owner: &str) -> Record {
        Record::from_rdata(name(owner), 60, RData::A(A::new(192, 0, 2, 1)))
    }

    fn alias(owner: &str, target: &str) -> Record {
        Record::from_rdata(name(owner), 60, RData::CNAME(CNAME(name(target))))
    }

    #[test]
    fn other_names_and_other_types_are_left_behind() {
        let own = [
            alias("b.example.", "c.example."),
            alias("A.example.", "b.example."),
            address("c.example."),
        ];
        let foreign = [
            address("www.bank."),
            address("a.example."),
            alias("d.example.", "e.example."),
            address("example."),
        ];
        // An address beside an alias of the same name is of the asked name, and of no harm to others.
        let kept_beside = address("a.example.");
        let mut answers: Vec<_> = foreign.iter().chain(&own).cloned().collect();

        keep(&mut answers, &name("a.example."), RecordType::A);

        let expected: Vec<_> = [&kept_beside].into_iter().chain(&own).cloned().collect();
        assert_eq!(answers, expected);
        keep(&mut answers, &name("a.example."), RecordType::AAAA);
        assert!(
            answers
                .iter()
                .all(|it| it.record_type() == RecordType::CNAME)
        );
    }

    #[test]
    fn addresses_have_no_place_beside_proofs() {
        let mut authorities = vec![address("a.example.")];

        keep_proofs(&mut authorities);

        assert_eq!(authorities, []);
    }

    #[test]
    fn aliases_in_a_circle_come_to_an_end() {
        let mut answers = vec![alias("a.", "b."), alias("b.", "a.")];

        keep(&mut answers, &name("a."), RecordType::A);

        assert_eq!(answers.len(), 2);
    }
}
