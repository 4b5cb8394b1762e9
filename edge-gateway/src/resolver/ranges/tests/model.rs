//! A zone that is drawn, and what it would say itself.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

type Types = BTreeSet<RecordType>;

/// What a zone says to a question.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Denial(ResponseCode),
    /// Records, an alias, or that others know.
    Other,
}

/// A zone by what is at its names, none of which is below a cut.
#[derive(Debug)]
struct Model(BTreeMap<Name, Types>);

impl Model {
    fn new(drawn: Vec<(Name, Types)>) -> Self {
        let mut names: BTreeMap<Name, Types> = drawn.into_iter().collect();
        let apex = [RecordType::SOA, RecordType::NS, RecordType::DNSKEY];
        names.insert(name("lab."), Types::from(apex));
        let cuts: Vec<Name> = names
            .iter()
            .filter(|(_, types)| is_cut(types))
            .map(|(owner, _)| owner.clone())
            .collect();
        names.retain(|owner, _| !cuts.iter().any(|cut| is_below(owner, cut)));
        Self(names)
    }

    /// Its NSEC records, in order.
    fn chain(&self) -> Vec<[Record; 2]> {
        let owners: Vec<_> = self.0.keys().collect();
        let next = owners.iter().cycle().skip(1);
        let chained = self.0.iter().zip(next);
        chained
            .map(|((owner, types), next)| {
                let nsec = NSEC::new_cover_self((*next).clone(), types.iter().copied());
                let nsec = RData::DNSSEC(DNSSECRData::NSEC(nsec));
                signed("lab.", owner, 300, nsec)
            })
            .collect()
    }

    fn exists(&self, asked: &Name) -> bool {
        self.0.keys().any(|owner| asked.zone_of(owner))
    }

    /// RFC 1034, section 4.3.2, with RFC 4592 for wildcards and RFC 4035 for DS records.
    fn says(&self, asked: &Name, kind: RecordType) -> Said {
        let cut = self.0.iter().find(|(owner, types)| {
            let is_at = owner.zone_of(asked) && is_cut(types);
            let is_own = *owner == asked && (kind == RecordType::DS || !is_delegation(types));
            is_at && !is_own
        });
        if cut.is_some() || (*asked == name("lab.") && kind == RecordType::DS) {
            return Said::Other;
        }
        let of_types = |types: &Types| {
            if types.contains(&kind) || types.contains(&RecordType::CNAME) {
                Said::Other
            } else {
                Said::Denial(ResponseCode::NoError)
            }
        };
        if let Some(types) = self.0.get(asked) {
            return of_types(types);
        }
        if self.exists(asked) {
            return Said::Denial(ResponseCode::NoError);
        }
        let mut encloser = asked.base_name();
        while !self.exists(&encloser) {
            encloser = encloser.base_name();
        }
        let wildcard = encloser.prepend_label("*").unwrap();
        match self.0.get(&wildcard) {
            Some(types) => of_types(types),
            None if self.exists(&wildcard) => Said::Denial(ResponseCode::NoError),
            None => Said::Denial(ResponseCode::NXDomain),
        }
    }
}

fn is_delegation(types: &Types) -> bool {
    types.contains(&RecordType::NS) && !types.contains(&RecordType::SOA)
}

fn is_cut(types: &Types) -> bool {
    is_delegation(types) || types.contains(&RecordType::DNAME)
}

fn is_below(asked: &Name, other: &Name) -> bool {
    asked != other && other.zone_of(asked)
}

/// Few labels, so that names meet.
fn drawn_name(most: usize) -> impl Strategy<Value = Name> {
    let label = prop::sample::select(vec!["*", "a", "B", "b", "m", "Mm", "z", "0", "-"]);
    prop::collection::vec(label, 0..=most).prop_map(|labels: Vec<&str>| {
        let below = |at: Name, label: &str| at.prepend_label(label.as_bytes()).unwrap();
        labels.into_iter().fold(name("lab."), below)
    })
}

fn drawn_types() -> impl Strategy<Value = Types> {
    prop::sample::select(vec![
        vec![RecordType::A],
        vec![RecordType::A, RecordType::AAAA, RecordType::MX],
        vec![RecordType::TXT],
        vec![RecordType::CNAME],
        vec![RecordType::NS],
        vec![RecordType::NS, RecordType::DS],
        vec![RecordType::DNAME, RecordType::A],
    ])
    .prop_map(|types| types.into_iter().collect())
}

fn drawn_zone() -> impl Strategy<Value = Model> {
    let node = (drawn_name(3), drawn_types()).prop_filter("no cut is a wildcard", |(at, types)| {
        !at.is_wildcard() || !is_cut(types)
    });
    prop::collection::vec(node, 0..12).prop_map(Model::new)
}

fn drawn_question() -> impl Strategy<Value = Query> {
    let kind = prop::sample::select(vec![
        RecordType::A,
        RecordType::AAAA,
        RecordType::DS,
        RecordType::NS,
        RecordType::CNAME,
        RecordType::SOA,
    ]);
    (drawn_name(4), kind).prop_map(|(name, kind)| Query::query(name, kind))
}

/// Whether what denies a question of a drawn zone is all that is needed, and plain enough to be used.
fn is_plain(model: &Model, asked: &Name) -> bool {
    let has_strange_wildcard = model.0.keys().any(|owner| {
        let labels = owner.iter().skip(1);
        labels.into_iter().any(|label| label == b"*")
    });
    let has_dname = (model.0.get(asked)).is_some_and(|types| types.contains(&RecordType::DNAME));
    !has_strange_wildcard && !has_dname
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_zone_is_given_a_word_that_it_would_not_say(
        model in drawn_zone(),
        known in prop::collection::vec(any::<bool>(), 13),
        questions in prop::collection::vec(drawn_question(), 20),
    ) {
        let chain = model.chain().into_iter().zip(known);
        let chain: Vec<_> = chain.filter(|(_, is_known)| *is_known).map(|(nsec, _)| nsec).collect();
        let mut kept = Kept::of(&denial(&chain));

        for question in &questions {
            if let Some(denied) = kept.ranges.deny(question, kept.now.at) {
                let said = model.says(question.name(), question.query_type());
                prop_assert_eq!(said, Said::Denial(denied.code), "{}", question);
            }
        }
    }

    #[test]
    fn who_knows_a_whole_zone_asks_for_nothing_that_it_denies(
        model in drawn_zone(),
        questions in prop::collection::vec(drawn_question(), 20),
    ) {
        let mut kept = Kept::of(&denial(&model.chain()));

        for question in &questions {
            let said = model.says(question.name(), question.query_type());
            let denied = kept.ranges.deny(question, kept.now.at);
            if is_plain(&model, question.name()) && said != Said::Other {
                let code = denied.map(|it| Said::Denial(it.code));
                prop_assert_eq!(Some(said), code, "{}", question);
            }
        }
    }
}
