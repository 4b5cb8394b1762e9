//! The authority: mistakes of its text by line, and whose signatures give a proposal its effect.

use trust::authority::AuthorityProblem;
use trust::{
    Approval, Authority, Effect, Kind, PartyProblem, Proposal, Refused, SshSigError, Standing,
    Verdict,
};

use crate::pen::pen;

const LOGGED: u64 = 1_790_000_000;
const NOW: u64 = LOGGED + 10_000;

/// Alice has two keys, 1 and 11; bob, carol, dan and erin one each, 2 to 5.
fn text(epoch: u64, rules: &str) -> String {
    let people = [
        ("alice", 1),
        ("alice", 11),
        ("bob", 2),
        ("carol", 3),
        ("dan", 4),
        ("erin", 5),
    ];
    let people =
        people.map(|(name, n)| format!("person {name} {} {name}@example\n", pen(n).line()));
    let people = people.concat();
    format!(
        "# the people\nepoch {epoch}\n\n{people}group noc 2 alice bob carol\ngroup legal any dan erin\ngroup both all noc legal\n{rules}"
    )
}

const RULES: &str = "rule gateway noc\nrule authority both min-delay 3600\n";

fn authority(rules: &str) -> Authority {
    Authority::parse(&text(4, rules)).unwrap()
}

fn proposal(kind: Kind, body: &[u8], change: impl FnOnce(&mut Proposal)) -> Vec<u8> {
    let mut proposal = Proposal {
        v: 1,
        kind,
        body: body.to_vec(),
        authority_epoch: 4,
        nonce: [9; 32],
        created: LOGGED - 10,
        not_before: LOGGED,
        expires: 0,
        proposer: "alice".to_owned(),
    };
    change(&mut proposal);
    proposal.to_bytes()
}

fn gateway() -> Vec<u8> {
    proposal(Kind::Gateway, b"a record", |_| ())
}

fn judged(
    authority: &Authority,
    proposal: &[u8],
    signed: &[Approval],
) -> Result<Proposal, Refused> {
    authority.judge(proposal, signed, LOGGED, NOW)
}

#[track_caller]
fn refuses(rules: &str, problem: &AuthorityProblem) {
    let error = Authority::parse(&text(4, rules)).unwrap_err();
    assert_eq!(&error.problem, problem, "{error}");
}

#[test]
fn a_text_that_gives_somebody_two_votes_or_nobody_a_way_to_change_it_is_refused() {
    let rule = "rule authority both\n";
    refuses("", &AuthorityProblem::Unchangeable);
    refuses(
        &format!("{rule}group more all noc alice\nrule gateway more\n"),
        &AuthorityProblem::TwoVotes,
    );
    refuses(
        &format!("{rule}person frank {}\n", pen(2).line()),
        &AuthorityProblem::DuplicateKey,
    );
    refuses(
        &format!("{rule}person noc {}\n", pen(6).line()),
        &AuthorityProblem::Party(PartyProblem::NameTaken),
    );
    refuses(
        &format!("{rule}rule gateway frank\n"),
        &AuthorityProblem::Party(PartyProblem::UnknownName),
    );
    refuses(
        &format!("{rule}rule authority noc\n"),
        &AuthorityProblem::TwoRules(Kind::Authority),
    );
    refuses(
        &format!("{rule}rule gateways noc\n"),
        &AuthorityProblem::UnknownKind("gateways".to_owned()),
    );
    for life in ["", " max-life 3601", " min-delay 5"] {
        refuses(
            &format!("{rule}rule break-glass alice{life}\n"),
            &AuthorityProblem::BreakGlass,
        );
    }
    for conditions in [
        "now",
        "max-life 0",
        "max-life",
        "min-delay -1",
        "self-approve max-life 5",
    ] {
        let error = Authority::parse(&text(4, &format!("{rule}rule gateway noc {conditions}\n")));
        let problem = error.unwrap_err().problem;
        assert!(
            matches!(problem, AuthorityProblem::Form(_)),
            "{conditions}: {problem}"
        );
    }
    for epoch in ["epoch 0\n", "epoch\n", "epoch 04\n", ""] {
        let text = text(4, rule).replace("epoch 4\n", epoch);
        let error = Authority::parse(&text).unwrap_err();
        assert_eq!(error.problem, AuthorityProblem::Epoch, "{epoch}");
    }
}

#[test]
fn one_person_with_two_keys_is_one_vote() {
    let proposal = gateway();
    let by_carol = |p: &mut Proposal| p.proposer = "carol".to_owned();
    let of_carol = self::proposal(Kind::Gateway, b"a record", by_carol);
    let signed = [
        pen(3).says(Verdict::Propose, "carol", &of_carol),
        pen(1).says(Verdict::Approve, "alice", &of_carol),
        pen(11).says(Verdict::Approve, "alice", &of_carol),
    ];
    assert_eq!(
        judged(&authority(RULES), &of_carol, &signed).unwrap_err(),
        Refused::Twice("alice".to_owned())
    );

    let signed = [
        pen(1).says(Verdict::Propose, "alice", &proposal),
        pen(11).says(Verdict::Approve, "alice", &proposal),
        pen(2).says(Verdict::Approve, "bob", &proposal),
    ];
    let refused = judged(&authority(RULES), &proposal, &signed).unwrap_err();
    assert!(
        matches!(refused, Refused::NoQuorum { approved: 1, .. }),
        "{refused}"
    );
}

#[test]
fn who_is_not_in_the_group_does_not_count_and_one_less_than_enough_is_not_enough() {
    let proposal = gateway();
    let proposed = pen(1).says(Verdict::Propose, "alice", &proposal);
    let approve = |n, name| pen(n).says(Verdict::Approve, name, &proposal);

    for others in [
        vec![],
        vec![approve(2, "bob")],
        vec![approve(4, "dan"), approve(5, "erin"), approve(2, "bob")],
    ] {
        let signed = [vec![proposed.clone()], others].concat();
        let refused = judged(&authority(RULES), &proposal, &signed).unwrap_err();
        assert!(matches!(refused, Refused::NoQuorum { .. }), "{refused}");
    }
    let signed = [proposed, approve(2, "bob"), approve(3, "carol")];
    let read = judged(&authority(RULES), &proposal, &signed).unwrap();
    assert_eq!(read.body, b"a record");
}

#[test]
fn a_proposal_in_anothers_name_is_nobodys() {
    let proposal = gateway();
    let approvals = [
        pen(2).says(Verdict::Approve, "bob", &proposal),
        pen(3).says(Verdict::Approve, "carol", &proposal),
    ];
    let refused = judged(&authority(RULES), &proposal, &approvals).unwrap_err();
    assert_eq!(refused, Refused::NotProposed("alice".to_owned()));

    let of_bob = pen(2).says(Verdict::Propose, "bob", &proposal);
    let signed = [vec![of_bob], approvals.to_vec()].concat();
    let refused = judged(&authority(RULES), &proposal, &signed).unwrap_err();
    assert_eq!(refused, Refused::NotProposed("alice".to_owned()));
}

#[test]
fn a_signature_by_anothers_key_for_other_bytes_or_for_another_purpose_refuses_all_of_it() {
    let proposal = gateway();
    let other = self::proposal(Kind::Gateway, b"another record", |_| ());
    let good = [
        pen(1).says(Verdict::Propose, "alice", &proposal),
        pen(2).says(Verdict::Approve, "bob", &proposal),
        pen(3).says(Verdict::Approve, "carol", &proposal),
    ];
    let with = |one: Approval| {
        let signed = [good.to_vec(), vec![one]].concat();
        judged(&authority(RULES), &proposal, &signed).unwrap_err()
    };
    let person = || "dan".to_owned();
    let not_signed = |error| Refused::Signature {
        person: person(),
        error,
    };

    assert_eq!(
        with(pen(5).says(Verdict::Approve, "dan", &proposal)),
        Refused::KeyOfOthers { person: person() }
    );
    assert_eq!(
        with(pen(4).says(Verdict::Approve, "dan", &other)),
        Refused::Foreign(person())
    );
    let mut moved = pen(4).says(Verdict::Approve, "dan", &other);
    moved.proposal_id = Proposal::id(&proposal);
    assert_eq!(with(moved), not_signed(SshSigError::NotSigned));
    let mut turned = pen(4).says(Verdict::Reject, "dan", &proposal);
    turned.verdict = Verdict::Approve;
    let refused = with(turned);
    assert!(
        matches!(
            &refused,
            Refused::Signature {
                error: SshSigError::Namespace { .. },
                ..
            }
        ),
        "{refused}"
    );
    assert_eq!(
        with(pen(6).says(Verdict::Approve, "frank", &proposal)),
        Refused::Unknown("frank".to_owned())
    );
    let mut nothing = pen(4).says(Verdict::Approve, "dan", &proposal);
    nothing.sshsig.clear();
    assert_eq!(with(nothing), not_signed(SshSigError::Malformed));
}

#[test]
fn who_rejects_does_not_approve() {
    let proposal = gateway();
    let signed = [
        pen(1).says(Verdict::Propose, "alice", &proposal),
        pen(2).says(Verdict::Approve, "bob", &proposal),
        pen(3).says(Verdict::Approve, "carol", &proposal),
        pen(3).says(Verdict::Reject, "carol", &proposal),
    ];
    let refused = judged(&authority(RULES), &proposal, &signed).unwrap_err();
    assert!(
        matches!(refused, Refused::NoQuorum { approved: 1, .. }),
        "{refused}"
    );
}

#[test]
fn a_proposer_counts_only_where_the_rule_says_so() {
    let proposal = gateway();
    let signed = [
        pen(1).says(Verdict::Propose, "alice", &proposal),
        pen(2).says(Verdict::Approve, "bob", &proposal),
    ];
    assert!(judged(&authority(RULES), &proposal, &signed).is_err());

    let own = authority("rule gateway noc self-approve\nrule authority both\n");
    assert!(judged(&own, &proposal, &signed).is_ok());
}

#[test]
fn what_has_no_rule_or_is_of_an_epoch_that_is_not_yet_has_no_effect() {
    let order = proposal(Kind::Order, b"", |_| ());
    let refused = judged(&authority(RULES), &order, &[]).unwrap_err();
    assert_eq!(refused, Refused::NoRule(Kind::Order));

    for (kind, got) in [(Kind::Gateway, 0), (Kind::Gateway, 5), (Kind::Authority, 3)] {
        let other = proposal(kind, b"a record", |p| p.authority_epoch = got);
        let refused = judged(&authority(RULES), &other, &[]).unwrap_err();
        assert_eq!(refused, Refused::Epoch { current: 4, got });
    }
}

#[test]
fn what_was_proposed_under_an_earlier_state_needs_enough_of_those_who_are_people_now() {
    let proposal = proposal(Kind::Gateway, b"a record", |p| p.authority_epoch = 3);
    let proposed = pen(1).says(Verdict::Propose, "alice", &proposal);
    let bobs = pen(2).says(Verdict::Approve, "bob", &proposal);
    let carols = pen(3).says(Verdict::Approve, "carol", &proposal);
    let franks = pen(6).says(Verdict::Approve, "frank", &proposal);
    let left = pen(7).says(Verdict::Approve, "carol", &proposal);
    let judged = |signed: &[&Approval]| {
        let signed: Vec<_> = signed.iter().copied().cloned().collect();
        judged(&authority(RULES), &proposal, &signed).err()
    };

    let unknown = Refused::Unknown("frank".to_owned());
    assert_eq!(judged(&[&proposed, &bobs, &franks]), Some(unknown));
    let person = "carol".to_owned();
    let of_others = Refused::KeyOfOthers { person };
    assert_eq!(judged(&[&proposed, &bobs, &left]), Some(of_others));
    let short = judged(&[&proposed, &bobs]);
    assert!(matches!(short, Some(Refused::NoQuorum { approved: 1, .. })));
    assert_eq!(judged(&[&proposed, &bobs, &carols]), None);
}

#[test]
fn a_proposal_has_its_effect_after_its_delay_and_within_its_time() {
    let timed = authority("rule gateway dan min-delay 500 max-life 1000\nrule authority both\n");
    let at = |now, change: fn(&mut Proposal)| {
        let proposal = proposal(Kind::Gateway, b"a record", change);
        let signed = [
            pen(1).says(Verdict::Propose, "alice", &proposal),
            pen(4).says(Verdict::Approve, "dan", &proposal),
        ];
        timed.judge(&proposal, &signed, LOGGED, now)
    };
    let lasting = |p: &mut Proposal| p.expires = p.not_before + 1_000;
    let longer = |p: &mut Proposal| p.expires = p.not_before + 1_001;
    let later = |p: &mut Proposal| (p.not_before, p.expires) = (LOGGED + 600, LOGGED + 700);

    let from = LOGGED + 500;
    let early = Refused::TooEarly {
        logged: LOGGED,
        from,
        now: from - 1,
    };
    assert_eq!(at(from - 1, lasting).unwrap_err(), early);
    assert!(at(from, lasting).is_ok());
    assert!(at(LOGGED + 999, lasting).is_ok());
    assert!(matches!(
        at(LOGGED + 1_000, lasting).unwrap_err(),
        Refused::Expired { .. }
    ));
    assert!(matches!(
        at(LOGGED + 599, later).unwrap_err(),
        Refused::NotYet { .. }
    ));
    assert!(at(LOGGED + 600, later).is_ok());
    for change in [longer, |_: &mut Proposal| ()] {
        assert_eq!(
            at(from, change).unwrap_err(),
            Refused::TooLong { most_s: 1_000 }
        );
    }
}

#[test]
fn a_new_state_needs_enough_people_of_the_old_one_and_of_itself() {
    let before = authority(RULES);
    // Carol leaves, alice has another key, frank comes.
    let lines = text(5, RULES);
    let lines = lines.replace(&pen(1).line(), &pen(21).line());
    let lines = lines.replace(&pen(11).line(), &pen(22).line());
    let lines = lines.replace(
        &format!("person carol {}", pen(3).line()),
        &format!("person frank {}", pen(6).line()),
    );
    let lines = lines.replace("alice bob carol", "alice bob frank");
    let body = lines.as_bytes();
    let proposal = proposal(Kind::Authority, body, |p| p.proposer = "dan".to_owned());
    let says = |n, name, verdict| pen(n).says(verdict, name, &proposal);
    let succeed = |signed: &[Approval]| before.succeed(&proposal, signed, LOGGED, NOW);
    let proposed = || says(4, "dan", Verdict::Propose);
    let approve = |n, name| says(n, name, Verdict::Approve);

    // Bob and erin are of both; carol of the old one alone, frank of the new one.
    let old = [
        proposed(),
        approve(2, "bob"),
        approve(3, "carol"),
        approve(5, "erin"),
    ];
    assert!(matches!(
        succeed(&old).unwrap_err(),
        Refused::NoQuorum { .. }
    ));
    let new = [
        proposed(),
        approve(2, "bob"),
        approve(6, "frank"),
        approve(5, "erin"),
    ];
    assert!(matches!(
        succeed(&new).unwrap_err(),
        Refused::NoQuorum { .. }
    ));
    let stranger = [&old[..], &[approve(7, "grace")]].concat();
    assert_eq!(
        succeed(&stranger).unwrap_err(),
        Refused::Unknown("grace".to_owned())
    );

    let both = [&old[..], &[approve(6, "frank")]].concat();
    assert_eq!(succeed(&both).unwrap().epoch(), 5);
    let by_two_keys = [
        proposed(),
        approve(5, "erin"),
        approve(2, "bob"),
        approve(1, "alice"),
        approve(21, "alice"),
    ];
    let next = succeed(&by_two_keys).unwrap();
    assert_eq!(next, Authority::parse(&lines).unwrap());
    let early = before.succeed(&proposal, &both, LOGGED, LOGGED + 3_599);
    assert!(matches!(early.unwrap_err(), Refused::TooEarly { .. }));
}

#[test]
fn a_state_that_skips_an_epoch_or_cannot_be_read_is_none() {
    let before = authority(RULES);
    for body in [
        text(4, RULES),
        text(6, RULES),
        text(5, ""),
        "\u{fffd}".to_owned(),
    ] {
        let proposal = proposal(Kind::Authority, body.as_bytes(), |p| {
            p.proposer = "dan".to_owned()
        });
        let refused = before.succeed(&proposal, &[], LOGGED, NOW).unwrap_err();
        assert!(
            matches!(refused, Refused::StateEpoch { .. } | Refused::State(_)),
            "{refused}"
        );
    }
    let refused = before.succeed(&gateway(), &[], LOGGED, NOW).unwrap_err();
    assert_eq!(refused, Refused::NoState(Kind::Gateway));
}

#[test]
fn an_authority_proposal_is_never_judged_by_the_old_state_alone() {
    let before = authority(RULES);
    let lines = text(5, "rule authority carol\n");
    let proposal = proposal(Kind::Authority, lines.as_bytes(), |p| {
        p.proposer = "dan".to_owned()
    });
    let says = |n, name, verdict| pen(n).says(verdict, name, &proposal);
    let old = [
        says(4, "dan", Verdict::Propose),
        says(1, "alice", Verdict::Approve),
        says(2, "bob", Verdict::Approve),
        says(5, "erin", Verdict::Approve),
    ];

    let refused = judged(&before, &proposal, &old).unwrap_err();
    assert!(matches!(refused, Refused::NoQuorum { .. }), "{refused}");
    let both = [&old[..], &[says(3, "carol", Verdict::Approve)]].concat();
    assert!(judged(&before, &proposal, &both).is_ok());
}

#[test]
fn each_signature_is_told_what_it_does_and_what_is_missing() {
    let proposal = gateway();
    let other = self::proposal(Kind::Gateway, b"another record", |_| ());
    let mut of_other_bytes = pen(3).says(Verdict::Approve, "carol", &other);
    of_other_bytes.proposal_id = Proposal::id(&proposal);
    let signed = [
        pen(1).says(Verdict::Propose, "alice", &proposal),
        pen(1).says(Verdict::Approve, "alice", &proposal),
        pen(11).says(Verdict::Approve, "alice", &proposal),
        pen(2).says(Verdict::Propose, "bob", &proposal),
        pen(2).says(Verdict::Approve, "bob", &proposal),
        pen(4).says(Verdict::Approve, "dan", &proposal),
        of_other_bytes,
        pen(3).says(Verdict::Approve, "carol", &proposal),
        pen(3).says(Verdict::Reject, "carol", &proposal),
    ];

    let standing = Standing::of(&authority(RULES), &proposal, &signed).unwrap();

    let effects = &standing.now().effects;
    let not_signed = Refused::Signature {
        person: "carol".to_owned(),
        error: SshSigError::NotSigned,
    };
    let told = [
        Ok(Effect::Proposes),
        Ok(Effect::Own),
        Err(Refused::Twice("alice".to_owned())),
        Ok(Effect::NotTheirs),
        Ok(Effect::For),
        Ok(Effect::NoDecider),
        Err(not_signed),
        Ok(Effect::Withdrawn),
        Ok(Effect::Against),
    ];
    assert_eq!(effects[..], told);
    let decider = &standing.now().decider;
    let for_it = decider.people().filter(|one| one.is_met);
    let for_it: Vec<_> = for_it.map(|one| one.name.as_str()).collect();
    assert_eq!(for_it, ["bob"]);
    assert!(!decider.is_met && standing.is_proposed());
    assert_eq!(
        decider.group.as_ref().map(|(threshold, _)| *threshold),
        Some(2)
    );
    assert_eq!(standing.stopped_by(2), told[2].as_ref().err());
    assert_eq!(standing.stopped_by(4), None);
}

#[test]
fn what_stands_in_no_log_has_no_effect_and_what_lasts_too_long_never_will() {
    let timed = authority("rule gateway dan min-delay 500 max-life 1000\nrule authority both\n");
    let standing = |change: fn(&mut Proposal)| {
        let proposal = proposal(Kind::Gateway, b"a record", change);
        let signed = [
            pen(1).says(Verdict::Propose, "alice", &proposal),
            pen(4).says(Verdict::Approve, "dan", &proposal),
        ];
        Standing::of(&timed, &proposal, &signed).unwrap()
    };
    let lasting = standing(|p| p.expires = p.not_before + 1_000);

    assert_eq!(lasting.judge(None, NOW - 9_999), Err(Refused::NotLogged));
    let endless = standing(|_| ()).judge(None, NOW);
    assert_eq!(endless, Err(Refused::TooLong { most_s: 1_000 }));
    assert_eq!(lasting.ripe_at(LOGGED), LOGGED + 500);
    assert_eq!(lasting.judge(Some(LOGGED), LOGGED + 500), Ok(()));
    assert_eq!(
        standing(|p| p.not_before += 900).ripe_at(LOGGED),
        LOGGED + 900
    );
}

#[test]
fn the_first_state_of_all_is_signed_by_enough_of_its_own_people() {
    let lines = text(1, "rule authority noc min-delay 3600\n");
    let genesis = |change: fn(&mut Proposal)| {
        proposal(Kind::Authority, lines.as_bytes(), |p| {
            p.authority_epoch = 0;
            change(p);
        })
    };
    let first = genesis(|_| ());
    let proposed = pen(1).says(Verdict::Propose, "alice", &first);
    let bob = pen(2).says(Verdict::Approve, "bob", &first);
    let carol = pen(3).says(Verdict::Approve, "carol", &first);

    let short = Standing::of_first(&first, &[proposed.clone(), bob.clone()]).unwrap();
    let refused = short.judge(None, NOW).unwrap_err();
    assert!(matches!(refused, Refused::NoQuorum { .. }), "{refused}");
    let grown = genesis(|p| p.authority_epoch = 1);
    let refused = Standing::of_first(&grown, &[]).unwrap_err();
    assert_eq!(refused, Refused::Epoch { current: 0, got: 1 });
    let second = proposal(Kind::Authority, text(2, RULES).as_bytes(), |p| {
        p.authority_epoch = 0
    });
    let refused = Standing::of_first(&second, &[]).unwrap_err();
    assert_eq!(refused, Refused::StateEpoch { wanted: 1, got: 2 });
    let refused = Standing::of_first(&gateway(), &[]).unwrap_err();
    assert_eq!(refused, Refused::NoState(Kind::Gateway));
    // No state that holds takes it for a proposal of its own time.
    let later = Authority::parse(&lines).unwrap();
    let refused = Standing::of(&later, &first, &[]).unwrap_err();
    assert_eq!(refused, Refused::Epoch { current: 1, got: 0 });

    let enough = Standing::of_first(&first, &[proposed, bob, carol]).unwrap();
    assert_eq!(enough.judge(None, NOW), Ok(()));
    assert_eq!(enough.state(), Some(&Authority::parse(&lines).unwrap()));
}
