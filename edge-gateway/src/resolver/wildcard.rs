//! Answers made from a signed wildcard under NSEC. hickory 0.26.3 wants the wildcard itself to be denied,
//! which is right for a negative answer and wrong for a positive one, and so refuses names one label below
//! a wildcard (its pull request 3812). What it refused is judged again here by the rule of the standard;
//! signatures are verified by then, and only what is marked secure counts.

use hickory_proto::dnssec::rdata::{DNSSECRData, NSEC, RRSIG};
use hickory_proto::dnssec::{DnssecSummary, Proof};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// Whether every answer is secure and the asked name is a proven expansion of a wildcard.
//= https://www.rfc-editor.org/rfc/rfc4035#section-5.3.4
//# If the number of labels in an RRset's owner name is greater than the Labels field of the covering
//# RRSIG RR, then the RRset and its covering RRSIG RR were created as a result of wildcard expansion.
pub(super) fn is_proven_expansion(question: &Query, response: &Message) -> bool {
    let name = question.name();
    let answers = &response.answers;
    let is_answered = answers.iter().any(|record| {
        let kind = record.record_type();
        record.name == *name && (kind == question.query_type() || kind == RecordType::CNAME)
    });
    if response.metadata.response_code != ResponseCode::NoError
        || name.is_wildcard()
        || !is_answered
        || DnssecSummary::from_records(answers.iter()) != DnssecSummary::Secure
    {
        return false;
    }
    let mut expanded = answers
        .iter()
        .filter_map(secure_signature)
        .filter(|(owner, signature)| signature.input().num_labels < owner.num_labels());
    let Some((first_owner, first)) = expanded.next() else {
        return false;
    };
    let (labels, signer) = (first.input().num_labels, &first.input().signer_name);
    // One expansion, of the name that was asked for; a chain of several is not judged here.
    let is_alone = expanded.all(|(owner, other)| {
        owner == name && other.input().num_labels == labels && other.input().signer_name == *signer
    });
    let next_closer = name.trim_to(usize::from(labels) + 1);
    first_owner == name && is_alone && denies(&response.authorities, &next_closer, signer)
}

/// Whether the zone proves that a name, and everything below it, does not exist.
fn denies(authorities: &[Record], name: &Name, zone: &Name) -> bool {
    authorities.iter().any(|record| {
        let RData::DNSSEC(DNSSECRData::NSEC(nsec)) = &record.data else {
            return false;
        };
        record.proof == Proof::Secure
            && zone.zone_of(&record.name)
            && zone.zone_of(name)
            && signature(authorities, &record.name, RecordType::NSEC, zone).is_some()
            && covers(&record.name, nsec, name)
    })
}

/// The zone's signature of what is at a name, if it was found to be right.
pub(super) fn signature<'a>(
    records: &'a [Record],
    owner: &Name,
    covered: RecordType,
    zone: &Name,
) -> Option<(&'a Record, &'a RRSIG)> {
    records.iter().find_map(|record| {
        let (name, signature) = secure_signature(record)?;
        let input = signature.input();
        // A denial that was itself made from a wildcard could be moved to any name.
        let is_as_signed = input.num_labels == owner.num_labels();
        let is_it = name == owner
            && is_as_signed
            && input.type_covered == covered
            && input.signer_name == *zone;
        is_it.then_some((record, signature))
    })
}

/// Whether a name, and everything below it, is denied.
pub(super) fn covers(owner: &Name, nsec: &NSEC, name: &Name) -> bool {
    // A next name below this one would make it an empty non-terminal, which exists.
    spans(owner, nsec, name) && !name.zone_of(nsec.next_domain_name())
}

/// Whether a name lies between those of the record, and is the zone's own.
pub(super) fn spans(owner: &Name, nsec: &NSEC, name: &Name) -> bool {
    let next = nsec.next_domain_name();
    // RFC 6840 section 4.1: the parent's side of a delegation says nothing about names below it.
    let is_foreign = nsec.is_ancestor_delegation() && owner.zone_of(name);
    let is_between = name > owner && (name < next || next <= owner);
    is_between && !is_foreign
}

fn secure_signature(record: &Record) -> Option<(&Name, &RRSIG)> {
    let RData::DNSSEC(DNSSECRData::RRSIG(signature)) = &record.data else {
        return None;
    };
    (record.proof == Proof::Secure).then_some((&record.name, signature))
}

#[cfg(test)]
mod tests {
    use hickory_proto::dnssec::Algorithm;
    use hickory_proto::dnssec::rdata::SigInput;
    use hickory_proto::op::OpCode;
    use hickory_proto::rr::{SerialNumber, rdata};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn secure(owner: &str, data: RData) -> Record {
        let mut record = Record::from_rdata(name(owner), 300, data);
        record.proof = Proof::Secure;
        record
    }

    fn address(owner: &str) -> Record {
        secure(owner, RData::A(rdata::A::new(203, 0, 113, 10)))
    }

    fn signature(owner: &str, type_covered: RecordType, num_labels: u8, signer: &str) -> Record {
        let input = SigInput {
            type_covered,
            algorithm: Algorithm::ED25519,
            num_labels,
            original_ttl: 300,
            sig_expiration: SerialNumber::new(0),
            sig_inception: SerialNumber::new(0),
            key_tag: 0,
            signer_name: name(signer),
        };
        secure(
            owner,
            RData::DNSSEC(DNSSECRData::RRSIG(RRSIG::from_sig(input, Vec::new()))),
        )
    }

    fn denial(owner: &str, next: &str, signer: &str) -> [Record; 2] {
        let nsec = NSEC::new(name(next), [RecordType::A]);
        [
            secure(owner, RData::DNSSEC(DNSSECRData::NSEC(nsec))),
            signature(owner, RecordType::NSEC, name(owner).num_labels(), signer),
        ]
    }

    /// `x.w.lab.` made from `*.w.lab.`, with this denial beside it.
    fn judged(denial: &[Record]) -> bool {
        judged_answers(
            &[
                address("x.w.lab."),
                signature("x.w.lab.", RecordType::A, 2, "lab."),
            ],
            denial,
        )
    }

    fn judged_answers(answers: &[Record], authorities: &[Record]) -> bool {
        let mut response = Message::response(1, OpCode::Query);
        response.answers = answers.to_vec();
        response.authorities = authorities.to_vec();
        let owner = answers
            .first()
            .map_or_else(|| name("x.w.lab."), |record| record.name.clone());
        is_proven_expansion(&Query::query(owner, RecordType::A), &response)
    }

    #[test]
    fn a_name_that_is_not_denied_is_no_expansion() {
        assert!(!judged(&[]), "without a denial the name may exist");
        assert!(
            !judged(&denial("y.w.lab.", "z.lab.", "lab.")),
            "the denial is of later names"
        );
        assert!(
            !judged(&denial("x.w.lab.", "z.lab.", "lab.")),
            "the name itself exists"
        );
        assert!(
            !judged(&denial("*.w.lab.", "a.x.w.lab.", "lab.")),
            "a name below it exists"
        );
        assert!(
            !judged(&denial("*.w.lab.", "z.lab.", ".")),
            "another zone says so"
        );
        let [moved, _] = denial("b.w.lab.", "z.lab.", "lab.");
        let by_wildcard = signature("b.w.lab.", RecordType::NSEC, 2, "lab.");
        assert!(
            !judged(&[moved, by_wildcard]),
            "the denial was made from a wildcard"
        );
        let mut doubtful = denial("*.w.lab.", "z.lab.", "lab.");
        doubtful[0].proof = Proof::Insecure;
        assert!(!judged(&doubtful), "the denial itself is not proven");
    }

    #[test]
    fn an_answer_with_anything_unproven_in_it_is_no_expansion() {
        let proof = denial("*.w.lab.", "z.lab.", "lab.");
        let mut unproven = address("x.w.lab.");
        unproven.proof = Proof::Bogus;

        assert!(!judged_answers(
            &[unproven, signature("x.w.lab.", RecordType::A, 2, "lab.")],
            &proof
        ));
        assert!(
            !judged_answers(&[address("x.w.lab.")], &proof),
            "no signature"
        );
        let two_expansions = [
            address("x.w.lab."),
            signature("x.w.lab.", RecordType::CNAME, 2, "lab."),
            signature("y.v.lab.", RecordType::A, 2, "lab."),
        ];
        assert!(!judged_answers(&two_expansions, &proof));
    }

    #[test]
    fn for_a_deep_name_the_denied_one_is_the_one_next_to_the_wildcard() {
        let answers = [
            address("a.b.w.lab."),
            signature("a.b.w.lab.", RecordType::A, 2, "lab."),
        ];

        assert!(judged_answers(
            &answers,
            &denial("*.w.lab.", "z.lab.", "lab.")
        ));
        assert!(
            !judged_answers(&answers, &denial("b.w.lab.", "z.lab.", "lab.")),
            "b.w.lab. exists"
        );
    }

    #[test]
    fn a_denied_name_answered_by_its_wildcard_is_proven() {
        assert!(judged(&denial("*.w.lab.", "z.lab.", "lab.")));
        assert!(
            judged(&denial("a.w.lab.", "lab.", "lab.")),
            "the last name of the zone points to its first"
        );
    }
}
