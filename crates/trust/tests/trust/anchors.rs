//! The trust file of an image: each mistake by its place.

use sha2::{Digest, Sha256};
use trust::authority::AuthorityProblem;
use trust::policy::PolicyProblem;
use trust::{Anchors, AnchorsError, AuthorityError, LogSigner, PolicyError};

const FILE: &str = include_str!("../../vectors/trust.policy");

#[test]
fn sections_that_are_missing_misnamed_out_of_order_or_too_many_are_refused() {
    let lines = FILE.lines().count();
    let sections = |line| AnchorsError::Sections { line };
    let line = |heading: &str| 1 + FILE.lines().position(|line| line == heading).unwrap();

    refuses("", sections(1));
    refuses("[fleet]\nquorum none\n", sections(3));
    refuses(&format!("epoch 1\n{FILE}"), sections(1));
    refuses(&FILE.replace("[fleet]", "[authority]"), sections(2));
    refuses(
        &FILE.replace("[authority]", "[authority"),
        sections(line("[authority]")),
    );
    refuses(
        &FILE.replace("[people]", "[fleet]"),
        sections(line("[people]")),
    );
    refuses(&FILE.replace("[people]\n", ""), sections(lines));
}

#[test]
fn people_who_cannot_be_read_are_refused_with_the_line_of_the_file() {
    let line = 1 + FILE.lines().position(|line| line == "epoch 1").unwrap();
    let people = |line, problem| AnchorsError::People(AuthorityError { line, problem });

    refuses(
        &FILE.replace("epoch 1", "epoch 0"),
        people(line, AuthorityProblem::Epoch),
    );
    let last = 1 + FILE.lines().count();
    refuses(
        &format!("{FILE}[more]\n"),
        people(last, AuthorityProblem::UnknownWord),
    );
    let (all, _) = FILE.split_once("rule authority").unwrap();
    refuses(all, people(line - 1, AuthorityProblem::Unchangeable));
}

#[test]
fn a_section_that_would_believe_anything_is_refused() {
    let (fleet, authority) = (log_line(0), log_line(1));

    refuses(
        &FILE.replace(fleet, ""),
        AnchorsError::NoLog { section: "fleet" },
    );
    refuses(
        &FILE.replace(authority, ""),
        AnchorsError::NoLog {
            section: "authority",
        },
    );
    refuses(&FILE.replace(authority, fleet), AnchorsError::SharedLog);
    let namesake = LogSigner::from_seed("culvert.example/fleet", &[9; 32]).unwrap();
    let namesake = format!("log {}", namesake.vkey());
    refuses(&FILE.replace(authority, &namesake), AnchorsError::SharedLog);
    for section in ["fleet", "authority"] {
        let (before, after) = FILE.split_once(&format!("[{section}]")).unwrap();
        let after = after.replacen("quorum servers", "quorum none", 1);
        refuses(
            &format!("{before}[{section}]{after}"),
            AnchorsError::NoQuorum { section },
        );
    }
}

#[test]
fn a_mistake_in_a_policy_is_named_by_section_and_line_of_the_file() {
    let problem = |section, line, problem| AnchorsError::Policy {
        section,
        error: PolicyError { line, problem },
    };

    let unknown = problem(
        "fleet",
        7,
        PolicyProblem::Party(trust::PartyProblem::UnknownName),
    );
    refuses(&FILE.replacen("quorum s", "quorum S", 1), unknown);
    let word = problem("authority", 10, PolicyProblem::UnknownWord);
    refuses(&FILE.replace(log_line(1), "lag"), word);
}

#[test]
fn a_file_beyond_its_size_is_refused() {
    refuses(
        &(FILE.to_owned() + &"#\n".repeat(40_000)),
        AnchorsError::TooBig,
    );
}

#[test]
fn a_composed_trust_file_is_read_back() {
    let (head, people) = FILE.split_once("[people]\n").unwrap();
    let (head, authority) = head.split_once("[authority]\n").unwrap();
    let (_, fleet) = head.split_once("[fleet]\n").unwrap();

    let composed = Anchors::compose(fleet, authority, people);

    assert_eq!(Anchors::parse(&composed), Anchors::parse(FILE));
    let id: [u8; 32] = Sha256::digest(people).into();
    assert_eq!(Anchors::parse(FILE).unwrap().people.id(), &id);
}

#[track_caller]
fn refuses(text: &str, error: AnchorsError) {
    let short = &text[..text.len().min(400)];
    assert_eq!(Anchors::parse(text).unwrap_err(), error, "{short}");
}

fn log_line(place: usize) -> &'static str {
    FILE.lines()
        .filter(|line| line.starts_with("log "))
        .nth(place)
        .unwrap()
}
