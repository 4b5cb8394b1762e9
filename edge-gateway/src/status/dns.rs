//! Lookups that came sealed, and those that were sent on for others, for `status`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::counts;

/// Lookups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DnsStatus {
    /// All of them.
    pub queries: u64,
    /// By outcome.
    pub outcomes: BTreeMap<String, u64>,
    /// Those that came sealed, by whether a quantum computer could open a recording of them.
    #[serde(default)]
    pub seals: BTreeMap<String, u64>,
    /// Packets that were no lookups, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Answers that had ended and stood in, and questions asked before an answer's end.
    #[serde(default)]
    pub memory: BTreeMap<String, u64>,
    /// Questions to other resolvers and what came back, by event.
    #[serde(default)]
    pub upstream: BTreeMap<String, u64>,
    /// What went through the relay; none where none is configured, or nothing did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relayed: Option<RelayedStatus>,
}

impl DnsStatus {
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = if self.queries > 0 {
            vec![
                format!("lookups    {} ({})", self.queries, counts(&self.outcomes)),
                format!("sealed     {}", counts(&self.seals)),
            ]
        } else {
            vec!["lookups    none yet".to_owned()]
        };
        let others = [
            ("memory    ", &self.memory),
            ("unanswered", &self.dropped),
            ("upstream  ", &self.upstream),
        ];
        let others = others.into_iter().filter(|(_, of)| !of.is_empty());
        lines.extend(others.map(|(title, of)| format!("{title} {}", counts(of))));
        lines.extend(self.relayed.iter().map(RelayedStatus::in_words));
        lines
    }
}

/// Lookups forwarded to other resolvers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RelayedStatus {
    /// Those that were sent on.
    pub queries: u64,
    /// Answers that went back.
    pub answers: u64,
    /// Packets that went nowhere, by reason.
    pub dropped: BTreeMap<String, u64>,
}

impl RelayedStatus {
    fn in_words(&self) -> String {
        format!(
            "forwarded  {} lookups to other resolvers, {} answers ({})",
            self.queries,
            self.answers,
            counts(&self.dropped)
        )
    }
}
