//! Who can do what. The server's rules are those of provisioning/src/log/head.rs (`seal`, `publish`) and provisioning/src/publish.rs
//! (`ask_all`, `cosigned`); that an answer follows the disk is provisioning/src/witness/book.rs (`cosign`).

use stateright::{Model, Property};

use crate::rules::{Head, Rules, continued, continues, size};

pub(crate) const ONE_HISTORY: &str = "no two histories have a quorum";
pub(crate) const SIZE_ONCE: &str = "a server with its disk shows one head of a size";
const MOST_WITNESSES: usize = 4;
const ROUTERS: usize = 2;

/// Who seals heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sequencer {
    /// Our server, which crashes at any moment.
    Honest {
        order: Order,
        /// Whether its database may once be replaced by an older copy.
        has_copy: bool,
    },
    /// Whoever has its keys: any head may be shown to anybody.
    Stolen,
}

/// What comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// As it is: what is shown is on disk.
    DiskFirst,
    /// As it must not be.
    AskFirst,
}

/// A log and all who are about it; the last witnesses are the ones that lie.
#[derive(Debug)]
pub(crate) struct Logs {
    rules: Rules,
    pub(crate) sequencer: Sequencer,
    pub(crate) liars: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Disk {
    sealed: Head,
    published: Option<Head>,
}

/// Messages are never lost for good and never in order: what was once shown can be shown again, and a cosignature stays one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    disk: Disk,
    /// Sealed, and not on disk yet.
    draft: Option<Head>,
    /// What the server has in memory, and shows to witnesses.
    current: Option<Head>,
    copy: Option<Disk>,
    is_restored: bool,
    /// The heads that others have seen the log's signature on.
    shown: u32,
    /// What each honest witness has on its disk, and all that it has cosigned.
    last: [Option<Head>; MOST_WITNESSES],
    cosigned: [u32; MOST_WITNESSES],
    /// What each router has on its flash.
    seen: [Option<Head>; ROUTERS],
    has_gone_back: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Append(u8),
    Commit,
    Show,
    Publish,
    Crash,
    Copy,
    Restore,
    Cosign(usize, Head),
    Read(usize, Head),
}

impl Logs {
    pub(crate) fn new(rules: Rules, sequencer: Sequencer, liars: usize) -> Self {
        assert!(liars <= rules.witnesses && rules.witnesses <= MOST_WITNESSES);
        Self {
            rules,
            sequencer,
            liars,
        }
    }

    fn honest(&self) -> usize {
        self.rules.witnesses - self.liars
    }

    /// The witnesses whose cosignature of this head somebody has; a liar cosigns whatever the log has signed.
    fn cosigners(&self, state: &State, head: Head) -> usize {
        let has = |at: usize| {
            let heads = if at < self.honest() {
                state.cosigned[at]
            } else {
                state.shown
            };
            usize::from(is_in(heads, head)) << at
        };
        (0..self.rules.witnesses).map(has).sum()
    }

    fn has_quorum(&self, state: &State, head: Head) -> bool {
        is_in(state.shown, head) && self.rules.suffices(head, self.cosigners(state, head))
    }

    /// Whether each of the heads for which something holds continues all that are shorter.
    fn is_one_history(&self, holds: impl Fn(Head) -> bool) -> bool {
        let mut last = 0;
        (0..self.rules.heads)
            .filter(|head| holds(*head))
            .all(|head| {
                let continues = continues(last, head);
                last = head;
                continues
            })
    }

    fn server_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let Sequencer::Honest { order, has_copy } = self.sequencer else {
            return;
        };
        let disk = &state.disk;
        if state.draft.is_none() && size(disk.sealed) < self.rules.longest {
            actions.extend([Action::Append(0), Action::Append(1)]);
        }
        if state.draft.is_some() && order == Order::AskFirst {
            actions.push(Action::Commit);
        }
        if state.current.is_none() && disk.published != Some(disk.sealed) {
            actions.push(Action::Show);
        }
        if state
            .current
            .is_some_and(|head| self.has_quorum(state, head))
        {
            actions.push(Action::Publish);
        }
        if state.current.is_some() || state.draft.is_some() {
            actions.push(Action::Crash);
        }
        if has_copy && state.copy.is_none() {
            actions.push(Action::Copy);
        }
        if state.copy.is_some_and(|copy| copy != *disk) && !state.is_restored {
            actions.push(Action::Restore);
        }
    }

    fn append(&self, state: &mut State, entry: u8) {
        let head = continued(state.disk.sealed, entry);
        match self.sequencer {
            Sequencer::Honest {
                order: Order::AskFirst,
                ..
            } => {
                state.draft = Some(head);
                state.shown |= 1 << head;
            }
            Sequencer::Honest { .. } | Sequencer::Stolen => state.disk.sealed = head,
        }
    }

    fn read(&self, state: &mut State, router: usize, head: Head) {
        let before = state.seen[router].replace(head);
        state.has_gone_back |= before.is_some_and(|before| !continues(before, head));
        // It does not matter which router is which.
        state.seen.sort_unstable();
    }

    fn effects(state: &State) -> impl Iterator<Item = Head> {
        state.seen.into_iter().flatten().chain(state.disk.published)
    }
}

impl Model for Logs {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let shown = match self.sequencer {
            Sequencer::Honest { .. } => 0,
            Sequencer::Stolen => (1 << self.rules.heads) - 1,
        };
        vec![State {
            disk: Disk {
                sealed: 0,
                published: None,
            },
            draft: None,
            current: None,
            copy: None,
            is_restored: false,
            shown,
            last: [None; MOST_WITNESSES],
            cosigned: [0; MOST_WITNESSES],
            seen: [None; ROUTERS],
            has_gone_back: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.server_actions(state, actions);
        for head in (0..self.rules.heads).filter(|head| is_in(state.shown, *head)) {
            for at in 0..self.honest() {
                if state.last[at] != Some(head) && self.rules.cosigns(head, state.last[at]) {
                    actions.push(Action::Cosign(at, head));
                }
            }
            if self.has_quorum(state, head) {
                let routers = 0..ROUTERS;
                let reads = |at: &usize| {
                    state.seen[*at] != Some(head) && self.rules.reads(head, state.seen[*at])
                };
                actions.extend(routers.filter(reads).map(|at| Action::Read(at, head)));
            }
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        match action {
            Action::Append(entry) => self.append(&mut next, entry),
            Action::Commit => next.disk.sealed = next.draft.take()?,
            Action::Show => {
                next.current = Some(next.disk.sealed);
                next.shown |= 1 << next.disk.sealed;
            }
            Action::Publish => next.disk.published = next.current.take(),
            Action::Crash => (next.current, next.draft) = (None, None),
            Action::Copy => next.copy = Some(next.disk),
            Action::Restore => {
                next.disk = next.copy?;
                (next.current, next.is_restored) = (None, true);
            }
            Action::Cosign(at, head) => {
                next.last[at] = Some(head);
                next.cosigned[at] |= 1 << head;
            }
            Action::Read(router, head) => self.read(&mut next, router, head),
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(ONE_HISTORY, |logs: &Self, state: &State| {
                logs.is_one_history(|head| logs.has_quorum(state, head))
            }),
            Property::always(
                "no honest witness cosigns two histories",
                |logs: &Self, state: &State| {
                    let mut honest = state.cosigned.iter().take(logs.honest());
                    honest.all(|heads| logs.is_one_history(|head| is_in(*heads, head)))
                },
            ),
            Property::always(SIZE_ONCE, |logs: &Self, state: &State| {
                let is_lost = state.is_restored || logs.sequencer == Sequencer::Stolen;
                let heads = (0..logs.rules.heads).filter(|head| is_in(state.shown, *head));
                is_lost || heads.map(size).is_sorted_by(|one, other| one < other)
            }),
            Property::always(
                "nothing takes effect without a quorum",
                |logs: &Self, state: &State| {
                    let enough =
                        |head| logs.cosigners(state, head).count_ones() >= logs.rules.least;
                    Self::effects(state).all(enough)
                },
            ),
            Property::always("no router goes back", |_, state: &State| {
                !state.has_gone_back
            }),
            Property::sometimes("a router goes on", |_, state: &State| {
                state.seen.iter().flatten().any(|head| size(*head) > 1)
            }),
        ];
        if let Sequencer::Honest { has_copy, .. } = self.sequencer {
            properties.push(Property::sometimes(
                "all is published",
                |logs: &Self, state: &State| {
                    state.disk.published.map(size) == Some(logs.rules.longest)
                },
            ));
            if has_copy {
                let forgotten = |_: &Self, state: &State| {
                    state.is_restored && state.last[0].map(size) > Some(size(state.disk.sealed))
                };
                properties.push(Property::sometimes("a witness is ahead", forgotten));
            }
        }
        properties
    }
}

fn is_in(heads: u32, head: Head) -> bool {
    heads >> head & 1 == 1
}
