//! Names and types that are missing, judged after hickory 0.26.3, which is too credulous and too strict. It takes a denial
//! whose code alone says so beside a signed answer, and one whose only records are of an insecure zone somewhere below;
//! both can be forged. And it holds the denial of an alias's target against the alias, and refuses what is proven.

use hickory_proto::dnssec::rdata::DNSSECRData;
use hickory_proto::dnssec::{DnssecSummary, Proof};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RData, Record};

use super::Found;

/// Aliases that are followed from one question; resolvers of other hands stop after 11 to 16.
pub(super) const MOST_ALIASES: usize = 12;

/// Whether what is not there is known not to be there: proven, or said by the insecure zone that the name is in.
pub(super) fn stands(name: &Name, found: &Found) -> bool {
    if found.authorities.is_empty() {
        // hickory has made sure that the zone is insecure, but where it took a code for a denial.
        return found.code == ResponseCode::NoError;
    }
    found.authorities.iter().any(|record| match record.proof {
        // It has compared these with the name.
        Proof::Secure => is_denial(record),
        Proof::Insecure => record.name.zone_of(name),
        Proof::Bogus | Proof::Indeterminate => false,
    })
}

fn is_denial(record: &Record) -> bool {
    matches!(
        &record.data,
        RData::DNSSEC(DNSSECRData::NSEC(_) | DNSSECRData::NSEC3(_))
    )
}

/// What a name is another name for, if an answer about it says so and may be believed.
pub(super) fn target(name: &Name, found: &Found) -> Option<Name> {
    if found.summary == DnssecSummary::Bogus {
        return None;
    }
    let mut aliases = found.answers.iter().filter(|record| record.name == *name);
    aliases.find_map(|record| {
        if let RData::CNAME(target) = &record.data {
            Some(target.0.clone())
        } else {
            None
        }
    })
}

/// The alias in front of what was found under its target.
pub(super) fn join(alias: Found, mut found: Found) -> Found {
    let mut answers = alias.answers;
    answers.append(&mut found.answers);
    Found {
        answers,
        summary: worse(alias.summary, found.summary),
        is_synthesized: alias.is_synthesized && found.is_synthesized,
        ..found
    }
}

fn worse(one: DnssecSummary, other: DnssecSummary) -> DnssecSummary {
    match (one, other) {
        (DnssecSummary::Bogus, _) | (_, DnssecSummary::Bogus) => DnssecSummary::Bogus,
        (DnssecSummary::Insecure, _) | (_, DnssecSummary::Insecure) => DnssecSummary::Insecure,
        (DnssecSummary::Secure, DnssecSummary::Secure) => DnssecSummary::Secure,
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::dnssec::rdata::NSEC;
    use hickory_proto::rr::rdata::{A, CNAME, NS};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn record(owner: &str, data: RData, proof: Proof) -> Record {
        let mut record = Record::from_rdata(name(owner), 60, data);
        record.proof = proof;
        record
    }

    fn said(code: ResponseCode, authorities: &[Record]) -> Found {
        Found {
            code,
            answers: Vec::new(),
            authorities: authorities.to_vec(),
            summary: DnssecSummary::from_records(authorities.iter()),
            is_synthesized: false,
        }
    }

    fn server(zone: &str, proof: Proof) -> Record {
        record(zone, RData::NS(NS(name("ns.lab."))), proof)
    }

    fn denied(found: &Found) -> bool {
        stands(&name("www.lab."), found)
    }

    #[test]
    fn a_code_without_a_proof_and_records_of_another_zone_deny_nothing() {
        let no_name = ResponseCode::NXDomain;

        assert!(!denied(&said(no_name, &[])));
        assert!(!denied(&said(no_name, &[server("lab.", Proof::Secure)])));
        assert!(!denied(&said(
            no_name,
            &[server("below.lab.", Proof::Insecure)]
        )));
        assert!(!denied(&said(
            no_name,
            &[server("plain.", Proof::Insecure)]
        )));
        assert!(!denied(&said(no_name, &[server("lab.", Proof::Bogus)])));
    }

    #[test]
    fn a_proof_and_the_word_of_the_insecure_zone_around_the_name_deny_it() {
        let nsec = RData::DNSSEC(DNSSECRData::NSEC(NSEC::new(name("z.lab."), [])));
        let proof = record("a.lab.", nsec, Proof::Secure);

        assert!(denied(&said(ResponseCode::NXDomain, &[proof])));
        assert!(denied(&said(
            ResponseCode::NXDomain,
            &[server("lab.", Proof::Insecure)]
        )));
        assert!(denied(&said(ResponseCode::NoError, &[])));
    }

    #[test]
    fn an_alias_is_followed_by_its_own_record_alone_and_is_no_surer_than_its_target() {
        let alias = |owner: &str, proof| {
            let answers = vec![record(owner, RData::CNAME(CNAME(name("t.lab."))), proof)];
            let summary = DnssecSummary::from_records(answers.iter());
            let code = ResponseCode::NoError;
            Found {
                code,
                answers,
                authorities: Vec::new(),
                summary,
                is_synthesized: false,
            }
        };
        let www = name("www.lab.");

        assert_eq!(target(&www, &alias("other.lab.", Proof::Secure)), None);
        assert_eq!(target(&www, &alias("www.lab.", Proof::Bogus)), None);
        assert_eq!(
            target(&www, &alias("www.lab.", Proof::Secure)),
            Some(name("t.lab."))
        );
        let address = record("t.lab.", RData::A(A::new(192, 0, 2, 1)), Proof::Insecure);
        let found = Found {
            answers: vec![address],
            summary: DnssecSummary::Insecure,
            ..said(ResponseCode::NoError, &[])
        };
        let joined = join(alias("www.lab.", Proof::Secure), found);
        assert_eq!(joined.answers.len(), 2);
        assert_eq!(joined.summary, DnssecSummary::Insecure);
    }
}
