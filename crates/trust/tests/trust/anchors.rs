//! The trust file of an image: each mistake by its place.

use trust::policy::PolicyProblem;
use trust::{Anchors, AnchorsError, PolicyError};

const FILE: &str = include_str!("../../vectors/trust.policy");

#[test]
fn each_mistake_of_a_trust_file_is_named() {
    let fleet_log = FILE.lines().find(|line| line.starts_with("log ")).unwrap();
    let authority_log = FILE
        .lines()
        .filter(|line| line.starts_with("log "))
        .nth(1)
        .unwrap();
    let problem = |section, line, problem| AnchorsError::Policy {
        section,
        error: PolicyError { line, problem },
    };
    for (text, error) in [
        (String::new(), AnchorsError::Sections { line: 1 }),
        (
            "epoch 1\n[fleet]\nquorum none\n".to_owned(),
            AnchorsError::Sections { line: 4 },
        ),
        (
            format!("{FILE}[more]\n"),
            AnchorsError::Sections { line: 17 },
        ),
        (
            FILE.replace("[fleet]", "[authority]"),
            AnchorsError::Sections { line: 4 },
        ),
        (
            FILE.replace("[authority]", "[authority"),
            AnchorsError::Sections { line: 11 },
        ),
        (FILE.replace("epoch 1\n", ""), AnchorsError::NoEpoch),
        (
            FILE.replace("epoch 1", "epoch 0"),
            AnchorsError::Epoch { line: 2 },
        ),
        (
            FILE.replace("epoch 1", "epoch one"),
            AnchorsError::Epoch { line: 2 },
        ),
        (
            FILE.replace("epoch 1", "epoch 1\nepoch 1"),
            AnchorsError::Epoch { line: 3 },
        ),
        (
            FILE.replace("epoch 1", "epoch 1\nlog x"),
            AnchorsError::Epoch { line: 3 },
        ),
        (
            FILE.replace(fleet_log, ""),
            AnchorsError::NoLog { section: "fleet" },
        ),
        (
            FILE.replace(authority_log, ""),
            AnchorsError::NoLog {
                section: "authority",
            },
        ),
        (
            FILE.replace("quorum servers", "quorum none"),
            AnchorsError::NoQuorum { section: "fleet" },
        ),
        (
            FILE.replacen("quorum s", "quorum S", 1),
            problem("fleet", 9, PolicyProblem::UnknownName),
        ),
        (
            FILE.replace(authority_log, "lag"),
            problem("authority", 12, PolicyProblem::UnknownWord),
        ),
        (
            FILE.replace(authority_log, fleet_log),
            AnchorsError::SharedLog,
        ),
        (
            FILE.to_owned() + &"#\n".repeat(40_000),
            AnchorsError::TooBig,
        ),
    ] {
        let short = &text[..text.len().min(400)];
        assert_eq!(Anchors::parse(&text).unwrap_err(), error, "{short}");
    }
}

#[test]
fn a_composed_trust_file_is_read_back() {
    let (head, authority) = FILE.split_once("[authority]\n").unwrap();
    let (_, fleet) = head.split_once("[fleet]\n").unwrap();

    let composed = Anchors::compose(1, fleet, authority);

    assert_eq!(Anchors::parse(&composed), Anchors::parse(FILE));
    assert_eq!(Anchors::parse(FILE).unwrap().authority_epoch, 1);
}
