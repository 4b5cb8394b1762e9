//! The trust file of an image: each mistake by its place.

use trust::policy::PolicyProblem;
use trust::{Anchors, AnchorsError, LogSigner, PolicyError};

const FILE: &str = include_str!("../../vectors/trust.policy");

#[test]
fn sections_that_are_missing_misnamed_or_too_many_are_refused() {
    refuses("", AnchorsError::Sections { line: 1 });
    refuses(
        "epoch 1\n[fleet]\nquorum none\n",
        AnchorsError::Sections { line: 4 },
    );
    refuses(
        &format!("{FILE}[more]\n"),
        AnchorsError::Sections { line: 17 },
    );
    refuses(
        &FILE.replace("[fleet]", "[authority]"),
        AnchorsError::Sections { line: 4 },
    );
    refuses(
        &FILE.replace("[authority]", "[authority"),
        AnchorsError::Sections { line: 11 },
    );
}

#[test]
fn an_epoch_that_is_missing_doubled_or_no_number_is_refused() {
    refuses(&FILE.replace("epoch 1\n", ""), AnchorsError::NoEpoch);
    for (epoch, line) in [
        ("epoch 0", 2),
        ("epoch one", 2),
        ("epoch 1\nepoch 1", 3),
        ("epoch 1\nlog x", 3),
    ] {
        refuses(
            &FILE.replace("epoch 1", epoch),
            AnchorsError::Epoch { line },
        );
    }
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
        9,
        PolicyProblem::Party(trust::PartyProblem::UnknownName),
    );
    refuses(&FILE.replacen("quorum s", "quorum S", 1), unknown);
    let word = problem("authority", 12, PolicyProblem::UnknownWord);
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
    let (head, authority) = FILE.split_once("[authority]\n").unwrap();
    let (_, fleet) = head.split_once("[fleet]\n").unwrap();

    let composed = Anchors::compose(1, fleet, authority);

    assert_eq!(Anchors::parse(&composed), Anchors::parse(FILE));
    assert_eq!(Anchors::parse(FILE).unwrap().authority_epoch, 1);
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
