//! Every way in which a sequencer, its witnesses, one who lies among them, a thief and two routers can come together, for a log of a few
//! entries: stateright tries them all. What judges there is the code of `trust`.

#![allow(clippy::unwrap_used, reason = "a test's helper fails by panicking")]

mod model;
mod rules;

use std::time::Instant;

use model::{Logs, ONE_HISTORY, Order, SIZE_ONCE, Sequencer};
use rules::Rules;
use stateright::{Checker, HasDiscoveries, Model};

const HONEST: Sequencer = Sequencer::Honest {
    order: Order::DiskFirst,
    has_copy: false,
};
const RESTORED: Sequencer = Sequencer::Honest {
    order: Order::DiskFirst,
    has_copy: true,
};

/// So many of so many witnesses beside the server itself.
fn rules(longest: u32, quorum: usize, witnesses: usize) -> Rules {
    let names: Vec<_> = (1..=witnesses).map(|n| format!("w{n}")).collect();
    let group = format!("group outside {quorum} {}\n", names.join(" "));
    let lines = format!("{group}group enough all server outside\nquorum enough\n");
    Rules::new(witnesses, longest, (u32::try_from(quorum).unwrap(), &lines))
}

fn checked(logs: Logs) -> impl Checker<Logs> {
    let began = Instant::now();
    let name = format!("{:?}, {} liars", logs.sequencer, logs.liars);
    let checker = logs.checker().threads(2);
    let checker = checker.finish_when(HasDiscoveries::AnyFailures);
    let checked = checker.spawn_bfs().join();
    let (states, ms) = (checked.unique_state_count(), began.elapsed().as_millis());
    println!("{name}: {states} states in {ms} ms");
    checked
}

#[track_caller]
fn assert_holds(logs: Logs) {
    let checked = checked(logs);
    checked.assert_properties();
    assert!(checked.is_done());
}

#[track_caller]
fn assert_breaks(logs: Logs, property: &'static str) {
    let checked = checked(logs);
    assert!(checked.discovery(property).is_some(), "{property}");
}

#[test]
fn a_server_that_crashes_at_any_moment_has_one_history_even_beside_a_liar() {
    let rules = rules(3, 2, 3);

    assert_holds(Logs::new(rules, HONEST, 1));
}

#[test]
fn a_server_that_asked_before_its_disk_could_not_continue_its_own_log() {
    let sequencer = Sequencer::Honest {
        order: Order::AskFirst,
        has_copy: false,
    };
    let rules = rules(2, 2, 3);

    assert_breaks(Logs::new(rules, sequencer, 0), SIZE_ONCE);
}

#[test]
fn a_server_restored_from_an_old_copy_makes_no_second_history_where_quorums_share_an_honest_witness()
 {
    for (quorum, liars) in [(2, 0), (3, 1)] {
        let rules = rules(2, quorum, 3);
        assert_holds(Logs::new(rules, RESTORED, liars));
    }

    let rules = rules(2, 2, 3);
    assert_breaks(Logs::new(rules, RESTORED, 1), ONE_HISTORY);
}

#[test]
fn who_has_all_keys_of_a_server_makes_a_second_history_just_where_quorums_share_no_honest_witness()
{
    for witnesses in 1..=4 {
        for quorum in 1..=witnesses {
            for liars in 0..=witnesses.min(2) {
                let rules = rules(2, quorum, witnesses);
                assert_eq!(rules.shared, (2 * quorum).saturating_sub(witnesses));
                let logs = Logs::new(rules, Sequencer::Stolen, liars);
                if 2 * quorum > witnesses + liars {
                    assert_holds(logs);
                } else {
                    assert_breaks(logs, ONE_HISTORY);
                }
            }
        }
    }
}

#[test]
fn what_quorums_of_groups_share_tells_how_many_may_lie() {
    let pairs = "group one all w1 w2\ngroup two all w3 w4\n";
    let servers = "group team 2 server w1 w2\ngroup outside any w3 w4\n";
    let teams = "group team 2 w1 w2 w3\n";
    for (lines, least, shared) in [
        (format!("{pairs}group enough any one two\n"), 2, 0),
        (format!("{pairs}group enough all one two\n"), 4, 4),
        (format!("{teams}group enough all team w4\n"), 3, 2),
        (format!("{teams}group enough any team w4\n"), 1, 0),
        ("group enough 3 w1 w2 w3 w4\n".to_owned(), 3, 2),
        ("group enough all w4\n".to_owned(), 1, 1),
        // Two of three servers and one of two others, where one of the servers is stolen.
        (format!("{servers}group enough all team outside\n"), 2, 0),
    ] {
        let lines = lines + "quorum enough\n";
        for liars in 0..=shared {
            let rules = Rules::new(4, 2, (least, &lines));
            assert_eq!(rules.shared, shared, "{lines}");
            let logs = Logs::new(rules, Sequencer::Stolen, liars);
            if liars < shared {
                assert_holds(logs);
            } else {
                assert_breaks(logs, ONE_HISTORY);
            }
        }
    }
}
