use hickory_proto::dnssec::Algorithm;
use hickory_proto::dnssec::rdata::{DNSSECRData, NSEC3, RRSIG, SigInput};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, SerialNumber};

use super::*;

mod bounds;
mod lifetimes;
mod model;

const UNIX_S: u32 = 1_900_000_000;
const DAY_S: u32 = 86_400;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn secure(owner: &Name, ttl: u32, data: RData) -> Record {
    let mut record = Record::from_rdata(owner.clone(), ttl, data);
    record.proof = Proof::Secure;
    record
}

/// A record and its signature by a zone, which ends with the day.
fn signed(zone: &str, owner: &Name, ttl: u32, data: RData) -> [Record; 2] {
    let input = SigInput {
        type_covered: data.record_type(),
        algorithm: Algorithm::ED25519,
        num_labels: owner.num_labels(),
        original_ttl: ttl,
        sig_expiration: SerialNumber::new(UNIX_S + DAY_S),
        sig_inception: SerialNumber::new(UNIX_S - DAY_S),
        key_tag: 0,
        signer_name: name(zone),
    };
    let signature = DNSSECRData::RRSIG(RRSIG::from_sig(input, vec![7; 64]));
    let signature = secure(owner, ttl, RData::DNSSEC(signature));
    [secure(owner, ttl, data), signature]
}

fn soa(zone: &str, ttl: u32, minimum: u32) -> [Record; 2] {
    let apex = name(zone);
    let data = SOA::new(apex.clone(), apex.clone(), 1, 2, 3, 4, minimum);
    signed(zone, &apex, ttl, RData::SOA(data))
}

/// What a zone says of a name: its types and the next one.
fn says(zone: &str, owner: &str, types: &[RecordType], next: &str) -> [Record; 2] {
    let nsec = NSEC::new_cover_self(name(next), types.iter().copied());
    signed(
        zone,
        &name(owner),
        300,
        RData::DNSSEC(DNSSECRData::NSEC(nsec)),
    )
}

fn found(records: &[[Record; 2]]) -> Found {
    let authorities = records.concat();
    let summary = DnssecSummary::from_records(authorities.iter());
    Found {
        code: ResponseCode::NXDomain,
        answers: Vec::new(),
        authorities,
        summary,
        is_synthesized: false,
    }
}

/// A denial by `lab.` with these in it.
fn denial(records: &[[Record; 2]]) -> Found {
    found(&[&[soa("lab.", 300, 300)], records].concat())
}

/// Ranges at a moment that tests move.
struct Kept {
    ranges: Ranges,
    now: Now,
}

impl Kept {
    fn none() -> Self {
        let now = Now {
            at: Instant::now(),
            unix_s: UNIX_S,
        };
        let ranges = Ranges::new(1_024);
        Self { ranges, now }
    }

    fn of(found: &Found) -> Self {
        let mut kept = Self::none();
        kept.keep(found);
        kept
    }

    fn keep(&mut self, found: &Found) {
        self.ranges.keep(found, self.now);
    }

    fn wait(&mut self, secs: u32) {
        self.now.at += Duration::from_secs(secs.into());
        self.now.unix_s += secs;
    }

    fn deny(&mut self, asked: &str, kind: RecordType) -> Option<Found> {
        let question = Query::query(name(asked), kind);
        self.ranges.deny(&question, self.now.at)
    }

    fn code(&mut self, asked: &str, kind: RecordType) -> Option<ResponseCode> {
        self.deny(asked, kind).map(|found| found.code)
    }

    fn denies(&mut self, asked: &str) -> bool {
        self.deny(asked, RecordType::A).is_some()
    }
}

/// Between `b.lab.` and `f.lab.` there is nothing, nor is there a wildcard.
fn gap() -> [[Record; 2]; 2] {
    [
        says("lab.", "lab.", &[RecordType::SOA, RecordType::NS], "b.lab."),
        says("lab.", "b.lab.", &[RecordType::A], "f.lab."),
    ]
}

#[test]
fn the_ends_of_a_range_and_what_is_outside_are_not_denied() {
    let mut kept = Kept::of(&denial(&gap()));

    for asked in ["b.lab.", "f.lab.", "a.f.lab.", "g.lab.", ".", "c."] {
        assert!(!kept.denies(asked), "{asked}");
    }
    assert!(kept.denies("c.lab."), "so that the others mean something");
}

#[test]
fn a_name_that_a_wildcard_may_answer_for_is_not_denied() {
    let [apex, gap] = gap();
    let elsewhere = says("lab.", "b.lab.", &[RecordType::A], "c.lab.");
    let there = says("lab.", "*.lab.", &[RecordType::A], "b.lab.");
    let alias = says("lab.", "*.lab.", &[RecordType::CNAME], "b.lab.");
    let below = says("lab.", "lab.", &[RecordType::SOA], "x.*.lab.");
    for (case, records) in [
        ("nothing is known of one", vec![gap.clone()]),
        ("only that there is none", vec![apex, elsewhere]),
        ("there is one", vec![there, gap.clone()]),
        ("it is an alias", vec![alias, gap.clone()]),
        ("it is there, without a type", vec![below, gap]),
    ] {
        assert!(!Kept::of(&denial(&records)).denies("c.lab."), "{case}");
    }
}

#[test]
fn of_a_cut_and_below_it_a_zone_denies_nothing_but_the_ds_record() {
    let [apex, _] = gap();
    for types in [
        &[RecordType::NS][..],
        &[RecordType::NS, RecordType::DS],
        &[RecordType::DNAME],
    ] {
        let cut = says("lab.", "b.lab.", types, "f.lab.");
        let mut kept = Kept::of(&denial(&[apex.clone(), cut]));

        assert!(!kept.denies("a.b.lab."), "{types:?}");
        assert_eq!(kept.code("a.b.lab.", RecordType::DS), None, "{types:?}");
        assert!(!kept.denies("b.lab."), "{types:?}");
        let has_ds = types.contains(&RecordType::DS);
        let expected = (!has_ds).then_some(ResponseCode::NoError);
        assert_eq!(kept.code("b.lab.", RecordType::DS), expected, "{types:?}");
        assert!(kept.denies("c.lab."), "beside the cut");
    }
}

#[test]
fn the_zone_itself_has_no_word_on_its_ds_record() {
    let root = [
        says(".", ".", &[RecordType::SOA, RecordType::NS], "lab."),
        says(".", "lab.", &[RecordType::NS], "z."),
    ];
    let mut kept = Kept::of(&denial(&gap()));

    assert_eq!(kept.code("lab.", RecordType::DS), None);
    assert_eq!(kept.code(".", RecordType::DS), None);
    kept.keep(&found(&[&[soa(".", 300, 300)], &root[..]].concat()));
    let by_root = kept.deny("lab.", RecordType::DS).unwrap();
    assert_eq!(by_root.authorities[0].name, name("."));
    assert_eq!(kept.code(".", RecordType::DS), None);
    assert_eq!(
        kept.code("lab.", RecordType::MX),
        Some(ResponseCode::NoError)
    );
}

#[test]
fn a_type_that_is_there_an_alias_and_what_is_no_data_are_not_denied() {
    let types = [RecordType::A, RecordType::TXT];
    let b = says("lab.", "b.lab.", &types, "c.lab.");
    let c = says("lab.", "c.lab.", &[RecordType::CNAME], "f.lab.");
    let mut kept = Kept::of(&denial(&[b, c]));

    for kind in [
        RecordType::A,
        RecordType::TXT,
        RecordType::NSEC,
        RecordType::RRSIG,
        RecordType::ANY,
        RecordType::AXFR,
        RecordType::OPT,
        RecordType::Unknown(128),
    ] {
        assert_eq!(kept.code("b.lab.", kind), None, "{kind}");
    }
    assert!(!kept.denies("c.lab."));
    for (asked, kind) in [
        ("b.lab.", RecordType::AAAA),
        ("B.Lab.", RecordType::CNAME),
        ("b.lab.", RecordType::DS),
        ("b.lab.", RecordType::Unknown(65_280)),
    ] {
        let no_data = Some(ResponseCode::NoError);
        assert_eq!(kept.code(asked, kind), no_data, "{asked} {kind}");
    }
}

#[test]
fn other_zones_have_no_word() {
    let [apex, gap] = gap();
    let by_parent = says(".", "b.lab.", &[RecordType::A], "f.lab.");
    let by_sibling = says("b.lab.", "b.lab.", &[RecordType::A], "f.b.lab.");
    let leads_out = says("lab.", "b.lab.", &[RecordType::A], "f.");
    let leads_back = says("lab.", "b.lab.", &[RecordType::A], "a.lab.");
    for range in [by_parent, by_sibling, leads_out, leads_back] {
        let mut kept = Kept::of(&denial(&[apex.clone(), range.clone()]));
        assert!(!kept.denies("c.lab."), "{range:?}");
        assert!(!kept.denies("c.b.lab."), "{range:?}");
    }
    let of_another = found(&[soa("plain.", 300, 300), apex, gap]);
    assert!(!Kept::of(&of_another).denies("c.lab."));
}

#[test]
fn a_zone_has_no_word_on_names_of_one_below_it_that_is_known() {
    let mut kept = Kept::of(&denial(&gap()));
    assert!(kept.denies("x.c.lab."));

    let only = says("c.lab.", "c.lab.", &[RecordType::SOA], "b.c.lab.");
    kept.keep(&found(&[soa("c.lab.", 300, 300), only]));

    // Others, before and behind, for the search.
    for zone in ["a.lab.", "z.d.lab.", "e.lab.", "lab0."] {
        let only = says(zone, zone, &[RecordType::SOA], zone);
        kept.keep(&found(&[soa(zone, 300, 300), only]));
    }

    assert!(!kept.denies("x.c.lab."));
    for asked in ["a.c.lab.", "d.lab.", "y.d.lab.", "z.z.d.lab.", "ee.lab."] {
        assert!(kept.denies(asked), "{asked}");
    }
}

#[test]
fn what_is_not_proven_is_not_kept() {
    let [apex, [nsec, signature]] = gap();
    let with = |change: &dyn Fn(&mut [Record; 2])| {
        let mut changed = [nsec.clone(), signature.clone()];
        change(&mut changed);
        denial(&[apex.clone(), changed])
    };
    for proof in [Proof::Bogus, Proof::Insecure, Proof::Indeterminate] {
        for at in [0, 1] {
            let found = with(&|records| records[at].proof = proof);
            assert!(!Kept::of(&found).denies("c.lab."), "{proof} {at}");
        }
    }
    let moved = with(&|[_, signature]| {
        let RData::DNSSEC(DNSSECRData::RRSIG(made)) = &mut signature.data else {
            panic!("no signature");
        };
        let mut input = made.input().clone();
        input.num_labels = 1;
        *made = RRSIG::from_sig(input, vec![7; 64]);
    });
    assert!(!Kept::of(&moved).denies("c.lab."), "made from a wildcard");
    let twice = says("lab.", "b.lab.", &[RecordType::A], "d.lab.");
    let twice = denial(&[&gap()[..], &[twice]].concat());
    assert!(!Kept::of(&twice).denies("c.lab."), "two at one name");
    let mut unsure = denial(&gap());
    unsure.summary = DnssecSummary::Insecure;
    assert!(!Kept::of(&unsure).denies("c.lab."), "an insecure zone");
    let mut positive = denial(&gap());
    let address = RData::A(A::new(192, 0, 2, 1));
    positive.answers = vec![secure(&name("x.lab."), 60, address)];
    assert!(!Kept::of(&positive).denies("c.lab."), "an answer");
    let headless = found(&gap());
    assert!(!Kept::of(&headless).denies("c.lab."), "without an SOA");
}

#[test]
fn hashed_names_and_records_made_for_one_question_are_not_kept() {
    let [apex, _] = gap();
    let next = name("c.lab.").prepend_label(&b"\0"[..]).unwrap();
    let minimal = NSEC::new_cover_self(next, [RecordType::A]);
    let minimal = RData::DNSSEC(DNSSECRData::NSEC(minimal));
    let minimal = signed("lab.", &name("c.lab."), 300, minimal);
    let wanting = NSEC::new(name("f.lab."), [RecordType::A, RecordType::RRSIG]);
    let wanting = RData::DNSSEC(DNSSECRData::NSEC(wanting));
    let wanting = signed("lab.", &name("c.lab."), 300, wanting);
    let many: Vec<_> = (1_000..1_100).map(RecordType::from).collect();
    let many = says("lab.", "c.lab.", &many, "f.lab.");
    for records in [minimal, wanting, many] {
        let mut kept = Kept::of(&denial(&[apex.clone(), records.clone()]));
        assert_eq!(kept.code("c.lab.", RecordType::MX), None, "{records:?}");
    }
    let hashed = NSEC3::new(
        hickory_proto::dnssec::Nsec3HashAlgorithm::SHA1,
        false,
        0,
        Vec::new(),
        vec![0xff; 20],
        [RecordType::A],
    );
    let hashed = RData::DNSSEC(DNSSECRData::NSEC3(hashed));
    let owner = name("0p9mhaveqvm6t7vbl5lop2u3t2rp3tom.lab.");
    let kept = Kept::of(&denial(&[signed("lab.", &owner, 300, hashed)]));
    assert_eq!(kept.ranges.kept, 0);
}

#[test]
fn a_name_in_a_range_is_denied_with_all_that_proves_it() {
    let mut kept = Kept::of(&denial(&gap()));

    let denied = kept.deny("x.C.lab.", RecordType::AAAA).unwrap();

    assert_eq!(denied.code, ResponseCode::NXDomain);
    assert_eq!(denied.summary, DnssecSummary::Secure);
    assert!(denied.is_synthesized && denied.answers.is_empty());
    let [apex, gap] = gap();
    let proof = [soa("lab.", 300, 300), gap, apex].concat();
    assert_eq!(denied.authorities, proof);
}

#[test]
fn one_record_that_proves_all_is_given_once() {
    let around = says("lab.", "lab.", &[RecordType::SOA], "f.lab.");
    let mut kept = Kept::of(&denial(std::slice::from_ref(&around)));

    let denied = kept.deny("c.lab.", RecordType::A).unwrap();

    assert_eq!(
        denied.authorities,
        [soa("lab.", 300, 300), around].concat(),
        "it has no wildcard either"
    );
}

#[test]
fn the_last_range_of_a_zone_ends_at_its_first_name() {
    let [apex, _] = gap();
    let last = says("lab.", "y.lab.", &[RecordType::A], "lab.");
    let mut kept = Kept::of(&denial(&[apex, last]));

    assert_eq!(
        kept.code("z.lab.", RecordType::A),
        Some(ResponseCode::NXDomain)
    );
    assert!(!kept.denies("x.lab."));
    assert!(!kept.denies("z."));
}

#[test]
fn a_name_with_others_below_it_is_there_without_a_type() {
    let [apex, _] = gap();
    let around = says("lab.", "b.lab.", &[RecordType::A], "x.y.d.lab.");
    let mut kept = Kept::of(&denial(&[apex, around]));

    for kind in [RecordType::A, RecordType::DS] {
        for asked in ["d.lab.", "Y.d.lab."] {
            assert_eq!(kept.code(asked, kind), Some(ResponseCode::NoError));
        }
    }
    assert_eq!(
        kept.code("c.lab.", RecordType::A),
        Some(ResponseCode::NXDomain)
    );
    assert_eq!(
        kept.code("a.d.lab.", RecordType::A),
        Some(ResponseCode::NXDomain),
        "its wildcard would lie in the same range"
    );
}

#[test]
fn a_wildcard_without_the_type_answers_for_no_name_with_it() {
    let [_, gap] = gap();
    let wildcard = says("lab.", "*.lab.", &[RecordType::A], "b.lab.");
    let mut kept = Kept::of(&denial(&[wildcard, gap]));

    let denied = kept.deny("c.lab.", RecordType::AAAA).unwrap();

    assert_eq!(denied.code, ResponseCode::NoError);
    assert_eq!(denied.authorities.len(), 6, "SOA, range and wildcard");
    for types in [RecordType::NS, RecordType::DNAME] {
        let strange = says("lab.", "*.lab.", &[types], "b.lab.");
        let [_, gap] = super::tests::gap();
        let mut kept = Kept::of(&denial(&[strange, gap]));
        assert_eq!(kept.code("c.lab.", RecordType::DS), None, "{types}");
    }
}
