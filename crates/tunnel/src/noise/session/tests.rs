use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// What the window is to do, said plainly.
#[derive(Default)]
struct Model {
    seen: BTreeSet<u64>,
}

impl Model {
    fn takes(&self, counter: u64) -> Option<bool> {
        let newest = self.seen.last().copied();
        match newest {
            _ if self.seen.contains(&counter) => Some(false),
            Some(newest) if counter + WINDOW <= newest => Some(false),
            // Whether the oldest word counts depends on where the newest is in its own.
            Some(newest) if counter + WINDOW - 64 <= newest => None,
            _ => Some(true),
        }
    }
}

fn judged(counters: &[u64]) {
    let (mut window, mut model) = (Window::default(), Model::default());
    for counter in counters {
        let takes = window.takes(*counter);
        if let Some(expected) = model.takes(*counter) {
            assert_eq!(takes, expected, "{counter} after {:?}", model.seen.last());
        }
        if takes {
            assert!(model.seen.insert(*counter), "{counter} passed twice");
            window.mark(*counter);
        }
    }
}

#[test]
fn the_last_counters_are_neither_used_nor_taken() {
    let window = Window::default();

    assert!(!window.takes(u64::MAX));
    assert!(!window.takes(REJECT_AFTER_MESSAGES));
    assert!(window.takes(REJECT_AFTER_MESSAGES - 1));
}

#[test]
fn a_jump_over_the_whole_window_and_further_forgets_what_was_before() {
    for jump in [
        1,
        63,
        64,
        65,
        WINDOW - 1,
        WINDOW,
        WINDOW + 1,
        3 * WINDOW + 7,
        1 << 60,
    ] {
        let start = 1_000;
        let near = (0..200).map(|n| start + jump - n.min(start + jump));
        let counters: Vec<u64> = (start - 300..start)
            .chain([start + jump])
            .chain(near)
            .collect();
        judged(&counters);
        judged(
            &counters
                .iter()
                .chain(&counters)
                .copied()
                .collect::<Vec<_>>(),
        );
    }
}

proptest! {
    #[test]
    fn each_counter_passes_once_in_whatever_order(
        steps in prop::collection::vec((0_u64..4_200, 0_u64..5_000), 1..400),
    ) {
        let mut base = 0;
        let counters: Vec<u64> = steps
            .iter()
            .map(|(ahead, back)| {
                base += ahead % 97 * u64::from(ahead % 5 == 0) + u64::from(*ahead > 4_100) * 2_500;
                base.saturating_sub(*back % 2_400)
            })
            .collect();
        judged(&counters);
    }
}
